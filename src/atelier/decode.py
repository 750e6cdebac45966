"""decode: what the file of a compressed net holds, and what the net answers: accuracy, and a digest of every bit."""

import hashlib
from pathlib import Path

import numpy as np

from atelier import compress, cpu, evaluation, metrics, paths
from atelier.compress import format
from atelier.data.items import Items, items
from atelier.data.store import Store
from atelier.params import load


def main(file: str, dataset: str | None = None) -> None:
    """Print the net of a file, and with a data set how it classifies its test items."""
    model, spec = compress.read(Path(file))
    ledger = format.ledger(Path(file).read_bytes())
    print(f"{spec['family']} of {sum(weight.numel() for weight in model.parameters()):,} parameters")
    print(f"{sum(ledger.values()):,} bytes: " + ", ".join(f"{part} {size:,}" for part, size in ledger.items()))
    if dataset:
        load().dataset(dataset)
        with cpu.settled(1):
            accuracy, digest = answers(model, items(Store(paths.noisy(dataset)), "test", None, False))
        print(f"test accuracy {accuracy:.6f}")
        print(f"sha256 of its answers {digest}")


def answers(model, test: Items) -> tuple[float, str]:
    """Accuracy, and the SHA-256 of the log-probabilities of all items, float64: equal only if every bit is."""
    found = np.ascontiguousarray(evaluation.answer(model, test.x))
    accuracy = metrics.classification(found, test.y.cpu().numpy())["accuracy"]
    return accuracy, hashlib.sha256(found.tobytes()).hexdigest()
