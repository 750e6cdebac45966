"""Recurrent cells and their backward passes written out by hand agree with torch's layers and autograd to 1e-10."""

from dataclasses import fields

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from atelier.byhand import cells
from atelier.byhand.backprop import SOFTMAX_CROSS_ENTROPY
from atelier.byhand.optimizers import Adam

CLOSE = {"rtol": 1e-10, "atol": 1e-10}
tried = given(seed=st.integers(0, 2**31), shape=st.tuples(*[st.integers(1, 6)] * 5))


def drawn(kind: type, rng: np.random.Generator, *shapes: tuple[int, ...]):
    return kind(*(0.7 * rng.standard_normal(shape) for shape in shapes))


def arrays(cell) -> list[np.ndarray]:
    return [value for field in fields(cell) if (value := getattr(cell, field.name)) is not None]


def leaves(cell) -> list[Tensor]:
    return [torch.tensor(array, requires_grad=True) for array in arrays(cell)]


def assert_gradients(found, dx: np.ndarray, error: Tensor, weights: list[Tensor], x: Tensor) -> None:
    expected = torch.autograd.grad(error, [*weights, x], allow_unused=True)
    for ours, theirs in zip([*arrays(found), dx], expected, strict=True):
        np.testing.assert_allclose(ours, 0.0 if theirs is None else theirs.numpy(), **CLOSE)


def load(layer: nn.RNNBase, *weights: np.ndarray) -> nn.RNNBase:
    with torch.no_grad():
        for p, array in zip(layer.parameters(), weights, strict=True):
            p.copy_(torch.tensor(array))
    return layer


@settings(derandomize=True, deadline=None)
@tried
def test_the_recurrent_cell_is_torchs_with_a_dense_layer_on_it(seed, shape):
    rng = np.random.default_rng(seed)
    items, steps, inputs, units, outputs = shape
    cell = drawn(cells.Recurrent, rng, (units, inputs), (units, units), (units,), (outputs, units), (outputs,))
    x, dy = rng.standard_normal((items, steps, inputs)), rng.standard_normal((items, steps, outputs))
    h, y = cells.recurrent(cell, x)
    layer = nn.RNN(inputs, units, batch_first=True, dtype=torch.float64)
    load(layer, cell.w_xh, cell.w_hh, cell.b_h, np.zeros(units))
    head, tx = leaves(cell)[3:], torch.tensor(x, requires_grad=True)
    states, _ = layer(tx)
    answers = states @ head[0].T + head[1]
    np.testing.assert_allclose(h, states.detach().numpy(), **CLOSE)
    np.testing.assert_allclose(y, answers.detach().numpy(), **CLOSE)
    found, dx = cells.recurrent_backward(cell, x, h, dy)
    weights = [layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_ih_l0, *head]
    assert_gradients(found, dx, (answers * torch.tensor(dy)).sum(), weights, tx)


def gru_by_step(weights: list[Tensor], x: Tensor, reset: str) -> Tensor:
    """The notes' equations in torch, a matrix for each gate, for autograd to take apart."""
    w, u, b, c = weights
    (wr, wz, wn), (ur, uz, un), (br, bz, bn) = w.chunk(3), u.chunk(3), b.chunk(3)
    h, states = torch.zeros(len(x), len(c), dtype=x.dtype), []
    for now in x.unbind(1):
        r = torch.sigmoid(now @ wr.T + h @ ur.T + br)
        z = torch.sigmoid(now @ wz.T + h @ uz.T + bz)
        past = (r * h) @ un.T if reset == "before" else r * (h @ un.T + c)
        h = (1 - z) * h + z * torch.tanh(now @ wn.T + past + bn)
        states.append(h)
    return torch.stack(states, 1)


@pytest.mark.parametrize("reset", ["before", "after"])
@settings(derandomize=True, deadline=None)
@tried
def test_both_forms_of_the_gru_have_autograds_gradients(reset, seed, shape):
    rng = np.random.default_rng(seed)
    items, steps, inputs, units, _ = shape
    cell = drawn(cells.GRU, rng, (3 * units, inputs), (3 * units, units), (3 * units,), (units,))
    x, dh = rng.standard_normal((items, steps, inputs)), rng.standard_normal((items, steps, units))
    h, trace = cells.gru(cell, x, reset)
    weights, tx = leaves(cell), torch.tensor(x, requires_grad=True)
    states = gru_by_step(weights, tx, reset)
    np.testing.assert_allclose(h, states.detach().numpy(), **CLOSE)
    found, dx = cells.gru_backward(cell, x, h, trace, dh, reset)
    assert_gradients(found, dx, (states * torch.tensor(dh)).sum(), weights, tx)


@settings(derandomize=True, deadline=None)
@tried
def test_the_gru_that_resets_after_is_torchs_with_z_swapped(seed, shape):
    rng = np.random.default_rng(seed)
    items, steps, inputs, units, _ = shape
    cell = drawn(cells.GRU, rng, (3 * units, inputs), (3 * units, units), (3 * units,), (units,))
    x, dh = rng.standard_normal((items, steps, inputs)), rng.standard_normal((items, steps, units))
    layer = nn.GRU(inputs, units, batch_first=True, dtype=torch.float64)
    second = np.concatenate([np.zeros(2 * units), cell.c])
    load(layer, cell.w, cell.u, cell.b, second)
    tx = torch.tensor(x, requires_grad=True)
    states, _ = layer(tx)
    ours = cells.swapped(cell)
    h, trace = cells.gru(ours, x, "after")
    np.testing.assert_allclose(h, states.detach().numpy(), **CLOSE)
    found, dx = cells.gru_backward(ours, x, h, trace, dh, "after")
    (states * torch.tensor(dh)).sum().backward()
    w, u, b, c = (p.grad.numpy() for p in layer.parameters())
    expected = [w, u, b, c[2 * units :], tx.grad.numpy()]
    for one, other in zip([*arrays(cells.swapped(found)), dx], expected, strict=True):
        np.testing.assert_allclose(one, other, **CLOSE)


