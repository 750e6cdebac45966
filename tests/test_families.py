"""Laws that every family obeys, over every file in families/; and what each known family promises beyond them."""

import importlib
import inspect
import math
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.autograd import gradcheck
from torch.func import functional_call
from torch.nn import functional as F

from atelier import families
from atelier.averaging import averaged, include
from atelier.fit import learns_labels, smoothed
from atelier.layers import ACTIVATIONS
from atelier.optim import Optimizer
from atelier.prune.remove import mask, remove
from atelier.prune.score import means, observe

SHAPE, CLASSES, ITEMS = (1, 8, 8), 4, 12

SETTINGS = {  # a family that is not named here is tried with its defaults
    "softmax": [{}, {"l2": 0.01, "init": "normal"}],
    "mlp": [
        {"hidden": (10, 6)},
        {"hidden": ()},
        {"hidden": (8, 5, 8, 4, 8), "residual": True, "activation": "softplus"},
        {"hidden": (9,), "dropout": (0.3,), "l1": 0.001, "l2": 0.01, "activation": "tanh"},
        {"hidden": (7, 6), "activation": ("sigmoid", "prelu")},
        {"hidden": (7,), "inputs": (0, 3, 17, 18, 40, 41, 42, 63)},
        {"hidden": (10, 6), "ranks": (4, 3), "l1": 0.001, "l2": 0.01, "activation": "softplus"},
        {"hidden": (8, 5, 8), "ranks": (0, 2, 3), "residual": True, "activation": "tanh"},
    ],
    "cnn": [
        {"plan": ("conv 5 3", "pool 2", "conv 4 3 valid", "dense 6")},
        {"plan": ("avgpool 2", "conv 4 1x3", "dropout 0.2", "dense 7", "dense 5"), "activation": "sigmoid"},
        {"plan": ("pool 2", "conv 3 3", "pool 2x1"), "activation": "elu", "init": "torch"},
        {"plan": ("conv 5 3 pad 1 stride 2", "conv 4 3", "pool 3 stride 1", "dense 6"), "batch_norm": True},
        {"plan": ("conv 4 3", "pool 2", "dense 5"), "batch_norm": True, "activation": "prelu"},
        {"plan": ("conv 4 3", "conv 3 3", "pool 2"), "features": (0, 5, 17, 18, 19, 40, 47)},
    ],
    "resnet": [
        {"maps": (3,), "blocks": 1, "activation": "softplus"},
        {"maps": (3, 5), "blocks": 2, "residual": False, "activation": "tanh"},
        {"maps": (2, 4), "blocks": 1, "inner": (3, 2), "activation": "softplus"},
        {"maps": (3, 5), "blocks": (1, 2), "batch_norm": True, "activation": "softplus"},
        {"maps": (3, 4), "blocks": 1, "bottleneck": True, "inner": (3, 2, 4, 5), "shrink": 2, "activation": "softplus"},
        {"maps": (3, 4), "blocks": (2, 1), "bottleneck": True, "projection": True, "batch_norm": True, "shrink": 4},
    ],
    "ensemble": [{"members": 2, "hidden": (6,)}, {"members": 3, "hidden": (), "activation": "prelu"}],
    "recurrent": [
        {"cell": "lstm", "hidden": (6,)},
        {"cell": "gru", "hidden": (7, 5), "dropout": (0.2, 0.0)},
        {"cell": "rnn", "hidden": (6, 4), "init": "torch"},
        {"cell": "lstm", "hidden": (6, 5), "biases": 1},
        {"cell": "gru", "hidden": (7, 5), "biases": 1},
        {"cell": "rnn", "hidden": (6,), "biases": 1},
    ],
    "convlstm": [
        {"maps": (3, 4), "kernel": 3, "hidden": (5,), "biases": 1},
        {"maps": (4,), "kernel": 4, "pool": 3, "hidden": (6, 5), "dropout": (0.2, 0.1)},
    ],
    "tdnn": [
        {"hidden": (7, 5), "delays": (3, 2), "activation": "softplus"},
        {"hidden": (6,), "delays": (3,), "dilation": (2,), "pool": "none", "activation": "tanh"},
        {"hidden": (6, 5), "delays": (1, 4), "pool": "max", "init": "torch"},
    ],
    "rbm": [
        {"hidden": 9},
        {"hidden": 7, "steps": 3, "centred": True},
        {"hidden": 8, "chains": 5, "centred": True},
    ],
    "dbn": [{"hidden": (9, 7)}, {"hidden": (6,), "init": "torch"}],
    "autoencoder": [
        {"widths": (10, 4)},
        {"widths": (9, 6, 3), "decoder": (5, 8), "loss": "mse", "activation": "tanh"},
        {"widths": (5, 3), "conv": True},
        {"widths": (4,), "conv": True, "loss": "bce"},
        {"widths": (9, 4), "tied": True},
    ],
    "gan": [
        {"latent": 5, "widths": (6, 7), "average": 0.5},
        {"latent": 5, "widths": (6,), "loss": "minimax", "steps": 3, "batch_norm": False, "smoothing": 0.1},
        {"latent": 5, "widths": (4, 3), "conv": True, "spectral_norm": True, "steps": 2},
    ],
    "encoder-classifier": [{"hidden": (9, 6)}, {"hidden": (7,), "activation": "tanh", "tied": False, "init": "torch"}],
    "vae": [
        {"hidden": (9, 7), "latent": 3, "beta": 2.0, "warm_up": 0.3},
        {"hidden": (8,), "latent": 2, "likelihood": "gaussian", "activation": "tanh"},
        {"hidden": (8,), "latent": 2, "likelihood": "gaussian", "sigma": 0.3, "posterior": "uniform"},
        {"hidden": (8,), "latent": 3, "posterior": "student", "freedom": 3.5, "activation": "softplus"},
    ],
    "discrete-vae": [
        {"hidden": (9, 7), "positions": 2, "codes": 5, "width": 3},
        {"hidden": (8,), "positions": 1, "codes": 6, "width": 2, "revive": 0.0},
        {"hidden": (8,), "positions": 2, "codes": 5, "width": 3, "quantiser": "gumbel", "activation": "tanh"},
    ],
}


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def build(name: str, settings: dict, seed: int = 0, **keywords) -> nn.Module:
    torch.manual_seed(seed)
    return families.load(name)(SHAPE, CLASSES, **settings, **keywords)


