"""verify: run a study again in a clean copy of the project and compare every output with what dvc.lock records.

The copy holds what git tracks or would, and no result: no data, models, finished jobs, cache or dvc.lock. On the kind
of machine that made the record every output comes out identical. Elsewhere arithmetic differs in the last digits, and
there an output is judged by what it holds:

- data and their noisy versions must be identical everywhere;
- each figure of metrics.json and pruning.json, and each curve (averaged over its epochs), is compared as the mean over
  seeds: it may differ by 0.005, or by one standard deviation between the seeds where that is more. Everything exact
  (parameter counts, settings, seeds) and every claim's verdict must be equal;
- models, pictures and pages have no tolerance of their own: they may differ only where models or metrics do.
"""

import csv
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atelier import outputs, paths
from atelier.errors import AtelierError
from atelier.files import read_json
from atelier.params import Study, load
from atelier.track import pruning_series

TOLERANCE = 0.005
IDENTICAL, WITHIN, FOLLOWS, DIFFERENT = "identical", "within tolerance", "differs as the models do", "different"

Readings = Mapping[str, Sequence[float]]  # figure -> one value for each seed


@dataclass(frozen=True)
class Verdict:
    """Of one output; the note says where it differs most, or what is amiss."""

    path: str
    word: str
    note: str = ""


def main(study: str, keep: bool = False) -> int:
    """Run the study again and print the comparison: 0 if all is identical or within tolerance, 1 if not.

    Raises AtelierError if there is no record to compare with, or the run fails.
    """
    root = paths.root()
    entry = load(root / "params.yaml", families=False).entry(study)
    stages = outputs.behind(outputs.recorded(root), study)
    page = outputs.page_of(stages, study)
    if page is None:
        raise AtelierError(f"dvc.lock: holds no result of {study} to verify; make study STUDY={study} makes one")
    recorded = outputs.made_by(stages)
    edited = unrecorded(root, recorded)
    for verdict in edited:
        print(f"{verdict.path}: {verdict.note}", flush=True)
    copy = Path(tempfile.mkdtemp(prefix="atelier-verify-"))
    try:
        clean_copy(root, copy, recorded)
        print(f"running {study} again in {copy}", flush=True)
        run(copy, page, root / "data" / "raw" if (root / "data" / "raw" / entry.dataset).is_dir() else None)
        again = outputs.made_by(outputs.behind(outputs.recorded(copy), study))
        verdicts = compare(root, copy, recorded, again)
        trained, expected = trained_jobs(copy, study), expected_jobs(entry)
    finally:
        if keep:
            print(f"the copy is kept in {copy}")
        else:
            shutil.rmtree(copy, ignore_errors=True)
    verdicts = sorted({v.path: v for v in (*verdicts, *edited)}.values(), key=lambda v: v.path)
    return _print(study, verdicts, trained, expected)


# ---- running again


def unrecorded(root: Path, recorded: Mapping[str, str]) -> list[Verdict]:
    """The outputs here that are not what dvc.lock records, as after an edit by hand. Data and models may be absent."""
    found = []
    for path, md5 in recorded.items():
        now = outputs.md5_of(root / path)
        if now is None and path.startswith("reports/"):
            found.append(Verdict(path, DIFFERENT, "is not there, though dvc.lock records it; git checkout restores it"))
        elif now not in (None, md5):
            found.append(Verdict(path, DIFFERENT, f"was changed since its stage wrote it ({now}, dvc.lock {md5})"))
    return found


def clean_copy(root: Path, copy: Path, recorded: Mapping[str, str]) -> None:
    """What git tracks or would track, less the recorded outputs and dvc.lock; DVC works in it without git."""
    asked = subprocess.run(["git", "ls-files", "-coz", "--exclude-standard"], cwd=root, capture_output=True, text=True)
    if asked.returncode:
        raise AtelierError(f"{root}: git does not list its files ({asked.stderr.strip()}); verify needs a git checkout")
    for name in filter(None, asked.stdout.split("\0")):
        if (root / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, copy / name)
    for lock in outputs.LOCKS:
        (copy / lock).unlink(missing_ok=True)
    for path in recorded:
        place = copy / path
        shutil.rmtree(place, ignore_errors=True) if place.is_dir() else place.unlink(missing_ok=True)
    own = copy / ".dvc"
    own.mkdir(exist_ok=True)
    (own / "config.local").write_text(f"[core]\n    no_scm = true\n[cache]\n    dir = {own / 'cache'}\n")


