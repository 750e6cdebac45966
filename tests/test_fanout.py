"""Jobs on worker processes, here or on a cluster: the same results as in one, whoever fails or dies."""

import json
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import contents, write_params
from joblib.externals.loky import get_reusable_executor
from ruamel.yaml import YAML

from atelier import cluster as dask_cluster
from atelier import fanout, jobs, paths
from atelier.errors import AtelierError
from atelier.fanout import fan_out
from atelier.params import load
from atelier.stages import evaluate, prune, train

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


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The address of a Dask scheduler with two workers, all started in a folder that is no project.

    A worker that dies is started anew. A job whose workers died twice is given up.
    """
    folder = tmp_path_factory.mktemp("cluster")
    file, log = folder / "scheduler.json", folder / "log"
    shared = {"env": os.environ | {"PYTHONPATH": os.pathsep.join(sys.path[:1] + [str(Path(__file__).parent)])}}
    shared["env"] |= {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1"}
    shared["env"] |= {"DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False"}  # saves time
    shared |= {"cwd": folder, "stdout": log.open("w"), "stderr": subprocess.STDOUT, "start_new_session": True}
    dask, place = [sys.executable, "-m", "dask"], ["--no-dashboard", "--scheduler-file", str(file)]
    scheduler = ["scheduler", "--host", "127.0.0.1", "--port", "0", "--idle-timeout", "100"]
    workers = ["worker", "--nworkers", "2", "--nthreads", "1", "--local-directory", str(folder)]
    started = [subprocess.Popen([*dask, *command, *place], **shared) for command in (scheduler, workers)]
    try:
        assert wait_until(lambda: log.read_text().count("Registered to") == 2, 100), log.read_text()
        yield json.loads(file.read_text())["address"]
    finally:
        for process in started:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_until(condition, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


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


def test_models_are_the_same_bytes_from_one_two_or_three_workers_and_a_cluster(project, cluster, capsys):
    get_reusable_executor().shutdown(wait=True)  # workers stay in the folder in which they were started
    models = {
        "net": {"family": "mlp", "hidden": [12], "dropout": [0.2]},
        "conv": {"family": "cnn", "plan": ["conv 4 3", "pool 2", "dense 8"]},
        "rebuilder": {"family": "autoencoder", "widths": [5], "train": {}},
        "rows": {"family": "recurrent", "hidden": [6], "train": {"schedule": "cosine", "clip": 1.0}},
    }
    models["rebuilder"]["train"]["noise"] = {"kind": "gaussian", "level": 0.3, "draw": "fresh"}
    found = {}
    for workers in (1, 3, 2, cluster):
        write_params(project, models, workers=1 if workers == cluster else workers, epochs=2)
        if workers == cluster:
            with open(project / "params.yaml", "a") as file:
                file.write(f"cluster: {cluster}\n")
        shutil.rmtree(paths.models("tiny"), ignore_errors=True)
        shutil.rmtree(paths.jobs(), ignore_errors=True)
        train.main("tiny")
        found[workers] = contents(paths.models("tiny")), sorted(os.listdir(paths.jobs()))
    assert len(found[1][0]) == 4 * len(models) and len(found[1][1]) == len(models)
    assert found[1] == found[2] == found[3] == found[cluster]
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


def test_long_jobs_say_how_far_they_are_before_the_first_ends(monkeypatch, capsys):
    monkeypatch.setattr(fanout, "SECONDS_OF_SILENCE", 0.01)
    said: list[str] = []

    def until_a_line(_: int) -> None:
        deadline = time.monotonic() + 60
        while not said and time.monotonic() < deadline:
            said.extend(capsys.readouterr().out.splitlines())
            time.sleep(0.01)

    far = {4: (3, 7), 5: None, 6: (0, 7)}  # 5 does not say
    fan_out(until_a_line, list(far), workers=1, threads=1, title="sleep", progress=far.get)
    assert said[0] == "sleep 0/3, so far: 4 3/7, 6 0/7"


@pytest.mark.parametrize(
    "workers, threads, jobs, expected",
    [(8, 1, 9, 4), (8, 2, 9, 2), (3, 1, 9, 3), (8, 1, 2, 2), (2, 3, 9, 1), (2, 9, 9, 1)],
)
def test_workers_times_threads_never_exceeds_the_cores(monkeypatch, workers, threads, jobs, expected):
    asked = []

    def outcomes(tasks, workers, threads):
        asked.append((workers, threads))
        return (fanout.Outcome(number) for number, _ in enumerate(tasks))

    monkeypatch.setattr(fanout, "_here", outcomes)
    fan_out(square, numbered(*range(jobs)), workers=workers, threads=threads, title="square")
    assert asked == [(expected, threads)]


def test_nothing_to_do_prints_nothing(capsys):
    assert fan_out(square, [], workers=2, threads=1, title="square") == []
    assert capsys.readouterr().out == ""


class Terminal:
    """Collects what a terminal would be sent."""

    def __init__(self) -> None:
        self.text = ""

    @classmethod
    def like_xterm(cls, monkeypatch) -> "Terminal":
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", "100")
        monkeypatch.delenv("NO_COLOR", raising=False)
        monkeypatch.delenv("TTY_COMPATIBLE", raising=False)
        return cls()

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_how_far_each_job_is(monkeypatch):
    monkeypatch.setattr("sys.stdout", terminal := Terminal.like_xterm(monkeypatch))
    done = {1: (7, 20), 2: None}

    def slow(task: Task) -> int:
        time.sleep(0.8)
        return task.number

    tasks = numbered(1, 2)
    progress = lambda task: done[task.number]  # noqa: E731
    assert fan_out(slow, tasks, workers=1, threads=1, title="slow", progress=progress) == [1, 2]
    assert "slow" in terminal.text and "task 1" in terminal.text and "7/20" in terminal.text
    assert "task 2" not in terminal.text


# ---- on a cluster


def on(cluster: str, call, tasks, **options):
    return fan_out(call, tasks, workers=1, cluster=cluster, threads=1, title="square", **options)


def train_and_tell(job: jobs.Job) -> bool:
    """Train with many checkpoints; a line of begun.txt is a try: the process, and whether a checkpoint was there."""
    jobs.CHECKPOINT_SECONDS = 0.02
    job.folder.mkdir(parents=True, exist_ok=True)
    with open(job.folder / "begun.txt", "a") as file:
        file.write(f"{os.getpid()} {(job.folder / 'checkpoint.pt').exists()}\n")
    return jobs.train(job)


def test_a_job_whose_worker_is_killed_goes_on_on_another_and_nothing_is_lost(project, cluster, monkeypatch):
    write_params(project, seeds=3, epochs=150)
    work = jobs.of_study(load(), "tiny")
    monkeypatch.setattr("sys.stdout", terminal := Terminal.like_xterm(monkeypatch))
    first = work[0].folder
    with ThreadPoolExecutor(1) as aside:
        run = aside.submit(on, cluster, train_and_tell, work, progress=jobs.progress)
        assert wait_until((first / "checkpoint.pt").exists, 100)
        os.kill(int((first / "begun.txt").read_text().split()[0]), signal.SIGKILL)
        assert run.result(timeout=100) == [True, True, True]
    tries = (first / "begun.txt").read_text().split()
    assert len(tries) == 4 and tries[0] != tries[2] and tries[3] == "True"
    assert "net seed 0" in terminal.text and "/150" in terminal.text

    results = ("weights.safetensors", "history.json", "spec.json")
    disturbed = {(job.seed, name): (job.folder / name).read_bytes() for job in work for name in results}
    shutil.rmtree(paths.jobs())
    fan_out(jobs.train, work, workers=1, threads=1, title="train")
    assert disturbed == {(job.seed, name): (job.folder / name).read_bytes() for job in work for name in results}


def test_a_cluster_gives_results_in_order_and_names_jobs_that_fail_or_kill_their_workers(cluster, capsys):
    results = on(cluster, square, numbered(0, 1, 2, 3, 4))
    assert [result[0] for result in results] == [0, 1, 4, 9, 16]
    assert {result[2] for result in results} == {1}
    assert os.getpid() not in {result[1] for result in results}
    capsys.readouterr()
    with pytest.raises(AtelierError, match="^square: 3 of 6 jobs failed: task ") as told:
        on(cluster, square, numbered(1, 99, 13, 14, 2, 3))
    reasons = ("13: thirteen: not a number to square", "14: ZeroDivisionError: by nothing", "99: each worker that ran")
    assert all(f"task {reason}" in str(told.value) for reason in reasons) and "\n" not in str(told.value)
    shown = capsys.readouterr()
    assert all(f"task {number}: done" in shown.out for number in (1, 2, 3))
    assert shown.err.count("ZeroDivisionError: by nothing") == 1 and "test_fanout.py" in shown.err


def test_a_worker_with_other_packages_or_code_does_no_job(cluster, monkeypatch):
    here = dask_cluster.environment()
    monkeypatch.setattr(dask_cluster, "environment", lambda: here | {"torch": "1.0", "atelier": "edited"})
    with pytest.raises(AtelierError, match="task 2: the worker on .* has another atelier, torch; install"):
        on(cluster, square, numbered(2))


def test_a_worker_that_does_not_see_the_project_says_so(cluster, monkeypatch):
    monkeypatch.setattr(paths, "root", lambda: Path("/no/such/project"))
    with pytest.raises(AtelierError, match="task 2: /no/such/project: not there on .*; the cluster must see"):
        on(cluster, square, numbered(2))


@pytest.mark.parametrize("listens", [True, False])
def test_where_no_scheduler_answers_one_line_says_so_soon(listens, monkeypatch):
    monkeypatch.setattr(dask_cluster, "SECONDS_TO_ANSWER", 0.5)
    started = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        if not listens:
            server.close()
        with pytest.raises(AtelierError, match=f"^params.yaml: cluster is {address}, where no scheduler") as told:
            on(address, square, numbered(2))
    assert "\n" not in str(told.value) and time.monotonic() - started < 5


def test_without_dask_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(dask_cluster, "find_spec", lambda name: None)
    with pytest.raises(AtelierError, match=r"^params.yaml: cluster is tcp://a:1, which needs dask: pip install"):
        on("tcp://a:1", square, numbered(2))


def test_jobs_that_read_little_run_here_whatever_workers_there_are(monkeypatch):
    monkeypatch.setattr(dask_cluster, "SECONDS_TO_ANSWER", 0.5)
    [(nine, process, _)] = on("tcp://127.0.0.1:1", square, numbered(3), reads=1e6)
    assert nine == 9 and process == os.getpid()
    with pytest.raises(AtelierError, match="no scheduler answers"):
        on("tcp://127.0.0.1:1", square, numbered(3), reads=1e9)


def test_every_stage_sends_its_jobs_to_the_cluster_and_no_data_with_them(project, monkeypatch):
    content = YAML(typ="safe").load((project / "params.yaml").read_text()) | {"cluster": "tcp://a:1"}
    content["studies"]["tiny"]["models"]["rebuilder"] = {"family": "autoencoder", "widths": [5]}
    pruned = {"models": ["net"], "criteria": ["activation"], "levels": [0.25], "recoveries": ["finetune"]}
    content["studies"]["tiny"]["prune"] = pruned
    YAML(typ="safe").dump(content, project / "params.yaml")
    sent = []

    def on_cluster(tasks, address):
        assert address == "tcp://a:1"
        for task in tasks:
            sent.append((getattr(task[0], "__name__", "floors"), len(pickle.dumps(task))))
            yield fanout.run_one(*task)

    monkeypatch.setattr(dask_cluster, "on_cluster", on_cluster)
    monkeypatch.setattr(fanout, "WORTH_SHARING", 0)
    for stage in (train, evaluate, prune):
        stage.main("tiny")
    assert {name for name, _ in sent} == {"train", "judge", "floors", "carry_out"}
    smallest = min(file.stat().st_size for file in paths.noisy("digits").glob("*.npz"))
    assert max(size for _, size in sent) < smallest
