"""Boltzmann machines: free energies and partition functions against sums over all states, updates against formulas."""

import itertools
import math

import numpy as np
import pytest
import torch
from conftest import write_params
from torch import nn
from torch.nn import functional as F

from atelier import assess, evaluation, families, files, partition, paths
from atelier.assess import rbm as judge
from atelier.contrastive import SLIDE, Learner, Machine
from atelier.data.items import Items, items
from atelier.data.store import Store
from atelier.draws import base_rates, bits
from atelier.fit import fit
from atelier.optim import Optimizer
from atelier.params import Recipe
from atelier.report import drawing
from atelier.stages import evaluate, report, train

pytestmark = pytest.mark.usefixtures("one_thread")
VISIBLE, HIDDEN = 6, 4


@pytest.fixture
def machine() -> Machine:
    """Small, with weights that matter."""
    draw = torch.Generator().manual_seed(1)
    return Machine(*(torch.randn(*shape, generator=draw) for shape in ((HIDDEN, VISIBLE), (VISIBLE,), (HIDDEN,))))


def states(count: int) -> np.ndarray:
    return np.array(list(itertools.product((0.0, 1.0), repeat=count)))


def table(machine: Machine) -> np.ndarray:
    """exp(-E) of every pair of states, (2^visible, 2^hidden) in float64, from the energy alone."""
    w, a, c = (part.numpy().astype(np.float64) for part in (machine.weight, machine.visible, machine.hidden))
    v, h = states(len(a)), states(len(c))
    return np.exp((v @ a)[:, None] + (h @ c)[None] + np.einsum("vi,hj,ji->vh", v, h, w))


def learner(seed: int = 0, shake: float = 0.3, **settings) -> Learner:
    torch.manual_seed(seed)
    made = Learner(nn.Linear(VISIBLE, HIDDEN), **settings)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(shake * torch.randn_like(parameter))
        for offset in (made.visible_mean, made.hidden_mean):
            if offset is not None:
                offset.copy_(torch.rand_like(offset))
    return made


# ---- the distribution


def test_free_energy_sums_the_hidden_bits_out(machine):
    v = torch.from_numpy(states(VISIBLE)).float()
    assert machine.free_energy(v).numpy() == pytest.approx(-np.log(table(machine).sum(1)), abs=1e-5)


def test_log_z_is_the_sum_over_all_states_and_too_many_are_refused(machine):
    assert partition.exact(machine) == pytest.approx(math.log(table(machine).sum()), abs=1e-6)
    with pytest.raises(ValueError, match="21 hidden units have too many states to sum over; give 20 at most"):
        partition.exact(Machine(torch.zeros(21, 2), torch.zeros(2), torch.zeros(21)))


@pytest.mark.parametrize("way", ["drawn from the table", "after Gibbs steps"])
def test_samples_are_as_frequent_as_they_are_probable(machine, way):
    count, generator = 40_000, torch.Generator().manual_seed(0)
    if way == "drawn from the table":
        v = partition.draw(machine, count, generator)
    else:
        v = machine.gibbs(bits(torch.full((count, VISIBLE), 0.5), generator), 60, generator)
    kinds = (v @ (2.0 ** torch.arange(VISIBLE - 1, -1, -1))).long()
    seen = torch.bincount(kinds, minlength=2**VISIBLE).numpy() / count
    expected = table(machine).sum(1) / table(machine).sum()
    assert np.abs(seen - expected).max() < 4 * np.sqrt(expected.max() / count)


# ---- the update


