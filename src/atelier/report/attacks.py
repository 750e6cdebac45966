"""What a study's page shows of classifiers under attack: the matrix, curves over epsilon, and the checks."""

from functools import partial
from itertools import cycle
from statistics import fmean
from typing import TYPE_CHECKING, Any

from atelier.report import tables
from atelier.report.drawing import COLOURS, STYLES, Plans, grid
from atelier.report.results import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = {"clean": "test.accuracy"} | {name.removeprefix("under_"): f"test.{name}" for name in tables.ATTACKS}
GLANCES = ("fgsm_accuracy", "pgd_accuracy")
NOTE = (
    "Test accuracy on items that were moved within epsilon of every pixel. gaussian: noise of that sigma; fgsm: one "
    "step along the sign of the gradient; universal: one perturbation for all, fitted on 5,000 training items; pgd: "
    "projected gradient descent from random starts, where an item counts as right only if none of them fools the net. "
    "The rest is measured on the first of the test items. squares: a random search of 300 queries, without gradients; "
    "transfer: what PGD makes of the items against other nets of the study. Whether a weak attack flatters a net: "
    "steps rise, the largest rise of accuracy from some number of steps to a larger one; steps left and restarts left, "
    "what four times as many still take off; squares gain and transfer gain, the share of items that these fool and "
    "PGD does not; far, accuracy under PGD at epsilon 0.5, within which every image can be made grey; zero gradient, "
    "the share of items whose gradient is 0. The picture of examples shows an item of each class under what the net "
    "says of it, and what the perturbation of all and PGD add to it: grey is nothing, black and white are epsilon."
)


def attacked(results: Results) -> dict[str, list[dict[str, Any]]]:
    """What was left to draw, one dict a seed, of the models that were attacked."""
    left = {model: entry.get("series") or [] for model, entry in results.models.items()}
    return {model: [run["attacked"] for run in runs] for model, runs in left.items() if runs and "attacked" in runs[0]}


def matrix(results: Results) -> str:
    """A row for each model, a column for each attack."""
    return _table(results, COLUMNS, "Test accuracy (%)")


def checks(results: Results) -> str:
    columns = {name.replace("_", " "): f"test.{name}" for name in tables.CHECKS}
    return _table(results, columns, "Checks of the attack (%)")


def _table(results: Results, columns: dict[str, str], head: str) -> str:
    rows = [
        [model, *(tables.spread(metric, results.summary(model, metric)) for metric in columns.values())]
        for model in attacked(results)
    ]
    return tables.table([head, *columns], rows)


def plans(results: Results) -> Plans:
    """None where nothing was attacked."""
    series = attacked(results)
    if not series:
        return {}
    first = next(iter(series.values()))[0]
    few = f"the first {first['items']:,} test items"
    found: Plans = {
        "attack-matrix.png": (
            f"Trained on (rows), judged on (columns): test accuracy in percent at epsilon {first['epsilon']:g}, means "
            "over seeds and half of the 95 % interval.",
            partial(_draw_matrix, results),
        ),
        "attack-epsilon.png": (
            f"Accuracy on {few} against epsilon (for Gaussian noise its sigma): means and range over seeds; pgd from "
            "one random start.",
            partial(_draw_curves, series),
        ),
        "attack-strength.png": (
            f"Does a longer attack find more? Accuracy on {few} at epsilon {first['epsilon']:g} against the steps of "
            "PGD from one random start, and against its random starts: means over seeds.",
            partial(_draw_strength, series),
        ),
    }
    trained = [model for model in results.models if set(_glances(results, model)) == set(GLANCES)]
    if trained:
        caption = (
            "While training on hard inputs: accuracy of held-out items under FGSM (dashed) and ten steps of PGD "
            "(solid), means and range over seeds. Where dashes rise and the line falls, the net has learned to mislead "
            "one step of the gradient: catastrophic overfitting."
        )
        found["attack-training.png"] = caption, partial(_draw_training, results, trained)
    return found


def _glances(results: Results, model: str) -> dict[str, str]:
    """Figure -> its name in the curves."""
    return {metric.partition(".")[2]: metric for metric in results.curve_metrics(model) if metric.endswith(GLANCES)}


