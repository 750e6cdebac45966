"""The reference that the equations are held against: the same activations, losses and nets in torch, with autograd."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from atelier.byhand.activations import Array

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "unit-step": lambda v: torch.heaviside(v.detach(), torch.tensor(0.5, dtype=v.dtype)),
    "binary-step": lambda v: torch.heaviside(v.detach(), torch.tensor(1.0, dtype=v.dtype)),
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
    "softplus": lambda v: torch.logaddexp(v, torch.zeros_like(v)),  # the library's own is v itself from 20 on
    "exp": torch.exp,
}


def value_and_derivative(name: str, v: Array) -> tuple[Array, Array]:
    """Of an activation at v. The derivative of a step is 0: autograd says so of sign, and nothing of heaviside."""
    u = torch.tensor(v, requires_grad=True)
    value = FUNCTIONS[name](u)
    if not value.requires_grad:
        return value.numpy(), v * 0.0
    (derivative,) = torch.autograd.grad(value.sum(), u)
    return value.detach().numpy(), derivative.numpy()


def gradients(leaves: Sequence[Array], x: Array, t: Array, hidden: str, loss: str) -> list[Array]:
    """The gradient of the mean error over items x (items, inputs) with targets t (items, outputs) by W_1, b_1, W_2, ...

    loss: softmax, or one of two_layer.LOSSES: cross-entropy; half-squared; "half-squared, f out" for an activation f.
    """
    tensors = [torch.tensor(leaf, requires_grad=True) for leaf in leaves]
    y = torch.tensor(x)
    for weights, biases in zip(tensors[::2], tensors[1::2], strict=True):
        v = y @ weights.T + biases
        y = FUNCTIONS[hidden](v)
    return [gradient.numpy() for gradient in torch.autograd.grad(_error(loss, v, torch.tensor(t)), tensors)]


def _error(loss: str, v: Tensor, t: Tensor) -> Tensor:
    match loss.partition(", "):
        case ("softmax", _, _):
            return F.cross_entropy(v, t)
        case ("cross-entropy", _, _):
            return F.binary_cross_entropy_with_logits(v, t, reduction="sum") / len(v)
        case (_, _, out):
            y = FUNCTIONS[out.removesuffix(" out") or "linear"](v)
            return 0.5 * (y - t).square().sum() / len(v)
