"""Judges adversarial nets: what they draw, and where the game ended."""

import math
from collections.abc import Sequence
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from atelier.assess import Assessment, Row
from atelier.data.store import Store
from atelier.report.drawing import COLOURS, Plans, grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import nn

    from atelier.samples import Seen

OPTIMUM = {"value": -math.log(4), "d_real": 0.5, "d_fake": 0.5}  # where G draws as the data are
GAME = ("d_real", "d_fake", "value")
Game = tuple[Sequence[float], Sequence[float], Sequence[float], Sequence[float]]  # times, and GAME at each


def assess(model: "nn.Module", store: Store, seed: int, hold_out: bool) -> Assessment:
    """Of 10,000 samples, by a small classifier of our own, trained on the training items. frechet: the Fréchet distance
    between Gaussians fitted to its last hidden layer's values on samples and on test items; not the FID, whose features
    are another net's. coverage: the share of test items with a sample nearer to them than their fifth nearest test
    item. least class: the share of the rarest class; classes: how many have 4 % at least. sharpness: the mean variance
    of the Laplacian. d real, d fake: the mean of the discriminator's output on items and on what the generator draws;
    value: V(D, G) = E log D(x) + E log(1 - D(G(z))), -log 4 at the optimum. *train-items*, *noise*: the same of 10,000
    training items and of uniform noise.
    """
    from atelier import samples

    seen = samples.look(samples.draw(model, seed), store)
    shares = samples.shares(seen.labels, len(store.classes))
    game = {
        f"{split}.{name}": value
        for split in ("train", "test")
        for name, value in _game(model, store.split(split, hold_out=hold_out)[0][: samples.COUNT], seed).items()
    }
    series = {"classes": store.classes, "shares": shares.tolist(), "least": samples.LEAST}
    series["accuracy"] = samples.accuracy(store)
    return Assessment(samples.figures(seen, store) | game, series, [_one_of_each(seen, store.classes, shares)])


def floors(store: Store) -> dict[str, dict[str, float]]:
    from atelier import samples

    return samples.floors(store) | {"optimum": {f"test.{name}": value for name, value in OPTIMUM.items()}}


def pictures(models: dict[str, dict[str, Any]], series: dict[str, list[Any]]) -> Plans:
    game = (
        "The game over time, as its steps saw it: the discriminator's output on items (solid) and on what the "
        "generator draws (dashed) against 1/2, and V against -log 4 (dotted), where it would be even; means over seeds."
    )
    right = next(iter(series.values()))[0]["accuracy"]
    bars = (
        f"Shares of classes among 10,000 samples, by our classifier, which names {100 * right:.1f} % of test items "
        "rightly: mean over seeds, and single seeds as dots; dotted: 4 %."
    )
    return {"game.png": (game, partial(_draw_game, series)), "class-shares.png": (bars, partial(_draw_shares, series))}


def _game(model: "nn.Module", items: np.ndarray, seed: int) -> dict[str, float]:
    """What the discriminator says of items (n, *shape), and of as many that the generator draws, both in eval mode."""
    import torch

    from atelier.fit import rows_at_once

    torch.manual_seed(seed)
    model.eval()
    with torch.no_grad():
        batches = torch.from_numpy(items).split(rows_at_once(model))
        both = [(model.discriminate(x), model.discriminate(model.draw(len(x)))) for x in batches]
    real, fake = (torch.cat(logits).double() for logits in zip(*both, strict=True))
    value = torch.nn.functional.logsigmoid(real).mean() + torch.nn.functional.logsigmoid(-fake).mean()
    return {"d_real": float(real.sigmoid().mean()), "d_fake": float(fake.sigmoid().mean()), "value": float(value)}


def _one_of_each(seen: "Seen", classes: list[str], shares: np.ndarray) -> Row:
    """The first sample of every class that was drawn, under its class and share."""
    labels, first = np.unique(seen.labels, return_index=True)
    return "one of each", seen.items[first], [f"{classes[label]}\n{100 * shares[label]:.1f} %" for label in labels]


def draw_game(games: dict[str, Game], when: str) -> "Figure":
    """Every model's game over time, against where it would be even; `when` names the first of the sequences."""
    figure, (outputs, values) = grid(2, 2, 5, 3.6)
    for (model, (times, real, fake, value)), colour in zip(games.items(), COLOURS * len(games), strict=False):
        outputs.plot(times, real, color=colour)
        outputs.plot(times, fake, "--", color=colour)
        values.plot(times, value, color=colour, label=model)
    for axes, level, label in ((outputs, 0.5, "D(x), D(G(z))"), (values, OPTIMUM["value"], "V (nats)")):
        axes.axhline(level, color="black", linestyle=":")
        axes.set(xlabel=when, ylabel=label)
    values.legend(fontsize=7)
    return figure


def _draw_game(series: dict[str, list[Any]]) -> "Figure":
    games: dict[str, Game] = {}
    for model, runs in series.items():
        curves = [run["curve"] for run in runs]
        epochs = sorted(set.intersection(*map(set, curves)))
        means = ([fmean(curve[e][f"running.{name}"] for curve in curves) for e in epochs] for name in GAME)
        games[model] = (epochs, *means)
    return draw_game(games, "epoch")


def _draw_shares(series: dict[str, list[Any]]) -> "Figure":
    figure, panels = grid(len(series), 2, 5, 2.6, sharey=True)
    for axes, (model, runs) in zip(panels, series.items(), strict=True):
        shares = 100 * np.array([run["shares"] for run in runs])
        places = np.arange(shares.shape[1])
        axes.bar(places, shares.mean(0), color=COLOURS[5])
        axes.plot(np.tile(places, len(shares)), shares.ravel(), ".", color=COLOURS[0])
        axes.axhline(100 * runs[0]["least"], color="black", linestyle=":")
        axes.set_xticks(places, runs[0]["classes"], rotation=60, ha="right", fontsize=7)
        axes.set(title=model, ylabel="share (%)")
    return figure
