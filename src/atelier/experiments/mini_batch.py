"""One epoch in mini-batches, batch by batch: how far it gets, and how the curve ripples."""

import math
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from annotated_types import Ge

from atelier.data.store import Store
from atelier.experiments import dense_net
from atelier.layers import Width
from atelier.report.drawing import Plans, grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FLOORS = {"half-of-guessing": {"train.last": math.log(10) / 2}}  # of the cross-entropy of ten equal probabilities


def measure(
    seed: int, store: Store, *, batch: Annotated[int, Ge(1)], hidden: tuple[Width, ...] = (300, 100)
) -> dict[str, Any]:
    """After one epoch: accuracy on test items. On the batches as they came: first and last, the loss of the first batch
    and the mean over the last tenth; ripple, the standard deviation of the loss from a batch to the next over the last
    half. missed: items that were in no batch; missed_by_source: in none of a loop's that leaves the last batch out, as
    the source's does.
    """
    import torch

    from atelier.data.items import items
    from atelier.fit import fit
    from atelier.params import Recipe

    train, held = items(store, "train", None, False), items(store, "test", None, False)
    recipe = Recipe(epochs=1, batch=batch)
    model = dense_net(store, seed, recipe, hidden=hidden)
    seen: list[tuple[torch.Tensor, torch.Tensor, int]] = []
    inner = model.losses

    def losses(x: torch.Tensor, y: torch.Tensor) -> Iterator[dict[str, torch.Tensor]]:
        with torch.no_grad():
            right = (model.classify(x).argmax(1) == y).float().mean()
        for out in inner(x, y):
            seen.append((out["loss"].detach(), right, len(x)))
            yield out

    model.losses = losses
    started = time.perf_counter()
    state = fit(model, recipe, seed, train, ("test", held))
    seconds = time.perf_counter() - started
    loss, accuracy = (np.array([float(pair[i]) for pair in seen]) for i in (0, 1))
    tail = max(len(loss) // 10, 1)
    return {
        "test.accuracy": state.curve[-1]["test.accuracy"],
        "train.first": float(loss[0]),
        "train.last": float(loss[-tail:].mean()),
        "train.ripple": float(np.diff(loss[len(loss) // 2 :]).std() / np.sqrt(2)) if len(loss) > 4 else 0.0,
        "train.missed": float(len(train) - sum(size for _, _, size in seen)),
        "train.missed_by_source": float(len(train) - sum(size for _, _, size in seen[:-1])),
        "train_s": seconds,
        "series": [loss.tolist(), accuracy.tolist()],
    }


def pictures(store: Store, models: dict[str, dict[str, Any]], series: dict[str, list[Any]]) -> Plans:
    caption = "Loss and accuracy of every batch of one epoch, one seed; the axis is the share of the epoch."
    return {"batches.png": (caption, lambda: _draw(series))}


def _draw(series: dict[str, list[Any]]) -> "Figure":
    figure, panels = grid(2, 2, 4.5, 3.4)
    for place, (axes, name) in enumerate(zip(panels, ("loss", "accuracy"), strict=True)):
        for model, runs in series.items():
            values = runs[0][place]
            axes.plot((np.arange(len(values)) + 1) / len(values), values, label=model, linewidth=0.8)
        axes.set(
            xlabel="share of the epoch", ylabel=f"{name} of the batch", yscale="log" if name == "loss" else "linear"
        )
        axes.legend(fontsize=7)
    return figure
