"""Experiments: what each measures is so, its stage writes whole reports, and hand gradients' faults are seen."""

import inspect
import itertools
import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from atelier import experiments, files, metrics, params, paths
from atelier.__main__ import main as command
from atelier.byhand import faults
from atelier.data.store import Store
from atelier.errors import AtelierError
from atelier.report import rounded
from atelier.stages import catalogue, experiment, report

SETTINGS = {
    "activations": [{"name": "relu"}, {"name": "logistic"}],
    "adversarial-toy": [
        {"loss": "minimax", "rounds": 1, "learns": False},
        {"loss": "non-saturating", "rounds": 1, "steps": 2},
    ],
    "back-propagation": [{"hidden": (), "count": 20}, {"hidden": (5, 4), "activation": "relu", "count": 20}],
    "bottleneck-features": [
        {"features": "bottleneck", "width": 2, "items": 60, "epochs": 2},
        {"features": "pca", "width": 2, "items": 60},
        {"features": "pixels", "items": 60},
    ],
    "cells": [
        {"cell": name, "units": 3, "steps": 4} for name in ("recurrent", "gru-after", "gru-before", "lstm", "peephole")
    ],
    "code-gradients": [
        {"estimator": name, "codes": 4, "count": 3, "draws": 50, "temperature": 0.5}
        for name in ("gumbel", "score", "straight-gumbel", "straight-softmax", "straight-vector")
    ],
    "cost-growth": [
        {"net": "dense", "along": "width", "size": 8},
        {"net": "convolutional", "along": "maps", "size": 2},
        {"net": "recurrent", "along": "steps", "size": 4},
    ],
    "f1-and-entropy": [
        {"positive": 1, "share": 0.1, "epochs": 6},
        {"positive": 0, "share": 0.1, "epochs": 6, "batch": "full"},
    ],
    "gradient-norms": [{"hidden": (5,), "epochs": 2}, {"hidden": (5, 4), "epochs": 2, "init": "normal"}],
    "integers": [
        {"hidden": (64, 32), "epochs": 2, "tuning": 1},
        {"hidden": (64, 32), "epochs": 2, "tuning": 1, "level": 0.5},
    ],
    "kl-divergence": [{"posterior": name, "units": 2, "draws": 500} for name in ("gaussian", "student", "uniform")],
    "learned-features": [
        {"net": "logistic", "features": "orientations", "epochs": 2},
        {"net": "dense", "features": "sobel", "permuted": True, "epochs": 2},
        {"net": "cnn", "epochs": 2},
        {"net": "cnn", "permuted": True, "epochs": 2},
    ],
    "lenet-files": [{"net": "300-100", "steps": [{"epochs": 1}]}],
    "linear-autoencoder": [{"width": 3, "epochs": 2, "lr": 0.5}, {"width": 3, "batch": "full", "epochs": 2, "lr": 0.5}],
    "low-rank": [
        {"hidden": (12, 8), "epochs": 2, "tuning": 1},
        {"hidden": (12, 8), "epochs": 2, "tuning": 1, "energy": 0.5},
    ],
    "memory-over-time": [
        {"cell": "gru", "lag": 2, "hidden": 3},
        {"cell": "rnn", "lag": 3, "hidden": 4},
        {"cell": "lstm", "lag": 2, "hidden": 3, "remember": 1.0},
    ],
    "mini-batch": [{"batch": 8, "hidden": (5,)}],
    "next-character": [{"units": 3, "steps": 20}, {"units": 3, "steps": 20, "recurs": False}],
    "numpy-inference": [{"hidden": (7, 5), "epochs": 2}],
    "optimiser-paths": [{"name": "momentum", "lr": 0.03}, {"name": "adam", "lr": 0.05, "place": "inside"}],
    "partition-function": [
        {"hidden": 4, "epochs": 2, "temperatures": (2, 20)},
        {"hidden": 5, "epochs": 2, "temperatures": (2, 20), "chains": 10},
    ],
    "small-files": [
        {
            "net": "300-100",
            "steps": [
                {"epochs": 2},
                {"epochs": 2, "distil": 0.5, "thin": {"keep": {"inputs": 9, "hidden.0": 5}, "criterion": "taylor"}},
                {"epochs": 1, "hold": "values", "values": 4, "biases": 3},
            ],
        },
        {
            "net": "300-100",
            "steps": [
                {"epochs": 2},
                {"epochs": 1, "thin": {"what": "weights", "level": 0.95}},
                {"epochs": 1, "hold": "values", "values": 4},
            ],
            "coder": "huffman",
            "hold_out": True,
        },
    ],
    "tensor-train": [
        {"rows": (3, 4), "columns": (6, 6), "hidden": (5,), "epochs": 2, "tuning": 1},
        {"rows": (3, 4), "columns": (6, 6), "hidden": (5,), "epochs": 2, "tuning": 1, "rank": 1},
        {"rows": (3, 4), "columns": (6, 6), "hidden": (5,), "epochs": 2, "tuning": 1, "rank": 3},
    ],
    "two-layer": [
        {"task": "number", "loss": "half-squared, softplus out", "epochs": 2},
        {"task": "classes", "loss": "cross-entropy", "hidden": "logistic", "epochs": 2},
    ],
}
COUNTED = {"cost-growth"}  # nothing of these is drawn at random
CASES = [(name, settings) for name, every in SETTINGS.items() for settings in every]


