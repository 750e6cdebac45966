"""What families over sequences share: items read step by step, recurrent layers with one bias or two, their nodes."""

import math
from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from atelier.gru import GRU
from atelier.layers import Nodes, Reader, Shape, Slice, dense_reader

Cell = Literal["gru", "lstm", "rnn"]
Biases = Literal[1, 2]
CELLS = {"rnn": (nn.RNN, 1), "gru": (GRU, 3), "lstm": (nn.LSTM, 4)}  # with how many gates


def features(shape: Shape) -> int:
    """What `steps` finds in one step."""
    return shape[0] if len(shape) == 2 else math.prod(shape) // shape[-2]


def steps(x: Tensor) -> Tensor:
    """Windows (n, channels, steps) or images (n, channels, rows, columns), by rows -> (n, steps, features)."""
    x = x.transpose(1, 2)
    return x.flatten(2) if x.dim() == 4 else x


def check(hidden: Sequence[int], dropout: Sequence[float]) -> None:
    """Raises ValueError for recurrent layers that cannot be."""
    if not hidden:
        raise ValueError("hidden is empty; a recurrent net needs at least one layer")
    if dropout and len(dropout) != len(hidden):
        raise ValueError(f"dropout has {len(dropout)} rates for {len(hidden)} layers; give one for each")


def stack(cell: Cell, inputs: int, hidden: Sequence[int], biases: Biases = 2) -> nn.ModuleList:
    """Recurrent layers of the widths `hidden`, one over the other.

    The library gives every gate a bias beside its product with the input and another beside that with the state. With
    biases = 1 the second is zeros that are no parameter. They add up, so nothing is lost, except in the GRU: its
    reset gate multiplies the second bias of the candidate, and with one bias it multiplies U h alone.
    """
    layer, _ = CELLS[cell]
    layers = nn.ModuleList(layer(a, b, batch_first=True) for a, b in zip((inputs, *hidden), hidden, strict=False))
    for each in layers if biases == 1 else ():
        zeros = torch.zeros_like(each.bias_hh_l0)
        del each.bias_hh_l0
        each.register_buffer("bias_hh_l0", zeros, persistent=False)
    return layers


def last(layers: Iterable[nn.Module], rates: Iterable[float], h: Tensor, training: bool) -> Tensor:
    """(n, steps, features) -> the last step of the last layer (n, units); each layer's output drops at its rate."""
    for layer, rate in zip(layers, rates, strict=True):
        h, _ = layer(h)
        h = F.dropout(h, rate, training) if rate else h
    return h[:, -1]


def reader(layer: str, groups: int = 1) -> Reader:
    """A recurrent layer that reads nodes at every step, `groups` times all of them."""
    return Reader(f"{layer}.weight_ih_l0", groups=groups, module=layer, bias=f"{layer}.bias_ih_l0")


def nodes(cell: Cell, hidden: Sequence[int], biases: Biases) -> list[Nodes]:
    """The units of the recurrent layers `layers`, under a dense `head`.

    A unit owns one row of every gate and is read by its own layer and the next. With one bias, nothing in a GRU can
    take over a unit's mean in the candidate, which the reset gate multiplies.
    """
    parts = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")[: 2 + biases]
    folded = None if (cell, biases) == ("gru", 1) else parts[-1]
    found = []
    for i, width in enumerate(hidden):
        name = f"layers.{i}"
        writers = tuple(Slice(f"{name}.{part}", groups=CELLS[cell][1]) for part in parts)
        itself = Reader(f"{name}.weight_hh_l0", module=name, at="output", bias=folded and f"{name}.{folded}")
        onward = dense_reader("head") if i + 1 == len(hidden) else reader(f"layers.{i + 1}")
        found.append(Nodes(f"hidden.{i}", width, writers, (itself, onward)))
    return found
