"""The unit of work: one model, one seed. What was done before, by content, is reused; what was killed goes on.

A job's folder is `.atelier/<key>/`, its key a digest of all the result depends on: family, settings, recipe, seed,
data, threads, device, library versions and the code that trains. The study's and the model's names are not part of it.
"""

import ctypes
import functools
import hashlib
import io
import json
import math
import platform
import sys
import time
import zipfile
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from atelier import checkpoint, code, files, paths
from atelier.errors import AtelierError
from atelier.params import Compute, Params, Recipe

CHECKPOINT_SECONDS = 5.0
LIBRARIES = ("numpy", "scipy", "torch")


@dataclass(frozen=True)
class Job:
    """Train `family` with `settings` by `recipe` from `seed`, or from the weights in the folder `start`.

    teacher: the folder of the net that a recipe with `distil` learns from.
    """

    study: str
    model: str
    seed: int
    family: str
    dataset: str
    compute: Compute
    recipe: Recipe
    settings: dict[str, Any] = field(hash=False)
    start: Path | None = None
    teacher: Path | None = None
    label: str = ""

    def __str__(self) -> str:
        return f"{self.model} seed {self.seed}{self.label}"

    @functools.cached_property
    def key(self) -> str:
        from atelier.data.store import Store

        store = Store(paths.noisy(self.dataset))
        recipes = [recipe for recipe in (self.recipe, self.recipe.pretraining) if recipe]
        noisy = {f".{recipe.noise.name}" for recipe in recipes if recipe.noise} | {""}
        reads = {f"{part}{noise}.npz" for part in ("train", "test") for noise in noisy}
        parts = {
            "family": self.family,
            "settings": self.settings,
            "recipe": self.recipe.chosen,
            "seed": self.seed,
            "data": {name: total for name, total in store.sums.items() if name in reads},
            "threads": self.compute.threads,
            "device": device(self.compute),
            "start": checkpoint.digest(self.start) if self.start else None,
            "versions": _versions(),
            "code": code.of_family(self.family, code.called_by(*recipes)),
        } | ({"teacher": checkpoint.digest(self.teacher)} if self.teacher else {})
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]

    @property
    def folder(self) -> Path:
        return paths.jobs() / self.key


def of_study(params: Params, study: str) -> list[Job]:
    """Every (model, seed) of a study."""
    from atelier.params import check_settings

    entries = params.study(study)
    return [
        Job(
            study=study,
            model=name,
            seed=seed,
            family=entry.family,
            dataset=entries.dataset,
            compute=params.compute,
            recipe=entries.recipe(name),
            settings=check_settings(entry.family, entry.settings, f"params.yaml: studies.{study}.models.{name}"),
        )
        for name, entry in entries.models.items()
        for seed in entries.seed_list
    ]


def finished(job: Job) -> bool:
    """timing.json is written last; weights that were damaged since do not count, so they are trained again."""
    return (job.folder / "timing.json").exists() and checkpoint.intact(job.folder)


def train(job: Job) -> bool:
    """Train, resume or reuse; the result is in job.folder. Says whether there was anything to do."""
    from filelock import FileLock

    job.folder.mkdir(parents=True, exist_ok=True)
    with FileLock(job.folder / "lock"):
        if finished(job):
            return False
        _train(job)
        return True


def train_all(jobs: list[Job], params: Params, title: str) -> int:
    """Train the jobs on worker processes, each content once; gives the number that this call trained."""
    from atelier.fanout import fan_out

    # Where device is auto, a cluster's machines do as this one would, which the key speaks of.
    settled = params.compute.model_copy(update={"device": device(params.compute)})
    distinct = list({job.key: job for job in (replace(job, compute=settled) for job in jobs)}.values())
    waiting = [job for job in distinct if not finished(job)]
    if len(waiting) < len(distinct):
        print(
            f"{title}: {len(distinct) - len(waiting)} of {len(distinct)} jobs reused, {len(waiting)} to train",
            flush=True,
        )
    return sum(fan_out(train, _longest_first(waiting), title=title, progress=progress, **params.crew))


