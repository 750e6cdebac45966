"""Intervals against SciPy's, and the laws that verdicts obey whatever the data."""

import json
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import example, given, settings
from hypothesis import strategies as st

from atelier import params, stats
from atelier.errors import AtelierError
from atelier.report import claims
from atelier.report.results import Results

OPPOSITE = {"holds": "does not hold", "does not hold": "holds", "undecided": "undecided"}
figures = st.floats(-1e3, 1e3, allow_nan=False).map(lambda x: round(x, 6))
thousandths = st.integers(0, 1000).map(lambda k: k / 1000)  # like accuracies: few digits, often equal


def samples(of=thousandths, rows=2, least=2):
    """Lists of `rows` equally long lists: a figure of each model, seed by seed."""
    return st.integers(least, 6).flatmap(
        lambda n: st.lists(st.lists(of, min_size=n, max_size=n), min_size=rows, max_size=rows)
    )


def results(values=(), curves=None):
    """A study with models a, b, c, ...; `curves`: model -> epoch -> metric -> one value per seed."""
    named = dict(zip("abcdef", values, strict=False))
    models = {m: {"metrics": {"test.accuracy": stats.summary(v)}, "exact": {}} for m, v in named.items()}
    by_seed = {}
    for model, epochs in (curves or {}).items():
        models.setdefault(model, {"metrics": {}, "exact": {}})
        n = len(next(iter(next(iter(epochs.values())).values())))
        by_seed[model] = {s: {e: {m: v[s] for m, v in row.items()} for e, row in epochs.items()} for s in range(n)}
    seeds = list(range(len(values[0]))) if values else list(next(iter(by_seed.values())))
    return Results("study", "digits", seeds, models, {}, {}, by_seed, {}, [])


def settle(found, **compare):
    compare = {"metric": "test.accuracy"} | compare
    claim = params.Claim(says="It is so", compare=params.Compare(**compare))
    (entry,) = claims.settle(found, [claim])
    return entry


# --- mean and interval


@given(st.lists(figures, min_size=2, max_size=10))
def test_the_interval_is_scipys_t_interval(values):
    found = stats.summary(values)
    assert found["n"] == len(values) and found["values"] == values
    assert found["mean"] == pytest.approx(np.mean(values), abs=1e-9)
    scale = scipy.stats.sem(values)
    if scale > 1e-12:
        assert found["ci95"] == pytest.approx(
            scipy.stats.t.interval(0.95, len(values) - 1, np.mean(values), scale), abs=1e-6
        )


@given(samples(figures))
def test_paired_differences_are_those_of_scipys_paired_test(sample):
    a, b = map(np.array, sample)
    if np.std(a - b) > 1e-9:
        expected = scipy.stats.ttest_rel(a, b).confidence_interval(0.95)
        assert stats.paired(list(a), list(b))["ci95"] == pytest.approx([expected.low, expected.high], abs=1e-6)


@pytest.mark.parametrize(
    ("values", "mean", "ci95"),
    [
        ([], None, None),
        ([0.5], 0.5, None),
        ([0.1, 0.1, 0.1], 0.1, [0.1, 0.1]),
        ([0.5, None, 0.7], None, None),
        ([0.5, math.nan], None, None),
        ([0.5, math.inf], None, None),
    ],
)
def test_summaries_of_odd_values(values, mean, ci95):
    found = stats.summary(values)
    assert (found["mean"], found["ci95"], found["n"]) == (mean, ci95, len(values))
    json.dumps(found, allow_nan=False)


def test_a_summary_shows_no_negative_zero():
    assert "-0.0" not in json.dumps(stats.summary([-0.0, -0.0]))


def test_pairs_need_the_same_seeds():
    with pytest.raises(ValueError):
        stats.paired([1.0, 2.0], [1.0])


def test_a_missing_side_leaves_the_difference_missing():
    assert stats.paired([0.9, 0.8], [0.7, None])["values"] == [pytest.approx(0.2), None]


# --- the rule


