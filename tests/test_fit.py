"""The training loop against plain loops, formulas and itself: chunked, stopped and resumed, it gives one result."""

import copy
import io
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from atelier import families, fit, noise
from atelier.augment import augment
from atelier.data.items import Items
from atelier.errors import AtelierError
from atelier.fit import Diverged, State
from atelier.optim import Optimizer
from atelier.params import Recipe, TrainNoise

SHAPE, CLASSES, N = (1, 4, 4), 3, 50
pytestmark = pytest.mark.usefixtures("one_thread")


def make_items(n: int = N, seed: int = 0) -> Items:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, CLASSES, n)
    y[:CLASSES] = range(CLASSES)
    x = (rng.random((n, *SHAPE)) * 0.6 + 0.2 * (y[:, None, None, None] - 1)).clip(0, 1).astype(np.float32)
    x = torch.from_numpy(x)
    return Items(x, x, torch.from_numpy(y))


def make_model(family: str = "mlp", optimizer: Optimizer = Optimizer("adam", 0.01), **settings) -> nn.Module:
    torch.manual_seed(5)
    settings = settings or ({"hidden": (8,)} if family == "mlp" else {})
    return families.load(family)(SHAPE, CLASSES, **settings, optimizer=optimizer)


def recipe(**changes) -> Recipe:
    return Recipe(**{"epochs": 2, "batch": 16} | changes)


def weights(model: nn.Module) -> dict[str, np.ndarray]:
    return {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}


def assert_same(one: dict[str, np.ndarray], other: dict[str, np.ndarray], **tolerance) -> None:
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_allclose(one[name], other[name], err_msg=name, **(tolerance or {"rtol": 0, "atol": 0}))


def train(model: nn.Module, how: Recipe, seed: int = 3, seen: Items | None = None, split="test", **more) -> State:
    return fit.fit(model, how, seed, seen or make_items(), (split, make_items(20, seed=1)), **more)


class Recorder(nn.Module):
    """Records the batches and learning rates that it is given; its loss is what the test says."""

    def __init__(self, loss=lambda w, x: (w - x.mean()).square().sum()) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1))
        self.seen, self.rates, self.loss = [], [], loss

    def optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=1.0)
        optimizer.register_step_pre_hook(lambda own, *_: self.rates.append(own.param_groups[0]["lr"]))
        return [optimizer]

    def losses(self, x, y):
        self.seen.append((x.clone(), y.clone()))
        yield {"loss": self.loss(self.w, x)}


# ---- batches


@pytest.mark.parametrize("chunk", [7, 25, 49])
def test_chunks_leave_the_full_batch_gradient_as_it_is_and_count_a_penalty_once(chunk):
    found = []
    for how in (recipe(batch="full", chunk=chunk), recipe(batch="full")):
        model = make_model("mlp", Optimizer("sgd", 0.5), hidden=(8,), l2=0.3, l1=0.05)
        state = train(model, how)
        found.append((weights(model), state.curve[-1]["running.loss"]))
    (pieces, loss), (whole, expected) = found
    assert_same(pieces, whole, rtol=0, atol=1e-6)
    assert math.isclose(loss, expected, rel_tol=1e-5)


def test_a_full_batch_is_the_items_in_their_order_once_an_epoch():
    model, seen = Recorder(), make_items()
    train(model, recipe(batch="full", epochs=3), seen=seen)
    assert len(model.seen) == 3
    assert all(torch.equal(x, seen.x) and torch.equal(y, seen.y) for x, y in model.seen)


