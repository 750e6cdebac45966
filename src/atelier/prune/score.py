"""How much each node of a net matters, by weights, activations or lot; and the mean activations that folding needs."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from atelier.errors import AtelierError
from atelier.layers import Reader

Scores = dict[str, np.ndarray]
BATCH = 500


class Seen(NamedTuple):
    """What a reader was given, over items and positions: for each place along its axis, mean and mean magnitude."""

    mean: np.ndarray
    magnitude: np.ndarray


def weight_norm(model: nn.Module) -> Scores:
    """Nodes' name -> (width,) L2 norm of the weights that come into each node, all gates together; no biases."""
    state = model.state_dict()
    scores = {}
    for nodes in model.nodes():
        squares = np.zeros(nodes.width)
        for part in nodes.writers:
            tensor = state[part.tensor].detach().cpu().double()
            if tensor.dim() > 1:
                rows = tensor.movedim(part.axis, 0).reshape(part.groups, nodes.width, -1)
                squares += rows.square().sum((0, 2)).numpy()
        scores[nodes.name] = np.sqrt(squares)
    return scores


def random(model: nn.Module, seed: int) -> Scores:
    """Nodes' name -> (width,) numbers in [0, 1), the same for equal seeds and widths."""
    generator = np.random.default_rng(seed)
    return {nodes.name: generator.random(nodes.width) for nodes in model.nodes()}


def activation(model: nn.Module, seen: Mapping[str, Seen]) -> Scores:
    """Nodes' name -> (width,) mean absolute activation, averaged over those who read the node."""
    scores = {}
    for nodes in model.nodes():
        magnitudes = [
            seen[reader.tensor].magnitude.reshape(reader.groups, nodes.width, reader.block).mean((0, 2))
            for reader in nodes.readers
        ]
        scores[nodes.name] = np.mean(magnitudes, axis=0)
    return scores


def means(seen: Mapping[str, Seen]) -> dict[str, np.ndarray]:
    """Reader's tensor -> its mean input (groups * width * block,), as `remove` takes it."""
    return {tensor: statistics.mean for tensor, statistics in seen.items()}


@torch.no_grad()
def observe(model: nn.Module, x: np.ndarray | Tensor) -> dict[str, Seen]:
    """Reader's tensor -> what it was given while the net in eval mode worked on the items x (n, *shape).

    Raises AtelierError if a reader names a module that the net never called.
    """
    readers = {reader.tensor: reader for nodes in model.nodes() for reader in nodes.readers}
    tensors = dict(model.named_parameters())
    sums: dict[str, list] = {}

    def add(reader: Reader, values: Tensor) -> None:
        # Convolutions keep maps on axis 1, every other reader keeps features last.
        places = 1 if tensors[reader.tensor].dim() > 2 else values.dim() - 1
        others = tuple(axis for axis in range(values.dim()) if axis != places)
        total = sums.setdefault(reader.tensor, [0, 0.0, 0.0])
        total[0] += values.numel() // values.shape[places]
        total[1] += values.sum(others, dtype=torch.float64).cpu().numpy()
        total[2] += values.abs().sum(others, dtype=torch.float64).cpu().numpy()

    device = next(model.parameters()).device
    run = getattr(model, "classify", None) or model.reconstruct
    with _evaluating(model), _hooked(model, readers.values(), add):
        for first in range(0, len(x), BATCH):
            run(torch.as_tensor(x[first : first + BATCH], device=device))
    for tensor, reader in readers.items():
        if tensor not in sums:
            raise AtelierError(
                f"{type(model).__module__}: nodes() says that {tensor} reads at module {reader.module!r}, "
                "which the net never called; name the module that is called, or prune by weight-norm"
            )
    return {tensor: Seen(total / count, size / count) for tensor, (count, total, size) in sums.items()}


@contextmanager
def _hooked(model: nn.Module, readers: Iterable[Reader], add: Callable[[Reader, Tensor], None]) -> Iterator[None]:
    handles = []
    for reader in readers:

        def hook(*called: Any, reader: Reader = reader) -> None:
            # The inputs; or the output, which of a recurrent layer is (all steps, last state).
            values = called[-1]
            add(reader, values[0] if isinstance(values, tuple) else values)

        module = model.get_submodule(reader.module)
        register = module.register_forward_pre_hook if reader.at == "input" else module.register_forward_hook
        handles.append(register(hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
