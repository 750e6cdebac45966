"""Restricted Boltzmann machine of binary units (Smolensky 1986; Hinton 2002)."""

import math
from collections.abc import Iterator
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer as TorchOptimizer

from atelier.contrastive import Learner
from atelier.draws import bits, fixed
from atelier.layers import Shape, Width
from atelier.optim import Optimizer

SWEEPS = 1000  # Gibbs steps before a sample is shown


class Model(nn.Module):
    """steps: k of CD-k; chains: 0, or how many persistent ones there are (PCD-k); centred: offsets, sliding means.

    Pixels are probabilities: each step draws bits of its items anew, and figures are taken on one fixed draw of bits.
    Momentum and weight decay (of weights, not of biases) are the recipe's.
    """

    def __init__(
        self,
        shape: Shape,
        classes: int,
        *,
        hidden: Width = 500,
        steps: Annotated[int, Ge(1)] = 1,
        chains: Annotated[int, Ge(0)] = 0,
        centred: bool = False,
        optimizer: Optimizer = Optimizer(),
    ) -> None:
        super().__init__()
        self.shape, self.optimizer = tuple(shape), optimizer
        layer = nn.Linear(math.prod(shape), hidden)
        self.learner = Learner(layer, steps=steps, chains=chains, centred=centred)

    def optimizers(self) -> list[TorchOptimizer]:
        return [self.optimizer(self.learner.groups())]

    def losses(self, x: Tensor, y: Tensor) -> Iterator[dict[str, Tensor]]:
        """A difference of free energies: its gradient is what counts, its value says little; see `figures`."""
        yield {"loss": self.learner.contrast(x.flatten(1))}

    def reconstruct(self, x: Tensor) -> Tensor:
        """(n, *shape) -> (n, *shape) in [0, 1]: one pass up and down, probabilities in the place of bits."""
        return self.learner.machine().rebuilt(x.flatten(1)).sigmoid().view(x.shape)

    @torch.no_grad()
    def sample(self, n: int) -> Tensor:
        """(n, *shape) in [0, 1]: pixels' probabilities at the end of a Gibbs chain of 1,000 steps, the same each time.

        Chains begin at the persistent ones, over and over if there are fewer than n, or as noise where there are none.
        """
        machine, start = self.learner.machine(), self.learner.chains
        generator = fixed(machine.weight.device)
        noise = bits(torch.full((n, math.prod(self.shape)), 0.5).to(machine.weight), generator)
        v = noise if start is None else start[torch.arange(n) % len(start)]
        h = bits(machine.hidden_logits(machine.gibbs(v, SWEEPS - 1, generator)).sigmoid(), generator)
        return machine.visible_logits(h).sigmoid().view(n, *self.shape)

    def figures(self, x: Tensor) -> dict[str, Tensor]:
        """free_energy; reconstruction, the cross-entropy of an item's bits with the pass up and down; pseudo_nll, the
        bits' number times -log of one bit's probability given all others, the bit drawn. All in nats, (n,).

        The loss is pseudo_nll: unlike free energy it can be compared over training, since Z cancels in it, and unlike
        reconstruction it is a likelihood of a kind. It looks at neighbours of the data alone, so it can fall while the
        likelihood gets worse, as the experiment partition-function shows.
        """
        machine, generator = self.learner.machine(), fixed(x.device)
        v = bits(x.flatten(1), generator)
        site = torch.randint(v.shape[1], (len(v), 1), generator=generator, device=x.device)
        flipped = v.scatter(1, site, 1 - v.gather(1, site))
        free = machine.free_energy(v)
        pseudo = v.shape[1] * F.softplus(free - machine.free_energy(flipped))
        errors = F.binary_cross_entropy_with_logits(machine.rebuilt(v), v, reduction="none").sum(1)
        return {"loss": pseudo, "pseudo_nll": pseudo, "free_energy": free, "reconstruction": errors}
