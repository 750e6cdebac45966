"""How much each node of a net matters, by weights, activations, gradients or lot; and the mean activations that folding
needs.
"""

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from atelier.data.items import Items
from atelier.errors import AtelierError
from atelier.layers import Reader, Slice
from atelier.prune.choose import GLOBAL

Scores = dict[str, np.ndarray]
BATCH = 500
OBSERVED, GRADED = (
    5000,
    1000,
)  # training items whose activations, whose gradients are taken: recurrent nets take 10 ms each


class Seen(NamedTuple):
    """What a reader was given, over items and positions: for each place along its axis, mean and mean magnitude."""

    mean: np.ndarray
    magnitude: np.ndarray


def by(criterion: str, model: nn.Module, train: Items, seed: int) -> tuple[Scores, dict[str, np.ndarray] | None]:
    """The scores of all nodes by a criterion's name; and the readers' mean inputs, where what goes is folded in biases.

    train: of which some items, at equal distances, are looked at.
    """
    match criterion.removeprefix(GLOBAL):
        case "batch-norm":
            return batch_norm(model), None
        case "random":
            return random(model, seed), None
        case "weight-norm":
            return weight_norm(model), None
        case "taylor":
            rows = _some(train, GRADED)
            return taylor(model, train.x[rows], (train.y if hasattr(model, "classify") else train.clean)[rows]), None
        case "activation":
            seen = observe(model, train.x[_some(train, OBSERVED)])
            return activation(model, seen), means(seen)
        case "reconstruction":
            from atelier.prune.reconstruct import reconstruction

            x = train.x[_some(train, OBSERVED)]
            return reconstruction(model, x), means(observe(model, x))
    raise ValueError(f"there is no criterion {criterion}")


def _some(train: Items, count: int) -> Tensor:
    return torch.from_numpy(np.linspace(0, len(train) - 1, min(count, len(train))).astype(int))


def weight_norm(model: nn.Module) -> Scores:
    """Nodes' name -> (width,) L2 norm of the weights that come into each node, all gates together; no biases.

    Nothing comes into a given node: there it is the norm of the weights that go out.
    """
    state = model.state_dict()
    scores = {}
    for nodes in model.nodes():
        squares = np.zeros(nodes.width)
        for part in nodes.readers if nodes.given else nodes.writers:
            tensor = state[part.tensor].detach().cpu().double()
            if tensor.dim() > 1:
                rows = tensor.movedim(part.axis, 0).reshape(part.groups, nodes.width, -1)
                squares += rows.square().sum((0, 2)).numpy()
        scores[nodes.name] = np.sqrt(squares)
    return scores


def batch_norm(model: nn.Module) -> Scores:
    """Nodes' name -> (width,) |gamma|, by which batch norm scales each node (Liu et al. 2017); of computed nodes only.

    Raises AtelierError if nodes have no batch norm.
    """
    tensors = dict(model.named_parameters())
    scores = {}
    for nodes in model.nodes():
        factors = [tensors[part.tensor] for part in nodes.writers if _is_factor(model, part)]
        if not (factors or nodes.given):
            raise AtelierError(f"layer {nodes.name} has no batch norm to rank by; drop batch-norm, or norm every layer")
        if factors:
            scores[nodes.name] = torch.stack(factors).detach().cpu().double().abs().mean(0).numpy()
    return scores


def _is_factor(model: nn.Module, part: Slice) -> bool:
    layer, _, name = part.tensor.rpartition(".")
    return name == "weight" and isinstance(model.get_submodule(layer), nn.modules.batchnorm._BatchNorm)


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


