"""Runs independent jobs on worker processes or a Dask cluster; shows progress; when one fails, the others finish."""

import os
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from atelier import cpu
from atelier.errors import AtelierError

Progress = tuple[int, int]  # done, of
SECONDS_BETWEEN_LINES = 2.0  # at least, where there is no terminal to draw bars on
SECONDS_OF_SILENCE = 60.0  # at most, while jobs say how far they are
WORTH_SHARING = 50e6  # bytes: jobs that read fewer take less time than processes that have to import torch first


def fan_out(
    call: Callable[[Any], Any],
    jobs: Sequence[Any],
    *,
    workers: int,
    cluster: str | None = None,
    threads: int,
    title: str,
    reads: float = float("inf"),
    progress: Callable[[Any], Progress | None] = lambda job: None,
) -> list[Any]:
    """call(job) for every job, results in the order of jobs. str(job) names a job, progress(job) says how far it is.

    Each job runs with `threads` threads; workers x threads never exceeds the cores: that is slower than waiting.
    With one worker, or if all of them read few bytes (`reads`), they run in this process. `cluster` is the address of a
    Dask scheduler to which they go instead; its workers see the same files and have the same packages and code.
    Raises AtelierError naming the failed jobs once all have ended, or soon if the cluster does not answer.
    """
    if not jobs:
        return []
    workers = min(_fitting(workers, threads), len(jobs))
    if reads < WORTH_SHARING:
        workers, cluster = 1, None
    tasks = ((call, number, job, threads) for number, job in enumerate(jobs))
    if cluster:
        from atelier.cluster import on_cluster

        outcomes = on_cluster(tasks, cluster)
    else:
        outcomes = _here(tasks, workers, threads)
    results: list[Any] = [None] * len(jobs)
    failures: list[str] = []
    with _Display(title, jobs, progress) as display:
        for number, value, failure, trace in outcomes:
            results[number] = value
            if failure:
                failures.append(f"{jobs[number]}: {failure}")
            display.ended(jobs[number], failure, trace)
    if failures:
        more = f"; and {len(failures) - 3} more" if len(failures) > 3 else ""
        raise AtelierError(f"{title}: {len(failures)} of {len(jobs)} jobs failed: {'; '.join(failures[:3])}{more}")
    return results


def beforehand(call: Callable[[Any], Any], argument: Any, *, workers: int, cluster: str | None, threads: int) -> Any:
    """call(argument) on the processes that the next fan_out will use, all of them so that all have what it imports.

    So this process need not import what only they need. Where fan_out would use this process or a cluster, it is here.
    """
    workers = _fitting(workers, threads)
    if workers == 1 or cluster:
        return call(argument)
    from joblib import Parallel, delayed, parallel_config

    with parallel_config(backend="loky", inner_max_num_threads=threads):
        return Parallel(n_jobs=workers, batch_size=1)(delayed(call)(argument) for _ in range(workers))[0]


def _fitting(workers: int, threads: int) -> int:
    return max(1, min(workers, cores() // threads))


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Outcome(NamedTuple):
    """Of a job, by its number: what it gave, or why it failed and, where that was not foreseen, the trace."""

    number: int
    value: Any = None
    failure: str | None = None
    trace: str = ""


def run_one(call: Callable, number: int, job: Any, threads: int) -> Outcome:
    """call(job) in this process, with its threads; errors become part of the outcome."""
    try:
        with cpu.settled(threads):
            return Outcome(number, call(job))
    except AtelierError as error:
        return Outcome(number, failure=str(error))
    except Exception as error:  # one job's fault must not take the others along; it is told at the end
        return Outcome(number, failure=f"{type(error).__name__}: {error}", trace=traceback.format_exc())


def _here(tasks: Iterable[tuple], workers: int, threads: int) -> Iterator[Outcome]:
    if workers == 1:
        yield from (run_one(*task) for task in tasks)
        return
    from joblib import Parallel, delayed, parallel_config
    from joblib.externals.loky.process_executor import BrokenProcessPool

    # After a job that took much memory the worker gives way to a new one, which goes on with the next job.
    warnings.filterwarnings("ignore", "A worker stopped while some jobs", UserWarning)
    with parallel_config(backend="loky", inner_max_num_threads=threads):
        # One job at a time is handed out, so that long and short jobs even out.
        parallel = Parallel(n_jobs=workers, return_as="generator_unordered", batch_size=1)
        try:
            yield from parallel(delayed(_in_a_worker)(os.getpid(), *task) for task in tasks)
        except BrokenProcessPool:
            raise AtelierError(
                "a worker process was killed (is memory short? lower workers in params.yaml); run the same command "
                "again: finished jobs are kept and the others go on from their checkpoints"
            ) from None


def _in_a_worker(parent: int, *task: Any) -> Outcome:
    _end_with(parent)
    return run_one(*task)


def _end_with(parent: int) -> None:
    """End this worker when the process that started it is gone: a killed run must not go on unseen beside the next."""
    if any(thread.name == "end-with-parent" for thread in threading.enumerate()):
        return

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()


class _Display:
    """A bar for all jobs and one for each running job on a terminal; elsewhere a line as jobs end, or each minute."""

    def __init__(self, title: str, jobs: Sequence[Any], progress: Callable[[Any], Progress | None]) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        self.title, self.waiting, self.progress = title, list(jobs), progress
        self.count, self.ended_count, self.started, self.printed = len(jobs), 0, time.monotonic(), 0.0
        console = Console(file=sys.stdout)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self.bars = (
            Bars(*columns, TimeRemainingColumn(), console=console, transient=True) if console.is_terminal else None
        )
        self.tasks: dict[str, Any] = {}
        self.stop, self.lock = threading.Event(), threading.Lock()

    def __enter__(self) -> "_Display":
        if self.bars:
            self.bars.start()
            self.all = self.bars.add_task(self.title, total=self.count)
        self.thread = threading.Thread(target=self._refresh if self.bars else self._break_silence, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()
        if self.bars:
            self.bars.stop()

    def ended(self, job: Any, failure: str | None, trace: str) -> None:
        print(trace, end="", file=sys.stderr, flush=True)
        self.ended_count += 1
        with self.lock:
            self.waiting.remove(job)
            if self.bars:
                self.bars.advance(self.all)
                if str(job) in self.tasks:
                    self.bars.remove_task(self.tasks.pop(str(job)))
        now = time.monotonic()
        due = now - self.printed > SECONDS_BETWEEN_LINES or self.ended_count == self.count
        if failure or (due and not self.bars):
            outcome = f"failed: {failure}" if failure else f"done ({now - self.started:.0f} s)"
            print(f"{self.title} {self.ended_count}/{self.count} {job}: {outcome}", flush=True)
            self.printed = now

    def _refresh(self) -> None:
        while not self.stop.wait(0.5):
            for job in list(self.waiting):
                done = self.progress(job)
                with self.lock:
                    if done and job in self.waiting:
                        if str(job) not in self.tasks:
                            self.tasks[str(job)] = self.bars.add_task(f"  {job}", total=done[1])
                        self.bars.update(self.tasks[str(job)], completed=done[0], total=done[1])

    def _break_silence(self) -> None:
        while not self.stop.wait(SECONDS_OF_SILENCE):
            with self.lock:
                jobs = list(self.waiting)
            running = [f"{job} {done[0]}/{done[1]}" for job in jobs if (done := self.progress(job))]
            if running and time.monotonic() - self.printed > SECONDS_OF_SILENCE / 2:
                print(f"{self.title} {self.ended_count}/{self.count}, so far: {', '.join(running)}", flush=True)
