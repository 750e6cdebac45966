"""Hard inputs: against closed forms, against the Adversarial Robustness Toolbox, and in training, judging and pages."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
from conftest import CLASSES, write_params
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML
from sklearn.datasets import load_digits
from torch import nn

from atelier import attacks, code, families, files, fit, params, paths, robustness
from atelier.data.items import Items, items
from atelier.data.store import Store
from atelier.errors import AtelierError
from atelier.optim import Optimizer
from atelier.params import Attacks, Recipe
from atelier.stages import evaluate, report, train

EPSILON = 0.1
pytestmark = pytest.mark.usefixtures("one_thread")


def net(family: str = "mlp", shape=(1, 8, 8), classes: int = 10, **settings) -> nn.Module:
    torch.manual_seed(1)
    settings = settings or ({"hidden": (64,)} if family == "mlp" else {})
    return families.load(family)(shape, classes, **settings, optimizer=Optimizer("adam", 0.01))


def digits(start: int, stop: int) -> Items:
    x, y = load_digits(return_X_y=True)
    x = torch.from_numpy((x[start:stop] / 16).reshape(-1, 1, 8, 8).astype(np.float32))
    return Items(x, x, torch.from_numpy(y[start:stop]))


def fitted(model: nn.Module, epochs: int = 10, **recipe) -> nn.Module:
    how = Recipe(epochs=epochs, batch=100, evaluate_every=epochs, **recipe)
    fit.fit(model, how, 0, digits(0, 1200), ("test", digits(1200, 1300)))
    return model.eval()


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    return fitted(net())


@pytest.fixture(scope="module")
def judged() -> Items:
    return digits(1300, 1600)


def linear(seed: int, pixels: int = 12):
    """Two classes whose log odds are linear, and the weights of the second's against the first's."""
    rng = np.random.default_rng(seed)
    weight = torch.from_numpy(rng.standard_normal((2, pixels)))
    return lambda x: x.flatten(1) @ weight.T, weight[1] - weight[0]


def corner(x, y, odds, epsilon):
    """The worst input that there is for `linear`: every pixel as far as it can go against the label."""
    direction = (odds.sign() * (1 - 2 * y)[:, None]).view(x.shape)
    return (x + epsilon * direction).clamp(0, 1)


# ---- the mathematics


@settings(derandomize=True, deadline=None, max_examples=50)
@given(st.integers(0, 2**31), st.floats(0.01, 1.0), st.integers(1, 5))
def test_on_linear_logits_every_attack_finds_the_closed_form_of_the_worst_input(seed, epsilon, steps):
    classify, odds = linear(seed)
    rng = np.random.default_rng(seed)
    x, y = torch.from_numpy(rng.random((6, 1, 3, 4))), torch.from_numpy(rng.integers(0, 2, 6))
    worst = corner(x, y, odds, epsilon)
    torch.testing.assert_close(attacks.fgsm(classify, x, y, epsilon), worst, rtol=0, atol=1e-12)
    start = attacks.random_start(x, epsilon, rng)
    assert not torch.equal(start, x)
    found = attacks.pgd(classify, x, y, epsilon, steps=steps, start=start)
    torch.testing.assert_close(found, worst, rtol=0, atol=1e-12)
    by_search = attacks.squares(classify, x, y, epsilon, queries=30, rng=rng)
    highest = attacks.margin(classify(worst), y)
    assert (attacks.margin(classify(by_search), y) <= highest + 1e-9).all()


@settings(derandomize=True, deadline=None, max_examples=50)
@given(st.integers(0, 2**31), st.floats(0.001, 1.0))
def test_projections_are_the_nearest_points_of_the_ball_and_the_box(seed, epsilon):
    rng = np.random.default_rng(seed)
    x, far = rng.random((4, 5)), 3 * rng.standard_normal((4, 5))
    found = attacks.project(torch.from_numpy(far), torch.from_numpy(x), epsilon).numpy()
    np.testing.assert_array_equal(found, np.clip(far, np.maximum(x - epsilon, 0), np.minimum(x + epsilon, 1)))


def test_an_items_gradient_is_its_own_and_the_weights_get_none(trained, judged):
    x, y = judged.x[:5], judged.y[:5]
    found, logits = attacks.slope(trained.classify, x, y)
    for i in range(5):
        pixels = x[i : i + 1].double()
        loss = nn.CrossEntropyLoss(reduction="sum")
        whole = copy.deepcopy(trained).double()
        (alone,) = torch.autograd.grad(loss(whole.classify(pixels.requires_grad_()), y[i : i + 1]), pixels)
        torch.testing.assert_close(found[i : i + 1].double(), alone, rtol=1e-3, atol=1e-6)
    for parameter in trained.parameters():
        parameter.grad = None
    attacks.pgd(trained.classify, x, y, EPSILON, steps=2)
    assert all(parameter.grad is None for parameter in trained.parameters()) and not logits.requires_grad


def test_margin_is_over_0_exactly_where_an_item_is_misread():
    logits = np.random.default_rng(0).standard_normal((50, 4))
    y = np.arange(50) % 4
    found = attacks.margin(torch.from_numpy(logits), torch.from_numpy(y)).numpy()
    expected = [max(row[j] for j in range(4) if j != label) - row[label] for row, label in zip(logits, y, strict=True)]
    np.testing.assert_allclose(found, expected)
    np.testing.assert_array_equal(found > 0, logits.argmax(1) != y)


def test_the_rule_of_steps():
    assert attacks.step_size("pgd", 0.1, 10) == pytest.approx(0.025)
    assert attacks.step_size("fgsm", 0.1, start="item") == 0.1
    assert attacks.step_size("fgsm", 0.1) == pytest.approx(0.125)
    assert attacks.step_size("universal", 0.1) == pytest.approx(0.01)


# ---- attacks on a trained net


def test_attacks_stay_in_reach_and_pgd_is_no_weaker_than_fgsm(trained, judged):
    x, y = judged.x, judged.y
    loss = {"clean": attacks.cross_entropy(trained.classify(x), y).detach()}
    rng = np.random.default_rng(0)
    delta = attacks.universal(trained.classify, x, y, EPSILON, steps=30, batch=50, rng=rng)
    moved = {
        "fgsm": attacks.fgsm(trained.classify, x, y, EPSILON),
        "pgd": attacks.pgd(trained.classify, x, y, EPSILON, steps=20),
        "squares": attacks.squares(trained.classify, x, y, EPSILON, queries=20, rng=rng),
        "universal": attacks.shared(x, delta),
    }
    for name, found in moved.items():
        assert (found - x).abs().max() <= EPSILON + 1e-6 and found.min() >= 0 and found.max() <= 1
        loss[name] = attacks.cross_entropy(trained.classify(found), y).detach()
    assert (loss["pgd"] >= loss["fgsm"] - 1e-3).double().mean() > 0.97 and loss["pgd"].mean() > loss["fgsm"].mean()
    assert loss["fgsm"].mean() > loss["squares"].mean() > loss["clean"].mean()
    assert delta.shape == x.shape[1:] and loss["universal"].mean() > loss["clean"].mean()


def test_a_perturbation_of_all_items_of_a_class_is_that_of_each_where_logits_are_linear():
    classify, odds = linear(3)
    x, y = 0.3 + 0.4 * torch.rand(20, 1, 3, 4, dtype=torch.float64), torch.zeros(20, dtype=torch.int64)
    delta = attacks.universal(classify, x, y, EPSILON, steps=12, batch=10, rng=np.random.default_rng(0))
    torch.testing.assert_close(delta.flatten(), EPSILON * odds.sign(), rtol=0, atol=1e-12)


def test_more_restarts_never_raise_accuracy_and_what_is_said_is_so(trained, judged):
    x, y = judged.x, judged.y
    tries = attacks.restarted(trained.classify, EPSILON, steps=5, restarts=4, seed=0)
    seen = [(right.clone(), moved.clone()) for right, moved in attacks.hardest(trained.classify, x, y, tries, 64)]
    before = trained.classify(x).argmax(1) == y
    counts = [int(before.sum())]
    for right, moved in seen:
        assert (before | ~right).all()
        assert torch.equal(trained.classify(moved).argmax(1) == y, right)
        assert (moved - x).abs().max() <= EPSILON + 1e-6
        before = right
        counts.append(int(right.sum()))
    assert counts == sorted(counts, reverse=True) and counts[1] < counts[0] and counts[4] < counts[1]
    wrong = trained.classify(x).argmax(1) != y
    assert wrong.any() and torch.equal(seen[-1][1][wrong], x[wrong])


def test_stopping_early_fools_no_fewer(trained, judged):
    x, y = judged.x, judged.y
    whole, stopped = (attacks.pgd(trained.classify, x, y, EPSILON, steps=10, stop=stop) for stop in (False, True))
    missed = [trained.classify(moved).argmax(1) != y for moved in (whole, stopped)]
    assert (missed[1] | ~missed[0]).all()
    assert (stopped - x).abs().sum() < (whole - x).abs().sum()


def test_results_follow_from_the_seed_and_not_from_batches(trained, judged):
    model, x, y = copy.deepcopy(trained).double(), judged.x[:90].double(), judged.y[:90]

    def run(seed: int, rows: int) -> torch.Tensor:
        tries = attacks.restarted(model.classify, 0.06, steps=3, restarts=2, seed=seed)
        return [moved for _, moved in attacks.hardest(model.classify, x, y, tries, rows)][-1]

    assert torch.equal(run(0, 90), run(0, 90))
    torch.testing.assert_close(run(0, 7), run(0, 90), rtol=0, atol=1e-9)
    assert not torch.equal(run(1, 90), run(0, 90))
    everyone = torch.arange(90)
    some = torch.tensor([3, 4, 50])
    start = partial(attacks.own_start, epsilon=EPSILON, seed=0, restart=1)
    assert torch.equal(start(x[some], positions=some), start(x, positions=everyone)[some])


def test_at_equal_budget_it_is_as_strong_as_the_adversarial_robustness_toolbox(trained, judged):
    from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    x, y, steps, restarts = judged.x[:200], judged.y[:200], 5, 2

    class Forward(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = copy.deepcopy(trained)

        def forward(self, x):
            return self.net.classify(x)

    theirs = PyTorchClassifier(
        Forward().eval(), nn.CrossEntropyLoss(), (1, 8, 8), 10, clip_values=(0.0, 1.0), device_type="cpu"
    )
    budget = {"eps": EPSILON, "batch_size": 200}
    one_step = FastGradientMethod(theirs, **budget).generate(x.numpy(), y.numpy())
    np.testing.assert_allclose(attacks.fgsm(trained.classify, x, y, EPSILON).numpy(), one_step, atol=1e-6)
    for epsilon in (0.03, 0.06):
        step = attacks.step_size("pgd", epsilon, steps)
        np.random.seed(0)
        budget = {"eps": epsilon, "eps_step": step, "max_iter": steps, "num_random_init": restarts, "batch_size": 200}
        moved = ProjectedGradientDescentPyTorch(theirs, **budget, verbose=False).generate(x.numpy(), y.numpy())
        left = trained.classify(torch.from_numpy(moved)).argmax(1) == y
        tries = attacks.restarted(trained.classify, epsilon, steps=steps, restarts=restarts, seed=0)
        ours = [right for right, _ in attacks.hardest(trained.classify, x, y, tries, 200)][-1]
        assert 0 < ours.sum() <= left.sum() < len(y)


# ---- a gradient that misleads


class Rounded(nn.Module):
    """Reads pixels rounded to quarters: its gradient is 0, and it withstands nothing."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def classify(self, x):
        return self.inner.classify((x * 4).round() / 4)


