"""Tensor trains: a matrix whose rows and columns have several digits, as a product of small cores.

W[(i_1 ... i_d), (j_1 ... j_d)] = G_1[i_1, j_1] ... G_d[i_d, j_d], each G_k[i, j] a matrix (r_(k-1), r_k), r_0 = r_d = 1
(Oseledets 2011, Algorithm 1; Novikov et al. 2015). A core is a tensor (r_(k-1), rows_k, columns_k, r_k).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from atelier.errors import AtelierError

Cores = Sequence[Tensor]
Digits = tuple[int, ...]


def decompose(weight: Tensor, rows: Digits, columns: Digits, rank: int) -> list[Tensor]:
    """(prod rows, prod columns) -> cores, no rank above `rank`; exact where no matrix that is cut on the way has more.

    Raises AtelierError if the digits do not make up the matrix.
    """
    if len(rows) != len(columns) or (math.prod(rows), math.prod(columns)) != tuple(weight.shape):
        raise AtelierError(
            f"rows {list(rows)} and columns {list(columns)} do not make up a matrix {tuple(weight.shape)}; give as "
            "many of both, whose products are its sides"
        )
    if rank < 1:
        raise AtelierError(f"rank is {rank}; give 1 or more")
    pairs = [axis for k in range(len(rows)) for axis in (k, len(rows) + k)]
    left = weight.detach().double().reshape(*rows, *columns).permute(pairs)
    cores, before = [], 1
    for m, n in zip(rows[:-1], columns[:-1], strict=True):
        u, s, v = torch.linalg.svd(left.reshape(before * m * n, -1), full_matrices=False)
        kept = min(rank, len(s))
        cores.append(u[:, :kept].reshape(before, m, n, kept))
        left, before = s[:kept, None] * v[:kept], kept
    cores.append(left.reshape(before, rows[-1], columns[-1], 1))
    return [core.to(weight.dtype).contiguous() for core in cores]


def matrix(cores: Cores) -> Tensor:
    """The matrix (prod rows, prod columns) that the cores stand for."""
    whole = cores[0].new_ones(1, 1, 1)
    for core in cores:
        (before, m, n, after), (rows, columns, _) = core.shape, whole.shape
        parts = whole.reshape(-1, before) @ core.reshape(before, -1)
        parts = parts.reshape(rows, columns, m, n, after).transpose(1, 2)
        whole = parts.reshape(rows * m, columns * n, after)
    return whole.squeeze(2)


def product(cores: Cores, x: Tensor) -> Tensor:
    """x (items, prod columns) times the transposed matrix, core by core: (items, prod rows)."""
    items = x.shape[0]  # not len(x), which a graph that is traced would hold fast
    h = x.reshape(items, 1, -1)  # items by rows done; the rank; columns to do
    for core in cores:
        before, m, n, after = core.shape
        h = h.reshape(h.shape[0], before * n, -1).transpose(1, 2)
        h = h @ core.transpose(1, 2).reshape(before * n, m * after)  # (items and rows done, columns to do, m * after)
        h = h.reshape(*h.shape[:2], m, after).permute(0, 2, 3, 1).reshape(h.shape[0] * m, after, -1)
    return h.reshape(items, -1)


def count(cores: Cores) -> int:
    """How many numbers the cores hold."""
    return sum(core.numel() for core in cores)


def relative_error(cores: Cores, weight: Tensor) -> float:
    """Norm of the difference by the norm of the matrix, counted in float64."""
    exact = weight.detach().double()
    return float((matrix([core.detach().double() for core in cores]) - exact).norm() / exact.norm())


class Dense(nn.Module):
    """A dense layer whose matrix is a tensor train; what trains are the cores and the bias."""

    def __init__(self, cores: Cores, bias: Tensor) -> None:
        super().__init__()
        self.cores = nn.ParameterList(cores)
        self.bias = nn.Parameter(bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """(items, inputs) -> (items, outputs)."""
        return product(list(self.cores), x) + self.bias
