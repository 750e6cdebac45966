"""The pipeline from outside: the commands that a user types, on a small copy of the project."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARAMS = """\
workers: 2
compute: {threads: 1, device: cpu}
datasets:
  digits: {test: 360, validation: 237, seed: 0}
noise: {seed: 0, gaussian: [0.2]}
studies:
  tiny:
    asks: Does a hidden layer help?
    dataset: digits
    seeds: 2
    train: {epochs: 4, batch: 64, lr: 0.01, hold_out: true}
    models:
      softmax: {family: softmax}
      mlp: {family: mlp, hidden: [16]}
    prune:
      models: [mlp]
      criteria: [weight-norm]
      levels: [0.25]
      recoveries: [none, finetune]
      train: {epochs: 2}
    claims:
      - says: A hidden layer helps
        compare: {metric: test.accuracy, higher: mlp, than: softmax}
    published: {}
    note: null
experiments:
  back-propagation:
    asks: Is it the gradient?
    dataset: digits
    seeds: 2
    models:
      net: {hidden: [5], count: 20, row: D3.1}
    claims:
      - says: It is the gradient
        row: D3.1
        compare: {metric: test.deviation, lower: net, floor: rounding}
    published: {}
    note: null
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's own code and stages with one tiny study, as a git repository with everything run once."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("dvc.yaml", ".dvcignore", "compute.lock", ".gitignore", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(ROOT / "src" / "atelier", folder / "src" / "atelier", ignore=shutil.ignore_patterns("__pycache__"))
    for name in (".dvc/config", ".dvc/.gitignore", ".dvc/plots/by_model.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / "params.yaml").write_text(PARAMS)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    commit(folder)
    run(folder, "-m", "dvc", "repro")
    commit(folder)
    return folder


def run(folder: Path, *arguments: str, ok: bool = True) -> subprocess.CompletedProcess:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "ATELIER_"))}
    environment |= {"PYTHONPATH": str(folder / "src"), "DVC_NO_ANALYTICS": "true"}
    environment |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True)
    assert not ok or done.returncode == 0, done.stdout + done.stderr
    return done


def commit(folder: Path) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    for command in (["add", "-A"], ["commit", "-q", "--allow-empty", "-m", "state"]):
        subprocess.run(["git", *identity, *command], cwd=folder, check=True)


def study(folder: Path, name: str) -> dict:
    return json.loads((folder / "reports/studies/tiny" / name).read_text())


def finished_runs(folder: Path) -> list[str]:
    script = (
        "import os; os.environ['MLFLOW_DISABLE_TELEMETRY'] = 'true'\n"
        "from mlflow.tracking import MlflowClient\n"
        "c = MlflowClient('sqlite:///mlflow.db')\n"
        "runs = c.search_runs([e.experiment_id for e in c.search_experiments()], \"attributes.status = 'FINISHED'\")\n"
        "print(sorted(r.data.tags.get('mlflow.runName', '') for r in runs))"
    )
    return run(folder, "-c", script).stdout.strip().splitlines()[-1]


def test_one_command_makes_every_result(project: Path) -> None:
    metrics = study(project, "metrics.json")
    assert metrics["schema"] == 1 and metrics["seeds"] == [0, 1]
    for name in ("softmax", "mlp"):
        accuracy = metrics["models"][name]["metrics"]["test.accuracy"]
        assert accuracy["n"] == 2 and 0.5 < accuracy["mean"] <= 1
    assert metrics["models"]["softmax"]["exact"]["parameters"] == 650
    assert "test.gaussian-0.2.accuracy" in metrics["models"]["mlp"]["metrics"]
    assert study(project, "claims.json")[0]["verdict"] in ("holds", "does not hold", "undecided")
    levels = {point["level"] for point in study(project, "pruning.json")["points"]}
    assert levels == {0.0, 0.25}
    page = (project / "reports/studies/tiny/index.md").read_text()
    assert page.startswith("# Does a hidden layer help?")
    assert "“It is the gradient”" in (project / "reports/studies/back-propagation/index.md").read_text()
    (row,) = json.loads((project / "reports/catalogue.json").read_text())
    assert (row["id"], row["study"], row["verdict"]) == ("D3.1", "back-propagation", "holds")
    assert (project / "reports/catalogue.md").exists() and (project / "mlflow.db").exists()


