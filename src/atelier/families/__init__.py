"""The families, one a file, found by its name: `families/mlp.py` is the family `mlp`. What they share is in layers.py.

A family's `Model(shape, classes, *, settings)` is duck-typed; see README, "Add a family".
"""

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

from atelier.errors import AtelierError, nearest


def names() -> list[str]:
    """Every family in this folder, by file name, without importing any."""
    return sorted(m.name.replace("_", "-") for m in pkgutil.iter_modules(__path__))


def load(name: str) -> type:
    """The family's Model class.

    Raises AtelierError if there is no such file or it defines no Model.
    """
    if name not in names():
        raise AtelierError(f"there is no family {name}; {nearest(name, names())}")
    module = importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
    if not hasattr(module, "Model"):
        raise AtelierError(f"{module.__file__}: defines no class Model; every family does")
    return module.Model


def check(name: str, settings: Mapping[str, Any], where: str) -> None:
    """Let the family refuse settings of the right types that make no net: `Model.check`, where there is one."""
    judge = getattr(load(name), "check", None)
    if judge:
        try:
            judge(**settings)
        except ValueError as error:
            raise AtelierError(f"{where}: {error}") from None
