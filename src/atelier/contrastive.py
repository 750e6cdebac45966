"""Restricted Boltzmann machines of binary units and how they learn: what the families rbm and dbn share.

Contrastive divergence (Hinton 2002), persistent chains (Tieleman 2008), centring (Montavon and Mueller 2012; Melchior,
Fischer and Wiskott 2016).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from atelier.draws import base_rates, bits

SCALE = 0.01  # standard deviation of the first weights (Hinton 2010, A practical guide, section 8)
SLIDE = 0.01  # share that a batch's means have in the offsets


@dataclass(frozen=True)
class Machine:
    """The distribution p(v, h) = exp(-E) / Z of bits v (visible,) and h (hidden,), E = -v.a - h.c - h.W v.

    weight: W, (hidden, visible); visible: a, (visible,); hidden: c, (hidden,).
    """

    weight: Tensor
    visible: Tensor
    hidden: Tensor

    def detached(self) -> "Machine":
        """The same, apart from the parameters that it was made of."""
        return Machine(self.weight.detach(), self.visible.detach(), self.hidden.detach())

    def hidden_logits(self, v: Tensor) -> Tensor:
        """(n, visible) -> log odds of h given v, (n, hidden)."""
        return F.linear(v, self.weight, self.hidden)

    def visible_logits(self, h: Tensor) -> Tensor:
        """(n, hidden) -> log odds of v given h, (n, visible)."""
        return torch.addmm(self.visible, h, self.weight)

    def free_energy(self, v: Tensor) -> Tensor:
        """F(v) = -log sum over h of exp(-E(v, h)) in nats, (n,); p(v) = exp(-F(v)) / Z."""
        return -(v @ self.visible) - F.softplus(self.hidden_logits(v)).sum(1)

    @torch.no_grad()
    def gibbs(self, v: Tensor, steps: int, generator: Generator | None = None) -> Tensor:
        """The bits (n, visible) after so many times drawing h given v and v given h."""
        for _ in range(steps):
            h = bits(self.hidden_logits(v).sigmoid(), generator)
            v = bits(self.visible_logits(h).sigmoid(), generator)
        return v

    def rebuilt(self, v: Tensor) -> Tensor:
        """Log odds of v after one pass up and down with probabilities in the place of bits, (n, visible)."""
        return self.visible_logits(self.hidden_logits(v).sigmoid())


class Learner(nn.Module):
    """Teaches a dense layer, whose weights and biases are the machine's W and c, beside visible biases of its own.

    steps: the k Gibbs steps from the data to the model's side of a step (CD-k). chains: with 0 they begin at the items
    of each batch; else so many begin as noise, go on from batch to batch and are part of the state (PCD-k).
    centred: v and h enter the energy less an offset each, a sliding mean over batches: -(v - m).b - (h - l).c
    - (h - l).W (v - m). It is the same family of distributions, learned along other directions.
    """

    def __init__(self, layer: nn.Linear, *, steps: int = 1, chains: int = 0, centred: bool = False) -> None:
        super().__init__()
        hidden, visible = layer.weight.shape
        self.layer, self.steps, self.centred = layer, steps, centred
        self.bias = nn.Parameter(torch.zeros(visible))
        nn.init.normal_(layer.weight, std=SCALE)
        nn.init.zeros_(layer.bias)
        self.register_buffer("started", torch.tensor(False))
        self.register_buffer("chains", bits(torch.full((chains, visible), 0.5)) if chains else None)
        self.register_buffer("visible_mean", torch.zeros(visible) if centred else None)
        self.register_buffer("hidden_mean", torch.full((hidden,), 0.5) if centred else None)

    def machine(self) -> Machine:
        """The machine without offsets that has the same distribution; gradients pass to the parameters."""
        weight, visible, hidden = self.layer.weight, self.bias, self.layer.bias
        if self.centred:
            visible, hidden = visible - self.hidden_mean @ weight, hidden - weight @ self.visible_mean
        return Machine(weight, visible, hidden)

    def contrast(self, x: Tensor) -> Tensor:
        """Mean free energy of the data less that of the model's samples, a scalar whose gradient is the step of CD-k.

        x: (n, visible) in [0, 1], the probabilities that the data's bits are drawn with. In training mode the first
        call sets the biases, and every call moves offsets and persistent chains.
        """
        if self.training:
            self._prepare(x)
        v, machine = bits(x), self.machine()
        samples = machine.gibbs(v if self.chains is None else self.chains, self.steps)
        if self.training and self.chains is not None:
            self.chains.copy_(samples)
        return machine.free_energy(v).mean() - machine.free_energy(samples).mean()

    def groups(self) -> list[dict[str, Any]]:
        """For an optimizer: its weight decay is for weights alone."""
        return [{"params": [self.layer.weight]}, {"params": [self.bias, self.layer.bias], "weight_decay": 0.0}]

    @torch.no_grad()
    def _prepare(self, x: Tensor) -> None:
        if not self.started:
            # Independent pixels of the right means; the weights learn the rest.
            self.bias.copy_(base_rates(x))
            self.started.fill_(True)
            if self.centred:
                self.bias.add_(self.hidden_mean @ self.layer.weight)
                self.visible_mean.copy_(base_rates(x).sigmoid())
        elif self.centred:
            self.recentre(x.mean(0), self.machine().hidden_logits(x).sigmoid().mean(0))

    @torch.no_grad()
    def recentre(self, visible: Tensor, hidden: Tensor, share: float = SLIDE) -> None:
        """Move the offsets towards these means and the biases with them, so that the distribution stays."""
        visible, hidden = share * (visible - self.visible_mean), share * (hidden - self.hidden_mean)
        self.visible_mean.add_(visible)
        self.hidden_mean.add_(hidden)
        self.bias.add_(hidden @ self.layer.weight)
        self.layer.bias.add_(self.layer.weight @ visible)
