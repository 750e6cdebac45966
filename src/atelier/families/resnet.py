"""Residual convolutional net (He et al. 2015) of basic or bottleneck blocks, and the plain net of the same depth."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Annotated, Any, Literal

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
    Reader,
    Shape,
    Slice,
    Width,
    class_losses,
    dense_reader,
    dense_writers,
    initialise,
    left,
    norm_writers,
)
from atelier.optim import Optimizer

EXPANSION = 4  # maps that a bottleneck gives for each of its narrow ones
Count = Annotated[int, Ge(1)]


class Model(nn.Module):
    """A convolution, then for each of `maps` a stage of `blocks` blocks, a mean over pixels, a dense layer.

    A block is x -> f(change(x) + shortcut(x)); without `residual` the shortcut is not added. Its change is two 3x3
    convolutions, or with `bottleneck` one of 1x1, one of 3x3 and one of 1x1 that gives four times the maps. The first
    block of every stage but the first halves the image by a stride of 2; its shortcut takes every second pixel and
    fills new maps with zeros, or is a 1x1 convolution with `projection`.

    blocks: in every stage, or in each of them. shrink: 1 begins with a 3x3 convolution, 2 with the same at a stride of
    2, 4 as for 224 pixels with a 7x7 convolution and a 3x3 max pool, both at a stride of 2. batch_norm: after every
    convolution, which then has no bias. inner: the maps between the convolutions of each block, one number a block or
    two of a bottleneck (those of its stage if empty).
    """

    rows = 250  # maps are much larger than an item

    def __init__(
        self,
        shape: Shape,
        classes: int,
        *,
        maps: tuple[Width, ...] = (8, 16),
        blocks: Count | tuple[Count, ...] = 2,
        residual: bool = True,
        bottleneck: bool = False,
        projection: bool = False,
        batch_norm: bool = False,
        shrink: Literal[1, 2, 4] = 1,
        activation: Activation = "relu",
        inner: tuple[Width, ...] = (),
        init: Init = "he",
        optimizer: Optimizer = Optimizer(),
    ) -> None:
        super().__init__()
        self.check(
            maps=maps, blocks=blocks, inner=inner, bottleneck=bottleneck, residual=residual, projection=projection
        )
        self.residual, self.optimizer = residual, optimizer
        stages = [stage for stage, count in enumerate(_counts(maps, blocks)) for _ in range(count)]
        strides = [1 if before == stage else 2 for before, stage in zip([0, *stages], stages, strict=False)]
        between = 2 if bottleneck else 1
        self.inner = inner or tuple(maps[stage] for stage in stages for _ in range(between))
        outer = [maps[stage] * (EXPANSION if bottleneck else 1) for stage in stages]
        inputs = [maps[0], *outer[:-1]]
        paths = list(zip(inputs, *(self.inner[i::between] for i in range(between)), outer, strides, strict=True))

        convolution = partial(_convolution, batch_norm=batch_norm)
        self.activation = ACTIVATIONS[activation]()
        channels = shape[0] if len(shape) == 3 else 1
        self.stem = convolution(channels, maps[0], 7 if shrink == 4 else 3, min(shrink, 2))
        self.pool = nn.MaxPool2d(3, 2, padding=1) if shrink == 4 else nn.Identity()
        if bottleneck:
            self.first = nn.ModuleList(convolution(a, b, 1) for a, b, _, _, _ in paths)
            self.second = nn.ModuleList(convolution(b, c, 3, stride) for _, b, c, _, stride in paths)
            self.third = nn.ModuleList(convolution(c, d, 1) for _, _, c, d, _ in paths)
        else:
            self.first = nn.ModuleList(convolution(a, b, 3, stride) for a, b, _, stride in paths)
            self.second = nn.ModuleList(convolution(b, c, 3) for _, b, c, _ in paths)
            self.third = nn.ModuleList()
        self.shortcuts = nn.ModuleList()
        for a, b, stride in zip(inputs, outer, strides, strict=True) if residual else ():
            same = (a, stride) == (b, 1)
            self.shortcuts.append(convolution(a, b, 1, stride) if projection and not same else _Padding(b - a, stride))
        self.head = nn.Linear(outer[-1], classes)
        initialise(self, init)
        self.to(memory_format=torch.channels_last)

    @staticmethod
    def check(
        maps: tuple[int, ...] = (8, 16),
        blocks: int | tuple[int, ...] = 2,
        inner: tuple[int, ...] = (),
        bottleneck: bool = False,
        residual: bool = True,
        projection: bool = False,
        **_,
    ) -> None:
        if not maps or any(a >= b for a, b in pairwise(maps)):
            raise ValueError(f"maps is {list(maps)}; give at least one stage, each wider than the one before")
        counts = _counts(maps, blocks)
        if len(counts) != len(maps):
            raise ValueError(f"blocks is {list(counts)} for {len(maps)} stages; give one number, or one for each")
        if inner and len(inner) != sum(counts) * (2 if bottleneck else 1):
            wanted = "two for each" if bottleneck else "one for each"
            raise ValueError(f"inner has {len(inner)} widths for {sum(counts)} blocks; give {wanted}")
        if projection and not residual:
            raise ValueError("projection is of shortcuts, which residual: false leaves out; drop one of them")

    def classify(self, x: Tensor) -> Tensor:
        """(n, *shape) -> logits (n, classes)."""
        if x.dim() == 3:
            x = x.unsqueeze(1)
        h = self.pool(self.activation(self.stem(x.contiguous(memory_format=torch.channels_last))))
        for i in range(len(self.first)):
            *layers, last = (getattr(self, part)[i] for part in self._parts())
            change = h
            for layer in layers:
                change = self.activation(layer(change))
            change = last(change)
            h = self.activation(change + self.shortcuts[i](h) if self.residual else change)
        return self.head(h.mean((2, 3)))

    def optimizers(self) -> list[TorchOptimizer]:
        return [self.optimizer(self.parameters())]

    def losses(self, x: Tensor, y: Tensor) -> Iterator[dict[str, Tensor]]:
        yield class_losses(self.classify(x), y)

    def nodes(self) -> list[Nodes]:
        """The maps between the convolutions of every block; those that shortcuts join stay."""
        places = [pair for i in range(len(self.first)) for pair in pairwise(f"{part}.{i}" for part in self._parts())]
        return [
            Nodes(f"inner.{i}", width, self._writers(writer), (self._reader(reader),))
            for i, (width, (writer, reader)) in enumerate(zip(self.inner, places, strict=True))
        ]

    def resized(self, keep: Mapping[str, Sequence[int]]) -> dict[str, Any]:
        """The settings of this net with only the nodes `keep` (nodes' name -> rising indices), and all of others."""
        return {"inner": tuple(left(keep, f"inner.{i}", width) for i, width in enumerate(self.inner))}

    def _parts(self) -> list[str]:
        return [part for part in ("first", "second", "third") if len(getattr(self, part))]

    def _writers(self, layer: str) -> tuple[Slice, ...]:
        if isinstance(self.get_submodule(layer), nn.Conv2d):
            return dense_writers(layer)
        return (Slice(f"{layer}.0.weight"), *norm_writers(f"{layer}.1"))

    def _reader(self, layer: str) -> Reader:
        if isinstance(self.get_submodule(layer), nn.Conv2d):
            return dense_reader(layer)
        return Reader(f"{layer}.0.weight", module=f"{layer}.0", bias=f"{layer}.1.running_mean", subtracted=True)


class _Padding(nn.Module):
    """Every pixel, or every second one at a stride of 2, and zeros in `more` new maps."""

    def __init__(self, more: int, stride: int) -> None:
        super().__init__()
        self.more, self.stride = more, stride

    def forward(self, x: Tensor) -> Tensor:
        kept = x[:, :, :: self.stride, :: self.stride] if self.stride > 1 else x
        return F.pad(kept, (0, 0, 0, 0, 0, self.more)) if self.more else kept


def _convolution(inputs: int, outputs: int, size: int, stride: int = 1, batch_norm: bool = False) -> nn.Module:
    layer = nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=not batch_norm)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs)) if batch_norm else layer


def _counts(maps: tuple[int, ...], blocks: int | tuple[int, ...]) -> tuple[int, ...]:
    """The blocks of each stage."""
    return (blocks,) * len(maps) if isinstance(blocks, int) else tuple(blocks)
