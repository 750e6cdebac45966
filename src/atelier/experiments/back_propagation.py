"""Back-propagation by the delta rule against autograd and against differences of the loss, in float64."""

from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge

from atelier.byhand.activations import ACTIVATIONS
from atelier.byhand.backprop import SOFTMAX_CROSS_ENTROPY, Net, arrays, gradients, initial
from atelier.byhand.faults import deviation
from atelier.data.store import Store
from atelier.experiments import items

FLOORS = {"rounding": {"test.deviation": 1e-10, "test.difference": 1e-6}}
STEP, TRIED = 1e-5, 40  # of a central difference; weights that are moved by it


def measure(
    seed: int,
    store: Store,
    *,
    hidden: tuple[Annotated[int, Ge(1)], ...] = (30, 20),
    activation: Literal["elu", "logistic", "relu", "softplus", "tanh"] = "tanh",
    count: Annotated[int, Ge(1)] = 200,
) -> dict[str, float]:
    """deviation: largest over all weights, of the hand's gradient from autograd's, by the largest entry of autograd's;
    difference: the same from (E(w + h) - E(w - h)) / 2h, for some weights.
    """
    from atelier.byhand import autograd

    rng = np.random.default_rng(seed)
    x, labels = items(store, "train", count)
    t = np.eye(len(store.classes))[labels]
    net = initial((x.shape[1], *hidden, t.shape[1]), rng)
    _, found = gradients(net, x, t, ACTIVATIONS[activation], SOFTMAX_CROSS_ENTROPY)
    expected = autograd.gradients(arrays(net), x, t, activation, "softmax")
    return {
        "test.deviation": deviation(arrays(found), expected),
        "test.difference": _by_differences(net, found, x, t, activation, rng),
    }


def _by_differences(net: Net, found: Net, x: np.ndarray, t: np.ndarray, activation: str, rng) -> float:
    slopes, hand = [], []
    for _ in range(TRIED):
        layer = int(rng.integers(len(net)))
        weights, place = net[layer].weights, tuple(rng.integers(net[layer].weights.shape))
        kept, losses = weights[place], []
        for step in (STEP, -STEP):
            weights[place] = kept + step
            losses.append(gradients(net, x, t, ACTIVATIONS[activation], SOFTMAX_CROSS_ENTROPY)[0])
        weights[place] = kept
        slopes.append((losses[0] - losses[1]) / (2 * STEP))
        hand.append(found[layer].weights[place])
    return float(np.abs(np.subtract(slopes, hand)).max() / np.abs(hand).max())
