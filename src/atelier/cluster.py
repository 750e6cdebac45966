"""Runs jobs on a Dask cluster: what a job carries to a process that this run did not start, and what may go wrong.

joblib hands the jobs out, as it does on one machine (fanout.py).
"""

import asyncio
import functools
import hashlib
import os
import pickle
import platform
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from atelier import paths
from atelier.errors import AtelierError
from atelier.fanout import Outcome, run_one

SECONDS_TO_ANSWER = 5.0  # for a scheduler
SECONDS_FOR_WORKERS = 30.0  # of a cluster to appear, the first one or one in place of those that died
AGREE = ("numpy", "scikit-learn", "scipy", "torch")  # packages whose versions results depend on
KILLED = "each worker that ran it was killed (is memory short there?)"
ALONE = threading.Lock()  # a process has one seed, one number of threads and one working directory


def on_cluster(tasks: Iterable[tuple], address: str) -> Iterator[Outcome]:
    """The outcomes, as they end, of tasks (call, number, job, threads) done by the workers of that scheduler."""
    from concurrent.futures import CancelledError

    from joblib import Parallel, delayed, parallel_config

    origin = _Origin(str(paths.root()), str(paths.home()), environment())
    # As bytes, a job is opened by a worker that has the right code, and by no one before, not even the scheduler.
    sealed = [(number, pickle.dumps((call, job)), threads) for call, number, job, threads in tasks]
    with _client(address) as client, parallel_config(backend=_backend(client)):

        def run(some: Iterable[tuple]) -> Iterator[Outcome]:
            # All are handed out at once, so that workers that come later get some.
            parallel = Parallel(return_as="generator_unordered", batch_size=1, pre_dispatch="all")
            return parallel(delayed(_far_away)(origin, *task) for task in some)

        blamed = []
        try:
            for outcome in run(sealed):
                if outcome.failure == KILLED:
                    blamed.append(sealed[outcome.number])
                else:
                    yield outcome
            for task in blamed:  # Dask blames jobs that only waited at a worker when it died; alone, none does
                yield from run([task])
        except CancelledError:
            raise AtelierError(
                f"{address}: the connection to the cluster was lost; run the same command again: finished jobs are "
                "kept and the others go on from their checkpoints"
            ) from None


@dataclass(frozen=True)
class _Origin:
    """What a job must find again on another machine: the project's folders, packages and code."""

    root: str
    home: str
    environment: dict[str, str]


@contextmanager
def _client(address: str) -> Iterator[Any]:
    """Of a scheduler that answers, and whose workers run one job each."""
    where = f"params.yaml: cluster is {address}"
    if not find_spec("distributed"):
        raise AtelierError(f"{where}, which needs dask: pip install --editable '.[cluster]' in the project folder")
    from distributed import Client, rpc
    from distributed.security import Security

    async def ask() -> None:
        """What listens there may be no scheduler, for whose answer Client would wait for ever."""
        secured = Security().get_connection_args("client")
        async with asyncio.timeout(SECONDS_TO_ANSWER), rpc(address, connection_args=secured) as scheduler:
            await scheduler.identity()

    try:
        asyncio.run(ask())
    except (OSError, TypeError) as error:  # a type error: tls without its keys
        reason = f" ({error})" if str(error) else ""
        raise AtelierError(f"{where}, where no scheduler answers{reason}; start one there: dask scheduler") from None
    with Client(address, timeout=SECONDS_TO_ANSWER, set_as_default=False) as client:
        busy = [worker for worker, threads in client.nthreads().items() if threads > 1]
        if busy:
            raise AtelierError(f"{where}, whose worker {busy[0]} has several threads; start dask worker --nthreads 1")
        yield client


def _backend(client: Any) -> Any:
    """joblib's backend for Dask, with two gaps closed."""
    from distributed.scheduler import KilledWorker
    from joblib._dask import DaskDistributedBackend

    class Backend(DaskDistributedBackend):
        def effective_n_jobs(self, n_jobs: int) -> int:
            """Of one worker, joblib would run the jobs here."""
            try:
                return max(2, super().effective_n_jobs(n_jobs))
            except TimeoutError:
                address = client.scheduler.address
                raise AtelierError(f"{address}: no workers there; start dask worker {address} --nthreads 1") from None

        def submit(self, func: Any, callback: Callable | None = None) -> Any:
            """A job whose workers died is not called back by joblib, which then waits for ever."""

            def ended(future: Any) -> None:
                if error := future.exception():
                    ((_, (_, number, *_), _),) = func.items
                    reason = KILLED if isinstance(error, KilledWorker) else " ".join(str(error).split())
                    callback([Outcome(number, failure=reason)])

            future = super().submit(func, callback)
            future.add_done_callback(ended)
            return future

    return Backend(client=client, wait_for_workers_timeout=SECONDS_FOR_WORKERS)


def _far_away(origin: _Origin, number: int, sealed: bytes, threads: int) -> Outcome:
    """In a worker that was started elsewhere and outlives this run: it may have other code loaded than there is now."""
    mine = environment()
    other = [name for name, value in origin.environment.items() if mine.get(name) != value]
    if other:
        remedy = "install requirements.lock and this code there and restart it"
        return Outcome(number, failure=f"the worker on {platform.node()} has another {', '.join(other)}; {remedy}")
    if not Path(origin.root).is_dir():
        remedy = "the cluster must see the project folder under the same path"
        return Outcome(number, failure=f"{origin.root}: not there on {platform.node()}; {remedy}")
    with ALONE, chdir(origin.root):
        os.environ["DVC_ROOT"] = origin.home
        return run_one(_opened, number, sealed, threads)


def _opened(sealed: bytes) -> Any:
    """Sealed, so that versions are compared before any of it is loaded. A pickle runs what its sender wants: the
    scheduler's network is trusted, and Dask itself unpickles all that comes from there.
    """
    call, job = pickle.loads(sealed)
    return call(job)


@functools.cache  # modules are read once too
def environment() -> dict[str, str]:
    """Version of everything that two processes must share to give equal results: Python, packages, this package."""
    package = Path(__file__).parent
    sources = {path.relative_to(package).as_posix(): path.read_bytes() for path in sorted(package.rglob("*.py"))}
    digest = hashlib.sha256(repr(sources).encode()).hexdigest()
    return {"python": platform.python_version(), "atelier": digest} | {name: version(name) for name in AGREE}
