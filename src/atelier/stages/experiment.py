"""experiment: experiments.<name> + data/noisy/<dataset> -> reports/studies/<name>/: metrics.json, measured/.

measured/ holds the experiment's own pictures and, in about.json, their captions, its text and what its measures mean.
"""

import time
from dataclasses import dataclass, field
from typing import Any

from atelier import experiments, files, params, paths, stats, timings
from atelier.data.store import Store
from atelier.fanout import fan_out
from atelier.report import drawing


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
    """Measure every model with every seed and draw what was measured."""
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
    times, latency, series, by_model = [], [], {model: [] for model in settings}, {model: [] for model in settings}
    for trial, one in zip(trials, measured, strict=True):
        if "train_s" in one:
            times.append({"model": trial.model, "seed": trial.seed, "train_s": round(one.pop("train_s"), 3)})
        timed = one.pop("latency", [])
        latency += [{"model": trial.model} | record for record in timed if trial.seed == entry.seed_list[0]]
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
    plans = experiment.pictures(store, settings, series) if hasattr(experiment, "pictures") else {}
    about = {
        "measures": " ".join((experiment.measure.__doc__ or "").split()),
        "pictures": drawing.save(plans, folder / "measured"),
        "text": experiment.text(settings, series) if hasattr(experiment, "text") else "",
    }
    files.write_json(folder / "measured" / "about.json", about)
    spent = {"experiment": round(time.monotonic() - started, 2)}
    timings.update(paths.timings(name), times, latency=latency, stages=spent)


def measure(trial: Trial) -> dict[str, Any]:
    store = Store(paths.noisy(trial.dataset))
    return experiments.load(trial.experiment).measure(trial.seed, store, **trial.settings)