@given(n=st.integers(2, 40), batch=st.integers(1, 45), epochs=st.integers(1, 3))
@settings(max_examples=25, deadline=None)
def test_an_epoch_shows_every_item_once_and_only_the_last_batch_is_short(n, batch, epochs):
    items = Items(torch.arange(float(n)), torch.zeros(n), torch.arange(n))
    model, steps = Recorder(), -(-n // batch)
    train(model, recipe(epochs=epochs, batch=batch), seen=items)
    assert len(model.seen) == epochs * steps
    for epoch in range(epochs):
        batches = model.seen[epoch * steps : (epoch + 1) * steps]
        sizes = [len(x) for x, _ in batches]
        assert sizes[:-1] == [min(batch, n)] * (len(sizes) - 1) and 0 < sizes[-1] <= batch
        assert sorted(torch.cat([y for _, y in batches]).tolist()) == list(range(n))
        assert all(torch.equal(x, y.float()) for x, y in batches)


def orders(seed: int, epochs: int, model: Recorder | None = None, state: State | None = None) -> list[list[int]]:
    """The labels in the order in which each epoch showed them."""
    model = model or Recorder()
    x = torch.rand(N, *SHAPE, generator=torch.Generator().manual_seed(0))
    items = Items(x, x, torch.arange(N) % CLASSES)
    fit.fit(model, recipe(epochs=epochs), seed, items, ("test", items), state=state)
    shown = torch.cat([x.flatten(1)[:, 0] for x, _ in model.seen]).view(-1, N)
    return [[int((x.flatten(1)[:, 0] == value).nonzero()[0]) for value in epoch] for epoch in shown]


def test_the_order_depends_on_seed_and_epoch_alone():
    torch.manual_seed(1)
    first = orders(seed=4, epochs=3)
    torch.manual_seed(2)
    again = orders(seed=4, epochs=3, model=Recorder(loss=lambda w, x: w.sum()))
    assert first == again
    assert first[:2] == orders(seed=4, epochs=2)
    other = orders(seed=5, epochs=3)
    different = [tuple(order) for order in (*first, *other)]
    assert len(set(different)) == 6
    assert first == [np.random.default_rng([4, epoch]).permutation(N).tolist() for epoch in range(3)]


def test_mini_batches_equal_a_loop_written_by_hand():
    seen = make_items()
    model = make_model("mlp", Optimizer("momentum", 0.05, 0.9, 0.01), hidden=(8,), l2=0.1)
    plain = copy.deepcopy(model)
    train(model, recipe(epochs=2, schedule="cosine", clip=0.5), seed=3, seen=seen)

    optimizer = torch.optim.SGD(plain.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01)
    steps = 4
    for epoch in range(2):
        order = np.random.default_rng([3, epoch]).permutation(N)
        for step in range(steps):
            rows = order[16 * step : 16 * step + 16]
            hidden = F.relu(F.linear(seen.x[rows].flatten(1), plain.layers[0].weight, plain.layers[0].bias))
            logits = F.linear(hidden, plain.head.weight, plain.head.bias)
            penalty = 0.05 * (plain.layers[0].weight.square().sum() + plain.head.weight.square().sum())
            loss = -logits.log_softmax(1)[range(len(rows)), seen.y[rows]].mean() + penalty
            optimizer.zero_grad()
            loss.backward()
            norm = math.sqrt(sum(float(p.grad.square().sum()) for p in plain.parameters()))
            for p in plain.parameters():
                p.grad *= min(1.0, 0.5 / norm)
            progress = (epoch * steps + step) / (2 * steps)
            optimizer.param_groups[0]["lr"] = 0.05 * (1 + math.cos(math.pi * progress)) / 2
            optimizer.step()
    assert_same(weights(model), weights(plain), rtol=0, atol=2e-7)


# ---- steps


def test_the_learning_rate_follows_the_schedule_step_by_step():
    model = Recorder()
    train(model, recipe(epochs=2, schedule="step"))
    np.testing.assert_allclose(model.rates, [1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])
    model = Recorder()
    train(model, recipe(epochs=1, batch=13, schedule="one-cycle"))
    np.testing.assert_allclose(model.rates, [0.04, 0.04 + 0.96 * 0.25 / 0.3, 0.5 / 0.7, 0.25 / 0.7])


@pytest.mark.parametrize("clip", [None, 0.1, 1e6])
def test_clip_bounds_the_norm_of_the_gradient_and_keeps_its_direction(clip):
    norms, slopes = [], []

    class Slope(nn.Module):
        def __init__(self):
            super().__init__()
            self.w, self.v = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))

        def optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), lr=0.0)
            optimizer.register_step_pre_hook(self.note)
            return [optimizer]

        def note(self, *_):
            norms.append(math.hypot(self.w.grad, self.v.grad))
            slopes.append(self.v.grad.item() / self.w.grad.item())

        def losses(self, x, y):
            yield {"loss": 30 * self.w.sum() + 40 * self.v.sum()}

    model = Slope()
    train(model, recipe(epochs=1, clip=clip))
    np.testing.assert_allclose(norms, min(clip or 50, 50), rtol=1e-4)
    np.testing.assert_allclose(slopes, 4 / 3, rtol=1e-4)