def test_the_two_forms_of_the_gru_are_two_and_swapping_twice_is_nothing():
    rng = np.random.default_rng(0)
    cell = drawn(cells.GRU, rng, (6, 3), (6, 2), (6,), (2,))
    x = rng.standard_normal((4, 5, 3))
    first, second = (cells.gru(cell, x, reset)[0] for reset in ("before", "after"))
    assert np.abs(first[:, 1:] - second[:, 1:]).max() > 1e-2
    for once, twice in zip(arrays(cell), arrays(cells.swapped(cells.swapped(cell))), strict=True):
        np.testing.assert_array_equal(once, twice)


@settings(derandomize=True, deadline=None)
@tried
def test_the_lstm_is_torchs(seed, shape):
    rng = np.random.default_rng(seed)
    items, steps, inputs, units, _ = shape
    cell = drawn(cells.LSTM, rng, (4 * units, inputs), (4 * units, units), (4 * units,))
    x, dh = rng.standard_normal((items, steps, inputs)), rng.standard_normal((items, steps, units))
    layer = nn.LSTM(inputs, units, batch_first=True, dtype=torch.float64)
    load(layer, cell.w, cell.u, cell.b, np.zeros(4 * units))
    tx = torch.tensor(x, requires_grad=True)
    states, (_, c) = layer(tx)
    h, trace = cells.lstm(cell, x)
    np.testing.assert_allclose(h, states.detach().numpy(), **CLOSE)
    np.testing.assert_allclose(trace.c[:, -1], c[0].detach().numpy(), **CLOSE)
    found, dx = cells.lstm_backward(cell, x, h, trace, dh)
    weights = [layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_ih_l0]
    assert_gradients(found, dx, (states * torch.tensor(dh)).sum(), weights, tx)


def lstm_by_step(weights: list[Tensor], x: Tensor) -> Tensor:
    w, u, b, (pi, pf, po) = weights
    (wi, wf, wg, wo), (ui, uf, ug, uo), (bi, bf, bg, bo) = w.chunk(4), u.chunk(4), b.chunk(4)
    h = c = torch.zeros(len(x), len(pi), dtype=x.dtype)
    states = []
    for now in x.unbind(1):
        i = torch.sigmoid(now @ wi.T + h @ ui.T + pi * c + bi)
        f = torch.sigmoid(now @ wf.T + h @ uf.T + pf * c + bf)
        c = f * c + i * torch.tanh(now @ wg.T + h @ ug.T + bg)
        h = torch.sigmoid(now @ wo.T + h @ uo.T + po * c + bo) * torch.tanh(c)
        states.append(h)
    return torch.stack(states, 1)


@settings(derandomize=True, deadline=None)
@tried
def test_the_lstm_with_peepholes_has_autograds_gradients(seed, shape):
    rng = np.random.default_rng(seed)
    items, steps, inputs, units, _ = shape
    cell = drawn(cells.LSTM, rng, (4 * units, inputs), (4 * units, units), (4 * units,), (3, units))
    x, dh = rng.standard_normal((items, steps, inputs)), rng.standard_normal((items, steps, units))
    h, trace = cells.lstm(cell, x)
    weights, tx = leaves(cell), torch.tensor(x, requires_grad=True)
    states = lstm_by_step(weights, tx)
    np.testing.assert_allclose(h, states.detach().numpy(), **CLOSE)
    found, dx = cells.lstm_backward(cell, x, h, trace, dh)
    assert_gradients(found, dx, (states * torch.tensor(dh)).sum(), weights, tx)


def test_peepholes_of_zero_are_none():
    rng = np.random.default_rng(0)
    plain = drawn(cells.LSTM, rng, (8, 3), (8, 2), (8,))
    x = rng.standard_normal((4, 5, 3))
    closed = cells.LSTM(plain.w, plain.u, plain.b, np.zeros((3, 2)))
    np.testing.assert_array_equal(cells.lstm(plain, x)[0], cells.lstm(closed, x)[0])


def test_given_h_e_l_l_the_recurrent_cell_learns_to_say_e_l_l_o():
    """After an l it has to know whether that was the first: the state tells."""
    rng = np.random.default_rng(0)
    letters = "helo"
    places = [letters.index(letter) for letter in "hello"]
    x, t = np.eye(4)[places[:-1]][None], np.eye(4)[places[1:]]
    cell = drawn(cells.Recurrent, rng, (3, 4), (3, 3), (3,), (4, 3), (4,))
    rule = Adam(0.05)
    for _ in range(200):
        h, y = cells.recurrent(cell, x)
        gradient, _ = cells.recurrent_backward(cell, x, h, SOFTMAX_CROSS_ENTROPY.delta(y[0], t)[None])
        for weights, change in zip(arrays(cell), rule(arrays(gradient)), strict=True):
            weights += change
    _, y = cells.recurrent(cell, x)
    assert "".join(letters[place] for place in y[0].argmax(1)) == "ello"
    assert SOFTMAX_CROSS_ENTROPY.value(y[0], t) < 0.1
