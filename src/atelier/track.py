"""track: the results that dvc.lock records -> MLflow: an experiment a study, a run a result, a child a (model, seed).

A result is identified by the md5s of its outputs: mirroring it again changes nothing, and one call makes a lost store
again. Runs are created open and closed when complete, so what was interrupted is found by its key and completed.
"""

import csv
import hashlib
import json
import math
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from atelier import outputs, paths
from atelier.errors import AtelierError, nearest
from atelier.files import read_json, write_json

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

Point = tuple[str, float | None, int]  # metric, value, step; a value that is missing is not logged
EVERY = 2.0  # seconds between two looks of --follow
SILENT = 3600.0  # seconds without a line after which an unfinished job counts as dead
MARK = ".atelier/tracked.json"  # the track stage's only output: a clone, which has no store, has no mark either
REPORT = ("metrics.json", "claims.json", "index.md")  # every report has these
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SQLALCHEMYSTORE_POOLCLASS": "NullPool",  # no connection outlives its use: the file may be replaced
}


@dataclass(frozen=True)
class Result:
    """What dvc.lock records of one study; made only if the files here are those and agree with one another."""

    study: str
    outputs: dict[str, str]  # path -> md5, data and models included
    stages: dict[str, str]  # path -> stage

    @property
    def key(self) -> str:
        return _digest(self.outputs)

    @property
    def folder(self) -> Path:
        return paths.report(self.study)


def main(follow: bool = False, study: str | None = None) -> None:
    """Mirror every study, or one; with follow, running jobs too until Ctrl-C.

    Raises AtelierError for a study of which nothing is known and for a store that cannot be read.
    """
    if follow:
        return _follow(study)
    stages = outputs.recorded(paths.root())
    known = _studies(stages)
    if study is not None and study not in known:
        raise AtelierError(f"{paths.report(study)}: no report of this study to track; {nearest(study, known)}")
    with store() as client:
        for name, outcome in mirror(client, study).items():
            print(f"{name}: {outcome}")
        _drop_live(client, keep={job.key for job in _jobs() if job.running})
    if study is None:
        keys = {name: _digest(outputs.made_by(outputs.behind(stages, name))) for name in known}
        write_json(paths.root() / MARK, keys)