def write(folder, entries: dict) -> None:
    document = YAML()
    content = document.load((folder / "params.yaml").read_text())
    content["experiments"] = entries
    with open(folder / "params.yaml", "w") as file:
        document.dump(content, file)


def entry(models: dict, claims: tuple = (), **changes) -> dict:
    known = {"asks": "Is it so?", "dataset": "digits", "seeds": 3, "models": models, "claims": list(claims)}
    return known | {"published": {}, "note": None} | changes


@pytest.fixture
def store(project) -> Store:
    return Store(paths.noisy("digits"))


def test_every_experiment_is_tried_here():
    assert sorted(SETTINGS) == experiments.names()


@pytest.mark.parametrize("name, settings", CASES, ids=str)
def test_what_is_measured_follows_from_the_seed_and_is_named_in_the_docstring(name, settings, store):
    module = experiments.load(name)
    found, again, other = (
        module.measure(seed, store, **settings) | {"train_s": 0.0, "latency": []} for seed in (0, 0, 1)
    )
    assert found == again and (found != other) == (name not in COUNTED)
    for metric, value in found.items():
        if metric in ("series", "train_s", "latency"):
            continue
        assert metric.startswith(("test.", "train.", "validation.")) and math.isfinite(value)
        word = metric.partition(".")[2]
        assert word in inspect.getdoc(module.measure) + module.__doc__ or word == "accuracy", word


def test_a_file_holds_the_net_that_its_steps_lead_to(store):
    cut, sparse = ({**experiments.load("small-files").measure(0, store, **s)} for s in SETTINGS["small-files"])
    # 9 inputs of 36 are read: two numbers of 32 bits tell which.
    assert cut["test.parameters"] == (9 * 5 + 5) + (5 * 100 + 100) + (100 * 4 + 4) + 2
    assert cut["test.weights"] <= cut["test.multiply_adds"] == 9 * 5 + 5 * 100 + 100 * 4
    assert sparse["test.weights"] <= round(0.05 * (36 * 300 + 300 * 100 + 100 * 4))
    for found in (cut, sparse):
        assert found["test.exact"] == found["test.refused"] == 1.0 and found["test.onnx"] < 1e-4
        assert found["test.bytes"] == sum(found["series"]["ledger"].values()) < found["test.int8_bytes"]
    assert "validation.accuracy" in sparse and "validation.accuracy" not in cut


def test_a_frontier_shows_nets_once_that_only_their_coder_tells_apart(monkeypatch):
    files_of_lenet = experiments.load("lenet-files")
    both = ("frontier.png", "ledger.png")
    monkeypatch.setattr(files_of_lenet.small_files, "pictures", lambda _, models, __: dict.fromkeys(both, list(models)))
    models = {
        "huffman": {"net": "lenet-5", "steps": (1,), "coder": "huffman"},
        "range": {"net": "lenet-5", "steps": (1,)},
        "nodes": {"net": "lenet-5", "steps": (2,)},
        "dense": {"net": "300-100", "steps": (1,)},
    }
    assert files_of_lenet.pictures(None, models, {}) == {
        "frontier.png": ["huffman", "nodes", "dense"],
        "ledger.png": ["huffman", "range", "nodes", "dense"],
    }