class Pair(nn.Module):
    """Like a GAN: two players, the second sees what the first has become; after_step counts."""

    def __init__(self) -> None:
        super().__init__()
        self.critic, self.maker = nn.Parameter(torch.tensor([1.0])), nn.Parameter(torch.tensor([3.0]))
        self.steps = 0

    def optimizers(self):
        return [torch.optim.SGD([self.critic], lr=0.5), torch.optim.SGD([self.maker], lr=0.25)]

    def losses(self, x, y):
        gap = self.critic - self.maker.detach()
        yield {"loss": gap.square().sum(), "gap": gap.abs().sum()}
        yield {"loss": (self.maker * self.critic).sum()}

    def after_step(self):
        self.steps += 1


def test_two_optimizers_step_in_turn_and_the_second_loss_sees_the_first_step():
    model = Pair()
    state = train(model, recipe(epochs=1, batch="full"))
    # The critic jumps onto the maker, 1 - 0.5 * 2 * (1 - 3) = 3; the maker then moves by the new critic, 3 - 0.25 * 3.
    assert model.critic.item() == 3.0 and model.maker.item() == 2.25
    assert state.curve == [{"epoch": 1, "running.loss": 4.0, "running.gap": 2.0, "running.loss-2": 9.0}]
    assert model.steps == 1


def test_chunks_are_refused_where_a_later_loss_depends_on_an_earlier_step():
    with pytest.raises(AtelierError, match="chunk needs a family with one optimizer"):
        train(Pair(), recipe(epochs=1, batch="full", chunk=10))


def test_a_loss_that_is_no_number_stops_training_and_names_the_place():
    calls = []

    def loss(w, x):
        calls.append(1)
        return w.sum() * (math.nan if len(calls) == 7 else 1.0)

    with pytest.raises(Diverged, match=r"^loss is nan at epoch 2, step 3 of 4; try a lower lr or clip$"):
        train(Recorder(loss), recipe(epochs=3))
    assert len(calls) == 8  # losses are read once an epoch
    assert issubclass(Diverged, AtelierError)
    with pytest.raises(Diverged, match="loss is inf at epoch 1, step 1 of 1"):
        train(Recorder(lambda w, x: w.sum() + math.inf), recipe(batch="full"))


def test_running_figures_are_means_over_items_however_short_the_last_batch_is():
    seen = make_items(20)
    state = train(Recorder(lambda w, x: x.mean() + 0 * w.sum()), recipe(epochs=1, batch=19), seen=seen)
    assert state.curve[-1]["running.loss"] == pytest.approx(seen.x.mean().item(), rel=1e-5)


# ---- augmentation and precision


def test_every_batch_is_augmented_from_seed_and_epoch_and_resuming_changes_nothing():
    how = recipe(epochs=3, augment={"flip": True, "shift": 1, "erase": 0.5})
    seen, model, states = make_items(), Recorder(), []
    train(model, how, seen=seen, after_epoch=lambda state: states.append(copy.deepcopy(state)))
    plain = Recorder()
    train(plain, recipe(epochs=3), seen=seen)
    assert len(model.seen) == len(plain.seen) == 12
    epochs = []
    for epoch in range(3):
        rng = np.random.default_rng([3, epoch, fit.AUGMENT])
        for step in range(4 * epoch, 4 * epoch + 4):
            (x, y), (original, label) = model.seen[step], plain.seen[step]
            assert torch.equal(x, augment(original, rng, flip=True, shift=1, erase=0.5)) and torch.equal(y, label)
        epochs.append(torch.cat([x for x, _ in model.seen[4 * epoch : 4 * epoch + 4]]).sum().item())
    assert len(set(epochs)) == 3
    again = Recorder()
    train(again, how, seen=seen, state=states[2])
    assert all(torch.equal(x, y) for (x, _), (y, _) in zip(again.seen, model.seen[8:], strict=True))


