"""How probable a Boltzmann machine holds test items, by annealed importance sampling, and where its chains go."""

from typing import TYPE_CHECKING, Any

import numpy as np

from atelier.assess import Assessment, Row
from atelier.data.store import Store
from atelier.report.drawing import COLOURS, Plans, grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import nn

TEMPERATURES, CHAINS = 10_000, 100  # of annealed importance sampling, forward and reverse alike
STEPS = (1, 3, 10, 30, 100, 300, 1000)  # Gibbs steps at which chains from test items are looked at
SHOWN = (1, 10, 100, 1000)
FILTERS = 20


def assess(model: "nn.Module", store: Store, seed: int, hold_out: bool) -> Assessment:
    """Items are bits, drawn once with pixels as probabilities. nll: mean free energy plus log Z by annealed importance
    sampling, 100 chains of 10,000 evenly spaced temperatures from independent pixels of the training means; log Z tends
    to come out too small, which flatters. nll_reverse guards against that: annealed in reverse from 100 test items, it
    is in the mean no less than the nll under what the forward chains end in. ais_gap: reverse less forward; a wide one
    says that neither is to be trusted. gap.free_energy: that of held-out items (validation, or test without one) less
    that of training items, which needs no log Z and grows as the model overfits. drift: how the mean free energy of 100
    test items changes over 1,000 Gibbs steps, far below 0 where the model holds other patterns more probable than the
    items. reconstruction: cross-entropy after one pass up and down; pseudo_nll: of each bit given all others. Filters
    are the weights of single hidden units; chains begin at test items, samples at the persistent chains of training, or
    as noise where there are none.
    """
    import torch

    from atelier import evaluation, partition
    from atelier.data.items import items
    from atelier.draws import base_rates, bits, fixed

    splits = ("train", "validation", "test") if hold_out else ("train", "test")
    seen = {split: items(store, split, None, hold_out) for split in splits}
    machine = model.learner.machine().detached()
    energies = {split: evaluation.figures(model, found.x)["free_energy"] for split, found in seen.items()}
    held = "validation" if hold_out else "test"
    generator = fixed(torch.device("cpu"), seed)
    base = base_rates(seen["train"].x[:])
    chosen = torch.randperm(len(seen["test"]), generator=generator)[:CHAINS]
    start = bits(seen["test"].x[chosen].flatten(1), generator)
    log_z = partition.pooled(partition.forward(machine, base, TEMPERATURES, CHAINS, generator))
    too_large = float(partition.reverse(machine, base, TEMPERATURES, start, generator).mean())
    drift, rows = _chains(machine, start, store.shape, generator)
    figures = {f"{split}.nll": energy + log_z for split, energy in energies.items()}
    figures |= {
        "test.nll_reverse": energies["test"] + too_large,
        "test.ais_gap": too_large - log_z,
        "test.drift": drift[-1],
        "gap.free_energy": energies[held] - energies["train"],
    }
    series = {"log_z": [log_z, too_large], "drift": drift}
    return Assessment(figures, series, [*_filters(machine.weight.numpy(), store.shape), *rows])


def floors(store: Store) -> dict[str, dict[str, float]]:
    """independent-pixels: every pixel a coin with its own mean over the training items."""
    import torch

    from atelier.draws import base_rates

    train, x = (torch.from_numpy(store.split(split)[0]).flatten(1) for split in ("train", "test"))
    base = base_rates(train)
    nll = torch.nn.functional.binary_cross_entropy_with_logits(base.expand_as(x), x, reduction="sum") / len(x)
    return {"independent-pixels": {"test.nll": float(nll)}}


def pictures(models: dict[str, dict[str, Any]], series: dict[str, list[Any]]) -> Plans:
    caption = (
        "Free energy of Gibbs chains less that of the test items that they begin at, means over 100 chains and over "
        "seeds (range shaded): a model of the data stays near 0, chains that fall have left the data."
    )
    return {"chains.png": (caption, lambda: _draw(series))}


def _chains(machine: Any, start: Any, shape: tuple[int, ...], generator: Any) -> tuple[list[float], list[Row]]:
    """How the mean free energy of chains from `start` has changed after STEPS, and the first ten of them at SHOWN."""
    energy, v, done = float(machine.free_energy(start).mean()), start, 0
    rows: list[Row] = [("chains, start", start[:10].reshape(-1, *shape).numpy(), [])]
    drift = []
    for steps in STEPS:
        v, done = machine.gibbs(v, steps - done, generator), steps
        drift.append(float(machine.free_energy(v).mean()) - energy)
        if steps in SHOWN:
            seen = machine.rebuilt(v[:10]).sigmoid()
            rows.append((f"after {steps:,}", seen.reshape(-1, *shape).numpy(), []))
    return drift, rows


def _filters(weight: np.ndarray, shape: tuple[int, ...]) -> list[Row]:
    """The weights (hidden, visible) of the first hidden units, ten a row: grey is 0, each unit's largest is 0 or 1."""
    shown = weight[:FILTERS]
    shown = (0.5 + shown / (2 * np.abs(shown).max(1, keepdims=True))).reshape(-1, *shape)
    return [("filters" if i == 0 else "", shown[i : i + 10], []) for i in range(0, len(shown), 10)]


def _draw(series: dict[str, list[Any]]) -> "Figure":
    figure, (axes,) = grid(1, 1, 7, 3.4)
    for i, (model, runs) in enumerate(series.items()):
        drift = np.array([run["drift"] for run in runs])
        colour = COLOURS[i % len(COLOURS)]
        axes.plot(STEPS, drift.mean(0), "o-", color=colour, markersize=4, label=model)
        axes.fill_between(STEPS, drift.min(0), drift.max(0), color=colour, alpha=0.15, linewidth=0)
    axes.axhline(0, color="grey", linewidth=0.8)
    axes.set(xscale="log", xlabel="Gibbs steps", ylabel="change of free energy (nats)")
    axes.legend()
    return figure
