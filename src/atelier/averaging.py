"""A running mean of a model's weights, which is judged and kept in their place.

Polynomial-decay averaging (Shamir and Zhang 2013, section 4; as a power function of time, Karras et al. 2024, section
3.1): of t steps, the i-th counts about as i to the power k. With k = 1 / share - 2 the weights in the mean are
share * (t - 1) steps old on average. So one number says the same of five epochs and of sixty, of small batches and of
large; the start is forgotten, and the mean after any epoch can be judged. At share 0.1 the t-th step moves the mean by
9 / (t + 8), which but for two steps is the usual warm-up of an exponential mean, 9 / (t + 10). A fixed decay counts in
steps, and where training is short it holds on to the start. A mean over the last epochs (SWA, Izmailov et al. 2018)
wants a rate that stays high until the end and gives no net before; here the rate may fall to zero.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

Weights = dict[str, Tensor]


def pace(share: float, step: int) -> float:
    """How far the `step`-th step (1, 2, ...) moves the mean towards the weights: all the way at first, then less."""
    return 1.0 / (1.0 + (step - 1) * share / (1.0 - share))


@torch.no_grad()
def include(mean: Weights | None, model: nn.Module, share: float, step: int) -> Weights:
    """The mean after the `step`-th step, changed in place; None before the first.

    Buffers of real numbers are averaged too: a batch norm's statistics belong to the weights beside them, so the mean
    net's are their mean, to first order. Counts and flags are the latest. What after_step holds in a convex set stays.
    """
    weights = model.state_dict()
    if mean is None:
        return {name: tensor.clone() for name, tensor in weights.items()}
    for name, tensor in weights.items():
        if tensor.is_floating_point():
            mean[name].lerp_(tensor, pace(share, step))
        else:
            mean[name].copy_(tensor)
    return mean


@contextmanager
def averaged(model: nn.Module, mean: Weights | None) -> Iterator[None]:
    """Within, the model has the mean weights, if there are any; afterwards its own again, to the bit."""
    if mean is None:
        yield
        return
    own = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.load_state_dict(mean)
    try:
        yield
    finally:
        model.load_state_dict(own)
