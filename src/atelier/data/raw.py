"""What the readers of published formats give, and how they say that a file is not what it should be."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from atelier.errors import AtelierError

Labelled = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Sensor:
    """A sensor, one channel for each of its axes (of the sensor itself if it has none), in this unit ("" for none)."""

    name: str
    unit: str
    axes: tuple[str, ...] = ("x", "y", "z")

    @property
    def channels(self) -> list[str]:
        return [f"{self.name} {axis}" for axis in self.axes] or [self.name]


@dataclass(frozen=True)
class Signals:
    """What the channels of windows are, sensor by sensor, and how many steps make a second."""

    sensors: tuple[Sensor, ...]
    rate: float

    @property
    def channels(self) -> list[str]:
        return [channel for sensor in self.sensors for channel in sensor.channels]

    def by_sensor(self) -> Iterator[tuple[Sensor, slice]]:
        """Each sensor with the places of its channels."""
        stop = 0
        for sensor in self.sensors:
            start, stop = stop, stop + len(sensor.channels)
            yield sensor, slice(start, stop)


@dataclass(frozen=True)
class Raw:
    """Items as published: x (n, *shape) and y int64 (n,). No `test` where none is set apart.

    Images are uint8 and a pixel is x / scale. Windows have `signals`: x is float32 (n, channels, steps) in the units of
    the sensors, NaN until a channel's first value. `subjects`: whose each training item is, int64 (n,), if known.
    """

    train: Labelled
    test: Labelled | None
    scale: float = 1.0
    signals: Signals | None = None
    subjects: np.ndarray | None = None


def fault(place: Path | str, what: str) -> AtelierError:
    """The error for a published file, or a part of one, that is not what it should be."""
    return AtelierError(f"{place} {what}; delete it and download the data set again")
