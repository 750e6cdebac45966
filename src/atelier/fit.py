"""The only training loop. It knows tensors, a recipe and a model of the family contract; no files, no studies.

Everything random in epoch e follows from (seed, e), so training can stop after any epoch and go on as if it never had.
"""

import importlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from atelier import noise
from atelier.augment import augment
from atelier.averaging import Weights, averaged, include
from atelier.data.items import Items, Pixels, Rows
from atelier.errors import AtelierError
from atelier.optim import schedule_factor
from atelier.params import Recipe

AUGMENT, ATTACK = 1, 2  # set these generators apart from that of the order, which has no third number
ROWS = 2000  # rows evaluated at once unless the family says `rows`: fixed, because sums depend on it


class Diverged(AtelierError):
    """The loss is no longer a number."""


@dataclass
class State:
    """All that training needs to go on after `epoch`; tensors and plain values, so that it can be stored safely."""

    epoch: int
    model: dict[str, Tensor]
    optimizers: list[dict[str, Any]]
    curve: list[dict[str, float]]
    best: dict[str, Any] | None = None
    running: dict[str, float] = field(default_factory=dict)
    snapshots: dict[int, Tensor] = field(default_factory=dict)
    average: Weights | None = None


def fit(
    model: nn.Module,
    recipe: Recipe,
    seed: int,
    train: Items,
    held_out: tuple[str, Items],
    *,
    state: State | None = None,
    teacher: nn.Module | None = None,
    after_epoch: Callable[[State], None] = lambda state: None,
) -> State:
    """Train `model` in place and return the last state. With `weight_average` the mean weights are judged and stay.

    held_out: the split that curves show beside train ("validation" or "test") and its items; early stopping needs
    "validation". teacher: whose probabilities of classes a recipe with `distil` learns from. after_epoch sees the state
    of every epoch, the first one before any training (epoch 0, or where the recipe's `span` begins).

    Raises Diverged at the end of the first epoch with a loss that is not finite, naming epoch and step.
    """
    optimizers = model.optimizers()
    if recipe.chunk and len(optimizers) > 1:
        raise AtelierError("chunk needs a family with one optimizer: later losses depend on earlier steps; drop chunk")
    if recipe.chunk and any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in model.modules()):
        raise AtelierError("chunk would give batch norm the means of pieces and not of the batch; drop one of them")
    if recipe.augment:
        if wants_clean(model):
            raise AtelierError("augment needs a family that learns labels: here the target is the item; drop augment")
        try:
            augment(train.x[:1], np.random.default_rng(0), **recipe.augment.model_dump())
        except ValueError as error:
            raise AtelierError(str(error)) from None
    for key in ("label_smoothing", "distil"):
        if getattr(recipe, key) and not learns_labels(model):
            raise AtelierError(f"{key} needs a family that learns labels: this one does not; drop {key}")
    if recipe.distil and teacher is None:
        raise AtelierError("distil needs a teacher, and this training has none; drop distil")
    if recipe.attack:
        _attacks().check(model, train.x[:ROWS])
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    if state is None:
        state = State(recipe.begin, model.state_dict(), [], [])
        _snapshot(model, recipe, state, held_out[1])
        after_epoch(state)
    else:
        model.load_state_dict(state.model)
        for optimizer, saved in zip(optimizers, state.optimizers, strict=True):
            optimizer.load_state_dict(saved)
    while state.epoch < recipe.end and not _stopped(recipe, state):
        state.running = _epoch(model, recipe, optimizers, seed, state, train, teacher)
        state.epoch += 1
        with averaged(model, state.average):
            if recipe.evaluates(state.epoch):
                _evaluate(model, recipe, state, train, held_out)
            _snapshot(model, recipe, state, held_out[1])
        state.model = model.state_dict()
        state.optimizers = [optimizer.state_dict() for optimizer in optimizers]
        after_epoch(state)
    if kept := state.best["model"] if state.best else state.average:
        model.load_state_dict(kept)
    return state


