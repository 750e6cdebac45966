"""Features that a net learns beside features made by hand, where pixels are in their places and where they are not."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from annotated_types import Ge

from atelier import edges
from atelier.data.store import Store
from atelier.errors import AtelierError
from atelier.experiments import items as first_items
from atelier.report.drawing import COLOURS, STYLES, Plans, grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import nn

    from atelier.data.items import Items
    from atelier.params import Recipe

PLAN = ("conv 16 7", "pool 2", "conv 32 3", "pool 2", "dense 64")  # kernels large enough to look at
HIDDEN = (128,)
RECIPES: dict[str, dict[str, Any]] = {
    "cnn": {"optimizer": "momentum", "lr": 0.05, "weight_decay": 2e-3},  # decay: initial weights would hide edges
    "dense": {"lr": 0.003},
    "logistic": {"lr": 0.01},
}
AT_ONCE = 5_000  # items whose features are made together
SHOWN = 2_000  # test items that are looked through for one of each class

Features = Literal["orientations", "pixels", "sobel"]
Net = Literal["cnn", "dense", "logistic"]
MADE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "orientations": edges.orientations,
    "pixels": lambda x: x,
    "sobel": edges.magnitudes,
}


def measure(
    seed: int,
    store: Store,
    *,
    net: Net,
    features: Features = "pixels",
    permuted: bool = False,
    epochs: Annotated[int, Ge(1)] = 5,
) -> dict[str, Any]:
    """A net is trained on all training items and judged on test items: logistic regression, a dense net of 128 ReLU
    units, or a convolutional one whose first layer has 16 kernels of 7 x 7. It sees pixels; sobel, the length of
    Sobel's gradient at every pixel; or orientations, histograms of the gradients' directions in cells of 4 x 4 pixels
    (after Dalal and Triggs 2005). permuted: the pixels of every item are first put in one random order, the same for
    all items and seeds.

    Of the convolutional net's first kernels, edges: the share that is an edge, a derivative of a Gaussian in some
    direction, rather than a bar (its second derivative) or a blob (the Gaussian), and more of one than 99 % of random
    kernels are; edges_before: that share before training; edges_gain: what training adds to it; bars and blobs: the
    shares that are these; fit: the part of a kernel's squared norm that the best edge explains, mean over kernels.
    """
    import torch

    from atelier import fit
    from atelier.data.items import items
    from atelier.params import Recipe

    started = time.perf_counter()
    if len(store.shape) != 3 or min(store.shape[1:]) < edges.CELL:
        raise AtelierError(f"{store.name} has items of {store.shape}; learned-features needs images of 4 x 4 or more")
    train, test = (prepared(items(store, split, None, False), features, permuted) for split in ("train", "test"))
    recipe = Recipe(epochs=epochs, evaluate_every=epochs, schedule="one-cycle", **RECIPES[net])
    torch.manual_seed(seed)
    model = build(net, tuple(train.x.shape[1:]), len(store.classes), recipe)
    accuracy, shares, kernels = [], [], []

    def look(state: fit.State) -> None:
        accuracy.append(fit.measure(model, test)["accuracy"])
        if net == "cnn":
            kernels.append(model.steps[0].weight.detach().double().flatten(0, 1).numpy())
            shares.append({name: float(mask.mean()) for name, mask in edges.kinds(kernels[-1]).items()})

    fit.fit(model, recipe, seed, train, ("test", test), after_epoch=look)
    found = {"test.accuracy": accuracy[-1]}
    series: dict[str, Any] = {"accuracy": accuracy}
    if net == "cnn":
        found |= {
            "test.edges": shares[-1]["edge"],
            "test.edges_before": shares[0]["edge"],
            "test.edges_gain": shares[-1]["edge"] - shares[0]["edge"],
            "test.bars": shares[-1]["bar"],
            "test.blobs": shares[-1]["blob"],
            "test.fit": float(edges.fits(kernels[-1])["edge"].mean()),
        }
        series |= {
            "edges": [share["edge"] for share in shares],
            "before": kernels[0].tolist(),
            "after": kernels[-1].tolist(),
        }
    return found | {"train_s": time.perf_counter() - started, "series": series}


def order(pixels: int) -> np.ndarray:
    """The one random order of an item's pixels."""
    return np.random.RandomState(0).permutation(pixels)  # the one generator whose stream NumPy keeps for good


