"""Mean and 95% interval over seeds: the one summary that every figure in a report goes through."""

import math
from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any


def summary(values: Sequence[float | None]) -> dict[str, Any]:
    """`{"mean", "ci95": [lo, hi], "n", "values"}` of one figure over n seeds, in seed order; ci95 is the t interval.

    A figure that is missing or not finite for any seed leaves mean and ci95 null, because a mean over the seeds that
    survived would flatter; so does n = 0. ci95 is null for n = 1.
    """
    known = [None if v is None or not math.isfinite(v) else float(v) + 0.0 for v in values]  # + 0.0 turns -0.0 to 0.0
    n = len(known)
    whole = n > 0 and None not in known
    centre = mean(known) if whole else None
    ci95 = None
    if whole and n > 1:
        half = _t_quantile(n - 1) * stdev(known) / math.sqrt(n)
        ci95 = [centre - half, centre + half]
    return {"mean": centre, "ci95": ci95, "n": n, "values": known}


def paired(a: Sequence[float | None], b: Sequence[float | None]) -> dict[str, Any]:
    """The summary of a - b, seed by seed. Raises ValueError if the two do not have the same seeds."""
    return summary([None if x is None or y is None else x - y for x, y in zip(a, b, strict=True)])


def _t_quantile(freedom: int) -> float:
    """The 97.5% quantile of Student's t."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.975))
