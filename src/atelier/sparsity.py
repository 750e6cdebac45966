"""What holds weights, or drives them to zero, while a net trains: after every step the weights are in a set.

All that is held is read from the weights when an epoch begins, so that training can stop and go on as if it never had:
- hold zeros: what is zero stays zero, as a pruned weight should.
- hold values: what is equal within a tensor stays equal; the members of a group share the sum of their gradients
  (Han et al. 2016, section 3.3).
- group_lasso: the weights that read a node are one group; each step ends with the proximal step of
  rate * sqrt(size of the group) * its length (Yuan and Lin 2006; for nets Wen et al. 2016), which gives exact zeros
  with sgd and momentum; steps of rmsprop and adam are as large for small gradients, and groups hover near zero.
- thin: more and more of the nodes, or weights, fall silent, the share 1 - (1 - t)^3 of those that go at the share t of
  the time until all have (Zhu and Gupta 2018, equation 1).
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from atelier.data.items import Items
from atelier.errors import AtelierError, nearest
from atelier.params import Recipe, Thin
from atelier.prune import choose, remove, score


class Constraint:
    """Of one epoch: `before_step` looks after the gradients, `after_step` after the weights."""

    def __init__(self, model: nn.Module, recipe: Recipe, train: Items, seed: int, epoch: int) -> None:
        if (recipe.group_lasso or recipe.thin) and not hasattr(model, "nodes"):
            key = "group_lasso" if recipe.group_lasso else "thin"
            raise AtelierError(f"{key} needs a family with nodes: this one has none; drop {key}")
        if recipe.thin:
            thin(model, recipe.thin, (epoch + 1) / recipe.epochs, train, seed)
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        zeros = recipe.hold == "zeros" or recipe.thin
        self.kept = [(weight, (weight != 0).to(weight)) for weight in weights if weight.dim() > 1 and zeros]
        self.groups = [(weight, _groups(weight)) for weight in weights if recipe.hold == "values"]
        self.rate = recipe.group_lasso
        self.nodes = [nodes for nodes in model.nodes() if not nodes.given] if self.rate else []
        self.tensors = dict(model.named_parameters())

    @torch.no_grad()
    def before_step(self) -> None:
        for weight, (places, first, moves) in self.groups:
            total = weight.grad.new_zeros(len(first)).index_add_(0, places, weight.grad.flatten()) * moves
            weight.grad.copy_(total[places].view_as(weight))

    @torch.no_grad()
    def after_step(self, lr: float) -> None:
        """lr: the learning rate of the step, by which a proximal step is scaled."""
        for weight, kept in self.kept:
            weight.mul_(kept)  # and not the gradient: an optimizer moves on by what it remembers
        for nodes in self.nodes:
            read = [remove.weights_of(self.tensors, reader, nodes.width) for reader in nodes.readers]
            size = sum(part[0].numel() for part in read)
            length = torch.sqrt(sum(part.square().flatten(1).sum(1) for part in read))
            shrunk = (1.0 - lr * self.rate * size**0.5 / length.clamp_min(1e-30)).clamp_min(0.0)
            for part in read:
                part.mul_(shrunk.view(-1, *[1] * (part.dim() - 1)))
        for weight, (places, first, _) in self.groups:
            # Equal updates may be rounded differently, in a vector's lanes and in what is left over.
            weight.copy_(weight.flatten()[first][places].view_as(weight))


class _Groups(NamedTuple):
    """places: the group of every weight; first: a member of every group; moves: 0 for the group of zeros, else 1."""

    places: Tensor
    first: Tensor
    moves: Tensor


def _groups(weight: Tensor) -> _Groups:
    """Zeros among the weights of a layer do not move; a bias of zero is a number as any other."""
    flat = weight.detach().flatten()
    values, places = flat.unique(return_inverse=True)
    everyone = torch.arange(len(flat), device=flat.device)
    first = everyone.new_zeros(len(values)).scatter_reduce_(0, places, everyone, "amin", include_self=False)
    return _Groups(places, first, ((values != 0) | (weight.dim() == 1)).to(flat))


def thin(model: nn.Module, how: Thin, done: float, train: Items, seed: int) -> None:
    """Silence, in place, the nodes or weights that should be silent when the share `done` of training is over."""
    share = 1.0 - (1.0 - min(1.0, done / how.until)) ** 3
    if how.what == "weights":
        return _drop_smallest([weight for weight in model.parameters() if weight.dim() > 1], how.level * share)
    read = remove.read(model)
    every, _ = score.by(how.criterion, model, train, seed)
    widths = {found.name: found.width for found in choose.candidates(model, how.inputs)}
    if how.keep:
        widths = _named(model, how.keep, every)
    scores = {name: _silent_last(every[name], read[name]) for name in widths}
    if how.keep:
        counts = {name: width - round((width - how.keep[name]) * share) for name, width in widths.items()}
    else:
        counts = choose.counts(how.criterion, scores, widths, how.level * share, "this net")
    model.load_state_dict(remove.mask(model, choose.best(scores, counts)).state_dict())


def _named(model: nn.Module, keep: Mapping[str, int], ranked: Iterable[str]) -> dict[str, int]:
    """The widths of the layers that `keep` names.

    Raises AtelierError if there is no such layer, if it has fewer nodes than are to be kept, or no score ranks them.
    """
    widths = {nodes.name: nodes.width for nodes in model.nodes()}
    for name, count in keep.items():
        if name not in ranked:
            raise AtelierError(f"thin.keep names {name}, which has no score here; {nearest(name, ranked)}")
        if count > widths[name]:
            raise AtelierError(f"thin.keep asks for {count} nodes of {name}, which has {widths[name]}; give fewer")
    return {name: widths[name] for name in keep}


def _silent_last(scores: np.ndarray, read: np.ndarray) -> np.ndarray:
    """The scores, those of nodes that nobody reads below all others."""
    last = np.full(len(scores), -1e-30)  # too small for the norm of a layer's scores
    last[read] = scores[read]
    return last


@torch.no_grad()
def _drop_smallest(weights: list[Tensor], level: float) -> None:
    """Set the share `level` of all weights to zero, the smallest, whichever layer they are of."""
    sizes = torch.cat([weight.abs().flatten() for weight in weights])
    count = round(level * len(sizes))
    if count:
        bar = sizes.kthvalue(count).values
        for weight in weights:
            weight[weight.abs() <= bar] = 0.0
