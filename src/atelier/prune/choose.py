"""Which nodes stay: how many of each layer, then its best; and which level is the strongest that does no harm."""

from collections.abc import Mapping
from fractions import Fraction
from math import floor

import numpy as np
from torch import nn

from atelier.errors import AtelierError
from atelier.layers import Nodes

GLOBAL = "global-"  # before the name of a score by which all layers are ranked together
SHARE = 0.05  # share by which a pruned net's mean absolute error may grow, where there is no accuracy


def uniform(widths: Mapping[str, int], level: float, model: str) -> dict[str, int]:
    """How many nodes of each layer stay when the same fraction `level` of its original width goes; halves stay.

    Raises AtelierError if a layer would lose all its nodes.
    """
    counts = {name: _staying(width, level) for name, width in widths.items()}
    for name, count in counts.items():
        if count < 1:
            raise AtelierError(
                f"pruning {model} at level {level:g} leaves no node of its layer {name}, which has {widths[name]}; "
                "lower the level or widen the layer"
            )
    return counts


def across(scores: Mapping[str, np.ndarray], widths: Mapping[str, int], level: float, model: str) -> dict[str, int]:
    """How many nodes of each layer stay when all layers are ranked together and the fraction `level` of all nodes goes.

    widths: of the net before any pruning, which the fraction counts; halves stay. Each layer's scores are divided by
    their L2 norm first (Molchanov et al. 2017, section 2.2). The best node of each layer stays, whatever its rank; of
    equal scores the first ones do.

    Raises AtelierError if there are more layers than nodes to stay.
    """
    stay = _staying(sum(widths.values()), level)
    if stay < len(scores):
        raise AtelierError(
            f"pruning {model} at level {level:g} leaves {stay} of its {sum(widths.values())} nodes, but each of its "
            f"{len(scores)} layers keeps one; lower the level or widen a layer"
        )
    counts = dict.fromkeys(scores, 1)
    relative = {name: score / (np.linalg.norm(score) or 1.0) for name, score in scores.items()}  # a layer may be all 0
    others = [(-value, name) for name, score in relative.items() for value in np.sort(score)[-2::-1]]
    for _, name in sorted(others, key=lambda other: other[0])[: stay - len(scores)]:
        counts[name] += 1
    return counts


def counts(
    criterion: str, scores: Mapping[str, np.ndarray], widths: Mapping[str, int], level: float, model: str
) -> dict[str, int]:
    """How many nodes of each layer stay: ranked across layers if the criterion says so, else as many of each."""
    if criterion.startswith(GLOBAL):
        return across(scores, widths, level, model)
    return uniform(widths, level, model)


def candidates(model: nn.Module, inputs: bool) -> list[Nodes]:
    """The nodes that may go: those that layers compute; with `inputs` also the given ones.

    Flattened maps take the place of the maps that they are of, with whom they share their reader's axis.
    """
    given = [nodes for nodes in model.nodes() if nodes.given and inputs]
    taken = {reader.tensor for nodes in given for reader in nodes.readers}
    computed = (nodes for nodes in model.nodes() if not nodes.given)
    return [nodes for nodes in computed if not taken & {reader.tensor for reader in nodes.readers}] + given


def best(scores: Mapping[str, np.ndarray], counts: Mapping[str, int]) -> dict[str, np.ndarray]:
    """The indices, rising, of the `counts` highest scores of each layer; of equal scores the first ones stay."""
    return {name: np.sort(np.argsort(-score, kind="stable")[: counts[name]]) for name, score in scores.items()}


def _staying(width: int, level: float) -> int:
    stay = 1 - Fraction(str(level))  # the fraction as it is written: 1 - 0.9 in binary is less than a tenth
    return floor(width * stay + Fraction(1, 2))


def harmless(metric: str, found: float, dense: float, margin: float) -> bool:
    """Whether a figure is within the margin of accuracy, or 5 % of mean absolute error, of the dense net's."""
    rounding = 1e-9
    if metric == "accuracy":
        return found >= dense - margin - rounding
    return found <= dense * (1 + SHARE) + rounding


def strongest(metric: str, by_level: Mapping[float, float], dense: float, margin: float) -> float | None:
    """The largest level whose figure is harmless; None if there is none."""
    return max((level for level, found in by_level.items() if harmless(metric, found, dense, margin)), default=None)
