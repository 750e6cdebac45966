"""verify: a small project whose stages are plain scripts, run again in a copy; and the comparison by itself."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atelier import outputs, verify
from atelier.errors import AtelierError

FOLDER = "reports/studies/toy"
PARAMS = """
compute: {threads: 1, device: cpu}
datasets:
  digits: {test: 10, validation: 10}
noise: {seed: 0}
experiments: {}
studies:
  toy:
    asks: Does it run?
    dataset: digits
    seeds: 2
    train: {epochs: 1}
    models:
      one: {family: softmax}
      two: {family: mlp, hidden: [4]}
      twin: {family: mlp, hidden: [4]}
    prune: null
    claims: []
    published: {}
    note: null
"""
PIPELINE = """
stages:
  download:
    foreach: [digits]
    do:
      cmd: python make.py download
      outs: ["data/raw/${item}"]
  add_noise:
    foreach: [digits]
    do:
      cmd: python make.py add_noise
      deps: ["data/raw/${item}"]
      outs: ["data/noisy/${item}"]
  train:
    foreach: [toy]
    do:
      cmd: python make.py train
      deps: [data/noisy/digits]
      outs: ["models/${item}"]
  evaluate:
    foreach: [toy]
    do:
      cmd: python make.py evaluate
      deps: ["models/${item}"]
      outs:
        - reports/studies/${item}/metrics.json: {cache: false}
        - reports/studies/${item}/curves.csv: {cache: false}
  report:
    foreach: [toy]
    do:
      cmd: python make.py report
      deps: ["reports/studies/${item}/metrics.json"]
      outs:
        - reports/studies/${item}/claims.json: {cache: false}
        - reports/studies/${item}/index.md: {cache: false}
        - reports/studies/${item}/figures: {cache: false}
"""
STAGES = """
import json, os, sys
from pathlib import Path

def write(path, text):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)

def download():
    print("mirror is", os.environ.get("ATELIER_MIRROR"))
    write("data/raw/digits/items.txt", "1 2 3")

def add_noise():
    write("data/noisy/digits/items.txt", Path("data/raw/digits/items.txt").read_text()[::-1])

def train():
    print("experiment is", os.environ.get("DVC_EXP_NAME"))
    for model in ("one", "two", "twin"):
        for seed in (0, 1):
            content = "two" if model == "twin" else model
            for folder in (f"models/toy/{model}/{seed}", f"{os.environ['DVC_ROOT']}/.atelier/{content}{seed}"):
                write(f"{folder}/weights.sha256", f"sum of {content} {seed}")
    write(os.environ["DVC_ROOT"] + "/.atelier/pruned/weights.sha256", "sum of a pruned one")

def evaluate():
    values = {"one": [0.5, 0.6], "two": [0.7, 0.8], "twin": [0.7, 0.8]}
    metrics = {name: {"test.accuracy": {"values": v}} for name, v in values.items()}
    models = {name: {"exact": {"parameters": 10}, "metrics": m} for name, m in metrics.items()}
    about = {"study": "toy", "dataset": "digits", "seeds": [0, 1]}
    write("reports/studies/toy/metrics.json", json.dumps({**about, "models": models}, indent=1))
    write("reports/studies/toy/curves.csv", "model,seed,epoch,train.loss\\none,0,1,0.5\\n")

def report():
    write("reports/studies/toy/claims.json", json.dumps([{"id": "toy-1", "verdict": "holds", "says": "so"}]))
    write("reports/studies/toy/index.md", "# toy")
    write("reports/studies/toy/figures/a.png", "picture")

