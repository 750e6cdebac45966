"""prune: models/<study> + data/noisy/<dataset> -> models/<study>-pruned/, pruning.json (without prune: no points)."""

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
BATCHES = (1, 256)  # of which latency is taken
REPEATS = 20
EARLY = "early"
ABOUT = (
    "Fine-tuned pruned nets: <model>/<seed>/<criterion>-<schedule>-<level>/, each like the folder of a trained model.\n"
)


@dataclass(frozen=True)
class Cut:
    """Prune the net in `source`, which is the dense job's or a fine-tuned one, into `folder`.

    early: the same net as it was before the epochs that rewinding takes back; it is pruned alike, into folder / EARLY.
    thinning: the job, if the schedule is gradual, that left in `source` a net whose nodes to prune are silent.
    """

    dense: jobs.Job
    criterion: str
    schedule: str
    step: schedule.Step
    source: Path
    early: Path | None
    folder: Path
    thinning: jobs.Job | None = None

    def __str__(self) -> str:
        return f"{self.dense} {self.criterion} {self.schedule} {self.step.level:g}"

    def point(self, recovery: str, job: jobs.Job | None) -> "Point":
        folder = job.folder if job else self.folder
        return Point(self.dense, self.criterion, self.schedule, recovery, self.step.level, folder, job)


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
    """Raises AtelierError, before anything runs, if a model has no nodes, is untrained, or a level empties a layer."""
    for job in dense:
        files.read_json(_dense(job) / "spec.json")
    for job in {job.model: job for job in dense}.values():
        where = f"params.yaml: studies.{job.study}.prune.models names {job.model}"
        if not hasattr(families.load(job.family), "nodes"):
            raise AtelierError(f"{where}, but family {job.family} has no nodes to remove; drop it")
        widths = _widths(checkpoint.build(_spec(job)))
        if not widths:
            raise AtelierError(f"{where}, which has no hidden layer to prune; drop it")
        for level in entry.prune.levels:
            choose.uniform(widths, level, f"{job.study}.{job.model}")


def prune(params: Params, study: str, dense: list[jobs.Job], waiting: Path) -> tuple[list[Point], int, int]:
    """Round by round: cut, then fine-tune and train from scratch side by side; cut nets go into folders in `waiting`.

    Gives the points, how many jobs were trained and not reused, and how many distinct jobs there are.
    """
    entry, crew = params.study(study), _Crew(params, f"prune {study}")
    ways = [(way, schedule.rounds(way, entry.prune.levels)) for way in entry.prune.schedules]
    points = [Point(job, "none", "none", "none", 0.0, _dense(job)) for job in dense]
    begun = {job: _begun(entry, job) for job in dense if "rewind" in entry.prune.recoveries}
    crew.train(begun.values())
    nets = {(job, 0.0): (_dense(job), begun[job].folder if begun else None) for job in dense}
    for turn in range(max(len(rounds) for _, rounds in ways)):
        steps = [(way, step) for way, rounds in ways for step in (rounds[turn] if turn < len(rounds) else ())]
        cuts = [
            Cut(job, criterion, way, step, *_source(nets, job, criterion, way, step), Path())
            for job in dense
            for criterion in entry.prune.criteria
            for way, step in steps
        ]
        cuts = [replace(cut, folder=waiting / f"{turn}-{number}") for number, cut in enumerate(cuts)]
        slow = {cut: thinning(entry, cut) for cut in cuts if cut.schedule == "gradual"}
        crew.train(slow.values())
        cuts = [replace(cut, source=slow[cut].folder, thinning=slow[cut]) if cut in slow else cut for cut in cuts]
        settings = fan_out(carry_out, cuts, title=f"cut {study}", **params.crew)
        new = [(cut, recoveries(entry, cut, found)) for cut, found in zip(cuts, settings, strict=True)]
        crew.train(point.job for _, found in new for point in found if point.job)
        for cut, found in new:
            points += [point for point in found if point.recovery in entry.prune.recoveries]
            tuned = next((point.folder for point in found if point.recovery == "finetune"), cut.folder)
            nets[cut.dense, cut.criterion, cut.schedule, cut.step.level] = tuned, cut.early and cut.folder / EARLY
    return points, crew.trained, len(crew.keys)


class _Crew:
    """Trains jobs, and counts those that were trained and not reused, and the distinct ones."""

    def __init__(self, params: Params, title: str) -> None:
        self.params, self.title, self.trained, self.keys = params, title, 0, set()

    def train(self, work: Iterable[jobs.Job]) -> None:
        if work := list(work):
            self.trained += jobs.train_all(work, self.params, self.title)
            self.keys |= {job.key for job in work}


def _source(nets: dict[tuple, Any], job: jobs.Job, criterion: str, way: str, step: schedule.Step) -> tuple:
    """Where the net that the step starts from lies, and the same net before the epochs that rewinding takes back."""
    return nets[(job, criterion, way, step.start) if step.start else (job, 0.0)]


def _begun(entry: Study, dense: jobs.Job) -> jobs.Job:
    """The dense net's training up to the epochs that rewinding takes back."""
    begin, _ = again(entry, dense).span
    return replace(dense, recipe=dense.recipe.changed({"snapshots": (), "span": (0, begin)}), label=" begun")


