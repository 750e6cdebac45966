"""What the repository says of itself is true: commands, files and versions that its pages name are there."""

import re
from importlib.metadata import version
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from atelier import __main__ as command_line
from atelier import params
from atelier.report import results, tables

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
SOURCES = sorted((ROOT / "src").rglob("*.py"))


def pins(name: str) -> dict[str, str]:
    lines = (ROOT / name).read_text().splitlines()
    return dict(line.lower().split("==") for line in lines if line and not line.startswith("#"))


def test_the_make_targets_that_are_named_exist():
    pages = README + (ROOT / ".github/workflows/ci.yml").read_text()
    named = set(re.findall(r"(?:^|`|run: )make ([a-z]+)", pages, re.MULTILINE))
    assert {"run", "verify", "study", "test"} <= named
    for target in named:
        assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), target


def test_the_commands_that_are_named_exist():
    known = command_line._parser().commands
    named = set(re.findall(r"(?:`|-m )atelier ([a-z_]+)", README + MAKEFILE + (ROOT / "dvc.yaml").read_text()))
    assert {"track", "trace", "train"} <= named
    assert named <= set(known)


def test_every_module_stands_in_the_readme_and_every_name_there_exists():
    tree = README.split("src/atelier/\n")[1].split("tests/")[0]
    named = set(re.findall(r"([a-z_]+\.py)", tree))
    folders = set(re.findall(r"^  ([a-z]+)/", tree, re.MULTILINE))
    package = ROOT / "src/atelier"
    assert named == {file.name for file in package.glob("*.py")} - {"__init__.py", "errors.py"}
    assert folders == {file.parent.name for file in package.glob("*/__init__.py")}


def test_pictures_and_links_of_the_readme_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_every_file_that_a_stage_depends_on_exists():
    for file in ("dvc.yaml", "data/dvc.yaml"):
        stages = YAML(typ="safe").load((ROOT / file).read_text())["stages"]
        for stage in stages.values():
            for path in stage.get("do", stage)["deps"]:
                assert "$" in path or path.startswith("reports/") or (ROOT / path).exists(), path


@pytest.mark.parametrize("package", ["numpy", "scikit-learn", "scipy", "torch", "torchvision"])
def test_the_compute_lock_is_part_of_the_whole_lock_and_installed(package):
    assert pins("compute.lock")[package] == pins("requirements.lock")[package]
    assert version(package).split("+")[0] == pins("compute.lock")[package]


@pytest.mark.parametrize(
    "library, home",
    [("mlflow", "track.py"), ("onnx", "onnx.py"), ("onnxruntime", "onnx.py"), ("torchvision", "vision.py")],
)
def test_a_library_is_imported_in_its_one_place(library, home):
    users = [file.name for file in SOURCES if re.search(rf"^\s*(import|from) {library}\b", file.read_text(), re.M)]
    assert set(users) <= {home}


RECIPE = ("lr", "batch", "label_smoothing", "weight_decay", "optimizer", "schedule", "augment", "clip")


def chosen_on_validation(study: str) -> dict[str, tuple[dict, params.Recipe]]:
    """Settings and recipe of the trial that each model's validation items chose."""
    trial = params.load(ROOT / "params.yaml", families=False).study(study)
    found = results.read(ROOT / "reports/studies" / study, study, trial)
    return {
        name: (trial.models[best].settings, trial.recipe(best)) for name, best, *_ in tables.chosen(found, trial.trials)
    }


def same_training(study: params.Study, model: str, settings: dict, tried: params.Recipe) -> bool:
    recipe = study.recipe(model)
    return study.models[model].settings == settings and all(getattr(recipe, k) == getattr(tried, k) for k in RECIPE)


def test_the_league_trains_what_validation_items_chose():
    """Settings and rates of each model as league-trials-<model> chose them, for as long as league-length did; of the
    recurrent net, which is trained apart, as league-rate chose among its best trials.
    """
    study = params.load(ROOT / "params.yaml", families=False).study
    league, apart, rates = study("league"), study("league-recurrent"), study("league-rate")
    lengths = chosen_on_validation("league-length")
    (lasting,) = chosen_on_validation("league-rate").values()
    assert set(lengths) == {"dense", "lenet"}
    for name in league.models:
        (chosen,) = chosen_on_validation("league-trials-" + name.partition("-")[0]).values()
        for settings, tried in (chosen, lengths.get(name, chosen)):
            assert same_training(league, name, settings, tried), name
        assert name not in lengths or league.recipe(name).epochs == lengths[name][1].epochs
    assert same_training(apart, "recurrent", *lasting)
    assert apart.recipe("recurrent").epochs == lasting[1].epochs
    assert apart.models["dense"] == league.models["dense"] and apart.recipe("dense") == league.recipe("dense")
    tried = study("league-trials-recurrent")
    for name, model in rates.models.items():
        assert same_training(tried, name, model.settings, rates.recipe(name)), name
