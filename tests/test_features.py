"""Features by hand and learned: Sobel and histograms, edges among kernels, permuted pixels, linear autoencoders."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from sklearn.decomposition import PCA

from atelier import edges, experiments, paths
from atelier.data.items import Items
from atelier.data.store import Store
from atelier.errors import AtelierError
from atelier.families import cnn, mlp
from atelier.fit import fit
from atelier.optim import Optimizer
from atelier.params import Recipe

learned, linear = (experiments.load(name) for name in ("learned-features", "linear-autoencoder"))


@pytest.fixture
def store(project) -> Store:
    return Store(paths.noisy("digits"))


def images(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).random(shape)


# ---- by hand


def test_gradients_are_scipys_sobel_image_by_image():
    x = images(0, 3, 2, 7, 9)
    down, right = edges.gradients(x)
    for i, c in np.ndindex(3, 2):
        for axis, found in ((0, down), (1, right)):
            np.testing.assert_allclose(found[i, c], ndimage.sobel(x[i, c], axis, mode="nearest") / 4, atol=1e-12)
    np.testing.assert_allclose(edges.magnitudes(x), np.sqrt(down**2 + right**2))


def test_a_step_from_0_to_1_has_magnitude_1_and_a_frame_none():
    x = np.zeros((1, 1, 6, 6))
    x[..., 3:] = 1.0
    assert edges.magnitudes(x)[0, 0].tolist() == [[0, 0, 1, 1, 0, 0]] * 6
    assert not edges.magnitudes(np.ones((1, 1, 6, 6))).any()


@settings(derandomize=True, deadline=None, max_examples=20)
@given(degrees=st.floats(0, 180), rising=st.booleans())
def test_a_ramp_counts_in_the_two_bins_nearest_to_its_direction(degrees, rising):
    angle = np.radians(degrees)
    down, right = np.mgrid[:12, :12] / 12
    ramp = (np.sin(angle) * down + np.cos(angle) * right) * (1 if rising else -1)
    inner = edges.orientations(ramp[None, None])[0, :, 1, 1]  # a cell whose pixels have all their neighbours
    place = degrees / 180 * edges.BINS
    expected = np.zeros(edges.BINS)
    expected[int(place) % edges.BINS] += 1 - place % 1
    expected[(int(place) + 1) % edges.BINS] += place % 1
    np.testing.assert_allclose(inner / inner.sum(), expected, atol=1e-6)


@settings(derandomize=True, deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), contrast=st.floats(0.5, 1))
def test_histograms_follow_a_mirror_and_know_neither_contrast_nor_its_sign(seed, contrast):
    x = images(seed, 2, 1, 13, 8)
    found = edges.orientations(x)
    assert found.shape == (2, edges.BINS, 3, 2)
    np.testing.assert_allclose(edges.orientations(1 - contrast * x), found, atol=1e-4)
    mirrored = edges.orientations(x[..., ::-1])
    np.testing.assert_allclose(mirrored[:, -np.arange(edges.BINS)], found[..., ::-1], atol=1e-9)


# ---- edges among kernels


def derivative(kind: str, scale: float, degrees: float, i: int = 0, j: int = 0) -> np.ndarray:
    """7 x 7: what SciPy's Gaussian filters make of a single 1 at (i, j) from the middle; a blob has no direction."""
    point = np.zeros((31, 31))
    point[15 + i, 15 + j] = 1.0

    def by(*order: int) -> np.ndarray:
        return ndimage.gaussian_filter(point, scale, order, truncate=9)[12:19, 12:19]

    down, right = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
    if kind == "edge":
        return down * by(1, 0) + right * by(0, 1)
    if kind == "bar":
        return down**2 * by(2, 0) + 2 * down * right * by(1, 1) + right**2 * by(0, 2)
    return by(0, 0)


