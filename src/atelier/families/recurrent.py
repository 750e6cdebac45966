"""Recurrent nets over the rows of an image or the steps of a window: plain RNN, GRU (Cho et al. 2014), LSTM."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer as TorchOptimizer

from atelier.layers import Init, Nodes, Rate, Reader, Shape, Slice, Width, class_losses, dense_reader, initialise
from atelier.optim import Optimizer

CELLS = {"rnn": (nn.RNN, 1), "gru": (nn.GRU, 3), "lstm": (nn.LSTM, 4)}


class Model(nn.Module):
    """hidden: units of each stacked layer; the last step of the last layer goes to the softmax.

    An image (channels, rows, columns) is read row by row, a window (channels, steps) step by step.
    dropout: a rate for each layer's output (none if empty). init: of the output layer; cells keep the library's own.
    """

    rows = 500  # the states of all steps and gates are held at once

    def __init__(
        self,
        shape: Shape,
        classes: int,
        *,
        cell: Literal["gru", "lstm", "rnn"] = "lstm",
        hidden: tuple[Width, ...] = (64,),
        dropout: tuple[Rate, ...] = (),
        init: Init = "he",
        optimizer: Optimizer = Optimizer(),
    ) -> None:
        super().__init__()
        self.check(hidden=hidden, dropout=dropout)
        layer, self.gates = CELLS[cell]
        features = shape[0] if len(shape) == 2 else math.prod(shape) // shape[-2]
        widths = (features, *hidden)
        self.layers = nn.ModuleList(layer(a, b, batch_first=True) for a, b in zip(widths, hidden, strict=False))
        self.head = nn.Linear(widths[-1], classes)
        self.dropout = dropout or (0.0,) * len(hidden)
        self.hidden, self.optimizer = hidden, optimizer
        initialise(self, init)

    @staticmethod
    def check(hidden: tuple[int, ...] = (64,), dropout: tuple[float, ...] = (), **_) -> None:
        if not hidden:
            raise ValueError("hidden is empty; a recurrent net needs at least one layer")
        if dropout and len(dropout) != len(hidden):
            raise ValueError(f"dropout has {len(dropout)} rates for {len(hidden)} layers; give one for each")

    def classify(self, x: Tensor) -> Tensor:
        """(n, channels, rows, columns) or (n, channels, steps) -> logits (n, classes)."""
        h = x.transpose(1, 2)
        h = h.flatten(2) if h.dim() == 4 else h
        for layer, rate in zip(self.layers, self.dropout, strict=True):
            h, _ = layer(h)
            h = F.dropout(h, rate, self.training) if rate else h
        return self.head(h[:, -1])

    def optimizers(self) -> list[TorchOptimizer]:
        return [self.optimizer(self.parameters())]

    def losses(self, x: Tensor, y: Tensor) -> Iterator[dict[str, Tensor]]:
        yield class_losses(self.classify(x), y)

    def nodes(self) -> list[Nodes]:
        """The units of each layer: a unit owns one row of every gate and is read by its own layer and the next."""
        found = []
        for i, width in enumerate(self.hidden):
            name, last = f"layers.{i}", i + 1 == len(self.hidden)
            parts = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
            writers = tuple(Slice(f"{name}.{part}", groups=self.gates) for part in parts)
            itself = Reader(f"{name}.weight_hh_l0", module=name, at="output", bias=f"{name}.bias_hh_l0")
            above = f"layers.{i + 1}"
            onward = (
                dense_reader("head")
                if last
                else Reader(f"{above}.weight_ih_l0", module=above, bias=f"{above}.bias_ih_l0")
            )
            found.append(Nodes(f"hidden.{i}", width, writers, (itself, onward)))
        return found

    def resized(self, widths: Mapping[str, int]) -> dict[str, Any]:
        """The settings of this net with the given widths by nodes' name."""
        return {"hidden": tuple(widths.get(f"hidden.{i}", width) for i, width in enumerate(self.hidden))}
