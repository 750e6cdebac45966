"""Durations of a study, and pages of them: committed, but no output of any stage, because no two runs agree on them."""

import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atelier import files, stats
from atelier.fanout import cores

if TYPE_CHECKING:
    from atelier.report.results import Results


def update(path: Path, jobs: list[dict[str, Any]], **fields: Any) -> None:
    """Merge jobs (by model and seed) and further fields into the file; `wall_s` is the sum over stages.

    stages: seconds of a stage that did all of its work anew; without those that train or measure, wall_s is null.

    jobs: all of the study's, so that one that is gone leaves the file too; or none, to keep those there.
    """
    known = files.read_json(path) if path.exists() else {}
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


def draw(path: Path, results: "Results") -> None:
    """Draw what the study's figures cost in time, as the file has it, and write its page again."""
    from atelier.report import costs, drawing

    if path.exists():
        entry = files.read_json(path)
        plans = costs.of_models(results, entry["jobs"]) | costs.of_pruned(results, entry.get("latency", []))
        pictures = drawing.save(plans, path.with_suffix("")) if plans else {}
        files.write_text(path.with_suffix(".md"), of_one(path.stem, entry, pictures))


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
    sections = [f"# How long {name} took", about, entry.get("note", ""), table, *drawn, latency, where]
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