def taylor(model: nn.Module, x: np.ndarray | Tensor, target: np.ndarray | Tensor) -> Scores:
    """Nodes' name -> (width,) mean over items of |first-order change of the item's loss when nobody reads the node|.

    For one item that change is the sum, over those who read the node and over positions, of what they read times the
    derivative of the item's loss by it. Molchanov et al. 2017, section 2.2 (Theta_TE), take the mean over positions,
    which is the same but for a factor that the maps of a layer share; where layers are divided by their norm, it goes.

    In eval mode, on items x (n, *shape) and their targets: labels (n,), whose cross-entropy is the loss; or the clean
    items (n, *shape) for a net that only reconstructs, which has its own loss.
    """
    device = next(model.parameters()).device
    every, size = model.nodes(), min(BATCH, getattr(model, "rows", BATCH))
    totals = {nodes.name: np.zeros(nodes.width) for nodes in every}
    with _evaluating(model):
        for first in range(0, len(x), size):
            batch = [torch.as_tensor(part[first : first + size], device=device) for part in (x, target)]
            changes = _through_inputs(model, *batch) | _through_weights(model, *batch)
            for nodes in every:
                parts = (
                    changes[reader.tensor].unflatten(1, (reader.groups, nodes.width, reader.block)).sum((1, 3))
                    for reader in nodes.readers
                )
                totals[nodes.name] += sum(parts).abs().sum(0).cpu().numpy()
    return {name: total / len(x) for name, total in totals.items()}


