"""ONNX: graphs answer as torch does, whole, pruned, of low rank and in 8-bit integers; what has none says why."""

import tempfile

import numpy as np
import pytest
import torch
from test_families import CASES, CLASSES, SHAPE, _shaken, build

from atelier import onnx, tensor_train
from atelier.cost import forward
from atelier.errors import AtelierError
from atelier.prune import choose, score
from atelier.prune.remove import remove

BATCHES = (1, 7, 256)
NONE = {
    "channel-statistics": "cannot be exported",  # ONNX has no Fourier transform of real numbers that torch writes
    "gan": "neither classifies nor reconstructs",
}
EXPORTED = [(name, settings) for name, settings in CASES if name not in NONE]


@pytest.fixture(autouse=True)
def _one_thread(one_thread):
    """As the sessions have."""


def items(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((count, *SHAPE), dtype=np.float32)


def said(model: torch.nn.Module, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return forward(model.eval())(torch.from_numpy(x)).numpy()


def assert_same(model: torch.nn.Module) -> None:
    graph = onnx.session(onnx.export(model, SHAPE))
    for count in BATCHES:
        x = items(count)
        np.testing.assert_allclose(onnx.run(graph, x), said(model, x), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("name", "settings"), EXPORTED, ids=[f"{n}-{i}" for i, (n, _) in enumerate(EXPORTED)])
def test_a_graph_answers_as_its_net_does_before_and_after_pruning(name, settings):
    model = _shaken(build(name, settings))
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    assert_same(model)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    for inputs in (False, True) if hasattr(model, "nodes") else ():
        counts = {nodes.name: max(1, nodes.width // 2) for nodes in choose.candidates(model, inputs)}
        if counts:
            keep = choose.best({key: score.weight_norm(model)[key] for key in counts}, counts)
            assert_same(remove(model, name, SHAPE, CLASSES, settings, keep)[0])


@pytest.mark.parametrize(("name", "reason"), NONE.items())
def test_a_family_that_cannot_be_exported_says_so_in_one_line(name, reason):
    with pytest.raises(AtelierError, match=f"family {name} {reason}") as refused:
        onnx.export(build(name, {}), SHAPE)
    assert "\n" not in str(refused.value)


def test_a_layer_of_cores_has_a_graph_too():
    model = build("mlp", {"hidden": (12, 6)})
    first = model.layers[0]
    model.layers[0] = tensor_train.Dense(tensor_train.decompose(first.weight, (3, 4), (8, 8), 3), first.bias)
    assert_same(model)


def test_export_leaves_the_net_in_training_and_of_its_class():
    model = build("recurrent", {"cell": "gru", "hidden": (5,)}).train()
    kind = type(model.layers[0])
    onnx.export(model, SHAPE)
    assert model.training and type(model.layers[0]) is kind


def products_saturate() -> bool:
    """Whether this CPU adds up pairs of 8-bit products in 16 bits, as those without VNNI do; large ones overflow."""
    from onnx import TensorProto, helper

    shapes = {"a": (TensorProto.UINT8, [1, 64]), "b": (TensorProto.INT8, [64, 32]), "y": (TensorProto.INT32, [1, 32])}
    *given, told = (helper.make_tensor_value_info(name, *shape) for name, shape in shapes.items())
    graph = helper.make_graph([helper.make_node("MatMulInteger", ["a", "b"], ["y"])], "product", given, [told])
    content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8).SerializeToString()
    a, b = np.full((1, 64), 255, np.uint8), np.full((64, 32), 127, np.int8)
    (found,) = onnx.session(content).run(None, {"a": a, "b": b})
    return not np.array_equal(found, a.astype(np.int32) @ b.astype(np.int32))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("mlp", {"hidden": (64, 32)}),
        ("cnn", {"plan": ("conv 16 3", "pool 2", "dense 32"), "batch_norm": True}),
        ("recurrent", {"cell": "lstm", "hidden": (32,)}),
        ("autoencoder", {"widths": (48, 24)}),
    ],
)
def test_eight_bits_are_smaller_and_say_nearly_the_same(name, settings, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    model = _shaken(build(name, settings))
    x = items(200)
    whole = onnx.export(model, SHAPE)
    small = onnx.int8(whole, x)
    assert len(small) < 0.6 * len(whole)
    found, exact = onnx.run(onnx.session(small), x), said(model, x)
    share = 0.3 if name == "recurrent" and products_saturate() else 0.05
    assert np.abs(found - exact).mean() < share * np.abs(exact - exact.mean(axis=0)).max()
    assert not np.array_equal(found, exact)
    assert not list(tmp_path.iterdir()), "no temporary file is left"
