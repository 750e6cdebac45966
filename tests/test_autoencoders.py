"""Autoencoders and what is learned with them: the sources' sizes, tied weights, two stages, narrow layers, by hand."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_params
from torch import nn
from torch.nn import functional as F

from atelier import checkpoint, experiments, families, files, jobs, params, paths
from atelier.byhand import inference
from atelier.data.items import Items
from atelier.data.store import Store
from atelier.errors import AtelierError
from atelier.fit import fit
from atelier.optim import Optimizer
from atelier.params import Recipe
from atelier.report import tables

ROOT = Path(__file__).parents[1]
SHAPE, CLASSES = (1, 6, 6), 4


def build(family: str, **settings) -> nn.Module:
    torch.manual_seed(0)
    return families.load(family)(SHAPE, CLASSES, **settings)


def shaken(model: nn.Module) -> nn.Module:
    """Biases start at 0; here they must not, or a lost one would not show."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.normal_(std=0.3)
    return model


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.fixture
def x() -> torch.Tensor:
    return torch.rand(12, *SHAPE, generator=torch.Generator().manual_seed(1))


# ---- the four of the source


@pytest.mark.parametrize("study", ["autoencoders", "autoencoders-mnist"])
def test_the_studies_train_the_four_nets_with_the_parameters_that_are_published(study):
    entry = params.load(ROOT / "params.yaml", families=False).study(study)
    found = {}
    for name, model in entry.models.items():
        net = families.load(model.family)((1, 28, 28), 10, **model.settings)
        found[name] = count(net)
        if name.endswith("-noised"):
            assert found[name] == found[name.removesuffix("-noised")]
    published = {name: said["parameters"] for name, said in entry.published.items()}
    assert published == {"dense-32": 50_992, "dense-128-32": 209_968, "convolutional": 3_801, "denoising": 19_105}
    assert {name: found[name] for name in published} == published


def test_a_convolutional_net_rebuilds_alike_in_whatever_order_its_memory_lies(x):
    model = shaken(build("autoencoder", widths=(5, 3), conv=True))
    last = model.reconstruct(x)
    for layer in (*model.encode, *model.decode):
        assert layer.weight.is_contiguous(memory_format=torch.channels_last)
        layer.weight.data = layer.weight.data.contiguous()
    torch.testing.assert_close(model.reconstruct(x), last, rtol=0, atol=1e-6)


@pytest.mark.parametrize("widths, conv, size", [((9,), False, 9), ((4, 2), True, 8), ((9, 40), False, None)])
def test_only_a_code_smaller_than_an_item_has_a_size_for_pca_to_match(widths, conv, size):
    assert build("autoencoder", widths=widths, conv=conv).code_size == size


# ---- tied weights


def test_a_tied_net_is_the_untied_one_whose_decoder_holds_the_encoders_weights_transposed(x):
    """Its gradient by a matrix is the sum of those by the two matrices that it stands for."""
    tied = shaken(build("autoencoder", widths=(9, 4), tied=True, activation="tanh"))
    untied = build("autoencoder", widths=(9, 4), activation="tanh")
    with torch.no_grad():
        for ours, theirs in zip(tied.encode, untied.encode, strict=True):
            theirs.load_state_dict(ours.state_dict())
        for layer, ours, theirs in zip(reversed(tied.encode), tied.decode, untied.decode, strict=True):
            theirs.weight.copy_(layer.weight.T)
            theirs.bias.copy_(ours.bias)
    torch.testing.assert_close(tied.reconstruct(x), untied.reconstruct(x))
    for model in (tied, untied):
        next(model.losses(x, x))["loss"].backward()
    for layer, down, up in zip(tied.encode, untied.encode, reversed(untied.decode), strict=True):
        torch.testing.assert_close(layer.weight.grad, down.weight.grad + up.weight.grad.T)
    for ours, theirs in zip(tied.decode, untied.decode, strict=True):
        torch.testing.assert_close(ours.bias.grad, theirs.bias.grad)
    assert count(untied) - count(tied) == 36 * 9 + 9 * 4


