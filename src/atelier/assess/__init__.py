"""What there is to judge of a family beyond its answers to single items, one file a family, found by its name.

A file has `assess(model, store, seed, hold_out) -> Assessment`, whose docstring says on the page what its figures mean.
It may have `floors(store)`, {name: {metric: value}} of methods that train no net, which claims compare with; and
`pictures(models, series)`, which gives {file: (caption, function that draws)}: models are the settings and series
lists, one dict a seed, by the model's name; each dict also has the seed's `curve`, {epoch: {metric: value}} as in
curves.csv. Reading a report needs no torch, so it is imported where it is used.
"""

import importlib
import pkgutil
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from atelier.data.store import Store

if TYPE_CHECKING:
    from torch import nn

Row = tuple[str, np.ndarray, list[str]]  # label, items (n, *shape) in [0, 1], a caption for each item or none


@dataclass(frozen=True)
class Assessment:
    """figures: metrics by name, as in test.nll. series: plain values to draw. rows: items to show."""

    figures: dict[str, float] = field(default_factory=dict)
    series: dict[str, Any] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)


def names() -> list[str]:
    """The families that are judged further."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))


def load(family: str) -> ModuleType | None:
    if family not in names():
        return None
    return importlib.import_module(f"{__name__}.{family.replace('-', '_')}")


def assess(family: str, model: "nn.Module", store: Store, seed: int, hold_out: bool) -> Assessment:
    """What a family's file says of a trained model; nothing where there is no file."""
    judge = load(family)
    return judge.assess(model, store, seed, hold_out) if judge else Assessment()


def floors(family: str, store: Store) -> dict[str, dict[str, float]]:
    judge = load(family)
    return judge.floors(store) if hasattr(judge, "floors") else {}