@pytest.mark.parametrize("kind", edges.SHAPES)
@pytest.mark.parametrize("degrees", [0, 45, 67.5, 101])
def test_derivatives_of_a_gaussian_are_told_apart(kind, degrees):
    kernels = np.stack([derivative(kind, scale, degrees) for scale in edges.SCALES])
    between = 0.5 * np.pi / edges.DIRECTIONS  # the farthest that a direction is from one in the bank
    assert (edges.fits(kernels)[kind] > np.cos(2 * between) ** 2).all()
    assert all(mask.all() == (name == kind) == mask.any() for name, mask in edges.kinds(kernels).items())


def test_fits_are_the_best_correlations_with_scipys_derivatives():
    kernels = np.random.default_rng(0).standard_normal((4, 7, 7))
    for kind, found in edges.fits(kernels).items():
        best = np.zeros(4)
        for scale, i, j, turn in itertools.product(edges.SCALES, edges.CENTRES, edges.CENTRES, range(edges.DIRECTIONS)):
            other = derivative(kind, scale, 180 * turn / edges.DIRECTIONS, i, j)
            cosine = (kernels * other).sum((1, 2)) / np.linalg.norm(kernels, axis=(1, 2)) / np.linalg.norm(other)
            best = np.maximum(best, cosine**2)
        np.testing.assert_allclose(found, best, atol=1e-9)


def test_sobels_kernel_is_an_edge_and_an_even_or_empty_one_is_none():
    sobel = np.outer([-1.0, 0.0, 1.0], [1.0, 2.0, 1.0])
    assert edges.fits(np.stack([sobel, sobel.T]))["edge"] == pytest.approx(1, abs=0.01)
    masks = edges.kinds(np.stack([np.ones((7, 7)), np.zeros((7, 7))]))
    assert not masks["edge"].any() and not masks["bar"].any() and masks["blob"].tolist() == [True, False]


@settings(derandomize=True, deadline=None, max_examples=10)
@given(seed=st.integers(0, 1000), size=st.integers(3, 7), factor=st.floats(-3, -0.1))
def test_a_fit_knows_no_scale_sign_or_turn(seed, size, factor):
    kernel = np.random.default_rng(seed).standard_normal((size, size))
    for fitted in edges.fits(np.stack([kernel, factor * kernel, kernel[::-1], np.rot90(kernel)])).values():
        assert fitted == pytest.approx(fitted[0], abs=1e-9)


def test_of_new_nets_kernels_one_in_a_hundred_at_most_passes_for_an_edge():
    torch.manual_seed(0)
    weight = cnn.Model((1, 12, 12), 4, plan=("conv 4000 7",)).steps[0].weight.detach().double().numpy()[:, 0]
    for name, fitted in edges.fits(weight).items():
        assert (fitted > edges.chance(7, 7)[name]).mean() == pytest.approx(0.01, abs=0.005)
        assert 0 < edges.kinds(weight)[name].mean() < 0.015


# ---- permuted pixels


def test_the_disorder_is_one_permutation_for_all_items():
    x = np.arange(3 * 2 * 5 * 4).reshape(3, 2, 5, 4)
    found, places = learned.disordered(x).reshape(3, 2, 20), learned.order(20)
    assert sorted(places) == list(range(20)) != list(places)
    assert (found == x.reshape(3, 2, 20)[:, :, places]).all()


def train_on(x: np.ndarray, y: torch.Tensor, model: torch.nn.Module) -> torch.Tensor:
    """Answers to all items after three epochs in float64."""
    seen = Items(torch.from_numpy(x), torch.from_numpy(x), y)
    fit(model.double(), Recipe(epochs=3, batch=8), 0, seen, ("test", seen))
    with torch.no_grad():
        return model.eval().classify(seen.x)


def test_to_a_dense_net_permuted_pixels_are_other_initial_weights_and_nothing_more(one_thread):
    """First weights permuted alike, it answers the same after training; a convolutional net cannot be made to."""
    x, y = images(0, 40, 1, 6, 6), torch.arange(40) % 4

    def dense() -> mlp.Model:
        torch.manual_seed(0)
        return mlp.Model((1, 6, 6), 4, hidden=(12,))

    plain, moved = train_on(x, y, dense()), dense()
    with torch.no_grad():
        moved.layers[0].weight.copy_(moved.layers[0].weight[:, learned.order(36)])
    torch.testing.assert_close(train_on(learned.disordered(x), y, moved), plain, rtol=0, atol=1e-9)
    assert (train_on(learned.disordered(x), y, dense()) - plain).abs().max() > 1e-3


