"""Weight sharing by k-means (Han et al. 2016, section 3): a tensor's weights take a few values, named once.

The values are float16, as the file holds them, so that what is judged is what is stored, bit for bit.
"""

from collections.abc import Mapping

import numpy as np

from atelier.errors import AtelierError, nearest

STEPS = 1000  # many times what it takes to come to rest, from which rounding could keep it for ever


def share(weights: np.ndarray, count: int) -> np.ndarray:
    """Weights of the same shape, float32, that take at most `count` values besides 0; zeros stay zeros.

    Lloyd's algorithm from centres at equal distances between the least and the greatest weight: of the starts that the
    paper compares it is the one that leaves large weights, which matter most, a centre of their own. Weights that take
    few enough values already are only rounded. A weight whose value rounds to 0 becomes 0.

    Raises AtelierError if a weight is not finite or beyond float16.
    """
    if count < 1:
        raise AtelierError(f"{count} values are asked for; weights share at least 1")
    kept = weights != 0
    values, places = np.unique(rounded(weights[kept]), return_inverse=True)
    if len(values) > count:
        ordered = np.sort(weights[kept].astype(np.float64))
        centres = lloyd(ordered, np.linspace(ordered[0], ordered[-1], count))
        values, places = rounded(centres), closest(centres, weights[kept])
    shared = np.zeros(weights.shape, np.float32)
    shared[kept] = values[places]
    return shared


def share_all(tensors: Mapping[str, np.ndarray], counts: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Each tensor by `share` with its own count; other float32 tensors are rounded to float16, the rest is untouched.

    Raises AtelierError if a count is for no tensor.
    """
    for name in sorted(counts.keys() - tensors.keys()):
        raise AtelierError(f"there is no tensor {name} to share; {nearest(name, tensors)}")
    others = {name: rounded(tensor) for name, tensor in tensors.items() if tensor.dtype == np.float32}
    return {**tensors, **others, **{name: share(tensors[name], count) for name, count in counts.items()}}


def rounded(values: np.ndarray) -> np.ndarray:
    """The nearest values that float16 has, as float32, with one zero: the file would keep a negative one apart.

    Raises AtelierError if one is not finite or beyond float16.
    """
    with np.errstate(over="ignore"):
        halves = values.astype(np.float16)
    if not np.isfinite(halves).all():
        worst = values[~np.isfinite(halves)][0]
        raise AtelierError(f"a weight is {worst:g}; shared weights are float16, at most 65504: train with a lower rate")
    return halves.astype(np.float32) + np.float32(0)


def lloyd(ordered: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Where k-means of rising values (n,) comes to rest from rising centres (k,); centres left with none are dropped.

    On a line a cluster is a run of the sorted values, its mean a difference of cumulative sums: a step costs
    O(k log n), whatever n.
    """
    total = np.append(0.0, np.cumsum(ordered))
    edges = np.zeros(len(centres) + 1, np.int64)
    for _ in range(STEPS):
        before = edges
        middles = (centres[1:] + centres[:-1]) / 2
        edges = np.array([0, *np.searchsorted(ordered, middles, side="right"), len(ordered)])
        sizes = np.diff(edges)
        if np.array_equal(edges, before):
            break
        # A centre without values waits where it is: its neighbours may leave it some.
        centres = np.where(sizes, np.diff(total[edges]) / np.maximum(sizes, 1), centres)
    return centres[sizes > 0]


def closest(centres: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The index of the nearest of rising centres; the lower of two as near."""
    return np.searchsorted((centres[1:] + centres[:-1]) / 2, values, side="left")
