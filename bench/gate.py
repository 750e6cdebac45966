"""The timed side's half of the conversation: a training stops between two epochs until it is told to go on.

Orders come as lines on standard input, a number of epochs each; answers go as JSON lines to standard output. What a
library prints goes to standard error. The clock runs from an order to the end of its last epoch, so start-up, loading
and compiling, which happen before the first answer, are not in it.
"""

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

PR_SET_PDEATHSIG = 1  # prctl.h


class Gate:
    def __init__(self) -> None:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # nobody is left waiting when the benchmark is killed
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self._left, self._begun = 1, time.perf_counter()

    def after_epoch(self) -> None:
        """Call it at the end of every epoch. The first one warms up, and its end says that all is ready."""
        self._left -= 1
        if self._left == 0:
            self.say(seconds=time.perf_counter() - self._begun)
            self._left = self.order()
            self._begun = time.perf_counter()

    def say(self, **answer: Any) -> None:
        print(json.dumps(answer), file=self._out, flush=True)

    def order(self) -> int:
        """The next number of epochs; the process ends when there are no more orders."""
        line = sys.stdin.readline()
        if not line:
            os._exit(0)
        return int(line)


def serve(turn: Callable[[int], Any]) -> None:
    """For work that is a function and no training under way: turn(1) to warm up, then turn(n) for every order."""
    gate, n = Gate(), 1
    while True:
        begun = time.perf_counter()
        turn(n)
        gate.say(seconds=time.perf_counter() - begun)
        n = gate.order()