def batch(model: nn.Module, count: int = ITEMS) -> tuple[torch.Tensor, torch.Tensor]:
    """Items, and what this family's losses are compared with: labels, or the clean items."""
    generator = np.random.default_rng(5)
    x = torch.from_numpy(generator.random((count, *SHAPE))).float()
    y = torch.from_numpy(generator.integers(0, CLASSES, count))
    clean = getattr(model, "target", "label") == "clean"
    return x, x.clone() if clean else y


def outputs(model: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """Everything that the model says of items, in eval mode."""
    model.eval()
    with torch.no_grad():
        return [getattr(model, name)(x) for name in ("classify", "reconstruct") if hasattr(model, name)]


def assert_close(these: list[torch.Tensor], those: list[torch.Tensor], atol: float = 1e-6) -> None:
    assert len(these) == len(those)
    for a, b in zip(these, those, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=atol)


# ---- the laws; each takes a family's name and settings


def it_answers_in_the_right_shape(name: str, settings: dict) -> None:
    model = build(name, settings)
    x, _ = batch(model)
    answers = {how: getattr(model.eval(), how) for how in ("classify", "reconstruct", "sample") if hasattr(model, how)}
    assert answers, "a family classifies, reconstructs or samples"
    if "classify" in answers:
        logits = answers["classify"](x)
        assert logits.shape == (ITEMS, CLASSES)
        assert logits.isfinite().all()
    if "reconstruct" in answers:
        rebuilt = answers["reconstruct"](x)
        assert rebuilt.shape == x.shape
        assert ((rebuilt >= 0) & (rebuilt <= 1)).all()
    if "sample" in answers:
        drawn = answers["sample"](3)
        assert drawn.shape == (3, *SHAPE)
        assert ((drawn >= 0) & (drawn <= 1)).all()


def its_losses_are_a_generator_with_one_dict_per_optimizer(name: str, settings: dict) -> None:
    model = build(name, settings)
    optimizers, losses = model.optimizers(), model.losses(*batch(model))
    assert inspect.isgenerator(losses)
    for optimizer, out in zip(optimizers, losses, strict=True):
        assert out["loss"].shape == ()
        assert all(torch.as_tensor(value).isfinite() for value in out.values())
        optimizer.zero_grad()
        out["loss"].backward()
        optimizer.step()
    assert all(p.isfinite().all() for p in model.parameters())


def its_optimizers_step_every_parameter(name: str, settings: dict) -> None:
    model = build(name, settings)
    stepped = {id(p) for o in model.optimizers() for group in o.param_groups for p in group["params"]}
    assert stepped == {id(p) for p in model.parameters() if p.requires_grad}


def a_few_steps_lower_its_loss_on_one_batch(name: str, settings: dict) -> None:
    """Its loss is what curves call so: that of its figures, if it has one."""
    model = build(name, settings).train()
    x, y = batch(model)
    optimizers = model.optimizers()
    if len(optimizers) > 1:
        return  # adversaries raise each other's loss

    def loss() -> float:
        model.eval()
        torch.manual_seed(0)
        with torch.no_grad():
            figures = model.figures(x) if hasattr(model, "figures") else {}
            value = float(figures["loss"].mean() if "loss" in figures else next(model.losses(x, y))["loss"])
        model.train()
        return value

    before = loss()
    for _ in range(40):
        for optimizer, out in zip(optimizers, model.losses(x, y), strict=True):
            optimizer.zero_grad()
            out["loss"].backward()
            optimizer.step()
    assert loss() < before


def probabilities_of_classes_stand_for_labels(name: str, settings: dict) -> None:
    """Its loss is linear in them: smoothed by e, it is 1 - e times that of the labels and e times the mean over all."""
    model = build(name, settings).double().eval()
    if not learns_labels(model):
        return
    x, y = batch(model)

    def loss(target: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(0)
        return next(model.losses(x.double(), target))["loss"]

    every = [loss(torch.full_like(y, label)) for label in range(CLASSES)]
    soft = smoothed(y, 0.3, CLASSES).double()
    torch.testing.assert_close(loss(soft), 0.7 * loss(y) + 0.3 * sum(every) / CLASSES, rtol=1e-6, atol=1e-6)


def its_state_makes_an_equal_net(name: str, settings: dict) -> None:
    model, other = build(name, settings, seed=1), build(name, settings, seed=2)
    x, _ = batch(model)
    other.load_state_dict(model.state_dict())
    assert_close(outputs(model, x), outputs(other, x), atol=0)


def the_mean_of_its_weights_answers_and_its_own_come_back(name: str, settings: dict) -> None:
    model = build(name, settings).train()
    x, y = batch(model)
    optimizers, mean = model.optimizers(), None
    for step in (1, 2, 3):
        for optimizer, out in zip(optimizers, model.losses(x, y), strict=True):
            optimizer.zero_grad()
            out["loss"].backward()
            optimizer.step()
        if hasattr(model, "after_step"):
            model.after_step()
        mean = include(mean, model, 0.5, step)
    own = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with averaged(model, mean):
        assert all(torch.equal(tensor, mean[key]) for key, tensor in model.state_dict().items())
        assert all(answer.isfinite().all() for answer in outputs(model, x))
    assert all(torch.equal(tensor, own[key]) for key, tensor in model.state_dict().items())
    assert any(not torch.equal(own[key], mean[key]) for key in own)


def the_order_of_items_does_not_matter(name: str, settings: dict) -> None:
    model = build(name, settings)
    x, _ = batch(model)
    order = torch.from_numpy(np.random.default_rng(1).permutation(ITEMS))
    assert_close(outputs(model, x[order]), [out[order] for out in outputs(model, x)])


def equal_seeds_build_equal_nets(name: str, settings: dict) -> None:
    one, same, other = (build(name, settings, seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)


def its_gradients_are_those_of_its_losses(name: str, settings: dict) -> None:
    """Of each loss in what its optimizer steps, but for what has an estimate for its gradient on purpose: backward
    against central differences in float64.
    """
    model = build(name, settings).double().eval()
    estimated = tuple(f"net.{part}" for part in getattr(model, "estimated", ()))
    x, y = batch(model, 3)
    x, y = x.double(), y.double() if y.is_floating_point() else y

    class Loss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = model

        def forward(self, which: int) -> torch.Tensor:
            torch.manual_seed(0)
            return [out["loss"] for out in self.net.losses(x, y)][which]

    wrapped = Loss()
    for which, optimizer in enumerate(model.optimizers()):
        stepped = {id(p) for group in optimizer.param_groups for p in group["params"]}
        own = [(key, p) for key, p in wrapped.named_parameters() if id(p) in stepped]
        exact = [(key, p) for key, p in own if not (estimated and key.startswith(estimated))]
        names, values = zip(*((key, p.detach().clone().requires_grad_()) for key, p in exact))

        def loss(*tensors: torch.Tensor, which: int = which, names: tuple[str, ...] = names) -> torch.Tensor:
            return functional_call(wrapped, dict(zip(names, tensors, strict=True)), (which,))

        assert gradcheck(loss, values, fast_mode=True, atol=1e-6)


def removing_nodes_equals_masking_them(name: str, settings: dict) -> None:
    model = _shaken(build(name, settings)).eval()
    if not hasattr(model, "nodes"):
        return
    x, _ = batch(model)
    generator = np.random.default_rng(2)
    for given in (False, True):  # flattened maps share an axis with their maps
        keep = {
            nodes.name: np.sort(generator.permutation(nodes.width)[: generator.integers(1, nodes.width)])
            for nodes in model.nodes()
            if nodes.width > 1 and nodes.given == given
        }
        for average in (None, means(observe(model, x)) if keep else None):
            smaller, changed = remove(model, name, SHAPE, CLASSES, settings, keep, average)
            assert_close(outputs(smaller, x), outputs(mask(model, keep, average), x), atol=1e-5)
            again = build(name, changed)
            again.load_state_dict(smaller.state_dict())
            assert_close(outputs(again, x), outputs(smaller, x), atol=0)
            assert {n.name: n.width for n in smaller.nodes() if n.name in keep} == {k: len(v) for k, v in keep.items()}
        if keep:
            count = [sum(p.numel() for p in net.parameters()) for net in (model, smaller)]
            assert count[1] < count[0]
            difference = max(float((a - b).abs().max()) for a, b in zip(outputs(model, x), outputs(smaller, x)))
            assert difference > 1e-4, "the nodes that went did nothing, so their removal proves nothing"


LAWS = [
    it_answers_in_the_right_shape,
    its_losses_are_a_generator_with_one_dict_per_optimizer,
    its_optimizers_step_every_parameter,
    a_few_steps_lower_its_loss_on_one_batch,
    probabilities_of_classes_stand_for_labels,
    its_state_makes_an_equal_net,
    the_mean_of_its_weights_answers_and_its_own_come_back,
    the_order_of_items_does_not_matter,
    equal_seeds_build_equal_nets,
    its_gradients_are_those_of_its_losses,
    removing_nodes_equals_masking_them,
]
CASES = [(name, settings) for name in families.names() for settings in SETTINGS.get(name, [{}])]


def _shaken(model: nn.Module) -> nn.Module:
    """Biases start at 0, and so do running means; here they must not, or a lost one would not show."""
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() == 1:
                p.normal_(std=0.3)
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.normal_(std=0.3)
                layer.running_var.uniform_(0.5, 2.0)
    return model


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize(("name", "settings"), CASES, ids=[f"{n}-{i}" for i, (n, _) in enumerate(CASES)])
def test_every_family_obeys(law, name, settings):
    law(name, settings)


# ---- a new family is one file

NEW = '''
"""A dense net with gated units: a * sigmoid(b), both halves from one layer."""
import torch
from torch import nn
from atelier.layers import Nodes, Slice, class_losses, dense_reader
from atelier.optim import Optimizer

class Model(nn.Module):
    def __init__(self, shape, classes, *, width: int = 7, optimizer: Optimizer = Optimizer()):
        super().__init__()
        self.width, self.optimizer = width, optimizer
        self.both = nn.Linear(64, 2 * width)
        self.head = nn.Linear(width, classes)
        self.register_buffer("centre", torch.full((64,), 0.5))
    def classify(self, x):
        a, b = self.both(x.flatten(1) - self.centre).chunk(2, 1)
        return self.head(a * b.sigmoid())
    def optimizers(self):
        return [self.optimizer(self.parameters())]
    def losses(self, x, y):
        yield class_losses(self.classify(x), y)
    def nodes(self):
        writers = (Slice("both.weight", groups=2), Slice("both.bias", groups=2))
        return [Nodes("width", self.width, writers, (dense_reader("head"),))]
    def resized(self, keep):
        return {"width": len(keep.get("width", range(self.width)))}
'''


@pytest.fixture
def new_family(tmp_path, monkeypatch):
    def add(source: str) -> str:
        (tmp_path / "gated_net.py").write_text(source)
        monkeypatch.setattr(families, "__path__", [*families.__path__, str(tmp_path)])
        monkeypatch.delitem(sys.modules, "atelier.families.gated_net", raising=False)
        importlib.invalidate_caches()
        return "gated-net"

    yield add
    sys.modules.pop("atelier.families.gated_net", None)
    vars(families).pop("gated_net", None)


def test_a_new_file_is_a_family_and_meets_the_laws(new_family):
    before = families.names()
    name = new_family(NEW)
    assert families.names() == sorted([*before, name])
    for law in LAWS:
        law(name, {})
        law(name, {"width": 3})


def test_the_laws_catch_a_family_that_describes_its_nodes_wrongly(new_family):
    name = new_family(NEW.replace("groups=2", "block=2"))
    with pytest.raises(AssertionError):
        removing_nodes_equals_masking_them(name, {})


# ---- what known families promise


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_a_residual_block_with_zero_second_weights_is_the_identity():
    residual = build("mlp", {"hidden": (10, 6, 10), "residual": True})
    with torch.no_grad():
        residual.layers[2].weight.zero_()
        residual.layers[2].bias.zero_()
    plain = build("mlp", {"hidden": (10,)})
    plain.load_state_dict(
        {k: v for k, v in residual.state_dict().items() if k[:8] in ("layers.0", "head.wei", "head.bia")}
    )
    x, _ = batch(plain)
    assert_close(outputs(residual, x), outputs(plain, x), atol=0)


def test_without_chosen_inputs_a_dense_net_is_its_chain_of_layers_to_the_bit():
    model = _shaken(build("mlp", {"hidden": (9, 5)}))
    x, _ = batch(model)
    with torch.no_grad():
        h = x.flatten(1)
        for layer in model.layers:
            h = F.relu(F.linear(h, layer.weight, layer.bias))
        assert_close(outputs(model, x), [F.linear(h, model.head.weight, model.head.bias)], atol=0)
    assert list(model.state_dict()) == [
        f"{n}.{p}" for n in ("layers.0", "layers.1", "head") for p in ("weight", "bias")
    ]


def test_without_chosen_features_a_convolutional_net_is_its_chain_of_layers_to_the_bit():
    model = _shaken(build("cnn", {"plan": ("conv 4 3", "pool 2", "dense 5")}))
    conv, dense, head = model.steps[0], model.steps[4], model.head
    x, _ = batch(model)
    with torch.no_grad():
        h = F.conv2d(x.contiguous(memory_format=torch.channels_last), conv.weight, conv.bias, padding="same")
        h = F.relu(F.linear(F.relu(F.max_pool2d(h, 2)).flatten(1), dense.weight, dense.bias))
        assert_close(outputs(model, x), [F.linear(h, head.weight, head.bias)], atol=0)
    layers = ("steps.0", "steps.4", "head")
    assert list(model.state_dict()) == [f"{layer}.{part}" for layer in layers for part in ("weight", "bias")]


@pytest.mark.parametrize(
    ("name", "settings", "key", "first"),
    [
        ("mlp", {"hidden": (6,)}, "inputs", "layers.0.weight"),
        ("cnn", {"plan": ("conv 2 3", "pool 2", "dense 4")}, "features", "steps.4.weight"),
        ("cnn", {"plan": ("conv 2 3", "pool 2")}, "features", "head.weight"),
    ],
)
def test_a_net_that_reads_some_places_is_one_whose_other_weights_are_zero(name, settings, key, first):
    """Which places are read is a setting: the state has the same keys, and no more."""
    places = (0, 5, 6, 20, 31)
    some, every = _shaken(build(name, settings | {key: places})), build(name, settings)
    state = some.state_dict()
    assert state.keys() == every.state_dict().keys()
    wide = torch.zeros(state[first].shape[0], every.state_dict()[first].shape[1])
    wide[:, list(places)] = state[first]
    every.load_state_dict(state | {first: wide})
    x, _ = batch(some)
    assert_close(outputs(some, x), outputs(every, x))


def test_a_residual_net_adds_its_skip_before_the_activation():
    model = _shaken(build("mlp", {"hidden": (10, 6, 10), "residual": True}))
    first, inner, outer = model.layers
    x, _ = batch(model)
    with torch.no_grad():
        a = F.relu(first(x.flatten(1)))
        expected = model.head(F.relu(outer(F.relu(inner(a))) + a))
    assert_close(outputs(model, x), [expected])


@pytest.mark.parametrize(("cell", "gates"), [("rnn", 1), ("gru", 3), ("lstm", 4)])
def test_a_recurrent_layer_has_a_matrix_pair_and_a_bias_pair_for_each_gate(cell, gates):
    model = families.load("recurrent")((3, 6, 5), 7, cell=cell, hidden=(11, 9))
    inputs = 3 * 5
    first = gates * (11 * inputs + 11 * 11 + 2 * 11)
    second = gates * (9 * 11 + 9 * 9 + 2 * 9)
    assert count(model) == first + second + 9 * 7 + 7


def test_a_recurrent_net_reads_rows_and_steps_in_order():
    image = families.load("recurrent")((2, 6, 5), 3, cell="rnn", hidden=(4,))
    x = torch.rand(3, 2, 6, 5)
    with torch.no_grad():
        state = torch.zeros(3, 4)
        cell = image.layers[0]
        for row in range(6):
            seen = x[:, :, row].flatten(1)
            state = torch.tanh(
                seen @ cell.weight_ih_l0.T + cell.bias_ih_l0 + state @ cell.weight_hh_l0.T + cell.bias_hh_l0
            )
        assert_close(outputs(image, x), [image.head(state)])
    window = families.load("recurrent")((2, 6), 3, cell="rnn", hidden=(4,))
    x = torch.rand(3, 2, 6)
    with torch.no_grad():
        state = torch.zeros(3, 4)
        cell = window.layers[0]
        for step in range(6):
            seen = x[:, :, step]
            state = torch.tanh(
                seen @ cell.weight_ih_l0.T + cell.bias_ih_l0 + state @ cell.weight_hh_l0.T + cell.bias_hh_l0
            )
        assert_close(outputs(window, x), [window.head(state)])


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("activation", sorted(set(ACTIVATIONS) - {"prelu"}))
def test_pooling_before_a_rising_activation_gives_the_same_net(activation, batch_norm):
    """Batch norm may fall, so it comes before both: here some of its factors are negative."""
    plan = ("conv 5 3", "pool 3 stride 2")
    model = _shaken(build("cnn", {"plan": plan, "activation": activation, "batch_norm": batch_norm}))
    rise = ACTIVATIONS[activation]()
    x, _ = batch(model)
    with torch.no_grad():
        maps = model.steps[0](x)
        if batch_norm:
            norm = model.steps[1]
            assert norm.weight.min() < 0
            maps = F.batch_norm(maps, norm.running_mean, norm.running_var, norm.weight, norm.bias)
        assert_close(outputs(model, x), [model.head(F.max_pool2d(rise(maps), 3, 2).flatten(1))])


LENET = ("conv 6 5 same", "pool 2", "conv 16 5 valid", "pool 2", "dense 120", "dense 84")


def test_lenet_5_has_61706_parameters():
    assert count(families.load("cnn")((1, 28, 28), 10, plan=LENET)) == 61_706


@pytest.mark.parametrize(
    ("settings", "parameters"),
    [
        ({"widths": (32,)}, 50_992),
        ({"widths": (128, 32)}, 209_968),
        ({"widths": (16, 8, 8), "conv": True}, 3_801),
        ({"widths": (32, 32), "conv": True}, 19_105),
    ],
)
def test_autoencoders_have_the_parameters_of_their_layers(settings, parameters):
    model = families.load("autoencoder")((1, 28, 28), 10, **settings)
    assert count(model) == parameters
    assert model.reconstruct(torch.rand(2, 1, 28, 28)).shape == (2, 1, 28, 28)


def test_a_padded_autoencoder_crops_what_it_padded():
    model = families.load("autoencoder")((1, 7, 5), 2, widths=(3, 2), conv=True)
    assert model.reconstruct(torch.rand(2, 1, 7, 5)).shape == (2, 1, 7, 5)
    assert torch.equal(model._cropped(model._padded(x := torch.rand(2, 1, 7, 5))), x)


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (("conv 8 3", "convolution 8"), "'convolution 8'"),
        (("conv 0 3",), "'conv 0 3'"),
        (("conv 8",), "'conv 8'"),
        (("dropout 1.5",), "'dropout 1.5'"),
        (("dense -3",), "'dense -3'"),
        (("conv 8 3 stride 2",), "say valid or pad N before stride"),
        (("conv 8 3 same stride 2",), "'conv 8 3 same stride 2'"),
        (("conv 8 3 stride 2 pad 1",), "'conv 8 3 stride 2 pad 1'"),
        (("pool 2 stride 0",), "'pool 2 stride 0'"),
        (("conv 8 12 pad 1",), "kernel_size=(12, 12)"),
        (("dense 10", "conv 8 3"), "dense 10"),
        (("conv 4 9 valid",), "kernel_size=(9, 9)"),
        (("pool 4", "pool 4"), "kernel_size=[4, 4]"),
    ],
)
def test_a_bad_plan_is_refused_by_naming_its_step(plan, said):
    with pytest.raises(ValueError) as refused:
        families.load("cnn")(SHAPE, CLASSES, plan=plan)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("mlp", {"hidden": (4, 3), "dropout": (0.1,)}, "dropout has 1 rates for 2"),
        ("mlp", {"hidden": (4, 3), "activation": ("relu",)}, "activation has 1 names for 2"),
        ("mlp", {"hidden": (4, 3, 5), "residual": True}, "[4, 3, 5]"),
        ("mlp", {"hidden": (4, 3), "residual": True}, "[4, 3]"),
        ("mlp", {"inputs": (3, 3)}, "inputs has 3 after 3; give places that rise"),
        ("mlp", {"inputs": (3, 64)}, "inputs holds 64, but there are 64 to read; give places from 0 to 63"),
        ("cnn", {"features": (9, 2)}, "features has 2 after 9"),
        ("cnn", {"plan": ("conv 3 3", "pool 2"), "features": (48,)}, "features holds 48, but there are 48"),
        ("cnn", {"plan": ("conv 3 3", "pool 2", "dense 4"), "features": (48,)}, "features holds 48"),
        ("recurrent", {"hidden": ()}, "hidden is empty"),
        ("recurrent", {"hidden": (4,), "dropout": (0.1, 0.1)}, "dropout has 2 rates for 1"),
        ("autoencoder", {"widths": ()}, "widths is empty"),
        ("autoencoder", {"widths": (8, 4), "decoder": (3, 3)}, "decoder has 2 widths"),
        ("autoencoder", {"widths": (8, 4), "conv": True, "tied": True}, "tied is for dense layers"),
        ("autoencoder", {"widths": (8, 4), "decoder": (3,), "tied": True}, "decoder is [3]"),
        ("encoder-classifier", {"hidden": ()}, "hidden is empty"),
    ],
)
def test_settings_that_make_no_net_are_refused(name, settings, said):
    with pytest.raises(ValueError) as refused:
        build(name, settings)
    assert said in str(refused.value)


