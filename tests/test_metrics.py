"""Figures of merit against scikit-learn and plain formulas."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax
from sklearn import metrics as sk

from atelier import metrics

several = settings(max_examples=30, deadline=None)


@st.composite
def predictions(draw):
    """Log-probabilities (n, classes) and labels, some of the classes absent, some answers sure and some alike."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, classes = draw(st.integers(1, 60)), draw(st.integers(2, 8))
    logits = rng.normal(scale=draw(st.sampled_from([0.01, 1.0, 5.0, 40.0])), size=(n, classes))
    y = rng.integers(0, draw(st.integers(1, classes)), n)
    return log_softmax(logits, axis=1), y


@given(predictions())
@several
def test_classification_equals_scikit_learn(given_predictions):
    log_p, y = given_predictions
    found, p = metrics.classification(log_p, y), np.exp(log_p)
    labels, predicted = range(p.shape[1]), log_p.argmax(1)
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(y, predicted))
    assert found["f1_macro"] == pytest.approx(sk.f1_score(y, predicted, average="macro", zero_division=0))
    if log_p.min() > -30:  # beyond, log_loss cuts probabilities off
        assert found["nll"] == pytest.approx(sk.log_loss(y, p, labels=labels), rel=1e-9, abs=1e-12)
    assert found["nll"] == pytest.approx(-math.fsum(log_p[i, label] for i, label in enumerate(y)) / len(y))
    assert all(math.isfinite(value) for value in found.values())


@given(predictions())
@several
def test_confusion_and_figures_by_class_equal_scikit_learn_and_each_other(given_predictions):
    log_p, y = given_predictions
    matrix, table = metrics.confusion(log_p, y), metrics.per_class(log_p, y)
    classes = log_p.shape[1]
    slow = [[sum((y == row) & (log_p.argmax(1) == column)) for column in range(classes)] for row in range(classes)]
    assert matrix.tolist() == slow
    for label, row in enumerate(table):
        hit, support, guessed = matrix[label, label], matrix[label].sum(), matrix[:, label].sum()
        assert row["support"] == support
        assert row["recall"] == pytest.approx(hit / support if support else 0)
        assert row["precision"] == pytest.approx(hit / guessed if guessed else 0)
        assert row["f1"] == pytest.approx(2 * hit / (support + guessed) if support + guessed else 0)
    assert all(type(value) is float for row in table for value in row.values())


@given(predictions(), st.integers(1, 20))
@several
def test_calibration_error_equals_a_slow_loop_over_bins(given_predictions, bins):
    log_p, y = given_predictions
    confidence, correct = np.exp(log_p).max(1), log_p.argmax(1) == y
    error = 0.0
    for b in range(bins):
        # Guo et al. 2017: B_m holds the items with confidence in ((m - 1) / M, m / M].
        inside = (confidence > b / bins) & (confidence <= (b + 1) / bins)
        if b == bins - 1:
            inside |= confidence > 1  # by a rounding error
        if inside.any():
            error += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    assert metrics.calibration_error(confidence, correct, bins) == pytest.approx(error, abs=1e-9)


def test_calibration_error_of_known_cases():
    sure = np.ones(10)
    assert metrics.calibration_error(sure, np.ones(10, bool)) == 0
    assert metrics.calibration_error(sure, np.zeros(10, bool)) == 1
    assert metrics.calibration_error(np.full(10, 0.7), np.arange(10) < 7) == pytest.approx(0)
    # Over- and underconfident bins do not cancel; within a bin they do.
    assert metrics.calibration_error(np.array([0.9, 0.6]), np.array([False, True])) == pytest.approx((0.9 + 0.4) / 2)
    assert metrics.calibration_error(np.array([0.61, 0.65]), np.array([False, True])) == pytest.approx(0.13)
    # A bin holds its upper edge: 0.5 is in the first of two.
    assert metrics.calibration_error(np.array([0.5, 0.75]), np.array([True, False]), bins=2) == pytest.approx(0.625)
    assert metrics.classification(np.log([[0.8, 0.2]]), np.array([1]))["ece"] == pytest.approx(0.8)


@given(c=st.integers(0, 40), w=st.integers(0, 40), unsure=st.integers(0, 40))
@several
def test_rounded_accuracy_with_ten_classes_is_nine_tenths_plus_right_less_wrong(c, w, unsure):
    """Only sure answers count: 0.9 + (c - w) / 10 with the shares of items that are surely right and surely wrong."""
    n = c + w + unsure
    if not n:
        return
    y, sure = np.arange(n) % 10, np.full(n, 0.91)
    guessed = np.where(np.arange(n) < c, y, (y + 1) % 10)
    sure[c + w :] = 0.28  # and eight hundredths for each of the others: nothing rounds up
    p = np.repeat(((1 - sure) / 9)[:, None], 10, axis=1)
    p[np.arange(n), guessed] = sure
    found = metrics.classification(np.log(p), y)
    assert found["accuracy_rounded"] == pytest.approx(0.9 + (c - w) / n / 10)
    assert found["accuracy"] == pytest.approx(c / n)


@given(st.integers(0, 2**32 - 1))
@several
def test_reconstruction_equals_plain_formulas(seed):
    rng = np.random.default_rng(seed)
    clean = rng.random((int(rng.integers(1, 9)), 1, 3, 4)).astype(np.float32)
    output = rng.random(clean.shape).astype(np.float32)
    found = metrics.reconstruction(output, clean)
    flat, target = output.astype(float).ravel(), clean.astype(float).ravel()
    assert found["mae"] == pytest.approx(sk.mean_absolute_error(target, flat))
    assert found["mse"] == pytest.approx(sk.mean_squared_error(target, flat))
    assert found["psnr"] == pytest.approx(20 * math.log10(1 / math.sqrt(found["mse"])))


def test_a_perfect_reconstruction_has_no_finite_psnr():
    x = np.random.default_rng(0).random((3, 5)).astype(np.float32)
    assert metrics.reconstruction(x, x) == {"mae": 0.0, "mse": 0.0, "psnr": None}
    assert metrics.reconstruction(x + 0.1, x)["psnr"] == pytest.approx(20, abs=1e-4)
