"""Pruning against references of another make: masked nets, Torch-Pruning, NumPy, and nets whose answer is known."""

import contextlib
import copy
import functools
import io
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from atelier import families, files
from atelier.errors import AtelierError
from atelier.layers import Nodes, Reader, dense_writers
from atelier.prune import choose, reconstruct, schedule, score
from atelier.prune.remove import mask, remove

SHAPE, CLASSES = (1, 8, 8), 3
slow_free = settings(deadline=None, derandomize=True, max_examples=25)
widths = st.integers(1, 7)


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def net(family: str, seed: int = 0, shape=SHAPE, **hyper) -> nn.Module:
    """A net whose biases are not 0, in eval mode."""
    torch.manual_seed(seed)
    model = families.load(family)(shape, CLASSES, **hyper)
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() == 1:
                p.normal_(std=0.5)
    return model.eval()


def items(count: int = 6, seed: int = 0, shape=SHAPE) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).random((count, *shape))).float()


@torch.no_grad()
def answer(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return model.classify(x) if hasattr(model, "classify") else model.reconstruct(x)


def candidates(scores: dict[str, np.ndarray], model: nn.Module, inputs: bool = False) -> dict[str, np.ndarray]:
    return {nodes.name: scores[nodes.name] for nodes in choose.candidates(model, inputs)}


NETS = st.one_of(
    st.tuples(st.just("mlp"), st.fixed_dictionaries({"hidden": st.lists(widths, min_size=1, max_size=3).map(tuple)})),
    st.builds(
        lambda stream, a, b: ("mlp", {"hidden": (stream, a, stream, b, stream), "residual": True}),
        widths,
        widths,
        widths,
    ),
    st.builds(
        lambda a, b, c, size: ("cnn", {"plan": (f"conv {a} 3", f"pool {size}", f"conv {b} 2 valid", f"dense {c}")}),
        widths,
        widths,
        widths,
        st.sampled_from(["2", "1x2"]),
    ),
    st.tuples(
        st.just("recurrent"),
        st.fixed_dictionaries(
            {
                "cell": st.sampled_from(["rnn", "gru", "lstm"]),
                "hidden": st.lists(widths, min_size=1, max_size=2).map(tuple),
            }
        ),
    ),
    st.builds(
        lambda a, b, c, conv: ("autoencoder", {"widths": (a, b), "decoder": (c,), "conv": conv}),
        widths,
        widths,
        widths,
        st.booleans(),
    ),
)


@slow_free
@given(case=NETS, level=st.floats(0.05, 0.95), seed=st.integers(0, 99), folded=st.booleans(), inputs=st.booleans())
def test_a_net_without_nodes_computes_what_the_net_with_silent_nodes_does(case, level, seed, folded, inputs):
    family, hyper = case
    model, x = net(family, seed, **hyper), items(seed=seed)
    before = copy.deepcopy(model.state_dict())
    scores = candidates(score.random(model, seed), model, inputs)
    keep = choose.best(scores, {name: max(1, round(len(s) * (1 - level))) for name, s in scores.items()})
    means = score.means(score.observe(model, x)) if folded else None
    smaller, changed = remove(model, family, SHAPE, CLASSES, hyper, keep, means)
    silent = mask(model, keep, means)
    torch.testing.assert_close(answer(smaller, x), answer(silent, x), rtol=0, atol=1e-5)
    left = {nodes.name: nodes.width for nodes in smaller.nodes()}
    assert {name: left[name] for name in keep} == {name: len(kept) for name, kept in keep.items()}
    assert [p.shape for p in families.load(family)(SHAPE, CLASSES, **changed).parameters()] == [
        p.shape for p in smaller.parameters()
    ]
    assert [p.shape for p in silent.parameters()] == [p.shape for p in model.parameters()]
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in before.items()), "the net was changed"


def test_keeping_all_nodes_keeps_the_net():
    for family, hyper in (
        ("mlp", {"hidden": (5, 4)}),
        ("recurrent", {"hidden": (5,)}),
        ("cnn", {"plan": ("conv 4 3",)}),
    ):
        model, x = net(family, **hyper), items()
        for inputs in (False, True):
            keep = {nodes.name: np.arange(nodes.width) for nodes in choose.candidates(model, inputs)}
            means = score.means(score.observe(model, x))
            smaller, _ = remove(model, family, SHAPE, CLASSES, hyper, keep, means)
            assert torch.equal(answer(smaller, x), answer(model, x))


def test_only_the_named_layers_lose_nodes():
    model = net("mlp", hidden=(6, 5))
    smaller, changed = remove(model, "mlp", SHAPE, CLASSES, {"hidden": (6, 5)}, {"hidden.1": np.array([0, 3])})
    assert changed == {"hidden": (6, 2)}
    assert torch.equal(smaller.layers[0].weight, model.layers[0].weight)


def test_removal_leaves_random_numbers_and_mode_alone():
    model = net("mlp", hidden=(6,)).train()
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    smaller, _ = remove(model, "mlp", SHAPE, CLASSES, {"hidden": (6,)}, {"hidden.0": np.array([1])})
    assert torch.equal(torch.rand(1), expected)
    assert smaller.training


def test_a_net_in_double_precision_stays_in_it():
    model, x = net("mlp", hidden=(6, 4)).double(), items().double()
    keep = {"hidden.0": np.array([0, 2, 5]), "hidden.1": np.array([3])}
    smaller, _ = remove(model, "mlp", SHAPE, CLASSES, {"hidden": (6, 4)}, keep)
    torch.testing.assert_close(answer(smaller, x), answer(mask(model, keep), x), rtol=0, atol=1e-12)


GIVEN = [
    ("mlp", {"hidden": (6, 4)}, "inputs", 64),
    ("mlp", {"hidden": (5, 3, 5), "residual": True}, "inputs", 64),
    ("cnn", {"plan": ("conv 3 3", "pool 2", "dense 5")}, "features", 48),
    ("cnn", {"plan": ("conv 3 3", "pool 2")}, "features", 48),
    ("cnn", {"plan": ("pool 2", "dense 5")}, "features", 16),
]


@pytest.mark.parametrize(("family", "hyper", "name", "width"), GIVEN)
def test_removing_given_nodes_twice_is_removing_them_once(family, hyper, name, width):
    """The second removal counts the places that the first one left."""
    model, x = net(family, **hyper), items()
    first, second = np.arange(1, width, 2), np.array([0, 3, 4, 7])
    once, settings_once = remove(model, family, SHAPE, CLASSES, hyper, {name: first[second]})
    half, settings = remove(model, family, SHAPE, CLASSES, hyper, {name: first})
    twice, settings = remove(half, family, SHAPE, CLASSES, settings, {name: second})
    assert settings == settings_once and settings[name] == (1, 7, 9, 15)
    assert all(type(place) is int for place in settings[name]), "settings are written as JSON"
    assert torch.equal(answer(twice, x), answer(once, x))
    assert settings == {**hyper, **once.resized({})}, "a net knows its places"


