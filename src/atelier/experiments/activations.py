"""Activations and their derivatives from the equations, against autograd and against differences; how they look."""

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from atelier.byhand.activations import ACTIVATIONS, ALL, Activation
from atelier.data.store import Store
from atelier.experiments import items
from atelier.report.drawing import COLOURS, Plans, grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FLOORS = {"rounding": {"test.deviation": 1e-10, "test.difference": 1e-6}}
STEP, KINKS, NEAR = 1e-6, (-0.5, 0.0, 0.5), 1e-3


def measure(
    seed: int,
    store: Store,
    *,
    name: Literal[tuple(ACTIVATIONS)],  # type: ignore[valid-type]
) -> dict[str, float]:
    """At the pre-activations that one random unit has on 1,000 items.

    deviation: the largest of value and derivative from those of autograd; difference: of the derivative from
    (f(v + h) - f(v - h)) / 2h away from kinks; passed: the mean of |f'|, the share of a gradient that comes through.
    """
    activation = ACTIVATIONS[name]
    x, _ = items(store, "train", 1_000)
    weights = np.random.default_rng(seed).standard_normal(x.shape[1]) * np.sqrt(2.0 / x.shape[1])
    v = (x - x.mean(axis=0)) @ weights
    derivative = activation.derivative(v)
    smooth = np.abs(v[:, None] - np.array(KINKS)).min(axis=1) > NEAR
    slopes = (activation.value(v + STEP) - activation.value(v - STEP)) / (2 * STEP)
    return {
        "test.deviation": _from_autograd(activation, v),
        "test.difference": float(np.abs(slopes - derivative)[smooth].max()),
        "test.passed": float(np.abs(derivative).mean()),
    }


def _from_autograd(activation: Activation, v: np.ndarray) -> float:
    from atelier.byhand import autograd

    value, derivative = autograd.value_and_derivative(activation.name, v)
    return float(max(np.abs(activation.value(v) - value).max(), np.abs(activation.derivative(v) - derivative).max()))


def pictures(store: Store, models: dict[str, dict[str, Any]], series: dict[str, list[Any]]) -> Plans:
    return {"activations.png": ("Activations (solid) and their derivatives (dashed).", _draw)}


def _draw() -> "Figure":
    figure, panels = grid(len(ALL), 4, 2.25, 2.1)
    v = np.linspace(-3, 3, 601)
    for axes, activation in zip(panels, ALL, strict=True):
        jumps = np.where(np.abs(v) < 1e-9, np.nan, 1.0) if activation.step else 1.0  # a jump is not a steep line
        axes.plot(v, activation.value(v) * jumps, color=COLOURS[0])
        axes.plot(v, activation.derivative(v), "--", color=COLOURS[1])
        axes.set_title(f"{activation.name}: {activation.equation}", fontsize=8)
        axes.set_ylim(-1.7, 3.1)
    return figure
