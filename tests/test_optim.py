"""Optimizers against their equations, written out in float64, and schedules at points worked out by hand."""

import math

import numpy as np
import pytest
import torch

from atelier.optim import Optimizer, schedule_factor

STEPS, LR, MOMENTUM = 50, 0.02, 0.8
CURVATURE = np.array([[3.0, 0.5, 0.0], [0.5, 2.0, 0.3], [0.0, 0.3, 0.7]])
START, CENTRE = np.array([1.0, -2.0, 0.5]), np.array([0.2, 0.1, -0.4])


def gradient(w: np.ndarray) -> np.ndarray:
    """Of (w - c)' A (w - c) / 2."""
    return CURVATURE @ (w - CENTRE)


def by_equations(name: str, decay: float) -> np.ndarray:
    """Robbins and Monro 1951; Polyak 1964; Hinton 2012, slide 29; Kingma and Ba 2015, Algorithm 1; Loshchilov 2019."""
    w, velocity, square = START.copy(), np.zeros(3), np.zeros(3)
    for t in range(1, STEPS + 1):
        g = gradient(w)
        if name == "adamw":
            w = w - LR * decay * w
        else:
            g = g + decay * w
        if name == "sgd":
            w = w - LR * g
        elif name == "momentum":
            velocity = MOMENTUM * velocity + g
            w = w - LR * velocity
        elif name == "rmsprop":
            square = 0.99 * square + 0.01 * g**2
            w = w - LR * g / (np.sqrt(square) + 1e-8)
        else:
            velocity, square = 0.9 * velocity + 0.1 * g, 0.999 * square + 0.001 * g**2
            mean, spread = velocity / (1 - 0.9**t), square / (1 - 0.999**t)
            w = w - LR * mean / (np.sqrt(spread) + 1e-8)
    return w


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("name", ["sgd", "momentum", "rmsprop", "adam", "adamw"])
def test_an_optimizer_follows_its_equations(name, decay):
    w = torch.nn.Parameter(torch.tensor(START))
    optimizer = Optimizer(name, LR, MOMENTUM, decay)([w])
    for _ in range(STEPS):
        optimizer.zero_grad()
        offset = w - torch.tensor(CENTRE)
        (offset @ torch.tensor(CURVATURE) @ offset / 2).backward()
        optimizer.step()
    expected = by_equations(name, decay)
    assert np.abs(expected - START).max() > 0.1
    np.testing.assert_allclose(w.detach().numpy(), expected, rtol=0, atol=1e-10)


def test_an_unknown_optimizer_or_schedule_is_refused():
    with pytest.raises(ValueError, match="there is no optimizer lion"):
        Optimizer("lion")([torch.nn.Parameter(torch.zeros(1))])
    with pytest.raises(ValueError, match="there is no schedule linear"):
        schedule_factor("linear", 0.5)


@pytest.mark.parametrize(
    "schedule, points",
    [
        ("constant", {0.0: 1, 0.5: 1, 0.999: 1}),
        ("cosine", {0.0: 1, 1 / 3: 0.75, 0.5: 0.5, 2 / 3: 0.25, 1.0: 0}),
        ("one-cycle", {0.0: 0.04, 0.15: 0.52, 0.3: 1, 0.65: 0.5, 1.0: 0}),
        ("step", {0.0: 1, 0.499: 1, 0.5: 0.1, 0.749: 0.1, 0.75: 0.01, 0.999: 0.01}),
    ],
)
def test_schedules_at_known_points(schedule, points):
    for progress, factor in points.items():
        assert math.isclose(schedule_factor(schedule, progress), factor, abs_tol=1e-12)
