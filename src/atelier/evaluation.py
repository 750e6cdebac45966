"""Judges a trained model: what it answers, and the figures of its answers."""

import numpy as np
import torch
from torch import Tensor, nn

from atelier import latency, metrics
from atelier.data.items import Items, items
from atelier.data.store import Store
from atelier.data.subset import first
from atelier.fit import rows_at_once
from atelier.params import Recipe, TrainNoise

SMALL = 1e-3  # weights nearer to 0 count as gone


@torch.no_grad()
def answer(model: nn.Module, x: Tensor) -> np.ndarray | None:
    """Log-probabilities (n, classes) in float64, or reconstructions (n, *shape), or None if the model does neither."""
    model.eval()
    size = rows_at_once(model)
    if hasattr(model, "classify"):
        return torch.cat([model.classify(rows).double().log_softmax(1) for rows in x.split(size)]).cpu().numpy()
    if hasattr(model, "reconstruct"):
        return torch.cat([model.reconstruct(rows) for rows in x.split(size)]).cpu().numpy()
    return None


def judge(model: nn.Module, seen: Items) -> dict[str, float]:
    """The figures of a model on a split: those of a classifier or of a reconstruction, and those of its family."""
    if not len(seen):
        return {}
    found, own = answer(model, seen.x), figures(model, seen.x)
    if found is None:
        return own
    if hasattr(model, "classify"):
        return metrics.classification(found, seen.y.cpu().numpy()) | own
    return metrics.reconstruction(found, seen.clean[:].cpu().numpy()) | own


@torch.no_grad()
def figures(model: nn.Module, x: Tensor) -> dict[str, float]:
    """Means over items of what the family measures of them itself; its loss goes by another name there."""
    if not hasattr(model, "figures"):
        return {}
    model.eval()
    parts = [model.figures(rows) for rows in x.split(rows_at_once(model))]
    names = [name for name in parts[0] if name != "loss"]
    return {name: float(torch.cat([part[name] for part in parts]).double().mean()) for name in names}


def judge_everywhere(model: nn.Module, store: Store, recipe: Recipe, corruptions: list[TrainNoise]) -> dict[str, float]:
    """Every figure, `<split>.<metric>` and `test.<corruption>.<metric>`; train and validation as in training."""
    found: dict[str, float] = {}
    hold_out, trained_on = recipe.hold_out, recipe.noise
    for split in ("train", "validation") if hold_out else ("train",):
        seen = items(store, split, trained_on, hold_out)
        seen = first(seen, recipe.items) if split == "train" else seen
        found |= {f"{split}.{name}": value for name, value in judge(model, seen).items()}
    for corruption in (None, *corruptions):
        name = f"test.{corruption.name}" if corruption else "test"
        seen = items(store, "test", corruption, hold_out)
        found |= {f"{name}.{metric}": value for metric, value in judge(model, seen).items()}
    return found | gaps(found, trained_on) | weights(model) | penalised(found, model)


def gaps(found: dict[str, float], trained_on: TrainNoise | None) -> dict[str, float]:
    """How much worse test is than train, inputs corrupted alike: accuracy lost, loss or error gained."""
    test = f"test.{trained_on.name}" if trained_on else "test"
    signs = {"accuracy": -1, "accuracy_rounded": -1, "nll": 1, "mae": 1, "mse": 1}
    return {
        f"gap.{metric}": sign * (found[f"{test}.{metric}"] - found[f"train.{metric}"])
        for metric, sign in signs.items()
        if f"{test}.{metric}" in found and f"train.{metric}" in found
    }


def weights(model: nn.Module) -> dict[str, float]:
    """Of all matrices and kernels, biases left out: weights.norm, the root of their summed squares; weights.small, the
    share that is under 1e-3.
    """
    every = _weights(model)
    if not len(every):
        return {}
    return {"weights.norm": float(every.norm()), "weights.small": float((every.abs() < SMALL).double().mean())}


def penalised(found: dict[str, float], model: nn.Module) -> dict[str, float]:
    """What a classifier with l1 or l2 minimises: nll plus rate / 2 times the sum of absolute, of squared weights."""
    l1, l2 = (getattr(model, name, 0.0) for name in ("l1", "l2"))
    if not (l1 or l2):
        return {}
    every = _weights(model)
    penalty = float(l1 / 2 * every.abs().sum() + l2 / 2 * every.square().sum())
    splits = ("train", "validation", "test")
    return {f"{s}.penalised": found[f"{s}.nll"] + penalty for s in splits if f"{s}.nll" in found}


def _weights(model: nn.Module) -> torch.Tensor:
    every = [parameter.detach().double().flatten() for parameter in model.parameters() if parameter.dim() > 1]
    return torch.cat(every) if every else torch.empty(0)


def seconds_per_1000(model: nn.Module, x: Tensor, repeats: int = 5) -> float:
    """Median time in seconds to answer 1,000 items in batches as `answer` makes them, after one warm-up."""
    ((median, _),) = latency.compare({"answer": lambda: answer(model, x)}, repeats).values()
    return median / len(x)  # milliseconds an item
