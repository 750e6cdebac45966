"""Which items are held out: each class in proportion, by labels and seed alone, or all items of certain people."""

from collections.abc import Sequence

import numpy as np

from atelier.errors import AtelierError, nearest


def hold_out(y: np.ndarray, count: int, seed: int, where: str) -> np.ndarray:
    """A mask (n,) with `count` items set; a class gives its exact share, rounded up or down (largest remainder).

    Raises AtelierError, naming the setting `where`, unless there could be one item of each class on either side.
    """
    classes, sizes = np.unique(y, return_counts=True)
    least, most = len(classes), len(y) - len(classes)
    if not least <= count <= most:
        raise AtelierError(
            f"params.yaml: {where} is {count}; {len(y)} items of {len(classes)} classes allow {least} to {most}"
        )
    exact = count * sizes / len(y)
    shares = np.floor(exact).astype(int)
    shares[np.argsort(shares - exact, kind="stable")[: count - shares.sum()]] += 1
    order = np.random.RandomState(seed).permutation(len(y))  # the one generator whose stream NumPy keeps for good
    held = np.zeros(len(y), bool)
    for label, share in zip(classes, shares, strict=True):
        held[order[y[order] == label][:share]] = True
    return held


def of_subjects(subjects: np.ndarray, chosen: Sequence[int], where: str) -> np.ndarray:
    """A mask (n,) of the items of these people. Raises AtelierError, naming the setting, for one without items."""
    known = np.unique(subjects).tolist()
    for subject in chosen:
        if subject not in known:
            raise AtelierError(f"params.yaml: {where} names {subject}, who has no items; {nearest(subject, known)}")
    if len(chosen) == len(known):
        raise AtelierError(f"params.yaml: {where} names all {len(known)} who have items; leave some to train on")
    return np.isin(subjects, chosen)
