"""Figures of merit: pure functions on whole predictions. Those of classes are scikit-learn's where it has them."""

from typing import Any

import numpy as np


def classification(log_probabilities: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Figures of log-probabilities (n, classes) at labels (n,).

    accuracy: share of items whose largest probability is at the label; f1_macro: mean over classes of F1;
    accuracy_rounded: mean over items and classes of round(p) == onehot, the element-wise figure of two sources;
    sure_right, sure_wrong: shares of items with more than half of the probability on the label, on another class;
    nll: mean negative log-likelihood in nats; ece: expected calibration error over 15 equal bins of confidence
    (Guo et al. 2017, "On calibration of modern neural networks", equation 3).
    """
    from sklearn.metrics import f1_score

    probabilities = np.exp(log_probabilities)
    predicted = log_probabilities.argmax(1)
    onehot = np.eye(log_probabilities.shape[1])[y]
    return {
        "accuracy": float((predicted == y).mean()),
        "accuracy_rounded": float((np.round(probabilities) == onehot).mean()),
        "sure_right": float((probabilities[np.arange(len(y)), y] > 0.5).mean()),
        "sure_wrong": float(((probabilities > 0.5) & (onehot == 0)).any(1).mean()),
        "f1_macro": float(f1_score(y, predicted, average="macro", zero_division=0)),
        "nll": float(-log_probabilities[np.arange(len(y)), y].mean()),
        "ece": calibration_error(probabilities.max(1), predicted == y),
    }


def calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = 15) -> float:
    """Mean over items of |accuracy - mean confidence| of their bin, bins (0, 1/bins], ..., (1 - 1/bins, 1]."""
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    surplus = np.bincount(place, weights=correct - confidence, minlength=bins)
    return float(np.abs(surplus).sum() / len(confidence))


def reconstruction(output: np.ndarray, clean: np.ndarray) -> dict[str, float]:
    """Errors of items in [0, 1], both (n, *shape): mae, mse, psnr = 10 log10(1 / mse) in dB (None if mse is 0)."""
    error = output.astype(np.float64) - clean
    mse = float(np.square(error).mean())
    return {
        "mae": float(np.abs(error).mean()),
        "mse": mse,
        "psnr": float(10 * np.log10(1 / mse)) if mse > 0 else None,
    }


def confusion(log_probabilities: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Counts (classes, classes): row = the item's class, column = the predicted one."""
    from sklearn.metrics import confusion_matrix

    return confusion_matrix(y, log_probabilities.argmax(1), labels=range(log_probabilities.shape[1]))


def per_class(log_probabilities: np.ndarray, y: np.ndarray) -> list[dict[str, Any]]:
    """Precision, recall, F1 and support of every class, in class order."""
    from sklearn.metrics import precision_recall_fscore_support

    labels = range(log_probabilities.shape[1])
    columns = precision_recall_fscore_support(y, log_probabilities.argmax(1), labels=labels, zero_division=0)
    names = ("precision", "recall", "f1", "support")
    return [dict(zip(names, map(float, values), strict=True)) for values in zip(*columns, strict=True)]
