"""Activations and their derivatives from the equations, against autograd and against differences; how they look."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from atelier.byhand.activations import ACTIVATIONS, ALL, Activation
from atelier.data.store import Store
from atelier.experiments import items

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FLOORS = {"rounding": {"test.deviation": 1e-10, "test.difference": 1e-6}}
STEP, KINKS, NEAR = 1e-6, (-0.5, 0.0, 0.5), 1e-3
COLUMNS = 4


def measure(seed: int, store: Store, *, name: str) -> dict[str, float]:
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
    import torch
    from torch.nn import functional as F

    half, one = torch.tensor(0.5, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)
    reference: dict[str, Callable] = {
        "unit-step": lambda u: torch.heaviside(u, half),
        "binary-step": lambda u: torch.heaviside(u, one),
        "sign": torch.sign,
        "linear": lambda u: u,
        "piecewise-linear": lambda u: F.hardtanh(u + 0.5, 0.0, 1.0),
        "logistic": torch.sigmoid,
        "tanh": torch.tanh,
        "arctan": torch.arctan,
        "relu": torch.relu,
        "leaky-relu": F.leaky_relu,
        "prelu": lambda u: F.prelu(u, torch.tensor([0.25], dtype=u.dtype)),
        "elu": F.elu,
        "softplus": lambda u: torch.logaddexp(u, torch.zeros_like(u)),
        "exp": torch.exp,
    }
    u = torch.tensor(v, requires_grad=True)
    value = reference[activation.name](u)
    found = np.abs(activation.value(v) - value.detach().numpy()).max()
    if not activation.step:  # autograd has no derivative of a step, or has 0
        (derivative,) = torch.autograd.grad(value.sum(), u)
        found = max(found, np.abs(activation.derivative(v) - derivative.numpy()).max())
    return float(found)


def pictures(
    store: Store, models: dict[str, dict[str, Any]], series: dict[str, list[Any]]
) -> dict[str, tuple[str, Callable[[], "Figure"]]]:
    return {"activations.png": ("Activations (solid) and their derivatives (dashed).", _draw)}


def _draw() -> "Figure":
    from matplotlib.figure import Figure

    rows = -(-len(ALL) // COLUMNS)
    figure = Figure(figsize=(9, 2.1 * rows), layout="constrained")
    v = np.linspace(-3, 3, 601)
    for place, activation in enumerate(ALL, 1):
        axes = figure.add_subplot(rows, COLUMNS, place)
        jumps = np.where(np.abs(v) < 1e-9, np.nan, 1.0) if activation.step else 1.0  # a jump is not a steep line
        axes.plot(v, activation.value(v) * jumps, color="#0072B2")
        axes.plot(v, activation.derivative(v), "--", color="#D55E00")
        axes.set_title(f"{activation.name}: {activation.equation}", fontsize=8)
        axes.set_ylim(-1.7, 3.1)
    return figure
