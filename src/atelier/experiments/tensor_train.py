"""The first layer of a trained net as a tensor train: how much smaller its store is, and what accuracy that costs."""

import math
import time
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from annotated_types import Ge

from atelier.data.store import Store
from atelier.experiments.low_rank import trained, tuned
from atelier.layers import Width
from atelier.report.drawing import COLOURS, Plans, grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The first dense layer of VGG-16 as Novikov et al. (2015) divide it, and what that net has in all.
ROWS, COLUMNS, VGG = (4, 4, 4, 4, 4, 4), (2, 7, 8, 8, 7, 4), 138_357_544


def measure(
    seed: int,
    store: Store,
    *,
    rank: Annotated[int, Ge(1)] | None = None,
    rows: tuple[Width, ...] = (5, 3, 4, 5),
    columns: tuple[Width, ...] = (4, 7, 7, 4),
    hidden: tuple[Width, ...] = (100,),
    epochs: Annotated[int, Ge(1)] = 10,
    tuning: Annotated[int, Ge(1)] = 5,
) -> dict[str, Any]:
    """A dense net is trained on all training images; its first layer has as many units as the product of `rows`, those
    of the others are `hidden`. The first layer's matrix becomes a train of cores, no rank above `rank`, with `rows`
    and `columns` for digits; then cores, biases and the other layers train on for `tuning` epochs. Nothing is chosen
    by images, so none are held out; without a rank the net stays as it is and trains on alike.

    Test accuracy: accuracy_cut before fine-tuning, accuracy after it. error: the norm of the difference from the matrix
    by its norm, before fine-tuning. stored: the numbers of the matrix or of its cores; factor: the matrix's by these.
    parameters and multiply_adds of one image, of the whole net; smaller and fewer: the dense net's by these.
    """
    from atelier import cost, tensor_train
    from atelier.fit import measure as judge

    started = time.perf_counter()
    model, train, test = trained(store, seed, (math.prod(rows), *hidden), epochs)
    first, before = model.layers[0], cost.exact(model, store.shape)
    stored, error = first.weight.numel(), 0.0
    if rank:
        cores = tensor_train.decompose(first.weight, rows, columns, rank)
        stored, error = tensor_train.count(cores), tensor_train.relative_error(cores, first.weight)
        model.layers[0] = tensor_train.Dense(cores, first.bias)
    after = cost.exact(model, store.shape)
    cut = judge(model, test)["accuracy"]
    found = {
        "test.accuracy": tuned(model, tuning, seed, train, test),
        "test.accuracy_cut": cut,
        "test.error": error,
        "test.stored": float(stored),
        "test.factor": first.weight.numel() / stored,
        "test.parameters": float(after["parameters"]),
        "test.multiply_adds": float(after["multiply_adds"]),
        "test.smaller": before["parameters"] / after["parameters"],
        "test.fewer": before["multiply_adds"] / after["multiply_adds"],
    }
    return found | {"train_s": time.perf_counter() - started, "series": found}


def text(models: dict[str, dict[str, Any]], series: dict[str, list[Any]]) -> str:
    """The source's own layer, counted."""
    weights = math.prod(ROWS) * math.prod(COLUMNS)
    lines = [
        "## The source's own count",
        "",
        f"Its layer of {math.prod(COLUMNS):,} inputs and {math.prod(ROWS):,} units has {weights:,} weights. With the "
        f"digits {' x '.join(map(str, ROWS))} by {' x '.join(map(str, COLUMNS))} there are:",
        "",
    ]
    for rank in (1, 2, 4):
        ranks = (1, *(rank,) * (len(ROWS) - 1), 1)
        count = sum(a * m * n * b for a, m, n, b in zip(ranks, ROWS, COLUMNS, ranks[1:], strict=False))
        left = VGG - weights + count
        lines.append(
            f"- at rank {rank}, {count:,} numbers: {weights / count:,.0f} times fewer, and {VGG / left:.1f} times "
            "fewer in the whole net, whose other layers are as they were."
        )
    return "\n".join(
        [*lines, "", "The factor is the layer's size more than the method's: a small layer has none such."]
    )


def pictures(store: Store, models: dict[str, dict[str, Any]], series: dict[str, list[Any]]) -> Plans:
    caption = (
        "Against the rank, means over seeds: test accuracy before and after fine-tuning, grey without a train; the "
        "relative error of the matrix; how many times smaller its store is."
    )
    return {"ranks.png": (caption, lambda: _draw(models, series))}


def _draw(models: dict[str, dict[str, Any]], series: dict[str, list[Any]]) -> "Figure":
    figure, panels = grid(3, 3, 3.4, 3)
    cut = sorted((settings["rank"], model) for model, settings in models.items() if settings.get("rank"))
    ranks = [rank for rank, _ in cut]
    shown = [
        ("accuracy_cut", 100, "test accuracy (%)", COLOURS[1], "before"),
        ("accuracy", 100, "test accuracy (%)", COLOURS[0], "after"),
        ("error", 1, "relative error of the matrix", COLOURS[2], None),
        ("factor", 1, "times smaller", COLOURS[3], None),
    ]
    for (metric, scale, name, colour, label), place in zip(shown, (0, 0, 1, 2), strict=True):
        means = [scale * _mean(series[model], metric) for _, model in cut]
        panels[place].plot(ranks, means, "o-", color=colour, markersize=4, label=label)
        panels[place].set(xlabel="rank", ylabel=name, xscale="log")
        panels[place].set_xticks(ranks, [str(rank) for rank in ranks])
        panels[place].minorticks_off()
    for model, settings in models.items():
        if not settings.get("rank"):
            panels[0].axhline(100 * _mean(series[model], "accuracy"), color="0.6", linewidth=0.8)
    panels[0].legend()
    panels[2].set_yscale("log")
    return figure


def _mean(runs: list[Any], metric: str) -> float:
    return float(np.mean([run[f"test.{metric}"] for run in runs]))
