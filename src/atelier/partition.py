"""log Z of a restricted Boltzmann machine, in nats: exactly if it is small, else by annealed importance sampling.

A path of distributions leads from independent pixels, p_0(v) ~ exp(v.base), to the machine, by evenly spaced inverse
temperatures b: p_b(v) ~ exp((1 - b) v.base + b v.a) prod_j (1 + exp(b (c + W v)_j)), so Z_0 = 2^hidden prod_i
(1 + exp(base_i)) (Salakhutdinov and Murray 2008). A chain walks it in Gibbs steps and gathers log weights. Forward,
from p_0 on, its Z is right in the mean and log Z mostly too small, which flatters the model. In reverse, from a sample
of the machine, 1 / Z is right in the mean and log Z mostly too large (Burda, Grosse and Salakhutdinov 2015).
"""

import math
from itertools import pairwise

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from atelier.contrastive import Machine
from atelier.draws import bits

LARGEST, CHUNK = 20, 2**12  # hidden units that are summed over at most; states at once


def exact(machine: Machine) -> float:
    """log Z by summing over all states of the hidden units; ValueError if there are more than 20 of them."""
    return float(_of_states(machine).logsumexp(0))


def draw(machine: Machine, count: int, generator: Generator) -> Tensor:
    """Independent samples of v, bits (count, visible), by way of the table of all hidden states."""
    chosen = torch.multinomial(_of_states(machine).softmax(0), count, replacement=True, generator=generator)
    return bits(machine.visible_logits(_states(chosen, len(machine.hidden)).to(machine.weight)).sigmoid(), generator)


@torch.no_grad()
def forward(machine: Machine, base: Tensor, temperatures: int, chains: int, generator: Generator) -> Tensor:
    """Estimates of log Z by so many chains, (chains,) in float64; `pooled` makes them one.

    base: (visible,), log odds of the pixels where the path begins; temperatures: how many steps it has.
    """
    v = bits(base.sigmoid().expand(chains, -1), generator)
    found = torch.full((chains,), _log_z_of_base(machine, base), dtype=torch.float64)
    logits = machine.hidden_logits(v)
    for low, high in pairwise(_path(temperatures)):
        found += _rise(machine, base, v, logits, low, high)
        v, logits = _step(machine, base, logits, high, generator)
    return found


@torch.no_grad()
def reverse(machine: Machine, base: Tensor, temperatures: int, start: Tensor, generator: Generator) -> Tensor:
    """Estimates of log Z by chains that go back from `start`, bits (n, visible); (n,) in float64.

    From samples of the machine, -pooled(-estimates) is mostly too large. From any item v, -F(v) less its estimate is in
    the mean below the log-probability that the forward chain ends in v: a guarded likelihood that needs no samples.
    """
    v, logits = start, machine.hidden_logits(start)
    found = torch.full((len(v),), _log_z_of_base(machine, base), dtype=torch.float64)
    for high, low in pairwise(reversed(_path(temperatures))):
        v, logits = _step(machine, base, logits, high, generator)
        found += _rise(machine, base, v, logits, low, high)
    return found


def pooled(estimates: Tensor) -> float:
    """The log of the mean of what these are logs of."""
    return float(estimates.logsumexp(0)) - math.log(len(estimates))


def _path(temperatures: int) -> list[float]:
    return [step / temperatures for step in range(temperatures + 1)]


def _log_z_of_base(machine: Machine, base: Tensor) -> float:
    return len(machine.hidden) * math.log(2) + float(F.softplus(base.double()).sum())


def _rise(machine: Machine, base: Tensor, v: Tensor, logits: Tensor, low: float, high: float) -> Tensor:
    """How much more likely v is at `high` than at `low`, both unnormalised: a difference of logs, (n,)."""
    hidden = (F.softplus(high * logits) - F.softplus(low * logits)).sum(1, dtype=torch.float64)
    return (high - low) * (v @ (machine.visible - base)).double() + hidden


def _step(machine: Machine, base: Tensor, logits: Tensor, b: float, generator: Generator) -> tuple[Tensor, Tensor]:
    """A Gibbs step that leaves p_b as it is, from the logits of h: the next v, and its logits."""
    h = bits((b * logits).sigmoid(), generator)
    v = bits(torch.lerp(base.expand(len(h), -1), machine.visible_logits(h), b).sigmoid(), generator)
    return v, machine.hidden_logits(v)


def _of_states(machine: Machine) -> Tensor:
    """The log of each hidden state's unnormalised probability, visible bits summed out, (2^hidden,) in float64."""
    count = len(machine.hidden)
    if count > LARGEST:
        raise ValueError(f"{count} hidden units have too many states to sum over; give {LARGEST} at most")
    machine = machine.detached()
    exact = Machine(machine.weight.double(), machine.visible.double(), machine.hidden.double())
    parts = []
    for chosen in torch.arange(2**count).split(CHUNK):
        h = _states(chosen, count).double()
        parts.append(h @ exact.hidden + F.softplus(exact.visible_logits(h)).sum(1))
    return torch.cat(parts)


def _states(numbers: Tensor, count: int) -> Tensor:
    """The binary digits of whole numbers, (n, count)."""
    return (numbers[:, None] >> torch.arange(count)) & 1
