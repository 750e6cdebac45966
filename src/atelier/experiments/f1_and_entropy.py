"""Does F1 rise whenever cross-entropy falls? One class against the rest, softmax regression, epoch by epoch."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, Gt, Lt

from atelier.data.store import Store
from atelier.report.drawing import COLOURS, Plans, grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FLOORS = {"never": {"train.falls": 0.0}}
SHOWN = 8  # rows of the table of epochs


def measure(
    seed: int,
    store: Store,
    *,
    positive: Annotated[int, Ge(0)],
    share: Annotated[float, Gt(0), Lt(1)],
    epochs: Annotated[int, Ge(2)] = 50,
    batch: Annotated[int, Ge(1)] | Literal["full"] = 128,
    lr: Annotated[float, Gt(0)] = 1e-3,
) -> dict[str, Any]:
    """Class number `positive` against all others, of which so many stay that it has this share of the items.

    On training items, after every epoch: falls, how often mean F1 fell in an epoch in which cross-entropy fell; ties,
    how often it stayed; descents, the epochs in which cross-entropy fell; share, falls by descents. f1 and nll: mean F1
    of both classes and cross-entropy in the end. On test items: f1_macro.
    """
    import torch

    from atelier.data.items import Items
    from atelier.families.softmax import Model
    from atelier.fit import fit
    from atelier.optim import Optimizer
    from atelier.params import Recipe

    rng = np.random.default_rng(seed)
    seen = {}
    for split in ("train", "test"):
        x, y = one_against_rest(*store.split(split), positive, share, rng)
        tensor = torch.from_numpy(x)
        seen[split] = Items(tensor, tensor, torch.from_numpy(y))
    recipe = Recipe(epochs=epochs, batch=batch, lr=lr, evaluate_every=epochs)
    torch.manual_seed(seed)
    model = Model(store.shape, 2, optimizer=Optimizer(recipe.optimizer, recipe.lr))
    series: list[list[float]] = []

    def after_epoch(_) -> None:
        series.append(figures(*answers(model, seen["train"])))

    fit(model, recipe, seed, seen["train"], ("test", seen["test"]), after_epoch=after_epoch)
    nll, f1 = np.array(series)[:, :2].T
    down, change = np.diff(nll) < 0, np.diff(f1)
    falls = float((down & (change < 0)).sum())
    return {
        "train.falls": falls,
        "train.ties": float((down & (change == 0)).sum()),
        "train.descents": float(down.sum()),
        "train.share": falls / max(float(down.sum()), 1.0),
        "train.nll": float(nll[-1]),
        "train.f1_macro": float(f1[-1]),
        "test.f1_macro": figures(*answers(model, seen["test"]))[1],
        "series": series,
    }


def one_against_rest(
    x: np.ndarray, labels: np.ndarray, positive: int, share: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Items and labels 1 (positive) or 0, in their order; of whichever are too many for the share some are drawn."""
    y = (labels == positive).astype(np.int64)
    ones, zeros = np.flatnonzero(y), np.flatnonzero(y == 0)
    count = round(share / (1 - share) * len(zeros))
    if count <= len(ones):
        ones = rng.choice(ones, max(count, 1), replace=False)
    else:
        zeros = rng.choice(zeros, max(round((1 - share) / share * len(ones)), 1), replace=False)
    rows = np.sort(np.concatenate([ones, zeros]))
    return x[rows], y[rows]


def answers(model, items) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities (n, 2) in float64 and labels (n,)."""
    import torch

    model.eval()
    with torch.no_grad():
        return model.classify(items.x).double().log_softmax(1).numpy(), items.y.numpy()


def figures(log_probabilities: np.ndarray, y: np.ndarray) -> list[float]:
    """Cross-entropy, mean F1 of both classes, and the confusion matrix: hits, misses, false alarms, rejections."""
    predicted = log_probabilities[:, 1] > log_probabilities[:, 0]
    counts = [int((predicted[y == truth] == answer).sum()) for truth in (1, 0) for answer in (True, False)]
    hits, misses, alarms, rejections = counts
    f1 = [2 * right / max(2 * right + misses + alarms, 1) for right in (hits, rejections)]
    return [float(-log_probabilities[np.arange(len(y)), y].mean()), sum(f1) / 2, *counts]


def text(models: dict[str, dict[str, Any]], series: dict[str, list[Any]]) -> str:
    """The epochs in which both fell, of the first seed of the first model, with their confusion matrices."""
    model, runs = next(iter(series.items()))
    run = runs[0]
    pairs = [(epoch, a, b) for epoch, (a, b) in enumerate(zip(run, run[1:], strict=False), 1)]
    both = [(epoch, a, b) for epoch, a, b in pairs if b[0] < a[0] and b[1] < a[1]]
    rows = [f"## Epochs in which both fell ({model}, first seed)", ""]
    rows += ["| Epoch | Cross-entropy (nats) | Mean F1 (%) | Before | After |", "| --: | --: | --: | :-- | :-- |"]
    for epoch, a, b in both[:SHOWN]:
        matrices = [f"({m[0]:g} {m[1]:g}; {m[2]:g} {m[3]:g})" for m in (a[2:], b[2:])]
        shown = f"{a[0]:.4f} → {b[0]:.4f} | {100 * a[1]:.2f} → {100 * b[1]:.2f}"
        rows.append(f"| {epoch} | {shown} | {' | '.join(matrices)} |")
    rows += [
        "",
        f"{len(both)} of {len(run) - 1} epochs, the first {min(len(both), SHOWN)} shown. Matrices are (hits misses; "
        "false alarms rejections) on training items. Cross-entropy counts how sure the net is of every item, F1 only "
        "on which side of one half an item lies: a step may lower the one for many items and push a few over the line.",
    ]
    return "\n".join(rows)


def pictures(store: Store, models: dict[str, dict[str, Any]], series: dict[str, list[Any]]) -> Plans:
    caption = (
        "Cross-entropy (left axis) and mean F1 (right) on training items, first seed; dots: epochs in which both fell."
    )
    return {"epochs.png": (caption, lambda: _draw(series))}


def _draw(series: dict[str, list[Any]]) -> "Figure":
    figure, panels = grid(len(series), min(len(series), 2), 4.6, 3.1)
    for axes, (model, runs) in zip(panels, series.items(), strict=True):
        nll, f1 = np.array(runs[0])[:, :2].T
        both = np.flatnonzero((np.diff(nll) < 0) & (np.diff(f1) < 0)) + 1
        axes.plot(nll, color=COLOURS[0], linewidth=1.2)
        axes.set(title=model, xlabel="epoch", ylabel="cross-entropy (nats)", yscale="log")
        other = axes.twinx()
        other.plot(100 * f1, color=COLOURS[1], linewidth=1.2)
        other.plot(both, 100 * f1[both], "o", color=COLOURS[1], markersize=3)
        other.set_ylabel("mean F1 (%)")
        other.grid(False)
    return figure
