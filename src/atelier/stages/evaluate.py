"""evaluate: models/<study> + data/noisy/<dataset> -> metrics.json, summary.json, curves.csv and the like."""

import importlib
import time
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np

from atelier import assess, checkpoint, evaluation, files, floors, jobs, metrics, paths, pictures, stats, timings
from atelier.data.items import items
from atelier.data.store import Store
from atelier.fanout import fan_out
from atelier.fit import first_of_each_class
from atelier.params import Attacks, Params, TrainNoise, load

HEADLINES = ("test.accuracy", "test.under_pgd", "test.f1_macro", "test.nll", "test.frechet", "test.mae")
CURVE = ("loss", "accuracy", "accuracy_rounded", "mae", "mse")


@dataclass(frozen=True)
class Candidate:
    """A trained model to judge, and what it was trained on."""

    job: jobs.Job
    corruptions: tuple[TrainNoise, ...]
    attacks: Attacks | None = None

    def __str__(self) -> str:
        return str(self.job)


def main(study: str) -> None:
    started = time.monotonic()
    params = load()
    entry = params.study(study)
    store = Store(paths.noisy(entry.dataset))
    stored = store.corruptions("test")  # sensors have none
    corruptions = tuple(
        TrainNoise(kind=kind, level=level)
        for name, (kind, level) in params.noise.corruptions().items()
        if name in stored
    )
    candidates = [
        Candidate(job, () if entry.models[job.model].trial_of else corruptions, entry.attacks)  # trials are many
        for job in jobs.of_study(params, study)
    ]
    size = len(candidates) * sum(file.stat().st_size for file in store.folder.iterdir())
    found = fan_out(judge, candidates, title=f"evaluate {study}", reads=size, **params.crew)
    by_model = {
        name: [f for c, f in zip(candidates, found, strict=True) if c.job.model == name] for name in entry.models
    }
    widths = sorted({run["code_size"] for runs in by_model.values() for run in runs if run["code_size"]})
    simple = partial(floors.floors, store, list(corruptions))
    limits = fan_out(simple, widths, title=f"floors {study}", reads=size, **params.crew)
    families = sorted({model.family for model in entry.models.values()} & set(assess.names()))
    limits += fan_out(partial(assess.floors, store=store), families, title=f"floors {study}", reads=size, **params.crew)
    write_metrics(params, study, by_model, {name: figures for limit in limits for name, figures in limit.items()})
    write_curves(study, by_model)
    write_confusion(study, by_model, store.classes)
    pictures.examples(
        paths.report(study) / "examples.png", {model: runs[0]["examples"] for model, runs in by_model.items()}
    )
    timings.update(
        paths.timings(study),
        [{"model": c.job.model, "seed": c.job.seed, **f["timing"]} for c, f in zip(candidates, found, strict=True)],
        stages={"evaluate": round(time.monotonic() - started, 2)},
    )


def judge(candidate: Candidate) -> dict[str, Any]:
    """Everything there is to say of one trained model."""
    job = candidate.job
    folder = paths.model(job.study, job.model, job.seed)
    model, spec = checkpoint.load(folder)
    store = Store(paths.noisy(job.dataset))
    hold_out, trained_on = job.recipe.hold_out, job.recipe.noise
    found = {
        "seed": job.seed,
        "metrics": evaluation.judge_everywhere(model, store, job.recipe, list(candidate.corruptions)),
        "exact": spec["cost"],
        "history": files.read_json(folder / "history.json"),
        "code_size": getattr(model, "code_size", None),
    }
    more = assess.assess(job.family, model, store, job.seed, hold_out)
    classifies = hasattr(model, "classify")
    hard = _under_attack(candidate, model, store) if candidate.attacks and classifies else assess.Assessment()
    found["metrics"] |= more.figures | hard.figures
    found["series"] = more.series | hard.series
    drawn = pictures.samples(model, job.seed) + more.rows + hard.rows
    test = items(store, "test", None if classifies else trained_on, hold_out)
    answers = evaluation.answer(model, test.x)
    if answers is None:
        return found | {"timing": {}, "examples": drawn}
    found["timing"] = {"inference_s_per_1000": round(evaluation.seconds_per_1000(model, test.x[:]), 6)}
    if classifies:
        y = test.y.numpy()
        found |= {"confusion": metrics.confusion(answers, y), "per_class": metrics.per_class(answers, y)}
        return found | {"examples": pictures.mistakes(test, answers, store.classes) + drawn}
    split = "validation" if hold_out else "test"  # of which training took its snapshots
    seen = items(store, split, trained_on, hold_out)
    rebuilt = evaluation.answer(model, seen.x[first_of_each_class(seen.y)])
    return found | {"examples": pictures.reconstructions(seen, rebuilt, folder / "snapshots.npz") + drawn}


