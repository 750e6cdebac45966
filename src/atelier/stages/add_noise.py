"""add_noise: data/raw/<dataset>/ -> data/noisy/<dataset>/ and reports/data/<dataset>/.

Splits; images also at noise levels, test items at every one, training items at those a study trains on; windows of
sensors standardised. Fashion-MNIST takes 5 s, 0.5 GB of memory and 190 MB on disk, the subset of UCI HAR 3 s and 15 MB.
"""

import shutil
from pathlib import Path

import numpy as np

from atelier import files, noise, params, paths
from atelier.data import formats, overview, sources, splits, store, windows
from atelier.data.raw import Labelled, Raw
from atelier.errors import AtelierError

_BLOCK = 4096  # items held as float32 at once


def main(name: str) -> None:
    """Prepare one data set in a folder beside its own, which it replaces when all is done, report included."""
    everything = params.load()
    everything.dataset(name)
    folder = paths.noisy(name)
    unfinished = folder.with_name(f".{name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        _prepare(unfinished, name, everything)
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _prepare(folder: Path, name: str, everything: params.Params) -> None:
    settings, where, source = everything.dataset(name), everything.dataset_key(name), sources.get(name)
    sources.check(name, paths.raw(name))
    raw = formats.read(name, paths.raw(name), len(source.classes), where, **settings.reading)
    if raw.signals and settings.train_noise:
        raise AtelierError(f"params.yaml: {where}.train_noise is set, but noise is for pixels in [0, 1]; remove it")
    (x, y), validation, (test_x, test_y) = _split(name, raw, settings, where)
    standard = None
    if raw.signals:
        standard = windows.standard(x, ~validation, raw.signals, str(paths.raw(name)))
        x, test_x = standard.apply(x), standard.apply(test_x)

    files.write_arrays(folder / "train.npz", x=x, y=y, validation=validation, scale=np.float64(raw.scale))
    files.write_arrays(folder / "test.npz", x=test_x, y=test_y, scale=np.float64(raw.scale))
    corruptions = {} if raw.signals else everything.noise.corruptions()  # noise is for pixels in [0, 1]
    for part, use, clean, wanted in (
        ("train", noise.TRAIN, x, settings.train_noise),
        ("test", noise.TEST, test_x, corruptions),
    ):
        for corruption in wanted:
            kind, level = corruptions[corruption]
            noisy = corrupted(clean, raw.scale, kind, level, noise.field(everything.noise.seed, use, kind))
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
    signals = {"signals": standard.described()} if standard else {}
    files.write_json(folder / "about.json", about | signals)
    overview.write(paths.data_report(name), store.Store(folder), source, items, standard)


def corrupted(x: np.ndarray, scale: float, kind: str, level: float, key: tuple[int, ...]) -> np.ndarray:
    """All items under one corruption, uint8 in steps of 1 / store.SCALE."""
    noisy = np.empty(x.shape, np.uint8)
    for first in range(0, len(x), _BLOCK):
        rows = slice(first, first + _BLOCK)
        noisy[rows] = store.quantise(noise.corrupt(store.as_pixels(x[rows], scale), kind, level, key=key, first=first))
    return noisy


def _split(name: str, raw: Raw, settings: params.Dataset, where: str) -> tuple[Labelled, np.ndarray, Labelled]:
    """Training items with those for validation, a mask of the latter, and the published test items or held-out ones."""
    (x, y), subjects, test = raw.train, raw.subjects, raw.test
    given = [key for key in ("test", "test_subjects") if getattr(settings, key)]
    if test and given:
        raise AtelierError(f"params.yaml: {where}.{given[0]} is set, but {name} has its own test set; remove it")
    if not test:
        if not given:
            key = "test" if subjects is None else "test_subjects"
            raise AtelierError(f"params.yaml: {where}.{key} is missing; {name} has no test set of its own")
        held = _held_out("test", y, subjects, settings, where)
        test = x[held], y[held]
        x, y = x[~held], y[~held]
        subjects = None if subjects is None else subjects[~held]
    return (x, y), _held_out("validation", y, subjects, settings, where), test


def _held_out(
    split: str, y: np.ndarray, subjects: np.ndarray | None, settings: params.Dataset, where: str
) -> np.ndarray:
    """A mask of the items of a split: so many of each class, or, where it is known whose they are, whole people's."""
    count, chosen = getattr(settings, split), getattr(settings, f"{split}_subjects")
    if subjects is not None:
        if not chosen:
            raise AtelierError(f"params.yaml: {where}.{split} would part one person's items; give {split}_subjects")
        return splits.of_subjects(subjects, chosen, f"{where}.{split}_subjects")
    if not count:
        raise AtelierError(f"params.yaml: {where}.{split}_subjects is set, but its items name nobody; give {split}")
    return splits.hold_out(y, count, settings.seed, f"{where}.{split}")