def test_nothing_changed_nothing_runs(project: Path) -> None:
    assert "Running stage" not in run(project, "-m", "dvc", "repro").stdout


def test_an_experiment_is_proved_again_too(project: Path) -> None:
    shown = run(project, "-m", "atelier", "verify", "back-propagation").stdout
    assert "metrics.json" in shown and "different" not in shown and "identical" in shown


def test_tracking_again_and_from_nothing_gives_the_same_runs(project: Path) -> None:
    before = finished_runs(project)
    run(project, "-m", "atelier", "track")
    assert finished_runs(project) == before and before.count("mlp") >= 1
    (project / "mlflow.db").unlink()
    run(project, "-m", "atelier", "track")
    assert finished_runs(project) == before


def test_a_clone_without_a_store_gets_one(project: Path) -> None:
    before = finished_runs(project)
    (project / "mlflow.db").unlink()
    (project / ".atelier/tracked.json").unlink()
    run(project, "-m", "dvc", "repro", "--single-item", "track")
    assert finished_runs(project) == before


def test_rewording_a_claim_retrains_nothing(project: Path) -> None:
    edit(project, "A hidden layer helps", "One hidden layer helps")
    out = run(project, "-m", "dvc", "repro", "report@tiny").stdout
    assert "Running stage 'report@tiny'" in out and "Running stage 'train@tiny'" not in out
    assert "One hidden layer helps" in (project / "reports/studies/tiny/index.md").read_text()


def test_editing_one_model_retrains_that_model(project: Path) -> None:
    edit(project, "hidden: [16]", "hidden: [12]")
    out = run(project, "-m", "dvc", "repro", "evaluate@tiny").stdout
    assert "train tiny: 2 of 4 jobs trained" in out


def test_metrics_plots_and_experiments_work_as_dvc_users_expect(project: Path) -> None:
    commit(project)
    shown = json.loads(run(project, "-m", "dvc", "metrics", "show", "--json").stdout)
    values = shown[""]["data"]["reports/studies/tiny/summary.json"]["data"]
    assert values["mlp"]["test.accuracy"] == pytest.approx(study(project, "summary.json")["mlp"]["test.accuracy"])
    run(project, "-m", "dvc", "plots", "show")
    page = (project / "dvc_plots/index.html").read_text()
    assert '"field": "model"' in page and "curves_csv" in page
    run(project, "-m", "dvc", "exp", "run", "--temp", "-S", "studies.tiny.train.epochs=2", "report@tiny")
    table = json.loads(run(project, "-m", "dvc", "exp", "show", "--json").stdout)
    revisions = [rev for row in table for experiment in row["experiments"] or [] for rev in experiment["revs"]]
    trained = [rev["data"]["params"]["params.yaml"]["data"]["studies"]["tiny"]["train"] for rev in revisions]
    assert [recipe["epochs"] for recipe in trained] == [2]


def test_bad_parameters_stop_before_anything_is_lost(project: Path) -> None:
    before = study(project, "metrics.json")
    edit(project, "family: softmax}", "family: sofmax}")
    done = run(project, "-m", "dvc", "repro", "report@tiny", ok=False)
    assert done.returncode != 0
    assert "did you mean softmax?" in done.stdout + done.stderr
    assert study(project, "metrics.json") == before
    edit(project, "family: sofmax}", "family: softmax}")


def edit(project: Path, old: str, new: str) -> None:
    text = (project / "params.yaml").read_text()
    assert text.count(old) == 1
    (project / "params.yaml").write_text(text.replace(old, new))