def ui(port: int = 5000) -> None:
    """Mirror, then become MLflow's own server for the store, on this machine only."""
    main()
    # Without the last part MLflow opens on its pages for language models.
    print(f"MLflow: http://127.0.0.1:{port}/#/experiments?workflowType=machine_learning (Ctrl-C ends it)", flush=True)
    command = [sys.executable, "-m", "mlflow", "ui", "--workers", "1", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", _uri(_database()), "--default-artifact-root", str(paths.home() / "mlartifacts")]
    # Its job executor would start a dozen more processes for features that nothing here uses.
    os.execvpe(command[0], command, {**os.environ, **ENVIRONMENT, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"})


# ---- the store


@contextmanager
def store(create: bool = True) -> Iterator["MlflowClient"]:
    """The MLflow store, for this process alone while it is open.

    A new store gets its name only when its tables are complete. Raises AtelierError if it is not readable, or not there
    and not to be created.
    """
    os.environ.update(ENVIRONMENT)
    database, own = _database(), paths.jobs()
    if not (create or database.exists()):
        raise AtelierError(f"{database}: not there; atelier track makes it from the committed reports")
    own.mkdir(parents=True, exist_ok=True)
    with FileLock(own / "mlflow.lock"):
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            if database.exists() and database.stat().st_size:
                with open(database, "rb") as file:  # before MLflow tries for minutes to open what is no database
                    if file.read(16) != b"SQLite format 3\0":
                        raise OSError("no SQLite database")
            else:
                shutil.rmtree(own / "mlflow-new", ignore_errors=True)
                fresh = own / "mlflow-new" / str(time.time_ns()) / database.name  # MLflow remembers paths: a new one
                MlflowClient(_uri(fresh)).search_experiments()
                os.replace(fresh, database)
                shutil.rmtree(own / "mlflow-new")
            client = MlflowClient(_uri(database))
            client.search_experiments(max_results=1)
        except (MlflowException, SQLAlchemyError, OSError) as error:
            fault = str(error).splitlines()[0]
            raise AtelierError(
                f"{database}: not a store of this MLflow ({fault}); move it away and run atelier track"
            ) from None
        yield client


def search(client: "MlflowClient", query: str = "", experiments: Sequence[str] | None = None) -> list["Run"]:
    """Every run that is not deleted and answers MLflow's query, in all experiments or the given ones (ids)."""
    ids = [e.experiment_id for e in client.search_experiments()] if experiments is None else list(experiments)
    found, token = [], None
    while True:
        page = client.search_runs(ids, query, max_results=1000, page_token=token) if ids else []
        found += page
        token = getattr(page, "token", None)
        if not token:
            return found


def _database() -> Path:
    return paths.home() / "mlflow.db"


def _uri(database: Path) -> str:
    return f"sqlite:///{database}"


def _experiment(client: "MlflowClient", study: str) -> str:
    found = client.get_experiment_by_name(study)
    if found is None:
        return client.create_experiment(study, artifact_location=str(paths.home() / "mlartifacts" / study))
    if found.lifecycle_stage != "active":
        client.restore_experiment(found.experiment_id)
    return found.experiment_id


# ---- results


def mirror(client: "MlflowClient", study: str | None = None) -> dict[str, str]:
    """Mirror what is settled, of every study or one; study -> what was done, or why nothing was."""
    stages, done = outputs.recorded(paths.root()), {}
    for name in _studies(stages) if study is None else [study]:
        result = _settled(stages, name)
        done[name] = result if isinstance(result, str) else _mirror(client, result)
    return done


def _studies(stages: outputs.Stages) -> list[str]:
    folders = {file.parent.name for file in paths.report("any").parent.glob("*/metrics.json")}
    return sorted(folders | {name.split("@")[1] for name in stages if name.split("@")[0] in outputs.PAGES})


def _settled(stages: outputs.Stages, study: str) -> Result | str:
    """The result of a study if its files are what dvc.lock records, each made from the others; or what is amiss."""
    again = f"make study STUDY={study}"
    stages = outputs.behind(stages, study)
    if not outputs.page_of(stages, study):
        return f"no report in dvc.lock, not tracked ({again} makes it)"
    made = {name: outputs.made_by(stages, name) for name in stages}
    result = Result(study, outputs.made_by(stages), {path: name for name in made for path in made[name]})
    stale = outputs.out_of_date(stages)
    if stale:
        return f"{stale[0]} is newer than what was made from it, not tracked ({again} brings all up to date)"
    for path, md5 in result.outputs.items():
        file = paths.root() / path
        if file.is_relative_to(result.folder) and outputs.md5_of(file) != md5:
            fault = "differs from dvc.lock" if file.exists() else "is missing"
            return f"{path} {fault}, not tracked (git checkout or {again} restores it)"
    missing = [name for name in REPORT if not (result.folder / name).exists()]
    return f"no {missing[0]} in its report, not tracked ({again} makes it)" if missing else result


def _mirror(client: "MlflowClient", result: Result) -> str:
    """One result. The parent is closed last: one that is FINISHED is complete, unless a child was deleted since."""
    metrics = read_json(result.folder / "metrics.json")
    experiment = _experiment(client, result.study)
    runs = {run.data.tags["content_key"]: run for run in search(client, f"tags.result = '{result.key}'", [experiment])}
    keys = {
        (model, seed): _digest([result.key, model, seed])
        for model in sorted(metrics["models"])
        for seed in metrics["seeds"]
    }
    parent = runs.get(result.key)
    if parent and all(key in runs and _finished(runs[key]) for key in (result.key, *keys.values())):
        return f"up to date, run {parent.info.run_id[:8]}"
    timings = read_json(paths.timings(result.study)) if paths.timings(result.study).exists() else {}
    tags = _tags(result, metrics["dataset"])
    if parent is None:
        name = os.environ.get("DVC_EXP_NAME") or f"{result.study} {result.key[:8]}"
        own = {"content_key": result.key, "stage": "report"}
        parent = _create(client, experiment, name, tags | own, timings.get("wall_s"))
    elif _finished(parent):
        client.update_run(parent.info.run_id, status="RUNNING")
    curves, costs = _curves(result.folder), {(job["model"], job["seed"]): job for job in timings.get("jobs", [])}
    for (model, seed), key in keys.items():
        child, cost = runs.get(key), costs.get((model, seed), {})
        if child and _finished(child):
            continue
        if child is None:
            own = {"content_key": key, "stage": "train", "model": model, "seed": str(seed)}
            own |= {"mlflow.parentRunId": parent.info.run_id}
            child = _create(client, experiment, f"{model}/{seed}", tags | own, cost.get("train_s"))
        final = _final(metrics["models"][model], metrics["seeds"].index(seed))
        final |= {name: cost.get(name) for name in ("train_s", "inference_s_per_1000")}
        _log(client, child, _after(curves.get((model, seed), []), final), _params(metrics, model, seed))
        _use(client, child, tags)
        client.set_terminated(child.info.run_id)
    params = {name: metrics[name] for name in ("study", "dataset", "seeds")} | {"models": sorted(metrics["models"])}
    _log(client, parent, _summary(metrics, result.folder, timings), params)
    for claim in read_json(result.folder / "claims.json"):
        client.set_tag(parent.info.run_id, _legal(f"claim.{claim['id']}"), claim["verdict"])
    _use(client, parent, tags)
    client.log_artifacts(parent.info.run_id, str(result.folder))
    client.set_terminated(parent.info.run_id)
    return f"tracked as run {parent.info.run_id[:8]} with {len(keys)} children"


def _tags(result: Result, dataset: str) -> dict[str, str]:
    commit, dirty = _git(paths.root())
    tags = {"result": result.key, "study": result.study, "dataset": dataset, "git_commit": commit, "git_dirty": dirty}
    data = result.outputs.get(f"data/noisy/{dataset}")
    tags |= {"dataset_md5": data} if data else {}
    tags |= {"experiment": os.environ["DVC_EXP_NAME"]} if os.environ.get("DVC_EXP_NAME") else {}
    return tags | {f"md5:{path}": md5 for path, md5 in result.outputs.items()}


def _git(root: Path) -> tuple[str, str]:
    """The commit, and whether anything but results differs from it: ("none", "true") outside git."""

    def ask(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True)
        except FileNotFoundError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = ask("rev-parse", "HEAD")
    changes = ask("status", "--porcelain", "--", ".", ":(exclude)reports", ":(exclude)dvc.lock")
    return (commit or "none", str(commit is None or bool(changes)).lower())


def _params(metrics: Mapping[str, Any], model: str, seed: int) -> dict[str, Any]:
    entry = metrics["models"][model]
    settings = dict(entry.get("settings") or {})
    known = {"study": metrics["study"], "dataset": metrics["dataset"], "model": model, "seed": seed}
    known |= {"rows": entry.get("rows") or [], "family": settings.pop("family", None)}
    return known | _flat("settings", settings) | _flat("recipe", entry.get("recipe") or {})


def _flat(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {name: value}
    return {key: v for part in value for key, v in _flat(f"{name}.{part}", value[part]).items()}


def _final(entry: Mapping[str, Any], index: int) -> dict[str, float | None]:
    """A model's reported figures for one seed (by its place), and its exact ones."""
    every = dict(entry["metrics"]) | ({"epochs": entry["epochs"]} if entry.get("epochs") else {})
    values = {name: s["values"][index] for name, s in every.items() if s is not None}
    return values | dict(entry.get("exact") or {})


def _after(curve: list[Point], final: Mapping[str, float | None]) -> list[Point]:
    """The curve, then the reported figures at its last step, where they are not what the curve ends in.

    MLflow shows the last value of a metric: so the history is the curve and the shown value the reported one.
    """
    last, known = max((step for _, _, step in curve), default=0), set(curve)
    return curve + [(name, value, last) for name, value in final.items() if (name, value, last) not in known]


def _curves(folder: Path) -> dict[tuple[str, int], list[Point]]:
    curves: dict[tuple[str, int], list[Point]] = {}
    if not (folder / "curves.csv").exists():  # an experiment has none
        return curves
    with open(folder / "curves.csv", newline="") as file:
        for row in csv.DictReader(file):
            job, epoch = (row.pop("model"), int(row.pop("seed"))), int(row.pop("epoch"))
            curves.setdefault(job, []).extend((name, float(v), epoch) for name, v in row.items() if v)
    return curves


def _summary(metrics: Mapping[str, Any], folder: Path, timings: Mapping[str, Any]) -> list[Point]:
    """The parent's own figures: means over seeds, then the pruning series with the permille removed as step."""
    points: list[Point] = [("wall_s", timings.get("wall_s"), 0)]
    for model, entry in metrics["models"].items():
        points += [(f"{model}.{name}", s["mean"], 0) for name, s in entry["metrics"].items() if s is not None]
        points += [(f"{model}.{name}", value, 0) for name, value in (entry.get("exact") or {}).items()]
    pruned = folder / "pruning.json"
    for (name, level), values in pruning_series(read_json(pruned)["points"] if pruned.exists() else []).items():
        points.append((f"prune/{name}", math.fsum(values) / len(values), round(1000 * level)))
    return points


def pruning_series(points: Iterable[Mapping[str, Any]]) -> dict[tuple[str, float], list[float]]:
    """("model/criterion/schedule/recovery/metric", level) -> a value for each seed."""
    series: dict[tuple[str, float], list[float]] = {}
    for point in points:
        name = "/".join(str(point[part]) for part in ("model", "criterion", "schedule", "recovery"))
        values = {part: point.get(part) for part in ("parameters", "multiply_adds")}
        values |= {f"{on}.{k}": v for on in ("validation", "test") for k, v in (point.get(on) or {}).items()}
        for metric, value in values.items():
            if value is not None:
                series.setdefault((f"{name}/{metric}", point["level"]), []).append(value)
    return series


# ---- runs


def _create(
    client: "MlflowClient", experiment: str, name: str, tags: Mapping[str, str], seconds: float | None = None
) -> "Run":
    """An open run. It is dated back by the seconds that the work took, so that MLflow shows that duration."""
    started = int(1000 * (time.time() - (seconds or 0)))
    return client.create_run(experiment, start_time=started, tags=dict(tags), run_name=name)


def _finished(run: "Run") -> bool:
    return run.info.status == "FINISHED"


def _log(client: "MlflowClient", run: "Run", points: Sequence[Point], params: Mapping[str, Any] | None = None) -> None:
    """In the largest batches allowed. Times are counted from the run's start and step, so logging again adds nothing.

    Raises AtelierError if two metrics would get one name.
    """
    from mlflow.entities import Metric, Param

    legal = {name: _legal(name) for name, _, _ in points}
    twice = [name for name, count in Counter(legal.values()).items() if count > 1]
    if twice:
        names = " and ".join(sorted(name for name in legal if legal[name] == twice[0]))
        raise AtelierError(f"the metrics {names} would both be {twice[0]} in MLflow, which refuses @ and %; rename one")
    metrics, taken = [], set()
    for name, value, step in points:
        if value is not None:
            moment = run.info.start_time + 2 * step + ((name, step) in taken)
            metrics.append(Metric(legal[name], float(value), moment, step))
            taken.add((name, step))
    texts = [Param(_legal(k), v if isinstance(v, str) else json.dumps(v)) for k, v in (params or {}).items()]
    for first in range(0, len(texts), 100):
        client.log_batch(run.info.run_id, params=texts[first : first + 100])
    for first in range(0, len(metrics), 1000):
        client.log_batch(run.info.run_id, metrics=metrics[first : first + 1000])


def _use(client: "MlflowClient", run: "Run", tags: Mapping[str, str]) -> None:
    """Name the data set in MLflow's own way; its digest is DVC's md5, which just fits MLflow's 36 characters."""
    from mlflow.entities import Dataset, DatasetInput

    source = json.dumps({"uri": f"data/noisy/{tags['dataset']}"})
    used = Dataset(tags["dataset"], tags.get("dataset_md5", "unknown"), source_type="local", source=source)
    client.log_inputs(run.info.run_id, datasets=[DatasetInput(used, [])])


def _legal(name: str) -> str:
    """A name that MLflow takes: no @, %, : and the like, and no part that a path would resolve (a//b, a/../b)."""
    parts = [re.sub(r"[^\w.\- ]", "_", part) for part in name.split("/")]
    return "/".join(f"_{part}" if part.strip(".") == "" else part for part in parts)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


# ---- running jobs


@dataclass(frozen=True)
class Progress:
    """What a job has told so far in its progress.jsonl."""

    key: str
    study: str
    model: str
    seed: int
    records: list[dict[str, Any]]
    done: bool
    modified: float  # seconds since the epoch

    @property
    def running(self) -> bool:
        return not self.done and time.time() - self.modified < SILENT


class Follower:
    """Mirrors running jobs as runs tagged live, until the results that they belong to are tracked."""

    def __init__(self, study: str | None = None) -> None:
        self.study = study
        self.followed: set[str] = set()  # keys of jobs seen running whose result is not tracked yet
        self.logged: dict[str, int] = {}  # live run -> last epoch logged
        self.lock: float | None = None  # modification time of dvc.lock as it was last mirrored
        self.fault = ""  # what the last look met

    def poll(self) -> None:
        """One look: new results are tracked, their live runs deleted, new epochs logged.

        A fault is let pass once: a stage may be replacing what was just read. Raises AtelierError the second time.
        """
        every = _jobs()
        running = {job.key for job in every if job.running}
        self.followed |= {job.key for job in every if job.key in running and self.study in (None, job.study)}
        if not self.followed and _modified(paths.root() / "dvc.lock") == self.lock:
            return
        with store() as client:
            try:
                self._track(client, [job for job in every if job.done and job.key in self.followed])
                self.fault = ""
            except (AtelierError, OSError) as error:
                if str(error) == self.fault:
                    raise AtelierError(self.fault) from None
                self.fault = str(error)
            _drop_live(client, keep=self.followed | running)
            live = {run.data.tags["job"]: run for run in search(client, "tags.live = 'true'")}
            for job in every:
                if job.key in self.followed:
                    self._show(client, job, live.get(job.key))

    def close(self) -> None:
        """Live runs are copies of files that stay: the next look makes them again."""
        with store() as client:
            _drop_live(client, keep=set())

    def _show(self, client: "MlflowClient", job: Progress, run: "Run | None") -> None:
        if run is None:
            print(f"{job.study}: following {job.model}/{job.seed}", flush=True)
            tags = {"live": "true", "job": job.key, "study": job.study, "model": job.model, "seed": str(job.seed)}
            run = _create(client, _experiment(client, job.study), f"{job.model}/{job.seed} (live)", tags)
        seen = self.logged.get(run.info.run_id, 0)
        new = [record for record in job.records if record["epoch"] > seen]
        points = [(name, value, record["epoch"]) for record in new for name, value in record.items() if name != "epoch"]
        _log(client, run, [point for point in points if isinstance(point[1], int | float)])
        self.logged[run.info.run_id] = max((record["epoch"] for record in new), default=seen)

    def _track(self, client: "MlflowClient", done: list[Progress]) -> None:
        """Mirror if dvc.lock has changed, and let go of the jobs whose study has a settled report that is newer."""
        lock = _modified(paths.root() / "dvc.lock")
        if lock != self.lock:
            for name, outcome in mirror(client, self.study).items():
                if outcome.startswith("tracked"):
                    print(f"{name}: {outcome}", flush=True)
            self.lock = lock
        if done:
            stages = outputs.recorded(paths.root())
            settled = {job.study for job in done if isinstance(_settled(stages, job.study), Result)}
            newest = {study: max(map(_modified, paths.report(study).iterdir())) for study in settled}
            self.followed -= {job.key for job in done if newest.get(job.study, 0.0) >= job.modified}


def _follow(study: str | None) -> None:
    print(f"following the jobs of {study or 'every study'}; Ctrl-C ends", flush=True)
    follower = Follower(study)
    try:
        while True:
            follower.poll()
            time.sleep(EVERY)
    except KeyboardInterrupt:
        follower.close()


def _drop_live(client: "MlflowClient", keep: set[str]) -> None:
    for run in search(client, "tags.live = 'true'"):
        if run.data.tags["job"] not in keep:
            client.delete_run(run.info.run_id)


def _jobs() -> list[Progress]:
    """Every job with a progress file, finished ones too. A line that is being written is left for the next look."""
    jobs = []
    for file in sorted(paths.jobs().glob("*/progress.jsonl")):
        lines = []
        for line in file.read_text().splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:
                break
        if lines:
            head, records = lines[0], [line for line in lines[1:] if "epoch" in line]
            done = any(line.get("done") for line in lines[1:])
            about = (head["key"], head["study"], head["model"], head["seed"])
            jobs.append(Progress(*about, records=records, done=done, modified=_modified(file)))
    return jobs


def _modified(file: Path) -> float:
    return file.stat().st_mtime if file.exists() else 0.0
