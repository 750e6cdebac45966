"""Durations of a study, and pages of them: committed, but no output of any stage, because no two runs agree on them."""

import dataclasses
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atelier import files, stats
from atelier.fanout import cores

if TYPE_CHECKING:
    from atelier.params import Claim
    from atelier.report.results import Results

RULE = (
    "Compared: means, in the order in which the claim names them, the second multiplied where the claim says how many "
    "times. An estimate is positive where it speaks for its claim. Intervals are of differences paired by seed, though "
    "jobs of one seed share nothing but that: they tell of the machine's unrest too."
)


def update(path: Path, jobs: list[dict[str, Any]], **fields: Any) -> None:
    """Merge jobs (by model and seed) and further fields into the file; `wall_s` is the sum over stages.

    stages: seconds of a stage that did all of its work anew; without those that train or measure, wall_s is null.

    jobs: all of the study's, so that one that is gone leaves the file too; or none, to keep those there.
    """
    known = files.read_json(path) if path.exists() else {}
    known.pop("claims", None)  # about what was known before; the report settles them
    before = {(job["model"], job["seed"]): job for job in known.get("jobs", [])}
    merged = {(job["model"], job["seed"]): before.get((job["model"], job["seed"]), {}) | job for job in jobs} or before
    stages = known.get("stages", {}) | fields.pop("stages", {})
    wall = round(sum(stages.values()), 2) if {"train", "experiment"} & set(stages) else None
    machine = {"cpu": _cpu(), "cores": cores(), "torch": version("torch")}
    content = known | fields | {"machine": machine, "stages": stages, "wall_s": wall}
    content["jobs"] = [merged[place] for place in sorted(merged)]
    files.write_json(path, content)
    files.write_text(path.with_suffix(".md"), of_one(path.stem, content, {}))
    files.write_text(path.parent / "index.md", page(path.parent))


def settle(path: Path, results: "Results", claimed: Sequence["Claim"]) -> None:
    """Settle the claims about seconds, draw what the study's figures cost in time, and write its page again.

    The metrics of such claims, each job's: time.train_s, time.epoch_s and time.inference_s_per_1000, in seconds.
    """
    from atelier.report import claims, costs, drawing

    if path.exists():
        entry = files.read_json(path)
        entry.pop("claims", None)
        if settled := claims.settle(_of_times(results, entry["jobs"]), claimed, timed=True):
            entry["claims"] = settled
        files.write_json(path, entry)
        plans = costs.of_models(results, entry["jobs"]) | costs.of_pruned(results, entry.get("latency", []))
        pictures = drawing.save(plans, path.with_suffix("")) if plans or path.with_suffix("").is_dir() else {}
        files.write_text(path.with_suffix(".md"), of_one(path.stem, entry, pictures))


def _of_times(results: "Results", jobs: list[dict[str, Any]]) -> "Results":
    """The results with seconds in the place of figures."""
    times: dict[str, dict[int, dict[str, float]]] = {model: {} for model in results.models}
    for job in jobs:
        if job["model"] in times:
            found = {f"time.{key}": job[key] for key in ("train_s", "inference_s_per_1000") if job.get(key)}
            if job.get("train_s") and job.get("epochs"):
                found["time.epoch_s"] = job["train_s"] / job["epochs"]
            times[job["model"]][job["seed"]] = found
    models = {}
    for model, by_seed in times.items():
        names = sorted({name for found in by_seed.values() for name in found})
        values = {name: [by_seed.get(seed, {}).get(name) for seed in results.seeds] for name in names}
        models[model] = {"metrics": {name: stats.summary(found) for name, found in values.items()}, "exact": {}}
    return dataclasses.replace(results, models=models)


def of_one(name: str, entry: dict[str, Any], pictures: Mapping[str, str]) -> str:
    """Markdown: what each model of a study or an experiment costs in training and in use; pictures: file -> caption."""
    from atelier.report import costs, tables

    by_model: dict[str, list[dict[str, Any]]] = {}
    for job in entry["jobs"]:
        by_model.setdefault(job["model"], []).append(job)
    columns = [
        ("Epochs", "epochs", 1),
        ("Training (s)", "train_s", 1),
        ("Inference (ms per 1,000 items)", "inference_s_per_1000", 1000),
    ]
    rows = []
    for model, jobs in by_model.items():
        found = [_spread([job.get(key) for job in jobs], scale) for _, key, scale in columns]
        rows.append([model, str(len(jobs)), *found])
    about = (
        f"On {_machine(entry)}, one core a model and other models on the other cores. Means over seeds with 95 % "
        f"intervals. Stages in minutes: {_listed(entry['stages'])}."
    )
    table = tables.table(["Model", "n", *(name for name, _, _ in columns)], rows) if rows else ""
    where = f"[The page](../studies/{name}/index.md); [the numbers]({name}.json); [all studies](index.md)."
    drawn = [f"![{caption}]({name}/{file})\n\n*{caption}*" for file, caption in pictures.items()]
    latency = costs.latency(entry.get("latency", []))
    settled = [f"## Claims about time\n\n{tables.verdicts(entry['claims'])}\n\n{RULE}"] if entry.get("claims") else []
    sections = [f"# How long {name} took", about, entry.get("note", ""), table, *settled, *drawn, latency, where]
    return "\n\n".join(section for section in sections if section) + "\n"


def _spread(values: list[float | None], scale: float) -> str:
    """`20.0 [16.8, 23.1]`: the mean and its interval."""
    found = stats.summary([value and scale * value for value in values])
    ends = ", ".join(f"{end:,.1f}" for end in found["ci95"] or ())
    return "–" if found["mean"] is None else f"{found['mean']:,.1f}" + (f" [{ends}]" if ends else "")


def _listed(stages: dict[str, float]) -> str:
    return ", ".join(f"{stage} {_minutes(seconds)}" for stage, seconds in sorted(stages.items())) or "not timed"


def _machine(entry: dict[str, Any]) -> str:
    return f"{entry['machine']['cpu']}, {entry['machine']['cores']} cores"


def page(folder: Path) -> str:
    """Markdown: how long every study and experiment in the folder took, and all of them together."""
    from atelier.report import tables

    known = {file.stem: files.read_json(file) for file in sorted(folder.glob("*.json"))}
    rows = []
    for name, entry in known.items():
        jobs = [job["train_s"] for job in entry["jobs"] if job.get("train_s")]
        seconds = f"{sum(jobs):,.0f}" if jobs else tables.MISSING
        link, minutes = f"[{name}]({name}.md)", _minutes(entry["wall_s"])
        rows.append([link, str(len(jobs)), seconds, minutes, _machine(entry), entry.get("note", "")])
    whole = [entry["wall_s"] for entry in known.values() if entry["wall_s"]]
    columns = [
        "Study or experiment",
        "Models trained",
        "Seconds in training, all models",
        "Minutes in all",
        "Machine",
        "",
    ]
    total = (
        f"Together {sum(whole) / 60:.0f} minutes for the {len(whole)} of {len(known)} whose whole run was timed. Jobs "
        "run side by side, one on a core. A study that reused models of an earlier run has no time of its own (–)."
    )
    return "\n\n".join(["# How long the studies take", total, tables.table(columns, rows)]) + "\n"


def _minutes(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds / 60:.1f}"


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