def _longest_first(jobs: list[Job]) -> list[Job]:
    """By what the jobs of trained studies took the last time, then by epochs: none of the long ones ends alone."""
    took: dict[tuple, float] = {}
    for study in {job.study for job in jobs}:
        if paths.timings(study).exists():
            for known in files.read_json(paths.timings(study))["jobs"]:
                took[study, known["model"], known["seed"], ""] = known.get("train_s") or 0.0

    def work(job: Job) -> tuple[float, int]:
        return took.get((job.study, job.model, job.seed, job.label), math.inf), job.recipe.epochs

    return sorted(jobs, key=work, reverse=True)


def progress(job: Job) -> tuple[int, int] | None:
    """Epochs done and to do, from the file that the job writes as it runs."""
    try:
        lines = (job.folder / "progress.jsonl").read_bytes().splitlines()
        last = json.loads(lines[-1]) if len(lines) > 1 else {"pretrained": 0}
        before = job.recipe.pretraining.epochs if job.recipe.pretrain else 0
        return last.get("epoch", 0) + last.get("pretrained", before), job.recipe.epochs + before
    except (OSError, ValueError):
        return None


def result(job: Job) -> dict[str, Any]:
    """Seconds and epochs of a finished job."""
    return {"model": job.model, "seed": job.seed} | files.read_json(job.folder / "timing.json")


def device(compute: Compute) -> str:
    """cpu or cuda; raises AtelierError where a GPU is asked for and there is none."""
    if compute.device == "cpu" or (compute.device == "auto" and not _has_driver()):
        return "cpu"
    import torch

    if compute.device == "cuda" and not torch.cuda.is_available():
        raise AtelierError("params.yaml: compute.device is cuda, but torch sees no GPU here; use auto or cpu")
    return "cuda" if torch.cuda.is_available() else "cpu"


def _has_driver() -> bool:
    """Whether the driver is there without which torch sees no GPU: a look that spares most machines its import."""
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


@functools.cache
def _versions() -> dict[str, str]:
    return {name: version(name) for name in LIBRARIES} | {"python": platform.python_version()}


def _train(job: Job) -> None:
    import numpy as np
    import torch

    from atelier import cost
    from atelier.data.items import items
    from atelier.data.store import Store
    from atelier.data.subset import first
    from atelier.fit import Diverged, State, fit
    from atelier.optim import Optimizer

    store, where = Store(paths.noisy(job.dataset)), device(job.compute)
    hold_out = job.recipe.hold_out
    split = "validation" if hold_out else "test"
    spec = {"family": job.family, "shape": store.shape, "classes": len(store.classes), "settings": job.settings}
    torch.manual_seed(job.seed)
    model = checkpoint.build(spec, **_optimizer(job.family, Optimizer, job.recipe)).to(where)
    if job.start:
        model.load_state_dict(checkpoint.read_weights(job.start))
    teacher = checkpoint.load(job.teacher)[0].to(where) if job.teacher else None
    saved = _resume(job)
    log = _Log(job, saved)

    def run(net: Any, recipe: Recipe) -> State:
        seen = first(items(store, "train", recipe.noise, hold_out, where), recipe.items)
        held = items(store, split, recipe.noise, hold_out, where)
        state = State(**saved["state"]) if saved and saved["last"] == log.last else None
        try:
            state = fit(net, recipe, job.seed, seen, (split, held), state=state, teacher=teacher, after_epoch=log)
            if not _finite(state, net):
                raise Diverged(f"weights or figures are not finite after epoch {state.epoch}; try a lower lr or clip")
        except Diverged as error:
            raise Diverged(f"study {job.study}, model {job.model}, seed {job.seed}: {error}") from None
        return state

    if job.recipe.pretrain and not job.start and not (saved and saved["last"]):
        log.last = False
        run(model.pretrain(_made(Optimizer, job.recipe.pretraining)), job.recipe.pretraining)
        log.last = True
    state = run(model, job.recipe)
    seconds = log.seconds()
    # Counted here, where torch has loaded what counting needs for training: a second that evaluation need not spend.
    checkpoint.save(job.folder, spec | {"cost": cost.exact(model, store.shape)}, model)
    best = state.best["epoch"] if state.best else None
    history = {"epochs": state.epoch, "best_epoch": best, "curve": state.curve}
    history |= {"pretraining": log.pretraining} if log.pretraining else {}
    files.write_json(job.folder / "history.json", history)
    if state.snapshots:
        images = {str(epoch): shot.cpu().numpy() for epoch, shot in state.snapshots.items()}
        files.write_arrays(
            job.folder / "snapshots.npz", **{e: np.rint(255 * shot).astype(np.uint8) for e, shot in images.items()}
        )
    log.end()
    files.write_json(
        job.folder / "timing.json", {"train_s": round(seconds, 3), "epochs": state.epoch - job.recipe.begin}
    )
    (job.folder / "checkpoint.pt").unlink(missing_ok=True)


