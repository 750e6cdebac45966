"""The only training loop. It knows tensors, a recipe and a model of the family contract; no files, no studies.

Everything random in epoch e follows from (seed, e), so training can stop after any epoch and go on as if it never had.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from atelier import noise
from atelier.data.items import Items
from atelier.errors import AtelierError
from atelier.optim import schedule_factor
from atelier.params import Recipe

ROWS = 2000  # rows evaluated at once: fits the cache, and is fixed because sums depend on it


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


def fit(
    model: nn.Module,
    recipe: Recipe,
    seed: int,
    train: Items,
    held_out: tuple[str, Items],
    *,
    state: State | None = None,
    after_epoch: Callable[[State], None] = lambda state: None,
) -> State:
    """Train `model` in place and return the last state.

    held_out: the split that curves show beside train ("validation" or "test") and its items; early stopping needs
    "validation". after_epoch sees the state of every epoch, the first one before any training (epoch 0).

    Raises Diverged, naming epoch and step, at the first loss that is not finite.
    """
    optimizers = model.optimizers()
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    if state is None:
        state = State(0, model.state_dict(), [], [])
        _snapshot(model, recipe, state, held_out[1])
        after_epoch(state)
    else:
        model.load_state_dict(state.model)
        for optimizer, saved in zip(optimizers, state.optimizers, strict=True):
            optimizer.load_state_dict(saved)
    while state.epoch < recipe.epochs and not _stopped(recipe, state):
        state.running = _epoch(model, recipe, optimizers, seed, state.epoch, train)
        state.epoch += 1
        if state.epoch % recipe.evaluate_every == 0 or state.epoch in (1, recipe.epochs):
            _evaluate(model, recipe, state, train, held_out)
        _snapshot(model, recipe, state, held_out[1])
        state.model = model.state_dict()
        state.optimizers = [optimizer.state_dict() for optimizer in optimizers]
        after_epoch(state)
    if state.best:
        model.load_state_dict(state.best["model"])
    return state


def _epoch(
    model: nn.Module, recipe: Recipe, optimizers: list[torch.optim.Optimizer], seed: int, epoch: int, train: Items
) -> dict[str, float]:
    """One pass over the items; the means of what `losses` yields, as they ran."""
    torch.manual_seed(_mixed(seed, epoch))
    model.train()
    if recipe.noise and recipe.noise.draw == "fresh":
        drawn = noise.draw(train.clean.cpu().numpy(), recipe.noise.kind, recipe.noise.level, seed=seed, epoch=epoch)
        train = Items(torch.from_numpy(drawn).to(train.clean.device), train.clean, train.y)
    target = train.clean if wants_clean(model) else train.y
    size = len(train) if recipe.batch == "full" else min(recipe.batch, len(train))
    steps = math.ceil(len(train) / size)
    totals: dict[str, float] = {}
    for step, (x, y) in enumerate(_batches(train.x, target, size, seed, epoch)):
        factor = schedule_factor(recipe.schedule, (epoch + step / steps) / recipe.epochs)
        losses = _step(model, recipe, optimizers, x, y, factor)
        for name, value in losses.items():
            if name.split("-")[0] == "loss" and not math.isfinite(value):
                where = f"epoch {epoch + 1}, step {step + 1} of {steps}"
                raise Diverged(f"{name} is {value} at {where}; try a lower lr or clip")
            totals[name] = totals.get(name, 0.0) + value * len(x) / len(train)
    return totals


def _batches(x: Tensor, y: Tensor, size: int, seed: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Full batch: the tensors as they are. Mini-batches: one gather an epoch in fresh order; the last may be short."""
    if size < len(x):
        order = torch.from_numpy(np.random.default_rng([seed, epoch]).permutation(len(x))).to(x.device)
        x, y = x[order], y[order]
    return zip(x.split(size), y.split(size), strict=True)


def _step(
    model: nn.Module, recipe: Recipe, optimizers: list[torch.optim.Optimizer], x: Tensor, y: Tensor, factor: float
) -> dict[str, float]:
    """One step of every optimizer. With `chunk` the gradient is gathered piece by piece: less memory, warmer cache."""
    pieces = [(x, y)]
    if recipe.chunk and recipe.chunk < len(x):
        if len(optimizers) > 1:
            raise AtelierError(
                "chunk needs a family with one optimizer: later losses depend on earlier steps; drop chunk"
            )
        pieces = list(zip(x.split(recipe.chunk), y.split(recipe.chunk), strict=True))
    totals: dict[str, Tensor] = {}
    for piece, (px, py) in enumerate(pieces):
        share = len(px) / len(x)
        for index, (optimizer, out) in enumerate(zip(optimizers, model.losses(px, py), strict=True)):
            if piece == 0:
                optimizer.zero_grad()
            (out["loss"] * share if share < 1 else out["loss"]).backward()
            for name, value in out.items():
                key = name if index == 0 else f"{name}-{index + 1}"
                totals[key] = totals.get(key, 0.0) + value.detach() * share
            if piece == len(pieces) - 1:
                for group in optimizer.param_groups:
                    group["lr"] = group["initial_lr"] * factor
                if recipe.clip:
                    own = [p for group in optimizer.param_groups for p in group["params"]]
                    nn.utils.clip_grad_norm_(own, recipe.clip)
                optimizer.step()
    if hasattr(model, "after_step"):
        model.after_step()
    return {name: float(value) for name, value in totals.items()}


def wants_clean(model: nn.Module) -> bool:
    """Whether the target in `losses(x, y)` is the clean item and not the label (a family says `target = "clean"`)."""
    return getattr(model, "target", "label") == "clean"


@torch.no_grad()
def measure(model: nn.Module, items: Items) -> dict[str, float]:
    """Means over all items in eval mode: loss and accuracies of a classifier, errors of a reconstruction; else nothing.

    accuracy_rounded is the mean of round(p) == onehot over items and classes, as two of the documents compute it.
    """
    model.eval()
    totals: dict[str, float] = {}
    for x, clean, y in zip(items.x.split(ROWS), items.clean.split(ROWS), items.y.split(ROWS), strict=True):
        found = {}
        if hasattr(model, "classify"):
            logits = model.classify(x).float()
            probabilities = logits.softmax(1)
            rounded = (probabilities.round() == F.one_hot(y, logits.shape[1])).float().mean(1)
            found["loss"] = F.cross_entropy(logits, y, reduction="sum")
            found["accuracy"] = (logits.argmax(1) == y).sum()
            found["accuracy_rounded"] = rounded.sum()
        elif hasattr(model, "reconstruct"):
            error = (model.reconstruct(x) - clean).flatten(1)
            found["loss"] = found["mae"] = error.abs().mean(1).sum()
            found["mse"] = error.square().mean(1).sum()
        for name, value in found.items():
            totals[name] = totals.get(name, 0.0) + float(value)
    return {name: total / len(items) for name, total in totals.items()}


def _evaluate(model: nn.Module, recipe: Recipe, state: State, train: Items, held_out: tuple[str, Items]) -> None:
    split, items = held_out
    record: dict[str, float] = {"epoch": state.epoch}
    record |= {f"train.{name}": value for name, value in measure(model, train).items()}
    record |= {f"{split}.{name}": value for name, value in measure(model, items).items()}
    record |= {f"running.{name}": value for name, value in state.running.items()}
    state.curve.append(record)
    if recipe.patience and split == "validation":
        loss = record.get("validation.loss")
        if loss is None:
            raise AtelierError("patience needs a family that classifies or reconstructs: there is no validation loss")
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
