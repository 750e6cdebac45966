"""Random bits, and what independent pixels are drawn with: for the families that hold items to be drawn."""

import torch
from torch import Generator, Tensor


def bits(probabilities: Tensor, generator: Generator | None = None) -> Tensor:
    """Zeros and ones of the same shape and type, each 1 with its own probability.

    Of items in [0, 1] they are pixels that are 1 with the probability that is their grey value (Salakhutdinov and
    Murray 2008).
    """
    drawn = torch.empty_like(probabilities).uniform_(generator=generator)
    return (drawn < probabilities).to(probabilities.dtype)


def fixed(device: torch.device, seed: int = 0) -> Generator:
    """A generator of its own, so that figures depend on the items alone and training's numbers are left as they are."""
    return Generator(device).manual_seed(seed)


def base_rates(x: Tensor) -> Tensor:
    """Items (n, ...) in [0, 1] -> log odds (pixels,) of each pixel's mean, half an item of each kind added."""
    return ((x.flatten(1).sum(0, dtype=torch.float64) + 0.5) / (len(x) + 1)).logit().to(x.dtype)