def _finite(state: Any, model: Any) -> bool:
    """Whether the last step was fine too: no later loss looks at it."""
    figures = [value for record in state.curve for value in record.values()]
    return all(map(math.isfinite, figures)) and all(bool(t.isfinite().all()) for t in model.state_dict().values())


def _made(kind: type, recipe: Recipe) -> Any:
    return kind(recipe.optimizer, recipe.lr, recipe.momentum, recipe.weight_decay)


def _optimizer(family: str, kind: type, recipe: Recipe) -> dict[str, Any]:
    """The recipe's optimizer for a family that takes one; a family with optimizers of its own has no such argument."""
    import inspect

    from atelier import families

    if "optimizer" not in inspect.signature(families.load(family)).parameters:
        return {}
    return {"optimizer": _made(kind, recipe)}


def _resume(job: Job) -> dict[str, Any] | None:
    """What the checkpoint holds; None without one, or when it is damaged: then the job starts over."""
    import torch

    path = job.folder / "checkpoint.pt"
    if not path.exists():
        return None
    content = path.read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as records:  # torch.load does not look at its own format's checksums
            if records.testzip() is None:
                return torch.load(io.BytesIO(content), weights_only=True)
    except Exception:  # damage shows in many ways, and all have the same way out
        pass
    print(f"{job}: its checkpoint is damaged, starting over", flush=True)
    return None


class _Log:
    """Called after every epoch: a line of progress each time, a checkpoint now and then.

    last: whether it is told of the job's own training, or of what goes before it, whose curve it keeps.
    """

    def __init__(self, job: Job, saved: dict[str, Any] | None) -> None:
        self.job, self.spent = job, saved["seconds"] if saved else 0.0
        self.last, self.pretraining = (saved["last"], saved["pretraining"]) if saved else (True, [])
        self.started = self.saved = time.monotonic()
        self.path = job.folder / "progress.jsonl"
        header = {"study": job.study, "model": job.model, "seed": job.seed}
        curve = saved["state"]["curve"] if saved and self.last else []
        lines = [header | {"epochs": job.recipe.epochs, "key": job.key}, *curve]
        files.write_text(self.path, "".join(json.dumps(line) + "\n" for line in lines))

    def __call__(self, state: Any) -> None:
        if state.epoch == (self.job.recipe.begin if self.last else 0):
            return
        running = {f"running.{name}": value for name, value in state.running.items()}
        fresh = state.curve and state.curve[-1]["epoch"] == state.epoch
        if self.last:
            self._line(state.curve[-1] if fresh else {"epoch": state.epoch} | running)
        else:
            self.pretraining = list(state.curve)
            self._line({"epoch": 0, "pretrained": state.epoch} | running)
        if time.monotonic() - self.saved > CHECKPOINT_SECONDS:
            import torch

            buffer = io.BytesIO()
            told = {"last": self.last, "pretraining": self.pretraining, "seconds": self.seconds()}
            torch.save({"state": vars(state)} | told, buffer)
            files.write_bytes(self.job.folder / "checkpoint.pt", buffer.getvalue())
            self.saved = time.monotonic()

    def seconds(self) -> float:
        return self.spent + time.monotonic() - self.started

    def end(self) -> None:
        self._line({"done": True})

    def _line(self, record: dict[str, Any]) -> None:
        with open(self.path, "a") as file:
            file.write(json.dumps(record) + "\n")
