"""Whole numbers in few bits: canonical Huffman codes (Huffman 1952), as Deep Compression has them, and range coding
(Martin 1979) by the library constriction.

Both coders have one interface. A writer takes `bits` (numbers of a fixed width), `symbols` under a table, and, if it
codes `maps`, `flags` with a probability each; `finish` gives the bytes. A reader gives the same back in the same order.
A table holds a small whole number for each symbol of the alphabet, which goes into the file and from which both sides
make the code: the length of its codeword for Huffman's, its frequency for the range coder.
"""

import heapq

import numpy as np
from constriction import stream

WINDOW = 57  # bits that are sure to lie in 8 bytes from any bit of the first; no codeword is near as long
CHUNK = 16  # bits that the range coder takes at once
WIDEST = 16  # bits of a frequency: the coder's own precision is 24


# ---- Huffman


def lengths(counts: np.ndarray) -> np.ndarray:
    """Bits of the codeword of each symbol, by how often each occurs; 0 for one that never does.

    Codewords of these lengths are the shortest on average that no other begins. A symbol that is alone takes one bit.
    """
    present = np.flatnonzero(counts)
    found = np.zeros(len(counts), np.int64)
    heap = [(int(counts[symbol]), place) for place, symbol in enumerate(present)]
    heapq.heapify(heap)
    parents = [0] * max(2 * len(present) - 1, 0)
    for new in range(len(present), len(parents)):
        (a, left), (b, right) = heapq.heappop(heap), heapq.heappop(heap)
        parents[left] = parents[right] = new
        heapq.heappush(heap, (a + b, new))
    depths = [0] * len(parents)
    for place in reversed(range(len(parents) - 1)):
        depths[place] = depths[parents[place]] + 1
    found[present] = np.maximum(depths[: len(present)], 1)
    return found


