"""Judges what a model draws, by the eyes of a classifier of our own: how near to real items, how sharp, how varied.

The classifier is a small convolutional net, trained once on the training items of the data set; its features are the
values of its last hidden layer. The distance between features has the formula of the FID (Heusel et al. 2017), which is
named for the features of Inception, trained on ImageNet; ours are other features, so its figures are not that.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from sklearn.metrics import pairwise_distances_argmin_min
from sklearn.neighbors import NearestNeighbors
from torch import nn

from atelier import checkpoint, files, jobs
from atelier.data.store import Store
from atelier.errors import AtelierError
from atelier.families import cnn
from atelier.fit import rows_at_once
from atelier.params import Compute, Recipe

COUNT = 10_000  # items that are drawn
LEAST = 0.04  # a class of fewer does not count as covered
NEIGHBOURS = 5  # k of coverage, as its authors have it
BLOCK = 1_000  # items drawn at once
PLAN = ("conv 16 3", "pool 2", "conv 32 3", "pool 2", "dense 64")
RECIPE = Recipe(epochs=8, batch=128, lr=2e-3, schedule="one-cycle", evaluate_every=8)


@dataclass(frozen=True)
class Seen:
    """Items (n, *shape) and what the classifier makes of them: features (n, width) float64, labels (n,)."""

    items: np.ndarray
    features: np.ndarray
    labels: np.ndarray


def judge(model: nn.Module, store: Store, seed: int) -> dict[str, float]:
    """The figures of COUNT items that `model.sample` draws from this seed; the model is left in eval mode."""
    return figures(look(draw(model, seed), store), store)


@torch.no_grad()
def draw(model: nn.Module, seed: int, count: int = COUNT) -> np.ndarray:
    """Items (count, *shape) in [0, 1]."""
    torch.manual_seed(seed)
    model.eval()
    return torch.cat([model.sample(min(BLOCK, count - start)).cpu() for start in range(0, count, BLOCK)]).numpy()


def figures(seen: Seen, store: Store) -> dict[str, float]:
    """Of items that a model has drawn, held against the test items.

    frechet: the Frechet distance between Gaussians fitted to the features of both. coverage: the share of test items
    that have one of the items nearer to them than their fifth nearest other test item (Naeem et al. 2020); 1 - 2^-5
    where both are drawn from one distribution. least_class: the share of the rarest class. classes: how many classes
    have a share of 4 % at least. sharpness: the mean over items of the variance of their Laplacian.
    """
    real = look(store.split("test")[0], store)
    near = {
        "test.frechet": frechet(seen.features, real.features),
        "test.coverage": coverage(real.features, seen.features),
    }
    return near | _alone(seen, store)


def _alone(seen: Seen, store: Store) -> dict[str, float]:
    """The figures that need no test items beside them."""
    found = shares(seen.labels, len(store.classes))
    return {
        "test.least_class": float(found.min()),
        "test.classes": float((found >= LEAST).sum()),
        "test.sharpness": sharpness(seen.items),
    }


def floors(store: Store) -> dict[str, dict[str, float]]:
    """What the figures are at both ends: of real items, which no net has drawn, and of noise; COUNT of each at most.

    train-items: the first training items. test-items: of these the figures that are not held against them. noise:
    pixels that are uniform in [0, 1]. covered: the least share of a class that counts. tenth-of-noise: a tenth of the
    distance of noise.
    """
    drawn = np.random.default_rng(0).random((COUNT, *store.shape), np.float32)
    noise = figures(look(drawn, store), store)
    return {
        "train-items": figures(look(store.split("train")[0][:COUNT], store), store),
        "test-items": _alone(look(store.split("test")[0], store), store),
        "noise": noise,
        "covered": {"test.least_class": LEAST},
        "tenth-of-noise": {"test.frechet": noise["test.frechet"] / 10},
    }


def classifier(store: Store) -> cnn.Model:
    return checkpoint.load(_trained(store))[0]


def accuracy(store: Store) -> float:
    """The share of test items that the classifier names rightly."""
    return files.read_json(_trained(store) / "history.json")["curve"][-1]["test.accuracy"]


def _trained(store: Store) -> Path:
    """The classifier's folder; it is trained as any job is when somebody first asks, while others wait for it.

    Raises AtelierError for items that are no images.
    """
    if len(store.shape) != 3:
        raise AtelierError(
            f"{store.name}: samples are judged as images, (channels, rows, columns); items {store.shape}"
        )
    job = jobs.Job(
        study="judge",
        model=store.name,
        seed=0,
        family="cnn",
        dataset=store.folder.name,
        compute=Compute(threads=torch.get_num_threads(), device="cpu"),
        recipe=RECIPE,
        settings={"plan": PLAN},
    )
    jobs.train(job)
    return job.folder


def look(items: np.ndarray, store: Store) -> Seen:
    net, features = classifier(store), []
    net.head.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
    with torch.no_grad():
        labels = [net.classify(rows).argmax(1) for rows in torch.from_numpy(items).split(rows_at_once(net))]
    return Seen(items, torch.cat(features).double().numpy(), torch.cat(labels).numpy())


def shares(labels: np.ndarray, classes: int) -> np.ndarray:
    """The share of every class, (classes,)."""
    return np.bincount(labels, minlength=classes) / len(labels)


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """Squared, |mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2)), of the Gaussians fitted to (n, width) and (m, width).

    With A = R' R and B = S' S the trace of the root is the sum of the singular values of R S' (Dowson and Landau 1982):
    no root of a matrix that is nearly singular has to be found.
    """
    r, s = (np.linalg.qr(x - x.mean(0), mode="r") / np.sqrt(len(x) - 1) for x in (a, b))
    traces = np.square(r).sum() + np.square(s).sum()
    return float(np.square(a.mean(0) - b.mean(0)).sum() + traces - 2 * np.linalg.svd(r @ s.T, compute_uv=False).sum())


def coverage(real: np.ndarray, drawn: np.ndarray, neighbours: int = NEIGHBOURS) -> float:
    """The share of `real` (n, width) with one of `drawn` (m, width) within the distance of their k-th nearest other."""
    nearest = NearestNeighbors(n_neighbors=neighbours, algorithm="brute").fit(real)
    radii = nearest.kneighbors()[0][:, -1]  # without a query, an item is not its own neighbour
    return float((pairwise_distances_argmin_min(real, drawn)[1] <= radii).mean())


def sharpness(items: np.ndarray) -> float:
    """Mean over items (n, channels, rows, columns) of the variance of the Laplacian over the pixels of each."""
    kernel = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]], np.float32)[None, None]
    edges = ndimage.convolve(items, kernel, mode="nearest")
    return float(edges.var((1, 2, 3), dtype=np.float64).mean())
