"""Dense classifier that may first learn its features without labels, as an encoder (Bengio et al. 2007, two stages)."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

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
    left,
)
from atelier.optim import Optimizer
from atelier.tied import Transposed


class Model(nn.Module):
    """hidden: the encoder's widths, the last is the code that the head reads.

    With `pretrain` in its recipe, encoder and code are an autoencoder's first (see Rebuilder); without, labels are all
    that the same net from the same initial weights ever sees. tied: whether that autoencoder's decoder has the
    encoder's weights, transposed, or its own.
    """

    def __init__(
        self,
        shape: Shape,
        classes: int,
        *,
        hidden: tuple[Width, ...] = (256, 64),
        activation: Activation = "relu",
        tied: bool = True,
        init: Init = "he",
        optimizer: Optimizer = Optimizer(),
    ) -> None:
        super().__init__()
        self.check(hidden=hidden)
        widths = (math.prod(shape), *hidden)
        self.encode = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, hidden, strict=False))
        self.head = nn.Linear(widths[-1], classes)
        self.activation = ACTIVATIONS[activation]()
        self.hidden, self.tied, self.init, self.optimizer = hidden, tied, init, optimizer
        initialise(self, init)

    @staticmethod
    def check(hidden: tuple[int, ...] = (256, 64), **_) -> None:
        if not hidden:
            raise ValueError("hidden is empty; give the encoder a layer, or take the family softmax")

    def encoded(self, x: Tensor) -> Tensor:
        """(n, *shape) -> codes (n, hidden[-1])."""
        h = x.flatten(1)
        for layer in self.encode:
            h = self.activation(layer(h))
        return h

    def classify(self, x: Tensor) -> Tensor:
        """(n, *shape) -> logits (n, classes)."""
        return self.head(self.encoded(x))

    def optimizers(self) -> list[TorchOptimizer]:
        return [self.optimizer(self.parameters())]

    def losses(self, x: Tensor, y: Tensor) -> Iterator[dict[str, Tensor]]:
        yield class_losses(self.classify(x), y)

    def pretrain(self, optimizer: Optimizer) -> "Rebuilder":
        """The autoencoder whose encoder is this net's own."""
        return Rebuilder(self, optimizer)

    def nodes(self) -> list[Nodes]:
        names = [f"encode.{i}" for i in range(len(self.hidden))]
        return [
            Nodes(f"hidden.{i}", width, dense_writers(name), (dense_reader(reader),))
            for i, (width, name, reader) in enumerate(zip(self.hidden, names, [*names[1:], "head"], strict=True))
        ]

    def resized(self, keep: Mapping[str, Sequence[int]]) -> dict[str, Any]:
        """The settings of this net with only the nodes `keep` (nodes' name -> rising indices), and all of others."""
        return {"hidden": tuple(left(keep, f"hidden.{i}", width) for i, width in enumerate(self.hidden))}


class Rebuilder(nn.Module):
    """The first stage: a classifier's encoder with a decoder, by which it learns to give back the clean item.

    Its loss is the mean over pixels of the cross-entropy, in nats, of a logistic output at the clean pixel. On noisy
    inputs it is a denoising autoencoder (Vincent et al. 2010). The decoder is thrown away afterwards.
    """

    target = "clean"

    def __init__(self, classifier: Model, optimizer: Optimizer) -> None:
        super().__init__()
        self.encode, self.activation, self.optimizer = classifier.encode, classifier.activation, optimizer
        self.encoded = classifier.encoded
        layers = list(reversed(classifier.encode))
        if classifier.tied:
            self.decode = nn.ModuleList(map(Transposed, layers))
        else:
            self.decode = nn.ModuleList(nn.Linear(layer.out_features, layer.in_features) for layer in layers)
            initialise(self.decode, classifier.init)
            self.decode.to(layers[0].weight)

    def reconstruct(self, x: Tensor) -> Tensor:
        """(n, *shape) -> (n, *shape) in [0, 1]."""
        return self._logits(x).sigmoid().view(x.shape)

    def optimizers(self) -> list[TorchOptimizer]:
        return [self.optimizer(self.parameters())]

    def losses(self, x: Tensor, y: Tensor) -> Iterator[dict[str, Tensor]]:
        """y: the clean items, (n, *shape)."""
        yield {"loss": F.binary_cross_entropy_with_logits(self._logits(x), y.flatten(1))}

    def _logits(self, x: Tensor) -> Tensor:
        h = self.encoded(x)
        for layer in self.decode[:-1]:
            h = self.activation(layer(h))
        return self.decode[-1](h)
