"""A small training loop of its own in which every idea can be switched on and off, to measure what each brings."""

import copy
import json
import math
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from atelier import cpu
from bench import anchors
from bench.gate import serve

Batches = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Ways:
    """A training with every idea that atelier keeps. net: widths of a dense net, "cnn", or "autoencoder"; batch 0: all.

    before: steps before the first turn, with denormal numbers; every turn then starts from the same state.
    seeds: models that are trained, one after the other or `stacked` into one computation.
    """

    net: str = "784-300-100-10"
    batch: int = 128
    samples: int = 25_600
    precision: str = "fp32"
    before: int = 0
    flush: bool = True
    keep_memory: bool = True
    resident: str = "uint8"
    gather: str = "batch"
    adam: str = "fused"
    chunk: int | None = None
    channels_last: bool = True
    pool_first: bool = True
    read_loss: str = "epoch"
    first_convolution: str = "conv2d"
    pool: str = "max_pool2d"
    seeds: int = 1
    stacked: bool = False
    compiled: bool = False

    def dumps(self) -> str:
        return json.dumps(asdict(self))


class UnfoldedConv2d(nn.Conv2d):
    """A 3x3 convolution as a matrix product over the patches of the image."""

    def forward(self, x: Tensor) -> Tensor:
        out = self.weight.flatten(1) @ F.unfold(x, 3, padding=1) + self.bias[:, None]
        return out.view(len(x), -1, *x.shape[2:])


class Maxima(nn.Module):
    """A 2x2 max pool as two rounds of elementwise maxima."""

    def forward(self, x: Tensor) -> Tensor:
        rows = torch.maximum(x[:, :, ::2], x[:, :, 1::2])
        return torch.maximum(rows[..., ::2], rows[..., 1::2])


class Stack(nn.Module):
    """Several dense nets in one computation: weights (seeds, inputs, outputs), all fed the same number of items."""

    def __init__(self, widths: list[int], seeds: int) -> None:
        super().__init__()
        pairs = list(zip(widths, widths[1:]))
        self.weights = nn.ParameterList(torch.randn(seeds, a, b) * math.sqrt(2 / a) for a, b in pairs)
        self.biases = nn.ParameterList(torch.zeros(seeds, 1, b) for _, b in pairs)

    def forward(self, x: Tensor) -> Tensor:
        """(n, seeds, inputs) -> (n * seeds, classes), item by item."""
        h = x.transpose(0, 1)
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases)):
            h = torch.baddbmm(bias, h, weight)
            h = h.relu() if i + 1 < len(self.weights) else h
        return h.transpose(0, 1).flatten(0, 1)


def net(ways: Ways) -> nn.Module:
    if ways.net == "cnn":
        first = UnfoldedConv2d if ways.first_convolution == "unfold" else nn.Conv2d
        pool = Maxima if ways.pool == "maxima" else lambda: nn.MaxPool2d(2)

        def reduced() -> list[nn.Module]:
            return [pool(), nn.ReLU()] if ways.pool_first else [nn.ReLU(), pool()]

        layers = [first(1, 32, 3, padding=1), *reduced(), nn.Conv2d(32, 64, 3, padding=1), *reduced(), nn.Flatten()]
        model = nn.Sequential(*layers, nn.Linear(3136, 128), nn.ReLU(), nn.Linear(128, 10))
        return model.to(memory_format=torch.channels_last if ways.channels_last else torch.contiguous_format)
    widths = [784, 128, 64, 32, 64, 128, 784] if ways.net == "autoencoder" else [int(w) for w in ways.net.split("-")]
    if ways.stacked:
        return Stack(widths, ways.seeds)
    layers = [layer for a, b in zip(widths, widths[1:]) for layer in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), *layers[:-1])


class Training:
    """One model (or one stack of them), its optimizer and the images."""

    def __init__(self, ways: Ways, x: Tensor, y: Tensor) -> None:
        self.ways, self.x, self.y = ways, x, y
        self.model = net(ways)
        how = {"fused": {"fused": True}, "foreach": {"foreach": True}, "for-loop": {"foreach": False}}[ways.adam]
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3, **how)
        self.loss = torch.compile(self._loss) if ways.compiled else self._loss

    def _loss(self, x: Tensor, y: Tensor) -> Tensor:
        if x.dtype == torch.uint8:
            x = x.float().div(255)
        if self.ways.net == "cnn" and self.ways.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.ways.precision == "bf16"):
            if self.ways.net == "autoencoder":
                return (self.model(x).float().sigmoid() - x.flatten(1)).abs().mean()
            loss = F.cross_entropy(self.model(x), y.flatten())
            return loss * self.ways.seeds if self.ways.stacked else loss

    def batches(self) -> Batches:
        n, size = len(self.x), self.ways.batch or len(self.x)
        if size >= n:
            return [(self.x, self.y)]
        if self.ways.stacked:  # an order of its own for every seed
            order = torch.stack([torch.randperm(n) for _ in range(self.ways.seeds)], 1)
        else:
            order = torch.randperm(n)
        if self.ways.gather == "epoch":
            return list(zip(self.x[order].split(size), self.y[order].split(size)))
        return ((self.x[rows], self.y[rows]) for rows in order.split(size))

    def step(self, x: Tensor, y: Tensor) -> Tensor:
        self.optimizer.zero_grad()
        size = self.ways.chunk or len(x)
        for piece, target in zip(x.split(size), y.split(size)):
            loss = self.loss(piece, target)
            (loss * (len(piece) / len(x)) if size < len(x) else loss).backward()
        self.optimizer.step()
        return loss.detach()

    def epoch(self) -> None:
        losses = [self._read(self.step(x, y)) for x, y in self.batches()]
        if self.ways.read_loss == "epoch":
            torch.stack(losses).mean().item()

    def _read(self, loss: Tensor) -> Tensor | float:
        return loss.item() if self.ways.read_loss == "step" else loss


def turns(ways: Ways) -> Callable[[int], None]:
    """What a turn of so many epochs does."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    if ways.keep_memory:
        cpu.keep_freed_memory()
    with np.load(anchors.DATA) as stored:
        x = torch.from_numpy(stored["x"][: ways.samples]).view(-1, 1, 28, 28)
        y = torch.from_numpy(stored["y"][: ways.samples]).long()
    if ways.net != "cnn":
        x = x.flatten(1)[:, : 784 if ways.net == "autoencoder" else int(ways.net.split("-")[0])].contiguous()
    if ways.resident == "float32":
        x = x.float().div(255)
    trainings = [Training(ways, x, y) for _ in range(1 if ways.stacked else ways.seeds)]
    first = trainings[0]
    for _ in range(math.ceil(ways.before * ways.batch / ways.samples)):
        first.epoch()
    start = copy.deepcopy((first.model.state_dict(), first.optimizer.state_dict())) if ways.before else None
    torch.set_flush_denormal(ways.flush)

    def turn(epochs: int) -> None:
        if start:
            first.model.load_state_dict(start[0])
            first.optimizer.load_state_dict(start[1])
        for _ in range(epochs):
            for training in trainings:
                training.epoch()

    return turn


if __name__ == "__main__":
    serve(turns(Ways(**json.loads(sys.argv[1]))))
