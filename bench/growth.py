"""How the time grows: with samples and width (seconds of an epoch), with seeds and workers (seconds of a study)."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any

from atelier.fanout import fan_out
from bench.anchors import ANCHORS, ITEMS, SEEDS, Anchor
from bench.atelier_path import Run, fit_anchor
from bench.contender import Contender, Say, alternate, waiting
from bench.gate import serve

SAMPLES = (7_500, 15_000, 30_000, 60_000)
WIDTHS = (100, 200, 400, 800, 1600)
STUDIES = ((1, 2), (2, 2), (4, 2), (8, 2), (SEEDS, 1))  # seeds, workers
STUDY_EPOCHS, STUDY_SAMPLES = 5, 15_000
FULL, BATCHES, _, CNN, LSTM, _ = ANCHORS
Point = dict[str, Any]


@dataclass(frozen=True)
class Whole:
    """A job of a small study, trained from start to end."""

    seed: int
    anchor: Anchor = replace(BATCHES, samples=STUDY_SAMPLES)

    def __str__(self) -> str:
        return f"seed {self.seed}"


def train_whole(job: Whole) -> None:
    fit_anchor(job.anchor, "fp32", job.seed, lambda state: None, STUDY_EPOCHS)


def measure(rounds: int, say: Say, quick: bool = False) -> dict[str, Any]:
    """Points of every series with their median seconds: for samples and width of an epoch, for studies of the whole."""
    scale = 10 if quick else 1
    samples = [n // scale for n in SAMPLES]
    by_samples = []
    for anchor in (FULL, BATCHES) if quick else (FULL, BATCHES, CNN, LSTM):
        # Small nets: as many items at every size, so that every turn is long enough to be timed.
        turns = [max(samples) // n if anchor.kind == "mlp" else 1 for n in samples]
        sized = [anchor.with_samples(n) for n in samples]
        seconds = _epochs(sized, turns, rounds, f"samples of {anchor}", say)
        by_samples += [
            {"job": str(anchor), "samples": n, "seconds": s, "per_60000": s * ITEMS / n}
            for n, s in zip(samples, seconds)
        ]
    wide = [replace(BATCHES, widths=(width,), samples=ITEMS // 4 // scale) for width in WIDTHS]
    seconds = _epochs(wide, [1] * len(wide), rounds, "width of one hidden layer", say)
    by_width = [
        {"width": anchor.widths[0], "per_60000": s * ITEMS / anchor.samples} for anchor, s in zip(wide, seconds)
    ]
    return {"samples": by_samples, "width": by_width, "studies": _studies(rounds, say)}


def _epochs(anchors: Sequence[Anchor], turns: Sequence[int], rounds: int, title: str, say: Say) -> list[float]:
    """Median seconds of an epoch of each, one job of two threads."""

    def start(anchor: Anchor) -> Contender:
        name = f"{anchor.samples} x {'-'.join(map(str, anchor.widths))}"
        return Contender(name, "bench.atelier_path", anchor.dumps(), Run().dumps())

    with waiting(*(partial(start, anchor) for anchor in anchors)) as contenders:
        alternate(contenders, rounds, title, say, turns)
    return [median(contender.seconds) for contender in contenders]


def _studies(rounds: int, say: Say) -> list[Point]:
    def start(seeds: int, workers: int) -> Contender:
        name = f"{seeds} seed{'s' * (seeds > 1)} on {workers}"
        return Contender(name, "bench.growth", json.dumps([seeds, workers]))

    with waiting(*(partial(start, *study) for study in STUDIES)) as contenders:
        alternate(contenders, rounds, "studies", say)
    return [
        {"seeds": seeds, "workers": workers, "seconds": median(contender.seconds)}
        for (seeds, workers), contender in zip(STUDIES, contenders)
    ]


def main() -> None:
    seeds, workers = json.loads(sys.argv[1])
    jobs = [Whole(seed) for seed in range(seeds)]
    serve(lambda _: fan_out(train_whole, jobs, workers=workers, threads=1, title="study"))


if __name__ == "__main__":
    from bench.growth import main as importable  # so that workers find `train_whole` by its module's name

    importable()