def _draw_matrix(results: Results) -> "Figure":
    models = list(attacked(results))
    figure, (axes,) = grid(1, 1, 2.4 + 0.95 * len(COLUMNS), 1.0 + 0.42 * len(models))
    for y, model in enumerate(models):
        for x, metric in enumerate(COLUMNS.values()):
            found = results.summary(model, metric)
            if found and found["mean"] is not None:
                mean, ends = 100 * found["mean"], found["ci95"]
                spread = f"\n± {50 * (ends[1] - ends[0]):.1f}" if ends else ""
                axes.text(x, y, f"{mean:.1f}{spread}", ha="center", va="center", fontsize=7)
    shades = [[_mean(results, model, metric) for metric in COLUMNS.values()] for model in models]
    axes.imshow(shades, cmap="RdYlGn", vmin=0, vmax=1, alpha=0.55, aspect="auto")
    axes.set_xticks(range(len(COLUMNS)), list(COLUMNS))
    axes.set_yticks(range(len(models)), models)
    axes.grid(False)
    axes.set(xlabel="judged on", ylabel="trained on")
    return figure


def _mean(results: Results, model: str, metric: str) -> float:
    found = results.summary(model, metric)
    return float("nan") if not found or found["mean"] is None else found["mean"]


def _draw_curves(series: dict[str, list[dict[str, Any]]]) -> "Figure":
    first = next(iter(series.values()))[0]
    ways = [way for way in COLUMNS if way in first["curves"]]
    figure, panels = grid(len(ways), 2, 4.4, 3.2, sharey=True)
    for axes, way in zip(panels, ways, strict=True):
        for (model, runs), colour in zip(series.items(), cycle(COLOURS)):
            lines = [[100 * value for value in run["curves"][way]] for run in runs]
            _line(axes, runs[0]["epsilons"], lines, color=colour, label=model)
        axes.axvline(first["epsilon"], color="0.6", linestyle=STYLES[2])
        axes.set(title=way, xlabel="epsilon", ylabel="accuracy (%)")
    panels[0].legend(fontsize=7)
    return figure


def _draw_strength(series: dict[str, list[dict[str, Any]]]) -> "Figure":
    figure, (steps, starts) = grid(2, 2, 4.4, 3.2, sharey=True)
    ladder = next(iter(series.values()))[0]["steps"][0]
    for (model, runs), colour in zip(series.items(), cycle(COLOURS)):
        _line(steps, ladder, [[100 * v for v in run["steps"][1]] for run in runs], color=colour, label=model)
        tried = range(1, len(runs[0]["restarts"]) + 1)
        _line(starts, tried, [[100 * v for v in run["restarts"]] for run in runs], color=colour, label=model)
    steps.set(xscale="log", xlabel="steps", ylabel="accuracy (%)")
    steps.set_xticks(ladder, [str(tried) for tried in ladder])
    steps.minorticks_off()
    starts.set(xlabel="random starts")
    starts.legend(fontsize=7)
    return figure


def _draw_training(results: Results, models: list[str]) -> "Figure":
    figure, panels = grid(len(models), 3, 3.4, 2.8, sharey=True)
    for axes, model, colour in zip(panels, models, cycle(COLOURS)):
        for name, style in zip(GLANCES, (STYLES[1], STYLES[0]), strict=True):
            epochs, values = results.over_seeds(model, _glances(results, model)[name])
            lines = [[100 * value for value in seed] for seed in zip(*values, strict=True)]
            _line(axes, epochs, lines, color=colour, linestyle=style)
        axes.set(title=model, xlabel="epoch", ylabel="accuracy (%)")
    return figure


def _line(axes: Any, x: Any, lines: list[list[float]], **look: Any) -> None:
    """The mean of the lines, and their range shaded."""
    columns = list(zip(*lines, strict=True))
    axes.plot(x, [fmean(column) for column in columns], marker=".", linewidth=1.2, **look)
    axes.fill_between(x, [min(c) for c in columns], [max(c) for c in columns], color=look["color"], alpha=0.15, lw=0)
