"""The one place that measures how long a call takes: several calls in turns, so that noise hits all alike."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


def compare(calls: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, tuple[float, float]]:
    """{name: (median, 95th percentile)} of milliseconds a call, over `repeats` rounds in which each has its turn.

    A first call is not timed; where there are several, none at the start of a turn is, because the call before it has
    left other weights in the processor's cache.
    A call has the threads of the process, or those that it was made with.
    """
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats):
        for name, call in calls.items():
            if turn == 0 or len(calls) > 1:
                call()
            started = time.perf_counter()
            call()
            spent[name].append(1000 * (time.perf_counter() - started))
    return {name: (float(np.median(found)), float(np.percentile(found, 95))) for name, found in spent.items()}
