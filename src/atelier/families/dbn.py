"""Deep belief net: Boltzmann machines stacked layer by layer, then fine-tuned with labels (Hinton et al. 2006)."""

import math
from collections.abc import Iterator
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.optim import Optimizer as TorchOptimizer

from atelier.contrastive import Learner
from atelier.layers import Init, Shape, Width, class_losses, initialise
from atelier.optim import Optimizer


class Model(nn.Module):
    """A dense net of logistic units with a softmax on top, which a recipe's `pretrain` first makes a stack of machines.

    hidden: the widths; steps: k of CD-k in the first training; init: the weights of a net that has none.
    """

    def __init__(
        self,
        shape: Shape,
        classes: int,
        *,
        hidden: tuple[Width, ...] = (500, 500, 2000),
        steps: Annotated[int, Ge(1)] = 1,
        init: Init = "he",
        optimizer: Optimizer = Optimizer(),
    ) -> None:
        super().__init__()
        self.check(hidden=hidden)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip((math.prod(shape), *hidden), hidden, strict=False))
        self.head = nn.Linear(hidden[-1], classes)
        self.steps, self.optimizer = steps, optimizer
        initialise(self, init)

    @staticmethod
    def check(hidden: tuple[int, ...] = (500, 500, 2000), **_) -> None:
        if not hidden:
            raise ValueError("hidden is empty; a deep belief net needs at least one machine")

    def pretrain(self, optimizer: Optimizer) -> nn.Module:
        """The stack of machines over the hidden layers, whose weights start anew."""
        return Stack(self.layers, self.steps, optimizer)

    def classify(self, x: Tensor) -> Tensor:
        """(n, *shape) -> logits (n, classes)."""
        h = x.flatten(1)
        for layer in self.layers:
            h = layer(h).sigmoid()
        return self.head(h)

    def optimizers(self) -> list[TorchOptimizer]:
        return [self.optimizer(self.parameters())]

    def losses(self, x: Tensor, y: Tensor) -> Iterator[dict[str, Tensor]]:
        yield class_losses(self.classify(x), y)


class Stack(nn.Module):
    """Machines that learn one after another, from the lowest on, each for an equal share of the training.

    The layers below the one that learns give probabilities, which it draws its bits from, as the lowest does from
    pixels. Their parameters are in the one optimizer too, but have no gradient, so it leaves them as they are.
    """

    def __init__(self, layers: nn.ModuleList, steps: int, optimizer: Optimizer) -> None:
        super().__init__()
        self.learners = nn.ModuleList(Learner(layer, steps=steps) for layer in layers)
        self.active, self.optimizer = 0, optimizer

    def before_step(self, progress: float) -> None:
        self.active = int(progress * len(self.learners) + 1e-9)  # 1 / 3 * 3 may fall short of 1

    def optimizers(self) -> list[TorchOptimizer]:
        return [self.optimizer([group for learner in self.learners for group in learner.groups()])]

    def losses(self, x: Tensor, y: Tensor) -> Iterator[dict[str, Tensor]]:
        with torch.no_grad():
            x = x.flatten(1)
            for learner in self.learners[: self.active]:
                x = learner.layer(x).sigmoid()
        yield {"loss": self.learners[self.active].contrast(x)}

    def reconstruct(self, x: Tensor) -> Tensor:
        """(n, *shape) -> (n, *shape) in [0, 1]: up to the layer that learns and back, in probabilities."""
        machines = [learner.machine() for learner in self.learners[: self.active + 1]]
        h = x.flatten(1)
        for machine in machines:
            h = machine.hidden_logits(h).sigmoid()
        for machine in reversed(machines):
            h = machine.visible_logits(h).sigmoid()
        return h.view(x.shape)
