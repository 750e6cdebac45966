"""What a variational autoencoder knows of test items, and what its space of codes looks like."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from atelier.assess import Assessment, Row
from atelier.data.store import Store
from atelier.report.drawing import Plans, grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Generator, Tensor, nn

    from atelier.latent import Standard

DRAWS, AT_ONCE, ITEMS = 200, 40, 50  # of the bound: draws for each item; draws and items that are held at once
ACTIVE = 0.01  # a unit is active if its locations vary by more (Burda et al. 2016, 5.2)
PAIRS, KNOWN, SHOWN = 500, 10_000, 1_000  # midways and draws looked at; training items they are near to; codes drawn
STEPS, LINES = 10, 5  # of an interpolation, and the grid of codes
EDGE = 0.02  # share of the prior beyond the grid's border, on each side


def assess(model: "nn.Module", store: Store, seed: int, hold_out: bool) -> Assessment:
    """nll: minus the importance-weighted bound of Burda et al. 2016 with k = 200 draws of the posterior for each of all
    test items, in nats: at least the negative log-likelihood of pixels binarised once, from a fixed seed. nll_grey: the
    same of a Gaussian decoder, whose grey pixels have a density, which is another scale. nelbo = kl + distortion: the
    same with k = 1, of training items too. active: latent units whose location varies over test items by more than 0.01
    (variance). midway: the pixel distance (root mean square) from what is decoded half way between the codes of two
    test items to the nearest of 10,000 training items, mean over 500 pairs; drawn: the same of codes drawn from the
    prior; beside them items, the test items themselves, and mixed, the means of two items' pixels.

    Of 10,000 samples, pixels' means of draws of the prior, by a small classifier of our own: frechet, the distance of
    its features on samples from those on test items; coverage, the share of test items that have a sample among their
    nearest; least_class and classes, the rarest class's share and how many have 4 % at least; sharpness, the mean
    variance of the Laplacian.

    With two latent units, of the posteriors of 1,000 test items: radius: their standard deviation, mean over items and
    units (the prior's is 1); distance: between two locations, mean over pairs; overlap: the integral of the root of the
    product of two posteriors' densities (Bhattacharyya), mean over pairs, 1 if they are one and 0 if they share no
    support; touching: the share of pairs whose supports meet. hole: the distance from a draw of the prior to the
    nearest location of a test item, mean over 1,000; neighbour: the share of test items whose nearest other location is
    of an item of their class.
    """
    import torch

    from atelier import samples
    from atelier.data.items import items
    from atelier.draws import fixed

    test, train = items(store, "test", None, hold_out), items(store, "train", None, hold_out)
    x, generator = test.x[:], fixed(torch.device("cpu"))
    with torch.no_grad():
        seen = model.eval().observed(x, generator)
        code = model.encode(seen)
        bounds = torch.cat([bound(model, rows, DRAWS, generator) for rows in seen.split(ITEMS)])
        half = min(PAIRS, len(x) // 2)
        midway = model.decode((code.location[:half] + code.location[half : 2 * half]) / 2)
        drawn = model.decode(model.prior.draw(code.location[:half], generator))
    known = train.x[: min(KNOWN, len(train))]
    figures = {
        "test.nll" if model.binary else "test.nll_grey": float(bounds.mean()),
        "test.active": float((code.location.var(0) > ACTIVE).sum()),
        "test.midway": nearest(midway, known),
        "test.drawn": nearest(drawn, known),
    }
    figures |= samples.judge(model, store, seed)
    rows = _interpolations(model, x, test.y)
    if model.latent != 2:
        return Assessment(figures, rows=rows)
    location, y = code.location.double().numpy(), test.y.numpy()
    scale = code.log_scale.double().exp().numpy()
    figures |= bubbles(location[:SHOWN], scale[:SHOWN], code.standard)
    figures |= space(location, y, model.prior.draw(torch.empty(SHOWN, 2), generator).numpy())
    series = {"codes": location[:SHOWN].round(2).T.tolist(), "classes": y[:SHOWN].tolist()}
    return Assessment(figures, series, rows + _grid(model))


def bound(model: "nn.Module", seen: "Tensor", draws: int, generator: "Generator") -> "Tensor":
    """-log of the mean over draws of p(x, z) / q(z given x), in nats, (n,) in float64; `draws` is rounded up to 40s.

    seen: what the likelihood is of, (n, *shape).
    """
    import torch

    code, weights = model.encode(seen).repeated(min(AT_ONCE, draws)), []
    for _ in range(math.ceil(draws / AT_ONCE)):
        z, log_q = code.draw(generator)
        weights.append(model.log_likelihood(seen, z) + code.log_prior(z) - log_q)
    every = torch.cat(weights).double()
    return math.log(len(every)) - every.logsumexp(0)


def nearest(images: "Tensor", known: "Tensor") -> float:
    """Mean over images of the root mean squared difference from the nearest known item."""
    import torch

    distance = torch.cdist(images.flatten(1), known.flatten(1)).min(1).values
    return float(distance.double().mean()) / math.sqrt(images[0].numel())


def bubbles(location: np.ndarray, scale: np.ndarray, standard: "Standard") -> dict[str, float]:
    """Size, distance and overlap of posteriors, (n, units) both; Student's t has no closed form of its overlap."""
    from atelier.latent import Normal, Uniform

    one, other = np.triu_indices(len(location), 1)
    apart, (a, b) = np.abs(location[one] - location[other]), (scale[one], scale[other])
    found = {
        "test.radius": float(scale.mean() * standard.deviation),
        "test.distance": float(np.sqrt(np.square(apart).sum(1)).mean()),
        "test.touching": float((apart < a + b).all(1).mean()) if isinstance(standard, Uniform) else 1.0,
    }
    with np.errstate(under="ignore"):
        if isinstance(standard, Normal):
            squares = np.square(a) + np.square(b)
            shared = np.sqrt(2.0 * a * b / squares) * np.exp(-np.square(apart) / (4.0 * squares))
            found["test.overlap"] = float(shared.prod(1).mean())
        if isinstance(standard, Uniform):
            common = np.clip(np.minimum(a + b - apart, 2.0 * np.minimum(a, b)), 0.0, None)
            found["test.overlap"] = float((common / (2.0 * np.sqrt(a * b))).prod(1).mean())
    return found


def space(location: np.ndarray, y: np.ndarray, prior: np.ndarray) -> dict[str, float]:
    """hole and neighbour of locations (n, units), whose classes are y, and draws of the prior."""
    from scipy.spatial import KDTree

    tree = KDTree(location)
    second = tree.query(location, k=2)[1][:, 1]  # the first is the item itself
    return {"test.hole": float(tree.query(prior)[0].mean()), "test.neighbour": float((y[second] == y).mean())}


def floors(store: Store) -> dict[str, dict[str, float]]:
    """independent-pixels: every pixel is 1 with its training mean, on test items binarised as for the bound; items and
    mixed: how near test items and the pixel means of their pairs are to training items; always: supports that all meet.
    """
    import torch

    from atelier.data.items import items
    from atelier.draws import base_rates, bits, fixed
    from atelier.latent import bernoulli_log_likelihood

    test, train = items(store, "test", None, False), items(store, "train", None, False)
    x, known = test.x[:], train.x[: min(KNOWN, len(train))]
    half = min(PAIRS, len(x) // 2)
    seen = bits(x, fixed(torch.device("cpu"))).flatten(1).double()
    log_likelihood = bernoulli_log_likelihood(seen, base_rates(train.x[:]).double())
    return {
        "independent-pixels": {"test.nll": -float(log_likelihood.mean())},
        "items": {"test.midway": nearest(x[: 2 * half], known), "test.drawn": nearest(x[: 2 * half], known)},
        "mixed": {"test.midway": nearest((x[:half] + x[half : 2 * half]) / 2, known)},
        "always": {"test.touching": 1.0},
    }


def _interpolations(model: "nn.Module", x: "Tensor", y: "Tensor") -> list[Row]:
    """Lines from the code of one test item to that of another, ends included."""
    import torch

    from atelier.fit import first_of_each_class

    chosen, share = first_of_each_class(y)[:4], torch.linspace(0, 1, STEPS)[:, None]
    with torch.no_grad():
        ends = model.encode(x[chosen]).location
        lines = [model.decode(ends[i] + share * (ends[i + 1] - ends[i])) for i in range(0, len(chosen) - 1, 2)]
    return [("from item to item" if i == 0 else "", line.numpy(), []) for i, line in enumerate(lines)]


def _grid(model: "nn.Module") -> list[Row]:
    """What codes on a grid decode to, at even shares of a normal prior on each axis."""
    import torch
    from scipy.special import ndtri

    across, down = (torch.tensor(ndtri(np.linspace(EDGE, 1 - EDGE, count))).float() for count in (STEPS, LINES))
    with torch.no_grad():
        lines = [model.decode(torch.stack([across, z.expand(STEPS)], 1)) for z in down.flip(0)]
    return [("grid of codes" if i == 0 else "", line.numpy(), []) for i, line in enumerate(lines)]


def pictures(models: dict[str, dict[str, Any]], series: dict[str, list[Any]]) -> Plans:
    flat = {model: runs[0] for model, runs in series.items() if runs and "codes" in runs[0]}
    caption = (
        "Locations of the codes of 1,000 test items, one seed, coloured by class; circles: one and two standard "
        "deviations of the prior. Frames differ."
    )
    return {"latent-spaces.png": (caption, lambda: _draw(flat))} if flat else {}


def _draw(spaces: dict[str, dict[str, Any]]) -> "Figure":
    from matplotlib.patches import Circle

    figure, panels = grid(len(spaces), 3, 3.2, 3.2)
    for axes, (model, found) in zip(panels, spaces.items(), strict=True):
        axes.scatter(*found["codes"], c=found["classes"], cmap="tab10", s=4, linewidths=0)
        for radius in (1, 2):
            axes.add_patch(Circle((0, 0), radius, fill=False, edgecolor="0.4", linewidth=0.8))
        axes.autoscale_view()
        axes.set_aspect("equal", adjustable="datalim")
        axes.set_title(model)
    return figure