@pytest.mark.parametrize("steps, chains", [(1, 0), (3, 0), (2, 5)])
def test_the_gradient_is_that_of_contrastive_divergence(steps, chains):
    """dW = mean of h' v' - mean of h v, h the probabilities given the data's bits v and the chain's bits v'."""
    taught, x = learner(steps=steps, chains=chains).eval(), torch.rand(7, VISIBLE)
    weight, a, c = (parameter.detach() for parameter in (taught.layer.weight, taught.bias, taught.layer.bias))
    torch.manual_seed(3)
    taught.contrast(x).backward()
    torch.manual_seed(3)
    v = (torch.rand(7, VISIBLE) < x).float()
    model = v if not chains else taught.chains.clone()
    for _ in range(steps):
        h = (torch.rand(len(model), HIDDEN) < torch.sigmoid(model @ weight.T + c)).float()
        model = (torch.rand(len(model), VISIBLE) < torch.sigmoid(h @ weight + a)).float()
    up, down = torch.sigmoid(v @ weight.T + c), torch.sigmoid(model @ weight.T + c)
    torch.testing.assert_close(taught.layer.weight.grad, down.T @ model / len(model) - up.T @ v / 7)
    torch.testing.assert_close(taught.bias.grad, model.mean(0) - v.mean(0))
    torch.testing.assert_close(taught.layer.bias.grad, down.mean(0) - up.mean(0))


def test_the_centred_gradient_is_that_of_centred_units():
    taught, x = learner(centred=True).eval(), torch.rand(7, VISIBLE)
    torch.manual_seed(3)
    taught.contrast(x).backward()
    machine = taught.machine()
    torch.manual_seed(3)
    v = bits(x)
    model = machine.gibbs(v, 1)
    with torch.no_grad():
        up, down = (machine.hidden_logits(side).sigmoid() - taught.hidden_mean for side in (v, model))
        expected = (down.T @ (model - taught.visible_mean) - up.T @ (v - taught.visible_mean)) / 7
        shifted = taught.layer.bias + (v - taught.visible_mean) @ taught.layer.weight.T
    torch.testing.assert_close(taught.layer.weight.grad, expected)
    torch.testing.assert_close(taught.bias.grad, model.mean(0) - v.mean(0))
    torch.testing.assert_close(taught.layer.bias.grad, (down - up).mean(0))
    torch.testing.assert_close(machine.hidden_logits(v), shifted)


def test_moving_the_offsets_leaves_the_distribution():
    taught, v = learner(centred=True), torch.from_numpy(states(VISIBLE)).float()
    before, offsets = taught.machine().free_energy(v), taught.visible_mean.clone()
    taught.recentre(torch.rand(VISIBLE), torch.rand(HIDDEN), 0.5)
    torch.testing.assert_close(taught.machine().free_energy(v), before)
    assert (taught.visible_mean - offsets).abs().max() > 0.05


def test_the_first_step_of_training_gives_every_pixel_its_mean():
    x = torch.rand(400, VISIBLE) ** 2
    for settings in ({}, {"centred": True}):
        taught = learner(shake=0.0, **settings).train()
        taught.contrast(x)
        machine = taught.machine()
        independent = machine.visible_logits(torch.full((1, HIDDEN), 0.5))[0].sigmoid()
        torch.testing.assert_close(independent, x.mean(0), atol=0.02, rtol=0)
        before = taught.bias.clone()
        taught.contrast(1 - x)
        if settings:
            torch.testing.assert_close(taught.visible_mean, x.mean(0) + SLIDE * (1 - 2 * x.mean(0)), atol=2e-3, rtol=0)
        else:
            assert torch.equal(taught.bias, before)


def test_persistent_chains_go_on_from_batch_to_batch_and_are_part_of_the_state():
    taught, x = learner(chains=5).train(), torch.rand(7, VISIBLE)
    start = taught.chains.clone()
    torch.manual_seed(3)
    taught.contrast(x)
    after = taught.chains.clone()
    assert not torch.equal(start, after) and set(after.unique().tolist()) <= {0.0, 1.0}
    torch.manual_seed(3)
    torch.rand(7, VISIBLE)  # the data's bits
    assert torch.equal(after, taught.machine().gibbs(start, 1))
    taught.eval().contrast(x)
    assert torch.equal(taught.chains, after) and torch.equal(taught.state_dict()["chains"], after)
    assert "chains" not in learner().state_dict()