def test_fewer_nodes_and_integers_are_judged_beside_the_dense_net_in_floats(store):
    dense, half = (experiments.load("integers").measure(0, store, **s) for s in SETTINGS["integers"])
    for found, (first, second) in ((dense, (64, 32)), (half, (32, 16))):
        assert found["test.multiply_adds"] == 36 * first + first * second + 4 * second
    for split, found in itertools.product(("validation", "test"), (dense, half)):
        lost = dense[f"{split}.accuracy"] - found[f"{split}.int8_accuracy"]
        assert found[f"{split}.lost"] == pytest.approx(lost)
    assert half["test.int8_bytes"] < dense["test.int8_bytes"] < 3 * dense["test.parameters"]  # floats take 4 each
    assert {record["net"] for record in half["latency"]} == {"dense", "without 0.5"}


def test_a_step_that_is_no_recipe_is_refused_before_anything_runs():
    for steps, said in (
        ([{"epochs": 0}], r"steps\.0\.epochs is 0"),
        ([{"epochs": 1}, {"epochs": 1, "valeus": 4}], r"steps\.1\.valeus is not a known key; did you mean values"),
        ([{"epochs": 1, "thin": {}}], "level and keep, or neither"),
    ):
        with pytest.raises(AtelierError, match=said):
            params.check_case("small-files", {"net": "300-100", "steps": steps}, "params.yaml: experiments.x.models.y")


@pytest.mark.parametrize("name", ["unit-step", "binary-step", "sign"])
def test_steps_are_those_of_torch_and_pass_nothing(name, store):
    found = experiments.load("activations").measure(0, store, name=name)
    assert found["test.deviation"] == found["test.passed"] == 0


def test_hand_gradients_agree_and_descent_and_momentum_behave_as_in_theory(store):
    assert experiments.load("back-propagation").measure(0, store, hidden=(6, 5), count=30)["test.deviation"] < 1e-10
    measure = experiments.load("optimiser-paths").measure
    rules = {name: measure(0, store, name=name, lr=lr) for name, lr in (("descent", 0.036), ("adam", 0.05))}
    # Along y descent multiplies by 1 - 50 lr = -0.8 a step: the whole way is (1 + 0.8) / (1 - 0.8) = 9 times the start.
    assert rules["descent"]["test.oscillation"] == pytest.approx(9.0, rel=1e-6)
    assert rules["descent"]["test.scale_change"] == 1e6  # 1,000 times the gradient diverges
    assert rules["adam"]["test.scale_change"] < 1e-3
    assert rules["adam"]["test.plateau"] == pytest.approx(1 / 0.05, abs=1)  # every step is lr long
    biased = measure(0, store, name="adam", lr=0.05, correct=False)["test.first_moment"]
    assert biased == pytest.approx(0.9) and rules["adam"]["test.first_moment"] < 1e-12


@pytest.mark.parametrize("fault", faults.FAULTS, ids=lambda fault: fault[1])
def test_every_fault_is_far_from_autograd_and_the_right_formula_is_not(fault):
    _, _, hidden, loss, wrong = fault
    e = faults.example(hidden, loss)
    assert faults.deviation(wrong(e), e.expected) > 0.05
    assert faults.deviation(faults.right(e), e.expected) < 1e-12


def test_f1_and_entropy_count_as_the_library_and_the_source_do():
    f1_and_entropy = experiments.load("f1-and-entropy")
    rng = np.random.default_rng(0)
    logits, y = rng.standard_normal((200, 2)), rng.integers(0, 2, 200)
    answers = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    nll, f1, *matrix = f1_and_entropy.figures(answers, y)
    library = metrics.classification(answers, y)
    assert (nll, f1) == pytest.approx((library["nll"], library["f1_macro"]), abs=1e-12)
    assert matrix == metrics.confusion(answers, y)[::-1, ::-1].ravel().tolist()
    # The source's two matrices and the F1 that it prints beside them.
    for (hits, misses, alarms, rejections), said in {
        (263, 12, 393, 8798): 0.7712,
        (260, 15, 412, 8779): 0.7627,
    }.items():
        y = np.repeat([1, 0], [hits + misses, alarms + rejections])
        predicted = np.repeat([1, 0, 1, 0], [hits, misses, alarms, rejections])
        assert f1_and_entropy.figures(np.log(np.eye(2)[predicted] * 0.8 + 0.1), y)[1] == pytest.approx(said, abs=5e-5)


