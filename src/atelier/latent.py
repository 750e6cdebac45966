"""What families with latent codes share: standard distributions, posteriors made from them, likelihoods of pixels.

A posterior is a standard distribution that is moved and stretched, one for each latent unit: z = location + scale e.
So a draw is a function of location and scale, and its gradient is exact (Kingma and Welling 2014, 2.4).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from atelier.layers import ACTIVATIONS, Activation

Posterior = Literal["gaussian", "student", "uniform"]
LOG_TAU = math.log(2.0 * math.pi)


@dataclass(frozen=True)
class Normal:
    """N(0, 1)."""

    deviation = 1.0

    def draw(self, like: Tensor, generator: Generator | None = None) -> Tensor:
        return torch.empty_like(like).normal_(generator=generator)

    def log_density(self, e: Tensor) -> Tensor:
        return -0.5 * (e.square() + LOG_TAU)


@dataclass(frozen=True)
class Uniform:
    """Even over (-1, 1)."""

    deviation = 1.0 / math.sqrt(3.0)

    def draw(self, like: Tensor, generator: Generator | None = None) -> Tensor:
        return torch.empty_like(like).uniform_(-1.0, 1.0, generator=generator)

    def log_density(self, e: Tensor) -> Tensor:
        return torch.where(e.abs() <= 1.0, -math.log(2.0), -math.inf)


@dataclass(frozen=True)
class StudentT:
    """Student's t with so many degrees of freedom, more than 2."""

    freedom: float = 5.0

    @property
    def deviation(self) -> float:
        return math.sqrt(self.freedom / (self.freedom - 2.0))

    def draw(self, like: Tensor, generator: Generator | None = None) -> Tensor:
        """Exactly, from two even numbers (Bailey 1994, Polar generation of random variates with the t-distribution)."""
        u, v = (torch.empty_like(like).uniform_(generator=generator) for _ in range(2))
        radius = (self.freedom * torch.expm1(-2.0 / self.freedom * torch.log1p(-u))).sqrt()
        return radius * torch.cos(2.0 * math.pi * v)

    def log_density(self, e: Tensor) -> Tensor:
        half = 0.5 * (self.freedom + 1.0)
        constant = math.lgamma(half) - math.lgamma(0.5 * self.freedom) - 0.5 * math.log(math.pi * self.freedom)
        return constant - half * torch.log1p(e.square() / self.freedom)


Standard = Normal | StudentT | Uniform


def standards(posterior: Posterior, freedom: float) -> tuple[Standard, Standard]:
    """What the posterior is made from, and the prior of every latent unit: Student's beside Student's, else N(0, 1)."""
    match posterior:
        case "gaussian":
            return Normal(), Normal()
        case "student":
            return StudentT(freedom), StudentT(freedom)
        case "uniform":
            return Uniform(), Normal()


@dataclass(frozen=True)
class Code:
    """Posteriors of latent units, independent of one another: location and log of the scale, both (..., units)."""

    standard: Standard
    prior: Standard
    location: Tensor
    log_scale: Tensor

    def repeated(self, count: int) -> "Code":
        """So many of each, along a new first axis."""
        shape = (count, *self.location.shape)
        return Code(self.standard, self.prior, self.location.expand(shape), self.log_scale.expand(shape))

    def draw(self, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """z, and log q(z) summed over units: by the standard draw, since rounding may put z outside its support."""
        e = self.standard.draw(self.location, generator)
        return self.location + self.log_scale.exp() * e, (self.standard.log_density(e) - self.log_scale).sum(-1)

    def log_prior(self, z: Tensor) -> Tensor:
        return self.prior.log_density(z).sum(-1)

    def kl(self, z: Tensor, log_q: Tensor) -> Tensor:
        """KL(q, prior) in nats, (...): in closed form where there is one, else log q(z) - log prior(z) of a draw."""
        closed = self.closed_kl()
        return log_q - self.log_prior(z) if closed is None else closed

    def closed_kl(self) -> Tensor | None:
        match self.standard, self.prior:
            case Normal(), Normal():  # Kingma and Welling 2014, appendix B
                every = 0.5 * (self.location.square() + (2.0 * self.log_scale).exp() - 1.0) - self.log_scale
            case Uniform(), Normal():  # minus the entropy log 2w, and the mean of z^2 / 2
                second = self.location.square() + (2.0 * self.log_scale).exp() / 3.0
                every = 0.5 * (second + LOG_TAU) - math.log(2.0) - self.log_scale
            case _:
                return None
        return every.sum(-1)


def gumbel(like: Tensor, generator: Generator | None = None) -> Tensor:
    """Gumbel noise: logits with it are largest at k with the probability that their softmax has at k."""
    return -torch.empty_like(like).exponential_(generator=generator).log()


def straight_through(forward: Tensor, backward: Tensor) -> Tensor:
    """The value of `forward`, whose gradient is passed on to `backward` as it is (Bengio et al. 2013)."""
    return backward + (forward - backward).detach()


def dense(widths: Sequence[int], activation: Activation) -> nn.Sequential:
    """Dense layers from width to width, with the activation between them and none after the last."""
    layers: list[nn.Module] = []
    for inputs, outputs in zip(widths, widths[1:], strict=False):
        layers += [nn.Linear(inputs, outputs), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers[:-1])


def bernoulli_log_likelihood(x: Tensor, logits: Tensor) -> Tensor:
    """log p(x) in nats, summed over the last axis, of pixels 0 or 1."""
    return torch.linalg.vecdot(x, logits) - F.softplus(logits).sum(-1)


def gaussian_log_likelihood(x: Tensor, mean: Tensor, log_sigma: Tensor) -> Tensor:
    """log of the density at x, summed over the last axis: nats of a density, which may be more than 0."""
    square = (x - mean).square().sum(-1) * (-2.0 * log_sigma).exp()
    return -0.5 * square - x.shape[-1] * (log_sigma + 0.5 * LOG_TAU)