def test_weight_decay_is_for_weights_alone():
    model = families.load("rbm")((1, 2, 3), 2, hidden=4, optimizer=Optimizer("sgd", 0.1, weight_decay=0.5))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
            parameter.grad = torch.zeros_like(parameter)
    model.optimizers()[0].step()
    assert [p.unique().tolist() for p in model.parameters()] == [
        pytest.approx([0.95 if p.dim() > 1 else 1.0]) for p in model.parameters()
    ]


# ---- annealed importance sampling


def test_annealing_meets_the_exact_log_z_from_both_sides(machine):
    """Well within half a nat with 1,000 temperatures; with 3, forward is too small and reverse too large."""
    exact, base = partition.exact(machine), torch.linspace(-1, 1, VISIBLE)
    generator = torch.Generator().manual_seed(0)
    samples = partition.draw(machine, 200, generator)
    ahead = partition.forward(machine, base, 1000, 200, generator)
    back = partition.reverse(machine, base, 1000, samples, generator)
    assert partition.pooled(ahead) == pytest.approx(exact, abs=0.02)
    assert -partition.pooled(-back) == pytest.approx(exact, abs=0.02)
    few = [
        float(part.mean())
        for part in (
            partition.forward(machine, base, 3, 200, generator),
            partition.reverse(machine, base, 3, samples, generator),
        )
    ]
    assert few[0] < exact - 0.1 < exact + 0.1 < few[1]


def test_log_z_is_right_in_the_mean_with_two_temperatures_too(machine):
    """Z forward and 1 / Z in reverse are unbiased whatever the number of temperatures, so many chains meet them."""
    generator, base = torch.Generator().manual_seed(0), torch.zeros(VISIBLE)
    exact = partition.exact(machine)
    assert partition.pooled(partition.forward(machine, base, 2, 100_000, generator)) == pytest.approx(exact, abs=0.02)
    back = partition.reverse(machine, base, 2, partition.draw(machine, 100_000, generator), generator)
    assert -partition.pooled(-back) == pytest.approx(exact, abs=0.02)


