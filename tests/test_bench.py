"""The benchmark's arithmetic, its page and the taking of turns; no other library is needed."""

import copy
import json
import os
import re
from pathlib import Path

import pytest
import torch
from bench import page, rows
from bench.anchors import ANCHORS, ITEMS, PEERS, SEEDS, Anchor, loads
from bench.atelier_path import spec
from bench.contender import Contender, alternate, waiting
from bench.limit import training_flops
from bench.peers import torch_nets
from bench.plain_loop import Maxima, Stack, UnfoldedConv2d
from torch import nn

from atelier import checkpoint
from atelier.errors import AtelierError

ROOT = Path(__file__).parents[1]
ROW = {"job", "precision", "batch", "seeds", "peer", "peer_seconds", "seconds", "ratio", "share_of_limit"}


def multiply_adds(anchor: Anchor) -> tuple[int, int]:
    """Of one item: all of the forward pass, and those whose input gradient nobody needs."""
    if anchor.kind == "mlp":
        widths = (784, *anchor.widths, 10)
        return sum(a * b for a, b in zip(widths, widths[1:])), 784 * widths[1]
    if anchor.kind == "cnn":
        first, second, dense = anchor.widths
        begin = 28**2 * 9 * first
        return begin + 14**2 * 9 * first * second + 7**2 * second * dense + dense * 10, begin
    units, gates = anchor.widths[0], {"lstm": 4, "gru": 3}[anchor.kind]
    inputs, states = 28 * 28 * gates * units, 28 * units * gates * units
    return inputs + states + units * 10, inputs + states // 28  # the state before the first row is no variable


@pytest.mark.parametrize("anchor", ANCHORS, ids=str)
def test_operations_counted_on_shapes_are_those_of_the_formula(anchor):
    forward, without_gradient = multiply_adds(anchor)
    model = checkpoint.build(spec(anchor))
    assert training_flops(model, (1, 28, 28)) == 2 * (3 * forward - without_gradient)


def test_an_epoch_of_the_first_anchor_is_68_gflop():
    assert round(training_flops(checkpoint.build(spec(ANCHORS[0])), (1, 28, 28)) * ITEMS / 1e9) == 68


@pytest.mark.parametrize("anchor", ANCHORS, ids=str)
def test_both_sides_train_the_same_net(anchor):
    ours, theirs = checkpoint.build(spec(anchor)), torch_nets.net(anchor.kind, anchor.widths)
    sizes = [sorted(tuple(p.shape) for p in net.parameters()) for net in (ours, theirs)]
    assert sizes[0] == sizes[1]
    assert theirs(torch.zeros(2, 1, 28, 28) if anchor.kind == "cnn" else torch.zeros(2, 28, 28)).shape == (2, 10)


def test_an_anchor_reaches_a_process_whole():
    for anchor in ANCHORS:
        assert loads(anchor.with_samples(123).dumps()) == anchor.with_samples(123)


def test_ideas_that_were_not_kept_compute_the_same():
    x = torch.randn(3, 2, 8, 8)
    assert torch.equal(Maxima()(x), nn.MaxPool2d(2)(x))
    convolution = UnfoldedConv2d(2, 5, 3, padding=1)
    expected = nn.functional.conv2d(x, convolution.weight, convolution.bias, padding=1)
    torch.testing.assert_close(convolution(x), expected)
    stack = Stack([6, 4, 3], seeds=2)
    items = torch.randn(5, 2, 6)  # five for each of two nets
    (first, second), out = stack.weights, stack(items).view(5, 2, 3)
    for seed in range(2):
        torch.testing.assert_close(out[:, seed], (items[:, seed] @ first[seed]).relu() @ second[seed])


def contender(name: str, seconds: list[float], memory: float, precision: str = "fp32", seeds: int = 1) -> dict:
    found = {"name": name, "peer": name in PEERS, "precision": precision, "seeds": seeds, "seconds": seconds}
    found |= {"cpu_seconds": [1.0] * len(seconds)}
    return found | {"side_by_side": 2 if seeds > 1 else 1, "peak_memory_mib": memory, "warm_up_seconds": 1.0}


