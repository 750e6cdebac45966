"""Linear-f-Linear-g by hand on real items: numbers, positive numbers, two classes; and the faults of hand gradients."""

import time
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, Gt

from atelier.byhand import faults
from atelier.byhand.activations import ACTIVATIONS
from atelier.byhand.backprop import arrays, forward, gradients, initial
from atelier.byhand.two_layer import LOSSES, train
from atelier.data.store import Store
from atelier.experiments import items
from atelier.report.drawing import Plans, grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FLOORS = {"rounding": {"test.deviation": 1e-10}}
CLASSES = (0, 6)  # T-shirt or shirt, the pair that nets confuse most
ITEMS, BATCH = 4_000, 32
SATURATED = 0.01  # a unit passes less than this share of a gradient
SMOOTH = 25  # batches that a point of the picture is the mean of
DEEP = 8  # hidden layers of the net whose first gradient is compared with its last

Hidden = Literal["leaky-relu", "logistic", "relu", "tanh"]
Task = Literal["classes", "number"]


def measure(
    seed: int,
    store: Store,
    *,
    task: Task,
    loss: Literal[tuple(LOSSES)],  # type: ignore[valid-type]
    hidden: Hidden = "relu",
    width: Annotated[int, Ge(1)] = 32,
    lr: Annotated[float, Gt(0)] = 0.1,
    epochs: Annotated[int, Ge(1)] = 10,
) -> dict[str, Any]:
    """classes: T-shirt or shirt. number: the mean brightness of the lower half of an item from its upper half.

    deviation: of the hand's gradient from autograd's, by its largest entry; mse on test items; negative: the share of
    answers under 0; saturated: the share of (item, hidden unit) that pass less than a hundredth of a gradient after
    training; reach: the norm of the first layer's gradient by the last's in a fresh net of 8 hidden layers.
    """
    from atelier.byhand import autograd

    rng = np.random.default_rng(seed)
    (x, t), (test_x, test_t) = (examples(store, task, split) for split in ("train", "test"))
    net = initial((x.shape[1], width, 1), rng)
    deviation = faults.deviation(
        arrays(gradients(net, x[:200], t[:200], ACTIVATIONS[hidden], LOSSES[loss])[1]),
        autograd.gradients(arrays(net), x[:200], t[:200], hidden, loss),
    )
    keywords = {"lr": lr, "batch": BATCH, "epochs": epochs, "rng": rng}
    started = time.perf_counter()
    losses = np.array(list(train(net, x, t, ACTIVATIONS[hidden], LOSSES[loss], **keywords)))
    seconds = time.perf_counter() - started
    _, (first, last) = forward(net, test_x, ACTIVATIONS[hidden])
    output = LOSSES[loss].output(last)
    found = {"test.deviation": deviation, "test.mse": float(np.square(output - test_t).mean())}
    if task == "classes":
        found["test.accuracy"] = float(((output > 0.5) == (test_t > 0.5)).mean())
    else:
        found["test.negative"] = float((output < 0).mean())
    found["test.saturated"] = float((np.abs(ACTIVATIONS[hidden].derivative(first)) < SATURATED).mean())
    deep = initial((x.shape[1], *[width] * DEEP, 1), rng)
    _, slopes = gradients(deep, x[:200], t[:200], ACTIVATIONS[hidden], LOSSES[loss])
    found["test.reach"] = float(np.linalg.norm(slopes[0].weights) / max(np.linalg.norm(slopes[-1].weights), 1e-300))
    size = min(SMOOTH, len(losses))
    blocks = losses[: len(losses) // size * size].reshape(-1, size).mean(axis=1)
    return found | {"train_s": seconds, "series": (blocks / blocks[0]).tolist()}


def examples(store: Store, task: Task, split: str) -> tuple[np.ndarray, np.ndarray]:
    if task == "classes":
        x, labels = items(store, split, ITEMS, classes=CLASSES)
        return x, (labels == CLASSES[1]).astype(np.float64)[:, None]
    x, _ = items(store, split, ITEMS)
    half = x.shape[1] // 2
    return x[:, :half], x[:, half:].mean(axis=1, keepdims=True)


def text(models: dict[str, dict[str, Any]], series: dict[str, list[Any]]) -> str:
    return faults.table()


def pictures(store: Store, models: dict[str, dict[str, Any]], series: dict[str, list[Any]]) -> Plans:
    caption = f"Loss of the batches, a mean over {SMOOTH}, by that of the first {SMOOTH}; mean over seeds."
    return {"learning-curves.png": (caption, lambda: _draw(models, series))}


def _draw(models: dict[str, dict[str, Any]], series: dict[str, list[Any]]) -> "Figure":
    figure, panels = grid(2, 2, 4.5, 3.4)
    for axes, task in zip(panels, ("number", "classes"), strict=True):
        for model, runs in series.items():
            if models[model]["task"] == task:
                axes.plot(np.mean(runs, axis=0), label=model, linewidth=1)
        axes.set(title=task, xlabel=f"{SMOOTH} batches", yscale="log")
        axes.legend(fontsize=7)
    return figure
