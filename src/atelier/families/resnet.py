"""Residual convolutional net (He et al. 2015) with zero-padded shortcuts, and the plain net of the same depth."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer as TorchOptimizer

from atelier.layers import (
    ACTIVATIONS,
    Activation,
    Init,
    Nodes,
    Shape,
    Width,
    class_losses,
    dense_reader,
    dense_writers,
    initialise,
)
from atelier.optim import Optimizer


class Model(nn.Module):
    """A 3x3 convolution, then for each of `maps` a stage of `blocks` blocks, a mean over pixels, a dense layer.

    A block is two 3x3 convolutions, x -> f(W2 f(W1 x) + x); without `residual` the x is not added. The
    first block of every stage but the first halves the image by a stride of 2; its shortcut takes every second pixel
    and fills new maps with zeros. inner: the maps between the two convolutions of each block (those of its stage if
    empty).
    """

    rows = 250  # maps are much larger than an item

    def __init__(
        self,
        shape: Shape,
        classes: int,
        *,
        maps: tuple[Width, ...] = (8, 16),
        blocks: Annotated[int, Ge(1)] = 2,
        residual: bool = True,
        activation: Activation = "relu",
        inner: tuple[Width, ...] = (),
        init: Init = "he",
        optimizer: Optimizer = Optimizer(),
    ) -> None:
        super().__init__()
        self.check(maps=maps, blocks=blocks, inner=inner)
        outer = [width for width in maps for _ in range(blocks)]
        self.inner, self.residual, self.optimizer = inner or tuple(outer), residual, optimizer
        self.activation = ACTIVATIONS[activation]()
        self.stem = _convolution(shape[0] if len(shape) == 3 else 1, maps[0])
        places = list(zip([maps[0], *outer], self.inner, outer, strict=False))
        strides = [2 if before != after else 1 for before, _, after in places]
        self.first = nn.ModuleList(
            _convolution(a, b, stride) for (a, b, _), stride in zip(places, strides, strict=True)
        )
        self.second = nn.ModuleList(_convolution(b, c) for _, b, c in places)
        self.head = nn.Linear(maps[-1], classes)
        initialise(self, init)
        self.to(memory_format=torch.channels_last)

    @staticmethod
    def check(maps: tuple[int, ...] = (8, 16), blocks: int = 2, inner: tuple[int, ...] = (), **_) -> None:
        if not maps or any(a >= b for a, b in zip(maps, maps[1:], strict=False)):
            raise ValueError(f"maps is {list(maps)}; give at least one stage, each wider than the one before")
        if inner and len(inner) != len(maps) * blocks:
            raise ValueError(f"inner has {len(inner)} widths for {len(maps) * blocks} blocks; give one for each")

    def classify(self, x: Tensor) -> Tensor:
        """(n, *shape) -> logits (n, classes)."""
        if x.dim() == 3:
            x = x.unsqueeze(1)
        h = self.activation(self.stem(x.contiguous(memory_format=torch.channels_last)))
        for first, second in zip(self.first, self.second, strict=True):
            change = second(self.activation(first(h)))
            h = self.activation(change + _shortcut(h, change) if self.residual else change)
        return self.head(h.mean((2, 3)))

    def optimizers(self) -> list[TorchOptimizer]:
        return [self.optimizer(self.parameters())]

    def losses(self, x: Tensor, y: Tensor) -> Iterator[dict[str, Tensor]]:
        yield class_losses(self.classify(x), y)

    def nodes(self) -> list[Nodes]:
        """The maps between the two convolutions of every block; those that shortcuts join stay."""
        return [
            Nodes(f"inner.{i}", width, dense_writers(f"first.{i}"), (dense_reader(f"second.{i}"),))
            for i, width in enumerate(self.inner)
        ]

    def resized(self, widths: Mapping[str, int]) -> dict[str, Any]:
        """The settings of this net with the given widths by nodes' name."""
        return {"inner": tuple(widths.get(f"inner.{i}", width) for i, width in enumerate(self.inner))}


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1)


def _shortcut(x: Tensor, like: Tensor) -> Tensor:
    """x with every second pixel if `like` is smaller, and zeros in the maps that `like` has more."""
    if x.shape == like.shape:
        return x
    return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, like.shape[1] - x.shape[1]))
