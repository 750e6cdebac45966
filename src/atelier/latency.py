"""The one place that measures how long calls take: several in turns, in ever another order, so noise hits all alike."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


def compare(calls: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, tuple[float, float]]:
    """{name: (median, 95th percentile)} of milliseconds a call, over `repeats` rounds in which each has its turn.

    The first call is not timed. Where there are several, the first of each turn is not: another call has left its own
    weights in the processor's cache. The order of a round is drawn: a long call may cost the next one the processor.
    A call has the threads of the process, or those that it was made with.
    """
    spent: dict[str, list[float]] = {name: [] for name in calls}
    rng = np.random.default_rng(0)
    for turn in range(repeats):
        for name in rng.permutation(list(calls)):
            call = calls[name]
            if turn == 0 or len(calls) > 1:
                call()
            started = time.perf_counter()
            call()
            spent[name].append(1000 * (time.perf_counter() - started))
    return {name: (float(np.median(found)), float(np.percentile(found, 95))) for name, found in spent.items()}