def test_flattened_maps_and_their_maps_go_one_after_the_other():
    hyper = {"plan": ("conv 4 3", "pool 2", "conv 3 3", "dense 5")}
    model, x = net("cnn", **hyper), items()
    both = {"plan.2": np.array([0, 2]), "features": np.array([1, 5, 8, 30])}
    for go in (functools.partial(remove, model, "cnn", SHAPE, CLASSES, hyper), functools.partial(mask, model)):
        with pytest.raises(AtelierError, match="plan.2 and features .*; remove plan.2 first, then features") as refused:
            go(both)
        assert "\n" not in str(refused.value)
    fewer, changed = remove(model, "cnn", SHAPE, CLASSES, hyper, {"plan.2": both["plan.2"]})
    keep = {"features": both["features"]}
    least, changed = remove(fewer, "cnn", SHAPE, CLASSES, changed, keep)
    torch.testing.assert_close(answer(least, x), answer(mask(fewer, keep), x), rtol=0, atol=1e-5)
    assert [nodes.name for nodes in least.nodes()] == ["plan.0", "plan.3", "features"]
    keep = {"plan.0": np.array([1, 2]), "plan.3": np.array([0, 4]), "features": np.array([0, 3])}
    last, changed = remove(least, "cnn", SHAPE, CLASSES, changed, keep)
    torch.testing.assert_close(answer(last, x), answer(mask(least, keep), x), rtol=0, atol=1e-5)
    assert changed == {"plan": ("conv 2 3", "pool 2", "conv 2 3", "dense 2"), "features": (1, 30)}


def test_given_nodes_go_only_if_they_are_asked_for_and_then_in_the_place_of_their_maps():
    mlp, cnn = net("mlp", hidden=(5, 4)), net("cnn", plan=("conv 4 3", "pool 2", "conv 3 3", "dense 5"))
    names = [[nodes.name for nodes in choose.candidates(model, go)] for model in (mlp, cnn) for go in (False, True)]
    assert names[:2] == [["hidden.0", "hidden.1"], ["hidden.0", "hidden.1", "inputs"]]
    assert names[2:] == [["plan.0", "plan.2", "plan.3"], ["plan.0", "plan.3", "features"]]


# ---- against Torch-Pruning, which follows the graph instead of a description


@pytest.mark.parametrize(
    ("family", "hyper", "layer_of"),
    [
        ("mlp", {"hidden": (9, 7)}, {"hidden.0": "layers.0", "hidden.1": "layers.1"}),
        ("mlp", {"hidden": (8, 6, 8), "residual": True}, {"stream": "layers.0", "hidden.1": "layers.1"}),
        (
            "cnn",
            {"plan": ("conv 5 3", "pool 2", "conv 6 3", "pool 2", "dense 7")},
            {"plan.0": "steps.0", "plan.2": "steps.3", "plan.4": "steps.7"},
        ),
        (
            "cnn",
            {"plan": ("conv 5 3", "pool 2", "conv 6 3", "dense 7"), "batch_norm": True},
            {"plan.0": "steps.0", "plan.2": "steps.4", "plan.3": "steps.8"},
        ),
        (
            "resnet",
            {"maps": (5, 6), "blocks": 1, "bottleneck": True, "projection": True, "batch_norm": True},
            {f"inner.{i}": f"{part}.{i // 2}.0" for i, part in enumerate(("first", "second", "first", "second"))},
        ),
    ],
)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_torch_pruning_leaves_the_same_net(family, hyper, layer_of, seed):
    tp = pytest.importorskip("torch_pruning")
    model, x = net(family, seed, **hyper), items()
    scores = candidates(score.weight_norm(model), model)
    keep = choose.best(scores, choose.uniform({n: len(s) for n, s in scores.items()}, 0.4, "net"))
    theirs = copy.deepcopy(model)
    for name, layer in layer_of.items():
        graph = tp.DependencyGraph().build_dependency(theirs, x, forward_fn=lambda m, given: m.classify(given))
        module = theirs.get_submodule(layer)
        out = tp.prune_conv_out_channels if isinstance(module, nn.Conv2d) else tp.prune_linear_out_channels
        gone = np.setdiff1d(np.arange(len(scores[name])), keep[name]).tolist()
        group = graph.get_pruning_group(module, out, idxs=gone)
        assert graph.check_pruning_group(group)
        group.prune()
    ours, _ = remove(model, family, SHAPE, CLASSES, hyper, keep)
    assert [p.shape for p in ours.parameters()] == [p.shape for p in theirs.parameters()]
    torch.testing.assert_close(answer(ours, x), answer(theirs, x), rtol=0, atol=1e-6)


# ---- folding


def constant(model: nn.Module, layer: nn.Module, unit: int, value: float) -> None:
    with torch.no_grad():
        layer.weight[unit] = 0.0
        layer.bias[unit] = value


@pytest.mark.parametrize(
    ("family", "hyper", "layer", "nodes"),
    [
        ("mlp", {"hidden": (6, 5)}, "layers.0", "hidden.0"),
        ("mlp", {"hidden": (6, 5), "activation": "sigmoid"}, "layers.1", "hidden.1"),
        ("cnn", {"plan": ("conv 5 3", "pool 2", "dense 4")}, "steps.0", "plan.0"),
        ("cnn", {"plan": ("conv 5 3", "pool 2", "conv 4 3 valid")}, "steps.0", "plan.0"),
        ("cnn", {"plan": ("conv 5 3", "dense 4")}, "steps.3", "plan.1"),
        ("cnn", {"plan": ("conv 5 3", "pool 2", "conv 4 3 valid"), "batch_norm": True}, "steps.1", "plan.0"),
        ("resnet", {"maps": (5,), "bottleneck": True, "batch_norm": True}, "second.1.1", "inner.3"),
        ("autoencoder", {"widths": (6, 4)}, "encode.1", "widths.1"),
    ],
)
@pytest.mark.parametrize("value", [0.7, 2.0])
def test_folding_a_constant_node_changes_nothing(family, hyper, layer, nodes, value):
    model, x = net(family, **hyper), items()
    constant(model, model.get_submodule(layer), 2, value)
    width = next(n.width for n in model.nodes() if n.name == nodes)
    keep = {nodes: np.delete(np.arange(width), 2)}
    means = score.means(score.observe(model, x))
    folded, _ = remove(model, family, SHAPE, CLASSES, hyper, keep, means)
    dropped, _ = remove(model, family, SHAPE, CLASSES, hyper, keep)
    new = items(seed=9)  # items whose means were never taken
    torch.testing.assert_close(answer(folded, new), answer(model, new), rtol=0, atol=1e-5)
    assert (answer(dropped, new) - answer(model, new)).abs().max() > 1e-3


def test_folding_a_constant_input_changes_nothing():
    model, x, new = net("mlp", hidden=(6, 5)), items(), items(seed=9)
    x[:, 0, 2, 3] = new[:, 0, 2, 3] = 0.7
    keep = {"inputs": np.delete(np.arange(64), 2 * 8 + 3)}
    means = score.means(score.observe(model, x))
    folded, _ = remove(model, "mlp", SHAPE, CLASSES, {"hidden": (6, 5)}, keep, means)
    torch.testing.assert_close(answer(folded, new), answer(model, new), rtol=0, atol=1e-5)


@pytest.mark.parametrize("plan", [("conv 3 3", "pool 2", "dense 5"), ("conv 3 3", "pool 2")])
def test_folding_places_of_a_constant_map_changes_nothing(plan):
    model, x = net("cnn", plan=plan), items()
    constant(model, model.steps[0], 1, 0.7)
    keep = {"features": np.delete(np.arange(48), [16, 20, 31])}
    means = score.means(score.observe(model, x))
    folded, _ = remove(model, "cnn", SHAPE, CLASSES, {"plan": plan}, keep, means)
    new = items(seed=9)
    torch.testing.assert_close(answer(folded, new), answer(model, new), rtol=0, atol=1e-5)