def test_augmentation_is_refused_where_it_makes_no_sense():
    flat = Items(torch.rand(8, 5), torch.rand(8, 5), torch.zeros(8, dtype=torch.int64))
    with pytest.raises(AtelierError, match=r"^augment: the shape is \(1, 5\); give images"):
        train(Recorder(), recipe(augment={"flip": True}), seen=flat)
    with pytest.raises(AtelierError, match="^augment: shift is 4; give 0 to 3"):
        train(Recorder(), recipe(augment={"shift": 4}))
    with pytest.raises(AtelierError, match="^augment needs a family that learns labels"):
        train(make_model("autoencoder", widths=(4,)), recipe(augment={"flip": True}))


# ---- smoothed labels


@given(seed=st.integers(0, 2**32 - 1), share=st.floats(0, 0.99), classes=st.integers(2, 9))
@settings(max_examples=25, deadline=None)
def test_smoothed_labels_are_probabilities_that_give_the_library_s_smoothed_loss(seed, share, classes):
    rng = np.random.default_rng(seed)
    y = torch.from_numpy(rng.integers(0, classes, 20))
    soft = fit.smoothed(y, share, classes)
    torch.testing.assert_close(soft.sum(1), torch.ones(20))
    expected = np.where(np.arange(classes) == y.numpy()[:, None], 1 - share + share / classes, share / classes)
    np.testing.assert_allclose(soft, expected, rtol=0, atol=1e-6)
    logits = torch.from_numpy(rng.normal(scale=3, size=(20, classes))).float()
    torch.testing.assert_close(F.cross_entropy(logits, soft), F.cross_entropy(logits, y, label_smoothing=share))


def test_training_smooths_the_labels_and_evaluation_does_not():
    seen, held = make_items(), make_items(20, seed=1)
    model = make_model("mlp", Optimizer("sgd", 0.3), hidden=(8,), l2=0.1)
    plain = copy.deepcopy(model)
    state = train(model, recipe(epochs=2, label_smoothing=0.2), seed=3, seen=seen)

    optimizer = torch.optim.SGD(plain.parameters(), lr=0.3)
    running = 0.0
    for epoch in range(2):
        for rows in torch.from_numpy(np.random.default_rng([3, epoch]).permutation(N)).split(16):
            loss = F.cross_entropy(plain.classify(seen.x[rows]), seen.y[rows], label_smoothing=0.2)
            loss = loss + 0.05 * sum(layer.weight.square().sum() for layer in (plain.layers[0], plain.head))
            running += epoch * loss.item() * len(rows) / N
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert_same(weights(model), weights(plain), rtol=0, atol=2e-7)
    with torch.no_grad():
        expected = float(F.cross_entropy(plain.eval().classify(held.x), held.y))
    assert state.curve[-1]["test.loss"] == pytest.approx(expected, abs=1e-6)
    assert state.curve[-1]["running.loss"] == pytest.approx(running, abs=1e-6)


@pytest.mark.parametrize("model", [Recorder(), make_model("autoencoder", widths=(4,)), make_model("rbm", hidden=4)])
def test_label_smoothing_is_refused_where_no_labels_are_learned(model):
    with pytest.raises(AtelierError, match="^label_smoothing needs a family that learns labels.*drop label_smoothing$"):
        train(model, recipe(label_smoothing=0.1))


