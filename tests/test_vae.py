"""Variational autoencoders: their terms against SciPy and the library, their bound against exact sums, their judge."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import distributions

from atelier import assess, experiments, families, paths
from atelier.assess import vae as judge
from atelier.data.store import Store
from atelier.draws import bits, fixed
from atelier.errors import AtelierError
from atelier.latent import (
    Code,
    Normal,
    StudentT,
    Uniform,
    bernoulli_log_likelihood,
    gaussian_log_likelihood,
    gumbel,
    standards,
)
from atelier.params import Recipe, check_settings

POSTERIORS = ("gaussian", "student", "uniform")
SHAPE = (1, 3, 3)
SCIPY = {Normal(): stats.norm(), StudentT(3.5): stats.t(3.5), Uniform(): stats.uniform(-1, 2)}


@pytest.fixture(autouse=True)
def _settled(one_thread):
    torch.manual_seed(0)


def net(**settings):
    torch.manual_seed(0)
    return families.load("vae")(SHAPE, 3, **({"hidden": (6,), "latent": 2} | settings))


def code(posterior: str, *shape: int, freedom: float = 5.0) -> Code:
    rng = np.random.default_rng(1)
    location, log_scale = (torch.from_numpy(rng.normal(0, size, shape)) for size in (1.0, 0.5))
    return Code(*standards(posterior, freedom), location, log_scale)


@pytest.mark.parametrize("standard", SCIPY, ids=lambda standard: type(standard).__name__)
def test_standard_distributions_are_scipys(standard):
    expected = SCIPY[standard]
    e = torch.linspace(-3, 3, 61, dtype=torch.float64)
    np.testing.assert_allclose(standard.log_density(e), expected.logpdf(e.numpy()), atol=1e-12)
    assert standard.deviation == pytest.approx(expected.std(), rel=1e-12)
    drawn = standard.draw(torch.empty(20_000, dtype=torch.float64), fixed(torch.device("cpu"), 3))
    assert stats.kstest(drawn.numpy(), expected.cdf).pvalue > 0.01


def test_closed_divergences_are_the_librarys():
    for posterior, library in (("gaussian", distributions.Normal), ("uniform", distributions.Uniform)):
        one = code(posterior, 50, 1)
        scale = one.log_scale.exp()
        ends = (one.location, scale) if posterior == "gaussian" else (one.location - scale, one.location + scale)
        prior = distributions.Normal(torch.zeros_like(scale), torch.ones_like(scale))
        expected = distributions.kl_divergence(library(*ends), prior).sum(1)
        torch.testing.assert_close(one.closed_kl(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_the_mean_over_draws_is_the_integral(posterior):
    one = code(posterior, 1, 1)
    at, scale = float(one.location), float(one.log_scale.exp())
    p = {"gaussian": stats.norm, "uniform": stats.uniform}.get(posterior, stats.t(5))
    frozen = {
        "gaussian": lambda: stats.norm(at, scale),
        "student": lambda: stats.t(5, at, scale),
        "uniform": lambda: stats.uniform(at - scale, 2 * scale),
    }[posterior]()
    prior = p if posterior == "student" else stats.norm()
    ends = frozen.support() if posterior == "uniform" else (at - 400 * scale, at + 400 * scale)
    z = np.linspace(*ends, 400_001)
    expected = integrate.trapezoid(frozen.pdf(z) * (frozen.logpdf(z) - prior.logpdf(z)), z)
    z, log_q = one.repeated(100_000).draw(fixed(torch.device("cpu")))
    np.testing.assert_allclose(log_q[:, 0], frozen.logpdf(z[:, 0, 0].numpy()), rtol=1e-9, atol=1e-9)
    drawn = log_q - one.log_prior(z)
    assert float(drawn.mean()) == pytest.approx(expected, abs=4 * float(drawn.std()) / math.sqrt(len(drawn)) + 1e-3)
    if posterior != "student":
        assert float(one.kl(z, log_q)) == pytest.approx(expected, abs=1e-4)


def test_a_draw_that_rounding_puts_outside_its_support_keeps_its_density():
    narrow = Code(Uniform(), Normal(), torch.full((5000, 1), 4.0), torch.full((5000, 1), math.log(1e-5)))
    z, log_q = narrow.draw(fixed(torch.device("cpu")))
    assert ((z - 4.0).abs() > 1e-5).any() and torch.allclose(log_q, torch.tensor(-math.log(2e-5)))


def test_likelihoods_are_scipys():
    rng = np.random.default_rng(0)
    x, logits = torch.from_numpy(rng.random((4, 9))), torch.from_numpy(3 * rng.standard_normal((2, 4, 9)))
    bits, p = x.round(), logits.sigmoid()
    expected = stats.bernoulli.logpmf(bits.numpy(), p.numpy()).sum(-1)
    np.testing.assert_allclose(bernoulli_log_likelihood(bits, logits), expected, rtol=1e-10)
    expected = stats.norm.logpdf(x.numpy(), p.numpy(), 0.2).sum(-1)
    np.testing.assert_allclose(gaussian_log_likelihood(x, p, torch.tensor(math.log(0.2))), expected, rtol=1e-6)


def test_binarised_pixels_are_on_as_often_as_they_are_bright():
    drawn = bits(torch.tensor([0.0, 0.3, 1.0]).expand(20_000, 3), fixed(torch.device("cpu"))).mean(0)
    assert drawn[0] == 0 and drawn[2] == 1 and float(drawn[1]) == pytest.approx(0.3, abs=0.015)


def test_gumbel_noise_picks_codes_by_their_softmax():
    logits = torch.tensor([0.5, -1.0, 1.2]).expand(20_000, 3)
    shares = (logits + gumbel(logits, fixed(torch.device("cpu")))).argmax(1).bincount() / len(logits)
    torch.testing.assert_close(shares, logits[0].softmax(0), atol=0.015, rtol=0)


@pytest.mark.parametrize("posterior", POSTERIORS)
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_the_loss_is_the_negative_elbo_weighed(posterior, likelihood):
    settings = {"posterior": posterior, "likelihood": likelihood}
    x = torch.rand(5, *SHAPE)
    (plain,) = net(**settings).losses(x, None)
    model = net(**settings, beta=4.0, reconstruction=0.5)
    (weighed,) = model.losses(x, None)
    torch.testing.assert_close(weighed["loss"], 0.5 * weighed["distortion"] + 4 * weighed["kl"])
    torch.testing.assert_close(plain["loss"], plain["distortion"] + plain["kl"])
    figures = model.eval().figures(x)
    torch.testing.assert_close(figures["loss"], figures["distortion"] + figures["kl"])
    torch.testing.assert_close(figures["loss"], model.figures(x)["nelbo"])  # the same numbers are drawn again


def test_kl_warms_up_in_line_and_stays():
    model = net(beta=2.0, warm_up=0.25)
    weights = []
    for progress in (0.0, 0.125, 0.25, 0.9):
        model.before_step(progress)
        weights.append(model.weight)
    assert weights == pytest.approx([0, 1, 2, 2])


def test_figures_leave_the_numbers_of_training_as_they_are():
    model, x = net(), torch.rand(4, *SHAPE)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    model.figures(x)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("posterior", ["gaussian", "student"])
def test_the_bound_comes_down_to_the_likelihood(posterior):
    """Against a sum over a fine grid of codes, and never below it but by chance; k = 1 is the nelbo."""
    model = net(posterior=posterior).double().eval()
    x = torch.from_numpy(np.random.default_rng(2).integers(0, 2, (3, *SHAPE)).astype(float))
    points = torch.linspace(-12, 12, 601, dtype=torch.float64)
    grid = torch.cartesian_prod(points, points)
    with torch.no_grad():
        log_prior = model.prior.log_density(grid).sum(1) + 2 * math.log(float(points[1] - points[0]))
        every = torch.stack([bernoulli_log_likelihood(item.flatten(), model.decoder(grid)) for item in x], 1)
        exact = -(every + log_prior[:, None]).logsumexp(0)
        bounds = {k: judge.bound(model, x, k, fixed(x.device)) for k in (1, 4000)}
        nelbo = torch.stack([sum(model.parts(x).values()) for _ in range(4000)]).mean(0)
    tolerance = 2e-2 if posterior == "gaussian" else 4e-2
    torch.testing.assert_close(bounds[4000], exact, atol=tolerance, rtol=0)
    assert (nelbo > exact - 1e-2).all() and bounds[1].shape == exact.shape


@pytest.mark.parametrize("standard", [Normal(), Uniform()], ids=["normal", "uniform"])
def test_overlap_is_the_integral_of_the_root_of_the_product(standard):
    location, scale = np.array([[0.1], [0.9]]), np.array([[0.7], [0.5]])
    z = np.linspace(-8, 8, 400_001)
    p, q = (
        np.exp(standard.log_density(torch.from_numpy((z - location[i]) / scale[i])).numpy()) / scale[i] for i in (0, 1)
    )
    found = judge.bubbles(location, scale, standard)
    assert found["test.overlap"] == pytest.approx(integrate.trapezoid(np.sqrt(p * q), z), abs=1e-4)
    assert found["test.radius"] == pytest.approx(0.6 * standard.deviation)
    assert found["test.distance"] == pytest.approx(0.8)
    assert found["test.touching"] == 1


def test_bounded_posteriors_may_share_nothing_and_gaussian_ones_always_do():
    location, scale = np.array([[0.0, 0.0], [0.5, 0.5], [9.0, 0.0]]), np.full((3, 2), 0.5)
    uniform, normal = (judge.bubbles(location, scale, standard) for standard in (Uniform(), Normal()))
    assert uniform["test.touching"] == pytest.approx(1 / 3) and normal["test.touching"] == 1
    assert uniform["test.overlap"] == pytest.approx(0.25 / 3)  # half of each side is shared, by one pair of three
    same = judge.bubbles(np.zeros((2, 2)), scale[:2], Uniform())
    assert same["test.overlap"] == pytest.approx(1.0)


def test_space_is_measured_by_nearest_codes():
    location = np.array([[0.0, 0.0], [0.1, 0.0], [3.0, 0.0], [3.1, 0.0]])
    found = judge.space(location, np.array([0, 0, 1, 2]), np.array([[0.0, 1.0], [3.0, 0.5]]))
    assert found == pytest.approx({"test.hole": 0.75, "test.neighbour": 0.5})


def test_the_judge_gives_what_it_says(project):
    store = Store(paths.noisy("digits"))
    torch.manual_seed(0)
    found = {}
    for posterior in POSTERIORS:
        model = families.load("vae")(store.shape, 4, hidden=(8,), latent=2, posterior=posterior)
        found[posterior] = judge.assess(model, store, 0, True)
        again = judge.assess(model, store, 0, True)
        assert found[posterior].figures == again.figures  # nothing but the items and the weights
    words = judge.assess.__doc__
    for one in found.values():
        assert all(math.isfinite(value) and name.removeprefix("test.") in words for name, value in one.figures.items())
        assert len(one.series["classes"]) == len(one.series["codes"][0]) == 40
        assert all(items.min() >= 0 and items.max() <= 1 for _, items, _ in one.rows)
    assert "test.overlap" not in found["student"].figures and found["gaussian"].figures["test.touching"] == 1
    grey = families.load("vae")(store.shape, 4, hidden=(8,), likelihood="gaussian")
    assert {"test.nll_grey", "test.active"} <= set(figures := judge.assess(grey, store, 0, True).figures)
    assert "test.nll" not in figures and "test.radius" not in figures
    floors = assess.floors("vae", store)
    x = store.split("test")[0].reshape(40, -1)
    entropy = -(x * np.log(x.mean(0) + 1e-9) + (1 - x) * np.log(1 - x.mean(0) + 1e-9)).sum(1).mean()
    assert floors["independent-pixels"]["test.nll"] == pytest.approx(entropy, rel=0.1)
    plans = judge.pictures({}, {name: [one.series] for name, one in found.items()} | {"wide": [{"curve": {}}]})
    assert list(plans) == ["latent-spaces.png"] and len(plans["latent-spaces.png"][1]().axes) >= 3


def test_a_net_that_learns_finds_that_pixels_depend_on_one_another():
    """Two patterns, one the other's negative: log 2 nats an item, and 9 log 2 to whom pixels are independent."""
    from atelier.data.items import Items
    from atelier.fit import fit

    x = torch.tensor([0.0, 1.0]).repeat(32)[:, None, None, None].expand(64, *SHAPE).contiguous()
    seen, model = Items(x, x, torch.zeros(64, dtype=torch.int64)), net(hidden=(16,), warm_up=0.5)
    model.optimizer = type(model.optimizer)(lr=0.02)
    state = fit(model, Recipe(epochs=60, batch=32, evaluate_every=60), 0, seen, ("test", seen))
    with torch.no_grad():
        found = float(judge.bound(model.eval(), x, 200, fixed(x.device)).mean())
    assert math.log(2) - 0.05 < found < 2 * math.log(2)
    assert (
        found < state.curve[-1]["test.nelbo"] + 0.05 and state.curve[-1]["test.loss"] == state.curve[-1]["test.nelbo"]
    )