@pytest.mark.parametrize(("l1", "l2"), [(0.1, 0.0), (0.0, 0.1), (0.1, 0.2)])
def test_penalties_count_weights_and_not_biases(l1, l2):
    plain, fined = (_shaken(build("mlp", {"hidden": (6, 5), **extra})) for extra in ({}, {"l1": l1, "l2": l2}))
    fined.load_state_dict(plain.state_dict())
    x, y = batch(plain)
    weights = np.concatenate([p.detach().numpy().ravel() for p in plain.parameters() if p.dim() == 2])
    extra = next(fined.losses(x, y))["loss"] - next(plain.losses(x, y))["loss"]
    assert math.isclose(extra.item(), l1 / 2 * np.abs(weights).sum() + l2 / 2 * (weights**2).sum(), rel_tol=1e-4)


def test_the_optimizer_that_is_given_is_the_one_that_steps():
    model = build("mlp", {"hidden": (5,)}, optimizer=Optimizer("momentum", lr=0.25, momentum=0.5))
    (optimizer,) = model.optimizers()
    assert type(optimizer).__name__ == "SGD"
    assert (optimizer.defaults["lr"], optimizer.defaults["momentum"]) == (0.25, 0.5)


@pytest.mark.parametrize(
    "family, settings", [("mlp", {"hidden": (6, 4, 6), "residual": True}), ("resnet", {"blocks": 1})]
)
def test_a_residual_block_is_the_identity_where_its_second_weights_are_zero(family, settings):
    """Of what is not negative, as what a ReLU gives is; so a deeper net can do no worse than a shallow one."""
    deep = families.load(family)(SHAPE, CLASSES, **settings)
    second = deep.layers[2] if family == "mlp" else deep.second[0]
    nn.init.zeros_(second.weight)
    x = torch.rand(ITEMS, *SHAPE)
    if family == "mlp":
        expected = deep.head(deep.activation(deep.layers[0](x.flatten(1))))
    else:
        nn.init.zeros_(deep.second[1].weight)  # the second stage's block halves the image and pads with zeros
        h = F.relu(deep.stem(x))[:, :, ::2, ::2]
        expected = deep.head(F.pad(h, (0, 0, 0, 0, 0, h.shape[1])).mean((2, 3)))
    torch.testing.assert_close(deep.classify(x), expected)


