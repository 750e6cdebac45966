"""Dense layers of a trained net as two thin ones: what a low rank saves and costs, before and after fine-tuning."""

import time
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from annotated_types import Ge, Gt, Le

from atelier.data.store import Store
from atelier.experiments import dense_net
from atelier.layers import Width
from atelier.report.drawing import COLOURS, Plans, by_decades, grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import nn

    from atelier.data.items import Items

BATCH = 128
SEEN = 1000  # test items from which batches are made whose latency is taken
FLOORS = {"half-more": {"test.fewer": 1.5}, "three": {"test.fewer": 3.0}}


def measure(
    seed: int,
    store: Store,
    *,
    energy: Annotated[float, Gt(0), Le(1)] = 1.0,
    hidden: tuple[Width, ...] = (300, 100),
    epochs: Annotated[int, Ge(1)] = 10,
    tuning: Annotated[int, Ge(1)] = 5,
) -> dict[str, Any]:
    """A dense net is trained on all training images. Each hidden layer becomes two of the least rank that keeps the
    energy, a share of the sum of its squared singular values, unless two are no smaller; then the net trains on for
    `tuning` epochs. Nothing is chosen by images, so none are held out; with an energy of 1 the net stays as it is and
    trains on alike.

    Test accuracy: accuracy_cut before fine-tuning, accuracy after it. error: of the hidden layers' matrices together,
    the norm of the difference by their norm, before fine-tuning. rank_first and rank_last: of the first and the last
    hidden layer, where one that stays has its shorter side. parameters and multiply_adds of one image, of the whole
    net; smaller and fewer: the dense net's by these.
    """
    import torch

    from atelier import cost, lowrank, speed
    from atelier.fit import measure as judge

    started = time.perf_counter()
    model, train, test = trained(store, seed, hidden, epochs)
    matrices = [layer.weight.detach().double() for layer in model.layers]
    values = [torch.linalg.svdvals(matrix).square() for matrix in matrices]
    ranks = lowrank.ranks_for(model, energy)
    thin, _ = lowrank.factorised(model, store.shape, len(store.classes), {"hidden": hidden}, ranks)
    lost = sum(float(squares[rank:].sum()) for squares, rank in zip(values, ranks, strict=True) if rank)
    whole = sum(float(squares.sum()) for squares in values)
    shown = [rank or min(matrix.shape) for rank, matrix in zip(ranks, matrices, strict=True)]
    before, after = cost.exact(model, store.shape), cost.exact(thin, store.shape)
    cut = judge(thin, test)["accuracy"]
    accuracy = tuned(thin, tuning, seed, train, test)
    found = {
        "test.accuracy": accuracy,
        "test.accuracy_cut": cut,
        "test.error": (lost / whole) ** 0.5,
        "test.rank_first": float(shown[0]),
        "test.rank_last": float(shown[-1]),
        "test.parameters": float(after["parameters"]),
        "test.multiply_adds": float(after["multiply_adds"]),
        "test.smaller": before["parameters"] / after["parameters"],
        "test.fewer": before["multiply_adds"] / after["multiply_adds"],
    }
    held = [(squares.cumsum(0) / squares.sum()).tolist() for squares in values]
    seconds = time.perf_counter() - started
    latency = speed.compare({"dense": model, f"energy {energy:g}": thin}, store.shape, test.x[:SEEN])
    return found | {"train_s": seconds, "latency": latency, "series": {"figures": found, "held": held}}


def trained(store: Store, seed: int, hidden: tuple[int, ...], epochs: int) -> tuple["nn.Module", "Items", "Items"]:
    """A dense net after so many epochs of Adam, its rate falling to 0; the items that it learned from; test items."""
    from atelier.data.items import items
    from atelier.fit import fit
    from atelier.params import Recipe

    train, test = items(store, "train", None, False), items(store, "test", None, False)
    recipe = Recipe(epochs=epochs, batch=BATCH, schedule="cosine", evaluate_every=epochs)
    model = dense_net(store, seed, recipe, hidden=hidden)
    fit(model, recipe, seed, train, ("test", test))
    return model, train, test


def tuned(model: "nn.Module", epochs: int, seed: int, train: "Items", test: "Items") -> float:
    """Train on as before, for so many epochs; gives test accuracy after the last."""
    from atelier.fit import fit
    from atelier.params import Recipe

    recipe = Recipe(epochs=epochs, batch=BATCH, schedule="cosine", evaluate_every=epochs)
    return fit(model, recipe, seed, train, ("test", test)).curve[-1]["test.accuracy"]


def pictures(store: Store, models: dict[str, dict[str, Any]], series: dict[str, list[Any]]) -> Plans:
    energies = "Share of the energy that the leading singular values of a trained layer hold, first seed."
    costs = "Test accuracy against the multiply-adds of an image, before and after fine-tuning; means over seeds."
    return {
        "energies.png": (energies, lambda: _draw_energies(series)),
        "costs.png": (costs, lambda: _draw_costs(series)),
    }


def _draw_energies(series: dict[str, list[Any]]) -> "Figure":
    figure, (axes,) = grid(1, 1, 5.5, 3.2)
    held = next(iter(series.values()))[0]["held"]  # one net: every model begins with the same training
    for number, (shares, colour) in enumerate(zip(held, COLOURS, strict=False), 1):
        axes.plot(range(1, len(shares) + 1), 100 * np.array(shares), color=colour, label=f"hidden layer {number}")
    axes.set(xlabel="rank", ylabel="energy (%)", ylim=(0, 101))
    axes.legend()
    return figure


def _draw_costs(series: dict[str, list[Any]]) -> "Figure":
    figure, (axes,) = grid(1, 1, 5.5, 3.2)
    by_cost = sorted(series.items(), key=lambda entry: _mean(entry[1], "test.multiply_adds"))
    costs = [_mean(runs, "test.multiply_adds") for _, runs in by_cost]
    for metric, colour, label in (("accuracy_cut", COLOURS[1], "before"), ("accuracy", COLOURS[0], "after")):
        axes.plot(costs, [100 * _mean(runs, f"test.{metric}") for _, runs in by_cost], "o-", color=colour, label=label)
    upright = {"rotation": 90, "ha": "center", "va": "top", "fontsize": 7}
    for (model, runs), cost in zip(by_cost, costs, strict=True):
        axes.annotate(
            model, (cost, 100 * _mean(runs, "test.accuracy_cut")), (0, -7), textcoords="offset points", **upright
        )
    axes.set(xlabel="multiply-adds of an image", ylabel="test accuracy (%)")
    bottom, top = axes.get_ylim()
    axes.set_ylim(bottom - (top - bottom) / 3, top)  # room for the lowest name
    by_decades(axes)
    axes.legend(loc="lower center")
    return figure


def _mean(runs: list[Any], metric: str) -> float:
    return float(np.mean([run["figures"][metric] for run in runs]))