def run(copy: Path, stage: str, raw: Path | None) -> None:
    """dvc repro of a stage in the copy, by its code, output shown. Files in `raw` spare a download, not checksums.

    Raises AtelierError if other code would run, or the run fails.
    """
    left_out = ("DVC_ROOT", "DVC_EXP_NAME", "DVC_EXP_BASELINE_REV", "DVC_STAGE")
    env = {name: value for name, value in os.environ.items() if name not in left_out}
    mirror = os.environ.get("ATELIER_MIRROR")
    if raw:
        env["ATELIER_MIRROR"] = str(raw.resolve())
    elif mirror and "://" not in mirror:
        env["ATELIER_MIRROR"] = str(paths.home() / mirror)
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(copy / "src"), env.get("PYTHONPATH")]))
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", "")])
    env |= {"DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(copy / ".dvc" / "site")}
    if (copy / "src" / "atelier").is_dir():
        ask = [sys.executable, "-c", "import atelier; print(atelier.__file__)"]
        used = subprocess.run(ask, cwd=copy, env=env, capture_output=True, text=True).stdout.strip()
        if not Path(used).resolve().is_relative_to(copy.resolve()):
            raise AtelierError(f"{used or 'no package'}: would run, not the copy's src; uninstall it and try again")
    command = [sys.executable, "-m", "dvc", "repro", "--no-run-cache", stage]
    sys.stdout.flush()
    status = subprocess.run(command, cwd=copy, env=env).returncode
    if status:
        raise AtelierError(f"{stage}: the run in the copy failed with status {status}; its output above says why")


def trained_jobs(copy: Path, study: str) -> int:
    """Job folders in the copy that hold the weights of a model of the study; there were none when the run began."""
    weights = {file.read_text() for file in copy.glob(f"models/{study}/*/*/weights.sha256")}
    return sum(file.read_text() in weights for file in copy.glob(".atelier/*/weights.sha256"))


def expected_jobs(entry: Any) -> int:
    """Models times seeds; models alike in everything but their names are trained once. An experiment trains none."""
    if not isinstance(entry, Study):
        return 0
    jobs = {
        json.dumps([model.family, model.settings, entry.recipe(name).model_dump(), seed], sort_keys=True)
        for name, model in entry.models.items()
        for seed in entry.seed_list
    }
    return len(jobs)


# ---- comparing


def compare(root: Path, copy: Path, recorded: Mapping[str, str], again: Mapping[str, str]) -> list[Verdict]:
    """Every output's verdict, by md5 where it is equal, else by what it holds."""
    changed = {path for path in recorded | again if recorded.get(path) != again.get(path)}
    excused = any(path.startswith("models/") or Path(path).name == "metrics.json" for path in changed)
    verdicts = []
    for path in sorted(recorded | again):
        if path not in changed:
            verdicts.append(Verdict(path, IDENTICAL))
        elif path not in again or path not in recorded:
            where = "the new run" if path not in again else "dvc.lock"
            verdicts.append(Verdict(path, DIFFERENT, f"{where} has no such output"))
        elif path.startswith("data/"):
            verdicts.append(Verdict(path, DIFFERENT, "data must be identical on every machine"))
        elif Path(path).name in JUDGES:
            verdicts.append(_judge(path, root / path, copy / path))
        elif excused:
            verdicts.append(Verdict(path, FOLLOWS))
        else:
            verdicts.append(Verdict(path, DIFFERENT, "though models and metrics are identical"))
    return verdicts


def _judge(path: str, old: Path, new: Path) -> Verdict:
    """Of a file with figures, by its exact part and its readings."""
    if not old.exists():
        return Verdict(path, DIFFERENT, "not here to compare with; git checkout restores it")
    exact, read = JUDGES[old.name]
    place = first_difference(exact(old), exact(new))
    if place:
        return Verdict(path, DIFFERENT, place)
    within, note = agree(read(old), read(new))
    return Verdict(path, WITHIN if within else DIFFERENT, note)


def agree(old: Readings, new: Readings) -> tuple[bool, str]:
    """Whether every mean over seeds agrees, and where it differs most, measured in tolerances.

    The tolerance of a figure is TOLERANCE, or the standard deviation of the old values where that is more.
    """
    if old.keys() != new.keys() or any(len(old[name]) != len(new[name]) for name in old):
        names = sorted(old.keys() ^ new.keys()) or [name for name in sorted(old) if len(old[name]) != len(new[name])]
        return False, f"{names[0]} is not there in both, or not for as many seeds"
    worst, note = 0.0, "the same figures"
    for name in sorted(old):
        gap = abs(statistics.fmean(new[name]) - statistics.fmean(old[name])) if old[name] else 0.0
        allowed = max(TOLERANCE, statistics.stdev(old[name]) if len(old[name]) > 1 else 0.0)
        if gap / allowed > worst:
            worst, note = gap / allowed, f"most in {name}: by {gap:.3g}, {allowed:.3g} is allowed"
    return worst <= 1, note


def first_difference(old: Any, new: Any, where: str = "") -> str | None:
    """The first place at which two JSON values differ, None if they are equal."""
    if isinstance(old, dict) and isinstance(new, dict):
        pairs = [(f"{where}.{key}".lstrip("."), old.get(key), new.get(key)) for key in sorted(old.keys() | new.keys())]
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = [(f"{where}.{i}", a, b) for i, (a, b) in enumerate(zip(old, new))]
    else:
        return None if old == new else f"{where} was {old}, is {new}"
    return next((found for place, a, b in pairs if (found := first_difference(a, b, place))), None)


def _metrics(file: Path) -> dict[str, list[float]]:
    content, found = read_json(file), {}
    for model, entry in content["models"].items():
        found |= {f"{model} {metric}": s["values"] for metric, s in entry["metrics"].items() if s}
    for name, floor in (content.get("floors") or {}).items():
        found |= {f"{name} {metric}": [value] for metric, value in floor.items()}
    return {name: [v for v in values if v is not None] for name, values in found.items()}


def _exact_metrics(file: Path) -> Any:
    content = read_json(file)
    models = {
        name: {key: value for key, value in entry.items() if key not in ("metrics", "epochs", "series")}
        for name, entry in content["models"].items()
    }
    return {key: value for key, value in content.items() if key not in ("differences", "floors")} | {"models": models}


def _pruning(file: Path) -> dict[str, list[float]]:
    return {f"{name} at {level}": v for (name, level), v in pruning_series(read_json(file)["points"]).items()}


def _curves(file: Path) -> dict[str, list[float]]:
    """The mean over epochs of every curve, by seed: single epochs swing more than results do."""
    curves: dict[str, dict[str, list[float]]] = {}
    with open(file, newline="") as opened:
        for row in csv.DictReader(opened):
            model, seed, _ = row.pop("model"), row.pop("seed"), row.pop("epoch")
            for name, value in row.items():
                if value:
                    curves.setdefault(f"{model} {name}", {}).setdefault(seed, []).append(float(value))
    return {name: [math.fsum(v) / len(v) for v in seeds.values()] for name, seeds in curves.items()}


def _verdicts(file: Path) -> Any:
    return [{key: claim.get(key) for key in ("id", "says", "verdict")} for claim in read_json(file)]


JUDGES = {
    "metrics.json": (_exact_metrics, _metrics),
    "pruning.json": (lambda file: None, _pruning),
    "curves.csv": (lambda file: None, _curves),
    "claims.json": (_verdicts, lambda file: {}),
}


def _print(study: str, verdicts: Sequence[Verdict], trained: int, expected: int) -> int:
    width = max(len(v.path) for v in verdicts)
    for verdict in verdicts:
        print(f"{verdict.path:{width}}  {verdict.word}{f': {verdict.note}' if verdict.note else ''}")
    print(f"jobs trained {trained} of {expected} expected")
    if trained != expected:
        print(f"{study}: not proved, because not every job was trained again")
        return 1
    words = {verdict.word for verdict in verdicts}
    if DIFFERENT in words:
        print(f"{study}: different")
        return 1
    print(f"{study}: {IDENTICAL if words == {IDENTICAL} else WITHIN}")
    return 0
