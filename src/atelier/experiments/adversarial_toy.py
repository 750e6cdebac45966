"""Adversarial nets on a line, where all is known: the data's density, the generator's, the best discriminator of both.

With p the data's density and q the generator's, the discriminator that does best against it is D* = p / (p + q), and
there V(D*, G) = -log 4 + 2 JSD(p, q), with the Jensen-Shannon divergence in nats: at most so low where p = q and D* is
1/2 (Goodfellow et al. 2014, proposition 1 and theorem 1). Here both are looked at as shares of 400 cells of the line,
for which all of this holds too: cells have exact shares in a mixture of Gaussians, and are counted in what is drawn.
"""

import time
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from annotated_types import Ge
from scipy.spatial.distance import jensenshannon
from scipy.special import xlogy
from scipy.stats import norm

from atelier.assess.gan import GAME, OPTIMUM, Game, draw_game
from atelier.byhand.activations import Array
from atelier.data.store import Store
from atelier.report.drawing import COLOURS, Plans, grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import nn

MODES, WIDTH = np.array([0.1, 0.3, 0.5, 0.7, 0.9]), 0.04  # centres and standard deviation of the mixture
EDGES = np.linspace(0.0, 1.0, 401)
CENTRES = (EDGES[1:] + EDGES[:-1]) / 2
ITEMS, BATCH, DRAWN = 25_600, 256, 200_000
EVEN = OPTIMUM["value"]
FLOORS = {
    "rounding": {"test.identity": 1e-12},
    "a-tenth": {"test.deviation": 0.1, "test.unevenness": 0.1},
    "every-mode": {"test.modes": len(MODES) - 0.5},
}


def measure(
    seed: int,
    store: Store,
    *,
    loss: Literal["minimax", "non-saturating"],
    steps: Annotated[int, Ge(1)] = 1,
    learns: bool = True,
    rounds: Annotated[int, Ge(1)] = 30,
) -> dict[str, Any]:
    """The family gan on a mixture of five Gaussians: value, V(D, G) in nats at the end; unevenness, how far that is
    from -log 4; divergence, the Jensen-Shannon divergence of the generator from the data in nats; deviation, the root
    of the mean squared difference of D from D* over data and samples; modes, how many of the five have a quarter of
    their due share of samples, or more, within two standard deviations; fooled, the mean of D(G(z)); gradient, the
    norm of the gradient of the generator's loss in its weights; identity, how far V(D*, G) is from
    -log 4 + 2 JSD, both summed over the cells. Rounds have 100 steps of the generator, and `steps` of the discriminator
    to each. Where the generator does not learn, the discriminator alone does.
    """
    import torch

    from atelier.data.items import Items
    from atelier.families.gan import Model
    from atelier.fit import State, fit
    from atelier.optim import Optimizer
    from atelier.params import Recipe

    rng = np.random.default_rng(seed)
    drawn = MODES[rng.integers(0, len(MODES), ITEMS)] + WIDTH * rng.standard_normal(ITEMS)
    x = torch.from_numpy(drawn[:, None]).float()
    items = Items(x, x, torch.zeros(ITEMS, dtype=torch.int64))
    torch.manual_seed(seed)
    optimizer = Optimizer("adam", lr=1e-3)
    nets = {"latent": 2, "widths": (64, 64), "batch_norm": False}
    model = Model((1,), 1, loss=loss, steps=steps, **nets, optimizer=optimizer)
    model.generator.requires_grad_(learns)
    game: list[list[float]] = []

    def after_epoch(state: State) -> None:
        if state.epoch:
            game.append([state.running[name] for name in GAME])

    recipe = Recipe(epochs=rounds * steps, batch=BATCH * steps, evaluate_every=rounds * steps)
    started = time.perf_counter()
    fit(model, recipe, seed, items, ("test", items), after_epoch=after_epoch)
    seconds = time.perf_counter() - started
    with torch.no_grad():
        q = np.histogram(model.sample(DRAWN).numpy(), EDGES)[0] / DRAWN
        logits = model.discriminate(torch.from_numpy(CENTRES[:, None]).float()).double().numpy()
    p, found = data_shares(), 1 / (1 + np.exp(-logits))
    best, fake = best_discriminator(p, q), q @ found
    return {
        "test.value": float(value(p, q, found)),
        "test.unevenness": float(abs(value(p, q, found) - EVEN)),
        "test.divergence": divergence(p, q),
        "test.deviation": float(np.sqrt((p + q) / 2 @ np.square(found - best))),
        "test.modes": float(modes(q)),
        "test.fooled": float(fake),
        "test.gradient": _gradient(model, x),
        "test.identity": float(abs(value(p, q, best) - (EVEN + 2 * divergence(p, q)))),
        "train_s": seconds,
        "series": {"drawn": q.tolist(), "found": found.tolist(), "best": best.tolist(), "game": game, "steps": steps},
    }


