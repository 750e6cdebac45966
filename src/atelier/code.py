"""Digests of code: what decides whether a job, or a stage of one study, has to run again.

A digest covers modules of this package and all that they may import, comments and docstrings left out. So a new family,
or a change to one, runs nothing again but what uses it, and the models of other studies need not be there.
"""

import ast
import functools
import hashlib
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from atelier import assess, experiments
from atelier.params import Params, Recipe

PACKAGE = __name__.partition(".")[0]
# They hand on work, settings and results, and change no figure.
PLUMBING = {"cluster", "code", "errors", "fanout", "files", "jobs", "params", "paths", "timings"}
COMPUTE = ("fit", "cpu")
TRAINING = ("checkpoint", "cost", "data.subset")  # what a job calls beside it
# What fit imports by name, and only for recipes that call for it; so does evaluate with robustness.
CALLED = {"attacks": lambda recipe: recipe.attack, "sparsity": lambda recipe: recipe.sparse}


def of_stages(params: Params) -> dict[str, Any]:
    """code.json: what the stages of every study and experiment depend on beside their parameters and data."""
    return {
        "studies": {name: _of_study(name, params) for name in params.studies},
        "experiments": {
            name: digest("stages.experiment", f"experiments.{_module(name)}", *COMPUTE, *_named_by(name))
            for name in params.experiments
        },
    }


def _of_study(name: str, params: Params) -> dict[str, Any]:
    study = params.studies[name]
    families = sorted({f"families.{_module(model.family)}" for model in study.models.values()})
    judged = sorted({f"assess.{_module(m.family)}" for m in study.models.values() if m.family in assess.names()})
    called = called_by(*(recipe for _, recipe in study.recipes()))
    thins = ("sparsity",) if study.prune and "gradual" in study.prune.schedules else ()
    return {
        "train": digest("stages.train", *TRAINING, *COMPUTE, *families, *called),
        "evaluate": digest("stages.evaluate", "cpu", *families, *judged, *(["robustness"] if study.attacks else [])),
        "prune": digest("stages.prune", "cpu", *families, *called, *thins) if study.prune else None,
        "attacks": study.attacks and study.attacks.model_dump(mode="json"),  # DVC reads no key that studies may lack
    }


def _named_by(experiment: str) -> tuple[str, ...]:
    """What an experiment loads by name and not by an import, as it says itself."""
    return getattr(experiments.load(experiment), "USES", ())


def called_by(*recipes: Recipe) -> tuple[str, ...]:
    """The modules that fit imports for one of these recipes and not for every one."""
    return tuple(module for module, wanted in CALLED.items() if any(map(wanted, recipes)))


@functools.cache
def of_family(family: str, called: tuple[str, ...] = ()) -> str:
    """Of all that training this family runs, with the modules that its recipe calls for."""
    return digest(f"families.{_module(family)}", *COMPUTE, *called)


def digest(*modules: str) -> str:
    """SHA-256 over these modules, named as in `families.mlp`, and those of this package that they may import."""
    waiting, seen = [f"{PACKAGE}.{module}" for module in modules], {}
    while waiting:
        module = waiting.pop()
        skip = module in seen or module.removeprefix(f"{PACKAGE}.") in PLUMBING
        spec = None if skip else find_spec(module)
        if spec and spec.origin:
            seen[module], imported = _read(Path(spec.origin))
            waiting += imported
    return hashlib.sha256(json.dumps(seen, sort_keys=True).encode()).hexdigest()


@functools.cache
def _read(path: Path) -> tuple[str, list[str]]:
    """A module without comments and docstrings, and the modules of this package that it may import."""
    tree = ast.parse(path.read_text())
    imported = [name for node in ast.walk(tree) for name in _imported(node)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            node.body = node.body[1:]
    return ast.dump(tree), imported


def _imported(node: ast.AST) -> list[str]:
    """Names of this package that an import statement may load: a module, or something in one."""
    if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE:
        inner = [f"{node.module}.{alias.name}" for alias in node.names]
        return [node.module, *(inner if _is_folder(node.module) else [])]
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names if alias.name.split(".")[0] == PACKAGE]
    return []


@functools.cache
def _is_folder(module: str) -> bool:
    spec = find_spec(module)
    return spec is not None and spec.submodule_search_locations is not None


def _module(name: str) -> str:
    return name.replace("-", "_")
