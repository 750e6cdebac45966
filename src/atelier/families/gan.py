"""Generative adversarial nets (Goodfellow et al. 2014), dense or convolutional (after Radford et al. 2016)."""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.optim import Optimizer as TorchOptimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from atelier.errors import AtelierError
from atelier.layers import Rate, Shape, Width
from atelier.optim import Optimizer

LEAK = 0.2  # slope of the discriminator's units below 0


class Model(nn.Module):
    """A generator G makes items of latents z ~ N(0, 1); a discriminator D says how likely an item is to be real.

    widths: the generator's layers, and the discriminator's in reverse. conv true: they are maps, and every step from
    one to the next, and from the last to the image, doubles height and width by a transposed 4x4 convolution.
    steps: k of Algorithm 1. A batch is shared out over k steps of the discriminator, each with latents of its own, and
    the generator steps once. loss: what the generator minimises, E log(1 - D(G(z))) (minimax) or -E log D(G(z)).

    beta1: of Adam, if that is the optimizer. batch_norm: in the generator. spectral_norm: the discriminator's weights
    are divided by their largest singular value (Miyato et al. 2018). smoothing: how much less than 1 the discriminator
    is told of real items (Salimans et al. 2016). average: the rate of a running mean of the generator, which draws the
    samples in its place.
    """

    def __init__(
        self,
        shape: Shape,
        classes: int,
        *,
        latent: Width = 64,
        widths: tuple[Width, ...] = (256, 256),
        conv: bool = False,
        loss: Literal["minimax", "non-saturating"] = "non-saturating",
        steps: Width = 1,
        beta1: Rate = 0.5,
        batch_norm: bool = True,
        spectral_norm: bool = False,
        smoothing: Rate = 0.0,
        average: Rate = 0.0,
        optimizer: Optimizer = Optimizer(),
    ) -> None:
        super().__init__()
        self.check(widths=widths)
        self.latent, self.loss, self.steps, self.smoothing = latent, loss, steps, smoothing
        self.beta1, self.optimizer = beta1, optimizer
        make = _convolutional if conv else _dense
        self.generator, self.discriminator = make(tuple(shape), latent, widths, batch_norm)
        self.to(memory_format=torch.channels_last)  # faster convolutions; nothing to dense layers
        if spectral_norm:
            for layer in self.discriminator:
                if hasattr(layer, "weight"):
                    parametrizations.spectral_norm(layer)
        self.averaged = None
        if average:
            mean = get_ema_multi_avg_fn(average)
            self.averaged = AveragedModel(self.generator, multi_avg_fn=mean, use_buffers=True).requires_grad_(False)

    @staticmethod
    def check(widths: tuple[int, ...] = (256, 256), **_) -> None:
        if not widths:
            raise ValueError("widths is empty; a generator needs a layer at least")

    def discriminate(self, x: Tensor) -> Tensor:
        """(n, *shape) in [0, 1] -> log-odds that an item is real, (n,): D(x) is their logistic."""
        return self.discriminator(2.0 * x - 1.0).squeeze(1)

    def draw(self, n: int) -> Tensor:
        """n items in [0, 1], (n, *shape), by the generator that plays, from torch's global random numbers."""
        return self.generator(self._latents(n))

    def sample(self, n: int) -> Tensor:
        """As `draw` does, by the generator's running mean where one is kept."""
        return (self.averaged or self.generator)(self._latents(n))

    def optimizers(self) -> list[TorchOptimizer]:
        discriminator, generator = self._optimizer(self.discriminator), self._optimizer(self.generator)
        return [discriminator] * self.steps + [generator]

    def losses(self, x: Tensor, y: Tensor) -> Iterator[dict[str, Tensor]]:
        """What the first step sees before it is told: d_real, the mean of D(x); d_fake, that of D(G(z)); and value,
        V(D, G) = E log D(x) + E log(1 - D(G(z))), at most -log 4 where D can do no better than 1/2.
        """
        seen = x.tensor_split(self.steps) if len(x) >= self.steps else [x] * self.steps
        for step, real in enumerate(seen):
            with torch.no_grad():
                fake = self.draw(max(len(real), 2))  # one alone has no variance to divide by
            logits = self.discriminate(torch.cat([real, fake]))
            of_real, of_fake = logits[: len(real)], logits[len(real) :]
            missed, fooled = F.softplus(-of_real).mean(), F.softplus(of_fake).mean()  # -log D(x), -log(1 - D(G(z)))
            told = {"d_real": of_real.sigmoid().mean(), "d_fake": of_fake.sigmoid().mean(), "value": -missed - fooled}
            yield {"loss": missed + fooled + self.smoothing * of_real.mean()} | (told if step == 0 else {})
        yield {"loss": self._generator_loss(self.discriminate(self.draw(max(len(seen[0]), 2))))}

    def after_step(self) -> None:
        if self.averaged:
            self.averaged.update_parameters(self.generator)

    def _generator_loss(self, logits: Tensor) -> Tensor:
        """Of the log-odds of drawn items: both pull the same way, but the slope in one is -D, in the other D - 1."""
        return -F.softplus(logits).mean() if self.loss == "minimax" else F.softplus(-logits).mean()

    def _latents(self, n: int) -> Tensor:
        weight = self.generator[0].weight
        return torch.randn(n, self.latent, dtype=weight.dtype, device=weight.device)

    def _optimizer(self, net: nn.Module) -> TorchOptimizer:
        made = self.optimizer(net.parameters())
        for group in made.param_groups:
            if "betas" in group:
                group["betas"] = (self.beta1, group["betas"][1])
        return made


def _dense(shape: Shape, latent: int, widths: Shape, batch_norm: bool) -> tuple[nn.Sequential, nn.Sequential]:
    generator, discriminator = nn.Sequential(), nn.Sequential(nn.Flatten())
    for a, b in pairwise((latent, *widths)):
        generator.extend([nn.Linear(a, b), *([nn.BatchNorm1d(b)] if batch_norm else []), nn.ReLU()])
    generator.extend([nn.Linear(widths[-1], math.prod(shape)), nn.Unflatten(1, shape), nn.Sigmoid()])
    for a, b in pairwise((math.prod(shape), *widths[::-1])):
        discriminator.extend([nn.Linear(a, b), nn.LeakyReLU(LEAK)])
    return generator, discriminator.append(nn.Linear(widths[0], 1))


def _convolutional(shape: Shape, latent: int, widths: Shape, batch_norm: bool) -> tuple[nn.Sequential, nn.Sequential]:
    step = 2 ** len(widths)
    if len(shape) != 3 or any(side % step for side in shape[1:]):
        raise AtelierError(
            f"gan: {len(widths)} widths with conv halve an image {len(widths)} times, so its sides must be divisible "
            f"by {step}; items are {shape}: give fewer widths, or conv: false"
        )
    small = (widths[0], *(side // step for side in shape[1:]))
    generator = nn.Sequential(nn.Linear(latent, math.prod(small)), nn.Unflatten(1, small))
    for a, b in pairwise((*widths, shape[0])):
        norm = [nn.BatchNorm2d(a)] if batch_norm else []
        generator.extend([*norm, nn.ReLU(), nn.ConvTranspose2d(a, b, 4, stride=2, padding=1)])
    discriminator = nn.Sequential()
    for a, b in pairwise((shape[0], *widths[::-1])):
        discriminator.extend([nn.Conv2d(a, b, 4, stride=2, padding=1), nn.LeakyReLU(LEAK)])
    return generator.append(nn.Sigmoid()), discriminator.extend([nn.Flatten(), nn.Linear(math.prod(small), 1)])
