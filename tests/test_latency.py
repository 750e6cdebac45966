"""Latency: what is timed, in which order, and what is made of it; nets in several runtimes."""

import pytest
import torch

from atelier import families, latency, onnx, speed

SHAPE = (1, 6, 6)


def test_calls_take_turns_and_the_first_of_each_turn_is_not_timed(monkeypatch):
    clock, order = iter(range(0, 10**6)), []
    monkeypatch.setattr(latency.time, "perf_counter", lambda: next(clock))
    found = latency.compare({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, repeats=20)
    rounds = ["".join(order[start : start + 4]) for start in range(0, 4 * 20, 4)]
    assert set(rounds) == {"aabb", "bbaa"} and len(order) == 4 * 20
    assert found == {"a": (1000.0, 1000.0), "b": (1000.0, 1000.0)}


def test_one_call_is_warmed_up_once(monkeypatch):
    called = []
    latency.compare({"a": lambda: called.append(1)}, repeats=5)
    assert len(called) == 6


def test_median_and_percentile_are_those_of_the_timed_calls(monkeypatch):
    spent = [0.001 * n for n in (1, 2, 3, 4, 100)]
    clock = iter(sum(([0.0, one] for one in spent), []))
    monkeypatch.setattr(latency.time, "perf_counter", lambda: next(clock))
    ((median, late),) = latency.compare({"a": lambda: None}, repeats=5).values()
    assert abs(median - 3) < 1e-9 and 4 < late < 100


def test_nets_answer_in_three_runtimes_and_the_runtimes_agree(one_thread):
    torch.manual_seed(0)
    items = torch.rand(40, 1, 6, 6)
    nets = {
        "dense": families.load("mlp")(SHAPE, 3, hidden=(8,)),
        "small": families.load("mlp")(SHAPE, 3, hidden=(2,)),
    }
    found = speed.compare(nets, SHAPE, items, repeats=3)
    assert [(r["net"], r["runtime"], r["batch"]) for r in found] == [
        (net, runtime, batch) for batch in (1, 256) for runtime in ("torch", "onnx", "onnx-int8") for net in nets
    ]
    assert all(0 < r["median_ms"] <= r["p95_ms"] for r in found)
    assert speed.deviation(nets["dense"], SHAPE, items) < 1e-5


def test_a_runtime_that_answers_otherwise_is_seen(monkeypatch, one_thread):
    torch.manual_seed(0)
    net = families.load("mlp")(SHAPE, 3, hidden=(8,))
    real = onnx.run
    monkeypatch.setattr(onnx, "run", lambda graph, x: real(graph, x) + 0.5 * (x[:, :1, 0, 0] > 0.9))
    assert speed.deviation(net, SHAPE, torch.rand(200, *SHAPE)) == pytest.approx(0.5, abs=1e-3)