def test_kinds_of_losses_make_kinds_of_spaces():
    x = torch.rand(64, *SHAPE).round()
    found = {}
    for name, settings in {"kl": {"reconstruction": 0.0}, "both": {}, "rebuilt": {"beta": 0.0}}.items():
        model = net(hidden=(16,), **settings)
        (optimizer,) = model.optimizers()
        for group in optimizer.param_groups:
            group["lr"] = 0.01
        for _ in range(150):
            (out,) = model.losses(x, None)
            optimizer.zero_grad()
            out["loss"].backward()
            optimizer.step()
        with torch.no_grad():
            seen = model.encode(x)
        found[name] = judge.bubbles(seen.location.numpy(), seen.log_scale.exp().numpy(), Normal())
    assert found["kl"]["test.distance"] < found["both"]["test.distance"] < found["rebuilt"]["test.distance"]
    assert found["kl"]["test.radius"] == pytest.approx(1, abs=0.1)
    assert found["rebuilt"]["test.radius"] < found["both"]["test.radius"] < found["kl"]["test.radius"]


def test_settings_that_make_no_net_are_told_in_one_line():
    with pytest.raises(AtelierError, match="a Bernoulli decoder has none"):
        check_settings("vae", {"sigma": 0.1}, "here")
    with pytest.raises(AtelierError, match="here.freedom"):
        check_settings("vae", {"posterior": "student", "freedom": 2.0}, "here")
    assert check_settings("vae", {"likelihood": "gaussian", "sigma": 0.1}, "here")["sigma"] == 0.1


