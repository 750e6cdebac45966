"""Take nodes out of a net: `remove` builds a smaller net, `mask` silences them in place; both compute the same."""

import copy
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from atelier import families
from atelier.errors import AtelierError
from atelier.layers import Nodes, Shape, Slice

Keep = Mapping[str, np.ndarray]
Means = Mapping[str, np.ndarray]


def remove(
    model: nn.Module,
    family: str,
    shape: Shape,
    classes: int,
    settings: Mapping[str, Any],
    keep: Keep,
    means: Means | None = None,
) -> tuple[nn.Module, dict[str, Any]]:
    """The net with only those nodes of each layer in `keep` (nodes' name -> rising indices), and its settings.

    With `means` (reader's tensor -> its mean input) the readers' biases take over what removed nodes gave on average.
    That is exact for a constant node, except where a convolution pads and before the first step of a recurrent layer.

    Raises AtelierError if two layers' nodes lie along one axis of a tensor, as flattened maps do with their maps.
    """
    state = _folded(model, keep, means)
    for nodes in _named(model, keep):
        for part in (*nodes.writers, *nodes.readers):
            places = torch.as_tensor(_places(part, nodes.width, keep[nodes.name]), device=state[part.tensor].device)
            state[part.tensor] = state[part.tensor].index_select(part.axis, places)
    smaller = {**settings, **model.resized(keep)}
    like = next(model.parameters())
    with torch.random.fork_rng(devices=[]):
        pruned = families.load(family)(shape, classes, **smaller).to(like)
    pruned.load_state_dict(state)
    return pruned.train(model.training), smaller


def mask(model: nn.Module, keep: Keep, means: Means | None = None) -> nn.Module:
    """A copy of the same size in which nobody reads the nodes that `remove` would take out."""
    state = _folded(model, keep, means)
    for nodes in _named(model, keep):
        for part in nodes.readers:
            gone = _gone(part, nodes.width, keep[nodes.name])
            state[part.tensor].movedim(part.axis, 0)[gone] = 0.0
    masked = copy.deepcopy(model)
    masked.load_state_dict(state)
    return masked


def unread(
    model: nn.Module, family: str, shape: Shape, classes: int, settings: Mapping[str, Any]
) -> tuple[nn.Module, dict[str, Any], list[Keep]]:
    """The net without the nodes that nobody reads, its settings, and what `remove` was told, once or twice: flattened
    maps go after the maps. A layer of which nothing is read keeps a node.
    """
    told = []
    for given in (False, True):
        some = {nodes.name for nodes in model.nodes() if nodes.given == given}
        keep = {name: found if len(found) else np.array([0]) for name, found in read(model).items() if name in some}
        if any(len(keep[nodes.name]) < nodes.width for nodes in model.nodes() if nodes.name in keep):
            model, settings = remove(model, family, shape, classes, settings, keep)
            told.append(keep)
    return model, dict(settings), told


@torch.no_grad()
def read(model: nn.Module) -> dict[str, np.ndarray]:
    """Nodes' name -> the indices, rising, of those that somebody multiplies by another number than 0."""
    tensors, found = model.state_dict(), {}
    for nodes in model.nodes():
        weights = [weights_of(tensors, reader, nodes.width) for reader in nodes.readers]
        silent = torch.stack([(weight == 0).flatten(1).all(1) for weight in weights]).all(0)
        found[nodes.name] = np.flatnonzero(~silent.cpu().numpy())
    return found


def weights_of(tensors: Mapping[str, Tensor], part: Slice, width: int) -> Tensor:
    """A view (width, ...) of a slice's tensor, node by node."""
    return tensors[part.tensor].movedim(part.axis, 0).unflatten(0, (part.groups, width, part.block)).movedim(1, 0)


def _folded(model: nn.Module, keep: Keep, means: Means | None) -> dict[str, Tensor]:
    """The net's tensors, cloned; with `means`, the readers' biases hold the part of the nodes that go."""
    state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    for nodes in _named(model, keep) if means else ():
        for reader in nodes.readers:
            if reader.bias:
                weight = state[reader.tensor].movedim(reader.axis, 0)
                gone = _gone(reader, nodes.width, keep[nodes.name])
                mean = torch.as_tensor(means[reader.tensor][gone]).to(weight)
                given = torch.einsum("i,io...->o", mean, weight[gone])
                state[reader.bias] += -given if reader.subtracted else given
    return state


def _named(model: nn.Module, keep: Keep) -> list[Nodes]:
    named = [nodes for nodes in model.nodes() if nodes.name in keep]
    along = defaultdict(list)
    for nodes in sorted(named, key=lambda nodes: nodes.given):
        for part in (*nodes.writers, *nodes.readers):
            along[part.tensor, part.axis].append(nodes.name)
    for (tensor, _), names in along.items():
        if len(names) > 1:
            raise AtelierError(
                f"{' and '.join(names)} lie along the same axis of {tensor}; remove {names[0]} first, then {names[1]} "
                "from the net that is left"
            )
    return named


def _places(part: Slice, width: int, indices: np.ndarray) -> np.ndarray:
    """Where the nodes `indices` lie along a slice's axis."""
    return np.arange(part.groups * width * part.block).reshape(part.groups, width, part.block)[:, indices].ravel()


def _gone(part: Slice, width: int, keep: np.ndarray) -> np.ndarray:
    return _places(part, width, np.setdiff1d(np.arange(width), keep))
