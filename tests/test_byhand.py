"""The equations written out by hand agree with autograd and torch.optim to 1e-10."""

from decimal import Decimal, getcontext

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as any_array
from torch.nn import functional as F

from atelier.byhand import optimizers
from atelier.byhand.activations import ACTIVATIONS, prelu_slope_derivative
from atelier.byhand.backprop import (
    BINARY_CROSS_ENTROPY,
    HALF_SQUARED,
    SOFTMAX_CROSS_ENTROPY,
    Loss,
    arrays,
    forward,
    gradients,
    half_squared,
    initial,
)
from atelier.byhand.two_layer import LOSSES, train

CLOSE = {"rtol": 1e-10, "atol": 1e-10}
TORCH = {
    "unit-step": lambda v: torch.heaviside(v, torch.tensor(0.5, dtype=v.dtype)),
    "binary-step": lambda v: torch.heaviside(v, torch.tensor(1.0, dtype=v.dtype)),
    "sign": torch.sign,
    "linear": lambda v: v,
    "piecewise-linear": lambda v: F.hardtanh(v + 0.5, 0.0, 1.0),
    "logistic": torch.sigmoid,
    "tanh": torch.tanh,
    "arctan": torch.arctan,
    "relu": torch.relu,
    "leaky-relu": F.leaky_relu,
    "prelu": lambda v: F.prelu(v, torch.tensor([0.25], dtype=v.dtype)),
    "elu": F.elu,
    "softplus": lambda v: torch.logaddexp(v, torch.zeros_like(v)),
    "exp": torch.exp,
}
SMOOTH = sorted(name for name, activation in ACTIVATIONS.items() if not activation.step)
values = any_array(np.float64, (7,), elements=st.floats(-30, 30, allow_subnormal=False))


def test_every_activation_has_its_reference():
    assert TORCH.keys() == ACTIVATIONS.keys()


@pytest.mark.parametrize("name", TORCH)
@settings(derandomize=True, deadline=None)
@given(v=values)
def test_activations_and_their_derivatives_are_those_of_autograd(name, v):
    v = np.concatenate([v, [0.0, 0.5, -0.5]])  # the kinks
    x = torch.tensor(v, requires_grad=True)
    y = TORCH[name](x)
    np.testing.assert_allclose(ACTIVATIONS[name].value(v), y.detach().numpy(), **CLOSE)
    if ACTIVATIONS[name].step:
        assert not ACTIVATIONS[name].derivative(v).any()
    else:
        (derivative,) = torch.autograd.grad(y.sum(), x)
        np.testing.assert_allclose(ACTIVATIONS[name].derivative(v), derivative.numpy(), **CLOSE)


@pytest.mark.parametrize("name", ["logistic", "softplus", "elu"])
def test_far_out_nothing_overflows(name):
    v = np.array([-1e4, 1e4])
    with np.errstate(all="raise", under="ignore"):
        assert np.isfinite(ACTIVATIONS[name].value(v)).all() and np.isfinite(ACTIVATIONS[name].derivative(v)).all()


@settings(derandomize=True, deadline=None)
@given(v=values)
def test_the_slope_of_prelu_learns_by_autograds_gradient(v):
    slope = torch.tensor([0.25], dtype=torch.float64, requires_grad=True)
    (derivative,) = torch.autograd.grad(F.prelu(torch.tensor(v), slope).sum(), slope)
    np.testing.assert_allclose(prelu_slope_derivative(v).sum(), derivative.item(), **CLOSE)


