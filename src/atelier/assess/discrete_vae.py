"""How an autoencoder with discrete codes uses them, beside methods of one atom and of several that train no net."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from atelier.assess import Assessment, Row
from atelier.data.store import Store
from atelier.report.drawing import COLOURS, Plans, grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor, nn

ATOMS, SPARSE = 256, 8  # of the methods that train no net, and how many of them sparse coding takes for an item
LEARNED_ON = 10_000  # items
ROWS = 1_000  # items whose likelihood under every code is held at once
COLUMNS = 10


def assess(model: "nn.Module", store: Store, seed: int, hold_out: bool) -> Assessment:
    """nelbo = kl + distortion: minus the evidence lower bound in nats, pixels binarised once from a fixed seed; kl is
    from even probabilities, so a code that is sure costs the logarithm of how many there are. nll, where an item has
    one code alone: minus the log-likelihood itself, summed over all codes. perplexity: the exponential of the entropy
    of how often test items have each code, mean over positions: so many codes, were they used alike; used: the share of
    codes that some test item has; atoms: vectors that an item is made from, 1 for one of K codes.

    one-of-256: test items as the nearest of 256 means that k-means finds in 10,000 training items; sparse-8: as a sum
    of 8 of 256 atoms, each with a number of its own (dictionary learning, orthogonal matching pursuit).
    """
    import torch

    from atelier.data.items import items
    from atelier.draws import bits, fixed

    test = items(store, "test", None, hold_out)
    seen = bits(test.x[:], fixed(torch.device("cpu")))
    with torch.no_grad():
        chosen = torch.cat([model.eval().chosen(model.said(rows)) for rows in seen.split(ROWS)])
        shares = usage(chosen.numpy(), model.codes)
        figures = {
            "test.perplexity": float(np.exp(-np.where(shares > 0, shares * np.log(shares + 1e-300), 0).sum(1)).mean()),
            "test.used": float((shares > 0).mean()),
            "test.atoms": float(model.positions),
        }
        rows: list[Row] = []
        if model.positions == 1:
            figures["test.nll"] = float(torch.cat([exact(model, rows) for rows in seen.split(ROWS)]).mean())
            foremost = np.argsort(-shares[0], kind="stable")[:COLUMNS]
            items_of = model.decode(torch.from_numpy(foremost)[:, None]).numpy()
            rows = [("most used codes", items_of, [f"{100 * shares[0, code]:.1f} %" for code in foremost])]
    ordered = -np.sort(-shares, axis=1).mean(0)
    return Assessment(figures, {"usage": ordered.round(6).tolist()}, rows)


def usage(chosen: np.ndarray, codes: int) -> np.ndarray:
    """How often items, whose codes are (n, positions), have each: shares (positions, codes)."""
    return np.stack([np.bincount(column, minlength=codes) for column in chosen.T]) / len(chosen)


def exact(model: "nn.Module", seen: "Tensor") -> "Tensor":
    """-log of the mean over all codes of p(x given code), in nats, (n,) in float64; seen: (n, *shape), of 0 and 1."""
    import torch

    logits = model.decoder(model.book[0]).double()
    x = seen.flatten(1).double()
    every = x @ logits.T - torch.nn.functional.softplus(logits).sum(1)
    return math.log(model.codes) - every.logsumexp(1)


def floors(store: Store) -> dict[str, dict[str, float]]:
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.decomposition import MiniBatchDictionaryLearning

    from atelier import metrics

    train, test = (
        store.split(split)[0][:most].reshape(-1, math.prod(store.shape)).astype(np.float64)
        for split, most in (("train", LEARNED_ON), ("test", None))
    )
    atoms = min(ATOMS, len(train) // 2)
    means = MiniBatchKMeans(atoms, n_init=3, random_state=0).fit(train)
    found = {f"one-of-{ATOMS}": (means.cluster_centers_[means.predict(test)], 1)}
    centre = train.mean(0)
    learner = MiniBatchDictionaryLearning(
        atoms,
        alpha=1.0,
        max_iter=5,
        batch_size=256,
        fit_algorithm="cd",
        transform_algorithm="omp",
        transform_n_nonzero_coefs=SPARSE,
        random_state=0,
    ).fit(train - centre)
    numbers = learner.transform(test - centre)
    found[f"sparse-{SPARSE}"] = (numbers @ learner.components_ + centre, np.count_nonzero(numbers, axis=1).mean())
    return {
        name: {f"test.{metric}": value for metric, value in metrics.reconstruction(np.clip(output, 0, 1), test).items()}
        | {"test.atoms": float(count)}
        for name, (output, count) in found.items()
    }


def pictures(models: dict[str, dict[str, Any]], series: dict[str, list[Any]]) -> Plans:
    known = {model: [run["usage"] for run in runs] for model, runs in series.items() if runs}
    caption = "How often test items have each code, from the most used on; mean over positions and seeds."
    return {"code-usage.png": (caption, lambda: _draw(known))} if known else {}


def _draw(usages: dict[str, list[list[float]]]) -> "Figure":
    figure, (axes,) = grid(1, 1, 6.5, 3.4)
    for i, (model, runs) in enumerate(usages.items()):
        shares = np.mean(runs, axis=0)
        colour = COLOURS[i % len(COLOURS)]
        axes.plot(np.arange(1, len(shares) + 1), np.maximum(shares, 1e-6), label=model, color=colour, linewidth=1.3)
    axes.set(xlabel="codes, most used first", ylabel="share of test items", yscale="log", ylim=(1e-5, 1))
    axes.legend()
    return figure
