"""Faults in hand derivations, each as its source writes it, beside autograd: the check that shows it.

The net is Linear-f-Linear-g of backprop.py; every fault gives the gradient that its formula gives.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from atelier.byhand.activations import ACTIVATIONS, Array, logistic
from atelier.byhand.backprop import SOFTMAX_CROSS_ENTROPY, Net, arrays, forward, gradients, initial, softmax
from atelier.byhand.two_layer import LOSSES

ITEMS, INPUTS, UNITS = 50, 6, 5
FAR = 800.0


@dataclass(frozen=True)
class Example:
    """A small net with a logistic output on random items, its sums, and what autograd says."""

    net: Net
    x: Array
    t: Array
    h: Array
    v1: Array
    y: Array
    hidden: str
    loss: str
    expected: list[Array]  # of dW1, db1, dW2, db2

    def gradients(self, d1: Array, d2: Array) -> list[Array]:
        """dW1, db1, dW2, db2 from the local gradients of both layers."""
        return [d1.T @ self.x, d1.sum(axis=0), d2.T @ self.h, d2.sum(axis=0)]


def example(hidden: str, loss: str) -> Example:
    from atelier.byhand import autograd

    rng = np.random.default_rng(0)
    net = initial((INPUTS, UNITS, 1), rng)
    x, t = rng.standard_normal((ITEMS, INPUTS)), rng.integers(0, 2, (ITEMS, 1)).astype(np.float64)
    (_, h), (v1, v2) = forward(net, x, ACTIVATIONS[hidden])
    expected = autograd.gradients(arrays(net), x, t, hidden, loss)
    return Example(net, x, t, h, v1, logistic(v2), hidden, loss, expected)


def deviation(found: Sequence[Array], expected: Sequence[Array]) -> float:
    """The largest difference of any array, by its largest entry; infinite where a shape is another."""
    if any(ours.shape != theirs.shape for ours, theirs in zip(found, expected, strict=True)):
        return float("inf")
    pairs = zip(found, expected, strict=True)
    return float(max(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-300) for ours, theirs in pairs))


def right(e: Example) -> list[Array]:
    """As backprop.py has it."""
    return arrays(gradients(e.net, e.x, e.t, ACTIVATIONS[e.hidden], LOSSES[e.loss])[1])


def wrong_order(e: Example) -> list[Array]:
    """dW1 as x times the local gradient: its transpose, of another shape."""
    w1, *others = right(e)
    return [w1.T, *others]


def masked_as_a_whole(e: Example) -> list[Array]:
    """ReLU's derivative 1 for all units of an item if any is on, and not unit by unit."""
    d2 = (e.y - e.t) / ITEMS
    d1 = (d2 @ e.net[1].weights) * (e.v1 > 0).any(axis=1, keepdims=True)
    return e.gradients(d1, d2)


def bias_as_weights(e: Example) -> list[Array]:
    """The formula of dW1 under the name of db1."""
    w1, _, *others = right(e)
    return [w1, w1, *others]


def without_logistic_derivatives(e: Example) -> list[Array]:
    """Squared error of a logistic output without y (1 - y), and a logistic hidden layer without h (1 - h)."""
    d2 = (e.y - e.t) / ITEMS
    d1 = d2 @ e.net[1].weights
    return e.gradients(d1, d2)


def plus_in_cross_entropy(e: Example) -> list[Array]:
    """d/dy of -t log y + (1 - t) log(1 - y), the second sign turned, times y (1 - y)."""
    d2 = (-e.t / e.y - (1.0 - e.t) / (1.0 - e.y)) * e.y * (1.0 - e.y) / ITEMS
    d1 = (d2 @ e.net[1].weights) * ACTIVATIONS[e.hidden].derivative(e.v1)
    return e.gradients(d1, d2)


def one_bias_a_layer(e: Example) -> list[Array]:
    """One number for all units of the hidden layer: each moves by the sum over units."""
    w1, b1, *others = right(e)
    return [w1, np.full_like(b1, b1.sum()), *others]


def random_step(e: Example) -> list[Array]:
    """An update drawn at random, of the right gradient's size."""
    rng, found = np.random.default_rng(1), []
    for gradient in right(e):
        drawn = rng.standard_normal(gradient.shape)
        found.append(drawn * np.abs(gradient).max() / np.abs(drawn).max())
    return found


FAULTS: tuple[tuple[str, str, str, str, Callable[[Example], list[Array]]], ...] = (
    ("D4.1", "the factors of dW1 in the wrong order", "relu", "cross-entropy", wrong_order),
    ("D4.1", "ReLU's mask for a whole item, not for each unit", "relu", "cross-entropy", masked_as_a_whole),
    ("D4.1", "db1 written as dW1", "relu", "cross-entropy", bias_as_weights),
    (
        "D4.1",
        "the logistic derivatives left out",
        "logistic",
        "half-squared, logistic out",
        without_logistic_derivatives,
    ),
    ("D4.1", "+ for - in the binary cross-entropy", "relu", "cross-entropy", plus_in_cross_entropy),
    ("D4.1", "the update shown is a random walk", "relu", "cross-entropy", random_step),
    ("D0, D1.2 to D1.5", "one scalar bias for a layer, or for the net", "relu", "cross-entropy", one_bias_a_layer),
)


def table() -> str:
    """Every fault with its deviation from autograd, and that of the right formula beside it."""
    rows = ["## Faults in the sources' derivations", ""]
    rows += ["| Row | What the source writes | Its gradient against autograd | Ours |", "| :-- | :-- | --: | --: |"]
    for row, what, hidden, loss, wrong in FAULTS:
        e = example(hidden, loss)
        off, ours = deviation(wrong(e), e.expected), deviation(right(e), e.expected)
        rows.append(f"| {row} | {what} | {'another shape' if np.isinf(off) else f'{off:.2g}'} | {ours:.1g} |")
    rows += ["", "The largest difference in any entry, by the largest entry of that array in autograd's gradient."]
    naive, ours = unused_clip()
    rows += [
        "",
        f"D1 also clips its probabilities and then takes the logarithm of those not clipped: for the lesser of two "
        f"classes whose logits are {FAR:g} apart its cross-entropy is {naive:g}, and ours {ours:g}.",
    ]
    return "\n".join(rows)


def unused_clip() -> tuple[float, float]:
    """Cross-entropy of a class whose logit lies FAR below the other: by log(softmax(v)), and from the logits."""
    v, t = np.array([[FAR, 0.0]]), np.array([[0.0, 1.0]])
    with np.errstate(divide="ignore"):
        return float(-np.log(softmax(v)[0, 1])), float(SOFTMAX_CROSS_ENTROPY.value(v, t))
