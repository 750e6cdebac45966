"""From what was measured to reports/bench.json and to the verdicts: plain arithmetic on medians."""

from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from bench.anchors import CORES, ITEMS, SEEDS

Measured = dict[str, Any]


def seconds(anchor: Measured, contender: Measured) -> list[float]:
    """Seconds for each model and 60,000 items, by round. A study's turn trains as many models as it has workers."""
    scale = ITEMS / anchor["samples"] / contender["side_by_side"]
    return [turn * scale for turn in contender["seconds"]]


def limit(limits: list[Measured], precision: str, threads: int = CORES) -> float:
    """GFLOP/s of square matrix products, the best of what was measured before and after."""
    return max(row["gflops"] for row in limits if (row["precision"], row["threads"]) == (precision, threads))


def rows(anchors: list[Measured], limits: list[Measured]) -> list[Measured]:
    """One row for each way of atelier's and each peer of an anchor; both sides' seconds are medians over the rounds.

    share_of_limit: operations of the matrix products and convolutions, by seconds x limit of both cores.
    """
    found = []
    for anchor in anchors:
        peers = [contender for contender in anchor["contenders"] if contender["peer"]]
        for ours in (contender for contender in anchor["contenders"] if not contender["peer"]):
            mine = seconds(anchor, ours)
            gflop = anchor["flops_per_item"] * ITEMS / 1e9
            share = gflop / (median(mine) * limit(limits, ours["precision"]))
            for peer in peers:
                theirs = seconds(anchor, peer)
                row = {"job": anchor["job"], "batch": anchor["batch"]}
                row |= {"precision": ours["precision"], "seeds": ours["seeds"], "peer": peer["name"]}
                row |= {"seconds": median(mine), "seconds_low": min(mine), "seconds_high": max(mine)}
                row |= {"peer_seconds": median(theirs)}
                row |= {"peer_seconds_low": min(theirs), "peer_seconds_high": max(theirs)}
                row |= {"ratio": median(theirs) / median(mine), "share_of_limit": share, "rounds": len(mine)}
                row |= {"peak_memory_mib": ours["peak_memory_mib"], "peer_peak_memory_mib": peer["peak_memory_mib"]}
                found.append(row)
    return found


@dataclass(frozen=True)
class Target:
    """What a job should reach against Keras: a ratio of seconds, or a share of the machine's limit."""

    job: str
    batch: int | str
    precision: str
    least: float
    seeds: tuple[int, ...] = (1, SEEDS)
    figure: Literal["ratio", "share_of_limit"] = "ratio"


TARGETS = (
    Target("mlp-300-100", 128, "fp32", 4.0, (SEEDS,)),
    Target("mlp-300-100", 128, "fp32", 2.5, (1,)),
    Target("mlp-300-100", "full", "fp32", 2.0),
    Target("mlp-300-100", "full", "fp32", 0.6, figure="share_of_limit"),
    Target("mlp-300-100", "full", "bf16", 4.0),
    Target("mlp-800-600-400-200", 256, "fp32", 2.0),
    Target("mlp-800-600-400-200", 256, "bf16", 4.0),
    Target("cnn-32-64", 128, "fp32", 1.3),
    Target("cnn-32-64", 128, "bf16", 2.5),
    Target("lstm-128", 128, "fp32", 2.0, (SEEDS,)),
    Target("gru-128", 128, "fp32", 2.0, (SEEDS,)),
)
LINEAR_WITHIN = 0.10


@dataclass(frozen=True)
class Verdict:
    """A target, what was wanted and measured as text, and whether that is enough.

    Of ratios also what they are against Keras's fastest round, and what they would be at the machine's limit.
    """

    target: str
    wanted: str
    measured: str
    met: bool
    key: tuple = ()
    against_fastest: float | None = None
    at_limit: float | None = None
    least: float | None = None


def verdicts(found: list[Measured], growth: Measured) -> list[Verdict]:
    """One for each target whose job was measured, then memory and linearity."""
    against_keras = [row for row in found if row["peer"] == "keras"]
    verdicts = []
    for target in TARGETS:
        for row in against_keras:
            same = (row["job"], row["batch"], row["precision"]) == (target.job, target.batch, target.precision)
            if same and row["seeds"] in target.seeds:
                ratio = target.figure == "ratio"
                name = f"{target.job}, batch {target.batch}, {target.precision}, {setting(row['seeds'])}"
                wanted = f"{target.least:g} x Keras" if ratio else f"{target.least:.0%} of the limit"
                value = row[target.figure]
                measured = f"{value:.2f} x" if ratio else f"{value:.0%}"
                more = {"key": (row["job"], row["batch"], row["precision"])}
                if ratio:
                    more["against_fastest"] = row["peer_seconds_low"] / row["seconds"]
                    more |= {"at_limit": row["ratio"] / row["share_of_limit"], "least": target.least}
                verdicts.append(Verdict(name, f"at least {wanted}", measured, value >= target.least, **more))
    if against_keras:
        shares = [row["peak_memory_mib"] / row["peer_peak_memory_mib"] for row in against_keras]
        within, n = sum(share <= 1 for share in shares), len(shares)
        measured = f"{min(shares):.0%} to {max(shares):.0%} of it, within it in {within} of {n} rows"
        verdicts.append(Verdict("peak memory, every job", "at most Keras's", measured, within == n))
    worst = {}
    for point in relative_to_largest(growth["samples"]):
        worst[point["job"]] = max(worst.get(point["job"], 0.0), abs(point["relative"] - 1))
    for job, deviation in worst.items():
        name, wanted = f"linear in samples: {job}", f"within {LINEAR_WITHIN:.0%} of the largest set's"
        verdicts.append(Verdict(name, wanted, f"{deviation:.0%} off at most", deviation <= LINEAR_WITHIN))
    return verdicts


def busy(contender: Measured) -> float:
    """Share of both cores' time in which it computed; the median over the rounds."""
    return median(cpu / turn for cpu, turn in zip(contender["cpu_seconds"], contender["seconds"])) / CORES


def relative_to_largest(points: list[Measured]) -> list[Measured]:
    """Points of growth in samples, each with its seconds for an item relative to those of the job's largest set."""
    largest = {}
    for point in sorted(points, key=lambda point: point["samples"]):
        largest[point["job"]] = point["per_60000"]
    return [point | {"relative": point["per_60000"] / largest[point["job"]]} for point in points]


def setting(seeds: int) -> str:
    return "one model" if seeds == 1 else f"study of {seeds} seeds"
