"""trace: a run -> its commit, parameters and outputs; an output -> the runs it came with, and whether it changed."""

import json
import os
import re
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from atelier import outputs, paths, track
from atelier.errors import AtelierError, nearest

if TYPE_CHECKING:
    from atelier.track import Run


def main(what: str) -> None:
    """Print where a run or an output comes from.

    what: a run's id or the beginning of it, or a path. Raises AtelierError if it is neither, or names several runs.
    """
    made = outputs.made_by(outputs.recorded(paths.root()))
    path = _inside(what)
    output = next((str(p) for p in (path, *path.parents) if str(p) in made), None) if path else None
    if output:
        lines = _output(path, output, made[output])
    elif re.fullmatch(r"[0-9a-f]{1,32}", what) and not Path(what).exists():
        lines = _run(what)
    else:
        known = "no output in dvc.lock" if Path(what).exists() else "neither a run's id nor an output in dvc.lock"
        near = get_close_matches(str(path or what), made, n=3, cutoff=0.0)
        raise AtelierError(f"{what}: {known}; {nearest(str(path or what), near)}")
    print("\n".join(lines))


def _inside(what: str) -> Path | None:
    """The path as dvc.lock writes it, given from the folder one is in, or from the root."""
    root, here = paths.root(), Path.cwd() / what
    full = Path(os.path.normpath(here if here.exists() else root / what))  # a link into DVC's cache is not followed
    return full.relative_to(root) if full.is_relative_to(root) else None


def _run(prefix: str) -> list[str]:
    with track.store(create=False) as client:
        found = track.search(client, f"attributes.run_id LIKE '{prefix}%'")
    if len(found) != 1:
        ids = ", ".join(sorted(run.info.run_id[:12] for run in found)[:5])
        several = f"the beginning of {len(found)} runs ({ids}, ...); give more of it"
        none = "no run in mlflow.db begins so, nor is there such a file; atelier track mirrors new results"
        raise AtelierError(f"{prefix}: {several if found else none}")
    tags, params = found[0].data.tags, found[0].data.params
    lines = [f"run         {found[0].info.run_id} ({found[0].info.status.lower()})", *_about(tags)]
    lines += [f"{'params' if i == 0 else '':12}{key} = {params[key]}" for i, key in enumerate(sorted(params))]
    made = sorted((tag.removeprefix("md5:"), md5) for tag, md5 in tags.items() if tag.startswith("md5:"))
    return lines + [f"{'outputs' if i == 0 else '':12}{md5:36}  {path}" for i, (path, md5) in enumerate(made)]


def _output(path: Path, output: str, recorded: str) -> list[str]:
    now = outputs.md5_of(paths.root() / output)
    compared = _compared(path, output, recorded, now)
    lines = [f"output      {output}", f"dvc.lock    {recorded}", f"here        {compared}"]
    notes = {now: " (made what is here now, not what dvc.lock records)"} if now else {}
    with track.store(create=False) as client:
        for md5, note in (notes | {recorded: ""}).items():
            for run in _runs_with(track.search(client, f"tags.`md5:{output}` = '{md5}'"), path):
                lines += [f"run         {run.info.run_id}{note}", *_about(run.data.tags)]
    return lines if len(lines) > 3 else [*lines, "run         none records it; atelier track mirrors new results"]


def _compared(path: Path, output: str, recorded: str, now: str | None) -> str:
    if now is None:
        return "not there (dvc checkout or dvc repro brings it)"
    if now == recorded:
        return "unchanged"
    listed = paths.root() / ".dvc" / "cache" / "files" / "md5" / recorded[:2] / recorded[2:]
    if str(path) != output and listed.exists():
        inner = path.relative_to(output).as_posix()
        before = next((e["md5"] for e in json.loads(listed.read_text()) if e["relpath"] == inner), "not in it")
        if before == outputs.md5_of(paths.root() / path):
            return f"{path} is unchanged, other files of {output} have changed since ({now})"
        return f"{path} has changed since"
    return f"has changed since ({now})"


def _runs_with(runs: Iterable["Run"], path: Path) -> list["Run"]:
    """The parents; for a file of one model and seed, their children instead."""
    own = [r for r in runs if {"model", "seed"} <= r.data.tags.keys()]
    own = [r for r in own if path.parts[2:4] == (r.data.tags["model"], r.data.tags["seed"])]
    chosen = own if path.parts[0] == "models" and own else [r for r in runs if "mlflow.parentRunId" not in r.data.tags]
    return sorted(chosen, key=lambda run: run.info.start_time)


def _about(tags: dict[str, str]) -> list[str]:
    dirty = " (with changes that were not committed)" if tags.get("git_dirty") == "true" else ""
    which = [f"{name} {tags[name]}" for name in ("study", "model", "seed") if name in tags]
    lines = [f"of          {', '.join(which)}", f"commit      {tags.get('git_commit', 'none')}{dirty}"]
    return lines + ([f"experiment  {tags['experiment']}"] if "experiment" in tags else [])
