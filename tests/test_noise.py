"""Noise: numbers that depend on key and item alone, checked against Philox written out and SciPy's distributions."""

import hashlib
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from atelier import noise, params
from atelier.errors import AtelierError

LEVELS = {"gaussian": 0.2, "masking": 0.25, "salt-and-pepper": 0.1}
keys = st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=5).map(tuple)


def pixels(n: int, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((n, *shape), dtype=np.float32)


def philox_4x64_10(counter: int, key: int) -> list[int]:
    """One block of four words, from the equations of Salmon et al. (2011)."""
    mask = 2**64 - 1
    c = [counter >> 64 * i & mask for i in range(4)]
    k = [key & mask, key >> 64]
    for _ in range(10):
        low, high = 0xD2E7470EE14C6C93 * c[0], 0xCA5A826395121157 * c[2]
        c = [high >> 64 ^ c[1] ^ k[0], high & mask, low >> 64 ^ c[3] ^ k[1], low & mask]
        k = [k[0] + 0x9E3779B97F4A7C15 & mask, k[1] + 0xBB67AE8584CAA73B & mask]
    return c


def test_numbers_are_philox_at_the_items_own_counter():
    key, item, size = (7, 1, 0, 3), 5, 20
    philox_key = int.from_bytes(hashlib.sha256(b"7,1,0,3").digest()[:16], "little")
    blocks = [philox_4x64_10(2 * item + block + 1, philox_key) for block in range(2)]  # 20 numbers need 2 counters
    bits = [word >> shift & 0xFFFF for block in blocks for word in block for shift in (0, 16, 32, 48)]
    expected = (np.array(bits[:size]) + 0.5) / 65536
    found = noise.uniform(key, item, 1, size)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found[0], expected)


@settings(derandomize=True, deadline=None)
@given(keys, st.integers(0, 10**6), st.integers(0, 12), st.integers(1, 70), st.data())
def test_any_range_of_items_equals_those_rows_of_the_whole(key, first, count, size, data):
    start = data.draw(st.integers(0, count))
    stop = data.draw(st.integers(start, count))
    whole = noise.uniform(key, first, count, size)
    assert whole.shape == (count, size)
    assert np.all((whole > 0) & (whole < 1))
    np.testing.assert_array_equal(noise.uniform(key, first + start, stop - start, size), whole[start:stop])


@pytest.mark.parametrize("kind", noise.KINDS)
def test_corrupting_in_pieces_equals_corrupting_at_once(kind):
    x = pixels(900, (1, 28, 28))  # more than one chunk
    whole = noise.corrupt(x, kind, LEVELS[kind], key=(1, 2))
    pieces = [noise.corrupt(x[a:b], kind, LEVELS[kind], key=(1, 2), first=a) for a, b in ((0, 1), (1, 700), (700, 900))]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)


@settings(derandomize=True, deadline=None, max_examples=30)
@given(st.sampled_from(noise.KINDS), keys, st.sampled_from([(1, 8, 8), (3,), (9, 128)]), st.integers(0, 9))
def test_corrupted_items_keep_shape_and_range_and_leave_the_input(kind, key, shape, n):
    x = pixels(n, shape)
    before = x.copy()
    noisy = noise.corrupt(x, kind, LEVELS[kind], key=key)
    np.testing.assert_array_equal(x, before)
    assert (noisy.shape, noisy.dtype) == (x.shape, np.float32)
    assert np.all((noisy >= 0) & (noisy <= 1))


@pytest.mark.parametrize("kind", noise.KINDS)
@pytest.mark.parametrize("level", [0.1, 0.5, 0.9])
def test_corruptions_follow_their_definitions(kind, level):
    x = pixels(50, (1, 8, 8))
    u = noise.uniform((3,), 0, 50, 64).reshape(x.shape)
    expected = {
        "gaussian": np.clip(x + level * stats.norm.ppf(u), 0, 1),
        "masking": np.where(u < level, 0, x),
        "salt-and-pepper": np.where(u < level / 2, 0, np.where(u > 1 - level / 2, 1, x)),
    }[kind]
    noisy = noise.corrupt(x, kind, level, key=(3,))
    np.testing.assert_allclose(noisy, expected, rtol=0, atol=3e-7 if kind == "gaussian" else 0)