class Seen(nn.Module):
    """Notes the type in which a layer of another module gives its output."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.types = []
        layer.register_forward_hook(lambda own, given, output: self.types.append(output.dtype))


def recurs_in_bf16() -> bool:
    """Whether torch has a recurrent layer in bfloat16 for this CPU: it has none without AVX-512."""
    try:
        with torch.autocast("cpu", torch.bfloat16):
            nn.LSTM(2, 2)(torch.zeros(1, 1, 2))
    except RuntimeError:
        return False
    return True


@pytest.mark.parametrize("family", ["mlp", "cnn", "recurrent", "autoencoder"])
def test_bf16_multiplies_in_bfloat16_and_keeps_weights_losses_and_evaluation_in_float32(family):
    if family == "recurrent" and not recurs_in_bf16():
        pytest.skip("torch has no recurrent layer in bfloat16 for this CPU")
    model = make_model(family)
    layer = next(layer for layer in model.modules() if isinstance(layer, nn.Linear | nn.Conv2d))
    seen = Seen(layer)
    state = train(model, recipe(epochs=1, batch="full", precision="bf16"))
    assert seen.types[0] is torch.bfloat16 and set(seen.types[1:]) == {torch.float32}
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float32}
    assert 0 < state.curve[-1]["running.loss"] == np.float32(state.curve[-1]["running.loss"])


def test_a_mean_over_seeds_differs_less_between_precisions_than_seeds_differ():
    """What allows a long study to use bf16: five seeds of each, on the handwritten digits."""
    digits = load_digits()
    x, y = torch.from_numpy(digits.images[:, None].astype(np.float32) / 16), torch.from_numpy(digits.target)
    seen, held = Items(x[:1200], x[:1200], y[:1200]), Items(x[1200:], x[1200:], y[1200:])
    loss = {}
    for precision in ("fp32", "bf16"):
        how, found = recipe(epochs=30, batch="full", precision=precision), []
        for seed in range(5):
            torch.manual_seed(seed)
            model = families.load("mlp")((1, 8, 8), 10, hidden=(64, 32), optimizer=Optimizer("adam", 0.01))
            found.append(fit.fit(model, how, seed, seen, ("test", held)).curve[-1]["test.loss"])
        loss[precision] = np.array(found)
    assert not np.array_equal(loss["bf16"], loss["fp32"])
    assert abs(loss["bf16"].mean() - loss["fp32"].mean()) < loss["fp32"].std(ddof=1)


# ---- evaluation, early stopping, snapshots


def test_epochs_are_evaluated_at_the_first_the_last_and_as_often_as_the_recipe_says():
    how = recipe(epochs=8, evaluate_every=3)
    state = train(make_model(), how)
    assert [record["epoch"] for record in state.curve] == [1, 3, 6, 8]
    assert [epoch for epoch in range(1, 9) if how.evaluates(epoch)] == [1, 3, 6, 8]
    last = state.curve[-1]
    own = {f"{split}.{name}" for split in ("train", "test") for name in ("loss", "accuracy", "accuracy_rounded")}
    assert last.keys() == {"epoch", "running.loss"} | own


class Drifting(Recorder):
    """w grows by one an epoch; the loss on held-out items has its minimum at w = 3."""

    def losses(self, x, y):
        yield {"loss": -self.w.sum()}

    def classify(self, x):
        return torch.stack([torch.zeros(len(x)), (self.w - 3).abs().expand(len(x))], 1)


@pytest.mark.parametrize("patience, stopped", [(1, 4), (2, 5), (4, 7), (9, 9)])
def test_early_stopping_waits_and_goes_back_to_the_best_weights(patience, stopped):
    items = Items(torch.rand(8, 2), torch.rand(8, 2), torch.zeros(8, dtype=torch.int64))
    model = Drifting()
    how = recipe(epochs=9, batch="full", hold_out=True, patience=patience)
    state = fit.fit(model, how, 0, items, ("validation", items))
    assert state.epoch == stopped
    assert state.best["epoch"] == 3 and model.w.item() == 3.0
    assert state.best["loss"] == min(record["validation.loss"] for record in state.curve)


def test_patience_looks_at_epochs_that_were_evaluated():
    items = Items(torch.rand(8, 2), torch.rand(8, 2), torch.zeros(8, dtype=torch.int64))
    how = recipe(epochs=9, batch="full", hold_out=True, patience=2, evaluate_every=4)
    state = fit.fit(Drifting(), how, 0, items, ("validation", items))
    assert (state.epoch, state.best["epoch"]) == (8, 4)


def test_of_equal_losses_the_first_is_the_best():
    items = Items(torch.rand(8, 2), torch.rand(8, 2), torch.zeros(8, dtype=torch.int64))
    model = Drifting()
    model.classify = lambda x: torch.zeros(len(x), 2)
    state = fit.fit(model, recipe(epochs=9, batch="full", hold_out=True, patience=3), 0, items, ("validation", items))
    assert (state.epoch, state.best["epoch"], model.w.item()) == (4, 1, 1.0)


def test_without_patience_the_last_weights_stay():
    items = Items(torch.rand(8, 2), torch.rand(8, 2), torch.zeros(8, dtype=torch.int64))
    model = Drifting()
    state = fit.fit(model, recipe(epochs=6, batch="full"), 0, items, ("test", items))
    assert (state.epoch, state.best, model.w.item()) == (6, None, 6.0)


def test_patience_needs_a_validation_loss():
    with pytest.raises(AtelierError, match="patience needs a family with a validation loss"):
        train(Recorder(), recipe(hold_out=True, patience=2), split="validation")


# ---- mean weights; at a share of 1/2 all steps count alike


def test_the_mean_weights_are_judged_and_stay_while_training_goes_on_from_its_own():
    """Drifting's w is t after t steps, so the mean is (t + 1) / 2: the best of them, 3, is at epoch 5, not at 3."""
    items, own = Items(torch.rand(8, 2), torch.rand(8, 2), torch.zeros(8, dtype=torch.int64)), []
    how = recipe(epochs=9, batch="full", hold_out=True, weight_average=0.5)
    model = Drifting()
    note = lambda state: own.append((float(state.model["w"]), state.average and float(state.average["w"])))  # noqa: E731
    state = fit.fit(model, how, 0, items, ("validation", items), after_epoch=note)
    assert own == [(0, None)] + [(t, (t + 1) / 2) for t in range(1, 10)]
    assert model.w.item() == 5.0
    expected = [math.log(1 + math.exp(abs((t + 1) / 2 - 3))) for t in range(1, 10)]
    assert [record["validation.loss"] for record in state.curve] == pytest.approx(expected, rel=1e-6)
    model, patient = Drifting(), how.changed({"patience": 2})
    state = fit.fit(model, patient, 0, items, ("validation", items))
    assert (state.epoch, state.best["epoch"], model.w.item()) == (7, 5, 3.0)


