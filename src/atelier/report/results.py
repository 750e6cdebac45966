"""What evaluate and prune left for one study, read once and asked by name."""

import csv
import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from atelier import files, stats
from atelier.errors import AtelierError, nearest
from atelier.params import Experiment, pruned_name

Values = list[float | None]


@dataclass(frozen=True)
class Results:
    """A study's figures; `models` is in the order of params.yaml, which the sorted keys of a JSON file lose."""

    study: str
    dataset: str
    seeds: list[int]
    models: dict[str, dict[str, Any]]
    differences: dict[str, dict[str, Any]]
    floors: dict[str, dict[str, float]]
    curves: dict[str, dict[int, dict[int, dict[str, float | None]]]]  # model -> seed -> epoch -> metric
    confusion: dict[str, dict[str, Any]]
    points: list[dict[str, Any]]
    claimed: frozenset[str] = frozenset()  # the metrics that the study's claims compare

    def metrics(self, model: str) -> dict[str, Any]:
        return self.models[model]["metrics"]

    def summary(self, model: str, metric: str | None) -> dict[str, Any] | None:
        """The metric's mean, interval, n and values, or None where the model lacks it."""
        return self.metrics(model).get(metric)

    def values(self, model: str, metric: str, where: str) -> Values:
        """One value per seed, of a model or of a pruned net (params.pruned_name).

        Raises AtelierError, which begins with `where`, if it has no such metric.
        """
        found = self.metrics(model) if model in self.models else self._of_points(model)
        if metric not in found:
            hint = nearest(metric, _same_split(metric, found))
            raise AtelierError(f"{where}: {model} has no metric {metric}; {hint}")
        return found[metric]["values"]

    def _of_points(self, name: str) -> dict[str, dict[str, Values]]:
        """Metric -> values of a pruned net, as metrics.json has them of a model."""
        own = {p["seed"]: p for p in self.points if pruned_name(*(p[key] for key in _GROUP)) == name}
        some = next(iter(own.values()), {})
        metrics = [f"{split}.{key}" for split in ("validation", "test") for key in some.get(split, {})]
        found = {}
        for metric in metrics:
            split, _, key = metric.partition(".")
            found[metric] = {"values": [own[seed][split].get(key) if seed in own else None for seed in self.seeds]}
        return found

    def floor(self, name: str, metric: str, where: str) -> float:
        """What a method that trains no net reaches. Raises AtelierError if there is no such floor or figure."""
        if name not in self.floors:
            raise AtelierError(f"{where}.floor names {name}, which is none; {nearest(name, self.floors)}")
        if metric not in self.floors[name]:
            hint = nearest(metric, _same_split(metric, self.floors[name]))
            raise AtelierError(f"{where}: {name} has no metric {metric}; {hint}")
        return self.floors[name][metric]

    def at_epoch(self, model: str, metric: str, epoch: int, where: str) -> Values:
        """One value per seed from the curves; `gap.x` is how much worse test is than train, as in metrics.json.

        Raises AtelierError if no curve holds the metric, or if some seed was not evaluated at that epoch.
        """
        split, _, name = metric.partition(".")
        if split == "gap":
            train, test = (self.at_epoch(model, f"{s}.{name}", epoch, where) for s in ("train", "test"))
            return stats.paired(*((train, test) if higher_is_better(metric) else (test, train)))["values"]
        known = self.curve_metrics(model)
        if metric not in known:
            raise AtelierError(f"{where}: {model} has no curve of {metric}; {nearest(metric, known)}")
        found = []
        for seed in self.seeds:
            epochs = self.curves[model].get(seed, {})
            if epoch not in epochs:
                near = sorted(sorted(epochs, key=lambda e: (abs(e - epoch), e))[:2])
                offer = " or ".join(str(e) for e in near) or "none"
                raise AtelierError(
                    f"{where}: {model} was not evaluated at epoch {epoch} (seed {seed}); nearest: {offer}"
                )
            found.append(epochs[epoch].get(metric))
        return found

    def curve_metrics(self, model: str) -> list[str]:
        """The metrics that the model's curves have a value for."""
        rows = [row for epochs in self.curves.get(model, {}).values() for row in epochs.values()]
        return sorted({metric for row in rows for metric, value in row.items() if value is not None})

    def over_seeds(self, model: str, metric: str | None) -> tuple[list[int], list[list[float]]]:
        """The epochs that every seed has a value at, and these values."""
        seeds = list(self.curves[model].values())
        shared = sorted(set.intersection(*(set(epochs) for epochs in seeds)))
        at = {epoch: [epochs[epoch].get(metric) for epochs in seeds] for epoch in shared}
        known = [epoch for epoch in shared if None not in at[epoch]]
        return known, [at[epoch] for epoch in known]

    def check_published(self, published: Mapping[str, Mapping[str, float]]) -> None:
        """Raises AtelierError for a published figure that nothing of ours stands beside."""
        for model, said in published.items():
            for metric in sorted(set(said) - set(self.models[model]["exact"])):
                self.values(model, metric, f"params.yaml: studies.{self.study}.published.{model}")

    def headline(self, model: str) -> str | None:
        """What a model is judged by: the first of these that it has, and those that claims speak of before others.
        Accuracy, macro F1; how well it knows the items, or draws such; if it reconstructs, the error under the noise
        it was trained on, or without noise.
        """
        noise = self.models[model].get("recipe", {}).get("noise")
        trained = f"test.{noise['kind']}-{noise['level']:g}.mae" if noise else "test.mae"
        ways = ("test.accuracy", "test.f1_macro", "test.nll", "test.nelbo", "test.frechet", trained, "test.mae")
        known = [metric for metric in ways if metric in self.metrics(model)]
        return next((metric for metric in known if metric in self.claimed), known[0] if known else None)

    def corruptions(self, name: str) -> list[str]:
        """The test corruptions that some model has the metric `name` for, by kind and level."""
        named = [parts(metric) for model in self.models for metric in self.metrics(model)]
        found = {corruption for split, corruption, own in named if split == "test" and corruption and own == name}
        return sorted(found, key=kind_and_level)

    @property
    def families(self) -> list[str]:
        """In the order of the models; an experiment's have none."""
        named = (entry.get("settings", {}).get("family") for entry in self.models.values())
        return list(dict.fromkeys(family for family in named if family))

    def with_metric(self, metric: str) -> list[str]:
        return [model for model in self.models if metric in self.metrics(model)]

    @functools.cached_property
    def pruned(self) -> list[dict[str, Any]]:
        """Pruning points gathered over seeds, each beside the dense net and its controls.

        One entry per (model, criterion, schedule, recovery, level): parameters, multiply_adds and bytes (means; bytes
        None where they were not taken), widths (of the first seed), metric,
        chosen (the number of seeds), the summaries validation, test and dense (the net before pruning, which is the
        point of level 0), and differences paired by seed, None where some seed has nothing to compare with: to_dense;
        to each of CONTROLS, nets of the same shape from fresh weights; to_random, of which lot chose the nodes.
        """
        groups: dict[tuple, list[dict[str, Any]]] = {}
        known: dict[tuple, list[dict[str, Any]]] = {}
        for point in self.points:
            if point["level"]:
                groups.setdefault(tuple(point[k] for k in _GROUP), []).append(point)
            known.setdefault(_net(point, "none" if not point["level"] else point["recovery"]), []).append(point)
        return [self._gathered(dict(zip(_GROUP, key, strict=True)), points, known) for key, points in groups.items()]

    def _gathered(self, group: dict[str, Any], points: list[dict], known: dict[tuple, list[dict]]) -> dict[str, Any]:
        metric = "accuracy" if "accuracy" in points[0]["test"] else "mae"

        def tested(found: list[dict | None]) -> Values:
            return [point["test"].get(metric) if point else None for point in found]

        def against(others: list[dict | None]) -> dict[str, Any] | None:
            return stats.paired(tested(points), tested(others)) if None not in others else None

        dense = [_nearest_way(point, known.get(_net(point | {"level": 0}, "none"), [])) for point in points]
        fresh = group["recovery"] in CONTROLS
        controls = {
            name: [_nearest_way(point, [] if fresh else known.get(_net(point, name), [])) for point in points]
            for name in CONTROLS
        }
        return {
            **group,
            "metric": metric,
            "parameters": fmean(point["parameters"] for point in points),
            "multiply_adds": fmean(point["multiply_adds"] for point in points),
            "bytes": fmean(point["bytes"] for point in points) if all("bytes" in point for point in points) else None,
            "widths": tuple(points[0]["widths"]),
            "chosen": sum(bool(point["chosen"]) for point in points),
            "validation": stats.summary([point["validation"].get(metric) for point in points]),
            "test": stats.summary(tested(points)),
            "dense": stats.summary(tested(dense)),
            "to_dense": against(dense),
            "to_random": against([None if fresh else _of_lot(point, known) for point in points]),
        } | {f"to_{name}": against(found) for name, found in controls.items()}