@settings(derandomize=True, deadline=None)
@given(share=st.floats(0.02, 0.6), positive=st.integers(0, 2), seed=st.integers(0, 1000))
def test_one_class_against_the_rest_has_the_share_that_is_asked_for(share, positive, seed):
    labels = np.repeat([0, 1, 2], [150, 100, 250])
    x, y = experiments.load("f1-and-entropy").one_against_rest(
        np.arange(500.0)[:, None], labels, positive, share, np.random.default_rng(seed)
    )
    assert y.mean() == pytest.approx(share, abs=0.01)
    assert ((labels[x[:, 0].astype(int)] == positive) == y).all() and (np.diff(x[:, 0]) > 0).all()


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_gradients_over_time_are_the_whole_jacobians(kind):
    """Of the map from an earlier state to the last one, run over all steps between, item by item."""
    torch.manual_seed(0)
    layer, x = getattr(torch.nn, kind)(3, 4, batch_first=True), torch.randn(2, 3, 6)
    size = 8 if kind == "LSTM" else 4

    def last(state, item, start):
        parts = tuple(part[None, None].contiguous() for part in state.split(4))
        _, end = layer(x[item : item + 1].transpose(1, 2)[:, start:], parts if kind == "LSTM" else parts[0])
        return torch.cat([part.flatten() for part in (end if kind == "LSTM" else (end,))])

    def state_before(item, start):
        zeros = torch.zeros(1, 1, 4)
        seen = x[item : item + 1].transpose(1, 2)[:, :start]
        _, end = layer(seen, (zeros, zeros) if kind == "LSTM" else zeros)
        return torch.cat([part.flatten() for part in (end if kind == "LSTM" else (end,))]).detach()

    found = experiments.load("memory-over-time").norms(layer, x)
    assert len(found) == 5
    for lag, value in enumerate(found, 1):
        start = 6 - lag
        jacobians = [
            torch.autograd.functional.jacobian(lambda s, i=i, start=start: last(s, i, start), state_before(i, start))
            for i in (0, 1)
        ]
        assert jacobians[0].shape == (size, size)
        assert value == pytest.approx(float(sum(j.norm() for j in jacobians) / 2), rel=1e-4)


def test_costs_are_those_of_the_formulas():
    cost_growth = experiments.load("cost-growth")
    dense = cost_growth.counts(*cost_growth.build("dense", "width", 8))
    weights = 5200 * 8 + 8 * 8 + 8 * 12
    assert dense == {
        "parameters": weights + 8 + 8 + 12,
        "multiply_adds": weights,
        "activations": 4 * 8 + 12,  # sums and their rectified values
        "serial": 3,
    }
    lstm = cost_growth.counts(*cost_growth.build("recurrent", "steps", 4))
    step = 4 * 128 * (52 + 128) + 4 * 128 * (128 + 128)
    assert lstm["multiply_adds"] == 4 * step + 128 * 12
    assert lstm["activations"] == 2 * 4 * 128 + 12 and lstm["serial"] == 6
    maps = cost_growth.counts(*cost_growth.build("convolutional", "maps", 2))
    assert maps["multiply_adds"] == 5200 * 5 * (2 + 4) + 2 * 12
    said = cost_growth.text({}, {})
    assert "L W^2: 49,152" in said and "2,097,152" in said and "667,420 parameters" in said and "99.8 %" in said


