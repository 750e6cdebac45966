"""What DVC's lock files record: the outputs of a study's stages, their md5s, and whether the files still are those."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from atelier.errors import AtelierError

Stages = Mapping[str, Mapping[str, Any]]
LOCKS = ("dvc.lock", "data/dvc.lock")
PAGES = ("report", "experiment_report")  # the stages that write pages


def recorded(root: Path) -> Stages:
    """The stages of both lock files by name; none where there is no lock file yet."""
    return {name: stage for lock in LOCKS for name, stage in _stages(Path(root), lock).items()}


def _stages(root: Path, lock: str) -> Stages:
    try:
        return (YAML(typ="safe").load((root / lock).read_text()) or {}).get("stages") or {}
    except FileNotFoundError:
        return {}
    except (YAMLError, AttributeError) as error:
        fault = str(error).splitlines()[0]
        raise AtelierError(f"{root / lock}: not a lock file ({fault}); restore it with git checkout {lock}") from None


def behind(stages: Stages, study: str) -> Stages:
    """The stages of a study, and every stage whose outputs they read."""
    makers = {path: name for name in stages for path in made_by(stages, name)}
    waiting, found = [name for name in stages if name.endswith(f"@{study}")], set()
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += [makers[path] for path in _md5s(stages[name], "deps") if path in makers]
    return {name: stages[name] for name in sorted(found)}


def page_of(stages: Stages, study: str) -> str | None:
    """The stage that writes the page of a study or an experiment, if it has run."""
    return next((f"{stage}@{study}" for stage in PAGES if f"{stage}@{study}" in stages), None)


def made_by(stages: Stages, *names: str) -> dict[str, str]:
    """Output path -> md5 of the named stages, of all of them if none is named."""
    return {path: md5 for name in names or stages for path, md5 in _md5s(stages[name], "outs").items()}


def out_of_date(stages: Stages) -> list[str]:
    """Outputs that a later stage of these read in another version than the one now recorded."""
    now = made_by(stages)
    read = [pair for stage in stages.values() for pair in _md5s(stage, "deps").items()]
    return sorted({path for path, md5 in read if path in now and now[path] != md5})


def md5_of(path: Path) -> str | None:
    """DVC's md5 of a file or a folder (over its sorted listing, ending in ".dir"); None if there is nothing."""
    path = Path(path)
    if path.is_file():
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest()
    if not path.is_dir():
        return None
    files = sorted((file.relative_to(path).as_posix(), file) for file in path.rglob("*") if file.is_file())
    listing = [{"md5": md5_of(file), "relpath": name} for name, file in files]
    return hashlib.md5(json.dumps(listing).encode()).hexdigest() + ".dir"


def _md5s(stage: Mapping[str, Any], part: str) -> dict[str, str]:
    return {entry["path"]: entry["md5"] for entry in stage.get(part) or [] if "md5" in entry}
