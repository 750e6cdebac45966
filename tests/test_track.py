"""track and trace: what MLflow holds is what the reports say, once, whatever happened in between."""

import csv
import hashlib
import json
import math
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML
from sqlalchemy import event
from sqlalchemy.engine import Engine

from atelier import outputs, trace, track
from atelier.errors import AtelierError

MODELS, SEEDS, EPOCHS = ("mlp", "softmax"), (0, 3), (1, 2, 5)
FOLDER = "reports/studies/toy"


def summary(values):
    mean = math.fsum(values) / len(values)
    return {"mean": mean, "ci95": [min(values), max(values)], "n": len(values), "values": values}


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content, sort_keys=True))


def write_result(root, study="toy", shift=0.0):
    """A finished study of two models and two seeds as its stages would leave it, dvc.lock included."""
    folder = root / "reports/studies" / study
    models = {
        name: {
            "rows": [f"D0.{i}"],
            "exact": {"parameters": 10 + i, "multiply_adds": 20, "bytes": 40},
            "metrics": {
                "test.accuracy": summary([0.5 + 0.1 * i + shift, 0.6 + 0.1 * i]),
                "test.gaussian-0.2.accuracy": summary([0.3 + shift, 0.4]),
                "train.loss": summary([0.11, 0.12]),
                "test.mae": None,
            },
            "settings": {"family": name, "hidden": [128, 64]},
            "recipe": {"epochs": 5, "lr": 0.003, "noise": {"kind": "gaussian", "level": 0.2}},
            "epochs": summary([5.0, 5.0]),
        }
        for i, name in enumerate(MODELS)
    }
    about = {"schema": 1, "study": study, "dataset": "digits", "seeds": list(SEEDS)}
    write(folder / "metrics.json", about | {"models": models})
    jobs = [(model, seed) for model in MODELS for seed in SEEDS]
    rows = [f"{m},{s},{e},{1 / e + s + shift},{'' if e == 2 else 0.1 * e}" for m, s in jobs for e in EPOCHS]
    write(folder / "curves.csv", "\n".join(["model,seed,epoch,train.loss,test.accuracy", *rows]) + "\n")
    write(folder / "claims.json", [{"id": "toy-1", "says": "deeper is better", "verdict": "holds", "estimate": 0.1}])
    series = {"model": "mlp", "criterion": "random", "schedule": "one-shot", "recovery": "none", "widths": [3]}
    points = [
        series
        | {"seed": seed, "level": level, "parameters": 5, "validation": {"accuracy": 0.4}, "test": {"accuracy": a}}
        for seed in SEEDS
        for level, a in ((0.25, 0.475 + seed / 100), (0.5, 0.45 + seed / 100))
    ]
    write(folder / "pruning.json", {"schema": 1, "points": points})
    write(folder / "index.md", f"# {study}\n")
    write(folder / "figures/headline.png", "picture")
    spent = [{"model": m, "seed": s, "train_s": 1.5 + s, "inference_s_per_1000": 0.25} for m, s in jobs]
    write(root / "reports/timings" / f"{study}.json", {"machine": {}, "jobs": spent, "wall_s": 9.0})
    write(root / "dvc.yaml", "stages: {}\n")
    write_lock(root, *{study, *(p.name for p in (root / "reports/studies").iterdir())})
    return folder


def write_lock(root, *studies):
    """Outputs that are not there get an md5 of their name."""

    def entry(path):
        md5 = outputs.md5_of(root / path) or hashlib.md5(path.encode()).hexdigest() + ".dir"
        return {"path": path, "hash": "md5", "md5": md5}

    stages = {}

    def stage(name, deps, outs):
        stages[name] = {"cmd": "x", "deps": [entry(d) for d in deps], "outs": [entry(o) for o in outs]}

    stage("download@digits", [], ["data/raw/digits"])
    stage("add_noise@digits", ["data/raw/digits"], ["data/noisy/digits"])
    for study in studies:
        own = f"reports/studies/{study}"
        stage(f"train@{study}", ["data/noisy/digits"], [f"models/{study}"])
        stage(f"evaluate@{study}", [f"models/{study}"], [f"{own}/metrics.json", f"{own}/curves.csv"])
        stage(f"prune@{study}", [f"models/{study}"], [f"{own}/pruning.json"])
        read = [f"{own}/metrics.json", f"{own}/curves.csv", f"{own}/pruning.json"]
        stage(f"report@{study}", read, [f"{own}/claims.json", f"{own}/index.md", f"{own}/figures"])
    with open(root / "dvc.lock", "w") as file:
        YAML(typ="safe").dump({"schema": "2.0", "stages": stages}, file)