def how(**changes) -> Attacks:
    known = {"epsilon": 0.2, "steps": 4, "restarts": 2, "items": 40, "curve": (0.1, 0.2), "transfer": ("net",)}
    return Attacks(**known | changes)


def test_a_net_that_misleads_the_gradient_is_found_out(project):
    store = Store(paths.noisy("digits"))
    seen = items(store, "train", None, False)
    model = net(shape=store.shape, classes=CLASSES, hidden=(16,))
    fit.fit(model, Recipe(epochs=15, batch=16, evaluate_every=15), 0, seen, ("test", seen))
    honest = robustness.judge(model, store, 0, how(), False, [])
    masked = robustness.judge(Rounded(model), store, 0, how(), False, [model])
    assert honest.figures["test.zero_gradient"] == 0 and honest.figures["test.squares_gain"] <= 0.025
    assert honest.figures["test.under_pgd"] < 0.3 and "test.under_transfer" not in honest.figures
    assert masked.figures["test.zero_gradient"] == 1 and masked.figures["test.under_pgd"] > 0.5
    assert masked.figures["test.squares_gain"] > 0.1 and masked.figures["test.transfer_gain"] > 0.1
    assert all(len(shown) == CLASSES for _, shown, _ in honest.rows)
    with pytest.raises(AtelierError, match="^attacks: items is 41, but there are 40 test items; give less"):
        robustness.judge(model, store, 0, how(items=41), False, [])


