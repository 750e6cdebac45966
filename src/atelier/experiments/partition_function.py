"""A Boltzmann machine so small that log Z is known: how near does annealed importance sampling come?"""

import itertools
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from annotated_types import Ge, Le

from atelier.data.store import Store
from atelier.report.drawing import COLOURS, STYLES, Plans, grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CHAINS, BATCH, RATE = 100, 100, 0.2
FLOORS = {
    "exact": {"test.forward_few": 0.0, "test.reverse_few": 0.0},
    "no-change": {"test.nll_change": 0.0, "test.reconstruction_change": 0.0},
    "half-a-nat": {"test.miss": 0.5},
}
WAYS = {"forward": "forward", "reverse": "reverse, from samples", "guarded": "reverse, from test items"}


def measure(
    seed: int,
    store: Store,
    *,
    steps: Annotated[int, Ge(1)] = 1,
    chains: Annotated[int, Ge(0)] = 0,
    hidden: Annotated[int, Ge(1), Le(20)] = 16,
    epochs: Annotated[int, Ge(1)] = 5,
    temperatures: tuple[Annotated[int, Ge(1)], ...] = (3, 10, 30, 100, 300, 1000, 3000, 10000),
) -> dict[str, Any]:
    """nll: exact, of test items and of training items, with log_z by summing over all hidden states. reconstruction:
    cross-entropy of test items with what one pass up and down makes of them; pseudo_nll: of each bit given all others.
    nll_change and reconstruction_change: after the last epoch less after the first. forward_few and reverse_few: log Z
    by 100 chains of the fewest temperatures less the exact one, forward from independent pixels and in reverse from
    exact samples; miss: the larger error of the two with the most temperatures. All in nats.
    """
    import torch

    from atelier import partition
    from atelier.data.items import items
    from atelier.draws import base_rates, bits, fixed
    from atelier.evaluation import figures
    from atelier.families.rbm import Model
    from atelier.fit import State, fit
    from atelier.optim import Optimizer
    from atelier.params import Recipe

    train, test = items(store, "train", None, False), items(store, "test", None, False)
    recipe = Recipe(epochs=epochs, batch=BATCH, optimizer="sgd", lr=RATE, schedule="cosine", evaluate_every=epochs)
    torch.manual_seed(seed)
    optimizer = Optimizer(recipe.optimizer, recipe.lr)
    model = Model(store.shape, len(store.classes), hidden=hidden, steps=steps, chains=chains, optimizer=optimizer)
    by_epoch: list[dict[str, float]] = []

    def judge(state: State) -> None:
        found = figures(model, test.x)
        nll = found["free_energy"] + partition.exact(model.learner.machine())
        by_epoch.append({"nll": nll, **{name: found[name] for name in ("reconstruction", "pseudo_nll")}})

    fit(model, recipe, seed, train, ("test", test), after_epoch=judge)
    machine = model.learner.machine().detached()
    log_z, generator = partition.exact(machine), fixed(train.y.device, seed)
    base = base_rates(train.x[:])
    samples = partition.draw(machine, CHAINS, generator)
    some = bits(test.x[torch.randperm(len(test), generator=generator)[:CHAINS]].flatten(1), generator)
    errors: dict[str, list[float]] = {way: [] for way in WAYS}
    for count in temperatures:
        ahead = partition.forward(machine, base, count, CHAINS, generator)
        back, guarded = (partition.reverse(machine, base, count, start, generator) for start in (samples, some))
        errors["forward"].append(partition.pooled(ahead) - log_z)
        errors["reverse"].append(-partition.pooled(-back) - log_z)
        errors["guarded"].append(float(guarded.mean()) - log_z)
    first, last = by_epoch[1], by_epoch[-1]  # by_epoch[0] is before training
    return {
        **{f"test.{name}": value for name, value in last.items()},
        **{f"test.{name}_change": last[name] - first[name] for name in ("nll", "reconstruction")},
        "train.nll": figures(model, train.x)["free_energy"] + log_z,
        "test.log_z": log_z,
        "test.forward_few": errors["forward"][0],
        "test.reverse_few": errors["reverse"][0],
        "test.miss": max(abs(errors[way][-1]) for way in ("forward", "reverse")),
        "series": {"temperatures": list(temperatures), **errors, "by_epoch": by_epoch[1:]},
    }


def pictures(store: Store, models: dict[str, dict[str, Any]], series: dict[str, list[Any]]) -> Plans:
    caption = (
        "Estimated less exact log Z against the number of temperatures, means over seeds: annealed forward, in reverse "
        "from exact samples, and in reverse from test items, as is done where samples cannot be had."
    )
    over_time = (
        "Test items after each epoch, means over seeds: exact likelihood, and what is often looked at in its place."
    )
    return {
        "errors.png": (caption, lambda: _draw(series)),
        "epochs.png": (over_time, lambda: _draw_epochs(series)),
    }


def _draw(series: dict[str, list[Any]]) -> "Figure":
    figure, panels = grid(len(series), min(len(series), 3), 3.4, 3, sharey=True)
    for axes, (model, runs) in zip(panels, series.items(), strict=True):
        for (way, label), colour, style in zip(WAYS.items(), COLOURS, STYLES, strict=False):
            mean = np.mean([run[way] for run in runs], axis=0)
            axes.plot(runs[0]["temperatures"], mean, f"o{style}", color=colour, markersize=4, label=label)
        axes.axhline(0, color="grey", linewidth=0.8)
        axes.set(title=model, xscale="log", xlabel="temperatures")
        axes.set_yscale("symlog", linthresh=0.1)
    panels[0].set_ylabel("error of log Z (nats)")
    panels[-1].legend(fontsize=7)
    return figure


def _draw_epochs(series: dict[str, list[Any]]) -> "Figure":
    figure, panels = grid(3, 3, 3.4, 3)
    for axes, name in zip(panels, ("nll", "reconstruction", "pseudo_nll"), strict=True):
        for (model, runs), colour in zip(series.items(), itertools.cycle(COLOURS)):
            mean = np.mean([[epoch[name] for epoch in run["by_epoch"]] for run in runs], axis=0)
            axes.plot(range(1, len(mean) + 1), mean, "o-", color=colour, markersize=4, label=model)
        axes.set(xlabel="epoch", ylabel=f"{name.replace('_', ' ')} (nats)")
    panels[0].legend()
    return figure