def disordered(x: np.ndarray) -> np.ndarray:
    """Items (n, channels, rows, columns) with the pixels of every channel in the one random order."""
    return x.reshape(*x.shape[:2], -1)[..., order(x.shape[2] * x.shape[3])].reshape(x.shape)


def prepared(seen: "Items", features: Features, permuted: bool) -> "Items":
    """The items as the net sees them, float32, with their labels."""
    import torch

    from atelier.data.items import Items

    def made(x: np.ndarray) -> np.ndarray:
        return MADE[features](disordered(x) if permuted else x).astype(np.float32)

    x = torch.from_numpy(np.concatenate([made(part.numpy()) for part in seen.x.split(AT_ONCE)]))
    return Items(x, x, seen.y)


def build(net: Net, shape: tuple[int, ...], classes: int, recipe: "Recipe") -> "nn.Module":
    from atelier.families import cnn, mlp, softmax
    from atelier.optim import Optimizer

    optimizer = Optimizer(recipe.optimizer, recipe.lr, recipe.momentum, recipe.weight_decay)
    match net:
        case "cnn":
            return cnn.Model(shape, classes, plan=PLAN, optimizer=optimizer)
        case "dense":
            return mlp.Model(shape, classes, hidden=HIDDEN, optimizer=optimizer)
    return softmax.Model(shape, classes, optimizer=optimizer)


def pictures(store: Store, models: dict[str, dict[str, Any]], series: dict[str, list[Any]]) -> Plans:
    seen = (
        "A test item of each class: its pixels; Sobel's edge map; histograms of directions, a line for each along the "
        "edge, darker where there is more of it; and pixels and edge map after the one permutation."
    )
    curves = "Test accuracy over epochs, means over seeds; solid: pixels in their places, dashed: permuted."
    plans: Plans = {
        "items.png": (seen, lambda: _draw_items(store)),
        "curves.png": (curves, lambda: _draw_curves(models, series)),
    }
    cnns = {model: series[model] for model, settings in models.items() if settings["net"] == "cnn"}
    if cnns:
        kernels = (
            "Kernels of the first layer, first seed, by how much of an edge they are: under each the share of its "
            "squared norm that the best edge explains; framed: edges. Grey is 0; each has its own contrast."
        )
        emerged = (
            "Left: the share of kernels that are edges over epochs, mean and single seeds. Right: the kernels of all "
            "seeds by how much of an edge they are; dotted: what 1 % of random kernels exceed."
        )
        plans["kernels.png"] = kernels, lambda: _draw_kernels(cnns)
        plans["emergence.png"] = emerged, lambda: _draw_emergence(cnns)
    return plans


def _draw_items(store: Store) -> "Figure":
    x, y = first_items(store, "test", SHOWN)
    chosen = [int(np.flatnonzero(y == label)[0]) for label in np.unique(y)]
    x = x[chosen].reshape(len(chosen), *store.shape)
    jumbled = disordered(x)
    rows: dict[str, np.ndarray] = {
        "pixels": x,
        "sobel": edges.magnitudes(x),
        "orientations": x,
        "permuted": jumbled,
        "permuted,\nsobel": edges.magnitudes(jumbled),
    }
    figure, panels = grid(len(rows) * len(x), len(x), 0.95, 1.0)
    for line, (label, images) in enumerate(rows.items()):
        for axes, image, kind in zip(panels[line * len(x) :], images, y[chosen], strict=False):
            _bare(axes)
            if label == "orientations":
                _draw_directions(axes, edges.orientations(image[None])[0], image.shape[1:])
            else:
                axes.imshow(image[0], cmap="gray", vmin=0, vmax=1)
            if line == 0:
                axes.set_title(store.classes[kind], fontsize=7)
        panels[line * len(x)].set_ylabel(label, fontsize=8)
    return figure


