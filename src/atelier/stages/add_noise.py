"""add_noise: data/raw/<dataset>/ -> data/noisy/<dataset>/ and reports/data/<dataset>/.

Splits, test items at every noise level, training items at those a study trains on. Fashion-MNIST takes 5 s,
0.5 GB of memory and 190 MB on disk.
"""

import shutil
from pathlib import Path

import numpy as np

from atelier import files, noise, params, paths
from atelier.data import formats, overview, sources, store
from atelier.data.splits import hold_out
from atelier.errors import AtelierError

_BLOCK = 4096  # items held as float32 at once


def main(name: str) -> None:
    """Prepare one data set in a folder beside its own, which it replaces when all is done, report included."""
    everything = params.load()
    settings, corruptions = everything.dataset(name), everything.noise.corruptions()
    folder = paths.noisy(name)
    unfinished = folder.with_name(f".{name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        _prepare(unfinished, name, settings, everything.noise.seed, corruptions)
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _prepare(
    folder: Path, name: str, settings: params.Dataset, noise_seed: int, corruptions: dict[str, tuple[str, float]]
) -> None:
    source = sources.get(name)
    sources.check(name, paths.raw(name))
    raw = formats.read(name, paths.raw(name), len(source.classes))
    (x, y), (test_x, test_y) = _split_test(name, raw, settings)
    validation = hold_out(y, settings.validation, settings.seed, f"datasets.{name}.validation")

    files.write_arrays(folder / "train.npz", x=x, y=y, validation=validation, scale=np.float64(raw.scale))
    files.write_arrays(folder / "test.npz", x=test_x, y=test_y, scale=np.float64(raw.scale))
    for part, use, clean, wanted in (
        ("train", noise.TRAIN, x, settings.train_noise),
        ("test", noise.TEST, test_x, corruptions),
    ):
        for corruption in wanted:
            kind, level = corruptions[corruption]
            noisy = corrupted(clean, raw.scale, kind, level, noise.field(noise_seed, use, kind))
            files.write_arrays(folder / f"{part}.{corruption}.npz", x=noisy, scale=np.float64(store.SCALE))

    labels = {"train": y[~validation], "validation": y[validation], "test": test_y}
    items = {
        split: {c: int(np.sum(of == label)) for label, c in enumerate(source.classes)} for split, of in labels.items()
    }
    about = {
        "dataset": name,
        "shape": list(x.shape[1:]),
        "classes": list(source.classes),
        "items": items,
        "files": {path.name: files.sha256(path) for path in folder.iterdir()},
    }
    files.write_json(folder / "about.json", about)
    overview.write(paths.data_report(name), store.Store(folder), source, items)


def corrupted(x: np.ndarray, scale: float, kind: str, level: float, key: tuple[int, ...]) -> np.ndarray:
    """All items under one corruption, uint8 in steps of 1 / store.SCALE."""
    noisy = np.empty(x.shape, np.uint8)
    for first in range(0, len(x), _BLOCK):
        rows = slice(first, first + _BLOCK)
        noisy[rows] = store.quantise(noise.corrupt(store.as_pixels(x[rows], scale), kind, level, key=key, first=first))
    return noisy


def _split_test(name: str, raw: formats.Raw, settings: params.Dataset) -> tuple[formats.Labelled, formats.Labelled]:
    """The published test set, or held-out items where there is none."""
    if raw.test and settings.test:
        raise AtelierError(f"params.yaml: datasets.{name}.test is set, but {name} has its own test set; remove it")
    if raw.test:
        return raw.train, raw.test
    if not settings.test:
        raise AtelierError(f"params.yaml: datasets.{name}.test is missing; {name} has no test set of its own")
    x, y = raw.train
    held = hold_out(y, settings.test, settings.seed, f"datasets.{name}.test")
    return (x[~held], y[~held]), (x[held], y[held])
