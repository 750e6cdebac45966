"""prune: models/<study> + data/noisy/<dataset> -> models/<study>-pruned/, pruning.json (without prune: no points)."""

import itertools
import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from atelier import checkpoint, cost, evaluation, families, files, jobs, paths, timings
from atelier.data.items import items
from atelier.data.store import Store
from atelier.errors import AtelierError
from atelier.fanout import fan_out
from atelier.params import Params, Study, load
from atelier.prune import choose, remove, schedule, score

OBSERVED = 5000  # training items whose activations are taken
GRADED = 1000  # training items whose gradients are taken: recurrent nets take 10 to 20 ms for each
BATCHES = (1, 256)  # of which latency is taken
REPEATS = 20
GLOBAL = "global-"  # before the name of a score by which all layers are ranked together
ABOUT = (
    "Fine-tuned pruned nets: <model>/<seed>/<criterion>-<schedule>-<level>/, each like the folder of a trained model.\n"
)


@dataclass(frozen=True)
class Cut:
    """Prune the net in `source`, which is the dense job's or a fine-tuned one, into `folder`."""

    dense: jobs.Job
    criterion: str
    schedule: str
    step: schedule.Step
    source: Path
    folder: Path
    inputs: bool = False

    def __str__(self) -> str:
        return f"{self.dense} {self.criterion} {self.schedule} {self.step.level:g}"

    def point(self, recovery: str, job: jobs.Job | None) -> "Point":
        folder = job.folder if job else self.folder
        return Point(self.dense, self.criterion, self.schedule, recovery, self.step.level, folder, job, self.inputs)


@dataclass(frozen=True)
class Point:
    """A net of pruning.json, in `folder`; `job` trained it after pruning."""

    dense: jobs.Job
    criterion: str
    schedule: str
    recovery: str
    level: float
    folder: Path
    job: jobs.Job | None = None
    inputs: bool = False  # whether given nodes are pruned too, and so count among its widths

    def __str__(self) -> str:
        return f"{self.dense} {self.criterion} {self.schedule} {self.recovery} {self.level:g}"

    @property
    def name(self) -> dict[str, Any]:
        same = {key: getattr(self, key) for key in ("criterion", "schedule", "recovery", "level")}
        return {"model": self.dense.model, "seed": self.dense.seed} | same


def main(study: str) -> None:
    started = time.monotonic()
    params = load()
    entry = params.study(study)
    if entry.prune is None:
        keep_tuned(study, [])
        return _write(study, [])
    dense = [job for job in jobs.of_study(params, study) if job.model in entry.prune.models]
    check(entry, dense)
    paths.jobs().mkdir(parents=True, exist_ok=True)
    # Pruned nets wait here for their fine-tuning, whose key holds what they are and not where they lie.
    with tempfile.TemporaryDirectory(dir=paths.jobs(), prefix="pruned-") as waiting:
        points, trained, expected = prune(params, study, dense, Path(waiting))
        nets = list({point.folder: point for point in points}.values())  # some nets stand for several points
        judged = fan_out(judge, nets, title=f"judge {study}", **params.crew)
    found = {net.folder: result for net, result in zip(nets, judged, strict=True)}
    keep_tuned(study, points)
    records = [point.name | found[point.folder][0] for point in points]
    best = chosen(records)
    records = [record | {"chosen": record["recovery"] == "finetune" and _way(record) in best} for record in records]
    _write(study, sorted(records, key=lambda r: (*_way(r), r["recovery"], entry.seed_list.index(r["seed"]))))
    timed = [point for point in points if point.job or not point.level]
    durations = [point.name | {"train_s": _seconds(point.job)} | found[point.folder][1] for point in timed]
    spent = {"prune": round(time.monotonic() - started, 2)} if trained == expected else {}
    timings.update(paths.timings(study), [], pruning=durations, stages=spent)
    print(f"prune {study}: {trained} of {expected} jobs trained, the others reused; {len(points)} points")


def check(entry: Study, dense: list[jobs.Job]) -> None:
    """Raises AtelierError, before anything runs, if a model is untrained, has nothing to prune or to rank by, or if a
    level empties a layer.
    """
    for job in dense:
        files.read_json(_dense(job) / "spec.json")
    for job in {job.model: job for job in dense}.values():
        where = f"params.yaml: studies.{job.study}.prune.models names {job.model}"
        if not hasattr(families.load(job.family), "nodes"):
            raise AtelierError(f"{where}, but family {job.family} has no nodes to remove; drop it")
        model = checkpoint.build(_spec(job))
        widths = _widths(model, entry.prune.inputs)
        if not widths:
            raise AtelierError(f"{where}, which has no hidden layer to prune; drop it")
        if entry.prune.inputs and not any(nodes.given for nodes in model.nodes()):
            raise AtelierError(f"{where}, but family {job.family} has no inputs to remove; drop it, or prune.inputs")
        if any(criterion.endswith("batch-norm") for criterion in entry.prune.criteria):
            try:
                score.batch_norm(model)
            except AtelierError as error:
                raise AtelierError(f"{where}, but {error}") from None
        equal = {name: np.ones(width) for name, width in widths.items()}
        for criterion, level in itertools.product(entry.prune.criteria, entry.prune.levels):
            _counts(criterion, equal, widths, level, job)


