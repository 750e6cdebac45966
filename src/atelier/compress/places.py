"""Where the values other than 0 of a matrix are: as gaps for Huffman codes, as a map of flags for the range coder."""

from collections.abc import Callable

import numpy as np

from atelier.compress.entropy import (
    Counter,
    HuffmanReader,
    HuffmanWriter,
    RangeReader,
    RangeWriter,
    Reader,
    Writer,
    put_number,
    put_symbols,
    take_number,
    take_symbols,
)

GAP_BITS = range(1, 13)  # widths of a gap that are tried
SWEEPS = 30  # after which expected counts are those of rows and columns to a few hundredths
RAREST = 2.0**-12  # no flag is likelier, nor less likely, than this allows


def put_places(writer: Writer | Counter, kept: np.ndarray) -> None:
    """kept: booleans (rows, columns), some of them true."""
    (put_map if writer.maps else put_gaps)(writer, kept)


def take_places(reader: Reader, shape: tuple[int, int]) -> np.ndarray:
    return (take_map if reader.maps else take_gaps)(reader, shape)


# ---- gaps


def put_gaps(writer: HuffmanWriter, kept: np.ndarray) -> None:
    """Zeros before each place, row by row (Han et al. 2016, section 2), with the bound that costs least."""
    width = min(GAP_BITS, key=lambda width: _cost(put_gaps_below, HuffmanWriter, kept, width))
    put_gaps_below(writer, kept, width)


def put_gaps_below(writer: HuffmanWriter | Counter, kept: np.ndarray, width: int) -> None:
    """Gaps of up to 2^width - 2; a longer one takes fillers, 2^width - 1, each for so many zeros and no place."""
    filler = 2**width - 1
    zeros = np.diff(np.flatnonzero(kept), prepend=-1) - 1
    fillers, rest = np.divmod(zeros, filler)
    gaps = np.full(len(zeros) + fillers.sum(), filler)
    gaps[np.arange(len(zeros)) + np.cumsum(fillers)] = rest
    writer.bits(np.array([width]), 4)
    put_number(writer, len(gaps))
    put_symbols(writer, gaps, filler + 1)


def take_gaps(reader: HuffmanReader, shape: tuple[int, int]) -> np.ndarray:
    filler = 2 ** int(reader.bits(1, 4)[0]) - 1
    gaps = take_symbols(reader, take_number(reader), filler + 1)
    ends = np.cumsum(np.where(gaps == filler, filler, gaps + 1))
    kept = np.zeros(shape, bool)
    kept.flat[ends[gaps != filler] - 1] = True
    return kept


# ---- a map


def _grids(limit: int) -> list[np.ndarray]:
    """Ways to sort counts of 0 to limit into classes, from the coarsest: where each class begins."""
    powers = 2 ** np.arange(limit.bit_length())
    return [
        np.array([0]),
        np.array([0, 1]),
        np.append(0, powers[::2]),
        np.append(0, powers),
        np.unique([0, *powers, *(3 * powers // 2)[3 * powers // 2 <= limit]]),
        np.arange(limit + 1),
    ]


GRIDS = len(_grids(1))


def put_map(writer: RangeWriter, kept: np.ndarray) -> None:
    """A flag for each cell, under densities of columns and rows in classes that cost least, one choice after the other.

    All rows in one class and all columns in one are one density for the whole matrix.
    """
    columns = min(range(GRIDS), key=lambda grid: _cost(put_map_under, RangeWriter, kept, (0, grid)))
    rows = min(range(GRIDS), key=lambda grid: _cost(put_map_under, RangeWriter, kept, (grid, columns)))
    put_map_under(writer, kept, (rows, columns))


def put_map_under(writer: RangeWriter | Counter, kept: np.ndarray, grids: tuple[int, int]) -> None:
    """How many there are; the class of each row's and column's count; a flag for each cell that may hold one."""
    put_number(writer, int(kept.sum()))
    sides = []
    for axis, grid in enumerate(grids):
        limit = kept.shape[1 - axis]
        starts = _grids(limit)[grid]
        classes = np.searchsorted(starts, kept.sum(1 - axis), side="right") - 1
        top = int(classes.max())
        writer.bits(np.array([grid]), 3)
        put_number(writer, top)
        put_symbols(writer, classes, top + 1)
        sides.append((classes, _middles(starts, limit)[: top + 1]))
    likely = _likely(int(kept.sum()), *sides)
    alive = likely > 0
    writer.flags(kept[alive], likely[alive])


def take_map(reader: RangeReader, shape: tuple[int, int]) -> np.ndarray:
    total = take_number(reader)
    sides = []
    for count, limit in (shape, shape[::-1]):
        starts = _grids(limit)[int(reader.bits(1, 3)[0])]
        top = take_number(reader)
        classes = take_symbols(reader, count, top + 1)
        sides.append((classes, _middles(starts, limit)[: top + 1]))
    likely = _likely(total, *sides)
    kept = likely > 0
    kept[kept] = reader.flags(likely[kept])
    return kept


def _middles(starts: np.ndarray, limit: int) -> np.ndarray:
    """The count that stands for each class."""
    return (starts + np.append(starts[1:] - 1, limit)) / 2


def _likely(total: int, rows: tuple[np.ndarray, np.ndarray], columns: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """How likely each cell is to hold one of `total` values, (rows, columns); 0 where a row or column has none.

    rows and columns: the class of each, and the count that stands for each class. Odds are a product of one number for
    the row and one for the column, which of all laws with the expected counts is the one of greatest entropy; where few
    cells are filled that is r_i c_j / total. The numbers are found class by class, in an order and by operations that
    give the same bits on every machine.
    """
    (row, r), (column, c) = rows, columns
    m, n = np.bincount(row, minlength=len(r)), np.bincount(column, minlength=len(c))
    r, c = r * (total / _sum(m * r)), c * (total / _sum(n * c))
    x, y = r / total, c
    for _ in range(SWEEPS):
        x = r / _sum(n * y / (1 + x[:, None] * y))
        y = c / _sum(m * x / (1 + y[:, None] * x))
    odds = x[:, None] * y
    likely = np.where(odds > 0, np.clip(odds / (1 + odds), RAREST, 1 - RAREST), 0)
    return likely[row[:, None], column]


def _sum(values: np.ndarray) -> np.ndarray:
    """Over the last axis, from left to right: np.sum takes an order that suits the processor."""
    return np.cumsum(values, axis=-1)[..., -1]


def _cost(put: Callable, kind: type[Writer], kept: np.ndarray, choice: int | tuple[int, int]) -> float:
    """Bits."""
    counter = Counter(kind)
    put(counter, kept, choice)
    return counter.total
