"""Latency: what is timed, in which order, and what is made of it."""

from atelier import latency


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
