"""A split as training and evaluation see it: stored values, shared by all processes, made pixels as they are read."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from atelier import noise
from atelier.data.store import Store
from atelier.params import TrainNoise

Rows = slice | Tensor | list[int]


class Pixels:
    """Items as they are stored, (n, *shape), that become float32 x / scale a batch at a time: 47 MB for 60,000 images.

    rows: the positions that belong to this split, all of them if None; nothing is copied for it.
    """

    def __init__(self, stored: Tensor, scale: float = 1.0, rows: Tensor | None = None) -> None:
        self.stored, self.scale, self.rows = stored, scale, rows

    def __len__(self) -> int:
        return len(self.stored if self.rows is None else self.rows)

    def __getitem__(self, rows: Rows) -> Tensor:
        """The items at positions of the split, float32."""
        if isinstance(rows, slice) and self.rows is None:
            return self._pixels(self.stored[rows])
        if not isinstance(rows, slice):
            rows = torch.as_tensor(rows, dtype=torch.int64, device=self.stored.device)
        return self._pixels(self.stored.index_select(0, rows if self.rows is None else self.rows[rows]))

    def split(self, size: int) -> Iterator[Tensor]:
        """The items in order, `size` at a time, as Tensor.split has it."""
        return (self[start : start + size] for start in range(0, len(self), size))

    def _pixels(self, stored: Tensor) -> Tensor:
        return (stored if self.scale == 1.0 else stored / self.scale).to(torch.float32)


@dataclass
class Items:
    """Inputs (n, *shape) as the model sees them, clean items and labels (n,). Without noise x is clean."""

    x: Pixels | Tensor
    clean: Pixels | Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)


def items(store: Store, split: str, corruption: TrainNoise | None, hold_out: bool, device: str = "cpu") -> Items:
    """A split. Corrupted inputs are the stored ones, else one draw of the level that was asked for."""
    clean, y = _pixels(store, split, None, hold_out, device)
    x = clean
    if corruption and len(y):
        if corruption.name in store.corruptions("test" if split == "test" else "train"):
            x, _ = _pixels(store, split, corruption.name, hold_out, device)
        else:
            part = ("train", "validation", "test").index(split)  # no two splits share numbers
            drawn = noise.draw(clean[:].cpu().numpy(), corruption.kind, corruption.level, seed=0, epoch=part)
            x = Pixels(torch.from_numpy(drawn).to(device))
    return Items(x, clean, torch.from_numpy(y).to(device))


def _pixels(store: Store, split: str, corruption: str | None, hold_out: bool, device: str) -> tuple[Pixels, np.ndarray]:
    stored = store.stored(split, corruption, hold_out)
    rows = None if stored.rows is None else torch.from_numpy(stored.rows).to(device)
    return Pixels(torch.from_numpy(stored.x).to(device), stored.scale, rows), stored.y
