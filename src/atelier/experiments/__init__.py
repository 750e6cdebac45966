"""Experiments, one a file, found by its name: laws of the field, measured on real items.

An experiment has `measure(seed, store, *, typed settings) -> {metric: value}`, which is called for every model of its
entry in params.yaml and every seed; beside metrics it may give "series", plain values to draw; "train_s", seconds; and
"latency", records of speed.compare, of which those of the first seed are kept.

It may have FLOORS, {name: {metric: value}} that claims compare with; `pictures(store, models, series)`, which gives
{file: (caption, function that draws)}; and `text(models, series)`, Markdown for its page. models are the settings and
series lists, one value a seed, by the model's name. USES names modules that it loads by name and not by an import.
"""

import importlib
import pkgutil
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from atelier.byhand.activations import Array
from atelier.data.store import Store
from atelier.errors import AtelierError, nearest

if TYPE_CHECKING:
    from torch import nn

    from atelier.params import Recipe


def names() -> list[str]:
    """Every experiment in this folder, without importing any."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))


def load(name: str) -> ModuleType:
    if name not in names():
        raise AtelierError(f"there is no experiment {name}; {nearest(name, names())}")
    return importlib.import_module(f"{__name__}.{name.replace('-', '_')}")


def dense_net(store: Store, seed: int, recipe: "Recipe", **settings: Any) -> "nn.Module":
    """The family mlp with these settings and the recipe's optimizer, its weights drawn from the seed."""
    import torch

    from atelier.families.mlp import Model
    from atelier.optim import Optimizer

    torch.manual_seed(seed)
    optimizer = Optimizer(recipe.optimizer, recipe.lr)
    return Model(store.shape, len(store.classes), **settings, optimizer=optimizer)


def items(store: Store, split: str, count: int, classes: tuple[int, ...] = ()) -> tuple[Array, Array]:
    """The first `count` items of a split, of these classes: pixels (count, values) in [0, 1], labels (count,)."""
    stored = store.stored(split, hold_out=False)
    rows = np.flatnonzero(np.isin(stored.y, classes)) if classes else np.arange(len(stored.y))
    rows = rows[:count]
    x = stored.x[rows] if stored.rows is None else stored.x[stored.rows[rows]]
    return x.reshape(len(rows), -1).astype(np.float64) / stored.scale, stored.y[rows].astype(np.int64)
