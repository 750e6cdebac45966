"""Training under constraints: against masks and codebooks under autograd, against formulas, stopped and resumed."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from atelier import code, families, fit
from atelier.data.items import Items
from atelier.errors import AtelierError
from atelier.fit import State
from atelier.optim import Optimizer
from atelier.params import Recipe
from atelier.prune import remove

SHAPE, CLASSES, N = (1, 6, 6), 3, 60
NETS = {
    "mlp": {"hidden": (12, 8)},
    "cnn": {"plan": ("conv 6 3", "pool 2", "conv 5 3", "dense 9"), "batch_norm": True},
    "recurrent": {"cell": "gru", "hidden": (9, 7)},
    "resnet": {"maps": (4, 6), "blocks": 1},
}
pytestmark = pytest.mark.usefixtures("one_thread")


def make_items(n: int = N, seed: int = 0) -> Items:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, CLASSES, n)
    x = (rng.random((n, *SHAPE)) * 0.6 + 0.2 * y[:, None, None, None]).clip(0, 1).astype(np.float32)
    x = torch.from_numpy(x)
    return Items(x, x, torch.from_numpy(y))


def make_model(family: str = "mlp", how: str = "sgd", lr: float = 0.1) -> nn.Module:
    torch.manual_seed(5)
    return families.load(family)(SHAPE, CLASSES, **NETS[family], optimizer=Optimizer(how, lr))


def recipe(**changes) -> Recipe:
    return Recipe(**{"epochs": 3, "batch": 16} | changes)


def train(model: nn.Module, how: Recipe, **more) -> State:
    return fit.fit(model, how, 3, make_items(), ("test", make_items(20, seed=1)), **more)


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same(one: dict, other: dict, **tolerance) -> None:
    for name in one:
        torch.testing.assert_close(one[name], other[name], **(tolerance or {"rtol": 0, "atol": 0}))


def plain_steps(how: Recipe, lr: float, loss, parameters: list[torch.Tensor]) -> None:
    """Gradient descent on `loss(x, y)` over the loop's own batches."""
    items = make_items()
    for epoch in range(how.epochs):
        for rows in fit._batches(len(items), how.batch, 3, epoch):
            grads = torch.autograd.grad(loss(items.x[rows], items.y[rows]), parameters)
            with torch.no_grad():
                for parameter, grad in zip(parameters, grads, strict=True):
                    parameter -= lr * grad


