"""Activations with their derivatives; at a kink the derivative is the smaller side's, as in torch.

Steps have derivative 0 wherever they have one: no gradient comes through them, so no net is trained with them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Activation:
    """value and derivative take pre-activations v of any shape. "a | b" is a left of v = 0 and b right of it.

    step: constant but for jumps.
    """

    name: str
    equation: str
    value: Callable[[Array], Array]
    derivative: Callable[[Array], Array]
    step: bool = False


def logistic(v: Array) -> Array:
    """1 / (1 + e^-v), by the half of the equation that does not overflow."""
    small = np.exp(-np.abs(v))
    return np.where(v >= 0, 1.0, small) / (1.0 + small)


def softplus(v: Array) -> Array:
    """log(1 + e^v) = max(v, 0) + log(1 + e^-|v|)."""
    return np.maximum(v, 0.0) + np.log1p(np.exp(-np.abs(v)))


def logistic_derivative(v: Array) -> Array:
    y = logistic(v)
    return y * (1.0 - y)


def leaky(v: Array, slope: float) -> Array:
    """v, or slope * v where v < 0. With a slope that is learned: PReLU (He et al. 2015)."""
    return np.where(v > 0, v, slope * v)


def leaky_derivative(v: Array, slope: float) -> Array:
    return np.where(v > 0, 1.0, slope)


def prelu_slope_derivative(v: Array) -> Array:
    """d/d slope of PReLU, by which the slope learns."""
    return np.minimum(v, 0.0)


def elu(v: Array) -> Array:
    """Clevert et al. 2016, with alpha = 1."""
    return np.where(v > 0, v, np.expm1(np.minimum(v, 0.0)))


ALL = (
    Activation("unit-step", "0 | 1, 1/2 at v = 0", lambda v: np.heaviside(v, 0.5), np.zeros_like, step=True),
    Activation("binary-step", "0 | 1, at v = 0 too", lambda v: np.heaviside(v, 1.0), np.zeros_like, step=True),
    Activation("sign", "-1 | 1, 0 at v = 0", np.sign, np.zeros_like, step=True),
    Activation("linear", "v", lambda v: v, np.ones_like),
    Activation(
        "piecewise-linear",
        "v + 1/2, within [0, 1]",
        lambda v: np.clip(v + 0.5, 0.0, 1.0),
        lambda v: np.where(np.abs(v) < 0.5, 1.0, 0.0),
    ),
    Activation("logistic", "1 / (1 + e^-v)", logistic, logistic_derivative),
    Activation("tanh", "(e^v - e^-v) / (e^v + e^-v)", np.tanh, lambda v: 1.0 - np.tanh(v) ** 2),
    Activation("arctan", "arctan v", np.arctan, lambda v: 1.0 / (1.0 + v * v)),
    Activation("relu", "max(v, 0)", lambda v: np.maximum(v, 0.0), lambda v: np.where(v > 0, 1.0, 0.0)),
    Activation("leaky-relu", "v / 100 | v", partial(leaky, slope=0.01), partial(leaky_derivative, slope=0.01)),
    Activation(
        "prelu", "a v | v, a is learned from 1/4 on", partial(leaky, slope=0.25), partial(leaky_derivative, slope=0.25)
    ),
    Activation("elu", "e^v - 1 | v", elu, lambda v: np.exp(np.minimum(v, 0.0))),
    Activation("softplus", "log(1 + e^v)", softplus, logistic),
    Activation("exp", "e^v", np.exp, np.exp),
)
ACTIVATIONS = {activation.name: activation for activation in ALL}
