"""The page on accuracy_rounded: what the figure that two sources call accuracy says, and what it does not."""

import functools
from collections.abc import Iterator
from statistics import fmean
from typing import TYPE_CHECKING

from atelier import stats
from atelier.report import drawing, tables
from atelier.report.catalogue import Report
from atelier.report.results import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROWS = ("D0.1", "D0.2", "D0.3", "D1.1", "D1.2", "D1.3", "D1.4", "D1.5")
METRIC = "accuracy_rounded"
RELATION = """\
Two sources round the ten probabilities of an item, compare them one by one with the one-hot label, and take the mean
over items and classes. Let c and w be the shares of items of which the net is sure, with more than half of the
probability on one class, and right or wrong. An item that it is sure of and right about has all ten elements right;
sure and wrong, eight; not sure, nine: all are rounded to 0, and nine of them should be. So the figure is
(10 c + 8 w + 9 (1 − c − w)) / 10 = 0.9 + (c − w) / 10. A net that is sure of nothing, as one before training, scores
0.9 and not 0.1; the range is 0.8 to 1; and one point of it is up to ten points of accuracy."""


def models(reports: dict[str, Report]) -> Iterator[tuple[str, str, str, Results]]:
    """(row, study, model, results) of every model that bears a row whose source used the figure, by row."""
    found = [
        (row, name, model, report.results)
        for name, report in reports.items()
        for model in report.results.models
        for row in report.study.models[model].rows
        if row in ROWS
        and f"test.{METRIC}" in report.results.metrics(model)
        and {"test.accuracy", f"test.{METRIC}"} <= set(report.results.curve_metrics(model))
    ]
    yield from sorted(found, key=lambda entry: ROWS.index(entry[0]))


def page(reports: dict[str, Report], pictures: dict[str, str]) -> str:
    """index.md; a line where no study that has run bears such a row."""
    known = list(models(reports))
    if not known:
        return "# Accuracy from rounded probabilities\n\nNo study that has run bears a row whose source used it.\n"
    published = {
        (name, model): said[f"test.{METRIC}"]
        for name, report in reports.items()
        for model, said in report.study.published.items()
        if f"test.{METRIC}" in said
    }
    sections = [
        "# Why does accuracy come out too high when it is taken from rounded probabilities?",
        f"**Answer.** {answer(known)}",
        RELATION,
        "## Both figures side by side",
        side_by_side(known, reports),
        "Means with 95 % intervals over seeds. The column of the formula is computed from c and w, and agrees with the "
        "figure to rounding: that is the proof.",
        *(f"![{caption}](figures/{file})\n\n*{caption}*" for file, caption in pictures.items()),
        "## What a published figure would have been",
        translated(known, published),
    ]
    return "\n\n".join(sections) + "\n"


def side_by_side(known: list, reports: dict[str, Report]) -> str:
    """Accuracy, the rounded figure and the formula of it, on training and on test items."""
    columns = [
        "Row",
        "Study",
        "Model",
        "Items",
        "Accuracy (%)",
        "Rounded (%)",
        "90 + (c − w) / 10 (%)",
        "Published as accuracy",
    ]
    body = []
    for row, name, model, results in known:
        for split in ("train", "test"):
            said = reports[name].study.published.get(model, {}).get(f"{split}.{METRIC}")
            cells = [results.summary(model, f"{split}.{m}") for m in ("accuracy", METRIC)]
            shown = [tables.spread(f"{split}.accuracy", cell) for cell in cells]
            body.append(
                [
                    row,
                    f"[{name}](../studies/{name}/index.md)",
                    model,
                    split,
                    *shown,
                    _formula(results, model, split),
                    tables.published(f"{split}.accuracy", said),
                ]
            )
    return tables.table(columns, body)


def answer(known: list) -> str:
    differences = [
        abs(_by_formula(results, model, "test") - results.summary(model, f"test.{METRIC}")["mean"])
        for _, _, model, results in known
        if results.summary(model, "test.sure_right")
    ]
    agrees = f"; the formula and the figure differ by {max(differences):.1g} at most" if differences else ""
    gaps = [
        results.metrics(m)[f"test.{METRIC}"]["mean"] - results.metrics(m)["test.accuracy"]["mean"]
        for _, _, m, results in known
    ]
    return (
        "It counts ten elements for each item, nine of which are zeros that even a silent net gets right, so it starts "
        f"at 0.9 and equals 0.9 + (c − w) / 10. On the test items of the nets below it lies {100 * min(gaps):.1f} to "
        f"{100 * max(gaps):.1f} points above accuracy{agrees}."
    )


def _by_formula(results: Results, model: str, split: str) -> float | None:
    right, wrong = (results.summary(model, f"{split}.sure_{how}") for how in ("right", "wrong"))
    return 0.9 + (right["mean"] - wrong["mean"]) / 10 if right and wrong else None


def _formula(results: Results, model: str, split: str) -> str:
    value = _by_formula(results, model, split)
    return tables.MISSING if value is None else tables.number("accuracy", value)


def translated(known: list, published: dict) -> str:
    """For every published rounded figure on test items: the accuracy of our nets when theirs was the same."""
    rows = []
    for row, name, model, results in known:
        said = published.get((name, model))
        if said is None:
            continue
        found = [_accuracy_when(results, model, seed, said) for seed in results.seeds]
        shown = tables.spread_with_unit("test.accuracy", stats.summary(found))
        highest = max(
            point.get(f"test.{METRIC}") or 0 for seed in results.seeds for point in results.curves[model][seed].values()
        )
        note = "" if None not in found else f"our nets come to {tables.number('accuracy', highest)} % at most"
        rows.append([row, model, f"{100 * said:.2f} %", shown, note])
    head = (
        "Accuracy on test items at the moment of training when the rounded figure is as published, between evaluated "
        "epochs in a straight line; mean and 95 % interval over seeds."
    )
    return f"{head}\n\n" + tables.table(["Row", "Model", "Published", "Accuracy at that", ""], rows)


def _accuracy_when(results: Results, model: str, seed: int, said: float) -> float | None:
    points = sorted(results.curves[model][seed].items())
    pairs = [(point[f"test.{METRIC}"], point["test.accuracy"]) for _, point in points]
    for (before, low), (after, high) in zip(pairs, pairs[1:], strict=False):
        if before <= said <= after and after > before:
            return low + (high - low) * (said - before) / (after - before)
    return None


def pictures(reports: dict[str, Report]) -> drawing.Plans:
    if not any(models(reports)):
        return {}
    caption = (
        "Accuracy (solid) and the rounded figure (dashed) on test items over epochs, means over seeds; dotted: 0.9, "
        "what a net that is sure of nothing scores."
    )
    return {"both.png": (caption, functools.partial(_draw, list(models(reports))))}


def _draw(known: list) -> "Figure":
    figure, panels = drawing.grid(len(known), 3, 3, 2.3)
    for axes, (row, _, model, results) in zip(panels, known, strict=True):
        curves = results.curves[model]
        epochs = sorted(curves[results.seeds[0]])
        for metric, style, colour in (("accuracy", "-", drawing.COLOURS[0]), (METRIC, "--", drawing.COLOURS[1])):
            mean = [fmean(curves[seed][epoch][f"test.{metric}"] for seed in results.seeds) for epoch in epochs]
            axes.plot(epochs, mean, style, color=colour, linewidth=1.2)
        axes.axhline(0.9, color="0.5", linestyle=":", linewidth=1)
        axes.set(title=f"{row} {model}", ylim=(0, 1), xlabel="epoch")
    return figure