def test_folding_several_nodes_keeps_the_readers_mean():
    """Whatever the nodes do, a dense reader's mean input to its activation stays what it was on the observed items."""
    model, x = net("mlp", hidden=(8, 5)), items(40)
    keep = {"hidden.0": np.array([1, 4, 6])}
    means = score.means(score.observe(model, x))
    folded, _ = remove(model, "mlp", SHAPE, CLASSES, {"hidden": (8, 5)}, keep, means)
    with torch.no_grad():
        before = model.layers[1](torch.relu(model.layers[0](x.flatten(1)))).mean(0)
        after = folded.layers[1](torch.relu(folded.layers[0](x.flatten(1)))).mean(0)
    torch.testing.assert_close(after, before, rtol=0, atol=1e-5)


def test_a_recurrent_node_that_never_moves_folds_exactly_into_the_layer_above():
    """A plain RNN unit of bias 0.5 that nothing drives; its own layer reads it with weight 0."""
    hyper = {"cell": "rnn", "hidden": (5, 4)}
    model, x = net("recurrent", **hyper), items()
    below = model.layers[0]
    with torch.no_grad():
        below.weight_ih_l0[2] = 0.0
        below.weight_hh_l0[2] = 0.0
        below.weight_hh_l0[:, 2] = 0.0
        below.bias_ih_l0[2], below.bias_hh_l0[2] = 0.5, 0.0
    means = score.means(score.observe(model, x))
    folded, _ = remove(model, "recurrent", SHAPE, CLASSES, hyper, {"hidden.0": np.array([0, 1, 3, 4])}, means)
    torch.testing.assert_close(answer(folded, x), answer(model, x), rtol=0, atol=1e-5)


def test_nothing_is_folded_into_a_transposed_convolution():
    hyper = {"widths": (4, 3), "conv": True}
    model, x = net("autoencoder", **hyper), items()
    keep = {"widths.1": np.array([0, 2])}
    means = score.means(score.observe(model, x))
    folded, _ = remove(model, "autoencoder", SHAPE, CLASSES, hyper, keep, means)
    assert torch.equal(folded.decode[0].bias, model.decode[0].bias)


# ---- scores


def test_weight_norm_equals_a_plain_loop():
    model = net("mlp", hidden=(5, 4))
    for i, name in enumerate(("hidden.0", "hidden.1")):
        weight = model.layers[i].weight.detach().numpy()
        expected = [sum(float(w) ** 2 for w in row) ** 0.5 for row in weight]
        np.testing.assert_allclose(score.weight_norm(model)[name], expected, rtol=1e-6)


@pytest.mark.parametrize(("cell", "gates"), [("rnn", 1), ("gru", 3), ("lstm", 4)])
def test_weight_norm_of_a_recurrent_unit_takes_every_gate(cell, gates):
    model = net("recurrent", cell=cell, hidden=(5,))
    layer = model.layers[0]
    expected = np.zeros(5)
    for unit in range(5):
        for gate in range(gates):
            for matrix in (layer.weight_ih_l0.tolist(), layer.weight_hh_l0.tolist()):
                expected[unit] += sum(w**2 for w in matrix[gate * 5 + unit])
    np.testing.assert_allclose(score.weight_norm(model)["hidden.0"], np.sqrt(expected), rtol=1e-6)


def test_weight_norm_of_maps_and_of_shared_streams_takes_every_writer():
    cnn = net("cnn", plan=("conv 4 3", "conv 3 2 valid"))
    kernels = cnn.steps[2].weight.detach().numpy()
    expected = [np.sqrt((kernels[i] ** 2).sum()) for i in range(3)]
    np.testing.assert_allclose(score.weight_norm(cnn)["plan.1"], expected, rtol=1e-6)
    residual = net("mlp", hidden=(5, 3, 5), residual=True)
    first, _, last = (layer.weight.detach().numpy() for layer in residual.layers)
    expected = np.sqrt((first**2).sum(1) + (last**2).sum(1))
    np.testing.assert_allclose(score.weight_norm(residual)["stream"], expected, rtol=1e-6)
    conv = net("autoencoder", widths=(4, 3), decoder=(5,), conv=True)
    kernels = conv.decode[0].weight.detach().numpy()  # (inputs, outputs, rows, columns)
    expected = [np.sqrt((kernels[:, i] ** 2).sum()) for i in range(5)]
    np.testing.assert_allclose(score.weight_norm(conv)["decoder.0"], expected, rtol=1e-6)


def test_biases_do_not_count_in_the_weight_norm():
    model = net("recurrent", cell="gru", hidden=(5,))
    before = score.weight_norm(model)["hidden.0"]
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "bias" in name:
                p += 10
    np.testing.assert_array_equal(score.weight_norm(model)["hidden.0"], before)


def test_activation_is_what_the_readers_were_given():
    model, x = net("mlp", hidden=(5, 4), activation="tanh", dropout=(0.5, 0.0)).train(), items(1203)
    seen = score.observe(model, x.numpy())
    assert model.training
    with torch.no_grad():
        first = torch.tanh(model.layers[0](x.flatten(1)))
        second = torch.tanh(model.layers[1](first))
    found = score.activation(model, seen)
    np.testing.assert_allclose(found["hidden.0"], first.abs().mean(0), rtol=1e-4)
    np.testing.assert_allclose(found["hidden.1"], second.abs().mean(0), rtol=1e-4)
    np.testing.assert_allclose(score.means(seen)["layers.1.weight"], first.mean(0), atol=1e-5)
    np.testing.assert_allclose(score.means(seen)["head.weight"], second.mean(0), atol=1e-5)


def test_activation_of_a_map_is_taken_over_its_places():
    model, x = net("cnn", plan=("conv 4 3", "pool 2", "conv 3 3"), activation="tanh"), items(9)
    seen = score.observe(model, x)
    with torch.no_grad():
        below = model.steps[:3](x)
        above = model.steps[:5](x)
    np.testing.assert_allclose(score.means(seen)["steps.3.weight"], below.mean((0, 2, 3)), atol=1e-6)
    np.testing.assert_allclose(score.activation(model, seen)["plan.0"], below.abs().mean((0, 2, 3)), rtol=1e-5)
    # The dense head reads every place of a map in a column of its own.
    np.testing.assert_allclose(score.means(seen)["head.weight"], above.flatten(1).mean(0), atol=1e-6)
    np.testing.assert_allclose(score.activation(model, seen)["plan.2"], above.abs().mean((0, 2, 3)), rtol=1e-5)


def test_activation_of_a_recurrent_unit_is_averaged_over_its_readers():
    model, x = net("recurrent", cell="lstm", hidden=(5,)), items(9)
    with torch.no_grad():
        steps, _ = model.layers[0](x.squeeze(1))
    seen = score.observe(model, x)
    np.testing.assert_allclose(score.means(seen)["layers.0.weight_hh_l0"], steps.mean((0, 1)), atol=1e-6)
    np.testing.assert_allclose(score.means(seen)["head.weight"], steps[:, -1].mean(0), atol=1e-6)
    expected = (steps.abs().mean((0, 1)) + steps[:, -1].abs().mean(0)) / 2
    np.testing.assert_allclose(score.activation(model, seen)["hidden.0"], expected, rtol=1e-5)