CONTROLS = ("scratch-epochs", "scratch-madds")
_GROUP = ("model", "criterion", "schedule", "recovery", "level")


def read(folder: Path, study: str, entry: Experiment, whole: bool = True) -> Results:
    """Read the folder of a study or an experiment.

    Raises AtelierError if metrics.json is missing or lacks one of the models; these are left out where not `whole`.
    """
    metrics = files.read_json(folder / "metrics.json")
    for model in entry.models if whole else ():
        if model not in metrics["models"]:
            raise AtelierError(f"{folder / 'metrics.json'}: has no model {model}; run make study STUDY={study}")
    return Results(
        study=study,
        dataset=metrics["dataset"],
        seeds=metrics["seeds"],
        models={model: metrics["models"][model] for model in entry.models if model in metrics["models"]},
        differences=metrics.get("differences", {}),
        floors=metrics.get("floors", {}),
        curves=_read_curves(folder / "curves.csv"),
        confusion=_read_optional(folder / "confusion.json", {}),
        points=_read_optional(folder / "pruning.json", {"points": []})["points"],
        claimed=frozenset(claim.compare.metric for claim in entry.claims),
    )


def _net(point: dict[str, Any], recovery: str) -> tuple:
    """What a point is compared by: dense nets by model and seed, others by their recovery and shape too."""
    net = point["model"], point["seed"]
    return (*net, recovery, *point["widths"]) if point["level"] else net