@pytest.mark.parametrize(
    ("kind", "margin", "ci95", "expected"),
    [
        ("greater", 0.0, [0.1, 0.3], "holds"),
        ("greater", 0.0, [-0.3, -0.1], "does not hold"),
        ("greater", 0.0, [-0.1, 0.3], "undecided"),
        ("greater", 0.0, [0.0, 0.3], "undecided"),
        ("greater", 0.0, [-0.3, 0.0], "undecided"),
        ("greater", 0.0, [0.0, 0.0], "undecided"),
        ("greater", 0.2, [0.1, 0.3], "undecided"),
        ("greater", 0.2, [0.05, 0.1], "does not hold"),
        ("greater", 0.01, [0.97 - 0.96, 0.97 - 0.96], "undecided"),
        ("greater", 0.0, None, "undecided"),
        ("trend", 0.0, [0.1, 0.3], "holds"),
        ("at-epoch", 0.0, [-0.3, -0.1], "does not hold"),
        ("equal", 0.1, [-0.05, 0.05], "holds"),
        ("equal", 0.1, [0.0, 0.0], "holds"),
        ("equal", 0.1, [-0.05, 0.15], "undecided"),
        ("equal", 0.1, [-0.15, 0.15], "undecided"),
        ("equal", 0.1, [0.0, 0.1], "undecided"),
        ("equal", 0.1, [0.15, 0.2], "does not hold"),
        ("equal", 0.1, [-0.2, -0.15], "does not hold"),
        ("equal", 0.1, None, "undecided"),
    ],
)
def test_the_rule(kind, margin, ci95, expected):
    assert claims.verdict(kind, margin, ci95) == expected


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (["holds", "undecided", "does not hold"], "does not hold"),
        (["holds", "undecided"], "undecided"),
        (["holds", "holds"], "holds"),
        ([], "no claim"),
    ],
)
def test_the_foremost_verdict(verdicts, expected):
    assert claims.foremost(verdicts) == expected


# --- verdicts follow the data

CLEAR = [[0.90, 0.91, 0.92], [0.70, 0.72, 0.71]]  # a is better than b
DIM = [[0.90, 0.71, 0.92], [0.70, 0.92, 0.71]]
SAME = [[0.90, 0.91, 0.92], [0.90, 0.91, 0.92]]


@pytest.mark.parametrize("way", ["higher", "lower"])
@given(samples())
@example(CLEAR)
@example(DIM)
@example(SAME)
def test_exchanging_the_models_flips_a_greater_claim(way, sample):
    straight = settle(results(sample), **{way: "a", "than": "b"})
    flipped = settle(results(sample[::-1]), **{way: "a", "than": "b"})
    assert straight["kind"] == "greater" and flipped["verdict"] == OPPOSITE[straight["verdict"]]
    assert flipped["estimate"] == pytest.approx(-straight["estimate"])


def test_the_examples_reach_every_verdict():
    found = [settle(results(sample), higher="a", than="b")["verdict"] for sample in (CLEAR, CLEAR[::-1], DIM, SAME)]
    assert found == ["holds", "does not hold", "undecided", "undecided"]


@given(samples(), st.integers(0, 300).map(lambda k: k / 1000))
@example(CLEAR, 0.1)
@example(CLEAR, 0.3)
def test_mirroring_the_difference_at_the_margin_flips_the_verdict(sample, margin):
    a, b = sample
    mirrored = [y + 2 * margin - (x - y) for x, y in zip(a, b, strict=True)]
    straight = settle(results([a, b]), higher="a", than="b", margin=margin)
    flipped = settle(results([mirrored, b]), higher="a", than="b", margin=margin)
    assert flipped["verdict"] == OPPOSITE[straight["verdict"]]


@given(samples(), st.integers(1, 300).map(lambda k: k / 1000))
@example(CLEAR, 0.01)
@example(CLEAR, 0.3)
@example(SAME, 0.01)
def test_equality_does_not_depend_on_the_order_of_the_models(sample, margin):
    straight = settle(results(sample), equal=("a", "b"), margin=margin)
    flipped = settle(results(sample[::-1]), equal=("a", "b"), margin=margin)
    assert straight["kind"] == "equal" and flipped["verdict"] == straight["verdict"]
    if straight["verdict"] == "holds":  # what is equal is neither greater nor less by the margin
        assert settle(results(sample), higher="a", than="b", margin=margin)["verdict"] == "does not hold"
        assert settle(results(sample), lower="a", than="b", margin=margin)["verdict"] == "does not hold"


