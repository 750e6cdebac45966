"""Jobs on worker processes: the same results as in one, whoever fails or dies."""

import os
import shutil
import signal
import time
from dataclasses import dataclass

import pytest
from conftest import contents, write_params
from joblib.externals.loky import get_reusable_executor

from atelier import fanout, paths
from atelier.errors import AtelierError
from atelier.fanout import fan_out
from atelier.stages import train

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def many_cores(monkeypatch):
    """Room for three workers on any machine, and a line for every job."""
    monkeypatch.setattr(fanout, "cores", lambda: 4)
    monkeypatch.setattr(fanout, "SECONDS_BETWEEN_LINES", -1)


@pytest.fixture(scope="module", autouse=True)
def end_workers():
    """One test's workers are the next one's, because starting them takes seconds."""
    yield
    get_reusable_executor().shutdown(wait=True, kill_workers=True)


@dataclass(frozen=True)
class Task:
    number: int

    def __str__(self) -> str:
        return f"task {self.number}"


def square(task: Task) -> tuple[int, int, int]:
    """Later tasks end earlier. Also the process and its threads."""
    import torch

    time.sleep(0.05 * max(0, 3 - task.number))
    if task.number == 13:
        raise AtelierError("thirteen: not a number to square; give another")
    if task.number == 14:
        raise ZeroDivisionError("by nothing")
    if task.number == 99:
        os.kill(os.getpid(), signal.SIGKILL)
    return task.number**2, os.getpid(), torch.get_num_threads()


def numbered(*numbers: int) -> list[Task]:
    return [Task(number) for number in numbers]


def test_models_are_the_same_bytes_from_one_two_or_three_workers(project, capsys):
    get_reusable_executor().shutdown(wait=True)  # workers stay in the folder in which they were started
    models = {
        "net": {"family": "mlp", "hidden": [12], "dropout": [0.2]},
        "conv": {"family": "cnn", "plan": ["conv 4 3", "pool 2", "dense 8"]},
        "rebuilder": {"family": "autoencoder", "widths": [5], "train": {}},
        "rows": {"family": "recurrent", "hidden": [6], "train": {"schedule": "cosine", "clip": 1.0}},
    }
    models["rebuilder"]["train"]["noise"] = {"kind": "gaussian", "level": 0.3, "draw": "fresh"}
    found = {}
    for workers in (1, 3, 2):
        write_params(project, models, workers=workers, epochs=2)
        shutil.rmtree(paths.models("tiny"), ignore_errors=True)
        shutil.rmtree(paths.jobs(), ignore_errors=True)
        train.main("tiny")
        found[workers] = contents(paths.models("tiny"))
    assert len(found[1]) == 4 * len(models)
    assert found[1] == found[2] == found[3]
    lines = [line.split(":")[0] for line in capsys.readouterr().out.splitlines()[:4]]
    assert lines == [f"train tiny {i}/4 {model} seed 0" for i, model in enumerate(models, 1)]


def test_results_come_in_the_order_of_the_jobs_whichever_ends_first():
    results = fan_out(square, numbered(0, 1, 2, 3, 4, 5), workers=2, threads=1, title="square")
    assert [result[0] for result in results] == [0, 1, 4, 9, 16, 25]
    assert {result[2] for result in results} == {1}
    assert os.getpid() not in {result[1] for result in results}


def test_a_job_that_fails_is_named_and_the_others_end(capsys):
    with pytest.raises(AtelierError, match="^square: 1 of 4 jobs failed: task 13: thirteen: not a number"):
        fan_out(square, numbered(1, 13, 2, 3), workers=2, threads=1, title="square")
    shown = capsys.readouterr().out
    assert all(f"task {number}: done" in shown for number in (1, 2, 3))


def test_a_worker_that_is_killed_is_told_in_one_line():
    with pytest.raises(AtelierError, match="^a worker process was killed.*lower workers.*run the same command again"):
        fan_out(square, numbered(1, 99, 2, 3), workers=2, threads=1, title="square")


def test_with_one_worker_the_jobs_run_here_in_order(capsys):
    results = fan_out(square, numbered(2, 0, 1), workers=1, threads=2, title="square")
    assert [result[0] for result in results] == [4, 0, 1]
    assert {result[2] for result in results} == {2}
    assert {result[1] for result in results} == {os.getpid()}
    lines = capsys.readouterr().out.splitlines()
    assert [line.rsplit(" (", 1)[0] for line in lines] == [
        "square 1/3 task 2: done",
        "square 2/3 task 0: done",
        "square 3/3 task 1: done",
    ]


def test_every_failure_is_named_and_an_unforeseen_one_shows_where_it_is(capsys):
    message = (
        "^square: 2 of 3 jobs failed: task 13: thirteen: not a number to square; give another; "
        "task 14: ZeroDivisionError: by nothing$"
    )
    with pytest.raises(AtelierError, match=message):
        fan_out(square, numbered(13, 14, 3), workers=1, threads=1, title="square")
    shown = capsys.readouterr()
    assert "square 3/3 task 3: done" in shown.out
    assert shown.err.count("Traceback") == 1 and "test_fanout.py" in shown.err


def test_of_many_jobs_a_line_is_printed_now_and_then_and_every_failure(monkeypatch, capsys):
    monkeypatch.setattr(fanout, "SECONDS_BETWEEN_LINES", 1e6)
    monkeypatch.setattr(fanout.time, "monotonic", lambda: 2e6)
    with pytest.raises(AtelierError, match="4 of 9 jobs failed: task 13: .*; task 13: .*; task 13: .*; and 1 more$"):
        fan_out(square, numbered(5, 6, 7, 13, 13, 13, 13, 8, 9), workers=1, threads=1, title="square")
    shown = [line.split(":")[0] for line in capsys.readouterr().out.splitlines()]
    failed = [f"square {i}/9 task 13" for i in (4, 5, 6, 7)]
    assert shown == ["square 1/9 task 5", *failed, "square 9/9 task 9"]


@pytest.mark.parametrize(
    "workers, threads, jobs, expected",
    [(8, 1, 9, 4), (8, 2, 9, 2), (3, 1, 9, 3), (8, 1, 2, 2), (2, 3, 9, 1), (2, 9, 9, 1)],
)
def test_workers_times_threads_never_exceeds_the_cores(monkeypatch, workers, threads, jobs, expected):
    asked = []

    def outcomes(tasks, workers, threads):
        asked.append((workers, threads))
        return ((number, None, None) for number, _ in enumerate(tasks))

    monkeypatch.setattr(fanout, "_outcomes", outcomes)
    fan_out(square, numbered(*range(jobs)), workers=workers, threads=threads, title="square")
    assert asked == [(expected, threads)]


def test_nothing_to_do_prints_nothing(capsys):
    assert fan_out(square, [], workers=2, threads=1, title="square") == []
    assert capsys.readouterr().out == ""


class Terminal:
    """Collects what a terminal would be sent."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_how_far_each_job_is(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("TTY_COMPATIBLE", raising=False)
    done = {1: (7, 20), 2: None}

    def slow(task: Task) -> int:
        time.sleep(0.8)
        return task.number

    tasks = numbered(1, 2)
    progress = lambda task: done[task.number]  # noqa: E731
    assert fan_out(slow, tasks, workers=1, threads=1, title="slow", progress=progress) == [1, 2]
    assert "slow" in terminal.text and "task 1" in terminal.text and "7/20" in terminal.text
    assert "task 2" not in terminal.text
