"""Augmentation: whole batches against one image at a time, and the laws of what is drawn."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, ndimage, stats

from atelier.augment import augment, draw, rectangles

LAYOUTS = {
    "contiguous": lambda x: x,
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "a part": lambda x: torch.cat([x, x], dim=-1)[..., ::2] if x.shape[-1] > 1 else torch.cat([x, x])[: len(x)],
    "turned": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
}


@st.composite
def cases(draw_one):
    """Images of random bytes in some memory layout, and what to do with them."""
    n, channels, rows, columns = (draw_one(st.integers(low, high)) for low, high in ((0, 6), (1, 3), (1, 9), (1, 9)))
    x = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (n, channels, rows, columns), dtype=np.uint8))
    x = LAYOUTS[draw_one(st.sampled_from(sorted(LAYOUTS)))](x)
    shift = draw_one(st.integers(0, min(rows, columns) - 1))
    erase = draw_one(st.sampled_from([0.0, 0.5, 1.0]))
    return x, {"flip": draw_one(st.booleans()), "shift": shift, "erase": erase}


def one_by_one(x, draws):
    """What the draws mean, an image at a time in NumPy."""
    out = x.copy()
    for item, (down, right) in enumerate(draws.shifts):
        image = x[item, :, :, ::-1] if item in draws.flipped else x[item]
        image = np.roll(image, (down, right), axis=(1, 2))
        image[:, : max(down, 0)] = 0
        image[:, image.shape[1] + min(down, 0) :] = 0
        image[:, :, : max(right, 0)] = 0
        image[:, :, image.shape[2] + min(right, 0) :] = 0
        out[item] = image
    fill = draws.fill if x.dtype == np.uint8 else draws.fill / np.float32(255)
    for place, (item, box) in enumerate(zip(draws.erased, draws.rectangles, strict=True)):
        top, bottom, left, right = box
        assert 0 <= top < bottom <= x.shape[2]
        assert 0 <= left < right <= x.shape[3]
        out[item, :, top:bottom, left:right] = fill[place, :, top:bottom, left:right]
    return out


@settings(derandomize=True, deadline=None, max_examples=300)
@given(cases(), st.integers(0, 2**31), st.booleans())
def test_a_batch_equals_its_images_one_by_one(case, seed, as_float):
    x, what = case
    x = x / 255 if as_float else x
    before = x.numpy().copy()
    found = augment(x, np.random.default_rng(seed), **what)
    expected = one_by_one(before, draw(x.shape, np.random.default_rng(seed), **what))
    assert found.dtype == x.dtype
    np.testing.assert_array_equal(found.numpy(), expected)
    found.zero_()
    np.testing.assert_array_equal(x.numpy(), before)  # neither changed nor shared


@settings(derandomize=True, deadline=None)
@given(cases(), st.integers(0, 2**31))
def test_bytes_and_floats_agree_up_to_scale(case, seed):
    x, what = case
    stored = augment(x, np.random.default_rng(seed), **what)
    scaled = augment(x / 255, np.random.default_rng(seed), **what)
    assert torch.equal(stored / 255, scaled)


def test_flips_and_shifts_are_uniform_and_independent():
    n, middle, shift = 20_000, 4, 2
    x = torch.zeros(n, 1, 9, 9, dtype=torch.uint8)
    x[:, :, middle, middle], x[:, :, middle, middle + 1] = 1, 2  # the second pixel is on the left of a mirrored first
    out = augment(x, np.random.default_rng(0), flip=True, shift=shift).numpy()[:, 0]
    item, row, column = np.nonzero(out == 1)
    np.testing.assert_array_equal(item, np.arange(n))
    flipped = out[item, row, column - 1] == 2
    counts = np.zeros((2 * shift + 1, 2 * shift + 1, 2))
    np.add.at(counts, (row - middle + shift, column - middle + shift, flipped.astype(int)), 1)
    assert stats.chisquare(counts.ravel()).pvalue > 0.01
    assert abs(np.corrcoef(flipped[1:], flipped[:-1])[0, 1]) < 0.03  # neighbouring items, 4 standard errors


def test_as_many_items_are_erased_as_asked_and_the_noise_is_uniform():
    x = torch.zeros(4000, 2, 16, 16, dtype=torch.uint8)
    out = augment(x, np.random.default_rng(1), erase=0.3).numpy()
    erased = out.any(axis=(1, 2, 3))
    assert stats.binomtest(int(erased.sum()), len(x), 0.3).pvalue > 0.01
    fill = draw(x.shape, np.random.default_rng(1), erase=0.3).fill
    assert stats.chisquare(np.bincount(fill.ravel(), minlength=256)).pvalue > 0.01
    first, second = out[erased].swapaxes(0, 1)
    assert abs(np.corrcoef(first[first > 0], second[first > 0])[0, 1]) < 0.05  # each channel has noise of its own


def test_rectangles_have_the_area_shape_and_place_of_the_paper():
    count, rows, columns, longest = 100_000, 1600, 1200, np.log(1 / 0.3)
    top, bottom, left, right = rectangles(count, rows, columns, np.random.default_rng(2)).T
    height, width = bottom - top, right - left
    area, aspect = height * width / (rows * columns), np.log(height / width)
    least = 0.3 * columns / rows  # the smallest area that can be too wide; clipped, it is as large or larger
    free = area < least
    assert stats.binomtest(int(free.sum()), count, (least - 0.02) / 0.38).pvalue > 0.01
    assert stats.kstest(area[free], stats.uniform(0.02, least - 0.02).cdf).pvalue > 0.01
    assert stats.kstest(aspect[free], stats.uniform(-longest, 2 * longest).cdf).pvalue > 0.01
    assert stats.spearmanr(area[free], aspect[free]).pvalue > 0.01
    for clipped, ratio in ((width == columns, rows / columns), (height == rows, columns / rows)):
        share, _ = integrate.quad(lambda a, r=ratio: max(0, np.log(a * r) + longest) / (2 * longest), 0.02, 0.4)
        assert stats.binomtest(int(clipped.sum()), count, share / 0.38).pvalue > 0.01
    down, across = (top + 0.5) / (rows - height + 1), (left + 0.5) / (columns - width + 1)
    for place in (down, across):
        assert stats.kstest(place[free], "uniform").pvalue > 0.01
    assert stats.spearmanr(down[free], across[free]).pvalue > 0.01


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (3, 2)])
def test_rectangles_fit_the_smallest_images(shape):
    top, bottom, left, right = rectangles(2000, *shape, np.random.default_rng(3)).T
    for first, end, side in ((top, bottom, shape[0]), (left, right, shape[1])):
        assert np.all((first >= 0) & (first < end) & (end <= side))


def test_the_result_depends_on_the_generator_and_the_images_alone(one_thread):
    x = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (64, 3, 12, 10), dtype=np.uint8))
    what = {"flip": True, "shift": 3, "erase": 0.5}
    once = augment(x, np.random.default_rng(4), **what)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    torch.set_num_threads(2)
    assert torch.equal(once, augment(x, np.random.default_rng(4), **what))
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(once, augment(x, np.random.default_rng(5), **what))


@settings(derandomize=True, deadline=None, max_examples=30)
@given(side=st.integers(2, 9), channels=st.integers(1, 3), seed=st.integers(0, 2**31), warp=st.floats(0.01, 0.4))
def test_a_warp_interpolates_where_its_matrix_sends_each_pixel(side, channels, seed, warp):
    """SciPy on one channel at a time; it counts rows first, and from the corner."""
    x = torch.from_numpy(np.random.default_rng(2).random((3, channels, side, side), np.float32))
    found = augment(x, np.random.default_rng(seed), warp=warp).numpy()
    matrices = draw(x.shape, np.random.default_rng(seed), warp=warp).warps
    assert np.abs(matrices - np.eye(2)).max() <= warp + 1e-6
    for item, matrix in enumerate(matrices):
        turned, middle = matrix[::-1, ::-1].astype(np.float64), (side - 1) / 2
        offset = middle - turned @ [middle, middle]
        for channel in range(channels):
            padded = np.pad(x[item, channel].numpy(), 1)  # so that zeros come in, half a pixel beyond the edge
            there = ndimage.affine_transform(
                padded, turned, offset + 1 - turned @ [1, 1], order=1, mode="constant", output_shape=(side + 2,) * 2
            )
            np.testing.assert_allclose(found[item, channel], there[1:-1, 1:-1], atol=1e-5)


def test_nothing_asked_is_a_copy_and_draws_nothing():
    x, rng = torch.rand(5, 1, 4, 4), np.random.default_rng(6)
    found = augment(x, rng)
    assert torch.equal(found, x)
    assert found.data_ptr() != x.data_ptr()
    assert rng.bit_generator.state == np.random.default_rng(6).bit_generator.state


@pytest.mark.parametrize(
    "x, what, message",
    [
        (torch.zeros(4, 9), {}, r"shape is \(4, 9\); give images as \(n, channels, rows, columns\)"),
        (torch.zeros(2, 3, 4, 5, 6), {"flip": True}, r"shape is \(2, 3, 4, 5, 6\); give images"),
        (torch.zeros(2, 1, 8, 4), {"shift": 4}, r"shift is 4; give 0 to 3 for 8 x 4 pixels"),
        (torch.zeros(2, 1, 4, 4), {"shift": -1}, r"shift is -1; give 0 to 3"),
        (torch.zeros(2, 1, 4, 4), {"erase": 1.5}, r"erase is 1.5; give a probability"),
        (torch.zeros(2, 1, 4, 4), {"warp": 0.5}, r"warp is 0.5; give 0 to less than 0.5"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), {"warp": 0.1}, r"images are torch.uint8; warp interpolates"),
        (torch.zeros(2, 1, 4, 4), {"erase": float("nan")}, r"erase is nan; give a probability"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.int64), {"erase": 1.0}, r"images are torch.int64; give torch.uint8"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(x, what, message):
    with pytest.raises(ValueError, match=message) as caught:
        augment(x, np.random.default_rng(0), **what)
    assert "\n" not in str(caught.value)