def test_a_shortcut_pads_new_maps_with_zeros_and_takes_every_second_pixel():
    model = families.load("resnet")((1, 9, 9), CLASSES, maps=(2, 3), blocks=1)
    assert model.classify(torch.rand(2, 1, 9, 9)).shape == (2, CLASSES)
    assert model.first[1].stride == (2, 2) and model.first[0].stride == (1, 1)


def test_an_ensemble_answers_with_the_mean_of_its_members_probabilities():
    model = families.load("ensemble")(SHAPE, CLASSES, members=3, hidden=(5,))
    x = torch.rand(ITEMS, *SHAPE)
    expected = torch.stack([member(x).softmax(1) for member in model.members]).mean(0)
    torch.testing.assert_close(model.classify(x).softmax(1), expected)
    torch.testing.assert_close(model.classify(x).exp().sum(1), torch.ones(ITEMS))


@pytest.mark.parametrize(
    "settings, fault",
    [
        ({"maps": (4, 4)}, "wider"),
        ({"maps": (2,), "inner": (3,)}, "2 blocks; give one for each"),
        ({"maps": (2,), "inner": (3, 3), "bottleneck": True}, "2 blocks; give two for each"),
        ({"blocks": (1, 2, 3)}, "blocks is .* for 2 stages"),
        ({"projection": True, "residual": False}, "drop one of them"),
    ],
)
def test_a_resnet_that_cannot_be_is_refused(settings, fault):
    with pytest.raises(ValueError, match=fault):
        families.load("resnet")(SHAPE, CLASSES, **settings)


def test_prelu_is_not_moved_behind_a_pool_because_it_may_fall():
    model = families.load("cnn")(SHAPE, CLASSES, plan=("conv 3 3", "pool 2"), activation="prelu")
    assert [type(step).__name__ for step in model.steps][:3] == ["Conv2d", "PReLU", "MaxPool2d"]
