"""prune: models/<study> + data/noisy/<dataset> -> models/<study>-pruned/, pruning.json (without prune: no points)."""

import itertools
import shutil
import tempfile
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from atelier import checkpoint, compress, cost, cpu, evaluation, families, files, jobs, paths, speed, timings
from atelier.data.items import items
from atelier.data.store import Store
from atelier.errors import AtelierError
from atelier.fanout import fan_out
from atelier.params import Params, Study, load
from atelier.prune import choose, recover, remove, schedule, score
from atelier.prune.recover import Cut, Net, Point

EXACT = 1e-4  # how far ONNX Runtime may be from torch
SEEN = 1000  # test items on which the two are compared
ABOUT = (
    "Fine-tuned pruned nets: <model>/<seed>/<criterion>-<schedule>-<level>/, each like the folder of a trained model.\n"
)


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
        found = {net.folder: figures for net, figures in zip(nets, judged, strict=True)}
        keep_tuned(study, points)
        with cpu.settled(1):
            latency = [record for job in dense if job.seed == dense[0].seed for record in timed(job, points, found)]
    records = [point.name | found[point.folder] for point in points]
    best = chosen(records, entry.prune.margin)
    records = [record | {"chosen": record["recovery"] == "finetune" and _way(record) in best} for record in records]
    _write(study, sorted(records, key=lambda r: (*_way(r), r["recovery"], entry.seed_list.index(r["seed"]))))
    durations = [point.name | {"train_s": jobs.result(point.job)["train_s"]} for point in points if point.job]
    spent = {"prune": round(time.monotonic() - started, 2)} if trained == expected else {}
    timings.update(paths.timings(study), [], pruning=durations, latency=latency, stages=spent)
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
            choose.counts(criterion, equal, widths, level, _named(job))


def prune(params: Params, study: str, dense: list[jobs.Job], waiting: Path) -> tuple[list[Point], int, int]:
    """Round by round: cut, then fine-tune the cut nets, from which later cuts go on; then train all else side by side.

    Cut nets go into folders in `waiting`.

    Gives the points, how many jobs were trained and not reused, and how many distinct jobs there are.
    """
    entry, crew = params.study(study), _Crew(params, f"prune {study}")
    asked = entry.prune
    points = [Point(job, "none", "none", "none", 0.0, _dense(job), inputs=asked.inputs) for job in dense]
    begun = {job: recover.begun(entry, job) for job in dense if "rewind" in asked.recoveries}
    crew.train(begun.values())
    whole = {job: Net(_dense(job), begun[job].folder if begun else None) for job in dense}
    tuned: dict[tuple, Net] = {}
    ways = [(way, schedule.rounds(way, asked.levels)) for way in asked.schedules]
    for turn in range(max(len(rounds) for _, rounds in ways)):
        steps = [(way, step) for way, rounds in ways for step in (rounds[turn] if turn < len(rounds) else ())]
        cuts = []
        for job, criterion, (way, step) in itertools.product(dense, asked.criteria, steps):
            source = tuned.get((job, criterion, way, step.start), whole[job])
            folder = waiting / f"{turn}-{len(cuts)}"
            cuts.append(Cut(job, criterion, way, step, whole[job], source, folder, asked.inputs))
        cuts = _thinned(entry, cuts, crew)
        settings = fan_out(carry_out, cuts, title=f"cut {study}", **params.crew)
        new = [(cut, point) for cut, s in zip(cuts, settings, strict=True) for point in recover.points(entry, cut, s)]
        crew.train(point.job for _, point in new if point.job and point.recovery == "finetune")
        points += [point for _, point in new if point.recovery in asked.recoveries]
        tuned = {
            (p.dense, p.criterion, p.schedule, p.level): replace(cut.net, folder=p.folder)
            for cut, p in new
            if p.recovery == "finetune"
        }
    crew.train(point.job for point in points if point.job)
    return points, crew.trained, len(crew.keys)


class _Crew:
    """Trains jobs, each once, and counts those that were trained and not reused, and the distinct ones."""

    def __init__(self, params: Params, title: str) -> None:
        self.params, self.title, self.trained, self.keys = params, title, 0, set()

    def train(self, work: Iterable[jobs.Job]) -> None:
        if work := [job for job in work if job.key not in self.keys]:
            self.trained += jobs.train_all(work, self.params, self.title)
            self.keys |= {job.key for job in work}


