"""Time-delay net (Waibel et al. 1989): every unit sees a few delayed steps of the layer below, with shared weights."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from torch import Tensor, nn
from torch.optim import Optimizer as TorchOptimizer

from atelier import sequences
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


class Model(nn.Module):
    """hidden: units of each layer; delays: how many steps each sees, `dilation` steps apart (1 each if empty).

    A layer loses (delays - 1) * dilation steps, so no unit sees beyond the ends and a shift of the input is a shift of
    every layer. pool: the mean or the maximum over the steps of the last layer, by which a shift is lost; with none,
    all its steps go to the softmax. An image (channels, rows, columns) is read row by row, a window step by step.
    """

    def __init__(
        self,
        shape: Shape,
        classes: int,
        *,
        hidden: tuple[Width, ...] = (16, 16),
        delays: tuple[Width, ...] = (3, 5),
        dilation: tuple[Width, ...] = (),
        pool: Literal["max", "mean", "none"] = "mean",
        activation: Activation = "relu",
        init: Init = "he",
        optimizer: Optimizer = Optimizer(),
    ) -> None:
        super().__init__()
        self.check(hidden=hidden, delays=delays, dilation=dilation)
        apart = dilation or (1,) * len(hidden)
        seen = sum((count - 1) * gap for count, gap in zip(delays, apart, strict=True)) + 1
        steps = shape[-1] if len(shape) == 2 else shape[-2]
        if seen > steps:
            raise ValueError(f"delays {list(delays)} reach over {seen} steps of {steps}; use fewer or smaller delays")
        widths = (sequences.features(shape), *hidden)
        self.layers = nn.ModuleList(
            nn.Conv2d(a, b, (1, count), dilation=gap)  # of height 1: what `initialise` knows
            for a, b, count, gap in zip(widths, hidden, delays, apart, strict=False)
        )
        self.left = steps - seen + 1 if pool == "none" else 1
        self.head = nn.Linear(widths[-1] * self.left, classes)
        self.activation = ACTIVATIONS[activation]()
        self.hidden, self.pool, self.optimizer = hidden, pool, optimizer
        initialise(self, init)

    @staticmethod
    def check(
        hidden: tuple[int, ...] = (16, 16), delays: tuple[int, ...] = (3, 5), dilation: tuple[int, ...] = (), **_
    ) -> None:
        if not hidden:
            raise ValueError("hidden is empty; a time-delay net needs at least one layer")
        for name, given in (("delays", delays), ("dilation", dilation or hidden)):
            if len(given) != len(hidden):
                raise ValueError(f"{name} has {len(given)} entries for {len(hidden)} layers; give one for each")

    def states(self, x: Tensor) -> Tensor:
        """(n, channels, steps) or (n, channels, rows, columns) -> the last layer (n, units, steps left)."""
        h = sequences.steps(x).transpose(1, 2).unsqueeze(2)
        for layer in self.layers:
            h = self.activation(layer(h))
        return h.squeeze(2)

    def classify(self, x: Tensor) -> Tensor:
        """(n, channels, steps) or (n, channels, rows, columns) -> logits (n, classes)."""
        h = self.states(x)
        match self.pool:
            case "mean":
                return self.head(h.mean(2))
            case "max":
                return self.head(h.amax(2))
        return self.head(h.flatten(1))

    def optimizers(self) -> list[TorchOptimizer]:
        return [self.optimizer(self.parameters())]

    def losses(self, x: Tensor, y: Tensor) -> Iterator[dict[str, Tensor]]:
        yield class_losses(self.classify(x), y)

    def nodes(self) -> list[Nodes]:
        """The units of each layer."""
        names = [f"layers.{i}" for i in range(len(self.hidden))]
        readers = [*map(dense_reader, names[1:]), dense_reader("head", self.left)]
        return [
            Nodes(f"hidden.{i}", width, dense_writers(names[i]), (readers[i],)) for i, width in enumerate(self.hidden)
        ]

    def resized(self, keep: Mapping[str, Sequence[int]]) -> dict[str, Any]:
        """The settings of this net with only the nodes `keep` (nodes' name -> rising indices), and all of others."""
        return {"hidden": tuple(left(keep, f"hidden.{i}", width) for i, width in enumerate(self.hidden))}