def _draw_directions(axes: "Axes", cells: np.ndarray, size: tuple[int, ...]) -> None:
    """cells: (BINS, rows, columns); of one channel."""
    from matplotlib.collections import LineCollection

    b, i, j = (place.ravel() for place in np.indices(cells[: edges.BINS].shape))
    angle = np.pi * b / edges.BINS  # of the gradient, from the columns to the rows; the edge is across
    middle = np.stack([j, i], axis=1) * edges.CELL + (edges.CELL - 1) / 2
    half = np.stack([-np.sin(angle), np.cos(angle)], axis=1) * 0.45 * edges.CELL
    shades = np.clip(cells[: edges.BINS].ravel(), 0, 1)
    axes.add_collection(
        LineCollection(np.stack([middle - half, middle + half], axis=1), colors="k", linewidths=0.8, alpha=shades)
    )
    axes.set(xlim=(-0.5, size[1] - 0.5), ylim=(size[0] - 0.5, -0.5), aspect="equal")


def _draw_kernels(cnns: dict[str, list[Any]]) -> "Figure":
    first = {model: runs[0] for model, runs in cnns.items()}
    blocks = {"before training": np.array(next(iter(first.values()))["before"])}
    blocks |= {model: np.array(run["after"]) for model, run in first.items()}
    columns = max(map(len, blocks.values()))
    figure, panels = grid(len(blocks) * columns, columns, 0.7, 0.95)
    for axes in panels:
        axes.set_axis_off()
    for line, (label, kernels) in enumerate(blocks.items()):
        fitted, framed = edges.fits(kernels)["edge"], edges.kinds(kernels)["edge"]
        for axes, k in zip(panels[line * columns :], np.argsort(-fitted, kind="stable"), strict=False):
            largest = np.abs(kernels[k]).max()
            axes.imshow(kernels[k], cmap="gray", vmin=-largest, vmax=largest)
            axes.set_axis_on()
            _bare(axes)
            axes.set_xlabel(f"{fitted[k]:.2f}", fontsize=7, labelpad=2)
            for spine in axes.spines.values():
                spine.set(visible=bool(framed[k]), color=COLOURS[1], linewidth=2)
        panels[line * columns].set_title(label, fontsize=9, loc="left")
    return figure


def _draw_emergence(cnns: dict[str, list[Any]]) -> "Figure":
    figure, (over_time, sorted_fits) = grid(2, 2, 4.5, 3.2)
    blocks = {"before training": [kernel for run in next(iter(cnns.values())) for kernel in run["before"]]}
    for (model, runs), colour in zip(cnns.items(), COLOURS, strict=False):
        for run in runs:
            over_time.plot([100 * share for share in run["edges"]], color=colour, linewidth=0.6, alpha=0.5)
        over_time.plot(100 * np.mean([run["edges"] for run in runs], axis=0), color=colour, linewidth=2, label=model)
        blocks[model] = [kernel for run in runs for kernel in run["after"]]
    over_time.set(title="Edges among the kernels", xlabel="epoch", ylabel="kernels (%)", ylim=(0, None))
    for (label, kernels), colour in zip(blocks.items(), ("0.4", *COLOURS), strict=False):
        fitted = np.sort(edges.fits(np.array(kernels))["edge"])
        sorted_fits.plot(fitted, np.linspace(0, 100, len(fitted)), color=colour, label=label)
    sorted_fits.axvline(edges.chance(*np.shape(kernels)[1:])["edge"], color="0.4", linestyle=":")
    sorted_fits.set(
        title="How much of an edge they are", xlabel="fit", ylabel="kernels up to this fit (%)", xlim=(0, 1)
    )
    sorted_fits.legend(fontsize=7)
    return figure


def _draw_curves(models: dict[str, dict[str, Any]], series: dict[str, list[Any]]) -> "Figure":
    figure, (axes,) = grid(1, 1, 6.5, 4)
    seen = list(dict.fromkeys((settings["net"], settings.get("features", "pixels")) for settings in models.values()))
    for model, settings in models.items():
        colour = COLOURS[seen.index((settings["net"], settings.get("features", "pixels"))) % len(COLOURS)]
        mean = 100 * np.mean([run["accuracy"] for run in series[model]], axis=0)
        axes.plot(
            np.arange(1, len(mean)),
            mean[1:],
            color=colour,
            linestyle=STYLES[settings.get("permuted", False)],
            label=model,
        )
    axes.set(xlabel="epoch", ylabel="test accuracy (%)")
    axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.02, 1.0))
    return figure


def _bare(axes: "Axes") -> None:
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
