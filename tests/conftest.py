"""A small prepared data set in a project folder of its own, laid out as add_noise would have left it."""

import os
import shutil
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two processes test side by side: more threads would wait for each other

import numpy as np
import pytest
from ruamel.yaml import YAML

from atelier import files, noise
from atelier.data.store import SCALE, quantise

SHAPE, CLASSES = (1, 6, 6), 4
TRAIN, VALIDATION, TEST = 72, 24, 40
RECIPE = {"epochs": 4, "batch": 16, "lr": 0.01, "hold_out": True}
MODELS = {"net": {"family": "mlp", "hidden": [12], "dropout": [0.2]}}


def write_data(folder: Path) -> Path:
    """data/noisy/digits/: each class a pattern of its own, seen through noise."""
    rng = np.random.default_rng(0)
    patterns = rng.random((CLASSES, *SHAPE))
    arrays, place = {}, folder / "data" / "noisy" / "digits"
    for part, count in (("train", TRAIN + VALIDATION), ("test", TEST)):
        y = rng.permutation(np.arange(count) % CLASSES)
        x = quantise(np.clip(patterns[y] + 0.3 * rng.standard_normal((count, *SHAPE)), 0, 1).astype(np.float32))
        arrays[part] = {"x": x, "y": y, "scale": np.float64(SCALE)}
        key = noise.field(0, noise.TRAIN if part == "train" else noise.TEST, "gaussian")
        noisy = quantise(noise.corrupt(x / np.float32(SCALE), "gaussian", 0.2, key=key))
        arrays[f"{part}.gaussian-0.2"] = {"x": noisy, "scale": np.float64(SCALE)}
    arrays["train"]["validation"] = np.arange(TRAIN + VALIDATION) % 4 == 0
    for name, content in arrays.items():
        files.write_arrays(place / f"{name}.npz", **content)
    about = {"dataset": "digits", "shape": SHAPE, "classes": [f"kind {label}" for label in range(CLASSES)], "items": {}}
    sums = {f"{name}.npz": files.sha256(place / f"{name}.npz") for name in arrays}
    files.write_json(place / "about.json", about | {"files": sums})
    return place


def write_params(folder: Path, models: dict = MODELS, workers: int = 1, seeds: int = 1, **recipe) -> None:
    """params.yaml with one study, tiny; `recipe` changes RECIPE."""
    study = {"asks": "Does it run?", "dataset": "digits", "seeds": seeds, "train": RECIPE | recipe, "models": models}
    content = {
        "workers": workers,
        "compute": {"threads": 1, "device": "cpu"},
        "datasets": {"digits": {"validation": VALIDATION, "test": TEST, "train_noise": ["gaussian-0.2"]}},
        "noise": {"gaussian": [0.2]},
        "experiments": {},
        "studies": {"tiny": study | {"prune": None, "claims": [], "published": {}, "note": None}},
    }
    with open(folder / "params.yaml", "w") as file:
        YAML().dump(content, file)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    write_data(folder)
    return folder


@pytest.fixture
def project(prepared, tmp_path, monkeypatch) -> Path:
    """The current folder is a project with the study tiny and its data, and holds no results."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    write_params(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    return tmp_path


@pytest.fixture
def one_thread():
    """Results depend on the number of threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too, by its relative path."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
