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


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
