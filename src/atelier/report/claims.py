"""Claims -> verdicts. Everything is paired by seed and judged by the 95% interval of the estimate, never by its mean.

The estimate is turned so that positive speaks for the claim. With lo and hi the ends of its interval and m the margin:
  greater, trend, at-epoch: holds if lo > m, does not hold if hi < m;
  equal:                    holds if -m < lo and hi < m, does not hold if lo > m or hi < -m;
  anything else is undecided: an interval that touches a bound, as [0, 0] does with no margin; a single seed, which has
  no interval. So a claim and its reverse never both hold and, without a margin, never both fail.
"""

from collections.abc import Sequence
from typing import Any

from atelier import params, stats
from atelier.errors import AtelierError
from atelier.report.results import Results, Values

HOLDS, UNDECIDED, FAILS = "holds", "undecided", "does not hold"


def settle(results: Results, claims: Sequence[params.Claim], timed: bool = False) -> list[dict[str, Any]]:
    """One entry of claims.json per claim, in order; `timed`: of those about seconds, which are not in claims.json.

    Raises AtelierError for a metric that a model lacks, an epoch that was not evaluated, or an id that stands twice.
    """
    entries = []
    for index, claim in enumerate(claims):
        if claim.compare.timed != timed:
            continue
        where = f"params.yaml: studies.{results.study}.claims.{index}"
        entry = _settle_one(results, claim, f"{where}.compare")
        entry["id"] = claim.id or f"{results.study}-{index + 1}"
        if entry["id"] in {e["id"] for e in entries}:
            raise AtelierError(f"{where}.id: {entry['id']} is the id of an earlier claim; give each its own")
        entries.append(entry)
    return entries


def verdict(kind: str, margin: float, ci95: Sequence[float] | None) -> str:
    """The rule at the head of this file. Ends are rounded to 1e-12, so that 0.97 - 0.96 does not exceed 0.01."""
    if ci95 is None:
        return UNDECIDED
    lo, hi = (round(end, 12) for end in ci95)
    if kind == "equal":
        return HOLDS if -margin < lo and hi < margin else FAILS if lo > margin or hi < -margin else UNDECIDED
    return HOLDS if lo > margin else FAILS if hi < margin else UNDECIDED


def foremost(verdicts: Sequence[str]) -> str:
    """What a row with several claims comes to: the first of does not hold, undecided, holds; or "no claim"."""
    return next((v for v in (FAILS, UNDECIDED, HOLDS) if v in verdicts), "no claim")


def _settle_one(results: Results, claim: params.Claim, where: str) -> dict[str, Any]:
    compare = claim.compare
    kind, oriented, sides = _estimate(results, compare, where)
    found = stats.summary(oriented)
    return {
        "row": claim.row,
        "says": claim.says,
        "kind": kind,
        "metric": compare.metric,
        "models": [*compare.models, *([compare.floor] if compare.floor else [])],
        "margin": compare.margin,
        "compared": [stats.summary(side)["mean"] for side in sides],
        "estimate": found["mean"],
        "ci95": found["ci95"],
        "n": found["n"],
        "verdict": verdict(kind, compare.margin, found["ci95"]),
    }


def _estimate(results: Results, compare: params.Compare, where: str) -> tuple[str, Values, list[Values]]:
    """The kind of claim; its estimate per seed, positive where it speaks for it (for equal: first - second); and what
    was compared, one value per seed each, as the claim names them.
    """

    def values(model: str, epoch: int | None = None) -> Values:
        if epoch is None:
            return results.values(model, compare.metric, where)
        return results.at_epoch(model, compare.metric, epoch, where)

    if compare.equal:
        sides = [values(model) for model in compare.equal]
        return "equal", _minus(*sides), sides
    if compare.over:
        sides = [values(model) for model in compare.over]
        return "trend", _turned([_slope(seed) for seed in zip(*sides, strict=True)], compare.direction), sides
    if compare.of:
        sides = [values(compare.of, epoch) for epoch in (compare.start, compare.end)]
        return "at-epoch", _turned(_minus(*sides[::-1]), compare.direction), sides
    sides = [values(compare.higher or compare.lower, compare.epoch)]
    if compare.than:
        sides.append([v if v is None else compare.times * v for v in values(compare.than, compare.epoch)])
    elif compare.floor:
        floor = results.floor(compare.floor, compare.floor_metric or compare.metric, where)
        sides.append([floor] * len(sides[0]))
    else:
        sides.append([compare.bound] * len(sides[0]))
    direction = "rises" if compare.higher else "falls"
    return "at-epoch" if compare.epoch else "greater", _turned(_minus(*sides), direction), sides


def _minus(a: Values, b: Values) -> Values:
    return stats.paired(a, b)["values"]


def _turned(values: Values, direction: str) -> Values:
    return [v if v is None or direction == "rises" else 0.0 - v for v in values]  # and no -0.0


def _slope(y: Sequence[float | None]) -> float | None:
    """Least-squares slope per step over equally spaced models."""
    if None in y:
        return None
    x = [i - (len(y) - 1) / 2 for i in range(len(y))]
    return sum(a * b for a, b in zip(x, y, strict=True)) / sum(a * a for a in x)
