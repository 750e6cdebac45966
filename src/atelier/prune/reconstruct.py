"""Scores that know which nodes can stand for each other: the order in which a net's nodes explain what their readers
compute, each chosen for what it adds to those before it (greedily, as Luo et al. 2017, by least squares, as He et al.
2017).
"""

import numpy as np
from torch import Tensor, nn

from atelier.layers import Nodes, Reader
from atelier.prune import score
from atelier.prune.remove import weights_of

TINY = 1e-9  # of a node's variance: what is left of it counts as none


def reconstruction(model: nn.Module, x: Tensor) -> score.Scores:
    """Nodes' name -> (width,) shares of the nodes that are chosen later, from 1 - 1 / width for the first to 0.

    What readers compute of the nodes, centred, is predicted by linear regression from those chosen so far, and the next
    is the one that lowers the squared error most, as shares of each reader's variance. Places of a kernel count alike,
    and so that regressions stay small, each place of a flattened map is explained by the same place of other maps. A
    node that nobody reads comes last.
    """
    tensors = model.state_dict()
    covariances = score.covariances(model, x)
    return {nodes.name: _shares(nodes, tensors, covariances) for nodes in model.nodes()}


def _shares(nodes: Nodes, tensors: dict[str, Tensor], covariances: dict[tuple[str, str], np.ndarray]) -> np.ndarray:
    problems, silent = [], np.ones(nodes.width, bool)
    for reader in nodes.readers:
        weights = _columns(tensors, reader, nodes.width)
        silent &= (weights == 0).all((0, 2))
        own = covariances[nodes.name, reader.tensor]
        answers = own @ weights
        variance = float((weights * answers).sum())
        problems.append((own, answers / np.sqrt(variance) if variance > 0 else answers))
    order = _greedy(problems, np.flatnonzero(~silent))
    order += [place for place in range(nodes.width) if silent[place]]
    shares = np.empty(nodes.width)
    shares[order] = 1 - (1 + np.arange(nodes.width)) / nodes.width
    return shares


def _columns(tensors: dict[str, Tensor], reader: Reader, width: int) -> np.ndarray:
    """What each node is multiplied by, (groups * block, width, outputs), a problem for each group and place."""
    found = weights_of(tensors, reader, width).reshape(width, reader.groups * reader.block, -1).movedim(1, 0)
    return found.detach().cpu().double().numpy()


def _greedy(problems: list[tuple[np.ndarray, np.ndarray]], candidates: np.ndarray) -> list[int]:
    """Pivoted elimination: after each choice, covariances (p, width, width) and covariances with answers (p, width, o)
    are those of what the chosen nodes leave unexplained.
    """
    problems = [(own[:, candidates][:, :, candidates], answers[:, candidates]) for own, answers in problems]
    floors = [TINY * np.diagonal(own, axis1=1, axis2=2) for own, _ in problems]
    left, order = np.ones(len(candidates), bool), []
    for _ in candidates:
        gain = np.zeros(len(candidates))
        for (own, answers), floor in zip(problems, floors, strict=True):
            variance = np.diagonal(own, axis1=1, axis2=2)
            known = variance > floor
            gain += (np.square(answers).sum(2) / np.where(known, variance, np.inf)).sum(0)
        best = int(np.where(left, gain, -1.0).argmax())
        left[best] = False
        order.append(int(candidates[best]))
        for (own, answers), floor in zip(problems, floors, strict=True):
            for part, given, least in zip(own, answers, floor, strict=True):
                if part[best, best] > least[best]:
                    share = part[best] / part[best, best]
                    given -= np.outer(share, given[best])
                    part -= np.outer(share, part[best])
    return order
