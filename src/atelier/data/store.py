"""The prepared data set in data/noisy/<dataset>/: how its arrays are written, and the reader of them."""

import hashlib
import io
import json
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


class Store:
    """A prepared data set. Every file is compared with the sum in about.json, which is written last, before it is used.

    `shape`: of an item, channels first; `classes`: names in label order; `digest`: SHA-256 over the sums of all files.
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
        self.digest: str = hashlib.sha256(json.dumps(self.sums, sort_keys=True).encode()).hexdigest()

    def split(self, name: str, corruption: str | None = None, hold_out: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Items x, float32 (n, *shape) in [0, 1], and labels y, int64 (n,), of "train", "validation" or "test".

        `corruption`: None for clean, else a name such as "gaussian-0.2"; only what add_noise stored can be had.
        `hold_out`: whether the validation items leave "train"; where they do not, "validation" is empty.
        """
        if name not in ("train", "validation", "test"):
            raise AtelierError(f"{name} is no split; {nearest(name, ('train', 'validation', 'test'))}")
        part = "test" if name == "test" else "train"
        clean = self._arrays(f"{part}.npz")
        noisy = self._arrays(f"{part}.{corruption}.npz") if corruption else clean
        x, y = noisy["x"], clean["y"]
        if part == "train":
            held = clean["validation"] & hold_out
            mine = held if name == "validation" else ~held
            x, y = x[mine], y[mine]
        return as_pixels(x, noisy["scale"]), y

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
        try:
            content = (self.folder / file).read_bytes()
        except FileNotFoundError:
            raise AtelierError(f"{self.folder / file}: not there; run {self._remedy}") from None
        if hashlib.sha256(content).hexdigest() != self.sums[file]:
            raise AtelierError(f"{self.folder / file}: not the file that about.json describes; run {self._remedy}")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return dict(arrays)

    @property
    def _remedy(self) -> str:
        return f"atelier add_noise {self.folder.name}"
