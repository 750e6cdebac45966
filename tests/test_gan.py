"""The adversarial family: its losses are those of its paper, its steps those of Algorithm 1; its judge, its toy."""

import math
from copy import deepcopy

import numpy as np
import pytest
import torch
from conftest import SHAPE, contents, write_params
from scipy import integrate
from scipy.stats import entropy, norm
from torch.nn import functional as F

from atelier import files, params, paths, samples
from atelier.data.items import Items
from atelier.errors import AtelierError
from atelier.experiments import adversarial_toy as toy
from atelier.families.gan import Model
from atelier.fit import State, fit
from atelier.optim import Optimizer
from atelier.params import Recipe
from atelier.stages import evaluate, report, train

SMALL = {"latent": 4, "widths": (6, 5)}
pytestmark = pytest.mark.usefixtures("one_thread")


def build(shape=SHAPE, seed: int = 0, **settings) -> Model:
    torch.manual_seed(seed)
    return Model(shape, 3, **SMALL | settings)


def some(count: int, shape=SHAPE) -> torch.Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(1))


def yielded(model: Model, x: torch.Tensor, seed: int = 2) -> list[dict[str, torch.Tensor]]:
    torch.manual_seed(seed)
    return list(model.losses(x, x))


def probabilities(model: Model, x: torch.Tensor) -> torch.Tensor:
    return model.discriminate(x).sigmoid()


# ---- losses


