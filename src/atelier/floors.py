"""What simple reconstructions reach, for a denoiser to be measured against: identity, PCA, ridge regression."""

from typing import Any

import numpy as np

from atelier import metrics, noise
from atelier.data.store import Store
from atelier.params import TrainNoise


def floors(store: Store, corruptions: list[TrainNoise], width: int) -> dict[str, dict[str, Any]]:
    """What simple reconstructions reach on the test set: nothing done, PCA of the bottleneck's width, ridge regression.

    PCA projects the noisy item on the leading components of the clean training items. Ridge regression predicts the
    clean item from the noisy one (penalty 1 in units of the summed squares), fitted on training items with fresh noise
    of the same level. Both are clipped to [0, 1].
    """
    clean, _ = store.split("train")
    target, _ = store.split("test")
    train, test = clean.reshape(len(clean), -1), target.reshape(len(target), -1)
    mean = train.mean(0)
    _, vectors = np.linalg.eigh(np.cov(train, rowvar=False))
    components = vectors[:, ::-1][:, :width].astype(np.float32)
    found: dict[str, dict[str, Any]] = {"identity": {}, f"pca-{width}": {}, "ridge": {}}
    for corruption in (None, *corruptions):
        name = f"test.{corruption.name}" if corruption else "test"
        noisy = test if corruption is None else store.split("test", corruption.name)[0].reshape(len(test), -1)
        answers = {"identity": noisy, f"pca-{width}": np.clip((noisy - mean) @ components @ components.T + mean, 0, 1)}
        if corruption:
            drawn = noise.draw(clean, corruption.kind, corruption.level, seed=0, epoch=0).reshape(len(train), -1)
            answers["ridge"] = np.clip(_ridge(drawn, train, noisy), 0, 1)
        for floor, output in answers.items():
            found[floor] |= {
                f"{name}.{metric}": value for metric, value in metrics.reconstruction(output, test).items()
            }
    return found


def _ridge(x: np.ndarray, y: np.ndarray, seen: np.ndarray, penalty: float = 1.0) -> np.ndarray:
    """Ridge regression of y on x by the normal equations of centred data, applied to `seen`."""
    x_mean, y_mean = x.mean(0), y.mean(0)
    gram = ((x - x_mean).T @ (x - x_mean)).astype(np.float64) + penalty * np.eye(x.shape[1])
    weights = np.linalg.solve(gram, ((x - x_mean).T @ (y - y_mean)).astype(np.float64)).astype(np.float32)
    return (seen - x_mean) @ weights + y_mean
