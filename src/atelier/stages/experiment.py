"""experiment: experiments.<name> + data/noisy/<dataset> -> reports/studies/<name>/: metrics.json, claims.json,
index.md, figures/.
"""

import time
from dataclasses import dataclass, field
from typing import Any

from atelier import experiments, files, params, paths, stats, timings
from atelier.data.store import Store
from atelier.fanout import fan_out
from atelier.report import claims, figures, page, results


@dataclass(frozen=True)
class Trial:
    """One model of an experiment, one seed."""

    experiment: str
    model: str
    seed: int
    dataset: str
    settings: dict[str, Any] = field(hash=False)

    def __str__(self) -> str:
        return f"{self.model} seed {self.seed}"


def main(name: str) -> None:
    """Measure every model with every seed, settle the claims, draw the pictures and write the page."""
    started = time.monotonic()
    everything = params.load()
    entry, folder = everything.experiment(name), paths.report(name)
    experiment, store = experiments.load(name), Store(paths.noisy(entry.dataset))
    settings = {
        model: params.check_case(name, case.settings, f"params.yaml: experiments.{name}.models.{model}")
        for model, case in entry.models.items()
    }
    trials = [
        Trial(name, model, seed, entry.dataset, settings[model]) for model in settings for seed in entry.seed_list
    ]
    measured = fan_out(measure, trials, title=f"experiment {name}", **everything.crew)
    times, series, by_model = [], {model: [] for model in settings}, {model: [] for model in settings}
    for trial, one in zip(trials, measured, strict=True):
        if "train_s" in one:
            times.append({"model": trial.model, "seed": trial.seed, "train_s": round(one.pop("train_s"), 3)})
        series[trial.model].append(one.pop("series", None))
        by_model[trial.model].append(one)
    models = {
        model: {
            "rows": list(entry.models[model].rows),
            "exact": {},
            "settings": settings[model],
            "metrics": {metric: stats.summary([one[metric] for one in own]) for metric in own[0]},
        }
        for model, own in by_model.items()
    }
    content = {"schema": 1, "study": name, "dataset": entry.dataset, "seeds": entry.seed_list, "models": models}
    files.write_json(folder / "metrics.json", content | {"floors": getattr(experiment, "FLOORS", {})})
    found = results.read(folder, name, entry.models)
    found.check_published(entry.published)
    settled = claims.settle(found, entry.claims)
    files.write_json(folder / "claims.json", settled)
    plans = experiment.pictures(store, settings, series) if hasattr(experiment, "pictures") else {}
    text = experiment.text(store) if hasattr(experiment, "text") else ""
    drawn = figures.save(plans, folder / "figures")
    files.write_text(
        folder / "index.md", page.experiment(found, entry, settled, drawn, text, experiment.measure.__doc__)
    )
    timings.update(paths.timings(name), times, stages={"experiment": round(time.monotonic() - started, 2)})


def measure(trial: Trial) -> dict[str, Any]:
    store = Store(paths.noisy(trial.dataset))
    return experiments.load(trial.experiment).measure(trial.seed, store, **trial.settings)
