"""Convolutions along time under an LSTM (Ordóñez and Roggen 2016)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer as TorchOptimizer

from atelier import sequences
from atelier.layers import Init, Nodes, Rate, Shape, Width, class_losses, dense_reader, dense_writers, initialise, left
from atelier.optim import Optimizer


class Model(nn.Module):
    """maps: of each convolution, 1 x `kernel` along time, each channel of a window apart; ReLU, max pool 1 x `pool`.

    A convolution keeps the number of steps, a pool divides it. All maps of a step go to LSTM layers of `hidden` units,
    the last step to the softmax. A window (channels, steps) is one map; the rows of an image (channels, rows, columns)
    are its steps and the columns stand for channels. dropout: a rate for each LSTM layer's output (none if empty).
    biases: vectors a gate, the library's two or one.
    """

    rows = 250  # maps are much larger than an item

    def __init__(
        self,
        shape: Shape,
        classes: int,
        *,
        maps: tuple[Width, ...] = (16, 16),
        kernel: Width = 5,
        pool: Width = 2,
        hidden: tuple[Width, ...] = (32,),
        biases: sequences.Biases = 2,
        dropout: tuple[Rate, ...] = (),
        init: Init = "he",
        optimizer: Optimizer = Optimizer(),
    ) -> None:
        super().__init__()
        self.check(hidden=hidden, dropout=dropout)
        first, steps, self.channels = (1, shape[1], shape[0]) if len(shape) == 2 else shape
        if steps < pool ** len(maps):
            raise ValueError(f"pool {pool} after each of {len(maps)} convolutions leaves nothing of {steps} steps")
        widths = (first, *maps)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, (1, kernel), padding="same") for a, b in zip(widths, maps, strict=False)
        )
        self.pool = nn.MaxPool2d((1, pool))
        self.layers = sequences.stack("lstm", widths[-1] * self.channels, hidden, biases)
        self.head = nn.Linear(hidden[-1], classes)
        self.dropout = dropout or (0.0,) * len(hidden)
        self.maps, self.hidden, self.biases, self.optimizer = maps, hidden, biases, optimizer
        initialise(self, init)
        self.to(memory_format=torch.channels_last)

    @staticmethod
    def check(hidden: tuple[int, ...] = (32,), dropout: tuple[float, ...] = (), **_) -> None:
        sequences.check(hidden, dropout)

    def classify(self, x: Tensor) -> Tensor:
        """(n, channels, steps) or (n, channels, rows, columns) -> logits (n, classes)."""
        h = x.unsqueeze(1) if x.dim() == 3 else x.transpose(2, 3)
        h = h.contiguous(memory_format=torch.channels_last)
        for convolution in self.convolutions:
            h = F.relu(self.pool(convolution(h)))  # the largest is the same before a ReLU, which has less to do then
        h = h.permute(0, 3, 2, 1).flatten(2)  # (n, steps, channels * maps), as channels_last has them together
        return self.head(sequences.last(self.layers, self.dropout, h, self.training))

    def optimizers(self) -> list[TorchOptimizer]:
        return [self.optimizer(self.parameters())]

    def losses(self, x: Tensor, y: Tensor) -> Iterator[dict[str, Tensor]]:
        yield class_losses(self.classify(x), y)

    def nodes(self) -> list[Nodes]:
        """The maps of every convolution and the units of every LSTM layer, which reads a map of every channel."""
        names = [f"convolutions.{i}" for i in range(len(self.maps))]
        readers = [*map(dense_reader, names[1:]), sequences.reader("layers.0", groups=self.channels)]
        found = [Nodes(f"maps.{i}", width, dense_writers(names[i]), (readers[i],)) for i, width in enumerate(self.maps)]
        return found + sequences.nodes("lstm", self.hidden, self.biases)

    def resized(self, keep: Mapping[str, Sequence[int]]) -> dict[str, Any]:
        """The settings of this net with only the nodes `keep` (nodes' name -> rising indices), and all of others."""
        return {
            "maps": tuple(left(keep, f"maps.{i}", width) for i, width in enumerate(self.maps)),
            "hidden": tuple(left(keep, f"hidden.{i}", width) for i, width in enumerate(self.hidden)),
        }