def measured() -> dict:
    """As details.json: one job on half of the items, every target of it met."""
    ours = [contender(f"atelier {p} {s}", [0.5, 0.1, 0.4], 300.0, p, s) for p in ("fp32", "bf16") for s in (1, SEEDS)]
    theirs = [contender("keras", [2.0, 3.0, 1.0], 600.0), contender("sklearn", [8.0, 8.0, 8.0], 100.0)]
    anchor = {"job": "mlp-300-100", "batch": 128, "samples": ITEMS // 2, "flops_per_item": 1_000_000}
    profiled = [
        {"operator": "aten::mm", "share": 0.7, "calls": 3},
        {"operator": "all others", "share": 0.3, "calls": None},
    ]
    anchor |= {"contenders": theirs + ours, "profiles": {"fp32": profiled, "bf16": profiled}}
    limits = [
        {"when": when, "precision": precision, "threads": threads, "gflops": speed * threads, "side": 1024}
        for when, factor in (("before", 1), ("after", 2))
        for precision, speed in (("fp32", 100.0 * factor), ("bf16", 400.0 * factor))
        for threads in (1, 2)
    ]
    growth = {
        "samples": [{"job": "a", "samples": n, "per_60000": 1 + 0.08 * (n == 1000)} for n in (1000, 2000)],
        "width": [{"width": 100, "per_60000": 0.5}, {"width": 200, "per_60000": 0.8}],
        "studies": [{"seeds": s, "workers": w, "seconds": 4.0 * s / w} for s, w in ((1, 2), (4, 2), (4, 1))],
    }
    row = {"idea": "Fused Adam", "kept": True, "why": "", "job": "mlp", "other": "foreach", "speedup": 1.25}
    speedups = [row, row | {"idea": "torch.compile", "kept": False, "speedup": 0.65, "first_epoch_seconds_other": 25.0}]
    machine = {"machine": {"cpu": "A processor", "cores": 2, "memory_gib": 24.0}, "versions": {"torch": "2.13.0"}}
    found = {"anchors": [anchor], "limit": limits, "growth": growth, "speedups": speedups, "rounds": 3, "minutes": 1.0}
    return found | machine


def test_rows_are_medians_per_model_and_60000_items():
    details = measured()
    found = rows.rows(details["anchors"], details["limit"])
    assert len(found) == 4 * 2 and all(row.keys() >= ROW for row in found)
    one, study = (
        next(r for r in found if (r["precision"], r["seeds"], r["peer"]) == ("fp32", s, "keras")) for s in (1, 4)
    )
    # Half of the items: seconds double. Two models of a study are trained in the same time: they halve again.
    assert (one["seconds"], one["peer_seconds"], one["ratio"]) == (0.8, 4.0, 5.0)
    assert (study["seconds"], study["peer_seconds"], study["ratio"]) == (0.4, 4.0, 10.0)
    # 60 GFLOP in 0.8 s, against the better of 200 and 400 GFLOP/s on two threads.
    assert one["share_of_limit"] == pytest.approx(60 / 0.8 / 400)
    assert (one["peak_memory_mib"], one["peer_peak_memory_mib"]) == (300.0, 600.0)


def changed(details: dict, what: str) -> dict:
    details = copy.deepcopy(details)
    keras = details["anchors"][0]["contenders"][0]
    if what == "speed":
        keras["seconds"] = [0.9, 0.9, 0.9]
    elif what == "memory":
        keras["peak_memory_mib"] = 299.0
    else:
        details["growth"]["samples"][0]["per_60000"] = 1.2
    return details


@pytest.mark.parametrize("what, target", [("speed", "one model"), ("memory", "memory"), ("growth", "linear")])
def test_a_verdict_flips_when_its_figure_does(what, target):
    def met(details):
        settled = rows.verdicts(rows.rows(details["anchors"], details["limit"]), details["growth"])
        return {verdict.target: verdict.met for verdict in settled}

    before, after = met(measured()), met(changed(measured(), what))
    assert before.keys() == after.keys() and all(before.values())
    assert any(target in name and not ok for name, ok in after.items())


def test_the_page_says_what_was_measured(tmp_path):
    page.write(changed(measured(), "memory"), tmp_path)
    text = (tmp_path / "bench.md").read_text()
    assert (
        "| mlp-300-100, batch 128, fp32, one model | at least 2.5 x Keras | 5.00 x | 2.50 x | 26.67 x | met |" in text
    )
    assert "**missed**" in text and "0.65 x" in text and "aten::mm 70%" in text
    assert json.loads((tmp_path / "bench.json").read_text())[0].keys() >= ROW
    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert (tmp_path / link).exists() or link == "bench/details.json", link
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({line.count("|") for line in block.splitlines()}) == 1, block


def test_the_page_explains_what_was_missed_and_when_keras_waited(tmp_path):
    page.write(changed(measured(), "speed"), tmp_path)
    text = (tmp_path / "bench.md").read_text()
    # 1.8 s of Keras by 0.15 s at 400 GFLOP/s is what products alone would allow.
    assert (
        "batch 128, fp32: products at full speed and nothing else would make it 12.00 x; the time goes to aten::mm 70%"
        in text
    )
    assert "Keras's rounds differ" not in text
    page.write(measured(), tmp_path)
    text = (tmp_path / "bench.md").read_text()
    assert "**Missed.**" not in text
    assert "mlp-300-100, batch 128: 3.0 x, busy 17% against 50%" in text


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """A folder for small modules that contenders run."""
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{tmp_path}")
    return tmp_path


def state(contender: Contender) -> str:
    return Path(f"/proc/{contender._process.pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_contenders_take_turns_and_are_stopped_in_between(modules):
    (modules / "sleeper.py").write_text(
        "import time\nfrom bench.gate import serve\nblock = b'x' * 50_000_000\nserve(lambda n: time.sleep(0.12 * n))\n"
    )
    lines = []
    with waiting(lambda: Contender("a", "sleeper"), lambda: Contender("b", "sleeper")) as contenders:
        assert [state(contender) for contender in contenders] == ["T", "T"]
        alternate(contenders, 2, "naps", lines.append, [1, 2])
        assert [state(contender) for contender in contenders] == ["T", "T"]
        for contender in contenders:
            assert len(contender.seconds) == 2 and min(contender.seconds) >= 0.12  # of one nap, however many a turn has
            assert contender.peak_memory_mib > 48
            assert max(contender.cpu_seconds) < 0.05  # it slept
    assert len(lines) == 2 and "round 2 of 2" in lines[1]


def test_a_contender_that_fails_ends_the_run_in_one_line(modules, capfd):
    (modules / "broken.py").write_text("import sys\nsys.exit('no such data')\n")
    with pytest.raises(AtelierError, match="broken one failed"):
        Contender("broken one", "broken")
    assert "no such data" in capfd.readouterr().err


def test_both_sides_have_the_same_versions_of_what_they_share():
    def pins(path: Path) -> dict[str, str]:
        lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
        return dict(line.lower().split("==") for line in lines)

    theirs, ours = pins(ROOT / "bench/requirements.lock"), pins(ROOT / "compute.lock")
    assert {name: theirs[name] for name in ("numpy", "scikit-learn", "scipy", "torch")}.items() <= ours.items()
    assert theirs.keys() >= {"keras", "lightning", "tensorflow"}
