"""Discrete codes: vector quantisation, Gumbel-softmax, how codes are used, and what their gradients suffer."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import mean_squared_error

from atelier import assess, experiments, families
from atelier.assess import discrete_vae as judge
from atelier.data.store import Store
from atelier.latent import bernoulli_log_likelihood, straight_through

SHAPE = (1, 3, 3)


@pytest.fixture(autouse=True)
def _settled(one_thread):
    torch.manual_seed(0)


def net(**settings):
    torch.manual_seed(0)
    small = {"hidden": (6,), "positions": 2, "codes": 5, "width": 3}
    return families.load("discrete-vae")(SHAPE, 3, **(small | settings))


def items(count: int = 20) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 2, (count, *SHAPE))).float()


def step(model, x) -> None:
    (optimizer,) = model.optimizers()
    (out,) = model.losses(x, None)
    optimizer.zero_grad()
    out["loss"].backward()
    optimizer.step()
    model.after_step()


def test_the_nearest_vector_of_its_own_position_is_chosen():
    model, x = net(), items()
    with torch.no_grad():
        said = model.said(x)
        chosen = model.chosen(said)
    for n in range(len(x)):
        for p in range(2):
            distances = (said[n, p] - model.book[p]).norm(dim=1)
            assert distances.argmin() == chosen[n, p]
            assert torch.equal(model.looked_up(chosen)[n, p], model.book[p, chosen[n, p]])


def test_the_gradient_at_the_vector_is_passed_straight_on():
    model, x = net(commitment=0.0).double(), items().double()
    said = model.said(x)
    said.retain_grad()
    vectors = model.looked_up(model.chosen(said)).requires_grad_()
    loss = -model.log_likelihood(x, vectors).mean()
    (expected,) = torch.autograd.grad(loss, vectors)
    model.said = lambda _: said
    torch.manual_seed(1)
    (out,) = model.losses(x, None)
    out["loss"].backward()
    torch.testing.assert_close(out["loss"], loss)
    torch.testing.assert_close(said.grad, expected)
    a, b = torch.rand(3, requires_grad=True), torch.rand(3, requires_grad=True)
    straight_through(a.square(), b.square()).sum().backward()
    assert a.grad is None and torch.equal(b.grad, 2 * b.detach())


def test_commitment_pulls_what_is_said_to_its_vector():
    x = items()
    pulls = []
    for commitment in (0.0, 2.0):
        model = net(commitment=commitment).double()
        torch.manual_seed(0)
        (out,) = model.losses(x.double(), None)
        pulls.append(out["loss"] - out["distortion"])
    said = model.said(x.double())
    distance = (said - model.looked_up(model.chosen(said))).square().sum((1, 2)).mean()
    assert float(pulls[0]) == 0 and float(pulls[1]) == pytest.approx(2 * float(distance))


def test_vectors_are_running_means_of_what_they_stand_for():
    """Against the recursion written out code by code; a code that nobody chose stays where it is."""
    model, decay = net(decay=0.7, revive=0.0, positions=1), 0.7
    counts, sums = np.zeros(5), np.zeros((5, 3))
    book = model.book[0].numpy().astype(float)
    for seed in range(3):
        x = torch.from_numpy(np.random.default_rng(seed).integers(0, 2, (12, *SHAPE))).float()
        with torch.no_grad():
            said = model.said(x)
            chosen = model.chosen(said)[:, 0].numpy()
        list(model.losses(x, None))
        model.after_step()
        for k in range(5):
            own = said[:, 0].numpy()[chosen == k]
            counts[k] = decay * counts[k] + (1 - decay) * len(own)
            sums[k] = decay * sums[k] + (1 - decay) * own.sum(0)
            if counts[k] > 0:
                book[k] = sums[k] / counts[k]
        np.testing.assert_allclose(model.book[0].numpy(), book, atol=1e-6)


def test_pieces_of_a_batch_move_vectors_as_the_whole_does():
    whole, pieces = net(revive=0.0), net(revive=0.0)
    x = items()
    list(whole.losses(x, None))
    for rows in x.split(7):
        list(pieces.losses(rows, None))
    for model in (whole, pieces):
        model.after_step()
    torch.testing.assert_close(whole.book, pieces.book)
    torch.testing.assert_close(whole.counts, pieces.counts)


def test_codes_that_nobody_needs_are_reborn_where_items_are():
    model, x = net(revive=0.1), items()
    model.book += 100.0  # far from all: each position has one nearest vector, the others are dead
    with torch.no_grad():
        said = model.said(x)
        alive = model.counts.new_zeros(model.counts.shape, dtype=torch.bool)
        alive[torch.arange(2), model.chosen(said)[0]] = True
    list(model.losses(x, None))
    model.after_step()
    for p in range(2):
        near = torch.cdist(model.book[p][~alive[p]], said[:, p]).min(1).values
        assert (near == 0).all()
    assert (model.counts[~alive] == len(x) / 5).all()
    kept = net(revive=0.0)
    kept.book += 100.0
    before = kept.book.clone()
    list(kept.losses(x, None))
    kept.after_step()
    assert torch.equal(kept.book[~alive], before[~alive])


def test_the_temperature_falls_geometrically_over_three_quarters():
    model = net(quantiser="gumbel", temperatures=(2.0, 0.5))
    found = []
    for progress in (0.0, 0.375, 0.75, 0.99):
        model.before_step(progress)
        found.append(model.temperature)
    assert found == pytest.approx([2.0, 1.0, 0.5, 0.5])


@pytest.mark.parametrize("quantiser", ["gumbel", "vector"])
def test_divergence_from_even_probabilities_is_the_sum_over_codes(quantiser):
    model = net(quantiser=quantiser).eval()
    with torch.no_grad():
        said = model.said(items())
        found = model.kl(said)
    if quantiser == "vector":
        assert found.tolist() == pytest.approx([2 * math.log(5)] * len(found))
    else:
        even = torch.distributions.Categorical(logits=torch.zeros(5))
        expected = torch.distributions.kl_divergence(torch.distributions.Categorical(logits=said), even).sum(1)
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("quantiser", ["gumbel", "vector"])
def test_one_code_has_a_likelihood_that_no_bound_undercuts(quantiser):
    model, x = net(quantiser=quantiser, positions=1).double().eval(), items().double()
    with torch.no_grad():
        exact = judge.exact(model, x)
        under = torch.stack([bernoulli_log_likelihood(x.flatten(1), model.decoder(vector)) for vector in model.book[0]])
        torch.testing.assert_close(exact, -under.exp().mean(0).log())
        said = model.said(x)
        q = said[:, 0].softmax(1).T if quantiser == "gumbel" else torch.eye(5).double()[model.chosen(said)[:, 0]].T
        nelbo = (q * -under).sum(0) + model.kl(said)
    assert (nelbo >= exact - 1e-9).all()


@pytest.mark.parametrize("quantiser", ["gumbel", "vector"])
def test_training_makes_use_of_codes_and_the_judge_sees_it(quantiser, prepared):
    store = Store(prepared / "data" / "noisy" / "digits")
    torch.manual_seed(0)
    settings = {"hidden": (16,), "positions": 1, "codes": 6, "width": 3, "quantiser": quantiser}
    model = families.load("discrete-vae")(store.shape, 4, **settings)
    model.optimizer = type(model.optimizer)(lr=0.01)
    x = torch.from_numpy(store.split("train")[0])
    before = judge.assess(model, store, 0, False)
    model.train()
    (optimizer,) = model.optimizers()
    for i in range(150):
        model.before_step(i / 150)
        (out,) = model.losses(x, None)
        optimizer.zero_grad()
        out["loss"].backward()
        optimizer.step()
        model.after_step()
    after = judge.assess(model, store, 0, False)
    assert after.figures["test.nll"] < before.figures["test.nll"]
    assert 1 < after.figures["test.perplexity"] <= 6 and after.figures["test.atoms"] == 1
    assert sum(after.series["usage"]) == pytest.approx(1, abs=1e-4)
    words = judge.assess.__doc__
    assert all(name.removeprefix("test.") in words for name in after.figures)
    plans = judge.pictures({}, {"net": [after.series], "none": []})
    assert list(plans) == ["code-usage.png"] and plans["code-usage.png"][1]().axes


def test_usage_and_perplexity_count_codes():
    shares = judge.usage(np.array([[0, 2], [0, 2], [1, 2], [1, 2]]), 3)
    assert shares.tolist() == [[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]]


def test_floors_are_one_atom_and_several(prepared):
    store = Store(prepared / "data" / "noisy" / "digits")
    found = assess.floors("discrete-vae", store)
    one, sparse = found["one-of-256"], found["sparse-8"]
    assert one["test.atoms"] == 1 and 1 < sparse["test.atoms"] <= 8
    train, test = (store.split(split)[0].reshape(-1, 36) for split in ("train", "test"))
    mean = mean_squared_error(test, np.broadcast_to(train.mean(0), test.shape))
    assert sparse["test.mse"] < one["test.mse"] < mean


# ---- what the gradient suffers


def measured(estimator: str, temperature: float = 1.0) -> dict[str, float]:
    measure = experiments.load("code-gradients").measure
    return measure(0, STORE, estimator=estimator, temperature=temperature, codes=5, count=10, draws=4000)


class STORE:
    """Ten random items of nine pixels."""

    @staticmethod
    def stored(split, hold_out):
        from atelier.data.store import Stored

        x = np.random.default_rng(0).integers(0, 2, (10, 1, 3, 3)).astype(np.uint8)
        return Stored(x, 1.0, None, np.arange(10))


def test_the_exact_gradient_is_that_of_the_sum_over_codes():
    module = experiments.load("code-gradients")
    torch.manual_seed(0)
    net, x = module.Net(9, 4, 3), torch.from_numpy(np.random.default_rng(0).integers(0, 2, (3, 9)).astype(float))
    found, h = net.exact(x), 1e-6
    for place in ((0, 0), (1, 2), (2, 3)):
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                net.z[place] += sign * h
                q = torch.stack([-(net.z - vector).square().sum(1) for vector in net.book], 1).softmax(1)
                f = torch.stack([-bernoulli_log_likelihood(x, net.decoder(vector)) for vector in net.book], 1)
                values.append(float((q * f).sum()))
                net.z[place] -= sign * h
        assert float(found[place]) == pytest.approx((values[0] - values[1]) / (2 * h), rel=1e-5, abs=1e-7)


def test_what_is_unbiased_shows_none_and_what_is_biased_does():
    chance = experiments.load("code-gradients").FLOORS["chance"]["test.bias"]
    score, straight = measured("score"), measured("straight-vector")
    assert score["test.bias"] < 2 * chance < straight["test.bias"]  # a fifth of the draws that a page has
    assert score["test.spread"] > straight["test.spread"]
    assert score["test.angle"] > 0.95


def test_a_colder_softmax_has_less_bias_and_more_spread():
    warm, cold = measured("gumbel", 2.0), measured("gumbel", 0.3)
    assert cold["test.bias"] < warm["test.bias"] and cold["test.spread"] > warm["test.spread"]


def test_a_straight_gumbel_has_the_value_of_a_code_and_the_derivative_of_a_softmax():
    """Where the decoder is linear in its vector, f's gradient does not depend on the code, and the two are one."""
    module = experiments.load("code-gradients")
    torch.manual_seed(0)
    net, x = module.Net(9, 4, 3), torch.zeros(3, 9).double()
    net.f = lambda x, vectors: vectors.sum(-1)
    found = [net.estimates(x, name, 0.5, 6, torch.Generator().manual_seed(1)) for name in ("gumbel", "straight-gumbel")]
    torch.testing.assert_close(*found)