def test_equality_reaches_every_verdict():
    found = [settle(results(CLEAR), equal=("a", "b"), margin=margin)["verdict"] for margin in (0.3, 0.2, 0.1)]
    assert found == ["holds", "undecided", "does not hold"]


@given(samples(rows=4))
@example([[0.1, 0.12], [0.2, 0.22], [0.3, 0.31], [0.4, 0.41]])
def test_reversing_the_models_flips_a_trend(sample):
    names = tuple("abcd")
    rises = settle(results(sample), over=names, direction="rises")
    assert rises["kind"] == "trend"
    assert settle(results(sample[::-1]), over=names, direction="rises")["verdict"] == OPPOSITE[rises["verdict"]]
    assert settle(results(sample), over=names, direction="falls")["verdict"] == OPPOSITE[rises["verdict"]]


@given(samples(rows=4))
def test_a_trend_is_the_mean_over_seeds_of_scipys_slopes(sample):
    found = settle(results(sample), over=tuple("abcd"), direction="rises")
    slopes = [scipy.stats.linregress(range(4), seed).slope for seed in np.array(sample).T]
    assert found["estimate"] == pytest.approx(np.mean(slopes), abs=1e-9)


def test_a_trend_follows_the_listed_order():
    sample = [[0.1, 0.12], [0.3, 0.31], [0.2, 0.22]]
    assert settle(results(sample), over=("a", "c", "b"), direction="rises")["verdict"] == "holds"
    assert settle(results(sample), over=("c", "b", "a"), direction="rises")["verdict"] == "does not hold"


@given(samples(rows=4))
@example([*CLEAR, *CLEAR])
def test_exchanging_the_epochs_flips_a_claim_between_epochs(sample):
    def found(early, late, direction="rises"):
        curves = {"a": {2: {"test.loss": early}, 9: {"test.loss": late}}}
        return settle(results(curves=curves), metric="test.loss", of="a", **{"from": 2, "to": 9}, direction=direction)

    rises = found(*sample[:2])
    assert rises["kind"] == "at-epoch"
    assert found(*sample[1::-1])["verdict"] == OPPOSITE[rises["verdict"]]
    assert found(*sample[:2], direction="falls")["verdict"] == OPPOSITE[rises["verdict"]]


@given(samples(rows=4))
@example([*CLEAR, *CLEAR[::-1]])
def test_exchanging_the_models_flips_a_claim_at_an_epoch(sample):
    curves = {"a": {2: {"test.loss": sample[0]}, 9: {"test.loss": sample[2]}}}
    curves["b"] = {2: {"test.loss": sample[1]}, 9: {"test.loss": sample[3]}}
    for epoch in (2, 9):
        straight = settle(results(curves=curves), metric="test.loss", higher="a", than="b", epoch=epoch)
        flipped = settle(results(curves=curves), metric="test.loss", higher="b", than="a", epoch=epoch)
        assert straight["kind"] == "at-epoch" and flipped["verdict"] == OPPOSITE[straight["verdict"]]
    expected = np.mean(np.subtract(sample[2], sample[3]))
    assert straight["estimate"] == pytest.approx(expected, abs=1e-9)


@settings(max_examples=20)
@given(samples(rows=3, least=1))
def test_one_seed_decides_nothing(sample):
    single = results([row[:1] for row in sample])
    for compare in (
        {"higher": "a", "than": "b"},
        {"equal": ("a", "b"), "margin": 0.5},
        {"over": ("a", "b", "c"), "direction": "rises"},
    ):
        entry = settle(single, **compare)
        assert (entry["verdict"], entry["ci95"], entry["n"]) == ("undecided", None, 1)


def test_a_seed_without_a_figure_decides_nothing():
    entry = settle(results([[0.9, None, 0.9], [0.1, 0.1, 0.1]]), higher="a", than="b")
    assert (entry["verdict"], entry["estimate"], entry["ci95"]) == ("undecided", None, None)


def test_pairing_by_seed_sees_what_the_spread_between_seeds_would_hide():
    assert settle(results([[0.11, 0.51, 0.91], [0.10, 0.50, 0.90]]), higher="a", than="b")["verdict"] == "holds"


