"""Convolutional net by a plan of steps, from LeNet-5 (LeCun et al. 1998) to small VGG-like nets (Simonyan 2014)."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer as TorchOptimizer

from atelier.layers import (
    ACTIVATIONS,
    Activation,
    Init,
    Nodes,
    Shape,
    class_losses,
    dense_reader,
    dense_writers,
    initialise,
)
from atelier.optim import Optimizer

STEPS = {
    "conv": r"conv (?P<width>[1-9]\d*) (?P<size>[1-9]\d*(x[1-9]\d*)?)( (?P<pad>same|valid))?",
    "pool": r"pool (?P<size>[1-9]\d*(x[1-9]\d*)?)",
    "avgpool": r"avgpool (?P<size>[1-9]\d*(x[1-9]\d*)?)",
    "dense": r"dense (?P<width>[1-9]\d*)",
    "dropout": r"dropout (?P<rate>0(\.\d+)?)",
}


class Model(nn.Module):
    """plan: the steps: `conv MAPS SIZE [same|valid]`, `pool SIZE` (max), `avgpool SIZE`, `dense WIDTH`, `dropout P`.

    SIZE is 3 or 1x5. Convolutions keep the size unless `valid`; conv and dense are followed by the activation, and a
    max pool right after a convolution comes before it: equal for a function that never falls, and cheaper.
    """

    rows = 250  # maps are up to a hundred times the size of an item

    def __init__(
        self,
        shape: Shape,
        classes: int,
        *,
        plan: tuple[str, ...] = ("conv 32 3", "pool 2", "conv 64 3", "pool 2", "dense 128"),
        activation: Activation = "relu",
        init: Init = "he",
        optimizer: Optimizer = Optimizer(),
    ) -> None:
        super().__init__()
        self.check(plan=plan)
        self.plan, self.optimizer = plan, optimizer
        self.steps = nn.Sequential()
        size = tuple(shape) if len(shape) == 3 else (1, *shape)
        steps = [_parse(step) for step in plan] + [{"kind": "end"}]
        for step, following in zip(steps, steps[1:], strict=False):
            rises = activation != "prelu"  # whose slope may be learned to be negative
            waiting = step["kind"] == "conv" and following["kind"] == "pool" and rises
            for layer in _layers(step, size):
                self.steps.append(layer)
                size = _after(layer, size)
            pooled = step["kind"] == "pool" and isinstance(self.steps[-2:][0], nn.Conv2d)
            if pooled or (step["kind"] in ("conv", "dense") and not waiting):
                self.steps.append(ACTIVATIONS[activation]())
        if len(size) > 1:
            self.steps.append(nn.Flatten())
        self.head = nn.Linear(math.prod(size), classes)
        initialise(self, init)
        self.to(memory_format=torch.channels_last)

    @staticmethod
    def check(plan: tuple[str, ...] = (), **_) -> None:
        kinds = [_parse(step)["kind"] for step in plan]
        if "dense" in kinds and any(kind in ("conv", "pool", "avgpool") for kind in kinds[kinds.index("dense") :]):
            raise ValueError(f"plan is {list(plan)}; convolutions and pools come before the first dense step")

    def classify(self, x: Tensor) -> Tensor:
        """(n, *shape) -> logits (n, classes)."""
        if x.dim() == 3:
            x = x.unsqueeze(1)
        return self.head(self.steps(x.contiguous(memory_format=torch.channels_last)))

    def optimizers(self) -> list[TorchOptimizer]:
        return [self.optimizer(self.parameters())]

    def losses(self, x: Tensor, y: Tensor) -> Iterator[dict[str, Tensor]]:
        yield class_losses(self.classify(x), y)

    def nodes(self) -> list[Nodes]:
        """The maps of every convolution and the units of every dense step, named by their place in the plan."""
        places = [i for i, step in enumerate(self.plan) if _parse(step)["kind"] in ("conv", "dense")]
        layers = [(f"steps.{i}", layer) for i, layer in enumerate(self.steps) if hasattr(layer, "weight")]
        layers.append(("head", self.head))
        found = []
        for place, (name, layer), (reader, reading) in zip(places, layers[:-1], layers[1:], strict=True):
            width = layer.weight.shape[0]
            block = reading.weight.shape[1] // width
            found.append(Nodes(f"plan.{place}", width, dense_writers(name), (dense_reader(reader, block),)))
        return found

    def resized(self, widths: Mapping[str, int]) -> dict[str, Any]:
        """The settings of this net with the given widths by nodes' name."""
        steps = [step.split() for step in self.plan]
        for place, step in enumerate(steps):
            if f"plan.{place}" in widths:
                step[1] = str(widths[f"plan.{place}"])
        return {"plan": tuple(" ".join(step) for step in steps)}


def _parse(step: str) -> dict[str, Any]:
    for kind, pattern in STEPS.items():
        match = re.fullmatch(pattern, step)
        if match:
            found = {key: value for key, value in match.groupdict().items() if value}
            size = [int(side) for side in found.get("size", "1").split("x")]
            return {"kind": kind, **found, "size": (size * 2)[:2]}
    raise ValueError(
        f"plan holds {step!r}; a step is: conv MAPS SIZE [same|valid], pool SIZE, avgpool SIZE, dense WIDTH, "
        "dropout RATE"
    )


def _layers(step: dict[str, Any], size: Shape) -> list[nn.Module]:
    match step["kind"]:
        case "conv":
            return [nn.Conv2d(size[0], int(step["width"]), step["size"], padding=step.get("pad", "same"))]
        case "pool":
            return [nn.MaxPool2d(step["size"])]
        case "avgpool":
            return [nn.AvgPool2d(step["size"])]
        case "dropout":
            return [nn.Dropout(float(step["rate"]))]
    flatten = [nn.Flatten()] if len(size) > 1 else []
    return [*flatten, nn.Linear(math.prod(size), int(step["width"]))]


def _after(layer: nn.Module, size: Shape) -> Shape:
    """The shape of an item after a layer, found by sending one through."""
    try:
        with torch.no_grad():
            after = tuple(layer(torch.zeros(1, *size)).shape[1:])
    except RuntimeError:
        after = (0,)
    if 0 in after:
        raise ValueError(f"plan leaves nothing of an item of {tuple(size)} after {layer}; use fewer or smaller steps")
    return after
