"""Autoencoders, dense and convolutional; with training noise they are denoising ones (Vincent et al. 2008)."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
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
    dense_reader,
    dense_writers,
    initialise,
    left,
)
from atelier.optim import Optimizer
from atelier.tied import Transposed

LOSSES = {"mae": F.l1_loss, "mse": F.mse_loss, "bce": F.binary_cross_entropy}


class Model(nn.Module):
    """widths: the encoder's layers, the last is the bottleneck; decoder: the layers back (mirrored if empty).

    conv false: dense layers. conv true: widths are maps; the encoder's step is a 3x3 convolution and a 2x2 max pool,
    the decoder's a 3x3 transposed convolution of stride 2; items are padded to a multiple of the pools and cropped.
    tied: the decoder's weights are the encoder's, transposed; its biases are its own. Dense layers only.
    The output is logistic. The target is the clean item, whatever the input.
    """

    target = "clean"

    def __init__(
        self,
        shape: Shape,
        classes: int,
        *,
        widths: tuple[Width, ...] = (128, 64, 32),
        decoder: tuple[Width, ...] = (),
        conv: bool = False,
        tied: bool = False,
        loss: Literal["bce", "mae", "mse"] = "mae",
        activation: Activation = "relu",
        init: Init = "he",
        optimizer: Optimizer = Optimizer(),
    ) -> None:
        super().__init__()
        self.check(widths=widths, decoder=decoder, conv=conv, tied=tied)
        self.shape, self.widths, self.conv, self.tied, self.optimizer = tuple(shape), widths, conv, tied, optimizer
        self.decoder = decoder or widths[-2::-1]
        self.loss = LOSSES[loss]
        self.activation = ACTIVATIONS[activation]()
        self.code_size = widths[-1]
        if conv:
            self.rows = 250  # maps are much larger than an item
            step = 2 ** len(widths)
            self.code_size *= math.prod(-(-side // step) for side in shape[1:])
        if self.code_size >= math.prod(shape):
            self.code_size = None  # no bottleneck: PCA of that width would give back its input
        ends = shape[0] if conv else math.prod(shape)
        down, up = (ends, *widths), (widths[-1], *self.decoder, ends)
        if conv:
            self.encode = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in zip(down, widths, strict=False))
            self.decode = nn.ModuleList(
                nn.ConvTranspose2d(a, b, 3, stride=2, padding=1, output_padding=1)
                for a, b in zip(up, up[1:], strict=False)
            )
        else:
            self.encode = nn.ModuleList(nn.Linear(a, b) for a, b in zip(down, widths, strict=False))
            self.decode = nn.ModuleList(
                map(Transposed, reversed(self.encode))
                if tied
                else (nn.Linear(a, b) for a, b in zip(up, up[1:], strict=False))
            )
        initialise(self, init)
        if conv:
            self.to(memory_format=torch.channels_last)  # faster convolutions

    @staticmethod
    def check(
        widths: tuple[int, ...] = (128, 64, 32),
        decoder: tuple[int, ...] = (),
        conv: bool = False,
        tied: bool = False,
        **_,
    ) -> None:
        if not widths:
            raise ValueError("widths is empty; an autoencoder needs at least its bottleneck")
        if decoder and len(decoder) != len(widths) - 1:
            raise ValueError(f"decoder has {len(decoder)} widths; with {len(widths)} widths it needs {len(widths) - 1}")
        if tied and conv:
            raise ValueError("tied is for dense layers: there is no way back through a pool; drop tied or conv")
        if tied and decoder not in ((), widths[-2::-1]):
            raise ValueError(f"decoder is {list(decoder)}, but tied mirrors the encoder; drop decoder or tied")

    def reconstruct(self, x: Tensor) -> Tensor:
        """(n, *shape) -> (n, *shape) in [0, 1]."""
        h = self._padded(x).contiguous(memory_format=torch.channels_last) if self.conv else x.flatten(1)
        for layer in self.encode:
            h = self.activation(F.max_pool2d(layer(h), 2) if self.conv else layer(h))
        for layer in self.decode[:-1]:
            h = self.activation(layer(h))
        h = self.decode[-1](h).to(x.dtype).sigmoid()  # in bf16 it would lose pixels' last digits
        return self._cropped(h) if self.conv else h.view(x.shape)

    def optimizers(self) -> list[TorchOptimizer]:
        return [self.optimizer(self.parameters())]

    def losses(self, x: Tensor, y: Tensor) -> Iterator[dict[str, Tensor]]:
        """y: the clean items, (n, *shape)."""
        yield {"loss": self.loss(self.reconstruct(x), y)}

    def nodes(self) -> list[Nodes]:
        """The units or maps of every layer but the output, named by encoder and decoder place.

        None if tied: there a row of a matrix reads one node and computes another, which a Nodes cannot say.
        """
        if self.tied:
            return []
        names = [f"encode.{i}" for i in range(len(self.widths))] + [f"decode.{i}" for i in range(len(self.decode))]
        labels = [f"widths.{i}" for i in range(len(self.widths))] + [f"decoder.{i}" for i in range(len(self.decoder))]
        widths = (*self.widths, *self.decoder)
        return [
            Nodes(label, width, self._writers(name), (self._reader(reader),))
            for label, width, name, reader in zip(labels, widths, names, names[1:], strict=False)
        ]

    def resized(self, keep: Mapping[str, Sequence[int]]) -> dict[str, Any]:
        """The settings of this net with only the nodes `keep` (nodes' name -> rising indices), and all of others."""
        return {
            "widths": tuple(left(keep, f"widths.{i}", width) for i, width in enumerate(self.widths)),
            "decoder": tuple(left(keep, f"decoder.{i}", width) for i, width in enumerate(self.decoder)),
        }

    def _writers(self, name: str) -> tuple[Slice, ...]:
        # A transposed convolution's weights are (inputs, outputs, rows, columns).
        if self.conv and name.startswith("decode"):
            return Slice(f"{name}.weight", axis=1), Slice(f"{name}.bias")
        return dense_writers(name)

    def _reader(self, name: str) -> Reader:
        # A stride spreads a node's mean unevenly over the output, so a transposed convolution's bias cannot take it.
        if self.conv and name.startswith("decode"):
            return Reader(f"{name}.weight", axis=0, module=name)
        return dense_reader(name)

    def _padded(self, x: Tensor) -> Tensor:
        step = 2 ** len(self.widths)
        rows, columns = (-x.shape[-2] % step, -x.shape[-1] % step)
        return F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))

    def _cropped(self, x: Tensor) -> Tensor:
        rows, columns = ((x.shape[-2] - self.shape[-2]) // 2, (x.shape[-1] - self.shape[-1]) // 2)
        return x[..., rows : rows + self.shape[-2], columns : columns + self.shape[-1]]