def careless(connection, _):
    """Waiting for the disk is most of a transaction, and nothing here has to survive a power cut."""
    connection.execute("PRAGMA synchronous = OFF")


@pytest.fixture(scope="module", autouse=True)
def quick_disk():
    event.listen(Engine, "connect", careless)
    yield
    event.remove(Engine, "connect", careless)


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory):
    """Making the tables takes seconds: once for all tests, through the code under test."""
    root = tmp_path_factory.mktemp("store")
    write(root / "dvc.yaml", "")
    before = os.getcwd()
    os.chdir(root)
    try:
        with track.store():
            pass
    finally:
        os.chdir(before)
    return root / "mlflow.db"


@pytest.fixture
def project(tmp_path, monkeypatch, empty_store):
    for name in ("DVC_ROOT", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    write_result(tmp_path)
    return tmp_path


def runs(query=""):
    with track.store() as client:
        return track.search(client, query)


def parents(query=""):
    return [run for run in runs(query) if "mlflow.parentRunId" not in run.data.tags]


def history(run, metric):
    with track.store() as client:
        return [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, metric)]


def git(root, *words):
    name = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    done = subprocess.run(["git", *name, *words], cwd=root, check=True, capture_output=True, text=True)
    return done.stdout.strip()


# ---- what is mirrored


