"""The prepared data set in data/noisy/<dataset>/: how its arrays are written, and the reader of them."""

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from atelier import files
from atelier.errors import AtelierError, nearest

SCALE = 255


def quantise(x: np.ndarray) -> np.ndarray:
    """Pixels in [0, 1] -> uint8, the nearest of the 256 values k / SCALE."""
    return np.rint(x * np.float32(SCALE)).astype(np.uint8)


def as_pixels(x: np.ndarray, scale: float) -> np.ndarray:
    """Stored values -> contiguous float32 x / scale."""
    return np.ascontiguousarray(np.divide(x, np.float32(scale), dtype=np.float32))


@dataclass(frozen=True)
class Stored:
    """A split as it lies in its file: pixels are x[rows] / scale (all rows if None), y the split's labels."""

    x: np.ndarray
    scale: float
    rows: np.ndarray | None
    y: np.ndarray


class Store:
    """A prepared data set. Every file is compared with the sum in about.json, which is written last, before it is used.

    `shape`: of an item, channels first; `classes`: names in label order; `sums`: the SHA-256 of every file.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        if not (self.folder / "about.json").exists():
            raise AtelierError(f"{self.folder}: not there or unfinished; run {self._remedy}")
        about = files.read_json(self.folder / "about.json")
        try:
            self.name: str = about["dataset"]
            self.shape: tuple[int, ...] = tuple(about["shape"])
            self.classes: list[str] = about["classes"]
            self.sums: dict[str, str] = about["files"]
        except (KeyError, TypeError):
            raise AtelierError(f"{self.folder / 'about.json'}: not what add_noise wrote; run {self._remedy}") from None
        self._opened: dict[str, dict[str, np.ndarray]] = {}

    def split(self, name: str, corruption: str | None = None, hold_out: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Items x, float32 (n, *shape) in [0, 1], and labels y, int64 (n,); arguments as in `stored`."""
        found = self.stored(name, corruption, hold_out)
        return as_pixels(found.x if found.rows is None else found.x[found.rows], found.scale), found.y

    def stored(self, name: str, corruption: str | None = None, hold_out: bool = False) -> Stored:
        """The split "train", "validation" or "test", its x mapped from the file: processes that read it share it.

        `corruption`: None for clean, else a name such as "gaussian-0.2"; only what add_noise stored can be had.
        `hold_out`: whether the validation items leave "train"; where they do not, "validation" is empty.
        """
        if name not in ("train", "validation", "test"):
            raise AtelierError(f"{name} is no split; {nearest(name, ('train', 'validation', 'test'))}")
        part = "test" if name == "test" else "train"
        clean = self._arrays(f"{part}.npz")
        noisy = self._arrays(f"{part}.{corruption}.npz") if corruption else clean
        rows = None
        if part == "train" and (hold_out or name == "validation"):
            held = clean["validation"] & hold_out
            rows = np.flatnonzero(held if name == "validation" else ~held)
        y = clean["y"] if rows is None else clean["y"][rows]
        return Stored(noisy["x"], float(noisy["scale"]), rows, y)

    def corruptions(self, part: str) -> list[str]:
        """What is stored for "train" (validation items among them) or "test"."""
        found = [file.removesuffix(".npz").partition(".") for file in sorted(self.sums)]
        return [corruption for of, _, corruption in found if of == part and corruption]

    def _arrays(self, file: str) -> dict[str, np.ndarray]:
        part, _, corruption = file.removesuffix(".npz").partition(".")
        if file not in self.sums:
            raise AtelierError(
                f"{self.folder} stores no {part} items with {corruption}; {nearest(corruption, self.corruptions(part))}"
            )
        if file not in self._opened:
            try:
                self._opened[file] = _mapped(self.folder / file, self.sums[file])
            except FileNotFoundError:
                raise AtelierError(f"{self.folder / file}: not there; run {self._remedy}") from None
            except ValueError:
                message = f"{self.folder / file}: not the file that about.json describes; run {self._remedy}"
                raise AtelierError(message) from None
        return self._opened[file]

    @property
    def _remedy(self) -> str:
        return f"atelier add_noise {self.folder.name}"


def _mapped(path: Path, digest: str) -> dict[str, np.ndarray]:
    """The arrays of an uncompressed .npz, items mapped from the file and not read. ValueError if the digest is another.

    The map is copy-on-write: the memory is the system's file cache, the same for every process.
    """
    content = np.memmap(path, mode="c")
    if hashlib.sha256(content).hexdigest() != digest:
        raise ValueError(digest)
    found = {}
    with open(path, "rb") as file, zipfile.ZipFile(file) as members:
        for member in members.infolist():
            # A member's bytes follow its local header: 30 bytes, its name, its extra field.
            file.seek(member.header_offset + 26)
            file.seek(member.header_offset + 30 + sum(np.frombuffer(file.read(4), "<u2").tolist()))
            np.lib.format.read_magic(file)
            shape, column_major, dtype = np.lib.format.read_array_header_1_0(file)
            order = "F" if column_major else "C"
            array = np.ndarray(shape, dtype, content, file.tell(), order=order)
            found[member.filename.removesuffix(".npy")] = array if array.flags.aligned else array.copy()
    return found
