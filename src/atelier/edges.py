"""Edges: features of items made by hand from their gradients, and whether a kernel is an edge, a bar or a blob."""

import functools
import itertools

import numpy as np
from scipy import ndimage

Array = np.ndarray
CELL, BINS = 4, 9  # pixels along a side, and directions within half a turn
CENTRES, SCALES, DIRECTIONS = (-1, 0, 1), (1.0, 1.5, 2.0), 16  # of what kernels are compared with; lengths in pixels
SHAPES = {"edge": lambda u: u, "bar": lambda u: u**2 - 1, "blob": np.ones_like}  # what a bell is multiplied by along u
DRAWS = 10_000


def gradients(x: Array) -> tuple[Array, Array]:
    """Down the rows and along them, by Sobel's kernels: (..., rows, columns) -> twice the same shape.

    A step from 0 to 1 gives 1. The outermost pixels go on beyond the frame, so the frame itself is no edge.
    """

    def along(axis: int, across: int) -> Array:
        difference = ndimage.correlate1d(x, np.array([-1.0, 0.0, 1.0]), axis, mode="nearest")
        return ndimage.correlate1d(difference, np.array([0.25, 0.5, 0.25]), across, mode="nearest")

    return along(-2, -1), along(-1, -2)


def magnitudes(x: Array) -> Array:
    """Lengths of the gradients, the edge map of every item: (n, channels, rows, columns) -> the same shape."""
    return np.hypot(*gradients(x))


def orientations(x: Array) -> Array:
    """Histograms of the gradients' directions, after Dalal and Triggs (2005): (n, channels, rows, columns) -> (n,
    channels * BINS, rows // CELL, columns // CELL).

    In cells of CELL x CELL pixels, a gradient counts by its length, shared between the two nearest of BINS directions;
    opposite ones are one. Where theirs are normalised by overlapping blocks of four cells, which gives each cell four
    times, a cell here is divided by the norm of the three by three cells around it.
    """
    down, right = gradients(x)
    length, place = np.hypot(down, right), np.arctan2(down, right) / np.pi * BINS  # place: one unit a bin
    cells = np.concatenate([_pooled(length * _nearness(place - b)) for b in range(BINS)], axis=1)
    energy = np.square(cells).sum(axis=1, keepdims=True)
    for axis in (-2, -1):
        energy = ndimage.correlate1d(energy, np.ones(3), axis, mode="constant")
    return cells / np.sqrt(energy + 1e-6)


def _nearness(distance: Array) -> Array:
    """1 at a bin's middle, falling to 0 at that of the next; the bins go round."""
    return np.maximum(0.0, 1.0 - np.abs((distance + BINS / 2) % BINS - BINS / 2))


def _pooled(x: Array) -> Array:
    """Sums over cells; pixels that fill no cell are left out."""
    *before, rows, columns = x.shape
    rows, columns = rows // CELL, columns // CELL
    whole = x[..., : rows * CELL, : columns * CELL]
    return whole.reshape(*before, rows, CELL, columns, CELL).sum(axis=(-3, -1))


def fits(kernels: Array) -> dict[str, Array]:
    """How much of an edge, a bar and a blob each kernel (n, rows, columns) is: the share, from 0 to 1, of its squared
    norm that the best one explains, (n,).

    They are derivatives of a Gaussian bell along some direction: the first, what Canny's detector (1986) looks for; the
    second; and the bell. The best is taken of DIRECTIONS directions, standard deviations of 1, 1.5 and 2 pixels, and
    centres up to a pixel from the kernel's. The measure is ours.
    """
    flat = kernels.reshape(len(kernels), -1)
    flat = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), np.finfo(float).tiny)
    return {name: np.square(flat @ _bank(name, *kernels.shape[1:])).max(axis=1) for name in SHAPES}


def kinds(kernels: Array) -> dict[str, Array]:
    """Which kernels (n, rows, columns) are an edge, a bar, a blob: masks (n,), and most are none of them.

    One is what fits it best, and better than the best of its kind fits 99 % of random kernels: a bar has an edge on
    either side, so it fits an edge too, and a smooth blob does.
    """
    found, bounds = fits(kernels), chance(*kernels.shape[1:])
    best = np.max(list(found.values()), axis=0)
    return {name: (fitted == best) & (fitted > bounds[name]) for name, fitted in found.items()}


@functools.cache
def chance(rows: int, columns: int, share: float = 0.01) -> dict[str, float]:
    """The fits that only this share of kernels exceed whose weights are independent normal draws: a new net's are."""
    rng = np.random.RandomState(0)  # the one generator whose stream NumPy keeps for good
    found = fits(rng.standard_normal((DRAWS, rows, columns)))
    return {name: float(np.quantile(fitted, 1 - share)) for name, fitted in found.items()}


@functools.cache
def _bank(name: str, rows: int, columns: int) -> Array:
    """Every edge, bar or blob, each of norm 1: (rows * columns, count)."""
    down, right = np.mgrid[:rows, :columns]
    angles = np.arange(DIRECTIONS if name != "blob" else 1) * np.pi / DIRECTIONS
    found = []
    for scale, i, j, angle in itertools.product(SCALES, CENTRES, CENTRES, angles):
        y, x = (down - (rows - 1) / 2 - i) / scale, (right - (columns - 1) / 2 - j) / scale
        found.append((SHAPES[name](np.sin(angle) * y + np.cos(angle) * x) * np.exp(-(y**2 + x**2) / 2)).ravel())
    return (np.array(found) / np.linalg.norm(found, axis=1, keepdims=True)).T