def _of_lot(point: dict[str, Any], known: dict[tuple, list[dict]]) -> dict[str, Any] | None:
    """The point whose nodes were drawn by lot and that is else like this one."""
    if "random" in point["criterion"]:
        return None
    same = ("model", "seed", "schedule", "recovery", "level")
    every = (other for points in known.values() for other in points if "random" in other["criterion"])
    return next((other for other in every if all(other[key] == point[key] for key in same)), None)


def _nearest_way(point: dict[str, Any], nets: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Of several nets that a point can be compared with, the one that was cut in the same way."""
    return min(nets, key=lambda net: [net[k] != point[k] for k in ("criterion", "schedule", "level")], default=None)


def parts(metric: str) -> tuple[str, str, str]:
    """`test.gaussian-0.2.mae` -> ("test", "gaussian-0.2", "mae"); what is not there is ""."""
    head, _, name = metric.rpartition(".")
    split, _, corruption = head.partition(".")
    return split, corruption, name


def kind_and_level(corruption: str) -> tuple[str, float]:
    kind, _, level = corruption.rpartition("-")
    return kind, float(level)


def higher_is_better(metric: str) -> bool:
    better = {"accuracy", "accuracy_rounded", "f1_macro", "psnr", "precision", "recall", "f1"}
    return parts(metric)[2] in better | {"classes", "coverage", "least_class"}


def _same_split(metric: str, known: Iterable[str]) -> list[str]:
    """The names worth listing in an error: those of the split that was asked for, or all."""
    return [m for m in known if parts(m)[0] == parts(metric)[0]] or list(known)


def _read_optional(path: Path, default: Any) -> Any:
    return files.read_json(path) if path.exists() else default


def _read_curves(path: Path) -> dict[str, dict[int, dict[int, dict[str, float | None]]]]:
    curves: dict[str, dict[int, dict[int, dict[str, float | None]]]] = {}
    if path.exists():
        with open(path, newline="") as file:
            for row in csv.DictReader(file):
                model, seed, epoch = row.pop("model"), int(row.pop("seed")), int(row.pop("epoch"))
                figures = {metric: float(text) if text else None for metric, text in row.items()}
                curves.setdefault(model, {}).setdefault(seed, {})[epoch] = figures
    return curves