def _epoch(
    model: nn.Module,
    recipe: Recipe,
    optimizers: list[torch.optim.Optimizer],
    seed: int,
    state: State,
    train: Items,
    teacher: nn.Module | None,
) -> dict[str, float]:
    """One pass over the items; the means of what `losses` yields, as they ran."""
    epoch = state.epoch
    torch.manual_seed(_mixed(seed, epoch))
    classes = _classes(model, train) if recipe.label_smoothing or recipe.distil else 0
    bound = _sparsity().Constraint(model, recipe, train, seed, epoch) if recipe.sparse else None
    model.train()
    x, target = train.x, train.clean if wants_clean(model) else train.y
    if recipe.noise and recipe.noise.draw == "fresh":
        drawn = noise.draw(train.clean[:].cpu().numpy(), recipe.noise.kind, recipe.noise.level, seed=seed, epoch=epoch)
        x = Pixels(torch.from_numpy(drawn).to(train.y.device))
    size = len(train) if recipe.batch == "full" else min(recipe.batch, len(train))
    steps = math.ceil(len(train) / size)
    rng = np.random.default_rng([seed, epoch, AUGMENT])
    harden = _attacks().Hardener(recipe.attack, np.random.default_rng([seed, epoch, ATTACK])) if recipe.attack else None

    def load(rows: Rows) -> tuple[Tensor, Tensor]:
        inputs = augment(x[rows], rng, **recipe.augment.model_dump()) if recipe.augment else x[rows]
        wanted = target[rows]
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
            inputs = harden(model, inputs, wanted) if harden else inputs
            taught = _taught(teacher, inputs) if recipe.distil else None
        if classes:
            wanted = smoothed(wanted, recipe.label_smoothing, classes)
        return inputs, torch.lerp(wanted, taught, recipe.distil) if recipe.distil else wanted

    losses = []
    for step, rows in enumerate(_batches(len(train), size, seed, epoch)):
        progress = (epoch + step / steps) / recipe.epochs
        factor = schedule_factor(recipe.schedule, progress)
        if hasattr(model, "before_step"):
            model.before_step(progress)
        losses.append(_step(model, recipe, optimizers, rows, load, factor, bound))
        if recipe.weight_average:
            state.average = include(state.average, model, recipe.weight_average, epoch * steps + step + 1)
    return _means(losses, size, len(train), epoch)


def _attacks() -> ModuleType:
    """By name, so that only jobs that train on hard inputs depend on that code (see code.py)."""
    return importlib.import_module("atelier.attacks")


def _sparsity() -> ModuleType:
    """By name, as above: for recipes that are `sparse`."""
    return importlib.import_module("atelier.sparsity")


def _batches(n: int, size: int, seed: int, epoch: int) -> Iterable[Rows]:
    """Positions of n items: all in their order for a full batch; else in fresh order, the last batch may be short."""
    if size >= n:
        return [slice(0, n)]
    return torch.from_numpy(np.random.default_rng([seed, epoch]).permutation(n)).split(size)


def _step(
    model: nn.Module,
    recipe: Recipe,
    optimizers: list[torch.optim.Optimizer],
    rows: Rows,
    load: Callable[[Rows], tuple[Tensor, Tensor]],
    factor: float,
    bound: Any,
) -> dict[str, Tensor]:
    """One step of every optimizer. With `chunk` the gradient is gathered piece by piece: less memory, warmer cache."""
    n = rows.stop if isinstance(rows, slice) else len(rows)
    size = min(recipe.chunk or n, n)
    totals: dict[str, Tensor] = {}
    for start in range(0, n, size):
        x, y = load(slice(start, min(start + size, n)) if isinstance(rows, slice) else rows[start : start + size])
        share = len(x) / n
        losses = _in_precision(recipe.precision, x.device.type, model.losses(x, y))
        for index, (optimizer, out) in enumerate(zip(optimizers, losses, strict=True)):
            if start == 0:
                optimizer.zero_grad()
            (out["loss"] * share if share < 1 else out["loss"]).backward()
            for name, value in out.items():
                key = name if index == 0 else f"{name}-{index + 1}"
                value = value.detach() * share if share < 1 else value.detach()
                totals[key] = totals[key] + value if key in totals else value
            if start + size >= n:
                for group in optimizer.param_groups:
                    group["lr"] = group["initial_lr"] * factor
                if bound:
                    bound.before_step()
                if recipe.clip:
                    own = [p for group in optimizer.param_groups for p in group["params"]]
                    nn.utils.clip_grad_norm_(own, recipe.clip)
                optimizer.step()
                if bound:
                    bound.after_step(optimizer.param_groups[0]["lr"])
    if hasattr(model, "after_step"):
        model.after_step()
    return totals