def test_the_weight_norm_of_given_nodes_is_that_of_what_goes_out():
    mlp, cnn = net("mlp", hidden=(5,)), net("cnn", plan=("conv 3 3", "pool 2"))
    for model, layer, name in ((mlp, mlp.layers[0], "inputs"), (cnn, cnn.head, "features")):
        expected = layer.weight.detach().square().sum(0).sqrt()
        np.testing.assert_allclose(score.weight_norm(model)[name], expected, rtol=1e-6)


def item_loss(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    if hasattr(model, "classify"):
        return -model.classify(x).log_softmax(1)[0, y]
    return (model.reconstruct(x) - x).abs().mean()


DOUBLES = [
    ("mlp", {"hidden": (6, 4), "l2": 0.1}),
    ("mlp", {"hidden": (6, 3, 6), "residual": True}),
    ("cnn", {"plan": ("conv 3 3", "pool 2", "conv 4 3", "dense 5")}),
    ("cnn", {"plan": ("conv 3 3", "pool 2"), "features": (0, 5, 9, 33)}),
    ("resnet", {"maps": (3, 4), "blocks": 1, "batch_norm": True, "activation": "softplus"}),
    ("recurrent", {"cell": "rnn", "hidden": (5,)}),
    ("recurrent", {"cell": "gru", "hidden": (5, 4)}),
    ("recurrent", {"cell": "lstm", "hidden": (5, 4), "biases": 1}),
    ("convlstm", {"maps": (3, 2), "kernel": 3, "hidden": (4,)}),
    ("tdnn", {"hidden": (5, 4), "activation": "tanh"}),
    ("autoencoder", {"widths": (5, 3)}),
    ("autoencoder", {"widths": (4, 3), "conv": True}),
    ("encoder-classifier", {"hidden": (6, 4)}),
]


@pytest.mark.parametrize(("family", "hyper"), DOUBLES)
def test_taylor_equals_a_plain_loop_over_items(family, hyper):
    """What a reader reads times its derivative, over positions, is weight times derivative over the node's column."""
    model, x, y = net(family, **hyper).double(), items(5).double(), torch.tensor([0, 2, 1, 1, 0])
    found = score.taylor(model, x, y if hasattr(model, "classify") else x)
    expected = {nodes.name: np.zeros(nodes.width) for nodes in model.nodes()}
    tensors = dict(model.named_parameters())
    for i in range(5):
        model.zero_grad()
        item_loss(model, x[i : i + 1], y[i]).backward()
        for nodes in model.nodes():
            change = np.zeros(nodes.width)
            for reader in nodes.readers:
                weight = tensors[reader.tensor]
                columns = (weight * weight.grad).detach().movedim(reader.axis, 0).flatten(1).sum(1).numpy()
                for place, column in enumerate(columns):
                    change[place // reader.block % nodes.width] += column
            expected[nodes.name] += np.abs(change) / 5
    for name, values in expected.items():
        assert values.max() > 1e-6
        np.testing.assert_allclose(found[name], values, rtol=1e-9, atol=1e-14)


def test_taylor_of_maps_is_the_published_formula_but_for_the_number_of_places():
    """Molchanov et al. 2017: |mean over a map's places of map times derivative|, averaged over items."""
    model, x, y = net("cnn", plan=("conv 4 3", "conv 3 3", "dense 5")).double(), items(9).double(), torch.arange(9) % 3
    maps = model.steps[:2](x).detach().requires_grad_()
    loss = nn.functional.cross_entropy(model.head(model.steps[2:](maps)), y, reduction="sum")
    (slope,) = torch.autograd.grad(loss, maps)
    theta = (maps.detach() * slope).mean((2, 3)).abs().mean(0)
    np.testing.assert_allclose(score.taylor(model, x, y)["plan.0"], 64 * theta, rtol=1e-9)


def test_taylor_is_the_change_of_loss_to_first_order():
    """Of a linear net: a node's weights turned down and up a little, the loss looked at; for its inputs too."""
    model, x, y = net("mlp", hidden=(5,), activation="linear").double(), items(4).double(), torch.tensor([0, 1, 2, 0])
    found, step = score.taylor(model, x, y), 1e-5
    for name, layer in (("hidden.0", model.head), ("inputs", model.layers[0])):
        for node in range(5):
            change = 0.0
            for sign in (1, -1):
                turned = copy.deepcopy(model)
                weight = turned.head.weight if layer is model.head else turned.layers[0].weight
                with torch.no_grad():
                    weight[:, node] *= 1 + sign * step
                    change += sign * nn.functional.cross_entropy(turned.classify(x), y, reduction="none")
            np.testing.assert_allclose(found[name][node], (change / (2 * step)).abs().mean(), rtol=1e-6)


def test_taylor_takes_batches_and_leaves_the_net_as_it_was():
    model = net("mlp", hidden=(6,), dropout=(0.5,)).train()
    x, y = items(1203), torch.arange(1203) % 3
    found = score.taylor(model, x.numpy(), y.numpy())
    assert model.training and all(p.grad is None for p in model.parameters())
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())
    halves = [score.taylor(model, x[part], y[part]) for part in (slice(0, 600), slice(600, 1203))]
    for name, values in found.items():
        np.testing.assert_allclose(values, (600 * halves[0][name] + 603 * halves[1][name]) / 1203, rtol=1e-4)


@pytest.mark.parametrize(
    ("family", "hyper"),
    [
        ("mlp", {"hidden": (7, 5)}),
        ("cnn", {"plan": ("conv 5 3", "pool 2", "conv 4 3")}),
        ("recurrent", {"cell": "gru", "hidden": (5,)}),
        ("resnet", {"maps": (3, 4), "blocks": 1}),
    ],
)
def test_reconstruction_takes_the_node_that_explains_most_of_what_is_left(family, hyper):
    """Regressions anew at every step, by least squares on the readers' own inputs, reader by reader, place by place."""
    model, x = net(family, **hyper), items(60)
    found, given, readers = reconstruct.reconstruction(model, x), {}, score._readers(model, "input", "output")

    def keep(reader, values):
        given[reader.tensor] = reader, values

    with torch.no_grad(), score._hooked(model, readers.values(), keep):
        model.classify(x)
    tensors = model.state_dict()
    for nodes in model.nodes():
        if nodes.given and nodes.width > 40:
            continue
        problems = []
        for reader in nodes.readers:
            _, values = given[reader.tensor]
            rows = values.movedim(score._axis(tensors[reader.tensor], values), -1).flatten(0, -2).double()
            rows = rows.unflatten(1, (reader.groups, nodes.width, reader.block))
            weight = tensors[reader.tensor].movedim(reader.axis, 0).flatten(1).double()
            weight = weight.unflatten(0, (reader.groups, nodes.width, reader.block))
            own = []
            for g, b in np.ndindex(reader.groups, reader.block):
                a = (rows[:, g, :, b] - rows[:, g, :, b].mean(0)).numpy()
                own.append((a, a @ weight[g, :, b].numpy()))
            total = sum(np.square(wanted).sum() for _, wanted in own)
            problems += [(a, wanted / np.sqrt(total)) for a, wanted in own]
        chosen = []
        for _ in range(nodes.width):
            errors = {}
            for place in set(range(nodes.width)) - set(chosen):
                some = [(a[:, [*chosen, place]], wanted) for a, wanted in problems]
                fits = [wanted - a @ np.linalg.lstsq(a, wanted, rcond=1e-7)[0] for a, wanted in some]
                errors[place] = sum(np.square(fit).sum() for fit in fits)
            if max(errors.values()) - min(errors.values()) < 1e-9:
                break
            chosen.append(min(errors, key=errors.__getitem__))
        order = np.argsort(-found[nodes.name], kind="stable")
        assert order[: len(chosen)].tolist() == chosen and len(chosen) > 1
        np.testing.assert_allclose(np.sort(found[nodes.name]), np.arange(nodes.width) / nodes.width)


def test_of_two_equal_nodes_reconstruction_keeps_one_and_a_silent_one_goes_first():
    model = net("mlp", hidden=(6,))
    with torch.no_grad():
        for part in (model.layers[0].weight, model.layers[0].bias):
            part[4] = part[1]
        model.head.weight[:, 1] *= 3
        model.head.weight[:, 4] *= 3
        model.head.weight[:, 2] = 0
    found = reconstruct.reconstruction(model, items(60))["hidden.0"]
    twins = sorted((found[1], found[4]))
    assert found[2] == 0 and twins[0] == pytest.approx(1 / 6) and twins[1] >= 4 / 6


def test_batch_norm_ranks_by_its_factors():
    cnn = net("cnn", plan=("conv 4 3", "pool 2", "conv 3 3"), batch_norm=True)
    found = score.batch_norm(cnn)
    assert list(found) == ["plan.0", "plan.2"], "nobody scales what is given"
    np.testing.assert_allclose(found["plan.2"], cnn.steps[5].weight.detach().abs(), rtol=1e-6)
    assert cnn.steps[5].weight.min() < 0
    resnet = net("resnet", maps=(3, 4), blocks=1, batch_norm=True)
    np.testing.assert_allclose(score.batch_norm(resnet)["inner.1"], resnet.first[1][1].weight.detach().abs(), rtol=1e-6)


def test_a_layer_without_batch_norm_is_named():
    for model, name in (
        (net("mlp", hidden=(5,)), "hidden.0"),
        (net("cnn", plan=("conv 4 3", "dense 5"), batch_norm=True), "plan.1"),
    ):
        with pytest.raises(AtelierError, match=f"{name} has no batch norm"):
            score.batch_norm(model)


def test_hooks_are_gone_after_observing():
    model = net("mlp", hidden=(5,))
    score.observe(model, items())
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())