@pytest.mark.parametrize("loss", ["minimax", "non-saturating"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_losses_are_those_of_the_paper(loss, smoothing):
    model = build(loss=loss, smoothing=smoothing).double()
    x = some(9).double()
    found, after = yielded(model, x)
    torch.manual_seed(2)
    real, fake, again = (
        probabilities(model, x),
        probabilities(model, model.draw(9)),
        probabilities(model, model.draw(9)),
    )
    told = torch.full_like(real, 1 - smoothing)
    expected = F.binary_cross_entropy(real, told) + F.binary_cross_entropy(fake, torch.zeros_like(fake))
    torch.testing.assert_close(found["loss"], expected)
    torch.testing.assert_close(found["value"], real.log().mean() + (1 - fake).log().mean())
    torch.testing.assert_close(found["d_real"], real.mean())
    torch.testing.assert_close(found["d_fake"], fake.mean())
    torch.testing.assert_close(after["loss"], (1 - again).log().mean() if loss == "minimax" else -again.log().mean())


def test_one_loss_of_the_generator_is_not_the_other():
    """Their slopes in the log-odds are -D and D - 1: where D is sure that an item was drawn, only one has any left."""
    for odds in (-12.0, -3.0, 0.0, 3.0):
        slopes = {}
        for loss in ("minimax", "non-saturating"):
            model, logits = build(loss=loss), torch.tensor([odds], dtype=torch.float64, requires_grad=True)
            (slopes[loss],) = torch.autograd.grad(model._generator_loss(logits), logits)
        d = torch.tensor([odds], dtype=torch.float64).sigmoid()
        torch.testing.assert_close(slopes["minimax"], -d)
        torch.testing.assert_close(slopes["non-saturating"], d - 1)


def test_a_discriminator_that_cannot_tell_has_the_value_of_the_optimum():
    model = build()
    torch.nn.init.zeros_(model.discriminator[-1].weight)
    torch.nn.init.zeros_(model.discriminator[-1].bias)
    with torch.no_grad():
        found = yielded(model, some(8))[0]
    assert float(found["value"]) == pytest.approx(-math.log(4), abs=1e-6)
    assert float(found["d_real"]) == float(found["d_fake"]) == 0.5


# ---- Algorithm 1


@pytest.mark.parametrize("count", [9, 11, 3, 2])
def test_a_batch_is_shared_out_over_the_discriminators_steps(count, monkeypatch):
    model, x, seen = build(steps=3), some(count), []
    monkeypatch.setattr(model, "discriminate", lambda batch, told=model.discriminate: seen.append(batch) or told(batch))
    assert len(yielded(model, x)) == 4
    halves = [batch[: len(batch) // 2] for batch in seen[:3]]
    if count < 3:
        assert all(torch.equal(batch[:count], x) for batch in seen[:3])
    elif count >= 6:
        torch.testing.assert_close(torch.cat(halves), x)
    drawn = [batch[len(batch) // 2 :] for batch in seen[:3]]
    assert not any(torch.equal(a, b) for a, b in zip(drawn, drawn[1:], strict=False))


@pytest.mark.parametrize("steps", [1, 3])
def test_the_discriminator_steps_so_often_to_each_step_of_the_generator(steps):
    model, x = build(steps=steps, average=0.9), some(33)
    items = Items(x, x, torch.zeros(33, dtype=torch.int64))
    state = fit(model, Recipe(epochs=2, batch=16), 0, items, ("test", items))  # the last batch holds a single item
    counts = [int(s["state"][0]["step"]) for s in state.optimizers]
    assert counts == [steps * 6] * steps + [6]
    assert int(model.averaged.n_averaged) == 6
    assert {"running.value", "running.d_real", "running.d_fake"} < state.curve[-1].keys()


def test_the_generator_is_not_moved_by_the_discriminators_loss_nor_the_other_way_round():
    model = build()
    (discriminator, generator), losses = model.optimizers(), model.losses(some(8), some(8))
    before = {name: p.clone() for name, p in model.named_parameters()}
    for optimizer, net in ((discriminator, "discriminator"), (generator, "generator")):
        out = next(losses)
        optimizer.zero_grad()
        out["loss"].backward()
        optimizer.step()
        moved = {name.split(".")[0] for name, p in model.named_parameters() if not torch.equal(p, before[name])}
        assert moved == {net}
        before = {name: p.clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize(
    "settings", [{"average": 0.9, "steps": 2}, {"conv": True, "spectral_norm": True}], ids=["dense", "conv"]
)
def test_training_that_is_cut_goes_on_as_if_it_never_was(settings):
    x = some(40, (1, 8, 8))
    items, recipe = Items(x, x, torch.zeros(40, dtype=torch.int64)), Recipe(epochs=3, batch=16, lr=0.01)
    whole, kept = build((1, 8, 8), **settings), []

    def keep(state):
        if state.epoch == 1:
            kept.append(deepcopy(vars(state)))

    fit(whole, recipe, 5, items, ("test", items), after_epoch=keep)
    again = build((1, 8, 8), seed=9, **settings)
    fit(again, recipe, 5, items, ("test", items), state=State(**kept[0]))
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


# ---- nets


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 12, 20)])
def test_convolutions_double_the_image_at_every_step(shape):
    model = build(shape, conv=True)
    assert model.sample(2).shape == (2, *shape) and model.discriminate(some(2, shape)).shape == (2,)
    assert model.generator[1].unflattened_size == (6, shape[1] // 4, shape[2] // 4)


@pytest.mark.parametrize("shape", [(1, 28, 26), (1, 6, 8), (9, 128)])
def test_an_image_that_cannot_be_halved_so_often_is_refused_in_one_line(shape):
    with pytest.raises(AtelierError, match="divisible by 4") as refused:
        build(shape, conv=True)
    assert "\n" not in str(refused.value)


def test_a_generator_without_layers_is_refused_where_its_settings_stand():
    with pytest.raises(AtelierError, match="here: widths is empty"):
        params.check_settings("gan", {"widths": []}, "here")


def test_spectral_norm_leaves_no_layer_of_the_discriminator_a_larger_singular_value_than_one():
    model = build((1, 8, 8), conv=True, spectral_norm=True).train()
    for _ in range(60):  # a step of power iteration each
        model.discriminate(some(2, (1, 8, 8)))
    layers = [layer for layer in model.discriminator if hasattr(layer, "weight")]
    assert len(layers) == 3
    for layer in layers:
        largest = torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2)
        assert float(largest) == pytest.approx(1, abs=1e-3)


def test_samples_come_from_the_running_mean_of_the_generator():
    model, mean = build(average=0.75, batch_norm=False, optimizer=Optimizer(lr=0.05)), None
    for _ in range(4):
        for optimizer, out in zip(model.optimizers(), model.losses(some(8), some(8)), strict=True):
            optimizer.zero_grad()
            out["loss"].backward()
            optimizer.step()
        model.after_step()
        now = {name: p.detach().clone() for name, p in model.generator.named_parameters()}
        mean = now if mean is None else {name: 0.75 * mean[name] + 0.25 * p for name, p in now.items()}
    other = build(batch_norm=False)
    other.generator.load_state_dict(mean)
    drawn = []
    for draw in (model.eval().sample, other.eval().sample, model.draw):
        torch.manual_seed(3)
        drawn.append(draw(5))
    torch.testing.assert_close(drawn[0], drawn[1])
    assert float((drawn[0] - drawn[2]).abs().max()) > 1e-3


def test_adam_gets_its_own_first_decay_and_the_recipe_the_rest():
    adam = build(beta1=0.4, optimizer=Optimizer("adam", lr=0.02)).optimizers()
    assert [(o.param_groups[0]["betas"], o.param_groups[0]["lr"]) for o in adam] == [((0.4, 0.999), 0.02)] * 2
    assert [type(o).__name__ for o in build(optimizer=Optimizer("sgd")).optimizers()] == ["SGD", "SGD"]


# ---- what is judged


def test_a_page_shows_the_game_the_shares_of_classes_and_the_floors(project, monkeypatch):
    monkeypatch.setattr(samples, "COUNT", 120)
    models = {"net": {"family": "gan", "latent": 4, "widths": [12]}, "twice": {"family": "gan", "steps": 2}}
    write_params(project, models, seeds=2, epochs=2)
    train.main("tiny")
    evaluate.main("tiny")
    folder = paths.report("tiny")
    found = files.read_json(folder / "metrics.json")
    own = found["models"]["net"]["metrics"]
    assert {f"test.{m}" for m in ("frechet", "coverage", "least_class", "classes", "sharpness", "value")} < own.keys()
    assert own["train.value"]["n"] == 2 and 0 < own["test.d_real"]["mean"] < 1
    assert all(sum(run["shares"]) == pytest.approx(1) for run in found["models"]["twice"]["series"])
    assert found["floors"]["optimum"]["test.value"] == -math.log(4)
    assert found["floors"]["train-items"]["test.frechet"] < found["floors"]["noise"]["test.frechet"]
    before = contents(folder)
    evaluate.main("tiny")
    assert contents(folder) == before
    files.write_json(folder / "pruning.json", {"schema": 1, "points": []})
    report.main("tiny")
    page = (folder / "index.md").read_text()
    assert "| frechet | *noise* | – | – |" in page and "not the FID" in page and "(figures/class-shares.png)" in page
    assert (folder / "figures/game.png").exists() and (folder / "figures/class-shares.png").exists()


# ---- the toy


def test_the_toys_cells_hold_what_the_densities_say():
    p = toy.data_shares()
    assert p.sum() == pytest.approx(1) and toy.modes(p) == len(toy.MODES)
    for cell in (40, 120, 160):
        density = lambda x: norm.pdf(x, toy.MODES, toy.WIDTH).mean()  # noqa: E731
        expected = integrate.quad(density, toy.EDGES[cell], toy.EDGES[cell + 1])[0]
        assert p[cell] == pytest.approx(expected, rel=0.01)  # a hundredth of the mixture lies outside
    assert toy.modes(np.where(toy.CENTRES < 0.4, p, 0)) == 2


@pytest.mark.parametrize("seed", range(4))
def test_the_best_discriminators_value_is_that_of_the_jensen_shannon_identity(seed):
    rng = np.random.default_rng(seed)
    p, q = rng.dirichlet(np.full(30, 0.3)), rng.dirichlet(np.full(30, 0.3))
    p[:3], q[2:5] = 0, 0
    p, q = p / p.sum(), q / q.sum()
    best = toy.best_discriminator(p, q)
    middle = (p + q) / 2
    jsd = (entropy(p, middle) + entropy(q, middle)) / 2
    assert toy.value(p, q, best) == pytest.approx(-math.log(4) + 2 * jsd, abs=1e-12)
    assert toy.divergence(p, q) == pytest.approx(jsd, abs=1e-12)
    for other in np.clip(best + 0.1 * rng.standard_normal((20, 30)), 1e-6, 1 - 1e-6):
        assert toy.value(p, q, other) < toy.value(p, q, best)
    assert toy.value(p, p, toy.best_discriminator(p, p)) == pytest.approx(-math.log(4))


def test_against_a_still_generator_the_discriminator_becomes_the_best_and_one_gradient_outlives_the_other():
    still = {loss: toy.measure(0, None, loss=loss, learns=False, rounds=4) for loss in ("minimax", "non-saturating")}
    one, other = still["minimax"], still["non-saturating"]
    assert one["test.deviation"] == other["test.deviation"] < 0.15 < one["test.divergence"]
    assert one["test.fooled"] < 0.3 and other["test.gradient"] > 1.5 * one["test.gradient"]
    assert one["test.value"] < -math.log(4) + 2 * one["test.divergence"]  # none does better than the best
    assert one["test.identity"] < 1e-12
