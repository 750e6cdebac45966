"""Softmax classifier: one dense layer from pixels to classes (multinomial logistic regression)."""

import math
from collections.abc import Iterator

from torch import Tensor, nn
from torch.optim import Optimizer as TorchOptimizer

from atelier.layers import Init, NonNegative, Shape, class_losses, initialise
from atelier.optim import Optimizer


class Model(nn.Module):
    """l2 adds l2 / 2 times the sum of squared weights to the loss."""

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
        self.head = nn.Linear(math.prod(shape), classes)
        self.l2, self.optimizer = l2, optimizer
        initialise(self, init)

    def classify(self, x: Tensor) -> Tensor:
        """(n, *shape) -> logits (n, classes)."""
        return self.head(x.flatten(1))

    def optimizers(self) -> list[TorchOptimizer]:
        return [self.optimizer(self.parameters())]

    def losses(self, x: Tensor, y: Tensor) -> Iterator[dict[str, Tensor]]:
        penalty = self.l2 / 2 * self.head.weight.square().sum() if self.l2 else 0.0
        yield class_losses(self.classify(x), y, penalty)
