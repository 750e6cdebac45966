"""Ensemble of dense nets (Hansen and Salamon 1990): trained side by side, each from its own start, they vote."""

import math
from collections.abc import Iterator
from typing import Annotated

from annotated_types import Ge
from torch import Tensor, nn, stack
from torch.optim import Optimizer as TorchOptimizer

from atelier.layers import ACTIVATIONS, Activation, Init, Shape, Width, class_losses, initialise
from atelier.optim import Optimizer


class Model(nn.Module):
    """`members` nets of the widths `hidden`, on the same batches; its probabilities are the mean of theirs."""

    def __init__(
        self,
        shape: Shape,
        classes: int,
        *,
        members: Annotated[int, Ge(1)] = 5,
        hidden: tuple[Width, ...] = (300, 100),
        activation: Activation = "relu",
        init: Init = "he",
        optimizer: Optimizer = Optimizer(),
    ) -> None:
        super().__init__()
        self.optimizer = optimizer
        widths = (math.prod(shape), *hidden)
        self.members = nn.ModuleList()
        for _ in range(members):
            layers = [nn.Flatten()]
            for a, b in zip(widths, hidden, strict=False):
                layers += [nn.Linear(a, b), ACTIVATIONS[activation]()]
            self.members.append(nn.Sequential(*layers, nn.Linear(widths[-1], classes)))
        initialise(self, init)

    def classify(self, x: Tensor) -> Tensor:
        """(n, *shape) -> log-probabilities (n, classes), which are logits too."""
        votes = stack([member(x).log_softmax(1) for member in self.members])
        return votes.logsumexp(0) - math.log(len(self.members))

    def optimizers(self) -> list[TorchOptimizer]:
        return [self.optimizer(self.parameters())]

    def losses(self, x: Tensor, y: Tensor) -> Iterator[dict[str, Tensor]]:
        """The sum over members: each gets the gradient that it would get alone."""
        yield {"loss": sum(class_losses(member(x), y)["loss"] for member in self.members)}