def canonical(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The symbols in the order of their codewords, by length and then by number, and where each codeword begins.

    A codeword stands at the head of a window: read as a number, a window belongs to the last codeword not above it.
    """
    present = np.flatnonzero(table)
    order = present[np.argsort(table[present], kind="stable")]
    reach = np.int64(1) << (WINDOW - table[order])
    return order, np.cumsum(reach) - reach


class HuffmanWriter:
    maps = False
    table = staticmethod(lengths)

    def __init__(self) -> None:
        self._parts: list[np.ndarray] = []  # of bits

    @staticmethod
    def cost(counts: np.ndarray, table: np.ndarray) -> float:
        """Bits of symbols that occur so often."""
        return float(counts @ table)

    def bits(self, values: np.ndarray, width: int) -> None:
        places = np.arange(width, dtype=np.uint64)[::-1]
        self._parts.append((values.astype(np.uint64)[:, None] >> places & 1).astype(np.uint8).ravel())

    def symbols(self, values: np.ndarray, table: np.ndarray) -> None:
        if len(table) == 1:  # there is nothing to say
            return
        order, starts = canonical(table)
        words = np.zeros(len(table), np.int64)
        words[order] = starts >> (WINDOW - table[order])
        widths = table[values]
        after = np.repeat(np.cumsum(widths), widths) - np.arange(widths.sum()) - 1  # bits that follow of the same word
        self._parts.append((np.repeat(words[values], widths) >> after & 1).astype(np.uint8))

    def finish(self) -> bytes:
        return np.packbits(np.concatenate(self._parts)).tobytes() if self._parts else b""


class HuffmanReader:
    maps = False

    def __init__(self, content: bytes) -> None:
        self._bits = np.unpackbits(np.frombuffer(content, np.uint8))
        self._place = 0

    def bits(self, count: int, width: int) -> np.ndarray:
        taken = self._bits[self._place : self._place + count * width].reshape(count, width)
        self._place += count * width
        weights = np.uint64(1) << np.arange(width, dtype=np.uint64)[::-1]
        return (taken * weights).sum(1, dtype=np.uint64)

    def symbols(self, count: int, table: np.ndarray) -> np.ndarray:
        if len(table) == 1:
            return np.zeros(count, np.int64)
        order, starts = canonical(table)
        # Which symbol would begin at each bit, all at once; then from one that does begin to the next.
        stop = self._place + count * int(table.max())
        ahead = np.searchsorted(starts, self._windows(self._place, stop), side="right") - 1
        steps, found, place = table[order][ahead].tolist(), [0] * count, 0
        for i in range(count):
            found[i] = place
            place += steps[place]
        self._place += place
        return order[ahead[found]]

    def _windows(self, start: int, stop: int) -> np.ndarray:
        """The WINDOW bits that follow each bit from start to stop, as a number; zeros after the end."""
        first = start // 8
        content = np.packbits(self._bits[first * 8 : stop])
        eights = np.lib.stride_tricks.sliding_window_view(np.append(content, np.zeros(8, np.uint8)), 8)
        numbers = np.ascontiguousarray(eights).view(">u8").astype(np.uint64)
        windows = (numbers << np.arange(8, dtype=np.uint64)) >> np.uint64(64 - WINDOW)
        return windows.ravel()[start - first * 8 :].astype(np.int64)


# ---- range coding


def frequencies(counts: np.ndarray) -> np.ndarray:
    """Counts on the scale that pays, few bits for the table against few for the symbols; one that occurs keeps 1."""
    tables = (
        np.where(counts, np.maximum(np.rint(counts * ((2**width - 1) / counts.max())), 1), 0).astype(np.int64)
        for width in range(1, WIDEST + 1)
    )
    return min(tables, key=lambda table: RangeWriter.cost(counts, table) + len(table) * int(table.max()).bit_length())


def _law(table: np.ndarray) -> stream.model.Categorical:
    """Intervals, which the library makes by sums, products and a division; machines with IEEE floats agree on them."""
    return stream.model.Categorical(table.astype(np.float64), lazy=False, perfect=False)


def _chunks(width: int) -> list[int]:
    """The widths of the parts, high bits first, in which a number of this many bits is coded."""
    return [min(CHUNK, width - done) for done in range(0, width, CHUNK)]


class RangeWriter:
    maps = True
    table = staticmethod(frequencies)

    def __init__(self) -> None:
        self._coder = stream.queue.RangeEncoder()

    @staticmethod
    def cost(counts: np.ndarray, table: np.ndarray) -> float:
        """Bits of symbols that occur so often."""
        present = counts > 0
        return float(counts[present] @ np.log2(table.sum() / table[present]))

    def bits(self, values: np.ndarray, width: int) -> None:
        rest = width
        for chunk in _chunks(width):
            rest -= chunk
            part = values.astype(np.uint64) >> np.uint64(rest) & np.uint64(2**chunk - 1)
            self._coder.encode(part.astype(np.int32), stream.model.Uniform(2**chunk))

    def symbols(self, values: np.ndarray, table: np.ndarray) -> None:
        if len(table) > 1:  # else there is nothing to say
            self._coder.encode(values.astype(np.int32), _law(table))

    def flags(self, values: np.ndarray, likely: np.ndarray) -> None:
        """Booleans (n,), and the probability that each is true (n,)."""
        self._coder.encode(values.astype(np.int32), stream.model.Bernoulli(perfect=False), likely)

    def finish(self) -> bytes:
        """The shortest bytes that, followed by zeros, lie in the interval that the coder has arrived at."""
        words = self._coder.get_compressed()
        count, (low, size) = self._coder.pos()
        for kept in range(5):
            unit = 1 << (64 - 8 * kept)
            point = -(-low // unit) * unit
            if point < min(low + size, 2**64):
                return words[:count].astype(">u4").tobytes() + point.to_bytes(8, "big")[:kept]
        return words.astype(">u4").tobytes()  # the point lies beyond a carry, which the library has seen to


class RangeReader:
    maps = True

    def __init__(self, content: bytes) -> None:
        words = np.frombuffer(content + bytes(-len(content) % 4), ">u4")
        self._coder = stream.queue.RangeDecoder(words.astype(np.uint32))

    def bits(self, count: int, width: int) -> np.ndarray:
        values = np.zeros(count, np.uint64)
        for chunk in _chunks(width):
            part = self._coder.decode(stream.model.Uniform(2**chunk), count)
            values = values << np.uint64(chunk) | part.astype(np.uint64)
        return values

    def symbols(self, count: int, table: np.ndarray) -> np.ndarray:
        if len(table) == 1:
            return np.zeros(count, np.int64)
        return self._coder.decode(_law(table), count).astype(np.int64)

    def flags(self, likely: np.ndarray) -> np.ndarray:
        return self._coder.decode(stream.model.Bernoulli(perfect=False), likely).astype(bool)


WRITERS = {"huffman": HuffmanWriter, "range": RangeWriter}
READERS = {"huffman": HuffmanReader, "range": RangeReader}
Writer = HuffmanWriter | RangeWriter
Reader = HuffmanReader | RangeReader


class Counter:
    """A writer that only counts, to compare ways to write: `total` is the bits that one of a kind would take."""

    def __init__(self, kind: type[Writer]) -> None:
        self.total, self.table, self.maps, self._cost = 0.0, kind.table, kind.maps, kind.cost

    def bits(self, values: np.ndarray, width: int) -> None:
        self.total += len(values) * width

    def symbols(self, values: np.ndarray, table: np.ndarray) -> None:
        if len(table) > 1:
            self.total += self._cost(np.bincount(values, minlength=len(table)), table)

    def flags(self, values: np.ndarray, likely: np.ndarray) -> None:
        self.total -= np.log2(np.where(values, likely, 1 - likely)).sum()


# ---- what both write alike


def put_number(writer: Writer | Counter, number: int) -> None:
    """A whole number below 2^63: how many bits it has, and those."""
    width = number.bit_length()
    writer.bits(np.array([width]), 6)
    writer.bits(np.array([number]), width)


def take_number(reader: Reader) -> int:
    return int(reader.bits(1, int(reader.bits(1, 6)[0]))[0])


def put_rising(writer: Writer | Counter, numbers: np.ndarray, width: int) -> None:
    """Distinct rising numbers below 2^width, as Elias and Fano do: low bits as they are, high bits as marks on a line.

    n numbers take about n (2 + width - log2 n) bits; the reader has to know n and width.
    """
    low, line = _split_rising(len(numbers), width)
    marks = np.zeros(line, np.uint64)
    marks[(numbers >> np.uint64(low)).astype(np.int64) + np.arange(len(numbers))] = 1
    writer.bits(marks, 1)
    writer.bits(numbers & np.uint64(2**low - 1), low)


def take_rising(reader: Reader, count: int, width: int) -> np.ndarray:
    low, line = _split_rising(count, width)
    high = np.flatnonzero(reader.bits(line, 1)) - np.arange(count)
    return high.astype(np.uint64) << np.uint64(low) | reader.bits(count, low)


def _split_rising(count: int, width: int) -> tuple[int, int]:
    """How many bits are low, and how long the line is: a place for each number and a step for each high part."""
    high = min(width, count.bit_length() - 1)
    return width - high, count + 2**high - 1


def put_symbols(writer: Writer | Counter, values: np.ndarray, alphabet: int) -> None:
    """Numbers below `alphabet`, after the table of their code; the reader has to know how many of both there are."""
    table = writer.table(np.bincount(values, minlength=alphabet))
    width = int(table.max()).bit_length()
    writer.bits(np.array([width]), 5)
    writer.bits(table, width)
    writer.symbols(values, table)


def take_symbols(reader: Reader, count: int, alphabet: int) -> np.ndarray:
    table = reader.bits(alphabet, int(reader.bits(1, 5)[0])).astype(np.int64)
    return reader.symbols(count, table)
