"""Durations of a study: committed beside the reports, but no output of any stage, because no two runs agree on them."""

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from atelier import files
from atelier.fanout import cores


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
    files.write_json(path, content | {"jobs": [merged[place] for place in sorted(merged)]})
    files.write_text(path.parent / "index.md", page(path.parent))


def page(folder: Path) -> str:
    """Markdown: how long every study and experiment in the folder took, and all of them together."""
    from atelier.report import tables

    known = {file.stem: files.read_json(file) for file in sorted(folder.glob("*.json"))}
    rows = []
    for name, entry in known.items():
        jobs = [job["train_s"] for job in entry["jobs"] if job.get("train_s")]
        machine = f"{entry['machine']['cpu']}, {entry['machine']['cores']} cores"
        seconds = f"{sum(jobs):,.0f}" if jobs else tables.MISSING
        rows.append([name, str(len(jobs)), seconds, _minutes(entry["wall_s"]), machine, entry.get("note", "")])
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
