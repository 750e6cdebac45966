"""A split as training and evaluation see it: inputs, clean items and labels as tensors."""

from dataclasses import dataclass

import torch
from torch import Tensor

from atelier import noise
from atelier.data.store import Store
from atelier.params import TrainNoise


@dataclass
class Items:
    """Inputs (n, *shape) as the model sees them, clean items and labels (n,). Without noise x is clean."""

    x: Tensor
    clean: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)


def items(store: Store, split: str, corruption: TrainNoise | None, hold_out: bool, device: str = "cpu") -> Items:
    """A split as tensors. Corrupted inputs are the stored ones, else one draw of the level that was asked for."""
    clean, y = store.split(split, hold_out=hold_out)
    x = clean
    if corruption and len(y):
        if corruption.name in store.corruptions("test" if split == "test" else "train"):
            x, _ = store.split(split, corruption.name, hold_out=hold_out)
        else:
            part = ("train", "validation", "test").index(split)  # no two splits share numbers
            x = noise.draw(clean, corruption.kind, corruption.level, seed=0, epoch=part)
    clean_tensor = torch.from_numpy(clean).to(device)
    x_tensor = clean_tensor if x is clean else torch.from_numpy(x).to(device)
    return Items(x_tensor, clean_tensor, torch.from_numpy(y).to(device))