def test_uniform_numbers_are_uniform_and_independent():
    u = noise.uniform((11,), 0, 2000, 100)
    assert stats.kstest(u.ravel(), "uniform").pvalue > 0.01
    assert abs(np.corrcoef(u[:-1].ravel(), u[1:].ravel())[0, 1]) < 0.01  # neighbouring items
    assert abs(np.corrcoef(u[:, :-1].ravel(), u[:, 1:].ravel())[0, 1]) < 0.01  # neighbouring pixels


def test_gaussian_noise_is_normal():
    half = np.full((4000, 50), 0.5, np.float32)
    z = (noise.corrupt(half, "gaussian", 0.05, key=(5,)).astype(float) - 0.5) / 0.05
    assert stats.kstest(z.ravel(), "norm").pvalue > 0.01
    assert abs(z.mean()) < 0.01
    assert z.std() == pytest.approx(1, abs=0.01)
    assert stats.kurtosis(z.ravel()) == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize("pixel", [0.0, 0.3, 1.0])
def test_gaussian_error_is_the_integral_of_the_clipped_normal(pixel):
    x = np.full((2000, 100), pixel, np.float32)
    expected, _ = integrate.quad(
        lambda z: abs(np.clip(pixel + 0.2 * z, 0, 1) - pixel) * stats.norm.pdf(z), -8, 8, points=[-pixel / 0.2, 0]
    )
    measured = np.abs(noise.corrupt(x, "gaussian", 0.2, key=(1,)) - x).mean()
    assert measured == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("kind", ["masking", "salt-and-pepper"])
def test_shares_are_met_and_levels_are_nested(kind):
    x = np.full((1000, 100), 0.5, np.float32)
    hit = {level: noise.corrupt(x, kind, level, key=(2,)) != 0.5 for level in (0.1, 0.3)}
    for level, pixels_hit in hit.items():
        assert stats.binomtest(int(pixels_hit.sum()), x.size, level).pvalue > 0.01
    assert np.all(hit[0.3][hit[0.1]])


def test_salt_is_as_frequent_as_pepper():
    noisy = noise.corrupt(np.full((1000, 100), 0.5, np.float32), "salt-and-pepper", 0.4, key=(8,))
    salt, pepper = int((noisy == 1).sum()), int((noisy == 0).sum())
    assert stats.binomtest(salt, salt + pepper, 0.5).pvalue > 0.01


def test_every_seed_use_kind_and_epoch_has_a_field_of_its_own():
    combinations = [
        noise.field(seed, use, kind, epoch)
        for seed in (0, 1, 2)
        for use in (noise.TRAIN, noise.TEST, noise.FRESH)
        for kind in noise.KINDS
        for epoch in (0, 1, 2)
    ]
    fields = np.array([noise.uniform(key, 0, 1, 400)[0] for key in combinations])
    correlation = np.corrcoef(fields) - np.eye(len(fields))
    assert np.abs(correlation).max() < 0.3  # 6 standard errors


def test_fresh_noise_depends_on_seed_epoch_and_item():
    x = np.full((40, 1, 8, 8), 0.5, np.float32)
    drawn = noise.draw(x, "gaussian", 0.1, seed=3, epoch=2)
    np.testing.assert_array_equal(drawn, noise.draw(x, "gaussian", 0.1, seed=3, epoch=2))
    np.testing.assert_array_equal(drawn[25:], noise.draw(x[25:], "gaussian", 0.1, seed=3, epoch=2, first=25))
    for other in ({"seed": 4, "epoch": 2}, {"seed": 3, "epoch": 3}):
        assert np.mean(drawn == noise.draw(x, "gaussian", 0.1, **other)) < 0.01
    assert len(np.unique(drawn.reshape(40, -1), axis=0)) == 40


def test_the_kinds_are_those_that_params_know():
    assert get_args(params.Kind) == noise.KINDS


@pytest.mark.parametrize("call", [noise.corrupt, noise.draw])
def test_an_unknown_kind_is_named_with_the_nearest(call):
    arguments = {"key": (1,)} if call is noise.corrupt else {"seed": 0, "epoch": 0}
    with pytest.raises(AtelierError, match="gausian is no kind of noise; did you mean gaussian"):
        call(pixels(1, (4,)), "gausian", 0.1, **arguments)
