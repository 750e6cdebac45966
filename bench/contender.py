"""Processes that wait for their turn, so that every measurement is an alternation: one runs, the others are stopped."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from atelier.errors import AtelierError

MIB = 1024  # in the kernel's kB
PEER_PYTHON = Path(".venv-bench/bin/python")
ENVIRONMENT = {
    "KERAS_BACKEND": "tensorflow",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "CUDA_VISIBLE_DEVICES": "",
    "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1",  # every run of torch.compile pays for compiling
}
Say = Callable[[str], None]


class Contender:
    """A module run with `arguments` in a process group of its own; bench.gate is the other end of its pipes.

    The constructor returns when it has warmed up; `peak_memory_mib` is the most that was in use until then.
    """

    def __init__(self, name: str, module: str, *arguments: str, python: Path | None = None) -> None:
        self.name, self.seconds, self.cpu_seconds = name, [], []
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115, it is closed in end()
        environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"} | ENVIRONMENT
        command = [str(python or sys.executable), "-m", module, *arguments]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self._log, "text": True}
        self._process = subprocess.Popen(command, env=environment, process_group=0, **pipes)
        self._peak = self._largest = 0.0
        ready = threading.Event()
        watch = threading.Thread(target=self._watch_memory, args=(ready,))
        watch.start()
        try:
            self.warm_up_seconds = self._answer()["seconds"]
        finally:
            ready.set()
            watch.join()
        self._pause()

    @property
    def peak_memory_mib(self) -> float:
        return round(self._peak, 1)

    @property
    def largest_process_mib(self) -> float:
        """VmHWM of the largest process: the kernel's own peak, libraries and shared data counted in full."""
        return round(self._largest, 1)

    def run(self, epochs: int) -> float:
        """Seconds of so many epochs, everyone else being stopped. 0: on to the next jobs of a study, not timed."""
        return self.timed(epochs)[0]

    def timed(self, epochs: int) -> tuple[float, float]:
        """The same, and the seconds that its threads computed: on two busy cores twice as many."""
        before = cpu_seconds(self._process.pid)
        self._signal(signal.SIGCONT)
        self._process.stdin.write(f"{epochs}\n")
        self._process.stdin.flush()
        seconds = self._answer()["seconds"]
        self._pause()
        return seconds, cpu_seconds(self._process.pid) - before

    def end(self) -> None:
        self._signal(signal.SIGKILL)
        self._process.wait()
        self._log.close()

    def _pause(self) -> None:
        """Stop its processes and wait until they are: on a busy machine that takes a moment."""
        self._signal(signal.SIGSTOP)
        while any(state not in "TXZ" for _, state, _ in _members(self._process.pid)):
            time.sleep(0.001)

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        answer = json.loads(line) if line else {"error": "it ended"}
        if "error" in answer:
            self._log.seek(0)
            tail = self._log.read().strip().splitlines()[-15:]
            print(*tail, sep="\n", file=sys.stderr)
            self.end()
            raise AtelierError(f"{self.name} failed: {answer['error']}; its last lines stand above")
        return answer

    def _watch_memory(self, ready: threading.Event) -> None:
        while not ready.wait(0.05):
            total, largest = memory(self._process.pid)
            self._peak, self._largest = max(self._peak, total), max(self._largest, largest)


def memory(group: int) -> tuple[float, float]:
    """MiB that a process group uses, and the VmHWM of its largest process.

    The sum is of proportional shares (PSS) of anonymous and shared memory, and the file pages (libraries, mapped data)
    of the process that has most: the group shares them. Their PSS would depend on the other contenders that wait.
    """
    own, mapped, largest = 0, 0, 0
    for folder, *_ in _members(group):
        try:
            rollup, status = _kilobytes(folder / "smaps_rollup"), _kilobytes(folder / "status")
        except OSError:  # it ended meanwhile
            continue
        own += rollup.get("Pss_Anon", 0) + rollup.get("Pss_Shmem", 0)
        mapped, largest = max(mapped, status.get("RssFile", 0)), max(largest, status.get("VmHWM", 0))
    return (own + mapped) / MIB, largest / MIB


def cpu_seconds(group: int) -> float:
    """Seconds that the threads of a group's processes have computed, in the kernel too, since they were started."""
    return sum(ticks for *_, ticks in _members(group)) / os.sysconf("SC_CLK_TCK")


def _members(group: int) -> Iterator[tuple[Path, str, int]]:
    """The folder in /proc, the state, as in "T" for stopped, and the clock ticks used, of every process of a group."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it ended meanwhile
            fields = stat.read_text().rpartition(")")[2].split()  # from the third of proc_pid_stat(5) on
            if int(fields[2]) == group:
                yield stat.parent, fields[0], int(fields[11]) + int(fields[12])


def _kilobytes(path: Path) -> dict[str, int]:
    pairs = (line.split(":", 1) for line in path.read_text().splitlines() if line.endswith(" kB"))
    return {name: int(value.split()[0]) for name, value in pairs}


@contextmanager
def waiting(*started: Callable[[], Contender]) -> Iterator[list[Contender]]:
    """Contenders, started one after the other so that each warms up alone; all are ended in any case."""
    contenders: list[Contender] = []
    try:
        for start in started:
            contenders.append(start())
        yield contenders
    finally:
        for contender in contenders:
            contender.end()


def alternate(
    contenders: Sequence[Contender],
    rounds: int,
    title: str,
    say: Say,
    turns: Sequence[int] | None = None,
    studies: Sequence[Contender] = (),
) -> None:
    """Go round the contenders, one turn each (so many epochs, or 1); `seconds`, `cpu_seconds` gather those of an epoch.

    studies: those that train their jobs in two parts, the second of which begins in the middle of the rounds.
    """
    for number in range(1, rounds + 1):
        if number == rounds // 2 + 1 and rounds > 1:
            for contender in studies:
                contender.run(0)
        for contender, epochs in zip(contenders, turns or [1] * len(contenders)):
            seconds, computed = contender.timed(epochs)
            contender.seconds.append(seconds / epochs)
            contender.cpu_seconds.append(computed / epochs)
        shown = ", ".join(f"{contender.name} {contender.seconds[-1]:.3g}" for contender in contenders)
        say(f"{title}, round {number} of {rounds}: {shown} s")