globals()[sys.argv[1]]()
"""
ENVIRONMENT = ("DVC_ROOT", "DVC_EXP_NAME", "ATELIER_MIRROR", "PYTHONPATH")


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content, sort_keys=True))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The project after its first run, committed: data, models and jobs are there, but git ignores them."""
    root = tmp_path_factory.mktemp("finished")
    files = {"params.yaml": PARAMS, "dvc.yaml": PIPELINE, "make.py": STAGES, ".dvc/config": "", ".dvcignore": ""}
    files |= {".gitignore": "/data/\n/models/\n/.atelier/\n", ".dvc/.gitignore": "/config.local\n/tmp\n/cache\n"}
    for name, text in files.items():
        write(root / name, text)
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    env = {name: value for name, value in os.environ.items() if name not in ENVIRONMENT}
    env |= {"DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(tmp_path_factory.mktemp("site"))}
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    subprocess.run(
        [sys.executable, "-m", "dvc", "repro", "-q"], cwd=root, env=env, check=True, stdout=subprocess.DEVNULL
    )
    return root


@pytest.fixture
def project(finished, tmp_path, monkeypatch):
    root = tmp_path / "project"
    shutil.copytree(finished, root)
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(root)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(verify.tempfile, "tempdir", str(temporary))
    return root


def words(said):
    """Output -> word of the table."""
    rows = [line.split(maxsplit=1) for line in said.splitlines() if line.startswith(("data/", "models/", "reports/"))]
    return {path: rest.split(":")[0] for path, rest in rows}


def test_a_deterministic_study_is_identical_and_nothing_is_left(project, capfd, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", "/nowhere")
    monkeypatch.setenv("DVC_EXP_NAME", "brave-lion")
    before = {p: outputs.md5_of(p) for p in sorted(project.rglob("*")) if p.is_file()}
    assert verify.main("toy") == 0
    said = capfd.readouterr().out
    assert words(said) == dict.fromkeys(outputs.made_by(outputs.recorded(project)), "identical")
    assert len(words(said)) == 8
    assert f"mirror is {project}/data/raw" in said and "experiment is None" in said
    assert "jobs trained 4 of 4 expected" in said and said.endswith("toy: identical\n")
    assert {p: outputs.md5_of(p) for p in sorted(project.rglob("*")) if p.is_file()} == before
    assert list(Path(verify.tempfile.tempdir).iterdir()) == []


def test_it_works_on_a_fresh_clone(project, tmp_path, capfd, monkeypatch):
    for name in ("data", "models", ".atelier", ".dvc/cache", ".dvc/tmp"):
        shutil.rmtree(project / name)
    monkeypatch.setenv("ATELIER_MIRROR", "mirror")
    assert verify.main("toy", keep=True) == 0
    said = capfd.readouterr().out
    assert f"mirror is {project}/mirror" in said
    (copy,) = Path(verify.tempfile.tempdir).iterdir()
    assert f"the copy is kept in {copy}" in said and (copy / "models/toy/one/0/weights.sha256").exists()


def test_a_study_that_draws_its_figures_is_different(project, capfd):
    text = STAGES.replace('"one": [0.5, 0.6]', '"one": [1 + int.from_bytes(os.urandom(2)), 0.6]')
    assert text != STAGES
    write(project / "make.py", text)
    assert verify.main("toy") == 1
    said = capfd.readouterr().out
    assert words(said)[f"{FOLDER}/metrics.json"] == "different"
    assert "most in one test.accuracy: by" in said and "is allowed" in said and said.endswith("toy: different\n")


def test_a_page_that_holds_the_time_is_different(project, capfd):
    write(project / "make.py", STAGES.replace('"# toy"', "__import__('time').ctime()"))
    assert verify.main("toy") == 1
    said = words(capfd.readouterr().out)
    assert [path for path, word in said.items() if word != "identical"] == [f"{FOLDER}/index.md"]


def test_an_edited_report_is_found(project, capfd):
    edited = (project / FOLDER / "metrics.json").read_text().replace("0.7", "0.9", 1)
    write(project / FOLDER / "metrics.json", edited)
    shutil.rmtree(project / FOLDER / "figures")
    assert verify.main("toy") == 1
    said = capfd.readouterr().out
    found = words(said)
    assert [path for path, word in found.items() if word == "different"] == [
        f"{FOLDER}/figures",
        f"{FOLDER}/metrics.json",
    ]
    assert "was changed since its stage wrote it" in said and "is not there" in said


def test_jobs_that_are_not_trained_prove_nothing(project, capfd):
    write(project / "make.py", STAGES.replace("{os.environ['DVC_ROOT']}/.atelier", "elsewhere"))
    assert verify.main("toy") == 1
    said = capfd.readouterr().out
    assert "jobs trained 0 of 4 expected" in said and "not proved" in said


def test_a_failing_run_an_unknown_study_and_a_missing_record_are_said_in_one_line(project, capfd):
    write(project / "make.py", STAGES.replace("def report():", "def report():\n    sys.exit(7)"))
    with pytest.raises(AtelierError, match="the run in the copy failed"):
        verify.main("toy")
    assert list(Path(verify.tempfile.tempdir).iterdir()) == []
    with pytest.raises(AtelierError, match=r"toyy.*did you mean toy\?"):
        verify.main("toyy")
    (project / "dvc.lock").unlink()
    with pytest.raises(AtelierError, match="dvc.lock: holds no result of toy"):
        verify.main("toy")


def test_the_copy_s_own_code_runs(project, tmp_path, monkeypatch):
    write(project / "src/atelier/__init__.py", "")
    write(project / "make.py", "import atelier; print(atelier.__file__, file=open('which', 'w'))\n" + STAGES)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "other"))
    write(tmp_path / "other/atelier/__init__.py", "")
    assert verify.main("toy", keep=True) == 0
    (copy,) = Path(verify.tempfile.tempdir).iterdir()
    assert Path((copy / "which").read_text()).is_relative_to(copy / "src")


# ---- the comparison by itself


def metrics(**values):
    models = {"one": {"exact": {"parameters": 10}, "metrics": {f"test.{m}": {"values": v} for m, v in values.items()}}}
    return {"study": "toy", "seeds": [0, 1, 2], "models": models, "floors": {"ridge": {"test.mae": 0.1}}}


