"""Corruptions of pixels whose numbers depend on a key and the item alone, never on batches, order or machine.

Philox (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") turns a counter into random bits, so an
item's numbers are found at its own counter. Sixteen bits make one uniform number u, one of (0.5, 1.5, ... 65535.5)
/ 65536. Every corruption is then x + shift(u), clipped to [0, 1], and shift is looked up in a table of all 65,536
values: the same bytes on every machine, and 5 times faster than evaluating the inverse normal (60,000 x 784: 0.2 s).
The price: normal noise stops at 4.3 standard deviations and its variance is 2e-5 short; shares are met within 1e-5.
"""

import functools
import hashlib
from collections.abc import Sequence

import numpy as np

from atelier.errors import AtelierError, nearest

KINDS = ("gaussian", "masking", "salt-and-pepper")
TRAIN, TEST, FRESH = range(3)
_VALUES = 2**16
_PER_COUNTER = 16  # Philox makes four 64-bit words at a time
_CHUNK = 2**18  # numbers held at once: they stay in a core's cache


def field(seed: int, use: int, kind: str, epoch: int = 0) -> tuple[int, int, int, int]:
    """The key of a field of numbers; `use` is TRAIN, TEST or FRESH.

    All levels of a kind share it: masks of two levels are nested and Gaussian noise differs by a factor.
    """
    return seed, use, KINDS.index(_known(kind)), epoch


def uniform(key: Sequence[int], first: int, count: int, size: int) -> np.ndarray:
    """`size` uniform numbers for each of the items first, first + 1, ...: float64 (count, size), in (0, 1)."""
    return (_bits(key, first, count, size) + 0.5) / _VALUES


def corrupt(x: np.ndarray, kind: str, level: float, *, key: Sequence[int], first: int = 0) -> np.ndarray:
    """Corrupt items (n, *shape) of float32 in [0, 1]; x[0] is item number `first`. Gives float32 of the same shape.

    gaussian: x + level * N(0, 1), clipped to [0, 1]; masking: 0 with probability `level`;
    salt-and-pepper: 0 or 1, with probability level / 2 each.
    """
    shift = _shift(kind, float(level))
    x = np.ascontiguousarray(x, np.float32)
    out = np.empty_like(x)
    size = int(np.prod(x.shape[1:]))
    source, target = x.reshape(len(x), size), out.reshape(len(x), size)
    step = max(1, _CHUNK // max(1, size))
    for start in range(0, len(x), step):
        rows = slice(start, min(start + step, len(x)))
        bits = _bits(key, first + start, rows.stop - start, size)
        noisy = np.add(source[rows], np.take(shift, bits, mode="clip"), out=target[rows])  # clip is take's quick mode
        np.clip(noisy, 0, 1, out=noisy)
    return out


def draw(x: np.ndarray, kind: str, level: float, *, seed: int, epoch: int, first: int = 0) -> np.ndarray:
    """Fresh training noise, keyed (seed, epoch, item): `corrupt` with numbers that no stored file has."""
    return corrupt(x, kind, level, key=field(seed, FRESH, kind, epoch), first=first)


def _bits(key: Sequence[int], first: int, count: int, size: int) -> np.ndarray:
    """uint16 (count, size). Every item starts on a counter of its own."""
    text = ",".join(str(int(part)) for part in key)
    philox_key = int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")
    counters = -(-size // _PER_COUNTER)
    words = np.random.Philox(key=philox_key, counter=first * counters).random_raw(count * counters * 4)
    return words.astype("<u8", copy=False).view("<u2").reshape(count, counters * _PER_COUNTER)[:, :size]


@functools.lru_cache(maxsize=16)
def _shift(kind: str, level: float) -> np.ndarray:
    """shift(u) for all values of u, float32 (65536,). A shift of -1 sets any pixel in [0, 1] to 0, one of 1 to 1."""
    from scipy.special import ndtri

    u = (np.arange(_VALUES) + 0.5) / _VALUES
    shifts = {
        "gaussian": level * ndtri(u),
        "masking": np.where(u < level, -1, 0),
        "salt-and-pepper": np.where(u > 1 - level / 2, 1, np.where(u < level / 2, -1, 0)),
    }
    return shifts[_known(kind)].astype(np.float32)


def _known(kind: str) -> str:
    if kind not in KINDS:
        raise AtelierError(f"{kind} is no kind of noise; {nearest(kind, KINDS)}")
    return kind