def again(entry: Study, dense: jobs.Job) -> Recipe:
    """The last epochs of the model's own recipe, as many as fine-tuning has."""
    epochs = dense.recipe.epochs
    return dense.recipe.changed({"snapshots": (), "span": (epochs - entry.prune_recipe(dense.model).epochs, epochs)})


def tuning(entry: Study, dense: jobs.Job) -> jobs.Job:
    """The dense net's job with the recipe of fine-tuning."""
    recipe = entry.prune_recipe(dense.model).changed({"snapshots": ()})
    return replace(dense, recipe=recipe, teacher=_dense(dense) if recipe.distil else None)


def thinning(entry: Study, cut: Cut) -> jobs.Job:
    """Fine-tuning from the dense net during which the nodes fall silent one after the other."""
    job = tuning(entry, cut.dense)
    how = {"level": cut.step.level, "criterion": cut.criterion, "inputs": entry.prune.inputs}
    label = f" {cut.criterion} {cut.schedule} {cut.step.level:g}"
    return replace(job, recipe=job.recipe.changed({"thin": how}), start=_dense(cut.dense), label=label)


def recoveries(entry: Study, cut: Cut, settings: dict[str, Any]) -> list[Point]:
    """The nets that a cut gives. An iterative schedule goes on from fine-tuned nets even where no point shows them.

    What trains from scratch has fresh weights and the model's own recipe; its epochs are those of the dense net and its
    fine-tunings together, or make for as many multiply-adds as these at the dense net's size.
    """
    dense, level, asked = cut.dense, cut.step.level, entry.prune.recoveries
    tune, last = tuning(entry, dense), again(entry, dense) if REWOUND & set(asked) else None
    label = f" {cut.criterion} {cut.schedule} {level:g}"
    epochs = dense.recipe.epochs + cut.step.turn * tune.recipe.epochs
    found = []
    if cut.thinning:
        found.append(replace(cut.point("finetune", cut.thinning), folder=cut.folder))
    else:
        found.append(cut.point("none", None))
    if not cut.thinning and ("finetune" in asked or cut.schedule == "iterative"):
        found.append(cut.point("finetune", replace(tune, settings=settings, start=cut.folder, label=label)))
    if not cut.thinning and "lr-rewind" in asked:
        job = replace(dense, settings=settings, recipe=last, start=cut.folder, label=f"{label} lr-rewind")
        found.append(cut.point("lr-rewind", job))
    if not cut.thinning and "rewind" in asked:
        job = replace(dense, settings=settings, recipe=last, start=cut.folder / EARLY, label=f"{label} rewind")
        found.append(cut.point("rewind", job))
    if "scratch-epochs" in asked:
        found.append(cut.point("scratch-epochs", _fresh(dense, settings, epochs, f" scratch {level:g}")))
    if "scratch-madds" in asked:
        work = [files.read_json(folder / "spec.json")["cost"]["multiply_adds"] for folder in (_dense(dense), cut.folder)]
        longer = round(epochs * work[0] / work[1])
        found.append(cut.point("scratch-madds", _fresh(dense, settings, longer, f" long scratch {level:g}")))
    return found


def _fresh(dense: jobs.Job, settings: dict[str, Any], epochs: int, label: str) -> jobs.Job:
    return replace(dense, settings=settings, recipe=dense.recipe.changed({"snapshots": (), "epochs": epochs}), label=label)


def carry_out(cut: Cut) -> dict[str, Any]:
    """Prune one net and store it; gives its settings."""
    job = cut.dense
    model, spec = checkpoint.load(cut.source)
    counts = choose.uniform(_widths(checkpoint.build(_spec(job))), cut.step.level, f"{job.study}.{job.model}")
    means = None
    if cut.criterion == "activation":
        x = items(Store(paths.noisy(job.dataset)), "train", job.recipe.noise, job.recipe.hold_out).x
        seen = score.observe(model, x[np.linspace(0, len(x) - 1, min(OBSERVED, len(x))).astype(int)])
        scores, means = score.activation(model, seen), score.means(seen)
    else:
        scores = score.weight_norm(model) if cut.criterion == "weight-norm" else score.random(model, job.seed)
    keep = choose.best(scores, counts)
    shape, classes = tuple(spec["shape"]), spec["classes"]
    pruned, settings = remove.remove(model, job.family, shape, classes, job.settings, keep, means)
    checkpoint.save(cut.folder, spec | {"settings": settings, "cost": cost.exact(pruned, shape)}, pruned)
    return settings


def judge(point: Point) -> tuple[dict[str, Any], dict[str, Any]]:
    """Size and figures, inputs corrupted as in training; and the latency of dense and fine-tuned nets."""
    model, spec = checkpoint.load(point.folder)
    recipe, store = point.dense.recipe, Store(paths.noisy(point.dense.dataset))
    test = items(store, "test", recipe.noise, recipe.hold_out)
    figures = {"widths": list(_widths(model).values()), "test": evaluation.judge(model, test)}
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


def _widths(model: torch.nn.Module) -> dict[str, int]:
    return {nodes.name: nodes.width for nodes in model.nodes()}