def _in_precision(precision: str, device: str, losses: Iterator[dict[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
    """The same losses; with bf16, products and convolutions on the way to each are computed in bfloat16 (autocast)."""
    if precision == "fp32":
        yield from losses
    while precision == "bf16":
        with torch.autocast(device, torch.bfloat16):
            out = next(losses, None)
        if out is None:
            return
        yield out


def _means(losses: list[dict[str, Tensor]], size: int, n: int, epoch: int) -> dict[str, float]:
    """Means over items of what the steps of an epoch logged, read from the device once."""
    weights = torch.full((len(losses),), size / n, dtype=torch.float64)
    weights[-1] = (n - size * (len(losses) - 1)) / n
    found = {name: torch.stack([step[name] for step in losses]).double().cpu() for name in losses[0]}
    for name, values in found.items():
        if name.split("-")[0] == "loss" and not values.isfinite().all():
            step = int((~values.isfinite()).nonzero()[0])
            where = f"epoch {epoch + 1}, step {step + 1} of {len(losses)}"
            raise Diverged(f"{name} is {float(values[step])} at {where}; try a lower lr or clip")
    return {name: float(values @ weights) for name, values in found.items()}


def wants_clean(model: nn.Module | type[nn.Module]) -> bool:
    """Whether the target in `losses(x, y)` is the clean item and not the label (a family says `target = "clean"`)."""
    return getattr(model, "target", "label") == "clean"


def learns_labels(model: nn.Module | type[nn.Module]) -> bool:
    """Whether its losses compare what it classifies with labels."""
    return hasattr(model, "classify") and not wants_clean(model)


def smoothed(y: Tensor, share: float, classes: int) -> Tensor:
    """Labels (n,) -> probabilities (n, classes): `share` of each label's is spread evenly over all the classes, its own
    among them (Szegedy et al. 2016, section 7).
    """
    return F.one_hot(y, classes) * (1.0 - share) + share / classes


@torch.no_grad()
def _taught(teacher: nn.Module, x: Tensor) -> Tensor:
    """What the teacher believes: probabilities (n, classes) (Hinton et al. 2015, at temperature 1)."""
    return teacher.eval().classify(x).float().softmax(1)


@torch.no_grad()
def _classes(model: nn.Module, items: Items) -> int:
    """How many classes the model tells apart."""
    return model.eval().classify(items.x[:1]).shape[1]


def rows_at_once(model: nn.Module) -> int:
    """How many rows to evaluate at once: a family whose layers are much larger than an item says fewer, as `rows`."""
    return getattr(model, "rows", ROWS)


@torch.no_grad()
def measure(model: nn.Module, items: Items) -> dict[str, float]:
    """Means over all items in eval mode: loss and accuracies of a classifier, errors of a reconstruction; and the
    family's own `figures`, whose loss, if there is one, is the loss. Nothing of a model that has none of these.

    accuracy_rounded is the mean of round(p) == onehot over items and classes, as two of the documents compute it.
    """
    model.eval()
    totals: dict[str, Tensor] = {}
    judged = next((way for way in ("classify", "reconstruct") if hasattr(model, way)), None)
    size = rows_at_once(model)
    for start in range(0, len(items) if judged or hasattr(model, "figures") else 0, size):
        rows = slice(start, start + size)
        x, y, found = items.x[rows], items.y[rows], {}
        if judged == "classify":
            logits = model.classify(x)
            probabilities = logits.softmax(1)
            rounded = (probabilities.round() == F.one_hot(y, logits.shape[1])).float().mean(1)
            found["loss"] = F.cross_entropy(logits, y, reduction="sum")
            found["accuracy"] = (logits.argmax(1) == y).sum()
            found["accuracy_rounded"] = rounded.sum()
        elif judged == "reconstruct":
            error = (model.reconstruct(x) - items.clean[rows]).flatten(1)
            found["loss"] = found["mae"] = error.abs().mean(1).sum()
            found["mse"] = error.square().mean(1).sum()
        if hasattr(model, "figures"):
            found |= {name: values.sum() for name, values in model.figures(x).items()}
        for name, value in found.items():
            totals[name] = totals.get(name, 0.0) + value.double()
    return {name: float(total) / len(items) for name, total in totals.items()}


def _evaluate(model: nn.Module, recipe: Recipe, state: State, train: Items, held_out: tuple[str, Items]) -> None:
    split, items = held_out
    record: dict[str, float] = {"epoch": state.epoch}
    record |= {f"train.{name}": value for name, value in measure(model, train).items()}
    record |= {f"{split}.{name}": value for name, value in measure(model, items).items()}
    record |= {f"running.{name}": value for name, value in state.running.items()}
    if recipe.attack:
        found = _attacks().glance(model, items, recipe.attack.epsilon, rows_at_once(model))
        record |= {f"{split}.{name}": value for name, value in found.items()}
    state.curve.append(record)
    if recipe.patience and split == "validation":
        loss = record.get("validation.loss")
        if loss is None:
            raise AtelierError("patience needs a family with a validation loss: this one has none; drop patience")
        if state.best is None or loss < state.best["loss"]:
            weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
            state.best = {"loss": loss, "epoch": state.epoch, "model": weights}


def _stopped(recipe: Recipe, state: State) -> bool:
    """Whether validation has not improved for `patience` epochs, as of the last epoch evaluated."""
    return bool(recipe.patience and state.best and state.curve[-1]["epoch"] - state.best["epoch"] >= recipe.patience)


@torch.no_grad()
def _snapshot(model: nn.Module, recipe: Recipe, state: State, items: Items) -> None:
    """Keep reconstructions of one item a class at the epochs that the recipe names."""
    if state.epoch in recipe.snapshots and hasattr(model, "reconstruct"):
        model.eval()
        state.snapshots[state.epoch] = model.reconstruct(items.x[first_of_each_class(items.y)])


def first_of_each_class(y: Tensor) -> list[int]:
    """The position of the first item of every class, in class order."""
    return [int((y == label).nonzero()[0]) for label in y.unique()]


def _mixed(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> 1)
