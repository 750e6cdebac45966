"""Back-propagation for dense nets of any depth, from the equations of the delta rule.

For layer l with weights W_l (outputs, inputs), biases b_l and activation f_l, and y_0 = x:

    forward    v_l = W_l y_{l-1} + b_l            y_l = f_l(v_l)
    output     d_L = dE/dv_L                      (each Loss gives it)
    hidden     d_l = f_l'(v_l) * (W_{l+1}^T d_{l+1})
    gradients  dE/dW_l = d_l y_{l-1}^T            dE/db_l = d_l

d is the local gradient (Haykin 2009, 4.4). Items are rows here, so the sums over items are products of matrices, and
E is the mean over items.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from atelier.byhand.activations import ACTIVATIONS, Activation, Array, logistic, softplus


@dataclass
class Layer:
    weights: Array  # (outputs, inputs)
    biases: Array  # (outputs,)


Net = list[Layer]


@dataclass(frozen=True)
class Loss:
    """What the net gives from its last v, the mean error E over items, and dE/dv. Targets have the shape of v."""

    output: Callable[[Array], Array]
    value: Callable[[Array, Array], float]
    delta: Callable[[Array, Array], Array]


def half_squared(output: Activation) -> Loss:
    """E = mean of 1/2 sum (y - t)^2 with y = output(v)."""
    f = output.value
    return Loss(
        output=f,
        value=lambda v, t: 0.5 * np.square(f(v) - t).sum() / len(v),
        delta=lambda v, t: (f(v) - t) * output.derivative(v) / len(v),
    )


def softmax(v: Array) -> Array:
    shifted = np.exp(v - v.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def log_sum_exp(v: Array) -> Array:
    top = v.max(axis=1)
    return top + np.log(np.exp(v - top[:, None]).sum(axis=1))


# Cross-entropies and the functions before them are one step: apart, log 0 and 1 / 0 wait in saturated units.
SOFTMAX_CROSS_ENTROPY = Loss(
    output=softmax,
    value=lambda v, t: (log_sum_exp(v) - (v * t).sum(axis=1)).mean(),
    delta=lambda v, t: (softmax(v) - t) / len(v),
)
BINARY_CROSS_ENTROPY = Loss(
    output=logistic,
    value=lambda v, t: (softplus(v) - v * t).sum() / len(v),
    delta=lambda v, t: (logistic(v) - t) / len(v),
)
HALF_SQUARED = half_squared(ACTIVATIONS["linear"])


def initial(widths: Sequence[int], rng: np.random.Generator) -> Net:
    """Weights N(0, 2 / inputs) (He et al. 2015), biases 0."""
    pairs = zip(widths, widths[1:], strict=False)
    return [Layer(rng.standard_normal((b, a)) * np.sqrt(2.0 / a), np.zeros(b)) for a, b in pairs]


def forward(net: Net, x: Array, hidden: Activation) -> tuple[list[Array], list[Array]]:
    """The inputs y_0 .. y_{L-1} and the pre-activations v_1 .. v_L of every layer; x (items, inputs)."""
    inputs, sums = [x], []
    for layer in net:
        sums.append(inputs[-1] @ layer.weights.T + layer.biases)
        inputs.append(hidden.value(sums[-1]))
    return inputs[:-1], sums


def backward(net: Net, inputs: list[Array], sums: list[Array], hidden: Activation, delta: Array) -> Net:
    """The gradient of E by every weight and bias, as a net of their shape; delta (items, outputs) is dE/dv_L."""
    gradients: Net = []
    for place in reversed(range(len(net))):
        gradients.append(Layer(delta.T @ inputs[place], delta.sum(axis=0)))
        if place:
            delta = (delta @ net[place].weights) * hidden.derivative(sums[place - 1])
    return gradients[::-1]


def gradients(net: Net, x: Array, t: Array, hidden: Activation, loss: Loss) -> tuple[float, Net]:
    """E and its gradient."""
    inputs, sums = forward(net, x, hidden)
    return float(loss.value(sums[-1], t)), backward(net, inputs, sums, hidden, loss.delta(sums[-1], t))


def arrays(net: Net) -> list[Array]:
    """W_1, b_1, W_2, ...: what an optimizer steps."""
    return [array for layer in net for array in (layer.weights, layer.biases)]
