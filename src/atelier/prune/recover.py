"""What becomes of a pruned net: the jobs that fine-tune it, rewind it, or train a fresh net of its shape."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from atelier import files
from atelier.jobs import Job
from atelier.params import Recipe, Study
from atelier.prune.schedule import Step

EARLY = "early"
SCRATCH = {"scratch-epochs", "scratch-madds"}


@dataclass(frozen=True)
class Net:
    """A net that can be pruned, in `folder`; in `early`, if there is rewinding, the same net before its last epochs."""

    folder: Path
    early: Path | None = None


@dataclass(frozen=True)
class Cut:
    """Prune `source`, which is the dense job's net `whole` or one that was fine-tuned, into `folder`.

    The net before its last epochs, if there is one, loses the same nodes and goes into folder / EARLY.

    thinning: the job, where the schedule is gradual, that made a net of `whole` in which the nodes to go are silent.
    """

    dense: Job
    criterion: str
    schedule: str
    step: Step
    whole: Net
    source: Net
    folder: Path
    inputs: bool = False
    thinning: Job | None = None

    def __str__(self) -> str:
        return f"{self.dense} {self.criterion} {self.schedule} {self.step.level:g}"

    @property
    def net(self) -> Net:
        return Net(self.folder, self.source.early and self.folder / EARLY)

    def point(self, recovery: str, job: Job | None = None) -> "Point":
        folder = job.folder if job and job != self.thinning else self.folder
        return Point(self.dense, self.criterion, self.schedule, recovery, self.step.level, folder, job, self.inputs)


@dataclass(frozen=True)
class Point:
    """A net of pruning.json, in `folder`; `job` trained it."""

    dense: Job
    criterion: str
    schedule: str
    recovery: str
    level: float
    folder: Path
    job: Job | None = None
    inputs: bool = False  # whether given nodes are pruned too, and so count among its widths

    def __str__(self) -> str:
        return f"{self.dense} {self.criterion} {self.schedule} {self.recovery} {self.level:g}"

    @property
    def name(self) -> dict[str, Any]:
        same = {key: getattr(self, key) for key in ("criterion", "schedule", "recovery", "level")}
        return {"model": self.dense.model, "seed": self.dense.seed} | same


def points(study: Study, cut: Cut, settings: Mapping[str, Any]) -> list[Point]:
    """The nets that a cut gives, whose settings are `settings`, with the jobs that have yet to train them.

    Fine-tuning is among them where the study asks for it, and where later cuts go on from it.
    """
    asked = set(study.prune.recoveries)
    if cut.thinning:
        found = {"finetune": cut.thinning}
    else:
        going_on = {"finetune"} if cut.schedule == "iterative" else set()
        ways = {"none": None, "finetune": _finetune, "lr-rewind": _rewind, "rewind": _rewind}
        found = {
            name: make and make(study, cut, settings, name) for name, make in ways.items() if name in asked | going_on
        }
    found |= {name: _scratch(study, cut, settings, name) for name in sorted(SCRATCH & asked)}
    return [cut.point(name, job) for name, job in found.items()]


def begun(study: Study, dense: Job) -> Job:
    """The dense net's training up to the epochs that rewinding takes back."""
    recipe = dense.recipe.changed({"snapshots": (), "span": (0, _last_epochs(study, dense).begin)})
    return replace(dense, recipe=recipe, label=" begun")


def thinning(study: Study, cut: Cut) -> Job:
    """Fine-tuning from the dense net during which the nodes fall silent one after the other."""
    how = {"level": cut.step.level, "criterion": cut.criterion, "inputs": cut.inputs}
    job = _tuned(study, cut, cut.whole.folder)
    return replace(job, recipe=job.recipe.changed({"thin": how}))


def _tuned(study: Study, cut: Cut, start: Path) -> Job:
    recipe = study.prune_recipe(cut.dense.model).changed({"snapshots": ()})
    teacher = cut.whole.folder if recipe.distil else None
    return replace(cut.dense, recipe=recipe, start=start, teacher=teacher, label=f" {_way(cut)}")


def _finetune(study: Study, cut: Cut, settings: Mapping[str, Any], _: str) -> Job:
    return replace(_tuned(study, cut, cut.folder), settings=settings)


def _rewind(study: Study, cut: Cut, settings: Mapping[str, Any], name: str) -> Job:
    """The model's own last epochs over again, from the weights as they are or as they were before these epochs."""
    start, recipe = cut.net.early if name == "rewind" else cut.folder, _last_epochs(study, cut.dense)
    return replace(cut.dense, settings=settings, recipe=recipe, start=start, label=f" {_way(cut)} {name}")


def _scratch(study: Study, cut: Cut, settings: Mapping[str, Any], name: str) -> Job:
    """Fresh weights and the model's own recipe: as many epochs as the dense net and its fine-tunings took, or so many
    that their multiply-adds are those of as many epochs of the dense net.
    """
    dense = cut.dense
    epochs = dense.recipe.epochs + cut.step.turn * study.prune_recipe(dense.model).epochs
    if name == "scratch-madds":
        specs = (files.read_json(folder / "spec.json") for folder in (cut.whole.folder, cut.folder))
        before, after = (spec["cost"]["multiply_adds"] for spec in specs)
        epochs = round(epochs * before / after)
    recipe = dense.recipe.changed({"snapshots": (), "epochs": epochs})
    return replace(dense, settings=settings, recipe=recipe, label=f" {name} {cut.step.level:g}")


def _last_epochs(study: Study, dense: Job) -> Recipe:
    """As many of the model's own recipe as fine-tuning has."""
    epochs = dense.recipe.epochs
    return dense.recipe.changed({"snapshots": (), "span": (epochs - study.prune_recipe(dense.model).epochs, epochs)})


def _way(cut: Cut) -> str:
    return f"{cut.criterion} {cut.schedule} {cut.step.level:g}"
