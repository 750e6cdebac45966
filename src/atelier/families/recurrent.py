"""Recurrent nets over the rows of an image or the steps of a window: plain RNN, GRU (Cho et al. 2014), LSTM."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer as TorchOptimizer

from atelier import sequences
from atelier.layers import Init, Nodes, Rate, Shape, Width, class_losses, initialise, left
from atelier.optim import Optimizer


class Model(nn.Module):
    """hidden: units of each stacked layer; the last step of the last layer goes to the softmax.

    An image (channels, rows, columns) is read row by row, a window (channels, steps) step by step.
    dropout: a rate for each layer's output (none if empty). init: of the output layer; cells keep the library's own.
    biases: vectors a gate, the library's two or one (see sequences.stack for what that is in a GRU).
    """

    rows = 500  # the states of all steps and gates are held at once

    def __init__(
        self,
        shape: Shape,
        classes: int,
        *,
        cell: sequences.Cell = "lstm",
        hidden: tuple[Width, ...] = (64,),
        biases: sequences.Biases = 2,
        dropout: tuple[Rate, ...] = (),
        init: Init = "he",
        optimizer: Optimizer = Optimizer(),
    ) -> None:
        super().__init__()
        self.check(hidden=hidden, dropout=dropout)
        self.layers = sequences.stack(cell, sequences.features(shape), hidden, biases)
        self.head = nn.Linear(hidden[-1], classes)
        self.dropout = dropout or (0.0,) * len(hidden)
        self.cell, self.hidden, self.biases, self.optimizer = cell, hidden, biases, optimizer
        initialise(self, init)

    @staticmethod
    def check(hidden: tuple[int, ...] = (64,), dropout: tuple[float, ...] = (), **_) -> None:
        sequences.check(hidden, dropout)

    def classify(self, x: Tensor) -> Tensor:
        """(n, channels, rows, columns) or (n, channels, steps) -> logits (n, classes)."""
        return self.head(sequences.last(self.layers, self.dropout, sequences.steps(x), self.training))

    def optimizers(self) -> list[TorchOptimizer]:
        return [self.optimizer(self.parameters())]

    def losses(self, x: Tensor, y: Tensor) -> Iterator[dict[str, Tensor]]:
        yield class_losses(self.classify(x), y)

    def nodes(self) -> list[Nodes]:
        """The units of each layer."""
        return sequences.nodes(self.cell, self.hidden, self.biases)

    def resized(self, keep: Mapping[str, Sequence[int]]) -> dict[str, Any]:
        """The settings of this net with only the nodes `keep` (nodes' name -> rising indices), and all of others."""
        return {"hidden": tuple(left(keep, f"hidden.{i}", width) for i, width in enumerate(self.hidden))}
