"""Random augmentation of a whole batch of images at once: flips, shifts and random erasing (Zhong et al. 2020).

What is drawn stands apart from what is done with it. The draws are NumPy's: torch's numbers differ between instruction
sets. Applying them only copies pixels, so that the result depends on the generator and the images alone; but for warps,
which interpolate between pixels. 128 images of 28 x 28 (uint8, one thread): 0.1 ms for flips and shifts, 0.3 ms more
where half of them are erased; bytes are up to twice as fast as float32, so augment first and divide by 255 then.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from atelier.data.store import SCALE

AREA = (0.02, 0.4)  # of an erased rectangle, as a share of the image: Zhong et al., section 4
ASPECT = 0.3  # its height / width is between this and 1 / this


@dataclass(frozen=True)
class Draws:
    """What becomes of n images; int64 but for the fill.

    flipped: the items that are mirrored, (f,); shifts: pixels down and pixels to the right, (n, 2);
    erased: the items that lose a rectangle, (e,); rectangles: its top, bottom, left, right as slices have them, (e, 4);
    fill: noise, of which the rectangle is used, uint8 (e, channels, rows, columns); warps: from where each pixel is
    taken, in coordinates of -1 to 1 about the middle of the image, float32 (n, 2, 2) or (0, 2, 2).
    """

    flipped: np.ndarray
    shifts: np.ndarray
    erased: np.ndarray
    rectangles: np.ndarray
    fill: np.ndarray
    warps: np.ndarray


def augment(
    x: Tensor, rng: np.random.Generator, *, flip: bool = False, shift: int = 0, erase: float = 0.0, warp: float = 0.0
) -> Tensor:
    """Augmented images; x (n, channels, rows, columns) is uint8 (0 to 255) or float32 (0 to 1) and stays as it is.

    flip: mirror each item left to right with probability 1/2; shift: move it by whole pixels, -shift to shift down and
    across, all as likely, zeros come in; erase: the probability that a rectangle of it becomes noise, uniform over the
    values of stored pixels (0, 1, ... 255, or these / 255); warp: turn, stretch and slant each item about its middle by
    a matrix I + A, entries of A uniform from -warp to warp, as 0.1 is a turn of 6 degrees or a tenth in length; pixels
    are interpolated, so it takes float32. The channels of an item share its geometry.

    Raises ValueError for what is no such batch, and for a shift that may move an item out of sight.
    """
    return apply(x, draw(x.shape, rng, flip=flip, shift=shift, erase=erase, warp=warp))


def draw(
    shape: Sequence[int],
    rng: np.random.Generator,
    *,
    flip: bool = False,
    shift: int = 0,
    erase: float = 0.0,
    warp: float = 0.0,
) -> Draws:
    """What `augment` does to a batch of this shape. Drawn in this order; what is off draws nothing."""
    if len(shape) != 4:
        raise ValueError(f"augment: the shape is {tuple(shape)}; give images as (n, channels, rows, columns)")
    n, channels, rows, columns = shape
    if not 0 <= shift < min(rows, columns):
        raise ValueError(f"augment: shift is {shift}; give 0 to {min(rows, columns) - 1} for {rows} x {columns} pixels")
    if not 0 <= warp < 0.5:
        raise ValueError(f"augment: warp is {warp}; give 0 to less than 0.5, beyond which an item may turn over")
    if not 0 <= erase <= 1:
        raise ValueError(f"augment: erase is {erase}; give a probability, 0 to 1")
    flipped = np.flatnonzero(rng.random(n) < 0.5) if flip else np.zeros(0, np.int64)
    shifts = rng.integers(-shift, shift, (n, 2), endpoint=True) if shift else np.zeros((n, 2), np.int64)
    erased = np.flatnonzero(rng.random(n) < erase) if erase else np.zeros(0, np.int64)
    boxes = rectangles(len(erased), rows, columns, rng)
    fill = rng.integers(0, SCALE, (len(erased), channels, rows, columns), np.uint8, endpoint=True)
    warps = np.eye(2) + rng.uniform(-warp, warp, (n, 2, 2)) if warp else np.zeros((0, 2, 2))
    return Draws(flipped, shifts, erased, boxes, fill, warps.astype(np.float32))


def rectangles(count: int, rows: int, columns: int, rng: np.random.Generator) -> np.ndarray:
    """Top, bottom, left, right of `count` rectangles within an image, int64 (count, 4).

    The area is uniform in AREA, the logarithm of height / width uniform within ASPECT; both hold before the sides are
    rounded to pixels, 1 at least, and clipped to the image's (the paper draws again instead). Every place is as likely.
    """
    if not count:
        return np.zeros((0, 4), np.int64)
    area = rng.uniform(*AREA, count) * (rows * columns)
    aspect = ASPECT ** rng.uniform(-1, 1, count)
    height = np.clip(np.rint(np.sqrt(area * aspect)), 1, rows).astype(np.int64)
    width = np.clip(np.rint(np.sqrt(area / aspect)), 1, columns).astype(np.int64)
    top = rng.integers(rows - height, endpoint=True)
    left = rng.integers(columns - width, endpoint=True)
    return np.stack([top, top + height, left, left + width], axis=1)


def apply(x: Tensor, draws: Draws) -> Tensor:
    """The images x after these draws: mirrored, warped, shifted, then erased; a new tensor on the device of x."""
    if x.dtype not in (torch.uint8, torch.float32):
        raise ValueError(f"augment: the images are {x.dtype}; give torch.uint8 (0 to 255) or torch.float32 (0 to 1)")
    out = x.clone()
    if len(draws.flipped):
        items = torch.from_numpy(draws.flipped).to(x.device)
        out.index_copy_(0, items, out.index_select(0, items).flip(-1))
    if len(draws.warps):
        out = _warped(out, draws.warps)
    if draws.shifts.any():
        out = _shifted(out, draws.shifts)
    if len(draws.erased):
        items, fill = (torch.from_numpy(array).to(x.device) for array in (draws.erased, draws.fill))
        fill = fill / SCALE if x.is_floating_point() else fill
        out.index_copy_(0, items, torch.where(_inside(draws.rectangles, x), fill, out.index_select(0, items)))
    return out


def _warped(x: Tensor, warps: np.ndarray) -> Tensor:
    """Each pixel is taken from where its matrix sends it, between the four pixels there; zeros come in."""
    if not x.is_floating_point():
        raise ValueError(f"augment: the images are {x.dtype}; warp interpolates, give torch.float32 (0 to 1)")
    sent = F.pad(torch.from_numpy(warps).to(x.device), (0, 1))  # and no shift
    return F.grid_sample(x, F.affine_grid(sent, x.shape, align_corners=False), align_corners=False)


def _shifted(x: Tensor, shifts: np.ndarray) -> Tensor:
    """Lay the padded images end to end: each row of the result is a run of numbers in there.

    Runs are copied whole, which is 2 to 8 times faster than a gather by pixel.
    """
    n, channels, rows, columns = x.shape
    margin = int(np.abs(shifts).max())
    height, width = rows + 2 * margin, columns + 2 * margin
    down, right = margin - shifts[:, :, None, None].swapaxes(0, 1)
    image = np.arange(n * channels).reshape(n, channels, 1) * height
    starts = (image + down + np.arange(rows)) * width + right
    runs = F.pad(x, [margin] * 4).flatten().unfold(0, columns, 1)
    return runs.index_select(0, torch.from_numpy(starts.ravel()).to(x.device)).view(n, channels, rows, columns)


def _inside(boxes: np.ndarray, x: Tensor) -> Tensor:
    """Which pixels lie in the rectangles: bool (e, 1, rows, columns)."""
    top, bottom, left, right = torch.from_numpy(boxes).to(x.device).T[..., None]
    row, column = (torch.arange(side, device=x.device) for side in x.shape[2:])
    down, across = (row >= top) & (row < bottom), (column >= left) & (column < right)
    lines = torch.cat(
        [across, across.new_zeros(1, len(column))]
    )  # copied by row, as above; the last is for rows outside
    line = torch.where(down, torch.arange(len(boxes), device=x.device)[:, None], len(boxes))
    return lines.index_select(0, line.flatten()).view(len(boxes), 1, *x.shape[2:])