def prune(params: Params, study: str, dense: list[jobs.Job], waiting: Path) -> tuple[list[Point], int, int]:
    """Round by round: cut, then fine-tune and train from scratch side by side; cut nets go into folders in `waiting`.

    Gives the points, how many jobs were trained and not reused, and how many distinct jobs there are.
    """
    entry = params.study(study)
    ways = [(way, schedule.rounds(way, entry.prune.levels)) for way in entry.prune.schedules]
    points = [Point(job, "none", "none", "none", 0.0, _dense(job), inputs=entry.prune.inputs) for job in dense]
    tuned: dict[tuple, Path] = {}
    trained, keys = 0, set()
    for turn in range(max(len(rounds) for _, rounds in ways)):
        steps = [(way, step) for way, rounds in ways for step in (rounds[turn] if turn < len(rounds) else ())]
        cuts = [
            Cut(job, criterion, way, step, tuned.get((job, criterion, way, step.start), _dense(job)), Path())
            for job in dense
            for criterion in entry.prune.criteria
            for way, step in steps
        ]
        cuts = [
            replace(cut, folder=waiting / f"{turn}-{number}", inputs=entry.prune.inputs)
            for number, cut in enumerate(cuts)
        ]
        settings = fan_out(carry_out, cuts, title=f"cut {study}", **params.crew)
        new = [point for cut, found in zip(cuts, settings, strict=True) for point in recoveries(entry, cut, found)]
        work = [point.job for point in new if point.job]
        trained += jobs.train_all(work, params, f"prune {study}") if work else 0
        keys |= {job.key for job in work}
        tuned = {(p.dense, p.criterion, p.schedule, p.level): p.folder for p in new if p.recovery == "finetune"}
        points += [point for point in new if point.recovery in entry.prune.recoveries]
    return points, trained, len(keys)


def recoveries(entry: Study, cut: Cut, settings: dict[str, Any]) -> list[Point]:
    """The nets that a cut gives. An iterative schedule goes on from fine-tuned nets even where no point shows them.

    scratch-epochs: fresh weights and the model's own recipe, as many epochs as the dense net and its fine-tunings took.
    """
    dense, level = cut.dense, cut.step.level
    tune = entry.prune_recipe(dense.model).changed({"snapshots": ()})
    whole = dense.recipe.changed({"snapshots": (), "epochs": dense.recipe.epochs + cut.step.turn * tune.epochs})
    label = f" {cut.criterion} {cut.schedule} {level:g}"
    found = [cut.point("none", None)]
    if "finetune" in entry.prune.recoveries or cut.schedule == "iterative":
        job = replace(dense, settings=settings, recipe=tune, start=cut.folder, label=label)
        found.append(cut.point("finetune", job))
    if "scratch-epochs" in entry.prune.recoveries:
        job = replace(dense, settings=settings, recipe=whole, label=f" scratch {level:g}")
        found.append(cut.point("scratch-epochs", job))
    return found


def carry_out(cut: Cut) -> dict[str, Any]:
    """Prune one net and store it; gives its settings."""
    job = cut.dense
    model, spec = checkpoint.load(cut.source)
    every, means = scored(cut, model)
    scores = {nodes.name: every[nodes.name] for nodes in choose.candidates(model, cut.inputs)}
    widths = _widths(checkpoint.build(_spec(job)), cut.inputs)
    keep = choose.best(scores, _counts(cut.criterion, scores, widths, cut.step.level, job))
    shape, classes = tuple(spec["shape"]), spec["classes"]
    pruned, settings = remove.remove(model, job.family, shape, classes, job.settings, keep, means)
    checkpoint.save(cut.folder, spec | {"settings": settings, "cost": cost.exact(pruned, shape)}, pruned)
    return settings


