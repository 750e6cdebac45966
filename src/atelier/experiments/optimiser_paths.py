"""Descent, momentum, RMSProp and Adam from their equations: paths on an elongated bowl, and what theory says of them.

Each rule has a learning rate of its own; what a setting is compared with, has the same.
"""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, Gt

from atelier.byhand.activations import Array, logistic
from atelier.byhand.optimizers import Adam, Descent, Momentum, RMSProp, Rule, path
from atelier.data.store import Store
from atelier.experiments import items
from atelier.report.drawing import COLOURS, Plans, grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FLOORS = {"nothing": {"test.scale_change": 1e-6, "test.first_moment": 1e-12}}
STEEP = 50.0  # the bowl's curvature along y; along x it is 1
PATH, LONGEST = 300, 5_000  # steps looked at, and after which a rule has not arrived
FLAT, WIDTH = 1e-4, 1.0  # the slope of the plateau and its width
SLOPES, LOOKED_AT = (1.0, 1e-6), (1, 10, 100)  # gradients and steps that the table of faults shows
RARE, ITEMS, EPOCHS, BATCH = 60, 2_000, 5, 20  # items on which a rare pixel is lit, and the training that meets them

Name = Literal["adam", "descent", "momentum", "rmsprop"]


def rule(name: Name, lr: float, place: Literal["inside", "outside"], correct: bool, steps_per_epoch: int) -> Rule:
    match name:
        case "descent":
            return Descent(lr)
        case "momentum":
            return Momentum(lr)
        case "rmsprop":
            return RMSProp(lr, place=place)
        case "adam":
            return Adam(lr, place=place, correct=correct, steps_per_epoch=steps_per_epoch)


def measure(
    seed: int,
    store: Store,
    *,
    name: Name,
    lr: Annotated[float, Gt(0)],
    place: Literal["inside", "outside"] = "outside",
    correct: bool = True,
    steps_per_epoch: Annotated[int, Ge(1)] = 1,
) -> dict[str, float]:
    """On the bowl, from a random start at distance 1: oscillation, the way made up and down the steep axis, by the
    distance there was to go; arrival, steps until the loss is a thousandth (5,000 if never).

    On a plateau of slope 1e-4: plateau, steps to cross it. On real items, logistic regression with one pixel that is
    lit on few: rare, the size of its weight after 5 epochs by that of a pixel lit always; scale_change: how far a path
    moves if the loss is times 1,000; first_moment: how far the first step's mean gradient is from the gradient.
    """
    rng = np.random.default_rng(seed)

    def new() -> Rule:
        return rule(name, lr, place, correct, steps_per_epoch)

    angle = rng.uniform(0.15, 0.35) * np.pi * rng.choice([-1, 1])  # neither axis alone
    start = np.array([np.cos(angle), np.sin(angle)])
    found = path(new(), bowl, start, LONGEST)
    losses = 0.5 * found**2 @ np.array([1.0, STEEP])
    arrived = np.flatnonzero(losses < losses[0] / 1e3)
    with np.errstate(all="ignore"):  # of a scaled loss, descent diverges
        plain, scaled = (path(new(), lambda w, c=c: c * bowl(w), start, PATH) for c in (1.0, 1e3))
    gradient = rng.standard_normal(3)
    return {
        "test.oscillation": float(np.abs(np.diff(found[:PATH, 1])).sum() / abs(start[1])),
        "test.arrival": float(arrived[0] if len(arrived) else LONGEST),
        "test.plateau": _plateau(new()),
        "test.rare": _rare(new(), store, rng),
        "test.scale_change": float(min(np.abs(scaled - plain).max(), 1e6)) if np.isfinite(scaled).all() else 1e6,
        "test.first_moment": _first_moment(new(), gradient),
    }


def bowl(w: Array) -> Array:
    """The gradient of (x^2 + 50 y^2) / 2."""
    return w * np.array([1.0, STEEP])


def _plateau(step: Rule) -> float:
    """Steps to cross a plateau whose slope is the same everywhere."""
    position, steps = 0.0, 0
    while position < WIDTH and steps < LONGEST:
        position += float(step([np.array([-FLAT])])[0][0])
        steps += 1
    return float(steps)