def torch_loss(name: str, v: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Mean error over items by the library's functions."""
    match name:
        case "softmax":
            return F.cross_entropy(v, t)
        case "cross-entropy":
            return F.binary_cross_entropy_with_logits(v, t, reduction="sum") / len(v)
    out = {
        "relu out": torch.relu,
        "softplus out": TORCH["softplus"],
        "exp out": torch.exp,
        "logistic out": torch.sigmoid,
    }
    y = out.get(name.partition(", ")[2], lambda v: v)(v)
    return 0.5 * F.mse_loss(y, t, reduction="sum") / len(v)


def in_torch(net, x, hidden):
    leaves = [torch.tensor(array, requires_grad=True) for array in arrays(net)]
    y = torch.tensor(x)
    for place in range(0, len(leaves), 2):
        v = y @ leaves[place].T + leaves[place + 1]
        y = TORCH[hidden](v)
    return leaves, v


@pytest.mark.parametrize("loss", ["softmax", *LOSSES])
@settings(derandomize=True, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    hidden=st.sampled_from(sorted({*SMOOTH} - {"exp"})),
    widths=st.lists(st.integers(1, 6), min_size=2, max_size=5),
)
def test_gradients_of_nets_of_any_depth_are_those_of_autograd(loss, seed, hidden, widths):
    rng = np.random.default_rng(seed)
    net, x = initial(widths, rng), rng.standard_normal((5, widths[0]))
    for layer in net:
        layer.biases += 0.1 * rng.standard_normal(layer.biases.shape)
    labels = rng.integers(0, widths[-1], 5)
    t = np.eye(widths[-1])[labels] if loss == "softmax" else rng.random((5, widths[-1]))
    error, found = gradients(
        net, x, t, ACTIVATIONS[hidden], SOFTMAX_CROSS_ENTROPY if loss == "softmax" else LOSSES[loss]
    )
    leaves, v = in_torch(net, x, hidden)
    expected = torch_loss(loss, v, torch.tensor(labels if loss == "softmax" else t))
    np.testing.assert_allclose(error, expected.item(), **CLOSE)
    for ours, theirs in zip(arrays(found), torch.autograd.grad(expected, leaves), strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), **CLOSE)


def test_a_loss_gives_what_its_output_gives():
    v = np.array([[0.3, -2.0]])
    np.testing.assert_allclose(SOFTMAX_CROSS_ENTROPY.output(v), torch.softmax(torch.tensor(v), 1).numpy(), **CLOSE)
    np.testing.assert_allclose(BINARY_CROSS_ENTROPY.output(v), torch.sigmoid(torch.tensor(v)).numpy(), **CLOSE)
    np.testing.assert_allclose(HALF_SQUARED.output(v), v)


RULES = {
    "descent": (optimizers.Descent(0.1), lambda w: torch.optim.SGD(w, lr=0.1)),
    "momentum": (optimizers.Momentum(0.1), lambda w: torch.optim.SGD(w, lr=0.1 * (1 - 0.9), momentum=0.9)),
    "rmsprop": (optimizers.RMSProp(0.01), lambda w: torch.optim.RMSprop(w, lr=0.01, alpha=0.9, eps=1e-8)),
    "adam": (optimizers.Adam(0.01), lambda w: torch.optim.Adam(w, lr=0.01)),
}


@pytest.mark.parametrize("name", RULES)
def test_optimizers_step_as_torch_does(name):
    ours, theirs = RULES[name]
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal(shape) for shape in ((3, 2), (4,))]
    leaves = [torch.tensor(w, requires_grad=True) for w in weights]
    reference = theirs(leaves)
    for _ in range(60):
        slopes = [rng.standard_normal(w.shape) * 10.0 ** rng.integers(-4, 3) for w in weights]
        for w, change in zip(weights, ours(slopes), strict=True):
            w += change
        for leaf, slope in zip(leaves, slopes, strict=True):
            leaf.grad = torch.tensor(slope)
        reference.step()
    for w, leaf in zip(weights, leaves, strict=True):
        np.testing.assert_allclose(w, leaf.detach().numpy(), **CLOSE)