def data_shares() -> Array:
    """The mixture's share of every cell, (400,)."""
    shares = np.diff(norm.cdf(EDGES[:, None], MODES, WIDTH).mean(1))
    return shares / shares.sum()


def best_discriminator(p: Array, q: Array) -> Array:
    """p / (p + q), and 1/2 where there is neither."""
    return np.divide(p, p + q, out=np.full_like(p, 0.5), where=p + q > 0)


def value(p: Array, q: Array, d: Array) -> float:
    """V: the mean of log d over p and of log(1 - d) over q, in nats; 0 log 0 is 0."""
    return xlogy(p, d).sum() + xlogy(q, 1 - d).sum()


def divergence(p: Array, q: Array) -> float:
    """Jensen-Shannon, in nats; SciPy has its root."""
    return float(jensenshannon(p, q)) ** 2


def modes(q: Array) -> int:
    """How many modes have a quarter of their due share or more of q within two standard deviations."""
    near = np.abs(CENTRES[:, None] - MODES) < 2 * WIDTH
    return int((q @ near >= 1 / (4 * len(MODES))).sum())


def _gradient(model: "nn.Module", x: Any) -> float:
    import torch

    model.generator.requires_grad_(True)
    torch.manual_seed(0)
    loss = [out["loss"] for out in model.losses(x, x)][-1]
    gradients = torch.autograd.grad(loss, list(model.generator.parameters()))
    return float(torch.cat([g.flatten() for g in gradients]).norm())


def pictures(store: Store, models: dict[str, dict[str, Any]], series: dict[str, list[Any]]) -> Plans:
    lines = (
        "One seed, at the end: the data's density (grey), the generator's (both by the data's highest), the "
        "discriminator as it was found, and as it would be best."
    )
    game = "The game over time, means over seeds: D(x) solid and D(G(z)) dashed against 1/2; V against -log 4 (dotted)."
    return {"line.png": (lines, partial(_draw_line, series)), "game.png": (game, partial(_draw_game, series))}


def _draw_line(series: dict[str, list[Any]]) -> "Figure":
    figure, panels = grid(len(series), 2, 4.5, 2.4, sharex=True, sharey=True)
    p = data_shares()
    for axes, (model, runs) in zip(panels, series.items(), strict=True):
        axes.fill_between(CENTRES, p / p.max(), color="0.85", label="data")
        for (name, shown), colour in zip((("drawn", "G"), ("found", "D"), ("best", "D*")), COLOURS, strict=False):
            scale = p.max() if name == "drawn" else 1.0
            axes.plot(CENTRES, np.array(runs[0][name]) / scale, color=colour, linewidth=1, label=shown)
        axes.set(title=model, ylim=(0, 1.3))
    panels[0].legend(fontsize=7, ncols=4, loc="upper center")
    return figure


def _draw_game(series: dict[str, list[Any]]) -> "Figure":
    games: dict[str, Game] = {}
    for model, runs in series.items():
        real, fake, v = np.mean([run["game"] for run in runs], axis=0).T
        games[model] = ((np.arange(len(v)) + 1) / runs[0]["steps"], real, fake, v)
    return draw_game(games, "hundreds of the generator's steps")