def test_faults_of_the_sources_are_what_their_pages_print():
    kl = experiments.load("kl-divergence")
    said = (0.33, 0.33, 0.33)
    base10 = [value / math.log(10) for value in (kl.of_shares(kl.P, said), kl.of_shares(said, kl.P))]
    assert base10[0] == pytest.approx(0.0414, abs=5e-5) and math.floor(base10[1] * 1e4) / 1e4 == 0.0375
    ours = [stats.entropy(kl.P, kl.Q), stats.entropy(kl.Q, kl.P)]
    assert [kl.of_shares(kl.P, kl.Q), kl.of_shares(kl.Q, kl.P)] == pytest.approx(ours)
    assert ours[0] < ours[1] and base10[0] > base10[1]
    text = kl.text({}, {})
    assert "0.04141 | 0.03758" in text and "0.08530 | 0.09746" in text
    sigma = torch.tensor(0.01, dtype=torch.float64)
    expected = distributions.kl_divergence(distributions.Normal(0 * sigma, sigma), distributions.Normal(0.0, 1.0))
    assert kl.right(0.01) == pytest.approx(float(expected), rel=1e-6)
    assert kl.sign_turned(1e-8) < kl.sign_turned(1e-4) < -9 and kl.right(1e-8) > 0


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_divergences_agree_with_all_that_know_them(posterior):
    kl = experiments.load("kl-divergence")
    found = kl.measure(0, None, posterior=posterior, units=3, draws=20_000)
    assert found["test.surprise"] < kl.FLOORS["chance"]["test.surprise"]
    assert found.get("test.deviation", 0) < kl.FLOORS["rounding"]["test.deviation"]
    assert found.get("test.lowest", 0) > kl.FLOORS["zero"]["test.lowest"]