# ---- training on hard inputs

KINDS = {
    "fgsm": {"kind": "fgsm", "epsilon": 0.1, "start": "item"},
    "fgsm-random": {"kind": "fgsm", "epsilon": 0.1},
    "pgd": {"kind": "pgd", "epsilon": 0.1, "steps": 2},
    "universal": {"kind": "universal", "epsilon": 0.1},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training_on_hard_inputs_goes_on_as_if_it_had_never_stopped(kind, precision):
    how = Recipe(epochs=3, batch=64, attack=KINDS[kind], precision=precision)
    seen, held, states = digits(0, 200), digits(200, 260), []
    whole = net(hidden=(16,), dropout=(0.2,))
    fit.fit(whole, how, 3, seen, ("test", held), after_epoch=lambda state: states.append(copy.deepcopy(state)))
    again = net(hidden=(16,), dropout=(0.2,))
    last = fit.fit(again, how, 3, seen, ("test", held), state=states[1])
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    assert last.curve == states[-1].curve and {"test.fgsm_accuracy", "test.pgd_accuracy"} <= last.curve[-1].keys()


class Recorder(nn.Module):
    """Notes the batches it learns, and in which mode it answers."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(64, 10), nn.BatchNorm1d(64)
        self.batches, self.modes = [], []

    def classify(self, x):
        self.modes.append(self.training)
        return self.layer(self.norm(x.flatten(1)))

    def optimizers(self):
        return [torch.optim.SGD(self.parameters(), 0.1)]

    def losses(self, x, y):
        assert self.training
        self.batches.append((x.clone(), y.clone()))
        yield {"loss": nn.functional.cross_entropy(self.classify(x), y)}


@pytest.mark.parametrize("kind", KINDS)
def test_a_net_learns_every_batch_moved_and_is_as_in_use_while_it_is_moved(kind):
    seen, plain, hard = digits(0, 128), Recorder(), Recorder()
    common = {"epochs": 2, "batch": 64, "evaluate_every": 2}
    fit.fit(plain, Recipe(**common), 0, seen, ("test", seen))
    fit.fit(hard, Recipe(**common, attack=KINDS[kind]), 0, seen, ("test", seen))
    assert hard.norm.num_batches_tracked == 4  # moving a batch leaves running means as they are
    for (x, y), (clean, label) in zip(hard.batches, plain.batches, strict=True):
        moved = (x - clean).abs()
        assert torch.equal(y, label) and 0.05 < moved.max() <= 0.1 + 1e-6 and x.min() >= 0 and x.max() <= 1
    if kind == "universal":
        (x, _), (clean, _) = hard.batches[1], plain.batches[1]
        delta = torch.where((clean > 0.1) & (clean < 0.9), x - clean, torch.nan)
        spread = delta.nan_to_num(-9).amax(0) - delta.nan_to_num(9).amin(0)
        assert spread[delta.isfinite().any(0)].abs().max() < 1e-6  # one perturbation for all items


def test_what_is_learned_on_pgd_withstands_it_and_noise_does_not_teach_that(trained, judged):
    noise = {"kind": "gaussian", "level": 0.1, "draw": "fresh"}
    models = {"plain": trained, "gaussian": fitted(net(), noise=noise), "pgd": fitted(net(), attack=KINDS["pgd"])}
    left = {}
    for name, model in models.items():
        tries = attacks.restarted(model.classify, EPSILON, steps=10, restarts=2, seed=0)
        found = [right for right, _ in attacks.hardest(model.classify, judged.x, judged.y, tries, 300)]
        left[name] = float(found[-1].double().mean())
    assert left["pgd"] > left["gaussian"] + 0.1 and left["pgd"] > left["plain"] + 0.15


def test_training_on_hard_inputs_is_refused_where_it_makes_no_sense():
    attack = {"kind": "fgsm", "epsilon": 0.1}
    seen = digits(0, 20)
    with pytest.raises(AtelierError, match="^attack needs a family that classifies"):
        fit.fit(net("autoencoder", widths=(4,)), Recipe(epochs=1, attack=attack), 0, seen, ("test", seen))
    wide = Items(3 * seen.x - 1, 3 * seen.x - 1, seen.y)
    with pytest.raises(AtelierError, match=r"^attack needs pixels in \[0, 1\]: these items hold -1 to 2"):
        fit.fit(net(), Recipe(epochs=1, attack=attack), 0, wide, ("test", wide))


# ---- parameters, code, pages


@pytest.mark.parametrize(
    "given, told",
    [
        ({"kind": "pgd", "epsilon": 0.1}, ".attack.steps is missing; give how many steps pgd takes, as in steps: 7"),
        ({"kind": "fgsm", "epsilon": 0.1, "steps": 3}, ".attack.steps is 3; fgsm takes one step a batch: drop it"),
        ({"kind": "fgsm", "epsilon": 0}, ".attack.epsilon is 0; give more than 0"),
        ({"kind": "fgsm", "epsilon": 2}, ".attack.epsilon is 2; give 1 or less"),
        ({"kind": "fgsn", "epsilon": 0.1}, '.attack.kind is "fgsn"; did you mean fgsm?'),
        ({"kind": "fgsm"}, ".attack.epsilon is missing"),
    ],
)
def test_bad_parameters_are_refused_in_one_line(given, told):
    with pytest.raises(ValueError) as error:
        Recipe(epochs=1).changed({"attack": given})
    assert str(error.value).startswith(told) and "\n" not in str(error.value)


def attacked_study(project, **changes) -> None:
    """The study tiny, with a net trained on PGD beside the plain one, both attacked."""
    plain = {"family": "mlp", "hidden": [12]}
    hard = plain | {"train": {"attack": {"kind": "pgd", "epsilon": 0.2, "steps": 3}}}
    write_params(project, {"plain": plain, "hard": hard}, epochs=10)
    content = YAML(typ="safe").load(project / "params.yaml")
    own = {"epsilon": 0.2, "steps": 4, "restarts": 2, "items": 40, "curve": [0.1, 0.2], "transfer": ["plain"]}
    study = content["studies"]["tiny"]
    study["attacks"] = own | changes
    above = {"metric": "test.under_pgd", "higher": "hard", "bound": 0.05}
    study["claims"] = [{"says": "It withstands", "compare": above}]
    with open(project / "params.yaml", "w") as file:
        YAML().dump(content, file)


@pytest.mark.parametrize(
    "changes, told",
    [
        (
            {"transfer": ["plan"]},
            'studies.tiny.attacks.transfer names "plan", no model here; did you mean plain? (hard, plain)',
        ),
        ({"curve": [0.2, 0.1]}, "studies.tiny.attacks.curve is [0.2, 0.1]; give levels that rise, each once"),
        ({"restarts": 0}, "studies.tiny.attacks.restarts is 0; give 1 or more"),
    ],
)
def test_bad_attacks_of_a_study_are_refused_in_one_line(project, changes, told):
    attacked_study(project, **changes)
    with pytest.raises(AtelierError) as error:
        params.load()
    assert str(error.value) == f"params.yaml: {told}"


def test_only_what_meets_hard_inputs_depends_on_their_code(project):
    attacked_study(project)
    assert code.of_family("mlp", ("attacks",)) != code.of_family("mlp") == code.of_family("mlp", ())
    found = code.of_stages(params.load())["studies"]["tiny"]
    assert found["attacks"]["restarts"] == 2
    write_params(project)
    plain = code.of_stages(params.load())["studies"]["tiny"]
    assert plain["attacks"] is None and plain["train"] != found["train"] and plain["evaluate"] != found["evaluate"]


def test_an_attacked_study_from_parameters_to_its_page(project):
    attacked_study(project)
    for stage in (train, evaluate, report):
        stage.main("tiny")
    folder = paths.report("tiny")
    found = files.read_json(folder / "metrics.json")["models"]
    for name in ("plain", "hard"):
        figures = {metric: summary["mean"] for metric, summary in found[name]["metrics"].items()}
        assert 0 <= figures["test.under_pgd"] <= figures["test.under_fgsm"] <= figures["test.accuracy"] <= 1
        assert figures["test.under_pgd"] <= figures["test.under_universal"]
        (series,) = found[name]["series"]
        curve = series["attacked"]["curves"]["pgd"]
        assert curve == sorted(curve, reverse=True) and curve[0] == pytest.approx(figures["test.accuracy"])
    under = "test.under_pgd"
    assert found["hard"]["metrics"][under]["mean"] > found["plain"]["metrics"][under]["mean"]
    assert "test.under_transfer" in found["hard"]["metrics"] and "test.under_transfer" not in found["plain"]["metrics"]
    page = (folder / "index.md").read_text()
    section = page.split("## Under attack")[1].split("\n## ")[0]
    robust = 100 * found["hard"]["metrics"][under]["mean"]
    assert f"| {robust:.2f} " in next(line for line in section.splitlines() if line.startswith("| hard"))
    for file in ("attack-matrix", "attack-epsilon", "attack-strength", "attack-training"):
        assert f"figures/{file}.png" in section and (folder / "figures" / f"{file}.png").exists()
    assert "(epsilon 0.2, kind pgd, start random, steps 3)" in page
    (claim,) = files.read_json(folder / "claims.json")
    assert claim["estimate"] == pytest.approx(robust / 100 - 0.05)
