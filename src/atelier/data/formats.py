"""The published file formats -> arrays. A file that is not what it should be is named in a one-line error."""

import gzip
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from atelier.errors import AtelierError

Labelled = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Raw:
    """Items as published: x uint8 (n, *shape), pixel = x / scale; y int64 (n,). No `test` where none is set apart."""

    train: Labelled
    test: Labelled | None
    scale: int


def read(dataset: str, folder: Path, classes: int) -> Raw:
    """Read a downloaded data set and check that its labels lie in [0, classes)."""
    raw = _READERS[dataset](folder)
    for _, y in filter(None, (raw.train, raw.test)):
        if len(y) == 0 or y.max() >= classes:
            raise _fault(folder, f"labels are not all in 0 to {classes - 1}")
    return raw


def idx(path: Path, dimensions: int) -> np.ndarray:
    """A gzipped idx file of unsigned bytes (format: the foot of LeCun's MNIST page) -> uint8 array.

    Two zero bytes, 0x08 for unsigned bytes, the number of dimensions, each dimension as a big-endian uint32, the data.
    """
    content = _unzipped(path)
    magic = bytes((0, 0, 8, dimensions))
    if content[:4] != magic:
        raise _fault(path, f"starts with {content[:4].hex() or 'nothing'}, an idx file of this kind with {magic.hex()}")
    start = 4 + 4 * dimensions
    if len(content) < start:
        raise _fault(path, "ends inside its header")
    shape = [int.from_bytes(content[at : at + 4], "big") for at in range(4, start, 4)]
    if len(content) - start != math.prod(shape):
        raise _fault(path, f"holds {len(content) - start} bytes of data where its header says {math.prod(shape)}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def digits_csv(path: Path) -> Labelled:
    """64 pixels of 0 to 16 and a label to a line -> x uint8 (n, 1, 8, 8), y int64 (n,)."""
    lines = _unzipped(path).splitlines() or [b"empty"]
    try:
        table = np.loadtxt(lines, np.int64, delimiter=",", ndmin=2)
    except ValueError as error:
        raise _fault(path, " ".join(str(error).split())) from None
    if table.shape[1] != 65 or table.min() < 0 or table[:, :-1].max() > 16:
        raise _fault(path, "is not lines of 64 pixels of 0 to 16 and a label")
    return table[:, :-1].astype(np.uint8).reshape(-1, 1, 8, 8), table[:, -1].copy()


def _read_digits(folder: Path) -> Raw:
    return Raw(digits_csv(folder / "digits.csv.gz"), None, 16)


def _read_mnist(folder: Path) -> Raw:
    return Raw(_labelled_images(folder, "train"), _labelled_images(folder, "t10k"), 255)


def _labelled_images(folder: Path, part: str) -> Labelled:
    path = folder / f"{part}-images-idx3-ubyte.gz"
    x, y = idx(path, 3), idx(folder / f"{part}-labels-idx1-ubyte.gz", 1)
    if x.shape != (len(y), 28, 28):
        raise _fault(path, f"holds {' x '.join(map(str, x.shape))} pixels where the labels ask for {len(y)} x 28 x 28")
    return x[:, None], y.astype(np.int64)


_READERS: dict[str, Callable[[Path], Raw]] = {
    "digits": _read_digits,
    "fashion-mnist": _read_mnist,
    "mnist": _read_mnist,
}


def _unzipped(path: Path) -> bytes:
    try:
        with gzip.open(path) as file:
            return file.read()
    except FileNotFoundError:
        raise _fault(path, "is not there") from None
    except (OSError, EOFError, zlib.error) as error:
        raise _fault(path, f"is not a whole gzip file: {error}") from None


def _fault(path: Path, what: str) -> AtelierError:
    return AtelierError(f"{path} {what}; delete it and download the data set again")
