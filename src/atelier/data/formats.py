"""The published file formats -> arrays. A file that is not what it should be is named in a one-line error."""

import gzip
import inspect
import math
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from atelier.data import pamap2, uci_har
from atelier.data.raw import Labelled, Raw, fault
from atelier.errors import AtelierError


def read(dataset: str, folder: Path, classes: int, where: str = "", **options: Any) -> Raw:
    """Read a downloaded data set and check that its labels lie in [0, classes).

    `options`: what its reader may be told, from the settings that params.yaml has under `where`.
    """
    reader = _READERS[dataset]
    for option in options:
        if option not in inspect.signature(reader).parameters:
            raise AtelierError(f"params.yaml: {where}.{option} is set, but {dataset} has no {option}; remove it")
    raw = reader(folder, **options)
    for _, y in filter(None, (raw.train, raw.test)):
        if len(y) == 0 or y.max() >= classes:
            raise fault(folder, f"labels are not all in 0 to {classes - 1}")
    return raw


def idx(path: Path, dimensions: int) -> np.ndarray:
    """A gzipped idx file of unsigned bytes (format: the foot of LeCun's MNIST page) -> uint8 array.

    Two zero bytes, 0x08 for unsigned bytes, the number of dimensions, each dimension as a big-endian uint32, the data.
    """
    content = _unzipped(path)
    magic = bytes((0, 0, 8, dimensions))
    if content[:4] != magic:
        raise fault(path, f"starts with {content[:4].hex() or 'nothing'}, an idx file of this kind with {magic.hex()}")
    start = 4 + 4 * dimensions
    if len(content) < start:
        raise fault(path, "ends inside its header")
    shape = [int.from_bytes(content[at : at + 4], "big") for at in range(4, start, 4)]
    if len(content) - start != math.prod(shape):
        raise fault(path, f"holds {len(content) - start} bytes of data where its header says {math.prod(shape)}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def digits_csv(path: Path) -> Labelled:
    """64 pixels of 0 to 16 and a label to a line -> x uint8 (n, 1, 8, 8), y int64 (n,)."""
    lines = _unzipped(path).splitlines() or [b"empty"]
    try:
        table = np.loadtxt(lines, np.int64, delimiter=",", ndmin=2)
    except ValueError as error:
        raise fault(path, " ".join(str(error).split())) from None
    if table.shape[1] != 65 or table.min() < 0 or table[:, :-1].max() > 16:
        raise fault(path, "is not lines of 64 pixels of 0 to 16 and a label")
    return table[:, :-1].astype(np.uint8).reshape(-1, 1, 8, 8), table[:, -1].copy()


def _read_digits(folder: Path) -> Raw:
    return Raw(digits_csv(folder / "digits.csv.gz"), None, 16)


def _read_mnist(folder: Path) -> Raw:
    return Raw(_labelled_images(folder, "train"), _labelled_images(folder, "t10k"), 255)


def _labelled_images(folder: Path, part: str) -> Labelled:
    path = folder / f"{part}-images-idx3-ubyte.gz"
    x, y = idx(path, 3), idx(folder / f"{part}-labels-idx1-ubyte.gz", 1)
    if x.shape != (len(y), 28, 28):
        raise fault(path, f"holds {' x '.join(map(str, x.shape))} pixels where the labels ask for {len(y)} x 28 x 28")
    return x[:, None], y.astype(np.int64)


def _read_pamap2(folder: Path, *, channels: pamap2.Channels = "document", step: int = pamap2.STEP) -> Raw:
    return pamap2.read(folder / "pamap2+physical+activity+monitoring.zip", channels=channels, step=step)


_READERS: dict[str, Callable[..., Raw]] = {
    "digits": _read_digits,
    "fashion-mnist": _read_mnist,
    "mnist": _read_mnist,
    "pamap2": _read_pamap2,
    "uci-har": lambda folder: uci_har.read(folder / "human+activity+recognition+using+smartphones.zip", numbered=True),
    "uci-har-subset": lambda folder: uci_har.read(folder / "uci-har-subset.zip", numbered=False),
}


def _unzipped(path: Path) -> bytes:
    try:
        with gzip.open(path) as file:
            return file.read()
    except FileNotFoundError:
        raise fault(path, "is not there") from None
    except (OSError, EOFError, zlib.error) as error:
        raise fault(path, f"is not a whole gzip file: {error}") from None
