"""How samples are judged: each figure against a computation of another kind, and on items whose answer is known."""

import numpy as np
import pytest
import torch
from conftest import CLASSES, SHAPE, TEST
from scipy import linalg, ndimage
from torch import nn
from torch.nn import functional as F

from atelier import paths, samples
from atelier.data.store import Store
from atelier.errors import AtelierError

pytestmark = pytest.mark.usefixtures("one_thread")


class Replays(nn.Module):
    """Draws from given items."""

    def __init__(self, items: np.ndarray) -> None:
        super().__init__()
        self.items = torch.from_numpy(items)

    def sample(self, n):
        return self.items[torch.randint(len(self.items), (n,))]


@pytest.fixture
def store(project) -> Store:
    return Store(paths.noisy("digits"))


# ---- the distance


def test_the_distance_is_what_the_root_of_the_matrix_says():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((300, 6)) @ rng.standard_normal((6, 6)), rng.gamma(2.0, size=(200, 6)) + 1
    covariances = [np.cov(x, rowvar=False) for x in (a, b)]
    root = linalg.sqrtm(covariances[0] @ covariances[1])
    expected = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(covariances[0] + covariances[1] - 2 * root).real
    assert samples.frechet(a, b) == pytest.approx(expected, rel=1e-9)
    assert samples.frechet(a, b) == pytest.approx(samples.frechet(b, a), rel=1e-12)
    assert samples.frechet(a, a[::-1]) == pytest.approx(0, abs=1e-9)


def test_along_one_axis_it_is_the_difference_of_means_and_of_deviations_squared():
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((50, 1)), 3 * rng.standard_normal((40, 1)) + 5
    expected = (a.mean() - b.mean()) ** 2 + (a.std(ddof=1) - b.std(ddof=1)) ** 2
    assert samples.frechet(a, b) == pytest.approx(expected, rel=1e-12)
    dead = np.zeros((50, 3)), np.zeros((40, 3))  # features that never fire change nothing
    assert samples.frechet(np.hstack([a, dead[0]]), np.hstack([b, dead[1]])) == pytest.approx(expected, rel=1e-12)


# ---- coverage, sharpness


def test_coverage_counts_the_balls_that_hold_a_sample():
    rng = np.random.default_rng(2)
    real, drawn = rng.standard_normal((60, 3)), rng.standard_normal((25, 3)) + 0.5
    apart = np.linalg.norm(real[:, None] - real, axis=2)
    radii = np.sort(apart, 1)[:, 5]  # the first is the item itself
    expected = (np.linalg.norm(real[:, None] - drawn, axis=2).min(1) <= radii).mean()
    assert 0 < expected < 1 and samples.coverage(real, drawn) == expected
    assert samples.coverage(real, real) == 1


def test_coverage_is_what_its_authors_expect_of_one_distribution_and_half_where_half_is_missing():
    rng = np.random.default_rng(3)
    real, drawn = rng.standard_normal((2, 1500, 4))
    assert samples.coverage(real, drawn) == pytest.approx(1 - 2**-5, abs=0.02)
    real[::2] += 100
    assert samples.coverage(real, drawn) == pytest.approx(0.5, abs=0.02)


def test_sharpness_is_the_variance_of_the_laplacian_and_blur_lowers_it():
    items = np.random.default_rng(4).random((5, 2, 9, 7), np.float32)
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]], dtype=torch.float64).expand(2, 1, 3, 3)
    padded = F.pad(torch.from_numpy(items).double(), (1, 1, 1, 1), mode="replicate")
    expected = F.conv2d(padded, kernel, groups=2).flatten(1).var(1, correction=0).mean()
    assert samples.sharpness(items) == pytest.approx(float(expected), rel=1e-5)
    assert samples.sharpness(ndimage.gaussian_filter(items, (0, 0, 1, 1))) < samples.sharpness(items) / 4
    assert samples.sharpness(np.full_like(items, 0.3)) == pytest.approx(0, abs=1e-12)


# ---- a data set's own classifier


def test_the_classifier_is_trained_once_and_its_accuracy_is_that_of_its_labels(store):
    test, y = store.split("test")
    seen = samples.look(test, store)
    assert seen.features.shape == (TEST, 64) and seen.features.dtype == np.float64
    assert samples.accuracy(store) == pytest.approx((seen.labels == y).mean())
    (weights,) = paths.jobs().glob("*/weights.safetensors")
    before = weights.stat().st_mtime_ns
    again = samples.look(test, store)
    assert weights.stat().st_mtime_ns == before and np.array_equal(again.features, seen.features)
    net = samples.classifier(store)
    with torch.no_grad():  # what the last layer makes of the features are the classifier's own answers
        logits = net.head(torch.from_numpy(seen.features).float())
    assert np.array_equal(logits.argmax(1).numpy(), seen.labels)


def test_items_that_are_no_images_are_refused_in_one_line(store):
    store.shape = (9, 128)
    with pytest.raises(AtelierError, match="judged as images") as refused:
        samples.classifier(store)
    assert "\n" not in str(refused.value)


# ---- models


def test_real_items_are_near_and_cover_all_and_one_class_does_not(store, monkeypatch):
    monkeypatch.setattr(samples, "COUNT", 600)
    test, y = store.split("test")
    real = samples.judge(Replays(test), store, seed=0)
    assert real["test.frechet"] < 0.05 * samples.floors(store)["noise"]["test.frechet"]
    assert real["test.coverage"] == 1 and real["test.classes"] == len(np.unique(samples.look(test, store).labels))
    assert real == samples.judge(Replays(test), store, seed=0) != samples.judge(Replays(test), store, seed=1)
    labels = samples.look(test, store).labels
    one = samples.judge(Replays(test[labels == labels[0]]), store, seed=0)
    assert one["test.least_class"] == 0 and one["test.classes"] == 1
    assert one["test.frechet"] > 5 * real["test.frechet"] and one["test.coverage"] < 0.8


def test_floors_are_real_items_noise_and_the_least_share_that_counts(store):
    found = samples.floors(store)
    assert found["covered"] == {"test.least_class": 0.04}
    assert found["train-items"]["test.frechet"] < found["noise"]["test.frechet"]
    assert found["test-items"]["test.sharpness"] == samples.sharpness(store.split("test")[0])
    assert found["test-items"].keys() == {"test.least_class", "test.classes", "test.sharpness"}


def test_samples_follow_from_the_seed_whatever_the_blocks_and_keep_the_mode_of_eval(monkeypatch):
    class Counts(nn.Module):
        def sample(self, n):
            assert not self.training
            return torch.rand(n, *SHAPE)

    monkeypatch.setattr(samples, "BLOCK", 7)
    drawn = samples.draw(Counts().train(), 3, count=20)
    assert drawn.shape == (20, *SHAPE) and np.array_equal(drawn, samples.draw(Counts(), 3, count=20))
    assert samples.shares(np.array([0, 2, 2]), CLASSES).tolist() == [1 / 3, 0, 2 / 3, 0]
