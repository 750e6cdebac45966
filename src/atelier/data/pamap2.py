"""PAMAP2 (Reiss and Stricker 2012): twelve activities, sensors at hand, chest and ankle, a recording a subject, 100 Hz.

A line holds 54 numbers: time in s, activity, heart rate, and 17 of each of the three units. Gaps are NaN: the heart
rate comes at 9 Hz, and the wireless units lose samples. They are filled by the last value seen, never by a later one.
"""

from pathlib import Path
from typing import Literal

import numpy as np

from atelier.data.archives import Allowance, Archive
from atelier.data.raw import Raw, Sensor, Signals, fault
from atelier.data.windows import cut, filled, table, whole

Channels = Literal["document", "valid"]
SUBJECTS = range(101, 110)
ACTIVITIES = (1, 2, 3, 4, 5, 6, 7, 12, 13, 16, 17, 24)  # in the order of the classes; 0, between them, is dropped
STEPS = 100
EVERY = 3  # of 100 samples a second, every third: 33.3 Hz (Hammerla, Halloran and Ploetz 2016)
STEP = 33  # rows from one window to the next: 0.99 s; they take 1 s
GAP = 0.05  # seconds: rows farther apart are not consecutive, so no window spans them

_COLUMNS = 54
_UNIT = (
    Sensor("temperature", "°C", ()),
    Sensor("acceleration 16g", "m/s²"),
    Sensor("acceleration 6g", "m/s²"),
    Sensor("angular velocity", "rad/s"),
    Sensor("magnetic field", "µT"),
    Sensor("orientation", "", ("1", "2", "3", "4")),  # the publishers call it invalid in this collection
)
_SENSORS = (
    Sensor("heart rate", "1/min", ()),
    *(Sensor(f"{at} {s.name}", s.unit, s.axes) for at in ("hand", "chest", "ankle") for s in _UNIT),
)
_INNER = "PAMAP2_Dataset.zip"  # UCI serves an archive that holds this one
_MEMBER, _TOTAL = 2**30, 2**32  # the archive within has some 690 MB, the files that are read 1.6 GB


def read(path: Path, *, channels: Channels = "document", step: int = STEP) -> Raw:
    """The archive, or the one within it -> windows float32 (n, channels, 100), without a test part.

    channels: "document" takes all 52 after time and activity; "valid" the 36 that say how the body moves, without
    orientation (12, invalid), temperature (3) and heart rate (which tell people and the order of activities apart).
    step: rows at 33.3 Hz from the start of a window to that of the next.
    """
    signals = Signals(tuple(s for s in _SENSORS if channels == "document" or len(s.axes) == 3), 100 / EVERY)
    wanted = [2 + i for i, name in enumerate(Signals(_SENSORS, 0).channels) if name in signals.channels]
    archive = Archive(path, Allowance(_MEMBER, _TOTAL))
    if _INNER in archive:
        archive = archive.inner(_INNER)
    folder = "PAMAP2_Dataset/Protocol" if f"PAMAP2_Dataset/Protocol/subject{SUBJECTS[0]}.dat" in archive else "Protocol"
    parts = [_recording(archive, f"{folder}/subject{subject}.dat", wanted, step) for subject in SUBJECTS]
    x, y = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return Raw((x, y), None, signals=signals, subjects=np.repeat(SUBJECTS, [len(y) for _, y in parts]))


def _recording(archive: Archive, name: str, wanted: list[int], step: int) -> tuple[np.ndarray, np.ndarray]:
    """The windows of one subject and their classes."""
    place = archive.place_of(name)
    rows = table(archive.read(name), place, _COLUMNS)
    time = rows[:, 0]
    if np.isnan(time).any() or (np.diff(time) < 0).any():
        at = int(np.isnan(time).argmax() if np.isnan(time).any() else (np.diff(time) < 0).argmax() + 1)
        raise fault(place, f"has the time {time[at]:g} s in line {at + 1}, which does not follow those before it")
    activity = whole(rows[:, 1], (0, *ACTIVITIES), place, "activity")
    lost = [column for column in wanted if np.isnan(rows[:, column]).all()]
    if lost:
        raise fault(place, f"has no value of {Signals(_SENSORS, 0).channels[lost[0] - 2]} (column {lost[0] + 1})")
    run = np.cumsum((np.diff(activity, prepend=0) != 0) | (np.diff(time, prepend=time[0]) > GAP))
    x = filled(rows[:, wanted])[::EVERY].astype(np.float32)
    x, first = cut(x, run[::EVERY], STEPS, step)
    done = activity[::EVERY][first]
    kept = done != 0
    return x[kept], np.searchsorted(ACTIVITIES, done[kept])
