"""In which order a net meets its levels. Fractions always count the nodes of the dense net."""

from collections.abc import Sequence
from typing import NamedTuple


class Step(NamedTuple):
    """Prune to `level` the fine-tuned net of level `start` (0.0: the dense net), as the `turn`-th fine-tuning."""

    start: float
    level: float
    turn: int


def rounds(schedule: str, levels: Sequence[float]) -> list[list[Step]]:
    """Steps in rounds; those of a round do not depend on each other.

    one-shot, gradual: every level from the dense net; iterative: each from the fine-tuned net of the level before.
    """
    if schedule in ("gradual", "one-shot"):
        return [[Step(0.0, level, 1) for level in levels]]
    if schedule == "iterative":
        starts = (0.0, *levels)
        return [[Step(start, level, turn)] for turn, (start, level) in enumerate(zip(starts, levels, strict=False), 1)]
    raise ValueError(f"there is no pruning schedule {schedule}")