def test_low_ranks_and_trains_save_what_their_formulas_say(store):
    low_rank = experiments.load("low-rank")
    whole, thin = (low_rank.measure(0, store, hidden=(12, 8), epochs=2, tuning=1, energy=e) for e in (1.0, 0.5))
    assert whole["test.error"] == 0 and whole["test.smaller"] == whole["test.fewer"] == 1
    assert whole["test.multiply_adds"] == 36 * 12 + 12 * 8 + 8 * 4 and whole["test.rank_first"] == 12
    first, last = thin["test.rank_first"], thin["test.rank_last"]
    assert thin["test.multiply_adds"] == first * (36 + 12) + last * (12 + 8) + 8 * 4
    assert (
        thin["test.error"] <= 0.5**0.5
        and thin["test.fewer"] == whole["test.multiply_adds"] / (thin["test.multiply_adds"])
    )
    tensor_train = experiments.load("tensor-train")
    digits = {"rows": (3, 4), "columns": (6, 6), "hidden": (5,), "epochs": 2, "tuning": 1}
    whole, exact, cut = (tensor_train.measure(0, store, **digits, rank=rank) for rank in (None, 18, 2))
    assert exact["test.error"] < 1e-6 and exact["test.accuracy_cut"] == whole["test.accuracy_cut"]
    assert cut["test.stored"] == 3 * 6 * 2 + 2 * 4 * 6 and cut["test.factor"] == 36 * 12 / cut["test.stored"]
    assert whole["test.parameters"] - cut["test.parameters"] == 36 * 12 - cut["test.stored"]
    said = tensor_train.text({}, {})
    assert "102,760,448 weights" in said and "528 numbers: 194,622 times fewer, and 3.9 times" in said


def test_a_net_without_memory_cannot_tell_the_first_l_from_the_second():
    measure = experiments.load("next-character").measure
    with_memory, without = (measure(0, None, recurs=recurs) for recurs in (True, False))
    assert with_memory["train.o"] > 0.9 and with_memory["train.right"] == 1
    assert without["train.o"] == pytest.approx(0.5, abs=0.05) and without["train.right"] <= 0.75
    assert without["train.nll"] == pytest.approx(math.log(2) / 2, abs=0.05)  # half a bit in each of four letters: l, l


def test_cells_are_the_librarys_where_the_formulas_are_the_same():
    measure = experiments.load("cells").measure
    found = {cell: measure(0, None, cell=cell) for cell in ("recurrent", "gru-after", "gru-before", "lstm", "peephole")}
    for cell, figures in found.items():
        assert figures["test.difference"] < 1e-6, cell
        if cell != "peephole":
            assert (figures["test.deviation"] < 1e-10) == (cell != "gru-before"), cell
    assert found["gru-after"]["test.weights"] < found["lstm"]["test.weights"] < found["peephole"]["test.weights"]


def test_a_clip_that_is_not_used_leaves_an_infinite_loss():
    naive, ours = faults.unused_clip()
    assert naive == math.inf and ours == pytest.approx(faults.FAR)


def test_at_a_constant_gradient_adam_steps_by_its_rate_unless_a_source_has_it_wrong():
    lines = [line for line in experiments.load("optimiser-paths").text({}, {}).splitlines() if line.startswith("| ")]
    cells = {line.split("|")[1].strip(): [float(c) for c in line.split("|")[2:-1]] for line in lines[2:]}
    assert cells["as in its paper"] == pytest.approx([1, 1, 1, 0.99, 0.99, 0.99], abs=0.002)
    # By hand: uncorrected, the first moment is (1 - 0.9) g and the second (1 - 0.999) g^2.
    assert cells["no correction"][0] == pytest.approx(0.1 / math.sqrt(0.001), rel=0.01)
    # Ten steps in, with t still 1: m = (1 - 0.9^10) g, s = (1 - 0.999^10) g^2.
    expected = ((1 - 0.9**10) / 0.1) / math.sqrt((1 - 0.999**10) / 0.001)
    assert cells["t counts epochs of 10 steps"][1] == pytest.approx(expected, rel=0.01)
    assert cells["epsilon inside the root"][3] == pytest.approx(1e-6 / math.sqrt(1e-12 + 1e-8), rel=0.02)


def test_every_item_is_in_a_batch_of_the_epoch(store):
    found = experiments.load("mini-batch").measure(0, store, batch=7, hidden=(5,))
    assert found["train.missed"] == 0 and found["train.missed_by_source"] == 96 % 7


