"""nn.GRU with its CPU training written out: the same weights, names and equations, fewer and larger operations.

    r = s(W_r x + b_r + U_r h + c_r)   z = s(W_z x + b_z + U_z h + c_z)   s(v) = 1 / (1 + e^-v)
    q = U_n h + c_n                    n = tanh(W_n x + b_n + r q)        h' = (1 - z) n + z h

The library leaves the backward pass to autograd, step by step. Here all products with x are one, every array lies
(features, items) so that a gate is one block of memory, and tanh(v) is 2 s(2v) - 1, which takes half of tanh's time.
The gain is largest over many steps of few features; in wide layers products of matrices are most of the work, and the
library does these as fast. Results agree to 1e-6.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class GRU(nn.GRU):
    """One layer, batch first, from a state of zeros."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(n, steps, features) -> all states (n, steps, units) and the last (1, n, units)."""
        if x.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        states = _Steps.apply(x, self.weight_ih_l0, self.weight_hh_l0, self.bias_ih_l0, self.bias_hh_l0)
        return states, states[:, -1].unsqueeze(0)


class _Steps(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, u: Tensor, b: Tensor, c: Tensor) -> Tensor:
        units = u.shape[1]
        both = slice(0, 2 * units)  # rows of r and z, which come before those of n
        x = x.permute(1, 2, 0).contiguous()
        outside = torch.cat((b[both] + c[both], b[2 * units :]))[:, None]
        gates = torch.baddbmm(outside, w.expand(len(x), -1, -1), x)
        reset = x.new_empty(len(x), units, x.shape[2])  # q
        states = x.new_empty(len(x) + 1, units, x.shape[2])
        h = states[0].zero_()
        u_both, u_n, c_n = u[both], u[2 * units :], c[2 * units :, None]
        for rz, (r, z, n), q, following in zip(
            gates[:, both].unbind(), _apart(gates), reset.unbind(), states[1:].unbind(), strict=True
        ):
            rz.addmm_(u_both, h).sigmoid_()
            torch.addmm(c_n, u_n, h, out=q)
            n.addcmul_(r, q).mul_(2).sigmoid_().mul_(2).sub_(1)
            h = torch.lerp(n, h, z, out=following)
        ctx.save_for_backward(x, w, u, gates, reset, states)
        return states[1:].permute(2, 0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        """d is the derivative of the loss by what follows it; of sums before a gate's function, by the gate's name."""
        x, w, u, gates, reset, states = ctx.saved_tensors
        units = u.shape[1]
        by_x, by_h = torch.empty_like(gates), torch.empty_like(gates)  # they differ in n: by_h has it times r
        by_x_n = by_x[:, 2 * units :]
        dh, du, u_t = torch.zeros_like(states[0]), torch.zeros_like(u), u.t()
        every = (by_h, _apart(by_h), by_x_n, _apart(gates), reset, states[:-1], dy.permute(1, 2, 0).contiguous())
        for d, (dr, dz, dq), dn, (r, z, n), q, h, given in zip(*(_backwards(part) for part in every), strict=True):
            dh += given
            torch.addcmul(dh, dh, z, value=-1, out=dn)  # dh (1 - z)
            torch.sub(h, n, out=dz).mul_(dn).mul_(z)
            torch.mul(dn, n, out=dq).mul_(n)
            dn -= dq  # dh (1 - z) (1 - n^2)
            torch.mul(dn, r, out=dq)
            torch.addcmul(dq, dq, r, value=-1, out=dr).mul_(q)
            du.addmm_(d, h.t())
            dh.mul_(z).addmm_(u_t, d)
        by_x[:, : 2 * units] = by_h[:, : 2 * units]
        dx = torch.matmul(w.t(), by_x).permute(2, 0, 1) if ctx.needs_input_grad[0] else None
        dw = torch.bmm(by_x, x.transpose(1, 2)).sum(0)
        return dx, dw, du, by_x.sum((0, 2)), by_h.sum((0, 2))


def _apart(gates: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """r, z and n of every step; views made once, because making them costs as much as a small operation."""
    return list(zip(*(gate.unbind() for gate in gates.chunk(3, 1)), strict=True))


def _backwards(part: Tensor | list) -> list:
    return list(part.unbind() if isinstance(part, Tensor) else part)[::-1]