def test_the_mean_counts_the_steps_of_all_epochs():
    items, model = Items(torch.rand(8, 2), torch.rand(8, 2), torch.zeros(8, dtype=torch.int64)), Drifting()
    fit.fit(model, recipe(epochs=3, batch=3, weight_average=0.25), 0, items, ("test", items))  # three steps an epoch
    expected = sum(math.comb(t + 1, 2) * t for t in range(1, 10)) / math.comb(11, 3)
    assert model.w.item() == pytest.approx(expected, rel=1e-6)


def test_the_mean_is_taken_once_all_optimizers_and_after_step_are_done():
    class Bounded(Pair):
        def after_step(self):
            super().after_step()
            with torch.no_grad():
                self.maker.clamp_(1.5, 2.0)
            seen.append((self.critic.item(), self.maker.item()))

    seen, model = [], Bounded()
    train(model, recipe(epochs=4, batch=20, weight_average=0.5))
    assert model.steps == len(seen) == 12
    np.testing.assert_allclose((model.critic.item(), model.maker.item()), np.mean(seen, axis=0), rtol=1e-6)
    assert 1.5 <= model.maker.item() <= 2.0


def test_snapshots_show_what_the_mean_weights_rebuild():
    held, how = make_items(20, seed=1), recipe(epochs=3, snapshots=(0, 3), weight_average=0.5)
    model = make_model("autoencoder", widths=(6, 3))
    state = train(model, how)
    with torch.no_grad():
        rebuilt = model.eval().reconstruct(held.x[fit.first_of_each_class(held.y)])
    assert torch.equal(state.snapshots[3], rebuilt) and not torch.equal(state.snapshots[0], rebuilt)


def test_a_family_is_told_how_much_of_training_is_done_before_every_step():
    model, told = Recorder(), []
    model.before_step = told.append
    train(model, recipe(epochs=2, batch=20))
    assert told == pytest.approx([0, 1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6])


