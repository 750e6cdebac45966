"""Windows of sensor signals: text to numbers, gaps filled from the past, runs cut, channels standardised."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from atelier.data.raw import Signals, fault


def table(content: bytes, place: str, columns: int) -> np.ndarray:
    """Numbers in lines, spaces between them -> float64 (rows, columns). Raises AtelierError naming place and fault."""
    lines = content.splitlines()
    if not content.strip():
        raise fault(place, "is empty")
    try:
        found = np.loadtxt(lines, np.float64, comments=None, ndmin=2)
    except ValueError as error:
        raise fault(place, f"is not lines of {columns} numbers: {' '.join(str(error).split())}") from None
    if found.shape[1] != columns:
        raise fault(place, f"has {found.shape[1]} numbers to a line, where {columns} belong")
    if np.isinf(found).any():
        raise fault(place, f"holds an infinite number in line {np.isinf(found).any(1).argmax() + 1}")
    return found


def whole(numbers: np.ndarray, allowed: Sequence[int], place: str, what: str) -> np.ndarray:
    """The numbers as int64 (n,), if all are among those allowed."""
    odd = ~np.isin(numbers, allowed)
    if odd.any():
        at = int(odd.argmax())
        known = ", ".join(map(str, allowed))
        raise fault(place, f"has the {what} {numbers[at]:g} in line {at + 1}, which is none of {known}")
    return numbers.astype(np.int64)


def filled(x: np.ndarray) -> np.ndarray:
    """x (rows, channels) with every gap (NaN) filled by the channel's last value before it; none before the first."""
    last = np.where(np.isnan(x), 0, np.arange(len(x))[:, None])
    return np.take_along_axis(x, np.maximum.accumulate(last, axis=0), axis=0)


def cut(x: np.ndarray, run: np.ndarray, steps: int, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Windows of a recording x (rows, channels), and the row that each begins at: (n, channels, steps), (n,).

    A window lies in one stretch of rows with the same `run` (rows,); from its start on, one begins every `step` rows.
    """
    edges = np.flatnonzero(np.diff(run, prepend=run[:1] - 1, append=run[-1:] - 1))
    empty = np.empty(0, np.int64)
    first = np.concatenate([empty, *(np.arange(a, b - steps + 1, step) for a, b in itertools.pairwise(edges))])
    if not len(first):
        return np.empty((0, x.shape[1], steps), x.dtype), first
    return np.lib.stride_tricks.sliding_window_view(x, steps, axis=0)[first], first


@dataclass(frozen=True)
class Standard:
    """Mean and standard deviation of every channel, float32 (channels,): what windows are standardised by."""

    signals: Signals
    mean: np.ndarray
    deviation: np.ndarray

    def apply(self, x: np.ndarray) -> np.ndarray:
        """x (n, channels, steps) -> (x - mean) / deviation, float32; what is missing becomes the mean, 0."""
        return np.nan_to_num((x - self.mean[:, None]) / self.deviation[:, None], copy=False, nan=0.0)

    def undo(self, x: np.ndarray) -> np.ndarray:
        """Standardised x (..., channels, steps) in the units of the sensors."""
        return x * self.deviation[:, None] + self.mean[:, None]

    def described(self) -> dict[str, Any]:
        """For about.json: the channels, their units and figures, steps a second."""
        units = [sensor.unit for sensor in self.signals.sensors for _ in sensor.channels]
        figures = {"mean": self.mean.tolist(), "deviation": self.deviation.tolist()}
        return {"channels": self.signals.channels, "units": units, "rate": self.signals.rate} | figures


def standard(x: np.ndarray, rows: np.ndarray, signals: Signals, place: str) -> Standard:
    """Measured on the windows x[rows] of (n, channels, steps), gaps left out; a channel that is constant there gets 1.

    Rounded to float32, so that the order in which a machine adds up does not show in what is stored. Raises
    AtelierError if a channel has no value there.
    """
    figures = np.empty((2, x.shape[1]), np.float32)
    for channel, name in enumerate(signals.channels):  # one at a time: all of them together would be another copy of x
        values = x[rows, channel].astype(np.float64)
        values = values[~np.isnan(values)]
        if not len(values):
            raise fault(place, f"holds no value of {name} in any training window")
        figures[:, channel] = values.mean(), values.std()
    mean, deviation = figures
    return Standard(signals, mean, np.where(deviation > 0, deviation, np.float32(1)))