def _thinned(entry: Study, cuts: list[Cut], crew: _Crew) -> list[Cut]:
    """The cuts, those of gradual schedules from nets whose nodes have fallen silent."""
    work = {cut: recover.thinning(entry, cut) for cut in cuts if cut.schedule == "gradual"}
    crew.train(work.values())
    return [replace(cut, source=Net(work[cut].folder), thinning=work[cut]) if cut in work else cut for cut in cuts]


def carry_out(cut: Cut) -> dict[str, Any]:
    """Prune one net, and what it was before its last epochs alike, and store them; gives their settings."""
    job = cut.dense
    model, spec = checkpoint.load(cut.source.folder)
    if not cut.thinning:
        model = remove.mask(model, *chosen_nodes(cut, model))
    shape, classes = tuple(spec["shape"]), spec["classes"]
    pruned, settings, gone = remove.unread(model, job.family, shape, classes, job.settings)
    spec |= {"settings": settings, "cost": cost.exact(pruned, shape)}
    checkpoint.save(cut.folder, spec, pruned)
    if cut.source.early:
        early, _ = checkpoint.load(cut.source.early)
        for keep in gone:
            early, _ = remove.remove(early, job.family, shape, classes, job.settings, keep)
        checkpoint.save(cut.net.early, spec, early)
    return settings


def chosen_nodes(cut: Cut, model: torch.nn.Module) -> tuple[remove.Keep, remove.Means | None]:
    """The nodes that stay, and the means of all, where what goes is folded into biases."""
    job = cut.dense
    train = items(Store(paths.noisy(job.dataset)), "train", job.recipe.noise, job.recipe.hold_out)
    every, means = score.by(cut.criterion, model, train, job.seed)
    scores = {nodes.name: every[nodes.name] for nodes in choose.candidates(model, cut.inputs)}
    widths = _widths(checkpoint.build(_spec(job)), cut.inputs)
    return choose.best(scores, choose.counts(cut.criterion, scores, widths, cut.step.level, _named(job))), means


def judge(point: Point) -> dict[str, Any]:
    """Sizes, bytes being those of the net's file as it is, and figures, inputs corrupted as in training.

    Dense and fine-tuned nets are tried in ONNX Runtime as well: raises AtelierError if it answers otherwise.
    """
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
    figures["bytes"] = len(compress.dump(spec, model))
    if _in_use(point):
        figures["onnx"] = speed.deviation(model, tuple(spec["shape"]), test.x[:SEEN])
        if figures["onnx"] > EXACT:
            raise AtelierError(f"{point}: ONNX Runtime is {figures['onnx']:.2g} off, {EXACT:g} is allowed; report this")
    return figures


def timed(job: jobs.Job, points: list[Point], found: dict[Path, dict[str, Any]]) -> list[dict[str, Any]]:
    """Latency of a dense net and of the fine-tuned ones that it became: of those of one shape the first."""
    shapes = {tuple(found[p.folder]["widths"]): p for p in reversed(points) if p.dense == job and _in_use(p)}
    nets = {_label(point): checkpoint.load(point.folder)[0] for point in reversed(shapes.values())}
    store = Store(paths.noisy(job.dataset))
    x = items(store, "test", job.recipe.noise, job.recipe.hold_out).x[:SEEN]
    widths = {_label(point): list(shape) for shape, point in shapes.items()}
    return [{"model": job.model, "widths": widths[r["net"]]} | r for r in speed.compare(nets, store.shape, x)]


def _in_use(point: Point) -> bool:
    """Whether a net is one that would be used: a dense or a fine-tuned one."""
    return point.recovery == "finetune" or not point.level


def _label(point: Point) -> str:
    return f"{point.criterion} {point.schedule} {point.level:g}" if point.level else "dense"


def chosen(records: list[dict[str, Any]], margin: float) -> set[tuple]:
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
    found = {way: choose.strongest(way[0], levels, dense[way[:2]], margin) for way, levels in by_way.items()}
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


def _folder(study: str) -> Path:
    return paths.models(f"{study}-pruned")


def _dense(job: jobs.Job) -> Path:
    return paths.model(job.study, job.model, job.seed)


def _spec(job: jobs.Job) -> dict[str, Any]:
    store = Store(paths.noisy(job.dataset))
    return {"family": job.family, "shape": store.shape, "classes": len(store.classes), "settings": job.settings}


def _widths(model: torch.nn.Module, inputs: bool) -> dict[str, int]:
    return {nodes.name: nodes.width for nodes in choose.candidates(model, inputs)}


def _named(job: jobs.Job) -> str:
    return f"{job.study}.{job.model}"
