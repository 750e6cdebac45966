"""What a narrow hidden layer gives, as features for other classifiers: beside the net, its pixels, and PCA."""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from annotated_types import Ge

from atelier.data.store import Store
from atelier.errors import AtelierError
from atelier.experiments import dense_net
from atelier.layers import Width
from atelier.report.drawing import COLOURS, STYLES, Plans, grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor, nn

    from atelier.data.items import Items

FLOORS = {
    "no-gain": {"test.logistic_gain": 0.0, "test.neighbours_gain": 0.0},
    "a-point-less": {"test.logistic_gain": -0.01, "test.neighbours_gain": -0.01},
}
WIDE = 256  # units before the narrow layer, and after it
BATCH, PATIENCE = 128, 5
NEIGHBOURS = (1, 3, 5, 9, 15, 25)
STRENGTHS = (0.01, 0.1, 1.0, 10.0)  # C of logistic regression, the inverse of its penalty
SHOWN = 2_000  # test items in the picture of two numbers
METHODS = ("logistic", "neighbours")

Features = Literal["bottleneck", "pca", "pixels"]


def measure(
    seed: int,
    store: Store,
    *,
    features: Features,
    width: Width | None = None,
    items: Annotated[int, Ge(max(NEIGHBOURS))] = 20_000,
    epochs: Annotated[int, Ge(1)] = 30,
) -> dict[str, Any]:
    """Of `items` training items, drawn by the seed: all their pixels; the leading `width` principal components; or the
    `width` outputs of a linear layer between two of 256 ReLU units, of a net that learned the labels (and stopped when
    validation loss had not fallen for 5 epochs).

    Test accuracy: accuracy, of that net; logistic, of logistic regression on standardised features; neighbours, of the
    k nearest. Its penalty and k are those with the highest accuracy on a quarter as many validation items.
    logistic_gain and neighbours_gain: these less the net's own. nll: cross-entropy of logistic regression, in nats.
    """
    if (width is None) != (features == "pixels"):
        raise AtelierError(
            f"width is {width} and features {features}; give a width to bottleneck and pca, and no other"
        )
    started, rng = time.perf_counter(), np.random.default_rng(seed)
    counts = {"train": items, "validation": items // 4, "test": None}
    parts = [drawn(store, split, count, rng) for split, count in counts.items()]
    seen = [part.x.flatten(1).numpy() for part in parts]
    labels = [part.y.numpy() for part in parts]
    found: dict[str, float] = {}
    if features == "bottleneck":
        model = trained(store, seed, width, epochs, *parts[:2])
        seen = [answered(lambda x: narrow(model, x), part.x) for part in parts]
        found["test.accuracy"] = float((answered(model.classify, parts[2].x).argmax(axis=1) == labels[2]).mean())
    elif features == "pca":
        seen = projected(seen, width, seed)
    judged, settings = judge(seen, labels)
    found |= {f"test.{name}": value for name, value in judged.items()}
    if features == "bottleneck":
        found |= {f"test.{method}_gain": judged[method] - found["test.accuracy"] for method in METHODS}
    series = {"figures": found, "chosen": settings}
    if width == 2:
        series["map"] = [column[:SHOWN].tolist() for column in (*seen[2].T, labels[2])]
    return found | {"train_s": time.perf_counter() - started, "series": series}


def drawn(store: Store, split: str, count: int | None, rng: np.random.Generator) -> "Items":
    """So many items of a split, or fewer where it has fewer, in random order; all of them, in theirs, if None."""
    import torch

    from atelier.data.items import Items, items

    whole = items(store, split, None, hold_out=True)
    rows = torch.from_numpy(np.arange(len(whole)) if count is None else rng.permutation(len(whole))[:count])
    x = whole.x[rows]
    return Items(x, x, whole.y[rows])


def trained(store: Store, seed: int, width: int, epochs: int, train: "Items", validation: "Items") -> "nn.Module":
    from atelier.fit import fit
    from atelier.params import Recipe

    recipe = Recipe(epochs=epochs, batch=BATCH, hold_out=True, patience=PATIENCE)
    model = dense_net(store, seed, recipe, hidden=(WIDE, width, WIDE), activation=("relu", "linear", "relu"))
    fit(model, recipe, seed, train, ("validation", validation))
    return model.eval()


def narrow(model: "nn.Module", x: "Tensor") -> "Tensor":
    """What the second, linear layer gives: (n, *shape) -> (n, width)."""
    return model.layers[1](model.layers[0](x.flatten(1)).relu())


def answered(call: Callable[["Tensor"], "Tensor"], x: "Tensor") -> np.ndarray:
    import torch

    with torch.no_grad():
        return call(x).numpy()


def projected(seen: Sequence[np.ndarray], width: int, seed: int) -> list[np.ndarray]:
    """On the leading principal components of the first."""
    from sklearn.decomposition import PCA

    pca = PCA(width, random_state=seed).fit(seen[0])
    return [pca.transform(x) for x in seen]


def judge(seen: Sequence[np.ndarray], labels: Sequence[np.ndarray]) -> tuple[dict[str, float], dict[str, float]]:
    """Test figures of both classifiers, and their settings; features (n, width), labels: train, validation, test."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def logistic(c: float) -> Any:
        return make_pipeline(StandardScaler(), LogisticRegression(C=c, tol=1e-3, max_iter=500))

    def neighbours(k: int) -> Any:
        return KNeighborsClassifier(k, algorithm="brute")

    found, settings = {}, {}
    for method, make, tried in (("logistic", logistic, STRENGTHS), ("neighbours", neighbours, NEIGHBOURS)):
        fitted = {setting: make(setting).fit(seen[0], labels[0]) for setting in tried}
        best = max(tried, key=lambda setting: fitted[setting].score(seen[1], labels[1]))  # of equal ones the first
        found[method], settings[method] = float(fitted[best].score(seen[2], labels[2])), best
        if method == "logistic":
            answers = fitted[best].predict_proba(seen[2])
            found["nll"] = float(log_loss(labels[2], answers, labels=fitted[best].classes_))
    return found, settings


def text(models: dict[str, dict[str, Any]], series: dict[str, list[Any]]) -> str:
    """What was chosen on validation items, model by model."""
    rows = ["## Chosen on validation items", "", "| Model | C of logistic regression | Neighbours |"]
    rows.append("| :-- | :-- | :-- |")
    for model, runs in series.items():
        told = (", ".join(f"{run['chosen'][method]:g}" for run in runs) for method in METHODS)
        rows.append(f"| {model} | {' | '.join(told)} |")
    return "\n".join([*rows, "", "One figure for each seed."])


def pictures(store: Store, models: dict[str, dict[str, Any]], series: dict[str, list[Any]]) -> Plans:
    caption = "Test accuracy against the number of features, means over seeds; grey: all pixels, the net itself dashed."
    plans: Plans = {"widths.png": (caption, lambda: _draw_widths(models, series))}
    maps = {model: runs[0]["map"] for model, runs in series.items() if "map" in runs[0]}
    if maps:
        caption = f"Test items by two numbers, first seed; colours are classes ({', '.join(store.classes)})."
        plans["maps.png"] = caption, lambda: _draw_maps(maps)
    return plans


def _draw_widths(models: dict[str, dict[str, Any]], series: dict[str, list[Any]]) -> "Figure":
    figure, panels = grid(len(METHODS), 2, 4.5, 3.2, sharey=True)
    for axes, method in zip(panels, METHODS, strict=True):
        for colour, features in zip(COLOURS, ("bottleneck", "pca"), strict=False):
            _line(axes, models, series, features, f"test.{method}", color=colour, label=features)
        _line(
            axes,
            models,
            series,
            "bottleneck",
            "test.accuracy",
            color="0.2",
            linestyle=STYLES[1],
            label="the net itself",
        )
        for model, settings in models.items():
            if settings["features"] == "pixels":
                figures = [run["figures"][f"test.{method}"] for run in series[model]]
                axes.axhline(100 * np.mean(figures), color="0.6", label="all pixels")
        axes.set(title=method, xlabel="features", xscale="log", ylabel="test accuracy (%)")
        widths = sorted({settings["width"] for settings in models.values() if settings.get("width")})
        axes.set_xticks(widths, [str(width) for width in widths])
        axes.minorticks_off()
        axes.legend(fontsize=7)
    return figure


def _line(
    axes: "Axes", models: dict[str, dict[str, Any]], series: dict[str, list[Any]], features: str, key: str, **look: Any
) -> None:
    own = sorted((settings["width"], model) for model, settings in models.items() if settings["features"] == features)
    means = [100 * np.mean([run["figures"][key] for run in series[model]]) for _, model in own]
    axes.plot([width for width, _ in own], means, marker="o", markersize=3, **look)


def _draw_maps(maps: dict[str, Any]) -> "Figure":
    figure, panels = grid(len(maps), 2, 4.2, 3.6)
    for axes, (model, (across, up, labels)) in zip(panels, maps.items(), strict=True):
        axes.scatter(across, up, c=labels, cmap="tab10", s=3, linewidths=0)
        axes.set(title=model)
    return figure