def test_items_are_as_they_were_but_for_the_features_that_are_asked_for(store):
    from atelier.data.items import items

    seen = items(store, "test", None, False)
    x = seen.x[:].numpy()
    assert torch.equal(learned.prepared(seen, "pixels", False).x, seen.x[:])
    np.testing.assert_allclose(
        learned.prepared(seen, "sobel", True).x.numpy(), edges.magnitudes(learned.disordered(x)), atol=1e-6
    )
    assert learned.prepared(seen, "orientations", False).x.shape == (40, edges.BINS, 1, 1)


def test_items_that_are_no_images_are_refused(store):
    store.shape = (9, 128)
    with pytest.raises(AtelierError, match="needs images"):
        learned.measure(0, store, net="cnn")


# ---- linear autoencoders


def test_a_linear_autoencoder_trained_long_spans_the_subspace_of_pca_by_other_directions(store, one_thread):
    found = linear.measure(0, store, width=3, epochs=600, batch="full", lr=1.0)
    assert found["test.degrees"] < 0.5 and 0 <= found["train.excess"] + 1e-6 < 1e-4
    assert found["test.cosine"] < 0.95
    angles = [point["angles"] for point in found["series"]["curve"]]
    assert angles[0][0] > 45 and found["test.mean_degrees"] == np.mean(angles[-1]) and len(angles) == linear.LOOKS + 1
    early = linear.measure(0, store, width=3, epochs=1, batch=96, lr=0.5)
    assert early["train.excess"] > 0.1 and early["test.degrees"] > 5


def test_a_triangle_stands_for_its_items_and_has_their_principal_components():
    x = torch.from_numpy(images(0, 4500, 12) @ np.diag(np.arange(1.0, 13)))
    x -= x.mean(0)
    part, pca = linear.triangle(x), PCA(3, svd_solver="full").fit(x.numpy())
    assert part.shape == (12, 12)
    torch.testing.assert_close(part.T @ part, x.T @ x)
    found = linear.components(part, 3)
    assert linear.between(found, torch.from_numpy(pca.components_.T.copy()))[0] < 1e-6
    left = np.square(pca.inverse_transform(pca.transform(x.numpy())) - x.numpy()).sum()
    assert linear.error(part, found @ found.T) == pytest.approx(left)


def test_full_batches_of_a_triangle_are_full_batches_of_its_items(one_thread):
    """The same loss and gradient of every weight."""
    x = torch.from_numpy(images(0, 500, 10)) - 0.5
    part = linear.triangle(x) * (10 / 500) ** 0.5
    torch.manual_seed(0)
    net = linear.Net(10, 3, Optimizer()).double()
    gradients = []
    for seen in (x, part):
        net.zero_grad()
        (out,) = net.losses(seen, seen)
        out["loss"].backward()
        gradients.append([out["loss"].detach(), net.encode.weight.grad, net.decode.weight.grad])
    torch.testing.assert_close(*gradients)


def test_the_matrix_and_the_columns_are_those_of_the_net():
    torch.manual_seed(0)
    net, x = linear.Net(10, 3, Optimizer()), torch.eye(10)
    torch.testing.assert_close(net.reconstruct(x).double(), linear.product(net), rtol=0, atol=1e-6)
    spans = linear.between(linear.columns(net), net.decode.weight.detach().double())
    assert spans[0] < 1e-4 and linear.columns(net).norm(dim=0) == pytest.approx(1)


def test_a_code_as_wide_as_an_item_is_refused(store):
    with pytest.raises(AtelierError, match="width is 36"):
        linear.measure(0, store, width=36)