def test_a_reader_that_is_never_called_is_named():
    model = net("mlp", hidden=(5,))
    model.spare = nn.Linear(5, 2)
    reader = Reader("spare.weight", module="spare", bias="spare.bias")
    model.nodes = lambda: [Nodes("hidden.0", 5, dense_writers("layers.0"), (reader,))]
    with pytest.raises(AtelierError, match="spare.weight reads at module 'spare'"):
        score.observe(model, items())


def test_lots_are_keyed_by_the_seed():
    model = net("mlp", hidden=(50, 40))
    one, same, other = score.random(model, 3), score.random(model, 3), score.random(model, 4)
    assert all((one[name] == same[name]).all() and not (one[name] == other[name]).any() for name in one)
    assert {name: len(lots) for name, lots in one.items()} == {"hidden.0": 50, "hidden.1": 40, "inputs": 64}
    assert not np.array_equal(one["hidden.0"][:40], one["hidden.1"])


# ---- choices


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=12).flatmap(
        lambda s: st.tuples(st.just(s), st.integers(1, len(s)))
    )
)
@settings(derandomize=True, deadline=None)
def test_the_best_stay_and_of_equals_the_first(case):
    values, count = case
    kept = choose.best({"a": np.array(values, float)}, {"a": count})["a"]
    ranked = sorted(range(len(values)), key=lambda i: (-values[i], i))[:count]
    assert kept.tolist() == sorted(ranked)


@pytest.mark.parametrize(
    ("width", "level", "count"),
    [(10, 0.1, 9), (10, 0.3, 7), (300, 0.75, 75), (100, 0.99, 1), (5, 0.9, 1), (5, 0.5, 3), (4, 0.1, 4), (1, 0.5, 1)],
)
def test_how_many_nodes_stay(width, level, count):
    """Rounded, halves up, of the fraction as it is written: a tenth of 5 is a half although 5 * (1 - 0.9) is less."""
    assert choose.uniform({"a": width}, level, "net") == {"a": count}


def test_a_level_that_empties_a_layer_is_refused_by_model_layer_and_level():
    with pytest.raises(AtelierError) as refused:
        choose.uniform({"wide": 100, "narrow": 4}, 0.9, "study.net")
    assert "study.net at level 0.9" in str(refused.value)
    assert "its layer narrow, which has 4" in str(refused.value)
    assert "\n" not in str(refused.value)


LAYERS = st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=6), min_size=1, max_size=4).map(
    lambda layers: {f"layer.{i}": np.array(values, float) for i, values in enumerate(layers)}
)


@slow_free
@given(scores=LAYERS, level=st.integers(1, 99).map(lambda n: n / 100), powers=st.lists(st.integers(-9, 9), min_size=4))
def test_across_layers_the_share_goes_each_keeps_one_and_its_own_scale_does_not_count(scores, level, powers):
    sizes = {name: len(values) for name, values in scores.items()}
    total = sum(sizes.values())
    stay = (2 * total * (100 - round(100 * level)) + 100) // 200  # halves stay
    if stay < len(sizes):
        with pytest.raises(AtelierError, match="lower the level"):
            choose.across(scores, sizes, level, "net")
        return
    counts = choose.across(scores, sizes, level, "net")
    assert counts.keys() == sizes.keys() and sum(counts.values()) == stay
    assert all(1 <= counts[name] <= sizes[name] for name in sizes)
    scaled = {name: values * 2.0**power for (name, values), power in zip(scores.items(), powers, strict=False)}
    assert choose.across(scaled, sizes, level, "net") == counts
    # Whoever stays without being its layer's best outranks, or equals, whoever goes.
    relative = {name: np.sort(values / (np.linalg.norm(values) or 1))[::-1] for name, values in scores.items()}
    worst = min((relative[name][counts[name] - 1] for name in sizes if counts[name] > 1), default=np.inf)
    assert all(value <= worst for name in sizes for value in relative[name][counts[name] :])


def test_across_layers_fractions_count_the_dense_net_and_the_first_of_equals_stays():
    scores = {"a": np.array([3.0, 4.0, 0.0]), "b": np.zeros(2), "c": np.array([1.0])}
    sizes = {"a": 10, "b": 6, "c": 4}
    assert choose.across(scores, sizes, 0.75, "net") == {"a": 3, "b": 1, "c": 1}
    assert choose.across(scores, sizes, 0.8, "net") == {"a": 2, "b": 1, "c": 1}
    with pytest.raises(AtelierError, match="leaves 2 of its 20 nodes, but each of its 3 layers keeps one"):
        choose.across(scores, sizes, 0.9, "net")


