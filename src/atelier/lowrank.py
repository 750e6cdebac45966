"""Dense layers of low rank: W (outputs, inputs) ~ U V by truncated singular value decomposition.

No matrix of that rank is nearer to W in the sum of squares (Eckart and Young 1936). Two thin products take
rank * (inputs + outputs) multiply-adds instead of inputs * outputs.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from atelier import families
from atelier.errors import AtelierError
from atelier.layers import Shape


def rank_for(singular_values: Sequence[float] | Tensor, energy: float) -> int:
    """How many of the falling singular values hold at least this share of their summed squares; 1 or more.

    Raises AtelierError if the share is not in (0, 1].
    """
    if not 0 < energy <= 1:
        raise AtelierError(f"energy is {energy}; give a share above 0 and up to 1")
    squares = torch.as_tensor(singular_values, dtype=torch.float64).square()
    held = squares.cumsum(0)
    return int((held < energy * held[-1]).sum()) + 1


def factorise(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """(outputs, inputs) -> U (outputs, rank), V (rank, inputs). The rows of V are orthonormal, so the norms of a row of
    U and of the same row of U V are one: what prunes nodes by their weights sees U.

    Raises AtelierError if the rank is not within 1 and the shorter side.
    """
    if not 1 <= rank <= min(weight.shape):
        raise AtelierError(f"rank is {rank} for a matrix {tuple(weight.shape)}; give 1 to {min(weight.shape)}")
    u, s, v = torch.linalg.svd(weight.detach().double(), full_matrices=False)
    return (u[:, :rank] * s[:rank]).to(weight.dtype), v[:rank].to(weight.dtype).contiguous()


def ranks_for(model: nn.Module, energy: float) -> tuple[int, ...]:
    """For each hidden layer of an mlp the rank that keeps the energy; 0 where two products would be no smaller."""
    found = []
    for layer in model.layers:
        outputs, inputs = layer.weight.shape
        rank = rank_for(torch.linalg.svdvals(layer.weight.detach().double()), energy)
        found.append(rank if rank * (inputs + outputs) < inputs * outputs else 0)
    return tuple(found)


def factorised(
    model: nn.Module, shape: Shape, classes: int, settings: Mapping[str, Any], ranks: Sequence[int]
) -> tuple[nn.Module, dict[str, Any]]:
    """An mlp with each hidden layer of a rank that is not 0 in two, and its settings.

    Raises AtelierError if it has such layers already, or if a rank is not one of its matrix.
    """
    if any(model.ranks):
        raise AtelierError(f"the net has ranks {list(model.ranks)} already; factorise the net that it is from")
    state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    for i, rank in enumerate(ranks):
        if rank:
            bias = state.pop(f"layers.{i}.bias")
            u, v = factorise(state.pop(f"layers.{i}.weight"), rank)
            state |= {f"layers.{i}.0.weight": v, f"layers.{i}.1.weight": u, f"layers.{i}.1.bias": bias}
    changed = {**settings, "ranks": tuple(ranks)}
    with torch.random.fork_rng(devices=[]):
        thin = families.load("mlp")(shape, classes, **changed).to(next(model.parameters()))
    thin.load_state_dict(state)
    return thin.train(model.training), changed