def test_the_stage_writes_a_whole_report_and_the_catalogue_holds_it(project, capsys):
    claims = [
        {
            "says": "It is the gradient",
            "row": "D3.1",
            "compare": {"metric": "test.deviation", "lower": "net", "floor": "rounding"},
        },
        {"says": "It is not", "compare": {"metric": "test.deviation", "higher": "net", "floor": "rounding"}},
    ]
    write(project, {"back-propagation": entry({"net": {"hidden": [5], "count": 20, "row": "D3.1"}}, claims)})
    assert command(["experiment", "back-propagation"]) == command(["report", "back-propagation"]) == 0
    folder = paths.report("back-propagation")
    found = files.read_json(folder / "metrics.json")
    assert found["models"]["net"]["metrics"]["test.deviation"]["n"] == 3
    assert [claim["verdict"] for claim in files.read_json(folder / "claims.json")] == ["holds", "does not hold"]
    page = (folder / "index.md").read_text()
    assert "“It is the gradient”" in page and "| deviation |" in page.replace("  ", " ")
    assert command(["summary", "back-propagation"]) == 0
    assert re.search(r"net +test\.deviation +\d", capsys.readouterr().out)
    catalogue.main()
    (row,) = [row for row in files.read_json(project / "reports" / "catalogue.json") if row["id"] == "D3.1"]
    assert row["verdict"] == "holds" and row["measured"]["test.deviation"]["n"] == 3


@pytest.mark.parametrize("name", sorted(set(SETTINGS) - {"back-propagation"}))
def test_pages_show_their_pictures_and_sections(name, project):
    write(
        project,
        {
            name: entry(
                {
                    f"m{i}": {k: list(v) if isinstance(v, tuple) else v for k, v in settings.items()}
                    for i, settings in enumerate(SETTINGS[name])
                }
            )
        },
    )
    experiment.main(name)
    report.main(name)
    folder = paths.report(name)
    page = (folder / "index.md").read_text()
    shown = re.findall(r"\]\((measured/[^)]+)\)", page)
    assert shown and all((folder / file).exists() for file in shown)
    assert ("Faults in the sources" in page) == (name in ("kl-divergence", "optimiser-paths", "two-layer"))


@pytest.mark.parametrize(
    "name, change, fault",
    [
        ("back-propagation", {"models": {"net": {"hiden": [3]}}}, "did you mean hidden?"),
        ("back-propagation", {"models": {"net": {"activation": "relo"}}}, "activation"),
        ("activations", {"models": {"net": {"name": "relo"}}}, "did you mean relu?"),
        ("back-propagation", {"dataset": "digit"}, "did you mean digits?"),
        ("back-propagations", {}, "did you mean back-propagation?"),
        ("back-propagation", {"published": {"nets": {}}}, "did you mean net?"),
    ],
)
def test_what_is_wrong_in_params_is_told_in_one_line(name, change, fault, project, capsys):
    write(project, {name: entry({"net": {"hidden": [3]}}) | change})
    assert command(["experiment", name]) == 2
    said = capsys.readouterr().err
    assert fault in said and len(said.splitlines()) == 1
    assert not paths.report(name).exists()


def test_check_prints_the_stage_of_a_page(project, capsys):
    write(project, {"activations": entry({"net": {"name": "relu"}})})
    assert command(["check", "--study", "activations"]) == command(["check", "--study", "tiny"]) == 0
    assert capsys.readouterr().out.split() == ["experiment_report@activations", "report@tiny"]
    assert command(["check", "--study", "activation"]) == 2


def test_an_experiment_and_a_study_of_one_name_would_write_one_folder(project, monkeypatch):
    monkeypatch.setattr(experiments, "names", lambda: ["tiny"])
    write(project, {"tiny": entry({"net": {}})})
    with pytest.raises(AtelierError, match="experiments.tiny would share reports/studies/tiny"):
        params.load(families=False)


@settings(derandomize=True, deadline=None)
@given(seed=st.integers(0, 2**31), classes=st.integers(2, 12), sharpness=st.floats(0.1, 20))
def test_the_rounded_figure_is_what_its_formula_says(seed, classes, sharpness):
    rng = np.random.default_rng(seed)
    logits = sharpness * rng.standard_normal((40, classes))
    y = rng.integers(0, classes, 40)
    found = metrics.classification(logits - np.log(np.exp(logits).sum(1, keepdims=True)), y)
    expected = 1 - 1 / classes + (found["sure_right"] - found["sure_wrong"]) / classes
    assert found["accuracy_rounded"] == pytest.approx(expected, abs=1e-12)


def test_the_page_on_rounded_probabilities_says_so_where_no_row_used_them(project):
    assert "No study" in rounded.page({}, {})
    assert rounded.pictures({}) == {}