def test_a_gap_is_taken_from_the_curves_of_both_splits():
    row = {"train.accuracy": [0.9, 0.9], "test.accuracy": [0.8, 0.7], "train.loss": [0.1, 0.1], "test.loss": [0.4, 0.5]}
    found = results(curves={"a": {5: row}})
    assert found.at_epoch("a", "gap.accuracy", 5, "") == pytest.approx([0.1, 0.2])
    assert found.at_epoch("a", "gap.loss", 5, "") == pytest.approx([0.3, 0.4])


# --- entries and errors


def test_an_entry_says_what_was_compared():
    claim = params.Claim(
        says="It is so", row="D0.2", compare=params.Compare(metric="test.accuracy", lower="b", than="a", margin=0.05)
    )
    named = params.Claim(
        says="And so", id="by-hand", compare=params.Compare(metric="test.accuracy", higher="a", than="b")
    )
    first, second = claims.settle(results(CLEAR), [claim, named])
    expected = {"id": "study-1", "row": "D0.2", "says": "It is so", "kind": "greater", "metric": "test.accuracy"}
    expected |= {"models": ["b", "a"], "margin": 0.05, "n": 3, "verdict": "holds", "estimate": pytest.approx(0.2)}
    expected |= {"compared": pytest.approx([0.71, 0.91])}
    assert {k: v for k, v in first.items() if k != "ci95"} == expected
    assert (second["id"], second["row"]) == ("by-hand", None)


def test_two_claims_with_one_id_are_an_error():
    compare = params.Compare(metric="test.accuracy", higher="a", than="b")
    twice = [params.Claim(says="It is so", compare=compare), params.Claim(says="So", id="study-1", compare=compare)]
    with pytest.raises(AtelierError, match=r"claims\.1\.id: study-1 is the id of an earlier claim"):
        claims.settle(results(CLEAR), twice)


def test_an_unknown_metric_names_the_model_the_metric_and_the_nearest():
    message = r"studies\.study\.claims\.0\.compare: a has no metric test\.acuracy; did you mean test\.accuracy\?"
    with pytest.raises(AtelierError, match=message) as error:
        settle(results(CLEAR), metric="test.acuracy", higher="a", than="b")
    assert "\n" not in str(error.value)


CURVE = {"a": {e: {"test.loss": [0.5, 0.4], "test.accuracy": [None, None]} for e in (10, 20, 30)}}


def test_an_epoch_that_was_not_evaluated_names_its_neighbours():
    with pytest.raises(AtelierError, match=r"a was not evaluated at epoch 12 \(seed 0\); nearest: 10 or 20"):
        settle(results(curves=CURVE), metric="test.loss", of="a", **{"from": 12, "to": 30}, direction="falls")


def test_a_seed_that_stopped_early_is_named():
    found = results(curves=CURVE)
    del found.curves["a"][1][30]
    with pytest.raises(AtelierError, match=r"a was not evaluated at epoch 30 \(seed 1\); nearest: 10 or 20"):
        settle(found, metric="test.loss", of="a", **{"from": 10, "to": 30}, direction="falls")


def test_a_metric_without_a_curve_names_those_that_have_one():
    with pytest.raises(AtelierError, match=r"a has no curve of test\.accuracy; .*\(test\.loss\)"):
        settle(results(curves=CURVE), metric="test.accuracy", of="a", **{"from": 10, "to": 30}, direction="falls")


def test_a_claim_against_a_floor_takes_its_figure_as_it_is():
    found = results([[0.05, 0.06, 0.055]])
    found.floors["ridge"] = {"test.accuracy": 0.08, "test.mae": 0.01}
    below = settle(found, lower="a", floor="ridge")
    assert below["verdict"] == "holds" and below["estimate"] == pytest.approx(0.025)
    assert below["models"] == ["a", "ridge"]
    assert settle(found, higher="a", floor="ridge")["verdict"] == "does not hold"
    assert settle(found, lower="a", floor="ridge", floor_metric="test.mae")["verdict"] == "does not hold"
    with pytest.raises(AtelierError, match="names rigde, which is none; did you mean ridge"):
        settle(found, lower="a", floor="rigde")


