"""What families share: typed settings, activations, initial weights, and the description of removable nodes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Lt
from torch import Tensor, nn
from torch.nn import functional as F

Shape = tuple[int, ...]
Width = Annotated[int, Ge(1)]
Place = Annotated[int, Ge(0)]
Rate = Annotated[float, Ge(0), Lt(1)]
NonNegative = Annotated[float, Ge(0)]
Activation = Literal[
    "arctan", "elu", "leaky-relu", "linear", "piecewise-linear", "prelu", "relu", "sigmoid", "softplus", "tanh"
]
Init = Literal["he", "normal", "torch"]


class Arctan(nn.Module):
    def forward(self, v: Tensor) -> Tensor:
        return v.atan()


class PiecewiseLinear(nn.Module):
    """v + 1/2 within [0, 1]."""

    def forward(self, v: Tensor) -> Tensor:
        return F.hardtanh(v + 0.5, 0.0, 1.0)


ACTIVATIONS = {
    "arctan": Arctan,
    "elu": nn.ELU,
    "leaky-relu": nn.LeakyReLU,
    "linear": nn.Identity,
    "piecewise-linear": PiecewiseLinear,
    "prelu": nn.PReLU,
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
}


def initialise(model: nn.Module, how: Init) -> None:
    """Set the weights of every dense and convolutional layer; biases become 0.

    he: N(0, 1) * sqrt(2 / fan_in) (He et al. 2015); normal: N(0, 1); torch: leave the library's own.
    """
    if how == "torch":
        return
    for layer in model.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            weight = layer.weight
            inputs = weight.shape[0] if isinstance(layer, nn.ConvTranspose2d) else weight.shape[1]
            fan_in = inputs * weight[0, 0].numel()
            nn.init.normal_(weight, std=math.sqrt(2.0 / fan_in) if how == "he" else 1.0)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def class_losses(logits: Tensor, y: Tensor, penalty: Tensor | float = 0.0) -> dict[str, Tensor]:
    """Mean softmax cross-entropy in nats of logits (n, classes), plus a penalty.

    y: labels (n,), or probabilities of classes (n, classes).
    """
    return {"loss": F.cross_entropy(logits, y) + penalty}


class Flatten(nn.Flatten):
    """(n, *shape) -> (n, width): each item flattened, and of it only `places`, if there are any.

    The places are a setting and no part of the state. Raises ValueError if one lies beyond the item.
    """

    def __init__(self, name: str, places: Sequence[int], shape: Shape) -> None:
        super().__init__()
        size = math.prod(shape)
        if places and places[-1] >= size:
            raise ValueError(
                f"{name} holds {places[-1]}, but there are {size} to read; give places from 0 to {size - 1}"
            )
        self.width = len(places) or size
        self.register_buffer("places", torch.tensor(places) if places else None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        flat = super().forward(x)
        return flat if self.places is None else flat.index_select(1, self.places)

    def resized(self, keep: Sequence[int] | None) -> tuple[int, ...]:
        """The places when only those at the indices `keep` stay; None: all."""
        places = () if self.places is None else tuple(self.places.tolist())
        return places if keep is None else tuple(places[i] if places else int(i) for i in keep)


def check_places(name: str, places: Sequence[int]) -> None:
    """Raises ValueError unless the places rise, each once."""
    if fallen := next(((a, b) for a, b in pairwise(places) if a >= b), None):
        raise ValueError(f"{name} has {fallen[1]} after {fallen[0]}; give places that rise, each once")


@dataclass(frozen=True)
class Slice:
    """The part of a tensor that belongs to a layer's nodes: along `axis`, laid out as (groups, width, block)."""

    tensor: str
    axis: int = 0
    groups: int = 1
    block: int = 1


@dataclass(frozen=True)
class Reader(Slice):
    """A tensor that reads the nodes. `module` sees them at its input (at="input") or gives them as output.

    `bias` is the tensor that takes over a removed node's mean; None where one number an output cannot stand for it.
    `subtracted` says that the net subtracts it, as batch norm does its running mean.
    """

    axis: int = 1
    module: str = ""
    at: Literal["input", "output"] = "input"
    bias: str | None = None
    subtracted: bool = False


@dataclass(frozen=True)
class Nodes:
    """The nodes of one layer that can be removed: the tensors that compute them and those that read them.

    `given` says that no layer computes them, so that they have no writers: they are inputs, or flattened maps one place
    at a time. Nodes that share a reader's axis with others, as such places do with their maps, go one after the other.
    """

    name: str
    width: int
    writers: tuple[Slice, ...]
    readers: tuple[Reader, ...]
    given: bool = False


def left(keep: Mapping[str, Sequence[int]], name: str, width: int) -> int:
    """How many of `width` nodes there are when those of `keep` (nodes' name -> indices) stay, and all of others."""
    return len(keep[name]) if name in keep else width


def dense_writers(*layers: str) -> tuple[Slice, ...]:
    return tuple(Slice(f"{layer}.{part}") for layer in layers for part in ("weight", "bias"))


def norm_writers(*layers: str) -> tuple[Slice, ...]:
    """Of batch norm, which scales each node by itself."""
    parts = ("weight", "bias", "running_mean", "running_var")
    return tuple(Slice(f"{layer}.{part}") for layer in layers for part in parts)


def dense_reader(layer: str, block: int = 1) -> Reader:
    """A dense or convolutional layer that reads nodes along its input axis; `block` values a node after flattening."""
    return Reader(f"{layer}.weight", block=block, module=layer, bias=f"{layer}.bias")