def _under_attack(candidate: Candidate, model: Any, store: Store) -> assess.Assessment:
    job, how = candidate.job, candidate.attacks
    others = [checkpoint.load(paths.model(job.study, m, job.seed))[0] for m in how.transfer if m != job.model]
    robustness = importlib.import_module("atelier.robustness")  # by name: other studies do not depend on it (code.py)
    return robustness.judge(model, store, job.seed, how, job.recipe.hold_out, others)


def write_metrics(params: Params, study: str, by_model: dict[str, list[dict]], floors: dict[str, Any]) -> None:
    entry = params.study(study)
    models = {}
    for name, runs in by_model.items():
        model = entry.models[name]
        models[name] = {
            "rows": list(model.rows),
            "exact": runs[0]["exact"],
            "metrics": {m: stats.summary([run["metrics"][m] for run in runs]) for m in runs[0]["metrics"]},
            "settings": {"family": model.family} | model.settings,
            "recipe": entry.recipe(name).chosen,
            "epochs": stats.summary([run["history"]["epochs"] for run in runs]),
        }
        if any(run["series"] for run in runs):
            models[name]["series"] = [run["series"] for run in runs]
    seen = {"schema": 1, "study": study, "dataset": entry.dataset, "seeds": entry.seed_list, "models": models}
    seen |= {"differences": differences(models), "floors": floors}
    files.write_json(paths.report(study) / "metrics.json", seen)
    headlines = {
        name: {m: model["metrics"][m]["mean"] for m in HEADLINES if m in model["metrics"]}
        for name, model in models.items()
    }
    files.write_json(paths.report(study) / "summary.json", headlines)


def differences(models: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """For each headline metric, every pair of models that has it: the difference seed by seed."""
    found: dict[str, dict[str, Any]] = {}
    for metric in HEADLINES:
        values = {
            name: model["metrics"][metric]["values"] for name, model in models.items() if metric in model["metrics"]
        }
        pairs = {f"{a} - {b}": stats.paired(values[a], values[b]) for a, b in combinations(values, 2)}
        found |= {metric: pairs} if pairs else {}
    return found


def write_curves(study: str, by_model: dict[str, list[dict]]) -> None:
    """One line for each model, seed and evaluated epoch; the figures that all families share come first."""
    records = [
        {"model": name, "seed": run["seed"]} | point
        for name, runs in by_model.items()
        for run in runs
        for point in run["history"]["curve"]
    ]
    figures = [f"{split}.{m}" for split in ("train", "validation", "test", "running") for m in CURVE]
    known = {name for record in records for name in record} - {"model", "seed", "epoch"}
    columns = ["model", "seed", "epoch", *(f for f in figures if f in known), *sorted(known - set(figures))]
    rows = ([record.get(column) for column in columns] for record in records)
    files.write_csv(paths.report(study) / "curves.csv", columns, rows)


def write_confusion(study: str, by_model: dict[str, list[dict]], classes: list[str]) -> None:
    """Counts summed and per-class figures averaged over seeds, for the models that classify."""
    found = {}
    for name, runs in by_model.items():
        if "confusion" in runs[0]:
            table = [
                {"class": label}
                | {k: float(np.mean([run["per_class"][i][k] for run in runs])) for k in runs[0]["per_class"][i]}
                for i, label in enumerate(classes)
            ]
            matrix = sum(run["confusion"] for run in runs).tolist()
            found[name] = {"classes": classes, "matrix": matrix, "per_class": table}
    files.write_json(paths.report(study) / "confusion.json", found)
