"""Recurrent cells and back-propagation through time, from their equations; s(v) = 1 / (1 + e^-v), * is by element.

    recurrent   h_t = tanh(W_hh h_{t-1} + W_xh x_t + b_h)             y_t = W_hy h_t + b_y
    GRU         r_t = s(W_r x_t + U_r h_{t-1} + b_r)                  z_t = s(W_z x_t + U_z h_{t-1} + b_z)
      before    n_t = tanh(W_n x_t + U_n (r_t * h_{t-1}) + b_n)
      after     n_t = tanh(W_n x_t + r_t * (U_n h_{t-1} + c_n) + b_n)
                h_t = (1 - z_t) * h_{t-1} + z_t * n_t
    LSTM        i_t = s(W_i x_t + U_i h_{t-1} + p_i * c_{t-1} + b_i)  f_t likewise
                g_t = tanh(W_g x_t + U_g h_{t-1} + b_g)               c_t = f_t * c_{t-1} + i_t * g_t
                o_t = s(W_o x_t + U_o h_{t-1} + p_o * c_t + b_o)      h_t = o_t * tanh(c_t)

The GRU of Cho et al. 2014 resets its state before the product with U_n; torch.nn.GRU resets after it and mixes
z * h + (1 - z) * n, which is this mix with z -> 1 - z (`swapped`). Without p the LSTM is torch.nn.LSTM; p are the
peepholes of Gers and Schmidhuber 2000, through which the gates see the cell (here under the tanh of the LSTM above,
and with the whole gradient). All states begin at 0.

Backward, from the last step to the first: d of a gate is dE/dv of its sum v, and

    dE/dh_t = what the error gives at t + what the sums at t + 1 give
    dE/dW = sum over t of d_t x_t^T     dE/dU = sum of d_t h_{t-1}^T     dE/db = sum of d_t     dE/dx_t = W^T d_t

x is (items, steps, inputs), states are (items, steps, units); the blocks of W, U and b lie one over the other in the
order in which torch has them: r, z, n and i, f, g, o. Gradients are sums over items and come as a cell of their shape.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from atelier.byhand.activations import Array, logistic

Reset = Literal["after", "before"]


@dataclass
class Recurrent:
    w_xh: Array  # (units, inputs)
    w_hh: Array  # (units, units)
    b_h: Array  # (units,)
    w_hy: Array  # (outputs, units)
    b_y: Array  # (outputs,)


@dataclass
class GRU:
    w: Array  # (3 units, inputs)
    u: Array  # (3 units, units)
    b: Array  # (3 units,)
    c: Array  # (units,): c_n, of no use where the state is reset before


@dataclass
class LSTM:
    w: Array  # (4 units, inputs)
    u: Array  # (4 units, units)
    b: Array  # (4 units,)
    p: Array | None = None  # (3, units): of i, f and o


class GRUTrace(NamedTuple):
    """What the backward pass needs again of every step; q is U_n h_{t-1} + c_n, or r_t * h_{t-1}."""

    r: Array
    z: Array
    n: Array
    q: Array


class LSTMTrace(NamedTuple):
    i: Array
    f: Array
    g: Array
    o: Array
    c: Array


def recurrent(cell: Recurrent, x: Array) -> tuple[Array, Array]:
    """The states h and the outputs y (items, steps, outputs)."""
    h = _states(x, len(cell.w_hh))
    for t in range(x.shape[1]):
        h[:, t] = np.tanh(_before(h, t) @ cell.w_hh.T + x[:, t] @ cell.w_xh.T + cell.b_h)
    return h, h @ cell.w_hy.T + cell.b_y


def recurrent_backward(cell: Recurrent, x: Array, h: Array, dy: Array) -> tuple[Recurrent, Array]:
    """The gradients by the cell and by x, from dE/dy."""
    d, later = np.empty_like(h), np.zeros_like(h[:, 0])
    for t in reversed(range(x.shape[1])):
        d[:, t] = (dy[:, t] @ cell.w_hy + later) * (1.0 - h[:, t] ** 2)
        later = d[:, t] @ cell.w_hh
    found = Recurrent(_sum(d, x), _sum(d, _shifted(h)), d.sum((0, 1)), _sum(dy, h), dy.sum((0, 1)))
    return found, d @ cell.w_xh


def gru(cell: GRU, x: Array, reset: Reset) -> tuple[Array, GRUTrace]:
    units = len(cell.c)
    u_n, inputs, h = cell.u[2 * units :], x @ cell.w.T + cell.b, _states(x, units)
    trace = GRUTrace(*(np.empty_like(h) for _ in range(4)))
    for t in range(x.shape[1]):
        old = _before(h, t)
        gates = logistic(inputs[:, t, : 2 * units] + old @ cell.u[: 2 * units].T)
        r, z = np.split(gates, 2, axis=1)
        q = r * old if reset == "before" else old @ u_n.T + cell.c
        n = np.tanh(inputs[:, t, 2 * units :] + (q @ u_n.T if reset == "before" else r * q))
        h[:, t] = (1.0 - z) * old + z * n
        for kept, value in zip(trace, (r, z, n, q), strict=True):
            kept[:, t] = value
    return h, trace


def gru_backward(cell: GRU, x: Array, h: Array, trace: GRUTrace, dh: Array, reset: Reset) -> tuple[GRU, Array]:
    """The gradients by the cell and by x, from what the error gives at every state."""
    units = len(cell.c)
    u_rz, u_n, old = cell.u[: 2 * units], cell.u[2 * units :], _shifted(h)
    d, dq, later = np.empty_like(x @ cell.w.T), np.empty_like(h), np.zeros_like(h[:, 0])
    for t in reversed(range(x.shape[1])):
        r, z, n, q = (kept[:, t] for kept in trace)
        total = dh[:, t] + later
        dz = total * (n - old[:, t]) * z * (1.0 - z)
        dn = total * z * (1.0 - n**2)
        dq[:, t] = dn @ u_n if reset == "before" else dn * r
        dr = (dq[:, t] * old[:, t] if reset == "before" else dn * q) * r * (1.0 - r)
        d[:, t] = np.concatenate([dr, dz, dn], axis=1)
        through_n = dq[:, t] * r if reset == "before" else dq[:, t] @ u_n
        later = total * (1.0 - z) + d[:, t, : 2 * units] @ u_rz + through_n
    du_n = _sum(d[..., 2 * units :], trace.q) if reset == "before" else _sum(dq, old)
    du = np.concatenate([_sum(d[..., : 2 * units], old), du_n])
    dc = np.zeros_like(cell.c) if reset == "before" else dq.sum((0, 1))
    return GRU(_sum(d, x), du, d.sum((0, 1)), dc), d @ cell.w


def swapped(cell: GRU) -> GRU:
    """The cell with 1 - z for z: s(-v) = 1 - s(v). It turns the library's weights into these equations' and back."""
    sign = np.repeat([1.0, -1.0, 1.0], len(cell.c))
    return GRU(cell.w * sign[:, None], cell.u * sign[:, None], cell.b * sign, cell.c)


def lstm(cell: LSTM, x: Array) -> tuple[Array, LSTMTrace]:
    units = cell.u.shape[1]
    p_i, p_f, p_o = np.zeros((3, units)) if cell.p is None else cell.p
    inputs, h = x @ cell.w.T + cell.b, _states(x, units)
    trace = LSTMTrace(*(np.empty_like(h) for _ in range(5)))
    for t in range(x.shape[1]):
        old = _before(trace.c, t)
        v_i, v_f, v_g, v_o = np.split(inputs[:, t] + _before(h, t) @ cell.u.T, 4, axis=1)
        i, f, g = logistic(v_i + p_i * old), logistic(v_f + p_f * old), np.tanh(v_g)
        c = f * old + i * g
        o = logistic(v_o + p_o * c)
        h[:, t] = o * np.tanh(c)
        for kept, value in zip(trace, (i, f, g, o, c), strict=True):
            kept[:, t] = value
    return h, trace


def lstm_backward(cell: LSTM, x: Array, h: Array, trace: LSTMTrace, dh: Array) -> tuple[LSTM, Array]:
    """The gradients by the cell and by x, from what the error gives at every state."""
    p_i, p_f, p_o = np.zeros((3, h.shape[2])) if cell.p is None else cell.p
    d, old = np.empty_like(x @ cell.w.T), _shifted(trace.c)
    later = later_c = np.zeros_like(h[:, 0])
    for t in reversed(range(x.shape[1])):
        i, f, g, o, c = (kept[:, t] for kept in trace)
        total = dh[:, t] + later
        do = total * np.tanh(c) * o * (1.0 - o)
        dc = later_c + total * o * (1.0 - np.tanh(c) ** 2) + do * p_o
        di, df, dg = dc * g * i * (1.0 - i), dc * old[:, t] * f * (1.0 - f), dc * i * (1.0 - g**2)
        d[:, t] = np.concatenate([di, df, dg, do], axis=1)
        later, later_c = d[:, t] @ cell.u, dc * f + di * p_i + df * p_f
    di, df, _, do = np.split(d, 4, axis=2)
    dp = None if cell.p is None else np.stack([(a * b).sum((0, 1)) for a, b in ((di, old), (df, old), (do, trace.c))])
    return LSTM(_sum(d, x), _sum(d, _shifted(h)), d.sum((0, 1)), dp), d @ cell.w


def _states(x: Array, units: int) -> Array:
    return np.empty((*x.shape[:2], units))


def _before(h: Array, t: int) -> Array:
    """h_{t-1}, which is 0 before the first step."""
    return h[:, t - 1] if t else np.zeros_like(h[:, 0])


def _shifted(h: Array) -> Array:
    """h_{t-1} for every t."""
    return np.concatenate([np.zeros_like(h[:, :1]), h[:, :-1]], axis=1)


def _sum(d: Array, y: Array) -> Array:
    """The sum over items and steps of d y^T."""
    return np.einsum("nto,nti->oi", d, y)