def test_a_study_is_trained_judged_and_shown(project):
    """Both families that have latent codes, from settings to the page."""
    from conftest import write_params

    from atelier import files, paths
    from atelier.__main__ import main as command

    models = {
        "flat": {"family": "vae", "hidden": [8], "latent": 2, "warm_up": 0.5},
        "codes": {"family": "discrete-vae", "hidden": [8], "positions": 1, "codes": 4, "width": 2},
    }
    write_params(project, models, hold_out=False, epochs=2)
    assert [command([stage, "tiny"]) for stage in ("train", "evaluate", "report")] == [0, 0, 0]
    folder = paths.report("tiny")
    found = files.read_json(folder / "metrics.json")
    for model in models:
        figures = {name: one["mean"] for name, one in found["models"][model]["metrics"].items()}
        assert figures["test.nelbo"] == pytest.approx(figures["test.kl"] + figures["test.distortion"], rel=1e-5)
        assert figures["test.nll"] < figures["test.nelbo"] + 0.5
    assert {"independent-pixels", "mixed", "one-of-256", "sparse-8"} <= set(found["floors"])
    page = (folder / "index.md").read_text()
    assert all(f"figures/{file}" in page for file in ("latent-spaces.png", "code-usage.png"))
    assert "importance-weighted bound of Burda" in page and "| nelbo (nats) |" in page