def test_a_tied_net_is_saved_once_and_says_that_it_has_no_nodes(tmp_path, x):
    model = build("autoencoder", widths=(9, 4), tied=True)
    assert sorted(model.state_dict()) == sorted(name for name, _ in model.named_parameters())
    assert model.nodes() == []
    spec = {"family": "autoencoder", "shape": SHAPE, "classes": CLASSES, "settings": {"widths": [9, 4], "tied": True}}
    checkpoint.save(tmp_path, spec, model)
    again, _ = checkpoint.load(tmp_path)
    assert torch.equal(again.reconstruct(x), model.reconstruct(x))


# ---- two stages


def cross_entropy(rebuilt: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    """Mean over pixels, from its definition, in float64."""
    p, t = rebuilt.double(), clean.double()
    return -(t * p.log() + (1 - t) * (1 - p).log()).mean()


@pytest.mark.parametrize("tied", [True, False])
def test_the_first_stage_trains_the_encoder_and_leaves_the_head(tied, x):
    model = build("encoder-classifier", hidden=(9, 5), tied=tied)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    net = shaken(model.pretrain(Optimizer("sgd", 0.1)))
    assert net.reconstruct(x).shape == x.shape
    assert count(net) == 36 * 9 + 9 * 5 + 9 + 5 + (9 + 36) + (0 if tied else 36 * 9 + 9 * 5)
    damaged = x * (x > 0.3)
    (out,) = net.losses(damaged, x)
    torch.testing.assert_close(out["loss"].double(), cross_entropy(net.reconstruct(damaged), x), rtol=1e-5, atol=0)
    everything = Items(damaged, x, torch.zeros(len(x), dtype=torch.int64))
    fit(net, Recipe(epochs=3, batch=4, lr=0.1), 0, everything, ("test", everything))
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {name for name in before if name.startswith("encode")}
    assert all(parameter.grad is None for parameter in model.head.parameters())


def test_the_code_that_is_rebuilt_from_is_the_one_that_the_head_reads(x):
    model = shaken(build("encoder-classifier", hidden=(9, 5)))
    code = F.relu(model.encode[1](F.relu(model.encode[0](x.flatten(1)))))
    torch.testing.assert_close(model.classify(x), model.head(code))
    net = shaken(model.pretrain(Optimizer()))
    code = F.relu(model.encode[1](F.relu(model.encode[0](x.flatten(1)))))
    up = F.relu(code @ model.encode[1].weight + net.decode[0].bias)
    logits = up @ model.encode[0].weight + net.decode[1].bias
    torch.testing.assert_close(net.reconstruct(x).flatten(1), logits.sigmoid())


def test_a_job_learns_from_all_items_without_labels_and_then_from_a_few_with(project):
    first = {"items": None, "epochs": 3, "noise": {"kind": "masking", "level": 0.25, "draw": "fresh"}}
    net = {"family": "encoder-classifier", "hidden": [12, 6]}
    models = {"scratch": net, "two-stages": net | {"train": {"pretrain": first}}}
    write_params(project, models, items=16, epochs=2)
    scratch, two = jobs.of_study(params.load(), "tiny")
    weights = {}
    for job in (scratch, two):
        assert jobs.train(job)
        weights[job.model] = checkpoint.read_weights(job.folder)
    assert weights["scratch"].keys() == weights["two-stages"].keys()
    assert not torch.equal(weights["scratch"]["encode.0.weight"], weights["two-stages"]["encode.0.weight"])
    history = files.read_json(two.folder / "history.json")
    assert [len(history[stage]) for stage in ("pretraining", "curve")] == [3, 2]
    assert history["pretraining"][-1]["train.mae"] < history["pretraining"][0]["train.mae"]


def test_a_page_names_the_keys_of_a_first_training():
    first = {"epochs": 3, "items": 50, "noise": {"kind": "masking", "level": 0.25, "draw": "fresh"}}
    shown = tables._listed({"batch": 20, "pretrain": first})
    assert shown == "batch 20, pretrain (epochs 3, items 50, noise masking 0.25 fresh)"


# ---- an activation for each layer


def test_a_dense_net_may_have_an_activation_for_each_layer(x):
    model = shaken(build("mlp", hidden=(7, 5), activation=("sigmoid", "relu")))
    first, second = model.layers
    expected = model.head(F.relu(second(first(x.flatten(1)).sigmoid())))
    torch.testing.assert_close(model.classify(x), expected)


def test_one_activation_for_all_is_what_it_was(x):
    one, each = (build("mlp", hidden=(7, 5), activation=name) for name in ("tanh", ("tanh", "tanh")))
    assert list(one.state_dict()) == list(each.state_dict())
    assert torch.equal(one.classify(x), each.classify(x))
    assert "activation.weight" in build("mlp", hidden=(7, 5), activation="prelu").state_dict()


@pytest.mark.parametrize(
    "given, fault", [(["sigmoid", "relo"], "did you mean relu?"), ("relo", "did you mean relu?"), (["relu"], "1 names")]
)
def test_an_unknown_activation_of_one_layer_is_told_in_one_line(given, fault, project):
    write_params(project, {"net": {"family": "mlp", "hidden": [7, 5], "activation": given}})
    with pytest.raises(AtelierError) as refused:
        params.load()
    assert fault in str(refused.value) and "\n" not in str(refused.value)


# ---- by matrix products alone


def test_a_file_is_read_as_it_was_written_and_answers_as_torch_does(tmp_path):
    torch.manual_seed(0)
    layers = [nn.Linear(11, 7), nn.Linear(7, 6), nn.Linear(6, 5), nn.Linear(5, 3)]
    names = ("logistic", "relu", "tanh", "softmax")
    net = [
        inference.Dense(layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy(), name)
        for layer, name in zip(layers, names, strict=True)
    ]
    inference.write(tmp_path / "weights.txt", net)
    again = inference.read(tmp_path / "weights.txt")
    for before, after in zip(net, again, strict=True):
        assert (before.weights == after.weights).all() and (before.biases == after.biases).all()
        assert before.function == after.function
    x = torch.randn(50, 11, dtype=torch.float64)
    functions = (torch.sigmoid, torch.relu, torch.tanh, lambda v: v.softmax(1))
    y = x
    for layer, function in zip(layers, functions, strict=True):
        y = function(layer.double()(y))
    np.testing.assert_allclose(inference.answers(again, x.numpy()), y.detach().numpy(), rtol=1e-12)


def test_the_example_in_the_formats_description_is_one(tmp_path):
    shown = inference.__doc__.split("\n\n")[2]
    (tmp_path / "weights.txt").write_text("\n".join(line.strip() for line in shown.splitlines()) + "\n")
    first, second = inference.read(tmp_path / "weights.txt")
    assert first.weights.tolist() == [[0.5, -1.25, 2], [1, 0, 0.75]] and second.biases.tolist() == [0, 0.5]
    # Units give 0.1 and 0.8, logits -0.7 and 1.2.
    found = inference.answers([first, second], np.array([[1.0, 0.4, 0.0]]))
    np.testing.assert_allclose(found[0, 0], 1 / (1 + np.exp(1.9)), rtol=1e-12)


@pytest.mark.parametrize(
    "content, fault",
    [
        ("2 1 relu\n1 2 3\n1 1 relo\n1 0\n", "layer 2: there is no function relo; did you mean relu?"),
        ("2 2 relu\n1 2 3\n", "layer 1"),
        ("2 1 relu\n1 2\n", "layer 1"),
        ("2 one relu\n1 2 3\n", "layer 1"),
        ("2 1\n1 2 3\n", "layer 1"),
    ],
)
def test_a_file_that_is_not_as_described_is_refused_by_its_layer(content, fault, tmp_path):
    (tmp_path / "weights.txt").write_text(content)
    with pytest.raises(AtelierError) as refused:
        inference.read(tmp_path / "weights.txt")
    assert fault in str(refused.value) and "\n" not in str(refused.value)


def test_the_experiment_compares_numpy_with_a_framework_that_may_differ(project, monkeypatch):
    module, store = experiments.load("numpy-inference"), Store(paths.noisy("digits"))
    found = module.measure(0, store, hidden=(7, 5), epochs=3)
    assert found["test.deviation"] < 1e-14 < found["test.deviation_float32"] < 1e-5
    assert sum(found["series"]["float64"]) == sum(found["series"]["float32"]) == 96 + 40  # every image, in some bin
    read = inference.read
    monkeypatch.setattr(inference, "read", lambda path: read(path)[:-1] + [with_other_bias(read(path)[-1])])
    assert module.measure(0, store, hidden=(7, 5), epochs=3)["test.deviation"] > 1e-5


def with_other_bias(layer: inference.Dense) -> inference.Dense:
    return inference.Dense(layer.weights, layer.biases + np.array([1e-3, 0, 0, 0]), layer.function)


# ---- narrow layers


def test_the_narrow_layers_features_are_what_its_readers_get(x):
    module = experiments.load("bottleneck-features")
    model = shaken(build("mlp", hidden=(8, 2, 6), activation=("relu", "linear", "relu")))
    seen = []
    model.layers[2].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model.classify(x)
    assert torch.equal(module.narrow(model, x), seen[0])


def test_settings_are_chosen_on_validation_and_not_on_test():
    """Training labels are noisy, so many neighbours are right on clean validation items; test labels are turned."""
    judge, rng = experiments.load("bottleneck-features").judge, np.random.default_rng(0)
    seen = [rng.standard_normal((count, 2)) for count in (400, 200, 200)]
    labels = [(part[:, 0] > 0).astype(np.int64) for part in seen]
    labels[0] = np.where(rng.random(400) < 0.3, 1 - labels[0], labels[0])
    figures, chosen = judge(seen, labels)
    assert chosen["neighbours"] > 1 and figures["neighbours"] > 0.85
    turned, same = judge(seen, [*labels[:2], 1 - labels[2]])
    assert same == chosen and turned["neighbours"] == pytest.approx(1 - figures["neighbours"])
    assert figures["nll"] < np.log(2) < turned["nll"]


def test_items_are_drawn_by_the_seed_from_what_is_not_held_out(project):
    module, store = experiments.load("bottleneck-features"), Store(paths.noisy("digits"))

    def draw(seed: int, split: str, count: int | None) -> np.ndarray:
        return module.drawn(store, split, count, np.random.default_rng(seed)).x.flatten(1).numpy()

    whole = {split: store.split(split, hold_out=True)[0].reshape(-1, 36) for split in ("train", "validation", "test")}
    for split, seed in itertools.product(("train", "validation"), (0, 1)):
        found = draw(seed, split, 20)
        assert len(np.unique(found, axis=0)) == 20
        assert all((whole[split] == item).all(axis=1).any() for item in found)
    assert (draw(0, "train", 20) == draw(0, "train", 20)).all() and (draw(0, "train", 20) != draw(1, "train", 20)).any()
    assert (draw(0, "test", None) == whole["test"]).all()


@pytest.mark.parametrize("settings", [{"features": "pixels", "width": 3}, {"features": "pca"}])
def test_a_width_goes_with_features_that_have_one(settings):
    with pytest.raises(AtelierError, match="give a width to bottleneck and pca"):
        experiments.load("bottleneck-features").measure(0, None, **settings)