@pytest.mark.parametrize("criterion", ["weight-norm", "taylor"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_torch_pruning_ranks_all_layers_alike(criterion, seed):
    """Its Taylor score is of weights and of the sum over items: with one item, and only the readers' weights, ours."""
    tp = pytest.importorskip("torch_pruning")
    hyper = {"hidden": (8, 6, 6), "activation": "tanh"}  # whose units are never 0, which would be ties
    model, x, y = net("mlp", seed, **hyper), items(1, seed), torch.tensor([seed % CLASSES])
    theirs = copy.deepcopy(model)
    theirs.forward = theirs.classify
    if criterion == "taylor":
        nn.functional.cross_entropy(theirs.classify(x), y).backward()
        importance = tp.importance.GroupTaylorImportance(
            group_reduction="gate", normalizer=lambda changes: changes / changes.norm(), multivariable=True
        )
        scores = score.taylor(model, x, y)
    else:
        importance = tp.importance.GroupMagnitudeImportance(
            group_reduction="first", normalizer=lambda squares: (squares / squares.sum()).sqrt()
        )
        scores = score.weight_norm(model)
    scores = candidates(scores, model)
    tp.pruner.MetaPruner(
        theirs, x, importance, global_pruning=True, pruning_ratio=0.4, ignored_layers=[theirs.head]
    ).step()
    counts = choose.across(scores, {"hidden.0": 8, "hidden.1": 6, "hidden.2": 6}, 0.4, "net")
    ours, changed = remove(model, "mlp", SHAPE, CLASSES, hyper, choose.best(scores, counts))
    assert sum(counts.values()) == 12 and len(set(changed["hidden"])) > 1
    assert [p.shape for p in ours.parameters()] == [p.shape for p in theirs.parameters()]
    torch.testing.assert_close(answer(ours, x), answer(theirs, x), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("metric", "found", "dense", "verdict"),
    [
        ("accuracy", 0.94, 0.95, True),
        ("accuracy", 0.94 - 1e-15, 0.95, True),  # what a mean over seeds may be off by
        ("accuracy", 0.9399, 0.95, False),
        ("accuracy", 0.97, 0.95, True),
        ("mae", 0.105, 0.1, True),
        ("mae", 0.1051, 0.1, False),
        ("mae", 0.01, 0.1, True),
    ],
)
def test_harm_is_more_than_a_point_or_a_twentieth(metric, found, dense, verdict):
    assert choose.harmless(metric, found, dense, 0.01) is verdict


def test_the_strongest_harmless_level_is_chosen():
    assert choose.strongest("accuracy", {0.5: 0.95, 0.1: 0.9, 0.3: 0.96, 0.7: 0.5}, 0.955, 0.01) == 0.5
    assert choose.strongest("accuracy", {0.1: 0.5}, 0.955, 0.01) is None


# ---- schedules


def test_one_shot_always_starts_from_the_dense_net():
    (only,) = schedule.rounds("one-shot", [0.1, 0.5, 0.75])
    assert [(step.start, step.level, step.turn) for step in only] == [(0.0, 0.1, 1), (0.0, 0.5, 1), (0.0, 0.75, 1)]


def test_iterative_goes_on_from_the_level_before():
    found = schedule.rounds("iterative", [0.1, 0.5, 0.75])
    assert [[tuple(step) for step in steps] for steps in found] == [[(0.0, 0.1, 1)], [(0.1, 0.5, 2)], [(0.5, 0.75, 3)]]


def test_an_unknown_schedule_is_refused():
    with pytest.raises(ValueError, match="sudden"):
        schedule.rounds("sudden", [0.5])


def test_fractions_of_later_levels_count_the_dense_nets_nodes():
    """Iterative pruning by these counts ends at the widths of one-shot pruning, and only ever removes."""
    original, model, hyper = {"hidden.0": 13, "hidden.1": 7}, net("mlp", hidden=(13, 7)), {"hidden": (13, 7)}
    for level in (0.2, 0.4, 0.6, 0.8):
        counts = choose.uniform(original, level, "net")
        keep = choose.best(candidates(score.weight_norm(model), model), counts)
        model, hyper = remove(model, "mlp", SHAPE, CLASSES, hyper, keep)
        assert hyper["hidden"] == tuple(counts.values())
    assert hyper["hidden"] == (3, 1)


# ---- the stage


def prune(root: Path, plan: dict | None, models: dict | None = None, hold_out: bool = True) -> list[dict]:
    """Train and prune one study in the project `root`, which is the current folder; pruning.json's points."""
    from atelier.stages import prune, train

    study = {
        "asks": "Does it prune?",
        "dataset": "digits",
        "seeds": 2,
        "train": {"epochs": 4, "batch": 15, "lr": 0.01, "hold_out": hold_out},
        "models": models or {"net": {"family": "mlp", "hidden": [12, 8]}},
        "prune": plan,
        "claims": [],
        "published": {},
        "note": None,
    }
    params = {
        "workers": 1,
        "compute": {"threads": 1, "device": "cpu"},
        "datasets": {"digits": {"validation": 30, "test": 60, "seed": 0}},
        "noise": {"seed": 0},
        "experiments": {},
        "studies": {"tiny": study},
    }
    (root / "params.yaml").write_text(json.dumps(params))
    train.main("tiny")
    prune.main("tiny")
    return json.loads((root / "reports/studies/tiny/pruning.json").read_text())["points"]


def furnish(root: Path) -> None:
    """A data set of items with one bright corner."""
    generator, sums = np.random.default_rng(0), {}
    folder = root / "data" / "noisy" / "digits"
    for part, count in (("train", 90), ("test", 60)):
        y = np.arange(count) % 2
        x = generator.integers(0, 200, (count, 1, 8, 8))
        x[y == 0, :, :4, :4] += 55
        x[y == 1, :, 4:, 4:] += 55
        arrays = {"x": x.astype(np.uint8), "y": y.astype(np.int64), "scale": np.float64(255)}
        if part == "train":
            arrays["validation"] = np.arange(count) % 3 == 0
        files.write_arrays(folder / f"{part}.npz", **arrays)
        sums[f"{part}.npz"] = files.sha256(folder / f"{part}.npz")
    about = {"dataset": "digits", "shape": [1, 8, 8], "classes": ["top", "bottom"], "files": sums}
    files.write_json(folder / "about.json", about)
    (root / "dvc.yaml").write_text("stages: {}\n")


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    furnish(tmp_path)
    return functools.partial(prune, tmp_path)


@pytest.fixture(scope="module")
def pruned(tmp_path_factory):
    """A finished study: its folder, its points, what a second run printed and the points that it wrote."""
    root, printed = tmp_path_factory.mktemp("pruned"), io.StringIO()
    furnish(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.delenv("DVC_ROOT", raising=False)
        with contextlib.redirect_stdout(printed):
            points = prune(root, PRUNE)
        first, files_then = printed.getvalue(), snapshot(root)
        with contextlib.redirect_stdout(printed):
            again = prune(root, PRUNE)
    assert again == points
    return root, points, first, printed.getvalue()[len(first) :], files_then


def snapshot(root: Path) -> dict[str, bytes]:
    """The stage's outputs."""
    found = [root / "reports/studies/tiny/pruning.json", *(root / "models/tiny-pruned").rglob("*.*")]
    return {str(path): path.read_bytes() for path in found if path.is_file()}


PRUNE = {
    "models": ["net"],
    "criteria": ["weight-norm", "activation"],
    "levels": [0.25, 0.5],
    "schedules": ["one-shot", "iterative"],
    "recoveries": ["none", "finetune", "scratch-epochs"],
    "train": {"epochs": 2, "lr": 0.001},
}


def test_the_stage_writes_every_point_once(pruned):
    _, points, printed, _, _ = pruned
    ways = {(p["criterion"], p["schedule"], p["recovery"], p["level"]) for p in points}
    assert len(points) == len(ways) * 2 == (2 * 2 * 3 * 2 + 1) * 2
    assert [p["seed"] for p in points if p["level"] == 0] == [0, 1]
    sizes = {0.0: [12, 8], 0.25: [9, 6], 0.5: [6, 4]}
    for point in points:
        assert point["widths"] == sizes[point["level"]]
        a, b = point["widths"]
        assert point["parameters"] == 64 * a + a + a * b + b + b * 2 + 2
        assert point["multiply_adds"] == 64 * a + a * b + b * 2
        assert 0 <= point["test"]["accuracy"] <= 1 and 0 <= point["validation"]["accuracy"] <= 1
    # A seed: 2 criteria x (one-shot 0.25 and 0.5, iterative 0.5) fine-tuned, 3 nets from scratch that all criteria
    # share; iterative 0.25 is the same work as one-shot 0.25.
    assert "prune tiny: 18 of 18 jobs trained" in printed


def test_the_stage_run_again_trains_nothing_and_writes_the_same_bytes(pruned):
    root, _, _, printed, files_then = pruned
    assert "prune tiny: 0 of 18 jobs trained" in printed
    assert snapshot(root) == files_then
    assert len(files_then) == 1 + 1 + 16 * 3
    assert not list((root / ".atelier").glob("pruned-*"))


def test_scratch_nets_get_the_epochs_of_the_dense_net_and_its_fine_tunings(pruned):
    histories = (json.loads(path.read_text()) for path in (pruned[0] / ".atelier").glob("*/history.json"))
    assert sorted(history["epochs"] for history in histories) == [2] * 12 + [4] * 2 + [6] * 4 + [8] * 2


def test_fine_tuned_nets_lie_where_they_are_named_and_give_their_figures(pruned):
    from atelier import checkpoint, evaluation
    from atelier.data.items import items
    from atelier.data.store import Store

    root, points, *_ = pruned
    tuned = [p for p in points if p["recovery"] == "finetune"]
    store = Store(root / "data/noisy/digits")
    assert len(list((root / "models/tiny-pruned").glob("**/spec.json"))) == len(tuned)
    for p in tuned:
        folder = root / f"models/tiny-pruned/net/{p['seed']}/{p['criterion']}-{p['schedule']}-{p['level']:g}"
        model, spec = checkpoint.load(folder)
        assert spec["settings"]["hidden"] == p["widths"]
        assert evaluation.judge(model, items(store, "test", None, True)) == p["test"]


def test_cut_nets_are_those_that_training_items_call_for(pruned):
    """Pruned once more here: activations and means are taken on the training items, held-out ones left out."""
    from atelier import checkpoint, evaluation
    from atelier.data.items import items
    from atelier.data.store import Store

    root, points, *_ = pruned
    store = Store(root / "data/noisy/digits")
    x, _ = store.split("train", hold_out=True)
    test = items(store, "test", None, True)
    for p in points:
        if p["recovery"] == "none" and p["schedule"] == "one-shot":
            dense, _ = checkpoint.load(root / f"models/tiny/net/{p['seed']}")
            seen = score.observe(dense, x)
            folds = p["criterion"] == "activation"
            scores = candidates(score.activation(dense, seen) if folds else score.weight_norm(dense), dense)
            keep = choose.best(scores, dict(zip(scores, p["widths"], strict=True)))
            means = score.means(seen) if folds else None
            cut, _ = remove(dense, "mlp", store.shape, 2, {"hidden": (12, 8)}, keep, means)
            assert evaluation.judge(cut, test) == pytest.approx(p["test"], abs=1e-6)


def test_rewound_nets_live_their_last_epochs_again(project, tmp_path):
    """Done once more by hand: half of training, the nodes that the whole training calls for, the other half again."""
    from atelier import checkpoint, evaluation, fit
    from atelier.data.items import items
    from atelier.data.store import Store
    from atelier.optim import Optimizer
    from atelier.params import Recipe

    recoveries = ["none", "finetune", "lr-rewind", "rewind", "scratch-madds"]
    plan = {"criteria": ["weight-norm"], "levels": [0.5], "schedules": ["one-shot"], "recoveries": recoveries}
    points = {(p["recovery"], p["seed"]): p for p in project({**PRUNE, **plan}) if p["level"]}
    store = Store(tmp_path / "data/noisy/digits")
    train, test = (items(store, split, None, True) for split in ("train", "test"))
    recipe = Recipe(epochs=4, batch=15, lr=0.01, hold_out=True)
    for seed in (0, 1):
        dense, _ = checkpoint.load(tmp_path / f"models/tiny/net/{seed}")
        keep = choose.best(candidates(score.weight_norm(dense), dense), {"hidden.0": 6, "hidden.1": 4})
        torch.manual_seed(seed)
        early = families.load("mlp")(store.shape, 2, hidden=(12, 8), optimizer=Optimizer("adam", 0.01))
        fit.fit(early, recipe.changed({"span": (0, 2)}), seed, train, ("test", test))
        for recovery, start in (("rewind", early), ("lr-rewind", dense)):
            cut, settings = remove(start, "mlp", store.shape, 2, {"hidden": (12, 8)}, keep)
            again = families.load("mlp")(store.shape, 2, **settings, optimizer=Optimizer("adam", 0.01))
            again.load_state_dict(cut.state_dict())
            fit.fit(again, recipe.changed({"span": (2, 4)}), seed, train, ("test", test))
            assert evaluation.judge(again, test) == pytest.approx(points[recovery, seed]["test"], abs=1e-6)
    # Of 6 epochs of the dense net, 880 multiply-adds an item, so many of a net of 416.
    histories = (json.loads(path.read_text()) for path in tmp_path.glob(".atelier/*/history.json"))
    assert [history["epochs"] for history in histories].count(13) == 2


def test_gradual_pruning_fine_tunes_as_nodes_and_inputs_go(project, tmp_path):
    from atelier import checkpoint

    plan = {"criteria": ["global-taylor"], "levels": [0.5], "schedules": ["gradual"], "inputs": True}
    points = [p for p in project({**PRUNE, **plan, "train": {"epochs": 4, "distil": 0.5}}) if p["level"]]
    assert sorted(p["recovery"] for p in points) == ["finetune"] * 2 + ["scratch-epochs"] * 2
    for p in points:
        a, b, inputs = p["widths"]
        assert a + b + inputs == (12 + 8 + 64) / 2
        assert p["parameters"] == inputs * a + a + a * b + b + b * 2 + 2
        if p["recovery"] == "finetune":
            folder = tmp_path / f"models/tiny-pruned/net/{p['seed']}/global-taylor-gradual-0.5"
            model, spec = checkpoint.load(folder)
            assert len(spec["settings"]["inputs"]) == inputs
            assert all(part.abs().sum() > 0 for layer in model.layers for part in layer.weight.T)
    assert len({tuple(p["widths"]) for p in points if p["seed"] == 0}) == 1


def test_durations_join_those_of_training_outside_the_outputs(pruned):
    root, points, *_ = pruned
    timings = json.loads((root / "reports/timings/tiny.json").read_text())
    tuned = [entry for entry in timings["pruning"] if entry["recovery"] == "finetune"]
    assert len(tuned) == sum(p["recovery"] == "finetune" for p in points)
    assert all(entry["train_s"] > 0 for entry in tuned)
    shapes = {tuple(p["widths"]) for p in points if p["seed"] == 0 and (p["recovery"] == "finetune" or not p["level"])}
    for runtime, batch in itertools.product(("torch", "onnx", "onnx-int8"), (1, 256)):
        own = [r for r in timings["latency"] if (r["runtime"], r["batch"]) == (runtime, batch)]
        assert {tuple(record["widths"]) for record in own} == shapes and len(own) == len(shapes)
        assert own[0]["net"] == "dense" and all(record["median_ms"] > 0 for record in own)
    assert len(timings["jobs"]) == 2
    assert not any("latency" in key or key == "train_s" for point in points for key in point)


def test_a_net_that_onnx_runtime_reads_otherwise_stops_the_stage(project, monkeypatch):
    from atelier import speed

    monkeypatch.setattr(speed, "deviation", lambda *_: 0.01)
    with pytest.raises(AtelierError, match=r"net seed 0 none none none 0: ONNX Runtime is 0.01 off, 0.0001 is allowed"):
        project(PRUNE)
    assert not Path("reports/studies/tiny/pruning.json").exists()


def test_every_point_says_what_its_file_takes(pruned):
    _, points, *_ = pruned
    for p in points:
        assert 4 * p["parameters"] < p["bytes"] < 4 * p["parameters"] + 300
        in_use = p["recovery"] == "finetune" or not p["level"]
        assert (p.get("onnx", 1.0) < 1e-5) == in_use


def test_what_is_chosen_follows_validation_alone(project, monkeypatch):
    """Test figures are turned upside down: the choice must not notice. Validation figures decide it."""
    from atelier import evaluation

    real, by_width = evaluation.judge, {12: 0.9, 9: 0.895, 6: 0.85}

    def judge(model, seen):
        found = real(model, seen)
        held_out = len(seen) == 30
        accuracy = by_width[model.hidden[0]]
        return found | {"accuracy": accuracy if held_out else 1 - accuracy}

    monkeypatch.setattr(evaluation, "judge", judge)
    plan = PRUNE | {"criteria": ["random", "weight-norm"], "schedules": ["one-shot"]}
    points = project(plan)
    assert {(p["recovery"], p["level"]) for p in points if p["chosen"]} == {("finetune", 0.25)}
    assert sum(p["chosen"] for p in points) == 2 * 2
    by_width[6] = 0.89
    assert {(p["recovery"], p["level"]) for p in project(plan) if p["chosen"]} == {("finetune", 0.5)}


def test_without_held_out_items_nothing_is_chosen(project):
    points = project(PRUNE | {"criteria": ["random"], "schedules": ["one-shot"]}, hold_out=False)
    assert not any(p["chosen"] for p in points)
    assert all(p["test"]["accuracy"] is not None and p["validation"]["accuracy"] is None for p in points)


def test_a_reconstruction_is_chosen_by_its_error(project):
    models = {
        "net": {
            "family": "autoencoder",
            "widths": [10, 6],
            "train": {"noise": {"kind": "gaussian", "level": 0.2, "draw": "fresh"}},
        }
    }
    points = project(PRUNE | {"criteria": ["activation"], "schedules": ["one-shot"]}, models)
    assert all(set(p["test"]) == {"mae", "mse", "psnr"} for p in points)
    shown = [p for p in points if p["recovery"] == "finetune" or not p["level"]]
    errors = {level: [p["validation"]["mae"] for p in shown if p["level"] == level] for level in (0.0, 0.25, 0.5)}
    means = {level: np.mean(found) for level, found in errors.items()}
    harmless = [level for level in (0.25, 0.5) if means[level] <= 1.05 * means[0.0]]
    assert {p["level"] for p in points if p["chosen"]} == set(harmless[-1:])


def test_iterative_fine_tunes_even_if_no_point_shows_it(project, tmp_path, capsys):
    points = project(PRUNE | {"criteria": ["random"], "schedules": ["iterative"], "recoveries": ["none"]})
    assert {p["recovery"] for p in points} == {"none"}
    assert [p["widths"] for p in points if p["seed"] == 0] == [[12, 8], [9, 6], [6, 4]]
    assert "prune tiny: 4 of 4 jobs trained" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "models/tiny-pruned").iterdir()] == ["README.md"]


def test_inputs_go_by_the_same_level_and_by_every_schedule(project, tmp_path):
    levels = {0.0: [12, 8, 64], 0.25: [9, 6, 48], 0.5: [6, 4, 32]}
    plan = {"criteria": ["taylor", "global-taylor"], "inputs": True, "recoveries": ["none", "finetune"]}
    points = project(PRUNE | plan)
    for point in points:
        if point["criterion"] == "global-taylor":
            assert sum(point["widths"]) == sum(levels[point["level"]])
        else:
            assert point["widths"] == levels[point["level"]]
        a, b, inputs = point["widths"]
        assert point["parameters"] == inputs * a + a + a * b + b + b * 2 + 2
    spec = json.loads((tmp_path / "models/tiny-pruned/net/0/taylor-iterative-0.5/spec.json").read_text())
    before = json.loads((tmp_path / "models/tiny-pruned/net/0/taylor-iterative-0.25/spec.json").read_text())
    assert len(spec["settings"]["inputs"]) == 32
    assert set(spec["settings"]["inputs"]) < set(before["settings"]["inputs"])


def test_flattened_maps_go_place_by_place(project):
    models = {"net": {"family": "cnn", "plan": ["conv 4 3", "pool 2", "conv 6 3", "pool 2"], "batch_norm": True}}
    plan = {"criteria": ["global-activation"], "recoveries": ["none"], "schedules": ["iterative"], "inputs": True}
    points = project(PRUNE | plan, models)
    assert {p["level"]: sum(p["widths"]) for p in points} == {0.0: 28, 0.25: 21, 0.5: 14}


def test_batch_norm_prunes_a_net_that_has_it(project):
    models = {"net": {"family": "cnn", "plan": ["conv 4 3", "pool 2", "conv 6 3", "pool 2"], "batch_norm": True}}
    plan = {"criteria": ["batch-norm", "global-batch-norm"], "recoveries": ["none"], "schedules": ["one-shot"]}
    found = {(p["criterion"], p["level"]): p["widths"] for p in project(PRUNE | plan, models)}
    assert found["batch-norm", 0.5] == [2, 3]
    assert sum(found["global-batch-norm", 0.5]) == 5


def test_a_study_without_pruning_has_no_points_but_its_outputs(project, tmp_path):
    assert project(None) == []
    assert [path.name for path in (tmp_path / "models/tiny-pruned").iterdir()] == ["README.md"]


@pytest.mark.parametrize(
    ("model", "plan", "said"),
    [
        ({"family": "softmax"}, {}, "family softmax has no nodes"),
        ({"family": "mlp", "hidden": []}, {}, "no hidden layer"),
        (
            {"family": "mlp", "hidden": [12, 4]},
            {"levels": [0.5, 0.9]},
            "tiny.net at level 0.9 leaves no node of its layer hidden.1",
        ),
        (
            {"family": "mlp", "hidden": [2, 2]},
            {"levels": [0.5, 0.75], "criteria": ["global-random"]},
            "tiny.net at level 0.75 leaves 1 of its 4 nodes, but each of its 2 layers keeps one",
        ),
        (
            {"family": "mlp", "hidden": [12]},
            {"criteria": ["global-batch-norm"]},
            "net, but layer hidden.0 has no batch",
        ),
        ({"family": "recurrent", "hidden": [12]}, {"inputs": True}, "family recurrent has no inputs to remove"),
    ],
)
def test_what_cannot_be_pruned_is_refused_before_any_work(project, tmp_path, model, plan, said):
    with pytest.raises(AtelierError) as refused:
        project(PRUNE | plan, {"net": model})
    assert said in str(refused.value)
    assert len(list((tmp_path / ".atelier").glob("*/history.json"))) == 2, "only the dense nets were trained"
