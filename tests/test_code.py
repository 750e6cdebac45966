"""Digests of code change with what a stage runs, and with nothing else."""

import shutil
from pathlib import Path

import pytest

from atelier import code, files, params
from atelier.__main__ import main as command


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """The package's sources in a folder of their own; gives a function that appends a line to one of them."""
    root = tmp_path / "atelier"
    shutil.copytree(Path(code.__file__).parent, root, ignore=shutil.ignore_patterns("__pycache__"))
    real = code.find_spec

    def moved(name: str):
        spec = real(name)
        if spec and spec.origin:
            inside = Path(spec.origin).relative_to(Path(code.__file__).parent)
            spec = type(spec)(
                name, None, origin=str(root / inside), is_package=spec.submodule_search_locations is not None
            )
        return spec

    def forget() -> None:
        code._read.cache_clear()
        code.of_family.cache_clear()

    def append(module: str, line: str) -> None:
        with open(root / f"{module}.py", "a") as file:
            file.write(f"\n{line}\n")
        forget()

    monkeypatch.setattr(code, "find_spec", moved)
    forget()
    yield append
    forget()


def changed(before: dict, after: dict, prefix: str = "") -> set[str]:
    found = set()
    for name in before:
        place = f"{prefix}{name}"
        if isinstance(before[name], dict):
            found |= changed(before[name], after[name], f"{place}.")
        elif before[name] != after[name]:
            found.add(place)
    return found


def of(**families: str) -> params.Params:
    """Params of one study for each keyword, of one model of that family."""
    known = params.load(families=False)
    study = known.studies["tiny"]
    model = study.models["net"]
    studies = {
        name: study.model_copy(update={"models": {"net": model.model_copy(update={"family": family, "settings": {}})}})
        for name, family in families.items()
    }
    return known.model_copy(update={"studies": studies})


@pytest.mark.parametrize(
    "module, concerned",
    [
        ("families/mlp", {"dense.train", "dense.evaluate"}),
        ("families/cnn", {"maps.train", "maps.evaluate"}),
        ("fit", {"dense.train", "dense.evaluate", "maps.train", "maps.evaluate"}),
        ("data/subset", {"dense.train", "dense.evaluate", "maps.train", "maps.evaluate"}),
        ("evaluation", {"dense.evaluate", "maps.evaluate"}),
        ("metrics", {"dense.evaluate", "maps.evaluate"}),
        ("attacks", set()),
        ("robustness", set()),
        ("stages/train", {"dense.train", "maps.train"}),
        ("families/recurrent", set()),
        ("prune/score", set()),
        ("report/tables", set()),
        ("jobs", set()),
    ],
)
def test_a_change_reaches_the_stages_that_use_it_and_no_other(module, concerned, project, sources):
    known = of(dense="mlp", maps="cnn")
    before = code.of_stages(known)
    sources(module, "# a comment")
    assert code.of_stages(known) == before
    sources(module, "MORE = 1")
    assert changed(before["studies"], code.of_stages(known)["studies"]) == concerned


def test_experiments_follow_their_own_code(project, sources):
    known = params.load(families=False)
    entry = params.Experiment(
        asks="?", dataset="digits", seeds=1, models={"net": {}}, claims=(), published={}, note=None
    )
    known = known.model_copy(update={"experiments": {"two-layer": entry, "gradient-norms": entry}})
    before = code.of_stages(known)
    for module, concerned in {
        "byhand/two_layer": {"experiments.two-layer"},
        "byhand/autograd": {"experiments.two-layer"},
        "families/mlp": {"experiments.two-layer", "experiments.gradient-norms"},
        "experiments/gradient_norms": {"experiments.gradient-norms"},
        "report/tables": set(),
    }.items():
        sources(module, "MORE = 1")
        after = code.of_stages(known)
        assert {c for c in changed(before, after) if c.startswith("exp")} == concerned, module
        before = after


def test_a_study_that_prunes_nothing_does_not_depend_on_how_it_is_done(project):
    digests = code.of_stages(of(dense="mlp"))["studies"]["dense"]
    assert digests["prune"] is None and len(digests["train"]) == 64
    assert command(["code"]) == 0
    assert set(files.read_json(project / "code.json")["studies"]) == {"tiny"}


def test_gradual_pruning_depends_on_the_code_that_silences_nodes(project, sources):
    known = of(dense="mlp")
    study = known.studies["dense"]
    plans = {
        way: params.Prune(
            models=("net",), criteria=("random",), levels=(0.5,), schedules=(way,), recoveries=("finetune",)
        )
        for way in ("one-shot", "gradual")
    }
    known = known.model_copy(update={"studies": {w: study.model_copy(update={"prune": p}) for w, p in plans.items()}})
    before = code.of_stages(known)["studies"]
    sources("sparsity", "MORE = 1")
    assert changed(before, code.of_stages(known)["studies"]) == {"gradual.prune"}
