"""Judges what classifiers withstand: accuracy on hard inputs, and whether a weak attack flatters it.

An attack can fail because the net withstands, or because its gradient misleads (Athalye et al. 2018, "Obfuscated
gradients"; the checks are those of their section 3.1). A net of 16 and 32 maps takes 1 to 6 minutes on one core, most
of it PGD on all 10,000 test items: the longer, the more the net withstands.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from atelier import attacks
from atelier.assess import Assessment, Row
from atelier.data.items import items
from atelier.data.store import Store
from atelier.errors import AtelierError
from atelier.fit import first_of_each_class, rows_at_once
from atelier.params import Attacks, TrainNoise

FITTED = 5_000  # training items that a perturbation of all is fitted on
UNIVERSAL = {"steps": 100, "batch": 250}
QUERIES = 300  # of the random search
FAR = 0.5  # within which every image can be made grey, so that nothing is left to go by
LADDER = (1, 2, 5, 10, 20)  # steps of PGD, below those of the study
DRAWN = ("universal", "pgd")  # the attacks whose items are shown: noise makes a large picture
MORE = 4  # times the study's steps, and its restarts: what do they add?


@dataclass(frozen=True)
class Target:
    """A classifier and the items that it is attacked on: x (n, *shape), y (n,)."""

    model: nn.Module
    x: Tensor
    y: Tensor

    def under(self, tries: Iterable[attacks.Try]) -> tuple[list[Tensor], Tensor]:
        """Which items are still read right after each try, bool (n,); all items at their hardest, after the last."""
        left, hard = [], self.x
        for right, moved in attacks.hardest(self.model.classify, self.x, self.y, tries, rows_at_once(self.model)):
            left.append(right.clone())
            hard = moved
        return left, hard

    def pgd(self, epsilon: float, steps: int, restarts: int, seed: int) -> tuple[list[Tensor], Tensor]:
        return self.under(attacks.restarted(self.model.classify, epsilon, steps=steps, restarts=restarts, seed=seed))

    def fgsm(self, epsilon: float) -> tuple[list[Tensor], Tensor]:
        return self.under([lambda x, y, _: attacks.fgsm(self.model.classify, x, y, epsilon)])

    @torch.no_grad()
    def answers(self, x: Tensor) -> Tensor:
        return torch.cat([self.model.classify(part).argmax(1) for part in x.split(rows_at_once(self.model))])

    def accuracy(self, x: Tensor) -> float:
        """Of these inputs, one for each of the items."""
        return _share(self.answers(x) == self.y)


def judge(
    model: nn.Module, store: Store, seed: int, how: Attacks, hold_out: bool, others: Sequence[nn.Module]
) -> Assessment:
    """The figures that report/attacks.py explains, what it draws, and rows of items. `others`: nets for transfer.

    Raises AtelierError for items that are no pixels in [0, 1], and where fewer are there than the study asks for.
    """
    model.eval()
    test, train = items(store, "test", None, hold_out), items(store, "train", None, hold_out)
    for net in (model, *others):
        attacks.check(net, test.x[:])
    if how.items > len(test):
        raise AtelierError(f"attacks: items is {how.items}, but there are {len(test)} test items; give less")
    every, few = Target(model, test.x[:], test.y), Target(model, test.x[: how.items], test.y[: how.items])
    fitted = train.x[:FITTED], train.y[:FITTED]

    def noisy(target: Target, epsilon: float) -> Tensor:
        return items(store, "test", TrainNoise(kind="gaussian", level=epsilon), hold_out).x[: len(target.y)]

    def universal(target: Target, epsilon: float) -> Tensor:
        rng = np.random.default_rng([seed, attacks.STARTS])
        return attacks.shared(target.x, attacks.universal(model.classify, *fitted, epsilon, **UNIVERSAL, rng=rng))

    by_fgsm, by_pgd = every.fgsm(how.epsilon), every.pgd(how.epsilon, how.steps, how.restarts, seed)
    hard = {"gaussian": noisy(every, how.epsilon), "universal": universal(every, how.epsilon)}
    figures = {f"test.under_{name}": every.accuracy(x) for name, x in hard.items()}
    figures |= {"test.under_fgsm": _left(by_fgsm), "test.under_pgd": _left(by_pgd)}
    hard |= {"fgsm": by_fgsm[1], "pgd": by_pgd[1]}
    curves = {
        "gaussian": [few.accuracy(noisy(few, epsilon)) for epsilon in how.curve],
        "fgsm": [_left(few.fgsm(epsilon)) for epsilon in how.curve],
        "universal": [few.accuracy(universal(few, epsilon)) for epsilon in how.curve],
        "pgd": [_left(few.pgd(epsilon, how.steps, 1, seed)) for epsilon in how.curve],
    }
    checks, series = _checks(few, by_pgd[0][-1][: how.items], seed, how, others)
    clean = few.accuracy(few.x)
    series |= {"epsilons": [0.0, *how.curve], "curves": {name: [clean, *line] for name, line in curves.items()}}
    series |= {"epsilon": how.epsilon, "items": how.items}
    return Assessment(figures | checks, {"attacked": series}, _rows(every, hard, store.classes, how.epsilon))


def _checks(
    few: Target, right: Tensor, seed: int, how: Attacks, others: Sequence[nn.Module]
) -> tuple[dict[str, float], dict[str, list]]:
    """`right`: which of the items the full attack leaves."""
    classify, epsilon = few.model.classify, how.epsilon
    ladder = sorted({*(steps for steps in LADDER if steps < how.steps), how.steps, MORE * how.steps})
    by_steps = [_left(few.pgd(epsilon, steps, 1, seed)) for steps in ladder]
    by_restarts = [_share(left) for left in few.pgd(epsilon, how.steps, MORE * how.restarts, seed)[0]]
    rng = np.random.default_rng([seed, attacks.STARTS + 1])
    (by_squares,), _ = few.under([lambda x, y, _: attacks.squares(classify, x, y, epsilon, queries=QUERIES, rng=rng)])
    uphill = torch.cat([attacks.slope(classify, x, y)[0] for x, y in _batches(few)])
    found = {
        "under_squares": _share(by_squares),
        "steps_rise": max(later - by_steps[i] for i in range(len(ladder)) for later in by_steps[i + 1 :]),
        "steps_left": by_steps[-2] - by_steps[-1],
        "restarts_left": by_restarts[how.restarts - 1] - by_restarts[-1],
        "squares_gain": _share(right & ~by_squares),
        "far": _left(few.pgd(FAR, how.steps, 1, seed)),
        "zero_gradient": _share((uphill == 0).flatten(1).all(1)),
    }
    if others:
        by_transfer = few.under(_transferred(other, seed, how) for other in others)[0][-1]
        found |= {"under_transfer": _share(by_transfer), "transfer_gain": _share(right & ~by_transfer)}
    series = {"steps": [ladder, by_steps], "restarts": by_restarts}
    return {f"test.{name}": value for name, value in found.items()}, series


def _transferred(other: nn.Module, seed: int, how: Attacks) -> attacks.Try:
    """What all steps of PGD against another net make of the items, whether or not that net is fooled on the way."""

    def attempt(x: Tensor, y: Tensor, positions: Tensor) -> Tensor:
        start = attacks.own_start(x, how.epsilon, positions, seed=seed, restart=0)
        return attacks.pgd(other.classify, x, y, how.epsilon, steps=how.steps, start=start)

    return attempt


def _left(found: tuple[list[Tensor], Tensor]) -> float:
    """Accuracy after the last try."""
    return _share(found[0][-1])


def _share(which: Tensor) -> float:
    return float(which.double().mean())


def _batches(target: Target) -> Iterable[tuple[Tensor, Tensor]]:
    rows = rows_at_once(target.model)
    return zip(target.x.split(rows), target.y.split(rows), strict=True)


def _rows(every: Target, hard: dict[str, Tensor], classes: list[str], epsilon: float) -> list[Row]:
    """An item of each class as it is and as the attacks of DRAWN make it, under what the net says of it; what they have
    added, grey where it is nothing, black and white at -+epsilon.
    """
    chosen = first_of_each_class(every.y)
    shown = {"clean": every.x[chosen]} | {name: hard[name][chosen] for name in DRAWN}
    rows: list[Row] = []
    for name, x in shown.items():
        rows.append((name, x.numpy(), [f"as {classes[label]}" for label in every.answers(x)]))
    return rows + [
        (f"{name} adds", (0.5 + (shown[name] - shown["clean"]) / (2 * epsilon)).clamp(0, 1).numpy(), [])
        for name in DRAWN
    ]