def test_every_figure_is_the_report_s(project):
    track.main()
    metrics = json.loads((project / FOLDER / "metrics.json").read_text())
    with open(project / FOLDER / "curves.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    children = {(r.data.tags["model"], int(r.data.tags["seed"])): r for r in runs("tags.stage = 'train'")}
    assert children.keys() == {(m, s) for m in MODELS for s in SEEDS}
    for (model, seed), run in children.items():
        entry = metrics["models"][model]
        for name, s in entry["metrics"].items():
            assert run.data.metrics.get(name) == (s and s["values"][SEEDS.index(seed)])
        own = [row for row in rows if (row["model"], int(row["seed"])) == (model, seed)]
        for name in ("train.loss", "test.accuracy"):  # epoch 2 has no accuracy
            curve = [(int(row["epoch"]), float(row[name])) for row in own if row[name]]
            final = (EPOCHS[-1], entry["metrics"][name]["values"][SEEDS.index(seed)])
            assert history(run, name) == curve + ([final] if final != curve[-1] else [])
        assert run.data.metrics["train_s"] == 1.5 + seed
        assert run.data.metrics["parameters"] == entry["exact"]["parameters"]
        expected = {"family": model, "dataset": "digits", "seed": str(seed), "rows": json.dumps(entry["rows"])}
        expected |= {"settings.hidden": "[128, 64]", "recipe.lr": "0.003", "recipe.noise.kind": "gaussian"}
        assert expected.items() <= run.data.params.items()
        assert run.info.status == "FINISHED"
        assert run.inputs.dataset_inputs[0].dataset.name == "digits"


def test_the_parent_holds_means_verdicts_pruning_and_files(project):
    track.main()
    (parent,) = parents()
    metrics = json.loads((project / FOLDER / "metrics.json").read_text())
    for model, entry in metrics["models"].items():
        for name, s in entry["metrics"].items():
            assert parent.data.metrics.get(f"{model}.{name}") == (s and s["mean"])
    assert parent.data.tags["claim.toy-1"] == "holds"
    series = history(parent, "prune/mlp/random/one-shot/none/test.accuracy")
    assert series == [(250, pytest.approx(0.49)), (500, pytest.approx(0.465))]
    lock = outputs.made_by(outputs.recorded(project))
    assert {t[4:]: v for t, v in parent.data.tags.items() if t.startswith("md5:")} == lock
    assert parent.data.tags["dataset_md5"] == lock["data/noisy/digits"]
    kept = Path(parent.info.artifact_uri)
    assert kept.is_relative_to(project / "mlartifacts") and kept.is_absolute()
    for name in ("index.md", "metrics.json", "claims.json", "figures/headline.png"):
        assert (kept / name).read_bytes() == (project / FOLDER / name).read_bytes()


def test_git_commit_and_changes_are_tagged_and_a_later_commit_is_no_new_result(project):
    git(project, "init", "-q")
    write(project / ".gitignore", "mlflow.db\nmlartifacts\n.atelier\n")
    git(project, "add", ".")
    git(project, "commit", "-qm", "one")
    write(project / FOLDER / "unrelated.txt", "results may be new: they are not what made them")
    track.main()
    (parent,) = parents()
    assert parent.data.tags["git_commit"] == git(project, "rev-parse", "HEAD")
    assert parent.data.tags["git_dirty"] == "false"
    write(project / "params.yaml", "changed: true\n")
    git(project, "add", ".")
    git(project, "commit", "-qm", "two")
    write(project / "params.yaml", "changed: again\n")
    track.main()
    assert [run.info.run_id for run in parents()] == [parent.info.run_id]
    write_result(project, shift=0.01)
    track.main()
    assert {run.data.tags["git_dirty"] for run in parents()} == {"false", "true"}


# ---- once


def test_mirroring_again_changes_nothing(project, capsys):
    track.main()
    before = (project / "mlflow.db").read_bytes()
    capsys.readouterr()
    track.main()
    assert "toy: up to date" in capsys.readouterr().out
    assert (project / "mlflow.db").read_bytes() == before


def test_a_lost_store_is_made_again_with_the_same_runs(project, empty_store):
    track.main()
    first = {run.data.tags["content_key"]: run.data.metrics for run in runs()}
    (project / "mlflow.db").unlink()
    shutil.rmtree(project / "mlartifacts")
    shutil.copy(empty_store, project / "mlflow.db")
    track.main()
    assert {run.data.tags["content_key"]: run.data.metrics for run in runs()} == first
    assert len(first) == 1 + len(MODELS) * len(SEEDS)


def test_changed_metrics_are_a_further_run(project):
    track.main()
    write_result(project, shift=0.01)
    track.main()
    track.main()
    values = sorted(run.data.metrics["mlp.test.accuracy"] for run in parents())
    assert values == [pytest.approx(0.55), pytest.approx(0.555)]


@pytest.mark.parametrize(
    ("method", "calls"),
    [
        ("create_run", 0),
        ("create_run", 3),
        ("log_batch", 0),
        ("log_batch", 5),
        ("set_tag", 0),
        ("set_terminated", 0),
        ("set_terminated", 4),
        ("log_artifacts", 0),
    ],
)
def test_an_interrupted_run_is_completed_once(project, monkeypatch, method, calls):
    from mlflow import MlflowClient

    whole, count = getattr(MlflowClient, method), iter(range(100))

    def dies(self, *args, **kwargs):
        if next(count) >= calls:
            raise KeyboardInterrupt
        return whole(self, *args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(MlflowClient, method, dies)
        track.main()
    assert [run for run in parents() if run.info.status == "FINISHED"] == []
    track.main()
    (parent,) = parents()
    assert parent.info.status == "FINISHED" and parent.data.tags["claim.toy-1"] == "holds"
    assert (Path(parent.info.artifact_uri) / "figures/headline.png").exists()
    children = runs(f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    names = sorted((run.data.tags["model"], run.data.tags["seed"]) for run in children)
    assert names == [(model, str(seed)) for model in MODELS for seed in SEEDS]
    for run in children:
        assert run.info.status == "FINISHED"
        assert len(history(run, "train.loss")) == len(EPOCHS) + 1
        assert run.data.params["recipe.lr"] == "0.003"


def test_a_deleted_child_is_made_again(project):
    track.main()
    victim = runs("tags.stage = 'train'")[0]
    with track.store() as client:
        client.delete_run(victim.info.run_id)
    track.main()
    found = runs("tags.stage = 'train'")
    assert len(found) == len(MODELS) * len(SEEDS) and victim.info.run_id not in {r.info.run_id for r in found}
    assert parents()[0].info.status == "FINISHED"


def test_an_experiment_is_a_further_run_of_the_same_store(project, tmp_path_factory, monkeypatch):
    track.main()
    copy = tmp_path_factory.mktemp("experiment")
    write_result(copy, shift=0.02)
    monkeypatch.chdir(copy)
    monkeypatch.setenv("DVC_ROOT", str(project))
    monkeypatch.setenv("DVC_EXP_NAME", "brave-lion")
    track.main()
    assert not (copy / "mlflow.db").exists() and not (copy / "mlartifacts").exists()
    (trial,) = parents("tags.experiment = 'brave-lion'")
    assert trial.info.run_name == "brave-lion"
    assert trial.data.metrics["mlp.test.accuracy"] == pytest.approx(0.56)
    assert len(parents()) == 2


# ---- what is not mirrored


def test_only_settled_reports_are_mirrored(project, capsys):
    write_result(project, "edited")
    write_result(project, "stale")
    write_result(project, "half")
    write_lock(project, "toy", "edited", "stale", "half")
    write(project / "reports/studies/edited/metrics.json", "{}")
    (project / "reports/studies/half/claims.json").unlink()
    lock = (project / "dvc.lock").read_text()
    md5 = outputs.made_by(outputs.recorded(project))["models/stale"]
    head, _, tail = lock.rpartition(md5)  # the last mention: the prune stage, or train's own output
    write(project / "dvc.lock", f"{head}{'0' * 32}.dir{tail}")
    write(project / "reports/studies/unrun/metrics.json", "{}")
    track.main()
    said = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert said["toy"].startswith("tracked")
    assert "metrics.json differs from dvc.lock" in said["edited"]
    assert "models/stale is newer than what was made from it" in said["stale"]
    assert "claims.json is missing" in said["half"]
    assert "no report in dvc.lock" in said["unrun"]
    assert {run.data.tags["study"] for run in runs()} == {"toy"}


def test_one_study_by_name_and_an_unknown_one(project):
    write_result(project, "other")
    track.main(study="other")
    assert {run.data.tags["study"] for run in runs()} == {"other"}
    with pytest.raises(AtelierError, match=r"toyy: no report.*did you mean toy\?"):
        track.main(study="toyy")


def test_without_any_report_there_is_nothing_to_do(project):
    shutil.rmtree(project / "reports")
    (project / "dvc.lock").unlink()
    track.main()
    assert runs() == []


def test_a_spoilt_store_or_lock_is_said_in_one_line(project):
    good = (project / "dvc.lock").read_text()
    write(project / "dvc.lock", "stages: [unclosed\n")
    with pytest.raises(AtelierError, match=r"dvc.lock: not a lock file.*git checkout") as error:
        track.main()
    assert "\n" not in str(error.value)
    write(project / "dvc.lock", good)
    with sqlite3.connect(project / "mlflow.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'of-the-future'")
    for _ in range(2):
        with pytest.raises(AtelierError, match=r"mlflow.db: not a store of this MLflow") as error:
            track.main()
        assert "\n" not in str(error.value)
        write(project / "mlflow.db", "no database at all, but long enough to be looked at" * 100)


@given(st.text(min_size=1, max_size=40))
def test_every_name_becomes_a_legal_one(name):
    from mlflow.utils.validation import _validate_metric_name

    _validate_metric_name(track._legal(name))
    if all(c.isalnum() or c in "_-." for c in name) and name.strip("."):
        assert track._legal(name) == name


def test_illegal_metric_names_are_mirrored_unless_they_collide(project):
    metrics = json.loads((project / FOLDER / "metrics.json").read_text())
    figures = metrics["models"]["mlp"]["metrics"]
    figures["test.top@5%"] = summary([0.9, 0.8])
    write(project / FOLDER / "metrics.json", metrics)
    write_lock(project, "toy")
    track.main()
    (run,) = runs("tags.model = 'mlp' and tags.seed = '3'")
    assert run.data.metrics["test.top_5_"] == 0.8
    figures["test.top_5_"] = summary([0.1, 0.1])
    write(project / FOLDER / "metrics.json", metrics)
    write_lock(project, "toy")
    with pytest.raises(AtelierError, match=r"test.top@5% and test.top_5_ would both be test.top_5_"):
        track.main()


# ---- running jobs


def progress(root, key, *records, model="mlp", seed=0, study="toy", age=0.0):
    header = {"study": study, "model": model, "seed": seed, "epochs": 5, "key": key}
    write(root / ".atelier" / key / "progress.jsonl", "".join(json.dumps(r) + "\n" for r in (header, *records)))
    moment = time.time() - age
    os.utime(root / ".atelier" / key / "progress.jsonl", (moment, moment))


def epoch(number):
    return {"epoch": number, "train.loss": 1 / number, "test.accuracy": None}


def test_follow_shows_curves_at_once_and_leaves_what_track_would(project):
    follower = track.Follower()
    progress(project, "k0", epoch(1), age=60)
    progress(project, "old", epoch(1), {"done": True}, model="softmax")
    progress(project, "dead", epoch(1), model="softmax", age=2 * track.SILENT)
    follower.poll()
    (live,) = runs("tags.live = 'true'")
    assert (live.info.status, live.data.tags["model"], live.data.tags["job"]) == ("RUNNING", "mlp", "k0")
    assert history(live, "train.loss") == [(1, 1.0)]
    with open(project / ".atelier/k0/progress.jsonl", "a") as file:
        file.write(json.dumps(epoch(2)) + "\n" + '{"epoch": 3, "train.l')  # caught while writing
    follower.poll()
    assert history(live, "train.loss") == [(1, 1.0), (2, 0.5)]
    progress(project, "k0", epoch(1), epoch(2), epoch(3), {"done": True}, age=30)
    for path in (project / FOLDER).iterdir():
        os.utime(path, (time.time() - 3600,) * 2)
    follower.poll()
    assert history(live, "train.loss") == [(1, 1.0), (2, 0.5), (3, 1 / 3)]  # the report here is an earlier one
    write_result(project, shift=0.03)
    follower.poll()
    assert runs("tags.live = 'true'") == []
    followed = {run.data.tags["content_key"] for run in runs()}
    track.main()
    assert {run.data.tags["content_key"] for run in runs()} == followed
    assert len(followed) == 2 * (1 + len(MODELS) * len(SEEDS))


def test_track_spares_running_jobs_and_sweeps_what_a_killed_follower_left(project):
    progress(project, "k0", epoch(1))
    progress(project, "k1", epoch(1), seed=3)
    track.Follower().poll()
    progress(project, "k1", epoch(1), {"done": True}, seed=3)
    track.main()
    assert [run.data.tags["job"] for run in runs("tags.live = 'true'")] == ["k0"]
    again = track.Follower()
    again.poll()
    (live,) = runs("tags.live = 'true'")
    assert history(live, "train.loss") == [(1, 1.0)]
    again.close()
    assert runs("tags.live = 'true'") == []


def test_follow_waits_while_a_stage_replaces_its_files_but_not_for_ever(project):
    follower = track.Follower()
    good = (project / "dvc.lock").read_text()
    write(project / "dvc.lock", "stages: [half\n")
    follower.poll()
    write(project / "dvc.lock", good)
    follower.poll()
    assert len(parents()) == 1
    write(project / "dvc.lock", "stages: [half\n")
    os.utime(project / "dvc.lock", (1, 1))
    follower.poll()
    with pytest.raises(AtelierError, match="not a lock file"):
        follower.poll()


def test_follow_ends_cleanly_on_ctrl_c(project, monkeypatch, capsys):
    progress(project, "k0", epoch(1))
    seen = []

    def ctrl_c(seconds):
        assert seconds <= 2
        seen.append(len(runs("tags.live = 'true'")))
        raise KeyboardInterrupt

    monkeypatch.setattr(track.time, "sleep", ctrl_c)
    track.main(follow=True)
    assert seen == [1] and runs("tags.live = 'true'") == []
    assert "following mlp/0" in capsys.readouterr().out


# ---- trace


def test_trace_from_a_run_to_its_commit_params_and_outputs(project, capsys):
    track.main()
    (run,) = runs("tags.model = 'softmax' and tags.seed = '3'")
    everyone = [r.info.run_id for r in runs()]
    unique = next(n for n in range(1, 33) if sum(r.startswith(run.info.run_id[:n]) for r in everyone) == 1)
    capsys.readouterr()
    trace.main(run.info.run_id[:unique])
    said = capsys.readouterr().out
    assert run.info.run_id in said and "study toy, model softmax, seed 3" in said
    assert "commit      none (with changes" in said
    assert "recipe.lr = 0.003" in said
    for path, md5 in outputs.made_by(outputs.recorded(project)).items():
        assert f"{md5:36}  {path}" in said


def test_trace_from_an_output_to_its_runs_and_back_in_time(project, capsys):
    track.main()
    (first,) = parents()
    file = f"{FOLDER}/metrics.json"
    old = (project / file).read_text()
    trace.main(file)
    said = capsys.readouterr().out
    assert first.info.run_id in said and "here        unchanged" in said
    write_result(project, shift=0.01)
    track.main()
    (second,) = [run for run in parents() if run.info.run_id != first.info.run_id]
    write(project / file, old)
    capsys.readouterr()
    trace.main(str(project / file))
    said = capsys.readouterr().out
    assert "has changed since" in said
    assert said.index(first.info.run_id) < said.index("not what dvc.lock records") < said.index(second.info.run_id)
    write(project / file, "{}")
    trace.main(file)
    said = capsys.readouterr().out
    assert second.info.run_id in said and first.info.run_id not in said


def test_trace_of_a_file_inside_an_output_folder(project, capsys):
    weights = "models/toy/mlp/3/weights.safetensors"
    write(project / weights, "weights")
    write(project / "models/toy/mlp/0/weights.safetensors", "others")
    write_lock(project, "toy")
    md5 = outputs.made_by(outputs.recorded(project))["models/toy"]
    seeds = [f"mlp/{seed}/weights.safetensors" for seed in SEEDS]
    listing = [{"md5": outputs.md5_of(project / "models/toy" / name), "relpath": name} for name in seeds]
    track.main()
    (child,) = runs("tags.model = 'mlp' and tags.seed = '3'")
    capsys.readouterr()
    trace.main(weights)
    said = capsys.readouterr().out
    assert "output      models/toy\n" in said and child.info.run_id in said and "unchanged" in said
    write(project / "models/toy/mlp/0/weights.safetensors", "changed")
    trace.main(weights)
    assert "here        has changed since" in capsys.readouterr().out  # without a cache only the folder is known
    write(project / ".dvc/cache/files/md5" / md5[:2] / md5[2:], listing)
    trace.main(weights)
    assert f"{weights} is unchanged, other files" in capsys.readouterr().out
    write(project / weights, "changed")
    trace.main(weights)
    assert f"{weights} has changed since" in capsys.readouterr().out
    shutil.rmtree(project / "models")
    trace.main(weights)
    assert "not there" in capsys.readouterr().out


def test_trace_of_something_unknown(project):
    track.main()
    for what, says in {
        "0123456789abcdef": "no run in mlflow.db begins so",
        "dvc.yaml": "no output in dvc.lock",
        f"{FOLDER}/metrix.json": f"did you mean {FOLDER}/metrics.json",
        "/etc/hosts": "no output",
        "%' OR 1": "neither a run's id nor an output",
    }.items():
        with pytest.raises(AtelierError) as error:
            trace.main(what)
        assert says in str(error.value) and "\n" not in str(error.value)


def test_trace_of_an_ambiguous_beginning_and_without_a_store(project):
    track.main()
    firsts = [run.info.run_id[0] for run in runs()]
    several = next((f for f in firsts if firsts.count(f) > 1), None)
    if several:
        with pytest.raises(AtelierError, match=rf"^{several}: the beginning of {firsts.count(several)} runs"):
            trace.main(several)
    (project / "mlflow.db").unlink()
    with pytest.raises(AtelierError, match="mlflow.db: not there; atelier track makes it"):
        trace.main("abcdef")
    assert not (project / "mlflow.db").exists()


# ---- the surroundings


def test_md5_of_a_folder_is_dvc_s(tmp_path):
    for name, text in {"b.txt": "é\r\n", "a/z.txt": "2", "a.b": "", "a/b/c": "3"}.items():
        write(tmp_path / "out" / name, text)
    write(tmp_path / "dvc.yaml", "stages: {s: {cmd: 'true', outs: [out: {persist: true}]}}")
    write(tmp_path / ".dvc/config", "[core]\n    no_scm = true\n    analytics = false\n")
    env = os.environ | {"DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(tmp_path / "site")}
    subprocess.run([sys.executable, "-m", "dvc", "repro", "-q"], cwd=tmp_path, env=env, check=True)
    assert outputs.made_by(outputs.recorded(tmp_path)) == {"out": outputs.md5_of(tmp_path / "out")}
    assert outputs.md5_of(tmp_path / "nothing") is None


def test_the_modules_import_quickly_and_telemetry_is_off():
    code = (
        "import sys, os; from atelier import track, trace, verify, outputs\n"
        "assert not {'mlflow', 'torch', 'pandas', 'sklearn'} & set(sys.modules)\n"
        "assert (track.ENVIRONMENT['MLFLOW_DISABLE_TELEMETRY'], track.ENVIRONMENT['DO_NOT_TRACK']) == ('true',) * 2"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_ui_serves_this_store_on_this_machine_only(project, monkeypatch, capsys):
    called = []
    monkeypatch.setattr(track.os, "execvpe", lambda *arguments: called.append(arguments))
    track.ui(port=5123)
    ((program, words, env),) = called
    text = " ".join(words)
    assert program == sys.executable and f"--backend-store-uri sqlite:///{project}/mlflow.db" in text
    assert "--workers 1 --host 127.0.0.1 --port 5123" in text
    assert (env["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"], env["MLFLOW_DISABLE_TELEMETRY"]) == ("false", "true")
    said = capsys.readouterr().out
    assert said.index("toy: tracked") < said.index("http://127.0.0.1:5123")
