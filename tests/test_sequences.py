"""Families over sequences: sizes as published, one bias or two, the GRU written out, shifts, channel statistics."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.autograd import gradcheck

from atelier import cost, families, sequences
from atelier.families.channel_statistics import octaves, statistics
from atelier.gru import GRU

WINDOW, CLASSES = (52, 100), 12
CONV = ("conv 16 1x5", "pool 1x2", "conv 16 1x5", "pool 1x2", "dense 32")


def cnn(*steps: str, dropout: float = 0.5) -> dict:
    return {"plan": (*steps, f"dropout {dropout}")}


# Rows D2.1 to D2.4 of the catalogue. Batch sizes, by which two variants of D2.4 differ, are no settings of a net.
PUBLISHED = {
    "mlp": [
        ({"hidden": (128, 128), "dropout": (0.5, 0.5)}, 683_788),
        ({"hidden": (512, 512), "dropout": (0.5, 0.5)}, 2_931_724),
        ({"hidden": (32, 32), "dropout": (0.5, 0.5)}, 167_884),
        ({"hidden": (128, 128, 128), "dropout": (0.5, 0.5, 0.5)}, 700_300),
        ({"hidden": (128,), "dropout": (0.5,)}, 667_276),
        ({"hidden": (128, 128), "dropout": (0.25, 0.25)}, 683_788),
        ({"hidden": (128, 128)}, 683_788),
    ],
    "recurrent": [
        ({"hidden": (64, 64), "dropout": (0.5, 0.5), "biases": 1}, 63_756),
        ({"hidden": (128, 128), "dropout": (0.5, 0.5), "biases": 1}, 225_804),
        ({"hidden": (32, 32), "dropout": (0.5, 0.5), "biases": 1}, 19_596),
        ({"hidden": (64,), "dropout": (0.5,), "biases": 1}, 30_732),
        ({"hidden": (64, 64, 64), "dropout": (0.5, 0.5, 0.5), "biases": 1}, 96_780),
        ({"hidden": (64, 64), "dropout": (0.25, 0.25), "biases": 1}, 63_756),
        ({"hidden": (64, 64), "biases": 1}, 63_756),
    ],
    "cnn": [
        (cnn(*CONV), 667_420),
        (cnn("conv 32 1x5", "pool 1x2", "conv 32 1x5", "pool 1x2", "dense 32"), 1_336_972),
        (cnn("conv 8 1x5", "pool 1x2", "conv 8 1x5", "pool 1x2", "dense 32"), 333_604),
        (cnn("conv 16 1x10", "pool 1x2", "conv 16 1x10", "pool 1x2", "dense 32"), 668_780),
        (cnn("conv 16 1x5", "pool 1x3", "conv 16 1x5", "pool 1x3", "dense 32"), 294_684),
        (cnn(*CONV, dropout=0.25), 667_420),
        ({"plan": CONV}, 667_420),
    ],
    "convlstm": [
        ({"dropout": (0.5,), "biases": 1}, 112_508),
        ({"hidden": (32, 32), "dropout": (0.5, 0.5), "biases": 1}, 120_828),
        ({"dropout": (0.5,), "biases": 1}, 112_508),
        ({"dropout": (0.5,), "biases": 1}, 112_508),
        ({"maps": (32, 32), "dropout": (0.5,), "biases": 1}, 222_956),
        ({"dropout": (0.25,), "biases": 1}, 112_508),
        ({"biases": 1}, 112_508),
    ],
}
CASES = [(name, *case) for name, cases in PUBLISHED.items() for case in cases]


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("name", "settings", "parameters"), CASES)
def test_the_nets_over_windows_have_the_parameters_that_were_published(name, settings, parameters):
    model = families.load(name)(WINDOW, CLASSES, **settings)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert model.eval().classify(torch.rand(2, *WINDOW)).shape == (2, CLASSES)


def test_there_are_28_of_them():
    assert [len(cases) for cases in PUBLISHED.values()] == [7] * 4


# ---- one bias

ONE_BIAS = [("recurrent", {"cell": cell, "hidden": (5, 4)}) for cell in ("rnn", "gru", "lstm")]
ONE_BIAS.append(("convlstm", {"maps": (3,), "hidden": (5, 4)}))


@pytest.mark.parametrize(("name", "settings"), ONE_BIAS)
def test_one_bias_is_the_librarys_two_of_which_one_is_zero(name, settings):
    """The same answers and gradients; the second is no parameter, lies in no checkpoint, and costs nothing."""
    one, two = (families.load(name)((3, 6), 2, **settings, biases=biases) for biases in (1, 2))
    state = one.state_dict()
    second = {key: torch.zeros_like(p) for key, p in two.named_parameters() if "bias_hh" in key}
    assert set(two.state_dict()) - set(state) == set(second)
    assert cost.exact(two, (3, 6))["parameters"] == cost.exact(one, (3, 6))["parameters"] + sum(
        zeros.numel() for zeros in second.values()
    )
    assert cost.exact(one, (3, 6))["multiply_adds"] == cost.exact(two, (3, 6))["multiply_adds"]
    assert cost.exact(one, (3, 6))["bytes"] == 4 * sum(p.numel() for p in one.parameters())
    two.load_state_dict(state | second)
    x, y = torch.rand(7, 3, 6), torch.tensor([0, 1, 0, 1, 1, 0, 1])
    for net in (one, two):
        (out,) = net.losses(x, y)
        out["loss"].backward()
    gradients = dict(two.named_parameters())
    for key, p in one.named_parameters():
        assert torch.equal(p.grad, gradients[key].grad), key


@pytest.mark.parametrize(("name", "settings"), ONE_BIAS)
def test_one_bias_stays_zero_in_copies_types_and_loaded_nets(name, settings):
    model = families.load(name)((3, 6), 2, **settings, biases=1)
    x = torch.rand(4, 3, 6)
    expected = model.classify(x)
    torch.testing.assert_close(copy.deepcopy(model).classify(x), expected, rtol=0, atol=0)
    torch.testing.assert_close(copy.deepcopy(model).double().classify(x.double()).float(), expected)
    assert copy.deepcopy(model).to("meta").classify(x.to("meta")).shape == (4, 2)
    other = families.load(name)((3, 6), 2, **settings, biases=1)
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(other.classify(x), expected, rtol=0, atol=0)
    (optimizer,) = model.optimizers()
    (out,) = model.losses(x, torch.tensor([0, 1, 1, 0]))
    out["loss"].backward()
    optimizer.step()
    assert not any(layer.bias_hh_l0.any() for layer in model.layers)


def test_a_unit_of_a_gru_with_one_bias_leaves_no_mean_behind_in_its_own_layer():
    for cell, biases, expected in (("gru", 1, None), ("gru", 2, "bias_hh_l0"), ("lstm", 1, "bias_ih_l0")):
        (nodes,) = sequences.nodes(cell, (5,), biases)
        assert nodes.readers[0].bias == (expected and f"layers.0.{expected}")


# ---- the GRU written out


def pair(inputs: int, units: int, dtype: torch.dtype) -> tuple[GRU, nn.GRU]:
    ours, theirs = (kind(inputs, units, batch_first=True, dtype=dtype) for kind in (GRU, nn.GRU))
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


@settings(derandomize=True, deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**31), shape=st.tuples(*[st.integers(1, 7)] * 4), wide=st.booleans())
def test_the_gru_written_out_gives_the_librarys_states_and_gradients(seed, shape, wide):
    torch.manual_seed(seed)
    items, steps, inputs, units = shape
    dtype, atol = (torch.float64, 1e-12) if wide else (torch.float32, 1e-5)
    ours, theirs = pair(inputs, units, dtype)
    x, weights = torch.randn(items, steps, inputs, dtype=dtype), torch.randn(items, steps, units, dtype=dtype)
    found = []
    for layer in (ours, theirs):
        given_x = x.clone().requires_grad_()
        states, last = layer(given_x)
        ((states * weights).sum() + last.square().sum()).backward()
        found.append([states, last, given_x.grad, *(p.grad for p in layer.parameters())])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=atol)


def test_long_sequences_agree_with_the_library_to_1e_6():
    torch.manual_seed(0)
    ours, theirs = pair(9, 64, torch.float32)
    x, found = torch.randn(32, 128, 9), []
    for layer in (ours, theirs):
        states, _ = layer(x)
        states[:, -1].mean().backward()
        found.append([states, *(p.grad for p in layer.parameters())])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_the_gradient_of_the_gru_is_that_of_its_states():
    torch.manual_seed(0)
    layer = GRU(3, 4, batch_first=True, dtype=torch.float64)
    x = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)

    def states(x, *weights):
        return torch.func.functional_call(layer, dict(zip(layer.state_dict(), weights, strict=True)), (x,))[0]

    assert gradcheck(states, (x, *(p.detach().requires_grad_() for p in layer.parameters())))


def test_in_reduced_precision_the_gru_is_the_librarys():
    torch.manual_seed(0)
    ours, theirs = pair(3, 4, torch.float32)
    x = torch.randn(2, 5, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(ours(x)[0], theirs(x)[0])


# ---- shifts


def windows(lead: int, length: int = 20, pattern: int = 6) -> torch.Tensor:
    """Items of zeros but for one pattern that begins at step `lead`."""
    x = torch.zeros(4, 3, length)
    x[:, :, lead : lead + pattern] = torch.randn(4, 3, pattern, generator=torch.Generator().manual_seed(1))
    return x


@settings(derandomize=True, deadline=None, max_examples=20)
@given(
    shift=st.integers(1, 6),
    delays=st.lists(st.integers(1, 3), min_size=2, max_size=2),
    dilation=st.lists(st.integers(1, 2), min_size=2, max_size=2),
)
def test_a_shift_of_the_input_shifts_every_layer_of_a_time_delay_net(shift, delays, dilation):
    torch.manual_seed(0)
    settings = {"hidden": (5, 4), "delays": tuple(delays), "dilation": tuple(dilation), "activation": "tanh"}
    model = families.load("tdnn")((3, 20), 2, **settings).eval()
    x = torch.randn(4, 3, 20 + shift)  # the same signal, read from two moments on
    with torch.no_grad():
        early, late = model.states(x[..., :20]), model.states(x[..., shift:])
    assert early.shape[2] == 20 - sum((d - 1) * gap for d, gap in zip(delays, dilation, strict=True))
    torch.testing.assert_close(early[..., shift:], late[..., :-shift], rtol=0, atol=1e-6)
    assert (early[..., :-shift] - late[..., :-shift]).abs().max() > 1e-3


@pytest.mark.parametrize(("pool", "same"), [("mean", True), ("max", True), ("none", False)])
def test_a_time_delay_net_ignores_a_shift_only_after_pooling_over_time(pool, same):
    torch.manual_seed(0)
    model = families.load("tdnn")((3, 20), 2, hidden=(5, 4), delays=(3, 3), pool=pool).eval()
    with torch.no_grad():
        answers = [model.classify(windows(lead)) for lead in (4, 7, 10)]  # 4 steps of zeros at least on either side
    for other in answers[1:]:
        assert torch.allclose(answers[0], other, atol=1e-6) == same


# ---- settings that cannot be


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("convlstm", {"hidden": ()}, "hidden is empty"),
        ("convlstm", {"hidden": (4, 4), "dropout": (0.1,)}, "dropout has 1 rates for 2"),
        ("convlstm", {"maps": (2,) * 4}, "leaves nothing of 8 steps"),
        ("tdnn", {"hidden": (), "delays": ()}, "hidden is empty"),
        ("tdnn", {"hidden": (4, 4), "delays": (3,)}, "delays has 1 entries for 2"),
        ("tdnn", {"hidden": (4, 4), "dilation": (1, 2, 2)}, "dilation has 3 entries for 2"),
        ("tdnn", {"hidden": (4, 4), "delays": (5, 5)}, "reach over 9 steps of 8"),
        ("channel-statistics", {}, "one step"),
    ],
)
def test_nets_over_sequences_that_cannot_be_are_refused(name, settings, said):
    with pytest.raises(ValueError, match=said) as refused:
        families.load(name)((3, 1 if name == "channel-statistics" else 8), 2, **settings)
    assert "\n" not in str(refused.value)


# ---- images are read by rows


@pytest.mark.parametrize("name", ["recurrent", "tdnn", "channel-statistics", "convlstm"])
def test_an_image_is_read_as_a_window_whose_steps_are_its_rows(name):
    torch.manual_seed(0)
    image, window = (families.load(name)(shape, 4) for shape in ((1, 9, 5), (5, 9)))
    window.load_state_dict(image.state_dict())
    x = torch.rand(3, 1, 9, 5)
    torch.testing.assert_close(image.eval().classify(x), window.eval().classify(x[:, 0].transpose(1, 2)))


# ---- channel statistics


def test_octaves_hold_every_frequency_but_the_mean_once():
    assert octaves(2) == [slice(1, 2)]
    assert octaves(128)[-2:] == [slice(32, 64), slice(64, 65)]
    for steps in range(2, 40):
        found = [f for band in octaves(steps) for f in range(band.start, band.stop)]
        assert found == list(range(1, steps // 2 + 1))


def test_channel_statistics_are_those_of_numpy():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 2, 9))
    found = statistics(torch.from_numpy(x)).reshape(3, 2, -1).numpy()
    by_hand = [x.mean(2), x.std(2), x.min(2), x.max(2), np.median(x, 2), np.abs(np.diff(x)).mean(2)]
    np.testing.assert_allclose(found[..., :6], np.stack(by_hand, 2), rtol=1e-12)
    angle = 2 * np.pi * np.outer(np.arange(1, 5), np.arange(9)) / 9
    energy = ((x @ np.cos(angle).T) ** 2 + (x @ np.sin(angle).T) ** 2) / 9
    bands = [energy[..., :1].mean(2), energy[..., 1:3].mean(2), energy[..., 3:].mean(2)]
    np.testing.assert_allclose(found[..., 6:], np.log(np.stack(bands, 2) + 1e-6), rtol=1e-9)


def test_statistics_are_standardised_by_the_items_that_training_saw():
    """In any units: the logits of items in volts and in millivolts are the same but for the floor of the energies."""
    torch.manual_seed(0)
    model = families.load("channel-statistics")((2, 16), 3)
    answers = []
    for scale in (1.0, 1000.0):
        net = copy.deepcopy(model).train()
        x = scale * torch.randn(50, 2, 16, generator=torch.Generator().manual_seed(2))
        net.classify(x[:25])
        net.classify(x[25:])
        first = net.scale.running_mean[0]
        torch.testing.assert_close(first, x[:, 0].mean(), rtol=1e-4, atol=1e-5 * scale)
        answers.append(net.eval().classify(x))
    torch.testing.assert_close(answers[0], answers[1], rtol=0, atol=1e-2)


def test_a_batch_of_one_item_can_be_learned_from():
    model = families.load("channel-statistics")((2, 16), 3).train()
    (out,) = model.losses(torch.rand(1, 2, 16), torch.tensor([1]))
    out["loss"].backward()
    assert out["loss"].isfinite() and model.scale.num_batches_tracked == 0
