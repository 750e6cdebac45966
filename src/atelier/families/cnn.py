"""Convolutional net by a plan of steps, as LeNet-5 (LeCun et al. 1998), AlexNet (Krizhevsky et al. 2012) and VGG
(Simonyan and Zisserman 2014) are.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer as TorchOptimizer

from atelier.layers import (
    ACTIVATIONS,
    Activation,
    Flatten,
    Init,
    Nodes,
    Place,
    Shape,
    check_places,
    class_losses,
    dense_reader,
    dense_writers,
    initialise,
    norm_writers,
)
from atelier.optim import Optimizer

SIZE = r"(?P<size>[1-9]\d*(x[1-9]\d*)?)"
STRIDE = r"( stride (?P<stride>[1-9]\d*))?"
STEPS = {
    "conv": rf"conv (?P<width>[1-9]\d*) {SIZE}( (?P<pad>same|valid|pad \d+))?{STRIDE}",
    "pool": rf"pool {SIZE}{STRIDE}",
    "avgpool": rf"avgpool {SIZE}{STRIDE}",
    "dense": r"dense (?P<width>[1-9]\d*)",
    "dropout": r"dropout (?P<rate>0(\.\d+)?)",
}


class Model(nn.Module):
    """plan: the steps: `conv MAPS SIZE [same|valid|pad N] [stride N]`, `pool SIZE [stride N]` (max), `avgpool SIZE
    [stride N]`, `dense WIDTH`, `dropout P`. batch_norm: of the maps of every convolution (Ioffe and Szegedy 2015).

    SIZE is 3 or 1x5. Convolutions keep the size unless `valid` or padded by N pixels; conv and dense are followed by
    the activation, and a max pool right after a convolution comes before it: equal for a function that never falls,
    and cheaper. features: the places of the flattened maps that the first dense layer, or the head, reads, rising (all
    if empty).
    """

    rows = 250  # maps are up to a hundred times the size of an item

    def __init__(
        self,
        shape: Shape,
        classes: int,
        *,
        plan: tuple[str, ...] = ("conv 32 3", "pool 2", "conv 64 3", "pool 2", "dense 128"),
        activation: Activation = "relu",
        batch_norm: bool = False,
        features: tuple[Place, ...] = (),
        init: Init = "he",
        optimizer: Optimizer = Optimizer(),
    ) -> None:
        super().__init__()
        self.check(plan=plan, features=features)
        self.plan, self.optimizer = plan, optimizer
        self.steps = nn.Sequential()
        size = tuple(shape) if len(shape) == 3 else (1, *shape)
        rises = activation != "prelu"  # whose slope may be learned to be negative
        waited = False
        for step, following in pairwise([*map(_parse, plan), {"kind": "end"}]):
            for layer in _layers(step, size, features):
                self.steps.append(layer)
                size = _after(layer, size)
            if step["kind"] == "conv" and batch_norm:
                self.steps.append(nn.BatchNorm2d(size[0]))
            waits = step["kind"] == "conv" and following["kind"] == "pool" and rises
            if waited or (step["kind"] in ("conv", "dense") and not waits):
                self.steps.append(ACTIVATIONS[activation]())
            waited = waits
        if len(size) > 1:
            self.steps.append(Flatten("features", features, size))
            size = (self.steps[-1].width,)
        self.head = nn.Linear(*size, classes)
        initialise(self, init)
        self.to(memory_format=torch.channels_last)

    @staticmethod
    def check(plan: tuple[str, ...] = (), features: tuple[int, ...] = (), **_) -> None:
        check_places("features", features)
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
        """The maps of every convolution and the units of every dense step, named by their place in the plan, then the
        features. Where only some of these are read, the last convolution's maps stay: they have no longer equal shares.
        """
        places = [i for i, step in enumerate(self.plan) if _parse(step)["kind"] in ("conv", "dense")]
        steps = [(f"steps.{i}", step) for i, step in enumerate(self.steps)]
        layers = [(name, step) for name, step in steps if isinstance(step, nn.Conv2d | nn.Linear)]
        layers.append(("head", self.head))
        norms = {before: name for (before, _), (name, step) in pairwise(steps) if isinstance(step, nn.BatchNorm2d)}
        found = []
        for place, ((name, layer), (reader, reading)) in zip(places, pairwise(layers), strict=True):
            if self._flatten.places is not None and isinstance(layer, nn.Conv2d) and isinstance(reading, nn.Linear):
                continue
            width = layer.weight.shape[0]
            block = reading.weight.shape[1] // width
            writers = dense_writers(name) + (norm_writers(norms[name]) if name in norms else ())
            found.append(Nodes(f"plan.{place}", width, writers, (dense_reader(reader, block),)))
        first = next(name for name, layer in layers if isinstance(layer, nn.Linear))
        return [*found, Nodes("features", self._flatten.width, (), (dense_reader(first),), given=True)]

    def resized(self, keep: Mapping[str, Sequence[int]]) -> dict[str, Any]:
        """The settings of this net with only the nodes `keep` (nodes' name -> rising indices), and all of others."""
        steps = [step.split() for step in self.plan]
        for place, step in enumerate(steps):
            if f"plan.{place}" in keep:
                step[1] = str(len(keep[f"plan.{place}"]))
        features = self._flatten.resized(keep.get("features"))
        return {"plan": tuple(" ".join(step) for step in steps)} | ({"features": features} if features else {})

    @property
    def _flatten(self) -> Flatten:
        return next(step for step in self.steps if isinstance(step, Flatten))


def _parse(step: str) -> dict[str, Any]:
    for kind, pattern in STEPS.items():
        match = re.fullmatch(pattern, step)
        if match:
            found = {key: value for key, value in match.groupdict().items() if value}
            size = [int(side) for side in found.get("size", "1").split("x")]
            pad, stride = found.get("pad", "same"), found.get("stride")
            if kind == "conv" and stride and pad == "same":
                raise ValueError(f"plan holds {step!r}; say valid or pad N before stride: no padding keeps the size")
            pad = int(pad.removeprefix("pad ")) if pad.startswith("pad ") else pad
            return {"kind": kind, **found, "size": (size * 2)[:2], "pad": pad, "stride": stride and int(stride)}
    raise ValueError(
        f"plan holds {step!r}; a step is: conv MAPS SIZE [same|valid|pad N] [stride N], pool SIZE [stride N], "
        "avgpool SIZE [stride N], dense WIDTH, dropout RATE"
    )


def _layers(step: dict[str, Any], size: Shape, features: tuple[int, ...]) -> list[nn.Module]:
    match step["kind"]:
        case "conv":
            return [nn.Conv2d(size[0], int(step["width"]), step["size"], step["stride"] or 1, step["pad"])]
        case "pool":
            return [nn.MaxPool2d(step["size"], step["stride"])]
        case "avgpool":
            return [nn.AvgPool2d(step["size"], step["stride"])]
        case "dropout":
            return [nn.Dropout(float(step["rate"]))]
    flatten = [Flatten("features", features, size)] if len(size) > 1 else []
    return [*flatten, nn.Linear(flatten[0].width if flatten else size[0], int(step["width"]))]


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