def scored(cut: Cut, model: torch.nn.Module) -> tuple[score.Scores, remove.Means | None]:
    """The scores of all nodes; and their means, where what goes is folded into biases."""
    job, name = cut.dense, cut.criterion.removeprefix(GLOBAL)
    match name:
        case "batch-norm":
            return score.batch_norm(model), None
        case "random":
            return score.random(model, job.seed), None
        case "weight-norm":
            return score.weight_norm(model), None
    train = items(Store(paths.noisy(job.dataset)), "train", job.recipe.noise, job.recipe.hold_out)
    count = min(GRADED if name == "taylor" else OBSERVED, len(train))
    rows = np.linspace(0, len(train) - 1, count).astype(int)
    if name == "taylor":
        return score.taylor(model, train.x[rows], (train.y if hasattr(model, "classify") else train.clean)[rows]), None
    seen = score.observe(model, train.x[rows])
    return score.activation(model, seen), score.means(seen)


def judge(point: Point) -> tuple[dict[str, Any], dict[str, Any]]:
    """Size and figures, inputs corrupted as in training; and the latency of dense and fine-tuned nets."""
    model, spec = checkpoint.load(point.folder)
    recipe, store = point.dense.recipe, Store(paths.noisy(point.dense.dataset))
    test = items(store, "test", recipe.noise, recipe.hold_out)
    figures = {"widths": list(_widths(model, point.inputs).values()), "test": evaluation.judge(model, test)}
    if recipe.hold_out:
        held = items(store, "validation", recipe.noise, recipe.hold_out)
        figures["validation"] = evaluation.judge(model, held)
    else:
        figures["validation"] = dict.fromkeys(figures["test"])
    figures |= {key: spec["cost"][key] for key in ("parameters", "multiply_adds")}
    latency = dict.fromkeys(f"latency_ms_batch_{size}" for size in BATCHES)
    for size in BATCHES if point.recovery == "finetune" or not point.level else ():
        x = test.x[torch.arange(size) % len(test)]
        # Seconds for 1,000 items are milliseconds for one.
        latency[f"latency_ms_batch_{size}"] = round(evaluation.seconds_per_1000(model, x, REPEATS) * size, 4)
    return figures, latency


def chosen(records: list[dict[str, Any]]) -> set[tuple]:
    """(model, criterion, schedule, level) of each way's strongest harmless level, by means over seeds on validation."""
    values: dict[tuple, list[float]] = {}
    for record in records:
        metric = "accuracy" if "accuracy" in record["validation"] else "mae"
        value = record["validation"].get(metric)
        if value is not None and (record["recovery"] == "finetune" or not record["level"]):
            values.setdefault((metric, *_way(record)), []).append(value)
    dense = {(metric, model): np.mean(found) for (metric, model, *_, level), found in values.items() if not level}
    by_way: dict[tuple, dict[float, float]] = {}
    for (*way, level), found in values.items():
        if level:
            by_way.setdefault(tuple(way), {})[level] = float(np.mean(found))
    found = {way: choose.strongest(way[0], levels, dense[way[:2]]) for way, levels in by_way.items()}
    return {(*way[1:], level) for way, level in found.items() if level is not None}


def keep_tuned(study: str, points: list[Point]) -> None:
    """Replace models/<study>-pruned/ by the fine-tuned nets."""
    shutil.rmtree(_folder(study), ignore_errors=True)
    files.write_text(_folder(study) / "README.md", ABOUT)
    for point in points:
        if point.recovery == "finetune":
            model, spec = checkpoint.load(point.folder)
            place = f"{point.criterion}-{point.schedule}-{point.level:g}"
            checkpoint.save(_folder(study) / point.dense.model / str(point.dense.seed) / place, spec, model)


def _way(record: dict[str, Any]) -> tuple:
    return tuple(record[key] for key in ("model", "criterion", "schedule", "level"))


def _write(study: str, points: list[dict[str, Any]]) -> None:
    files.write_json(paths.report(study) / "pruning.json", {"schema": 1, "study": study, "points": points})


def _seconds(job: jobs.Job | None) -> float | None:
    return jobs.result(job)["train_s"] if job else None


def _folder(study: str) -> Path:
    return paths.models(f"{study}-pruned")


def _dense(job: jobs.Job) -> Path:
    return paths.model(job.study, job.model, job.seed)


def _spec(job: jobs.Job) -> dict[str, Any]:
    store = Store(paths.noisy(job.dataset))
    return {"family": job.family, "shape": store.shape, "classes": len(store.classes), "settings": job.settings}


def _widths(model: torch.nn.Module, inputs: bool) -> dict[str, int]:
    return {nodes.name: nodes.width for nodes in choose.candidates(model, inputs)}


def _counts(
    criterion: str, scores: score.Scores, widths: dict[str, int], level: float, job: jobs.Job
) -> dict[str, int]:
    """How many nodes of each layer stay; widths: those of the dense net."""
    model = f"{job.study}.{job.model}"
    if criterion.startswith(GLOBAL):
        return choose.across(scores, widths, level, model)
    return choose.uniform(widths, level, model)
