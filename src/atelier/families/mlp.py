"""Multilayer perceptron: dense layers of any widths and ranks, dropout per layer, weight penalties, residual blocks."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from annotated_types import Ge
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer as TorchOptimizer

from atelier.layers import (
    ACTIVATIONS,
    Activation,
    Flatten,
    Init,
    Nodes,
    NonNegative,
    Place,
    Rate,
    Reader,
    Shape,
    Slice,
    Width,
    check_places,
    class_losses,
    dense_reader,
    dense_writers,
    initialise,
    left,
)
from atelier.optim import Optimizer


class Model(nn.Module):
    """hidden: the widths; dropout: a rate for each hidden layer (none if empty); activation: one for all, or for each.

    l1 and l2 add rate / 2 times the sum of absolute, of squared weights (biases excepted) to the loss.
    residual: after the first layer, hidden layers come in pairs: a -> f(W2 f(W1 a + b1) + b2 + a) (He et al. 2015).
    inputs: the places of a flattened item that the net reads, rising (all if empty).
    ranks: a hidden layer with one is two products, without a bias between; 0 for an ordinary one, as all are if empty.
    """

    def __init__(
        self,
        shape: Shape,
        classes: int,
        *,
        hidden: tuple[Width, ...] = (300, 100),
        activation: Activation | tuple[Activation, ...] = "relu",
        dropout: tuple[Rate, ...] = (),
        l1: NonNegative = 0.0,
        l2: NonNegative = 0.0,
        residual: bool = False,
        inputs: tuple[Place, ...] = (),
        ranks: tuple[Annotated[int, Ge(0)], ...] = (),
        init: Init = "he",
        optimizer: Optimizer = Optimizer(),
    ) -> None:
        super().__init__()
        self.check(hidden=hidden, activation=activation, dropout=dropout, residual=residual, inputs=inputs, ranks=ranks)
        self.flatten, self.ranks = Flatten("inputs", inputs, shape), ranks or (0,) * len(hidden)
        widths = (self.flatten.width, *hidden)
        self.layers = nn.ModuleList(dense(*sizes) for sizes in zip(widths, hidden, self.ranks, strict=False))
        self.head = nn.Linear(widths[-1], classes)
        single = isinstance(activation, str)
        self.activation = ACTIVATIONS[activation]() if single else nn.ModuleList(ACTIVATIONS[a]() for a in activation)
        self.dropout = dropout or (0.0,) * len(hidden)
        self.hidden, self.l1, self.l2, self.residual, self.optimizer = hidden, l1, l2, residual, optimizer
        initialise(self, init)

    @staticmethod
    def check(
        hidden: tuple[int, ...] = (300, 100),
        activation: str | tuple[str, ...] = "relu",
        dropout: tuple[float, ...] = (),
        residual: bool = False,
        inputs: tuple[int, ...] = (),
        ranks: tuple[int, ...] = (),
        **_,
    ) -> None:
        check_places("inputs", inputs)
        if not isinstance(activation, str) and len(activation) != len(hidden):
            raise ValueError(
                f"activation has {len(activation)} names for {len(hidden)} hidden layers; give one for each, or one"
            )
        if dropout and len(dropout) != len(hidden):
            raise ValueError(f"dropout has {len(dropout)} rates for {len(hidden)} hidden layers; give one for each")
        if ranks and len(ranks) != len(hidden):
            raise ValueError(f"ranks has {len(ranks)} numbers for {len(hidden)} hidden layers; give one for each")
        if residual and (len(hidden) % 2 == 0 or len(set(hidden[::2])) > 1):
            raise ValueError(
                f"hidden is {list(hidden)}; with residual it is one width, then pairs (inner, same width): [64, 32, 64]"
            )

    def classify(self, x: Tensor) -> Tensor:
        """(n, *shape) -> logits (n, classes)."""
        h = skip = self.flatten(x)
        shared = not isinstance(self.activation, nn.ModuleList)
        for i, (layer, rate) in enumerate(zip(self.layers, self.dropout, strict=True)):
            activation = self.activation if shared else self.activation[i]
            h = layer(h)
            if self.residual and i and i % 2 == 0:
                h = h + skip
            h = F.dropout(activation(h), rate, self.training) if rate else activation(h)
            if i % 2 == 0:
                skip = h
        return self.head(h)

    def optimizers(self) -> list[TorchOptimizer]:
        return [self.optimizer(self.parameters())]

    def losses(self, x: Tensor, y: Tensor) -> Iterator[dict[str, Tensor]]:
        weights = [p for p in self.parameters() if p.dim() > 1]
        penalty = self.l1 / 2 * sum(w.abs().sum() for w in weights) if self.l1 else 0.0
        if self.l2:
            penalty = penalty + self.l2 / 2 * sum(w.square().sum() for w in weights)
        yield class_losses(self.classify(x), y, penalty)

    def nodes(self) -> list[Nodes]:
        """A hidden layer's nodes each, then the inputs; with residual, the layers that a skip joins lose the same nodes
        together.
        """
        names = [f"layers.{i}" for i in range(len(self.hidden))]
        writers = [writers_of(name, rank) for name, rank in zip(names, self.ranks, strict=True)]
        first, *readers = [*map(reader_of, names, self.ranks), dense_reader("head")]
        hidden = [Nodes(f"hidden.{i}", width, writers[i], (readers[i],)) for i, width in enumerate(self.hidden)]
        if self.residual:
            hidden = [Nodes("stream", self.hidden[0], sum(writers[::2], ()), tuple(readers[::2])), *hidden[1::2]]
        return [*hidden, Nodes("inputs", self.flatten.width, (), (first,), given=True)]

    def resized(self, keep: Mapping[str, Sequence[int]]) -> dict[str, Any]:
        """The settings of this net with only the nodes `keep` (nodes' name -> rising indices), and all of others."""
        names = ["stream" if self.residual and i % 2 == 0 else f"hidden.{i}" for i in range(len(self.hidden))]
        hidden = tuple(left(keep, name, width) for name, width in zip(names, self.hidden, strict=True))
        inputs = self.flatten.resized(keep.get("inputs"))
        return {"hidden": hidden} | ({"inputs": inputs} if inputs else {})


def dense(inputs: int, outputs: int, rank: int) -> nn.Module:
    """A dense layer, or with a rank two of them: inputs -> rank -> outputs, the first without a bias."""
    if not rank:
        return nn.Linear(inputs, outputs)
    return nn.Sequential(nn.Linear(inputs, rank, bias=False), nn.Linear(rank, outputs))


def writers_of(layer: str, rank: int) -> tuple[Slice, ...]:
    return dense_writers(f"{layer}.1" if rank else layer)


def reader_of(layer: str, rank: int) -> Reader:
    """Of a layer with a rank the first product reads, and no bias stands for what it is given."""
    return Reader(f"{layer}.0.weight", module=f"{layer}.0") if rank else dense_reader(layer)
