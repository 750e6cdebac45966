"""Where things lie. Only stages, track, trace and verify ask."""

import os
from pathlib import Path


def root() -> Path:
    """The project folder: the nearest upwards with params.yaml and dvc.yaml, as an experiment's copy has them."""
    here = Path.cwd()
    both = ("params.yaml", "dvc.yaml")
    return next((folder for folder in (here, *here.parents) if all((folder / file).exists() for file in both)), here)


def home() -> Path:
    """The folder that outlives an experiment's temporary copy: DVC names it, elsewhere it is the root."""
    return Path(os.environ.get("DVC_ROOT") or root()).resolve()


def raw(dataset: str) -> Path:
    return root() / "data" / "raw" / dataset


def noisy(dataset: str) -> Path:
    return root() / "data" / "noisy" / dataset


def models(study: str) -> Path:
    return root() / "models" / study


def model(study: str, name: str, seed: int) -> Path:
    return models(study) / name / str(seed)


def report(study: str) -> Path:
    return root() / "reports" / "studies" / study


def data_report(dataset: str) -> Path:
    return root() / "reports" / "data" / dataset


def timings(study: str) -> Path:
    """Durations differ from run to run, so they lie outside every DVC output."""
    return root() / "reports" / "timings" / f"{study}.json"


def jobs() -> Path:
    """Checkpoints and finished jobs by content key; DVC empties a stage's outputs before it runs, so not there."""
    return home() / ".atelier"
