"""Gradient descent, momentum, RMSProp and Adam from their equations; g is the gradient at the weights w.

    descent   w <- w - lr g
    momentum  m <- b m + (1 - b) g                                 w <- w - lr m
    RMSProp   s <- b s + (1 - b) g^2                               w <- w - lr g / (sqrt(s) + e)
    Adam      m <- b1 m + (1 - b1) g      s <- b2 s + (1 - b2) g^2
              m^ = m / (1 - b1^t)         s^ = s / (1 - b2^t)      w <- w - lr m^ / (sqrt(s^) + e)

t counts steps (Kingma and Ba 2015, Algorithm 1). Variants that sources use: e inside the root; no correction by
1 - b^t, or t counting epochs.
"""

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import numpy as np

from atelier.byhand.activations import Array

Epsilon = Literal["inside", "outside"]


class Rule(Protocol):
    def __call__(self, gradients: Sequence[Array]) -> list[Array]:
        """What to add to each array of weights; keeps its moments for the next step."""


class Descent:
    def __init__(self, lr: float) -> None:
        self.lr = lr

    def __call__(self, gradients: Sequence[Array]) -> list[Array]:
        return [-self.lr * g for g in gradients]


class Momentum:
    """torch's SGD leaves out the factor 1 - b: its lr is this one's times 1 - b."""

    def __init__(self, lr: float, beta: float = 0.9) -> None:
        self.lr, self.beta, self.m = lr, beta, None

    def __call__(self, gradients: Sequence[Array]) -> list[Array]:
        self.m = _mean(self.m, gradients, self.beta)
        return [-self.lr * m for m in self.m]


class RMSProp:
    def __init__(self, lr: float, beta: float = 0.9, epsilon: float = 1e-8, place: Epsilon = "outside") -> None:
        self.lr, self.beta, self.epsilon, self.place, self.s = lr, beta, epsilon, place, None

    def __call__(self, gradients: Sequence[Array]) -> list[Array]:
        self.s = _mean(self.s, [g * g for g in gradients], self.beta)
        return [-self.lr * g / _root(s, self.epsilon, self.place) for g, s in zip(gradients, self.s, strict=True)]


class Adam:
    """correct: whether the moments, which begin at 0, are made unbiased. steps_per_epoch: t counts epochs instead."""

    def __init__(
        self,
        lr: float,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        place: Epsilon = "outside",
        correct: bool = True,
        steps_per_epoch: int = 1,
    ) -> None:
        self.lr, self.beta1, self.beta2, self.epsilon, self.place = lr, beta1, beta2, epsilon, place
        self.correct, self.steps_per_epoch = correct, steps_per_epoch
        self.m, self.s, self.steps = None, None, 0

    def __call__(self, gradients: Sequence[Array]) -> list[Array]:
        self.m = _mean(self.m, gradients, self.beta1)
        self.s = _mean(self.s, [g * g for g in gradients], self.beta2)
        t = 1 + self.steps // self.steps_per_epoch
        self.steps += 1
        first, second = (1.0 - self.beta1**t, 1.0 - self.beta2**t) if self.correct else (1.0, 1.0)
        return [
            -self.lr * (m / first) / _root(s / second, self.epsilon, self.place)
            for m, s in zip(self.m, self.s, strict=True)
        ]


def _mean(before: Sequence[Array] | None, new: Sequence[Array], beta: float) -> list[Array]:
    """The moving mean b m + (1 - b) g, which begins at 0."""
    before = before or [np.zeros_like(g) for g in new]
    return [beta * m + (1.0 - beta) * g for m, g in zip(before, new, strict=True)]


def _root(s: Array, epsilon: float, place: Epsilon) -> Array:
    return np.sqrt(s + epsilon) if place == "inside" else np.sqrt(s) + epsilon


def path(rule: Rule, gradient: Callable[[Array], Array], start: Array, steps: int) -> Array:
    """Where `steps` steps lead from `start` (n,), start included: (steps + 1, n)."""
    points = [np.asarray(start, dtype=np.float64)]
    for _ in range(steps):
        points.append(points[-1] + rule([gradient(points[-1])])[0])
    return np.stack(points)
