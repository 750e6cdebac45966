"""UCI HAR (Anguita et al. 2013): six activities, a phone at the waist, 128 steps at 50 Hz, overlapping by half.

Read are the raw inertial signals: acceleration of the body and in total, and angular velocity, a file for each channel
and part, a line for each window. Each is of one person; 21 people are in the training part, 9 others in the test part.
"""

from pathlib import Path

import numpy as np

from atelier.data.archives import Allowance, Archive
from atelier.data.raw import Labelled, Raw, Sensor, Signals, fault
from atelier.data.windows import table, whole

STEPS = 128
SIGNALS = Signals(
    (Sensor("body acceleration", "g"), Sensor("angular velocity", "rad/s"), Sensor("total acceleration", "g")), 50.0
)
_FILES = [f"{kind}_{axis}" for kind in ("body_acc", "body_gyro", "total_acc") for axis in "xyz"]
_LABELS = range(1, 7)
_SUBJECTS = range(1, 31)
_INNER = "UCI HAR Dataset.zip"  # UCI serves an archive that holds this one
_MEMBER, _TOTAL = 2**26, 2**29  # the archive within has 61 MB, the files that are read 260 MB


def read(path: Path, numbered: bool) -> Raw:
    """The archive, or the one within it -> windows float32 (n, 9, 128). `numbered`: whether it says whose each is."""
    archive = Archive(path, Allowance(_MEMBER, _TOTAL))
    if _INNER in archive:
        archive = archive.inner(_INNER)
    train, test = _part(archive, "train"), _part(archive, "test")
    subjects = None
    if numbered:
        subjects, others = _subjects(archive, "train", len(train[1])), _subjects(archive, "test", len(test[1]))
        if both := sorted(set(subjects.tolist()) & set(others.tolist())):
            raise fault(path, f"has subject {both[0]} in both its training and its test part")
    return Raw(train, test, signals=SIGNALS, subjects=subjects)


def _part(archive: Archive, part: str) -> Labelled:
    y = _column(archive, f"y_{part}", part, _LABELS, "label") - 1
    x = np.empty((len(y), len(_FILES), STEPS), np.float32)
    for channel, file in enumerate(_FILES):
        name = f"UCI HAR Dataset/{part}/Inertial Signals/{file}_{part}.txt"
        place = archive.place_of(name)
        values = table(archive.read(name), place, STEPS)
        if len(values) != len(y):
            raise fault(place, f"has {len(values)} windows, where there are {len(y)} labels")
        if np.isnan(values).any():
            raise fault(place, f"has a gap (NaN) in line {np.isnan(values).any(1).argmax() + 1}")
        x[:, channel] = values
    return x, y


def _subjects(archive: Archive, part: str, count: int) -> np.ndarray:
    found = _column(archive, f"subject_{part}", part, _SUBJECTS, "subject")
    if len(found) != count:
        raise fault(archive.place, f"has {len(found)} subjects for the {count} windows of its {part} part")
    return found


def _column(archive: Archive, file: str, part: str, allowed: range, what: str) -> np.ndarray:
    name = f"UCI HAR Dataset/{part}/{file}.txt"
    place = archive.place_of(name)
    return whole(table(archive.read(name), place, 1)[:, 0], allowed, place, what)