def _rare(step: Rule, store: Store, rng: np.random.Generator) -> float:
    """|weight| of the rare pixel by that of one lit always, after a few epochs on two classes that both tell."""
    x, labels = items(store, "train", ITEMS, classes=(0, 1))
    t = (labels == labels.max()).astype(np.float64)
    sign = 2.0 * t - 1.0
    rare = np.zeros(len(x))
    lit = rng.choice(len(x), min(RARE, len(x)), replace=False)
    rare[lit] = sign[lit]
    inputs = np.column_stack([x, sign, rare])  # both features alone tell the class wherever they are lit
    weights = np.zeros(inputs.shape[1])
    for _ in range(EPOCHS):
        for rows in np.array_split(rng.permutation(len(x)), len(x) // BATCH):
            gradient = (logistic(inputs[rows] @ weights) - t[rows]) @ inputs[rows] / len(rows)
            weights = weights + step([gradient])[0]
    return float(abs(weights[-1]) / abs(weights[-2]))


def _first_moment(step: Rule, gradient: Array) -> float:
    """How far the mean gradient that the first step uses is from the gradient, by its size; descent keeps no mean."""
    step([gradient])
    mean = getattr(step, "m", [gradient])[0]
    if isinstance(step, Adam) and step.correct:
        mean = mean / (1.0 - step.beta1)
    return float(np.abs(mean - gradient).max() / np.abs(gradient).max())


def text(models: dict[str, dict[str, Any]], series: dict[str, list[Any]]) -> str:
    """The faults that a source has in Adam, each beside what the equation says of it."""
    rules = {
        "as in its paper": {},
        "t counts epochs of 10 steps": {"steps_per_epoch": 10},
        "no correction": {"correct": False},
        "epsilon inside the root": {"place": "inside"},
    }
    rows = ["## Faults in the sources' equations of Adam", ""]
    rows += [f"| Rule | {' | '.join(f'g = {g:g}, step {t}' for g in SLOPES for t in LOOKED_AT)} |"]
    rows += ["| :-- |" + " --: |" * len(SLOPES) * len(LOOKED_AT)]
    for name, settings in rules.items():
        lengths = [_lengths(Adam(1.0, **settings), slope)[step - 1] for slope in SLOPES for step in LOOKED_AT]
        rows.append(f"| {name} | {' | '.join(f'{length:.3g}' for length in lengths)} |")
    rows += [
        "",
        "Length of a step, by the learning rate, where the gradient g is always the same. Both moments are then g and "
        "g^2 once they are corrected, so every step is 1 long, but for epsilon (Kingma and Ba 2015, 2.1). One source "
        "counts epochs in the correction where the equation counts steps, and has epsilon inside the root of Adam but "
        "outside that of RMSProp.",
    ]
    return "\n".join(rows)


def _lengths(step: Rule, slope: float) -> list[float]:
    return [abs(float(step([np.array([slope])])[0][0])) for _ in range(max(LOOKED_AT))]


def pictures(store: Store, models: dict[str, dict[str, Any]], series: dict[str, list[Any]]) -> Plans:
    caption = (
        "The first 60 steps of every rule on the bowl (x^2 + 50 y^2) / 2, from one start; rings: every tenth step."
    )
    return {"paths.png": (caption, lambda: _draw(models))}


def _draw(models: dict[str, dict[str, Any]]) -> "Figure":
    figure, panels = grid(len(models), 3, 3, 2)
    x, y = np.meshgrid(np.linspace(-0.3, 1.1, 141), np.linspace(-0.9, 0.9, 141))
    for axes, (label, settings) in zip(panels, models.items(), strict=True):
        axes.contour(x, y, 0.5 * (x**2 + STEEP * y**2), levels=np.geomspace(0.01, 20, 9), colors="0.8", linewidths=0.7)
        defaults = {"place": "outside", "correct": True, "steps_per_epoch": 1}
        found = path(rule(**defaults | settings), bowl, np.array([1.0, 0.7]), 60)
        axes.plot(*found.T, color=COLOURS[0], linewidth=1)
        axes.plot(*found[::10].T, "o", color=COLOURS[1], markersize=4, fillstyle="none")
        axes.set(title=label, xlim=(-0.3, 1.1), ylim=(-0.9, 0.9))
        axes.grid(False)
    return figure
