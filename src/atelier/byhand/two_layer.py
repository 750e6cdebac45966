"""Linear-f-Linear-g, trained by the five steps of stochastic gradient descent.

    1 sample a batch   2 forward   3 loss   4 backward   5 step

Its tasks: a number by half squared error; a number that is positive, through an output that cannot be negative; one
of two classes by squared error and by cross-entropy of a logistic output.
"""

from collections.abc import Iterator

import numpy as np

from atelier.byhand.activations import ACTIVATIONS, Activation, Array
from atelier.byhand.backprop import (
    BINARY_CROSS_ENTROPY,
    HALF_SQUARED,
    Loss,
    Net,
    arrays,
    backward,
    forward,
    half_squared,
)

LOSSES: dict[str, Loss] = {
    "half-squared": HALF_SQUARED,
    "half-squared, relu out": half_squared(ACTIVATIONS["relu"]),
    "half-squared, softplus out": half_squared(ACTIVATIONS["softplus"]),
    "half-squared, exp out": half_squared(ACTIVATIONS["exp"]),
    "half-squared, logistic out": half_squared(ACTIVATIONS["logistic"]),
    "cross-entropy": BINARY_CROSS_ENTROPY,
}


def train(
    net: Net,
    x: Array,
    t: Array,
    hidden: Activation,
    loss: Loss,
    *,
    lr: float,
    batch: int,
    epochs: int,
    rng: np.random.Generator,
) -> Iterator[float]:
    """Train `net` in place on items x (items, inputs) with targets t (items, outputs); the loss of every batch."""
    for _ in range(epochs):
        order = rng.permutation(len(x))
        for start in range(0, len(x), batch):
            rows = order[start : start + batch]  # 1: the last batch is short, no item is left out
            inputs, sums = forward(net, x[rows], hidden)  # 2
            value = loss.value(sums[-1], t[rows])  # 3
            gradient = backward(net, inputs, sums, hidden, loss.delta(sums[-1], t[rows]))  # 4
            for weights, change in zip(arrays(net), arrays(gradient), strict=True):
                weights -= lr * change  # 5
            yield float(value)