def test_what_a_family_measures_itself_stands_in_the_curve_and_its_loss_is_what_patience_looks_at():
    class Odd(Drifting):
        def figures(self, x):
            assert not self.training and not torch.is_grad_enabled()
            return {"loss": (self.w - 5).abs().expand(len(x)), "mean": x.mean(1)}

    items = Items(torch.rand(2100, 2), torch.rand(2100, 2), torch.zeros(2100, dtype=torch.int64))
    state = fit.fit(Odd(), recipe(epochs=9, batch="full", hold_out=True, patience=2), 0, items, ("validation", items))
    assert state.best["epoch"] == 5 and [r["validation.loss"] for r in state.curve[:3]] == [4, 3, 2]
    assert state.curve[0]["train.mean"] == pytest.approx(float(items.x.mean()), abs=1e-6)
    assert "train.accuracy" in state.curve[0]


def test_snapshots_are_reconstructions_of_one_held_out_item_a_class():
    model = make_model("autoencoder", widths=(6, 3))
    before, held = copy.deepcopy(model).eval(), make_items(20, seed=1)
    state = train(model, recipe(epochs=3, snapshots=(0, 2, 3)))
    chosen = [int((held.y == label).nonzero()[0]) for label in range(CLASSES)]
    assert fit.first_of_each_class(held.y) == chosen
    assert list(state.snapshots) == [0, 2, 3]
    with torch.no_grad():
        torch.testing.assert_close(state.snapshots[0], before.reconstruct(held.x[chosen]), rtol=0, atol=1e-6)
        torch.testing.assert_close(state.snapshots[3], model.eval().reconstruct(held.x[chosen]), rtol=0, atol=1e-6)


def test_fresh_noise_is_drawn_by_seed_epoch_and_item_and_the_target_stays_clean():
    items, model = make_items(), Recorder()
    model.target = "clean"
    train(model, recipe(epochs=2, batch="full", noise=TrainNoise(kind="masking", level=0.4, draw="fresh")), 9, items)
    for epoch, (x, target) in enumerate(model.seen):
        drawn = noise.draw(items.clean.numpy(), "masking", 0.4, seed=9, epoch=epoch)
        assert np.array_equal(x.numpy(), drawn)
        assert torch.equal(target, items.clean)


# ---- figures


class Fixed(nn.Module):
    """Answers with stored logits, looked up by the item's first value."""

    def __init__(self, logits: np.ndarray) -> None:
        super().__init__()
        self.logits, self.most = torch.from_numpy(logits), 0

    def classify(self, x):
        self.most = max(self.most, len(x))
        assert not self.training and not torch.is_grad_enabled()
        return self.logits[x[:, 0].long()]


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=15, deadline=None)
def test_figures_of_a_classifier_equal_plain_formulas(seed):
    rng = np.random.default_rng(seed)
    n, classes = int(rng.integers(1, 60)), int(rng.integers(2, 7))
    logits, y = rng.normal(scale=3, size=(n, classes)), rng.integers(0, classes, n)
    x = torch.arange(n).float()[:, None]
    model = Fixed(logits)
    model.rows = int(rng.integers(1, 20))
    found = fit.measure(model, Items(x, x, torch.from_numpy(y)))
    assert model.most == min(n, model.rows)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    onehot = np.arange(classes) == y[:, None]
    expected = {
        "loss": -np.log(p[range(n), y]).mean(),
        "accuracy": (p.argmax(1) == y).mean(),
        "accuracy_rounded": ((p > 0.5) == onehot).mean(),
    }
    assert found.keys() == expected.keys()
    for name in expected:
        assert math.isclose(found[name], expected[name], rel_tol=1e-4, abs_tol=1e-6), name


def test_a_model_that_is_sure_of_nothing_still_scores_nine_tenths_rounded():
    x = torch.arange(30).float()[:, None]
    found = fit.measure(Fixed(np.zeros((30, 10))), Items(x, x, torch.arange(30) % 10))
    assert math.isclose(found["accuracy_rounded"], 0.9, rel_tol=1e-6)
    assert math.isclose(found["accuracy"], 0.1, rel_tol=1e-6)
    assert math.isclose(found["loss"], math.log(10), rel_tol=1e-6)


