"""Logistic regression on simple statistics of each channel: the reference that a net over sequences has to beat."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.optim import Optimizer as TorchOptimizer

from atelier import sequences
from atelier.layers import Init, NonNegative, Shape, class_losses, initialise
from atelier.optim import Optimizer

FLOOR = 1e-6  # added to energies before their logarithm: a channel at rest has none


class Model(nn.Module):
    """Of every channel: mean, standard deviation, minimum, maximum, lower median, mean absolute difference of next
    steps, and the logarithm of its mean energy in each octave of frequencies (1, 2-3, 4-7, ... periods an item).

    A batch norm without weights standardises them. It learns the scale of a statistic over items, which a net is not
    told otherwise; a layer norm would mix statistics of different units within an item. Its moments are the plain means
    over all batches seen, as what it standardises never changes. l2 adds l2 / 2 times the sum of squared weights to the
    loss. An image (channels, rows, columns) is read row by row, each column a channel.
    """

    def __init__(
        self,
        shape: Shape,
        classes: int,
        *,
        l2: NonNegative = 0.0,
        init: Init = "he",
        optimizer: Optimizer = Optimizer(),
    ) -> None:
        super().__init__()
        steps = shape[-1] if len(shape) == 2 else shape[-2]
        if steps < 2:
            raise ValueError(f"an item of {tuple(shape)} has one step; statistics over steps need two")
        width = sequences.features(shape) * (6 + len(octaves(steps)))
        self.scale = nn.BatchNorm1d(width, affine=False, momentum=None)
        self.head = nn.Linear(width, classes)
        self.l2, self.optimizer = l2, optimizer
        initialise(self, init)

    def classify(self, x: Tensor) -> Tensor:
        """(n, channels, steps) or (n, channels, rows, columns) -> logits (n, classes)."""
        self.scale.train(self.training and len(x) > 1)  # one item has no spread
        return self.head(self.scale(statistics(sequences.steps(x).transpose(1, 2))))

    def optimizers(self) -> list[TorchOptimizer]:
        return [self.optimizer(self.parameters())]

    def losses(self, x: Tensor, y: Tensor) -> Iterator[dict[str, Tensor]]:
        penalty = self.l2 / 2 * self.head.weight.square().sum() if self.l2 else 0.0
        yield class_losses(self.classify(x), y, penalty)


def octaves(steps: int) -> list[slice]:
    """The frequencies of each octave, in periods over `steps` steps; the last one ends at steps / 2."""
    edges = [2**i for i in range((steps // 2).bit_length())] + [steps // 2 + 1]
    return [slice(low, high) for low, high in zip(edges, edges[1:], strict=False)]


def statistics(x: Tensor) -> Tensor:
    """(n, channels, steps) -> (n, channels * (6 + octaves)); energies are per frequency and step."""
    energy = torch.fft.rfft(x).abs().square() / x.shape[2]
    found = [
        x.mean(2),
        x.std(2, correction=0),
        x.amin(2),
        x.amax(2),
        x.median(2).values,
        x.diff(dim=2).abs().mean(2),
        *((energy[..., band].mean(2) + FLOOR).log() for band in octaves(x.shape[2])),
    ]
    return torch.stack(found, 2).flatten(1)