@given(samples(rows=1), thousandths)
def test_a_claim_against_a_number_is_one_against_a_floor_of_it(sample, bound):
    found = results(sample)
    found.floors["number"] = {"test.accuracy": bound}
    for way in ("higher", "lower"):
        ours, theirs = settle(found, **{way: "a"}, bound=bound), settle(found, **{way: "a"}, floor="number")
        assert ours["verdict"] == theirs["verdict"] and ours["estimate"] == theirs["estimate"]


@pytest.mark.parametrize("metric", ["test.accuracy", "validation.accuracy"])
def test_a_pruned_net_is_compared_by_its_name(metric):
    found = results([[0.9, 0.8, 0.7]])
    found.models["a"]["metrics"]["validation.accuracy"] = found.models["a"]["metrics"]["test.accuracy"]
    for seed, value in enumerate([0.5, 0.4, 0.2]):
        own = {"model": "a", "seed": seed, "criterion": "taylor", "schedule": "one-shot", "level": 0.5}
        judged = {"test": {"accuracy": value}, "validation": {"accuracy": value}}
        found.points.append(own | {"recovery": "finetune"} | judged)
        found.points.append(own | {"recovery": "none", "test": {"accuracy": 0.0}, "validation": {"accuracy": 0.0}})
    entry = settle(found, metric=metric, higher="a", than="a:taylor:one-shot:finetune:0.5")
    assert entry["estimate"] == pytest.approx((0.4 + 0.4 + 0.5) / 3)
    assert entry["models"] == ["a", "a:taylor:one-shot:finetune:0.5"]
    with pytest.raises(AtelierError, match="a:taylor:one-shot:finetune:0.7 has no metric"):
        settle(found, metric=metric, higher="a", than="a:taylor:one-shot:finetune:0.7")


def test_what_was_compared_stands_in_the_order_in_which_a_claim_names_it():
    found = results([[0.9, 0.8], [0.6, 0.4], [0.1, 0.3]], curves=None)
    found.floors["ridge"] = {"test.accuracy": 0.08}
    asked = [
        ({"higher": "a", "than": "b"}, [0.85, 0.5]),
        ({"lower": "a", "than": "b"}, [0.85, 0.5]),
        ({"equal": ("b", "a"), "margin": 0.1}, [0.5, 0.85]),
        ({"over": ("c", "b", "a"), "direction": "falls"}, [0.2, 0.5, 0.85]),
        ({"lower": "a", "floor": "ridge"}, [0.85, 0.08]),
        ({"higher": "b", "bound": 0.7}, [0.5, 0.7]),
    ]
    for compare, means in asked:
        assert settle(found, **compare)["compared"] == pytest.approx(means)
    course = settle(results(curves=CURVE), metric="test.loss", of="a", **{"from": 10, "to": 30}, direction="falls")
    assert course["compared"] == pytest.approx([0.45, 0.45])


@given(samples(), st.sampled_from([0.5, 2.0, 3.0]))
def test_a_claim_of_so_many_times_is_one_about_multiplied_figures(sample, times):
    a, b = sample
    found, scaled = results([a, b]), results([a, [times * value for value in b]])
    for way in ("higher", "lower"):
        ours, theirs = settle(found, **{way: "a"}, than="b", times=times), settle(scaled, **{way: "a"}, than="b")
        assert {k: ours[k] for k in ("estimate", "verdict", "compared")} == {
            k: theirs[k] for k in ("estimate", "verdict", "compared")
        }


def test_times_multiply_what_a_claim_compares_with():
    with pytest.raises(ValueError, match="give metric and one of"):
        params.Compare(metric="test.accuracy", higher="a", bound=0.5, times=2)


def test_claims_about_seconds_are_settled_apart_and_keep_their_places():
    asked = [
        params.Claim(says="It is so", compare=params.Compare(metric=metric, higher="a", than="b"))
        for metric in ("time.train_s", "test.accuracy")
    ]
    assert [entry["id"] for entry in claims.settle(results(CLEAR), asked)] == ["study-2"]
    found = results(CLEAR)
    for model in found.models.values():
        model["metrics"]["time.train_s"] = model["metrics"]["test.accuracy"]
    assert [entry["id"] for entry in claims.settle(found, asked, timed=True)] == ["study-1"]