def test_a_machine_of_independent_pixels_needs_no_walk():
    base = torch.linspace(-2, 2, VISIBLE)
    alone = Machine(torch.zeros(HIDDEN, VISIBLE), base, torch.zeros(HIDDEN))
    found = partition.forward(alone, base, 5, 3, torch.Generator().manual_seed(0))
    assert found.numpy() == pytest.approx([partition.exact(alone)] * 3, abs=1e-6)
    x = torch.tensor([[0.0, 0.5, 1.0], [0.0, 0.5, 1.0], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    assert base_rates(x).sigmoid().tolist() == pytest.approx([0.1, 0.3, 0.9])


# ---- the family rbm


def of_bits(seed: int = 0) -> tuple[nn.Module, Machine]:
    model = families.load("rbm")((1, 2, 3), 2, hidden=HIDDEN)
    model.learner = learner(seed, shake=1.0)
    return model.eval(), model.learner.machine().detached()


def test_pseudo_likelihood_is_that_of_each_bit_given_the_others():
    model, machine = of_bits()
    joint = table(machine).sum(1)
    for number in (0, 13, 63):
        v = states(VISIBLE)[number]
        others = [joint[number ^ (1 << place)] for place in range(VISIBLE)]
        expected = -np.log(joint[number] / (joint[number] + np.array(others))).sum()
        many = torch.from_numpy(v).float().expand(6_000, -1).reshape(-1, 1, 2, 3)
        with torch.no_grad():
            found, again = model.figures(many), model.figures(many)
        assert float(found["pseudo_nll"].mean()) == pytest.approx(expected, rel=0.05)
        assert float(found["free_energy"][0]) == pytest.approx(-math.log(joint[number]), abs=1e-4)
        assert torch.equal(again["loss"], found["loss"])  # its bits are drawn with a seed of their own


def test_reconstruction_is_one_pass_up_and_down():
    model, machine = of_bits()
    x = torch.rand(5, 1, 2, 3)
    h = torch.sigmoid(x.flatten(1) @ machine.weight.T + machine.hidden)
    expected = torch.sigmoid(h @ machine.weight + machine.visible)
    torch.testing.assert_close(model.reconstruct(x).flatten(1), expected)
    v = (x > 0.5).float()
    again = torch.sigmoid(
        torch.sigmoid(v.flatten(1) @ machine.weight.T + machine.hidden) @ machine.weight + machine.visible
    )
    errors = F.binary_cross_entropy(again, v.flatten(1), reduction="none").sum(1)
    torch.testing.assert_close(model.figures(v)["reconstruction"], errors)


def test_samples_have_the_means_of_the_distribution_and_are_the_same_each_time():
    model, machine = of_bits()
    joint = table(machine).sum(1)
    expected = (joint[:, None] * states(VISIBLE)).sum(0) / joint.sum()
    drawn = model.sample(4_000)
    assert drawn.flatten(1).mean(0).numpy() == pytest.approx(expected, abs=0.03)
    assert torch.equal(drawn[:0], model.sample(0)) and torch.equal(drawn, model.sample(4_000))


def test_likelihood_by_annealing_is_the_exact_one(project, monkeypatch):
    monkeypatch.setattr(judge, "TEMPERATURES", 500)
    store = Store(paths.noisy("digits"))
    seen, test = (items(store, split, None, True) for split in ("train", "test"))
    recipe = Recipe(epochs=20, batch=8, optimizer="sgd", lr=0.1, hold_out=True, evaluate_every=20)
    torch.manual_seed(0)
    model = families.load("rbm")(store.shape, 4, hidden=8, chains=10, optimizer=Optimizer("sgd", 0.1))
    fit(model, recipe, 0, seen, ("validation", items(store, "validation", None, True)))
    found = assess.assess("rbm", model.eval(), store, 0, True)
    log_z = partition.exact(model.learner.machine())
    exact = evaluation.figures(model, test.x)["free_energy"] + log_z
    assert found.figures["test.nll"] == pytest.approx(exact, abs=0.1)
    assert found.figures["test.nll_reverse"] == pytest.approx(exact, abs=0.5)
    assert found.figures["test.ais_gap"] == found.figures["test.nll_reverse"] - found.figures["test.nll"]
    gap = found.figures["validation.nll"] - found.figures["train.nll"]
    assert found.figures["gap.free_energy"] == pytest.approx(gap, abs=1e-6)
    known = judge.floors(store)["independent-pixels"]["test.nll"]
    means = seen.x[:].flatten(1).mean(0)
    assert known == pytest.approx(
        float(F.binary_cross_entropy(means.expand(40, -1), test.x[:].flatten(1)) * 36), rel=0.02
    )
    assert [len(shown) for _, shown, _ in found.rows] == [8, 10, 10, 10, 10, 10]
    assert all(shown.shape[1:] == store.shape and shown.min() >= 0 and shown.max() <= 1 for _, shown, _ in found.rows)
    plans = judge.pictures({"net": {}}, {"net": [found.series]})
    assert list(drawing.save(plans, project / "figures")) == ["chains.png"]


# ---- the family dbn


def test_a_fine_tuned_net_is_the_dense_net_of_logistic_units():
    x = torch.rand(5, 1, 2, 3)
    deep = families.load("dbn")((1, 2, 3), 3, hidden=(5, 4))
    dense = families.load("mlp")((1, 2, 3), 3, hidden=(5, 4), activation="sigmoid")
    dense.load_state_dict(deep.state_dict())
    torch.testing.assert_close(deep.classify(x), dense.classify(x))
    with pytest.raises(ValueError, match="hidden is empty"):
        families.load("dbn")((1, 2, 3), 3, hidden=())


def test_layers_learn_one_after_another_and_the_others_stay():
    """With momentum and weight decay, which would move a layer whose gradient is zero and not absent."""
    torch.manual_seed(0)
    pattern = (torch.rand(1, 1, 2, 3) > 0.5).float()
    x = (pattern - 0.9 * (torch.rand(60, 1, 2, 3) < 0.1).float()).abs()
    seen = Items(x, x, torch.zeros(60, dtype=torch.int64))
    model = families.load("dbn")((1, 2, 3), 2, hidden=(5, 4, 3))
    stack = model.pretrain(Optimizer("momentum", 0.1, 0.9, 0.01))
    moved, before = [], [layer.weight.clone() for layer in model.layers]

    def look(state):
        nonlocal before
        moved.append([not torch.equal(a, layer.weight) for a, layer in zip(before, model.layers, strict=True)])
        before = [layer.weight.clone() for layer in model.layers]

    recipe = Recipe(epochs=6, batch=20, optimizer="momentum", lr=0.1, weight_decay=0.01)
    fit(stack, recipe, 0, seen, ("test", seen), after_epoch=look)
    none, first, second, third = [False] * 3, [True, False, False], [False, True, False], [False, False, True]
    assert moved == [none, first, first, second, second, third, third]
    assert [learner.started.item() for learner in stack.learners] == [True] * 3
    assert set(model.state_dict()) == {
        f"{part}.{kind}" for part in ("layers.0", "layers.1", "layers.2", "head") for kind in ("weight", "bias")
    }


def test_a_layer_learns_from_the_probabilities_of_those_below():
    torch.manual_seed(0)
    model, x = families.load("dbn")((1, 2, 3), 2, hidden=(5, 4), steps=2), torch.rand(7, 1, 2, 3)
    stack = model.pretrain(Optimizer()).eval()
    stack.before_step(0.5)
    torch.manual_seed(3)
    (out,) = stack.losses(x, None)
    torch.manual_seed(3)
    expected = stack.learners[1].contrast(model.layers[0](x.flatten(1)).sigmoid())
    assert stack.active == 1 and torch.equal(out["loss"], expected)
    out["loss"].backward()
    assert model.layers[0].weight.grad is None and model.layers[1].weight.grad is not None
    up = model.layers[1](model.layers[0](x.flatten(1)).sigmoid()).sigmoid()
    for learner_ in reversed(stack.learners):
        up = (up @ learner_.layer.weight + learner_.bias).sigmoid()
    torch.testing.assert_close(stack.reconstruct(x).flatten(1), up)


# ---- both


def test_machines_and_stacks_go_through_every_stage(project, monkeypatch):
    monkeypatch.setattr(judge, "TEMPERATURES", 20)
    deep = {"family": "dbn", "hidden": [6, 5], "train": {"items": 20, "pretrain": {"epochs": 4, "items": None}}}
    models = {"machine": {"family": "rbm", "hidden": 6, "chains": 4, "centred": True}, "deep": deep}
    write_params(project, models, epochs=2)
    train.main("tiny")
    history = files.read_json(paths.model("tiny", "deep", 0) / "history.json")
    assert [len(history[part]) for part in ("pretraining", "curve")] == [4, 2]
    evaluate.main("tiny")
    folder = paths.report("tiny")
    files.write_json(folder / "pruning.json", {"schema": 1, "points": []})
    report.main("tiny")
    found = files.read_json(folder / "metrics.json")
    assert {"test.nll", "test.nll_reverse", "test.drift"} <= found["models"]["machine"]["metrics"].keys()
    assert "test.accuracy" in found["models"]["deep"]["metrics"] and "independent-pixels" in found["floors"]
    page = (folder / "index.md").read_text()
    assert "| nll reverse (nats) | machine |" in page and (folder / "figures/chains.png").exists()