@pytest.mark.parametrize("correct", [True, False])
@pytest.mark.parametrize("place", ["inside", "outside"])
@pytest.mark.parametrize("per_epoch", [1, 4])
def test_variants_of_adam_follow_the_equation_in_exact_arithmetic(place, correct, per_epoch):
    """torch has none of these variants, so the reference is the equation in 50 digits."""
    getcontext().prec = 50
    b1, b2, e, lr = Decimal("0.9"), Decimal("0.999"), Decimal("1e-4"), Decimal("0.01")
    rule = optimizers.Adam(0.01, epsilon=1e-4, place=place, correct=correct, steps_per_epoch=per_epoch)
    m = s = Decimal(0)
    for step, g in enumerate([0.5, -0.25, 0.125, 2.0, -1.0, 0.0078125, 0.5, 0.5, -4.0]):
        exact = Decimal(g)
        m, s = b1 * m + (1 - b1) * exact, b2 * s + (1 - b2) * exact * exact
        t = 1 + step // per_epoch
        mean, square = (m / (1 - b1**t), s / (1 - b2**t)) if correct else (m, s)
        root = (square + e).sqrt() if place == "inside" else square.sqrt() + e
        ((change,),) = rule([np.array([g])])
        assert change == pytest.approx(float(-lr * mean / root), rel=1e-10)


def test_rmsprop_with_epsilon_inside_the_root():
    ((change,),) = optimizers.RMSProp(0.1, beta=0.5, epsilon=0.25, place="inside")([np.array([2.0])])
    assert change == pytest.approx(-0.1 * 2 / np.sqrt(0.5 * 4 + 0.25), rel=1e-12)


def test_a_path_begins_at_the_start_and_follows_the_rule():
    found = optimizers.path(optimizers.Descent(0.25), lambda w: 2 * w, np.array([1.0, -2.0]), 3)
    np.testing.assert_allclose(found, np.outer(0.5 ** np.arange(4), [1.0, -2.0]))


@pytest.mark.parametrize("loss", LOSSES)
def test_the_five_steps_learn_and_leave_no_item_out(loss):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((30, 3))
    t = (x[:, :1] > 0).astype(float)
    net = initial((3, 8, 1), rng)
    losses = list(train(net, x, t, ACTIVATIONS["relu"], LOSSES[loss], lr=0.1, batch=8, epochs=60, rng=rng))
    assert len(losses) == 60 * 4  # 8 + 8 + 8 + 6
    assert np.mean(losses[-4:]) < 0.5 * np.mean(losses[:4])


def test_the_five_steps_are_torchs_with_the_same_batches():
    rng = np.random.default_rng(2)
    x, t = rng.standard_normal((20, 3)), rng.random((20, 1))
    net = initial((3, 5, 1), rng)
    leaves, _ = in_torch(net, x, "tanh")
    optimizer = torch.optim.SGD(leaves, lr=0.05)
    order = np.random.default_rng(3)
    losses = list(train(net, x, t, ACTIVATIONS["tanh"], HALF_SQUARED, lr=0.05, batch=8, epochs=3, rng=order))
    order, expected = np.random.default_rng(3), []
    for _ in range(3):
        for rows in np.array_split(order.permutation(20), [8, 16]):
            optimizer.zero_grad()
            w1, b1, w2, b2 = leaves
            v = torch.tanh(torch.tensor(x[rows]) @ w1.T + b1) @ w2.T + b2
            error = torch_loss("half-squared", v, torch.tensor(t[rows]))
            error.backward()
            optimizer.step()
            expected.append(error.item())
    np.testing.assert_allclose(losses, expected, **CLOSE)
    for ours, leaf in zip(arrays(net), leaves, strict=True):
        np.testing.assert_allclose(ours, leaf.detach().numpy(), **CLOSE)


def test_layers_keep_the_inputs_they_saw():
    net = initial((2, 3, 1), np.random.default_rng(0))
    inputs, sums = forward(net, np.ones((4, 2)), ACTIVATIONS["relu"])
    assert [a.shape for a in inputs] == [(4, 2), (4, 3)] and [v.shape for v in sums] == [(4, 3), (4, 1)]
    assert isinstance(half_squared(ACTIVATIONS["exp"]), Loss)