def judged(tmp_path, old, new, name="metrics.json", other=()):
    """The verdict on one file of two trees; other names outputs that differ as well."""
    path = f"{FOLDER}/{name}"
    for tree, content in (("old", old), ("new", new)):
        write(tmp_path / tree / path, content)
    recorded = dict.fromkeys((path, *other), "0")
    verdicts = verify.compare(tmp_path / "old", tmp_path / "new", recorded, dict.fromkeys(recorded, "1"))
    return next(v for v in verdicts if v.path == path)


def test_a_figure_may_differ_by_the_tolerance_or_the_spread_between_seeds(tmp_path):
    old = metrics(accuracy=[0.90, 0.90, 0.90], psnr=[20.0, 21.0, 22.0])
    near = metrics(accuracy=[0.90, 0.90, 0.914], psnr=[20.9, 21.9, 22.9])
    verdict = judged(tmp_path, old, near)
    assert verdict.word == "within tolerance"
    assert verdict.note == "most in one test.accuracy: by 0.00467, 0.005 is allowed"
    far = judged(tmp_path, old, metrics(accuracy=[0.90, 0.90, 0.90], psnr=[21.1, 22.1, 23.1]))
    assert far.word == "different" and far.note == "most in one test.psnr: by 1.1, 1 is allowed"


def test_what_is_exact_must_be_equal(tmp_path):
    old, new = metrics(accuracy=[0.9, 0.9, 0.9]), metrics(accuracy=[0.9, 0.9, 0.9001])
    new["models"]["one"]["exact"]["parameters"] = 11
    verdict = judged(tmp_path, old, new)
    assert verdict.word == "different" and verdict.note == "models.one.exact.parameters was 10, is 11"
    fewer = judged(tmp_path, old, metrics(accuracy=[0.9, 0.9]))
    assert fewer.word == "different" and "not for as many seeds" in fewer.note
    other = judged(tmp_path, old, metrics(f1_macro=[0.9, 0.9, 0.9]))
    assert other.word == "different" and other.note.startswith("one test.accuracy is not there in both")


def test_a_verdict_that_turns_is_different_and_an_estimate_that_moves_is_not(tmp_path):
    claim = {"id": "toy-1", "says": "so", "estimate": 0.10, "verdict": "holds"}
    moved = judged(tmp_path, [claim], [claim | {"estimate": 0.11}], "claims.json")
    assert moved.word == "within tolerance"
    turned = judged(tmp_path, [claim], [claim | {"verdict": "undecided"}], "claims.json")
    assert turned.word == "different" and turned.note == "0.verdict was holds, is undecided".lstrip(".")


def test_pruning_and_curves_are_compared_over_seeds_and_epochs(tmp_path):
    def points(*accuracies):
        series = {"model": "one", "criterion": "random", "schedule": "one-shot", "recovery": "none", "level": 0.5}
        found = [series | {"seed": s, "parameters": 9, "test": {"accuracy": a}} for s, a in enumerate(accuracies)]
        return {"points": found}

    def curve(*losses):
        rows = [f"one,0,{epoch},{loss},\n" for epoch, loss in enumerate(losses, 1)]
        return "model,seed,epoch,train.loss,test.accuracy\n" + "".join(rows)

    assert judged(tmp_path, points(0.5, 0.6), points(0.52, 0.62), "pruning.json").word == "within tolerance"
    worse = judged(tmp_path, points(0.5, 0.6), points(0.3, 0.4), "pruning.json")
    assert worse.word == "different" and "one/random/one-shot/none/test.accuracy at 0.5" in worse.note
    assert judged(tmp_path, curve(0.5, 0.3), curve(0.52, 0.28), "curves.csv").word == "within tolerance"
    assert judged(tmp_path, curve(0.5, 0.3), curve(0.5, 0.32), "curves.csv").word == "different"


def test_pictures_are_excused_by_models_and_data_by_nothing(tmp_path):
    page = judged(tmp_path, "a", "b", "index.md", other=("models/toy",))
    assert page.word == "differs as the models do"
    assert judged(tmp_path, "a", "b", "index.md").word == "different"
    verdicts = verify.compare(tmp_path, tmp_path, {"data/noisy/x": "0", "gone": "0"}, {"data/noisy/x": "1", "new": "0"})
    assert {v.path: v.word for v in verdicts} == dict.fromkeys(("data/noisy/x", "gone", "new"), "different")


VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=6)


@given(VALUES, st.floats(0, 2))
def test_agreement_is_exactly_a_bound_on_the_shift_of_the_mean(values, share):
    allowed = max(verify.TOLERANCE, verify.statistics.stdev(values) if len(values) > 1 else 0.0)
    if abs(share - 1) > 1e-6:
        within, note = verify.agree({"m": values}, {"m": [v + share * allowed for v in values]})
        assert within == (share < 1), note


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner.filter(lambda v: v is not None))
    ),
    max_leaves=8,
)


@given(JSON, JSON)
def test_a_difference_is_found_if_and_only_if_there_is_one(old, new):
    assert (verify.first_difference(old, new) is None) == (json.dumps(old) == json.dumps(new) or old == new)
    assert verify.first_difference(old, old) is None
