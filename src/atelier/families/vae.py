"""Variational autoencoder (Kingma and Welling 2014; Rezende et al. 2014), dense."""

import math
from collections.abc import Iterator
from typing import Annotated, Literal

import torch
from annotated_types import Gt
from torch import Generator, Tensor, nn
from torch.optim import Optimizer as TorchOptimizer

from atelier.draws import bits, fixed
from atelier.latent import (
    Code,
    Posterior,
    bernoulli_log_likelihood,
    dense,
    gaussian_log_likelihood,
    standards,
)
from atelier.layers import Activation, Init, NonNegative, Rate, Shape, Width, initialise
from atelier.optim import Optimizer

START = 0.5  # of a sigma that is learned


class Model(nn.Module):
    """hidden: the encoder's widths, the decoder's are mirrored; latent: units of the code.

    likelihood: bernoulli sees every item binarised, its grey values as probabilities, and anew in every step; gaussian
    sees grey values, with one sigma for all pixels, learned if it is not given. posterior: gaussian or uniform beside
    the prior N(0, I), student beside Student's t, both with `freedom` degrees, whose KL is estimated from the draw.
    The loss is reconstruction x distortion + beta x KL in nats an item; beta rises from 0 over the share `warm_up` of
    training (Sonderby et al. 2016; beta as in Higgins et al. 2017).
    """

    def __init__(
        self,
        shape: Shape,
        classes: int,
        *,
        hidden: tuple[Width, ...] = (500, 500),
        latent: Width = 40,
        likelihood: Literal["bernoulli", "gaussian"] = "bernoulli",
        sigma: Annotated[float, Gt(0)] | None = None,
        posterior: Posterior = "gaussian",
        freedom: Annotated[float, Gt(2)] = 5.0,
        beta: NonNegative = 1.0,
        reconstruction: NonNegative = 1.0,
        warm_up: Rate = 0.0,
        activation: Activation = "relu",
        init: Init = "he",
        optimizer: Optimizer = Optimizer(),
    ) -> None:
        super().__init__()
        self.check(likelihood=likelihood, sigma=sigma)
        self.shape, self.latent, self.optimizer = tuple(shape), latent, optimizer
        self.binary = likelihood == "bernoulli"
        self.beta, self.reconstruction, self.warm_up, self.weight = beta, reconstruction, warm_up, beta
        self.standard, self.prior = standards(posterior, freedom)
        pixels = math.prod(shape)
        self.encoder = dense((pixels, *hidden, 2 * latent), activation)
        self.decoder = dense((latent, *hidden[::-1], pixels), activation)
        if not self.binary:
            log_sigma = torch.tensor(math.log(sigma or START))
            self.log_sigma = nn.Parameter(log_sigma) if sigma is None else nn.Buffer(log_sigma)
        initialise(self, init)

    @staticmethod
    def check(likelihood: str = "bernoulli", sigma: float | None = None, **_) -> None:
        if sigma is not None and likelihood == "bernoulli":
            raise ValueError(
                f"sigma is {sigma:g}; a Bernoulli decoder has none: give likelihood: gaussian, or no sigma"
            )

    def encode(self, x: Tensor) -> Code:
        """The posteriors of items (n, *shape): locations and scales (n, latent)."""
        location, log_scale = self.encoder(x.flatten(1)).to(x.dtype).chunk(2, 1)  # from bf16, where that multiplies
        return Code(self.standard, self.prior, location, log_scale)

    def decode(self, z: Tensor) -> Tensor:
        """The mean of every pixel, (n, latent) -> (n, *shape) in [0, 1]."""
        return self.decoder(z).to(z.dtype).sigmoid().view(-1, *self.shape)

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x given z) in nats, (...), of items (n, *shape) and codes (..., n, latent)."""
        logits, x = self.decoder(z).to(z.dtype), x.flatten(1)
        if self.binary:
            return bernoulli_log_likelihood(x, logits)
        return gaussian_log_likelihood(x, logits.sigmoid(), self.log_sigma)

    def observed(self, x: Tensor, generator: Generator | None = None) -> Tensor:
        """What the likelihood is of: grey values, or a draw of 0 and 1."""
        return bits(x, generator) if self.binary else x

    def parts(self, x: Tensor, generator: Generator | None = None) -> dict[str, Tensor]:
        """distortion -log p(x given z) of one draw and kl, in nats, (n,)."""
        seen = self.observed(x, generator)
        code = self.encode(seen)
        z, log_q = code.draw(generator)
        return {"distortion": -self.log_likelihood(seen, z), "kl": code.kl(z, log_q)}

    def reconstruct(self, x: Tensor) -> Tensor:
        """Through the location of the posterior: (n, *shape) -> (n, *shape) in [0, 1].

        A Bernoulli encoder is given grey values here, the means of what it saw in training.
        """
        return self.decode(self.encode(x).location)

    def sample(self, n: int) -> Tensor:
        """The means of pixels under n codes of the prior, (n, *shape) in [0, 1]."""
        return self.decode(self.prior.draw(next(self.parameters()).new_empty(n, self.latent)))

    def optimizers(self) -> list[TorchOptimizer]:
        return [self.optimizer(self.parameters())]

    def before_step(self, progress: float) -> None:
        self.weight = self.beta * (min(1.0, progress / self.warm_up) if self.warm_up else 1.0)

    def losses(self, x: Tensor, y: Tensor) -> Iterator[dict[str, Tensor]]:
        """Labels are not looked at."""
        parts = {name: values.mean() for name, values in self.parts(x).items()}
        yield {"loss": self.reconstruction * parts["distortion"] + self.weight * parts["kl"], **parts}

    def figures(self, x: Tensor) -> dict[str, Tensor]:
        """nelbo, the negative evidence lower bound, and its parts: kl + distortion, whatever was minimised; nats, (n,).

        Of one draw of the code and, for a Bernoulli decoder, one of the pixels, both from a fixed seed.
        """
        parts = self.parts(x, fixed(x.device))
        nelbo = parts["kl"] + parts["distortion"]
        return {"loss": nelbo, "nelbo": nelbo, **parts}