def _through_inputs(model: nn.Module, x: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Reader's tensor -> (n, places) what it read times the derivative of the item's loss, added over positions."""
    readers, tensors = _readers(model, "input"), dict(model.named_parameters())
    read: list[tuple[str, Tensor]] = []

    def add(reader: Reader, values: Tensor) -> Tensor:
        # Another name for the same values, because a skip that passes this reader by has a derivative of its own.
        read.append((reader.tensor, values.view_as(values).requires_grad_()))
        return read[-1][1]

    with _hooked(model, readers.values(), add):
        loss = _loss(model, x, target)
    _all_called(model, readers, dict(read))
    changes: dict[str, Tensor] = {}
    for (tensor, values), slope in zip(read, torch.autograd.grad(loss, [values for _, values in read]), strict=True):
        change = (values.detach() * slope).double().movedim(_axis(tensors[tensor], values), 1)
        changes[tensor] = change.reshape(*change.shape[:2], -1).sum(2) + changes.get(tensor, 0.0)
    return changes


def _through_weights(model: nn.Module, x: Tensor, target: Tensor) -> dict[str, Tensor]:
    """The same, of those who read inside a recurrent layer, whose steps are out of sight.

    What they read times its derivative, added over steps, is weight times derivative by it, added over a node's column;
    and a weight's derivative is that of one item's loss only where the item is alone.
    """
    readers, tensors = _readers(model, "output"), dict(model.named_parameters())
    weights = [tensors[tensor] for tensor in readers]
    changes: dict[str, list[Tensor]] = {tensor: [] for tensor in readers}
    for row, wanted in zip(x.split(1), target.split(1), strict=True) if readers else ():
        slopes = torch.autograd.grad(_loss(model, row, wanted), weights)
        for reader, weight, slope in zip(readers.values(), weights, slopes, strict=True):
            change = (weight.detach() * slope).double().movedim(reader.axis, 0)
            changes[reader.tensor].append(change.flatten(1).sum(1))
    return {tensor: torch.stack(rows) for tensor, rows in changes.items()}


def _loss(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    """Added over the items; penalties on weights do not depend on nodes and stay out."""
    if hasattr(model, "classify"):
        return F.cross_entropy(model.classify(x), target, reduction="sum")
    return next(model.losses(x, target))["loss"] * len(x)


@torch.no_grad()
def observe(model: nn.Module, x: np.ndarray | Tensor) -> dict[str, Seen]:
    """Reader's tensor -> what it was given while the net in eval mode worked on the items x (n, *shape).

    Raises AtelierError if a reader names a module that the net never called.
    """
    sums: dict[str, list] = {}

    def add(reader: Reader, values: Tensor) -> None:
        total = sums.setdefault(reader.tensor, [0, 0.0, 0.0])
        total[0] += len(values)
        total[1] += values.sum(0, dtype=torch.float64).cpu().numpy()
        total[2] += values.abs().sum(0, dtype=torch.float64).cpu().numpy()

    _watch(model, x, add)
    return {tensor: Seen(total / count, size / count) for tensor, (count, total, size) in sums.items()}


@torch.no_grad()
def covariances(model: nn.Module, x: np.ndarray | Tensor) -> dict[tuple[str, str], np.ndarray]:
    """(Nodes' name, reader's tensor) -> (groups * block, width, width) covariances of the nodes as that reader sees
    them: over items and positions, apart for each group and each place of a flattened map.
    """
    every = [(nodes, reader) for nodes in model.nodes() for reader in nodes.readers]
    sums: dict[tuple[str, str], list] = {}

    def add(called: Reader, values: Tensor) -> None:
        for nodes, reader in every:
            if reader.tensor == called.tensor:
                parts = values.double().unflatten(1, (reader.groups, nodes.width, reader.block))
                parts = parts.permute(1, 3, 2, 0).flatten(0, 1)
                total = sums.setdefault((nodes.name, reader.tensor), [0, 0.0, 0.0])
                total[0] += len(values)
                total[1] += parts.sum(2).cpu().numpy()
                total[2] += (parts @ parts.mT).cpu().numpy()

    _watch(model, x, add)
    means = {place: total / count for place, (count, total, _) in sums.items()}
    return {
        place: squares / count - means[place][:, :, None] * means[place][:, None, :]
        for place, (count, _, squares) in sums.items()
    }


def _watch(model: nn.Module, x: np.ndarray | Tensor, add: Callable[[Reader, Tensor], None]) -> None:
    """Let the net in eval mode work on items; `add` sees what each reader was given, (items and positions, places)."""
    readers, tensors = _readers(model, "input", "output"), dict(model.named_parameters())
    called = set()

    def seen(reader: Reader, values: Tensor) -> None:
        called.add(reader.tensor)
        places = _axis(tensors[reader.tensor], values)
        add(reader, values.movedim(places, -1).flatten(0, -2))

    device = next(model.parameters()).device
    run = getattr(model, "classify", None) or model.reconstruct
    with _evaluating(model), _hooked(model, readers.values(), seen):
        for first in range(0, len(x), BATCH):
            run(torch.as_tensor(x[first : first + BATCH], device=device))
    _all_called(model, readers, called)


def _readers(model: nn.Module, *places: str) -> dict[str, Reader]:
    """Reader's tensor -> reader, of those that see the nodes at their input, or give them as output."""
    return {reader.tensor: reader for nodes in model.nodes() for reader in nodes.readers if reader.at in places}


def _axis(tensor: Tensor, values: Tensor) -> int:
    """Where the values that a reader's `tensor` reads have their nodes: convolutions keep maps on axis 1, all others
    features last.
    """
    return 1 if tensor.dim() > 2 else values.dim() - 1


def _all_called(model: nn.Module, readers: Mapping[str, Reader], called: Container[str]) -> None:
    for tensor, reader in readers.items():
        if tensor not in called:
            raise AtelierError(
                f"{type(model).__module__}: nodes() says that {tensor} reads at module {reader.module!r}, "
                "which the net never called; name the module that is called, or prune by weight-norm"
            )


@contextmanager
def _hooked(
    model: nn.Module, readers: Iterable[Reader], add: Callable[[Reader, Tensor], Tensor | None]
) -> Iterator[None]:
    """Within, `add` sees what every reader is given; a tensor that it returns goes to the reader in its place."""
    handles = []
    for reader in readers:

        def hook(*called: Any, reader: Reader = reader) -> Tensor | None:
            # The inputs; or the output, which of a recurrent layer is (all steps, last state).
            values = called[-1]
            return add(reader, values[0] if isinstance(values, tuple) else values)

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
