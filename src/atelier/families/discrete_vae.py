"""Autoencoder with discrete codes, dense: vector quantisation (van den Oord et al. 2017) or Gumbel-softmax (Jang et al.
2017; Maddison et al. 2017).
"""

import math
from collections.abc import Iterator
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt
from torch import Generator, Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer as TorchOptimizer

from atelier.draws import bits, fixed
from atelier.latent import bernoulli_log_likelihood, dense, gumbel, straight_through
from atelier.layers import Activation, Init, NonNegative, Rate, Shape, Width, initialise
from atelier.optim import Optimizer


class Model(nn.Module):
    """An item has a code at each of `positions`, one of `codes` vectors of `width` numbers that this position knows.

    Pixels are Bernoulli, binarised anew in every step. quantiser vector: the vector nearest to what the encoder says,
    and the gradient at it is passed straight on; commitment x their squared distance is added to the loss. Vectors are
    running means, of decay `decay`, of what they stand for; one that has stood for less than the share `revive` of
    what it would if all were used alike is moved to where an item of the batch is.

    quantiser gumbel: the encoder says a probability for each code, drawn with Gumbel noise; in training the draw is a
    softmax whose temperature goes from the first of `temperatures` to the second, geometrically, over 3/4 of training.
    The loss is distortion + beta x KL from even probabilities, and vectors are learned from its gradient.
    """

    def __init__(
        self,
        shape: Shape,
        classes: int,
        *,
        hidden: tuple[Width, ...] = (256, 256),
        positions: Width = 8,
        codes: Annotated[int, Ge(2)] = 256,
        width: Width = 16,
        quantiser: Literal["gumbel", "vector"] = "vector",
        commitment: NonNegative = 1.0,
        decay: Rate = 0.99,
        revive: Rate = 0.05,
        temperatures: tuple[Annotated[float, Gt(0)], Annotated[float, Gt(0)]] = (1.0, 0.5),
        beta: NonNegative = 1.0,
        activation: Activation = "relu",
        init: Init = "he",
        optimizer: Optimizer = Optimizer(),
    ) -> None:
        super().__init__()
        self.shape, self.positions, self.codes, self.optimizer = tuple(shape), positions, codes, optimizer
        self.vector = quantiser == "vector"
        # Where the gradient of the loss is an estimate on purpose: what it does to training is measured elsewhere.
        self.estimated = ("encoder",) if self.vector else ()
        self.commitment, self.decay, self.revive, self.beta = commitment, decay, revive, beta
        self.temperatures, self.temperature = temperatures, temperatures[0]
        pixels, said = math.prod(shape), positions * (width if self.vector else codes)
        self.encoder = dense((pixels, *hidden, said), activation)
        self.decoder = dense((positions * width, *hidden[::-1], pixels), activation)
        book = torch.randn(positions, codes, width)
        if self.vector:
            self.book = nn.Buffer(book)
            self.counts = nn.Buffer(torch.zeros(positions, codes))
            self.sums = nn.Buffer(torch.zeros_like(book))
        else:
            self.book = nn.Parameter(book)
        self._batch: tuple[Tensor, Tensor, Tensor] | None = None
        initialise(self, init)

    def said(self, x: Tensor) -> Tensor:
        """What the encoder says of items: vectors (n, positions, width), or logits (n, positions, codes)."""
        return self.encoder(x.flatten(1)).to(x.dtype).unflatten(1, (self.positions, -1))

    def chosen(self, said: Tensor, generator: Generator | None = None) -> Tensor:
        """The code at each position, (n, positions): the nearest; or the likeliest, drawn if there is a generator."""
        if self.vector:
            return torch.cdist(said.transpose(0, 1), self.book).argmin(2).T
        return (said if generator is None else said + gumbel(said, generator)).argmax(2)

    def looked_up(self, chosen: Tensor) -> Tensor:
        """The vectors of codes (n, positions): (n, positions, width)."""
        return self.book[torch.arange(self.positions, device=chosen.device), chosen]

    def log_likelihood(self, x: Tensor, vectors: Tensor) -> Tensor:
        """log p(x given codes) in nats, (n,), of items of 0 and 1, (n, *shape), and vectors (n, positions, width)."""
        return bernoulli_log_likelihood(x.flatten(1), self.decoder(vectors.flatten(1)).to(x.dtype))

    def decode(self, chosen: Tensor) -> Tensor:
        """The mean of every pixel, (n, positions) -> (n, *shape) in [0, 1]."""
        vectors = self.looked_up(chosen).flatten(1)
        return self.decoder(vectors).to(vectors.dtype).sigmoid().view(-1, *self.shape)

    def kl(self, said: Tensor) -> Tensor:
        """From even probabilities, in nats, (n,), summed over positions; a code that is sure costs log(codes)."""
        if self.vector:
            return said.new_full((len(said),), self.positions * math.log(self.codes))
        q = said.log_softmax(2)
        return (q.exp() * (q + math.log(self.codes))).sum((1, 2))

    def reconstruct(self, x: Tensor) -> Tensor:
        """Through the nearest or likeliest codes of grey values: (n, *shape) -> (n, *shape) in [0, 1]."""
        return self.decode(self.chosen(self.said(x)))

    def sample(self, n: int) -> Tensor:
        """The means of pixels under n codes of even probabilities, (n, *shape) in [0, 1]."""
        return self.decode(torch.randint(self.codes, (n, self.positions), device=self.book.device))

    def optimizers(self) -> list[TorchOptimizer]:
        return [self.optimizer(self.parameters())]

    def before_step(self, progress: float) -> None:
        first, last = self.temperatures
        self.temperature = first * (last / first) ** min(1.0, progress / 0.75)

    def losses(self, x: Tensor, y: Tensor) -> Iterator[dict[str, Tensor]]:
        """Labels are not looked at."""
        x = bits(x)
        said = self.said(x)
        if self.vector:
            chosen = self.chosen(said.detach())
            vectors = self.looked_up(chosen)
            distortion = -self.log_likelihood(x, straight_through(vectors, said)).mean()
            commitment = (said - vectors).square().sum((1, 2)).mean()
            self._remember(said.detach(), chosen)
            yield {"loss": distortion + self.commitment * commitment, "distortion": distortion}
        else:
            soft = ((said + gumbel(said)) / self.temperature).softmax(2)
            vectors = torch.einsum("npc,pcw->npw", soft, self.book)
            distortion, kl = -self.log_likelihood(x, vectors).mean(), self.kl(said).mean()
            yield {"loss": distortion + self.beta * kl, "distortion": distortion, "kl": kl}

    def after_step(self) -> None:
        """Move vectors to the running means of what they stood for, and those that nobody needs to where items are."""
        if self._batch is None:
            return
        counts, sums, said = self._batch
        self._batch = None
        self.counts.lerp_(counts, 1.0 - self.decay)
        self.sums.lerp_(sums, 1.0 - self.decay)
        share = len(said) / self.codes
        used = self.counts > 1e-6 * share
        self.book.copy_(torch.where(used[..., None], self.sums / self.counts.clamp(min=1e-12)[..., None], self.book))
        if self.revive:
            dead = self.counts < self.revive * share
            position, _ = dead.nonzero(as_tuple=True)
            self.book[dead] = said[torch.randint(len(said), position.shape, device=said.device), position]
            self.counts[dead] = share  # as if used like the others, so that it has time to be found
            self.sums[dead] = share * self.book[dead]

    def figures(self, x: Tensor) -> dict[str, Tensor]:
        """nelbo, the negative evidence lower bound, and its parts, kl + distortion; nats, (n,). Codes are the nearest,
        or drawn; draws and the pixels' binarisation are from a fixed seed.
        """
        generator = fixed(x.device)
        seen = bits(x, generator)
        said = self.said(seen)
        distortion = -self.log_likelihood(seen, self.looked_up(self.chosen(said, generator)))
        parts = {"distortion": distortion, "kl": self.kl(said)}
        nelbo = parts["kl"] + parts["distortion"]
        return {"loss": nelbo, "nelbo": nelbo, **parts}

    def _remember(self, said: Tensor, chosen: Tensor) -> None:
        """What every code stood for in this step, whose rows may come in pieces."""
        if not (self.vector and self.training):
            return
        onehot = F.one_hot(chosen, self.codes).to(said.dtype)
        counts, sums = onehot.sum(0), torch.einsum("npc,npw->pcw", onehot, said)
        if self._batch is not None:
            counts, sums, said = counts + self._batch[0], sums + self._batch[1], torch.cat([self._batch[2], said])
        self._batch = counts, sums, said