def test_figures_of_a_reconstruction_compare_with_the_clean_items():
    class Echo(nn.Module):
        def reconstruct(self, x):
            return x + 0.25

    clean = torch.rand(30, *SHAPE)
    found = fit.measure(Echo(), Items(clean - 0.75, clean, torch.zeros(30)))
    assert found == pytest.approx({"loss": 0.5, "mae": 0.5, "mse": 0.25})
    assert fit.measure(Recorder(), make_items()) == {}


# ---- stopping and going on


FRESH = TrainNoise(kind="gaussian", level=0.2, draw="fresh")
CASES = {
    "sgd": ("mlp", {"hidden": (8,), "dropout": (0.3,)}, {"optimizer": "sgd", "lr": 0.1}),
    "momentum": ("mlp", {"hidden": (8,), "dropout": (0.3,)}, {"optimizer": "momentum", "schedule": "cosine"}),
    "rmsprop": ("recurrent", {"hidden": (5,), "dropout": (0.2,)}, {"optimizer": "rmsprop", "clip": 1, "noise": FRESH}),
    "adam": ("cnn", {"plan": ("conv 4 3", "pool 2", "dropout 0.2", "dense 6")}, {"optimizer": "adam", "noise": FRESH}),
    "batch-norm": ("cnn", {"plan": ("conv 4 3", "pool 2"), "batch_norm": True}, {"precision": "bf16"}),
    "adamw": ("autoencoder", {"widths": (6, 3)}, {"optimizer": "adamw", "snapshots": (0, 1, 4), "noise": FRESH}),
    "patience": ("mlp", {"hidden": (8,)}, {"lr": 0.3, "epochs": 20, "hold_out": True, "patience": 2}),
    "mean": ("channel-statistics", {}, {"weight_average": 0.2, "label_smoothing": 0.1}),  # it has a batch norm
    "best-mean": (
        "mlp",
        {"hidden": (8,)},
        {"lr": 0.3, "epochs": 20, "hold_out": True, "patience": 2, "weight_average": 0.3},
    ),
    "full": ("mlp", {"hidden": (8,)}, {"batch": "full", "chunk": 20, "schedule": "one-cycle", "evaluate_every": 2}),
}


@pytest.mark.parametrize("name", CASES)
def test_training_resumed_after_any_epoch_ends_as_if_never_stopped(name):
    family, own, changes = CASES[name]
    how = recipe(**{"epochs": 6} | changes)
    kind = Optimizer(how.optimizer, how.lr, how.momentum, how.weight_decay)
    split = "validation" if how.hold_out else "test"
    saved = []

    def save(state: State) -> None:
        buffer = io.BytesIO()
        torch.save(vars(state), buffer)
        saved.append(buffer.getvalue())

    model = make_model(family, kind, **own)
    whole = train(model, how, split=split, after_epoch=save)
    assert len(saved) == whole.epoch + 1
    if how.patience:
        assert whole.best["epoch"] < whole.epoch
    for epoch, content in enumerate(saved):
        if epoch == 0:
            continue  # there is nothing yet to go on from
        torch.manual_seed(epoch)  # as in another process
        other = families.load(family)(SHAPE, CLASSES, **own, optimizer=kind)
        state = State(**torch.load(io.BytesIO(content), weights_only=True))
        assert state.epoch == epoch
        resumed = train(other, how, split=split, state=state)
        assert_same(weights(other), weights(model))
        assert resumed.curve == whole.curve and resumed.epoch == whole.epoch
        assert resumed.snapshots.keys() == whole.snapshots.keys()
        assert all(torch.equal(resumed.snapshots[e], whole.snapshots[e]) for e in whole.snapshots)


def test_two_seeds_train_two_models_and_one_seed_one():
    found = []
    for seed in (0, 0, 1):
        model = make_model("mlp", hidden=(8,), dropout=(0.5,))
        train(model, recipe(), seed=seed)
        found.append(weights(model))
    assert_same(found[0], found[1])
    assert any((found[0][name] != found[2][name]).any() for name in found[0])
