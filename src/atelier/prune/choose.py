"""Which nodes stay: how many of each layer, then the best of them; and which level is the strongest that does no harm.

Another rule for how many, such as one that ranks all layers together, takes the place of `uniform`.
"""

from collections.abc import Mapping
from fractions import Fraction
from math import floor

import numpy as np

from atelier.errors import AtelierError

POINT = 0.01  # accuracy that a pruned net may lose
SHARE = 0.05  # share by which a pruned net's mean absolute error may grow, where there is no accuracy


def uniform(widths: Mapping[str, int], level: float, model: str) -> dict[str, int]:
    """How many nodes of each layer stay when the same fraction `level` of its original width goes; halves stay.

    Raises AtelierError if a layer would lose all its nodes.
    """
    stay = 1 - Fraction(str(level))  # the fraction as it is written: 1 - 0.9 in binary is less than a tenth
    counts = {name: floor(width * stay + Fraction(1, 2)) for name, width in widths.items()}
    for name, count in counts.items():
        if count < 1:
            raise AtelierError(
                f"pruning {model} at level {level:g} leaves no node of its layer {name}, which has {widths[name]}; "
                "lower the level or widen the layer"
            )
    return counts


def best(scores: Mapping[str, np.ndarray], counts: Mapping[str, int]) -> dict[str, np.ndarray]:
    """The indices, rising, of the `counts` highest scores of each layer; of equal scores the first ones stay."""
    return {name: np.sort(np.argsort(-score, kind="stable")[: counts[name]]) for name, score in scores.items()}


def harmless(metric: str, found: float, dense: float) -> bool:
    """Whether a figure is within one point of accuracy, or 5 % of mean absolute error, of the dense net's."""
    rounding = 1e-9
    if metric == "accuracy":
        return found >= dense - POINT - rounding
    return found <= dense * (1 + SHARE) + rounding


def strongest(metric: str, by_level: Mapping[float, float], dense: float) -> float | None:
    """The largest level whose figure is harmless; None if there is none."""
    return max((level for level, found in by_level.items() if harmless(metric, found, dense)), default=None)