@torch.no_grad()
def sparse(model: nn.Module, seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        if weight.dim() > 1:
            weight[torch.rand(weight.shape, generator=generator) < 0.6] = 0.0
    return model


@torch.no_grad()
def shared(model: nn.Module, count: int = 5) -> nn.Module:
    for weight in model.parameters():
        if weight.dim() > 1:
            weight.copy_((weight / weight.abs().max() * count).round() / count * weight.abs().max())
    return model


def test_zeros_stay_and_the_rest_moves_as_under_a_mask():
    model, how = sparse(make_model()), recipe(hold="zeros")
    free = {name: tensor.clone().requires_grad_() for name, tensor in model.named_parameters()}
    masks = {name: (tensor != 0) | (tensor.dim() == 1) for name, tensor in free.items()}
    twin = copy.deepcopy(model)

    def loss(x, y):
        masked = {name: free[name] * masks[name] for name in free}
        return F.cross_entropy(functional_call(twin, masked, (x,)), y)

    twin.forward = twin.classify
    plain_steps(how, 0.1, loss, list(free.values()))
    train(model, how)
    assert_same(dict(model.named_parameters()), {n: (free[n] * masks[n]).detach() for n in free}, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", NETS)
@pytest.mark.parametrize("how", ["adam", "momentum", "rmsprop"])
def test_whatever_steps_zeros_stay(family, how):
    model = sparse(make_model(family, how, 0.01))
    before = weights(model)
    train(model, recipe(hold="zeros", weight_average=0.1))
    for name, weight in model.named_parameters():
        if weight.dim() > 1:
            assert torch.equal(weight == 0, before[name] == 0)
            assert not torch.equal(weight, before[name])


def test_shared_values_move_as_a_codebook_does():
    model, how = shared(make_model()), recipe(hold="values")
    books, places = {}, {}
    for name, weight in model.named_parameters():
        values, places[name] = weight.detach().unique(return_inverse=True)
        books[name] = values.requires_grad_()
    held = {name: ((book != 0) | (places[name].dim() == 1)).detach() for name, book in books.items()}
    twin = copy.deepcopy(model)
    twin.forward = twin.classify

    def loss(x, y):
        whole = {name: (book * held[name])[places[name]] for name, book in books.items()}
        return F.cross_entropy(functional_call(twin, whole, (x,)), y)

    plain_steps(how, 0.1, loss, list(books.values()))
    train(model, how)
    expected = {name: (book * held[name])[places[name]].detach() for name, book in books.items()}
    assert_same(dict(model.named_parameters()), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", NETS)
@pytest.mark.parametrize("how", ["adam", "adamw", "momentum"])
def test_whatever_steps_what_is_equal_stays_equal(family, how):
    model = shared(make_model(family, how, 0.01))
    before = weights(model)
    train(model, recipe(hold="values"))
    for name, weight in model.named_parameters():
        values, places = before[name].unique(return_inverse=True)
        assert len(weight.unique()) <= len(values)
        assert all(len(weight[places == i].unique()) == 1 for i in range(len(values)))
        if weight.dim() > 1:
            assert (weight[before[name] == 0] == 0).all()


def test_the_proximal_step_is_that_of_group_lasso():
    """One full-batch step, then every group's length falls by lr * rate * sqrt(size), to zero at most."""
    model, lr, rate = make_model("recurrent", "sgd", 0.05), 0.05, 0.3
    plain = copy.deepcopy(model)
    train(plain, recipe(epochs=1, batch="full"))
    train(model, recipe(epochs=1, batch="full", group_lasso=rate))
    state, found = plain.state_dict(), model.state_dict()
    expected = {name: tensor.clone() for name, tensor in state.items()}
    names = ["layers.0.weight_hh_l0", "layers.1.weight_ih_l0", "layers.1.weight_hh_l0", "head.weight"]
    for width, readers in ((9, names[:2]), (7, names[2:])):
        for unit in range(width):
            columns = [state[name][:, unit] for name in readers]
            length = torch.cat(columns).norm()
            threshold = lr * rate * sum(map(len, columns)) ** 0.5
            for name in readers:
                expected[name][:, unit] *= max(0.0, 1 - threshold / length)
    assert_same(found, expected, rtol=1e-5, atol=1e-7)


def test_a_strong_penalty_silences_nodes_and_they_can_go():
    model = make_model("mlp", "adam", 0.01)
    train(model, recipe(epochs=20, group_lasso=0.5))
    keep = remove.read(model)
    assert all(map(len, keep.values()))
    assert len(keep["hidden.0"]) + len(keep["hidden.1"]) < 15
    smaller, _, _ = remove.unread(model, "mlp", SHAPE, CLASSES, NETS["mlp"])
    x = make_items().x
    torch.testing.assert_close(smaller.classify(x), model.classify(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("criterion", ["weight-norm", "taylor", "activation", "random", "global-taylor"])
@pytest.mark.parametrize("family", NETS)
def test_nodes_fall_silent_until_the_level_is_reached_and_stay_so(family, criterion):
    model = make_model(family, "adam", 0.01)
    whole = sum(nodes.width for nodes in model.nodes() if not nodes.given)
    silent = []

    def look(state: State) -> None:
        kept = remove.read(model)
        silent.append({(name, i) for name, found in kept.items() for i in set(range(99)) - set(found)})

    train(model, recipe(epochs=6, thin={"level": 0.5, "criterion": criterion, "until": 0.5}), after_epoch=look)
    assert all(before <= after for before, after in zip(silent, silent[1:], strict=False))
    assert silent[3] == silent[-1]
    kept = remove.read(model)
    left = sum(len(kept[nodes.name]) for nodes in model.nodes() if not nodes.given)
    assert abs(left - whole / 2) <= len(NETS[family]) * 2


@pytest.mark.parametrize(
    ("family", "keep"),
    [("mlp", {"inputs": 7, "hidden.1": 3}), ("cnn", {"plan.0": 2, "features": 20, "plan.3": 4}), ("resnet", {})],
)
def test_so_many_nodes_stay_as_are_asked_for(family, keep):
    model = make_model(family, "adam", 0.01)
    keep = keep or {model.nodes()[-1].name: 2}
    train(model, recipe(epochs=4, thin={"keep": keep, "criterion": "taylor", "until": 0.7}))
    kept, widths = remove.read(model), {nodes.name: nodes.width for nodes in model.nodes()}
    assert {name: len(kept[name]) for name in keep} == keep
    apart = {reader.tensor for nodes in model.nodes() if nodes.name in keep for reader in nodes.readers}
    others = [nodes.name for nodes in model.nodes() if not apart & {reader.tensor for reader in nodes.readers}]
    assert all(len(kept[name]) == widths[name] for name in others)


@pytest.mark.parametrize("level", [0.5, 0.9])
def test_the_smallest_weights_of_all_layers_go(level):
    model = make_model("mlp", "adam", 0.01)
    train(model, recipe(epochs=4, thin={"what": "weights", "level": level}))
    of_layers = [weight for weight in model.parameters() if weight.dim() > 1]
    total = sum(weight.numel() for weight in of_layers)
    assert sum(int((weight == 0).sum()) for weight in of_layers) == round(level * total)


@pytest.mark.parametrize(
    "changes",
    [{"hold": "zeros"}, {"hold": "values"}, {"group_lasso": 0.05}, {"thin": {"level": 0.5, "criterion": "taylor"}}],
)
def test_stopped_and_resumed_gives_the_same_bytes(changes):
    how = recipe(epochs=5, **changes)
    whole, kept = shared(sparse(make_model("cnn", "adam", 0.01))), []
    train(whole, how, after_epoch=lambda state: kept.append(copy.deepcopy(state)))
    resumed = make_model("cnn", "adam", 0.01)
    train(resumed, how, state=kept[2])
    assert_same(weights(whole), weights(resumed))


def test_a_span_is_a_part_of_the_whole():
    """Gradient descent has no memory but the weights, so the halves give the whole."""
    whole, parts = make_model(), make_model()
    train(whole, recipe(epochs=4, schedule="cosine"))
    first = train(parts, recipe(epochs=4, schedule="cosine", span=(0, 2)))
    second = train(parts, recipe(epochs=4, schedule="cosine", span=(2, 4)))
    assert_same(weights(whole), weights(parts))
    assert ([row["epoch"] for row in first.curve], [row["epoch"] for row in second.curve]) == ([1, 2], [3, 4])


def test_distilling_a_net_from_itself_leaves_it_alone():
    model = make_model()
    before = weights(model)
    train(model, recipe(distil=1.0), teacher=copy.deepcopy(model))
    assert_same(before, weights(model), rtol=0, atol=1e-6)


@given(share=st.floats(0.1, 1.0))
@settings(max_examples=10, deadline=None)
def test_the_target_is_a_mixture_of_the_label_and_the_teachers_belief(share):
    model, teacher = make_model(), make_model("cnn")
    items, lr = make_items(), 0.1
    belief = teacher.eval().classify(items.x).softmax(1).detach()
    target = (1 - share) * F.one_hot(items.y, CLASSES) + share * belief
    loss = F.cross_entropy(model.classify(items.x), target)
    grads = torch.autograd.grad(loss, list(model.parameters()))
    expected = [parameter.detach() - lr * grad for parameter, grad in zip(model.parameters(), grads, strict=True)]
    train(model, recipe(epochs=1, batch="full", distil=share), teacher=teacher)
    for parameter, wanted in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.detach(), wanted, rtol=1e-5, atol=1e-6)


def test_what_cannot_be_is_refused():
    with pytest.raises(AtelierError, match="distil needs a teacher"):
        train(make_model(), recipe(distil=0.5))
    torch.manual_seed(0)
    softmax = families.load("softmax")(SHAPE, CLASSES)
    with pytest.raises(AtelierError, match="thin needs a family with nodes"):
        train(softmax, recipe(thin={"level": 0.5}))
    with pytest.raises(AtelierError, match="group_lasso needs a family with nodes"):
        train(softmax, recipe(group_lasso=0.1))
    for keep, said in (
        ({"hidden.7": 1}, "hidden.7, which has no score here; did you mean hidden.[01]"),
        ({"hidden.0": 13}, "13 nodes of hidden.0, which has 12; give fewer"),
    ):
        with pytest.raises(AtelierError, match=said):
            train(make_model(), recipe(thin={"keep": keep}))
    for wrong, said in (
        ({"thin": {}}, "level and keep, or neither"),
        ({"thin": {"level": 0.5, "keep": {"hidden.0": 1}}}, "level and keep, or neither"),
        ({"thin": {"what": "weights", "keep": {"hidden.0": 1}}}, "drop what: weights"),
        ({"span": (2, 2)}, "two epochs that rise"),
        ({"span": (0, 9)}, "two epochs that rise"),
        ({"thin": {"level": 0.5}, "weight_average": 0.1}, "weight_average keeps"),
        ({"group_lasso": 0.1, "weight_average": 0.1}, "weight_average keeps"),
    ):
        with pytest.raises(ValidationError, match=said):
            recipe(**wrong)


def test_only_recipes_that_call_for_it_depend_on_its_code():
    plain, held = code.called_by(recipe()), code.called_by(recipe(hold="zeros"))
    assert (plain, held) == ((), ("sparsity",))
    assert code.of_family("mlp", plain) == code.of_family("mlp") != code.of_family("mlp", held)
