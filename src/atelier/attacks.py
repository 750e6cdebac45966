"""Hard inputs: whole batches moved by at most epsilon in every pixel, and within [0, 1], so that a classifier errs.

A classifier is a function from items (n, *shape) to logits (n, classes), each item's by itself: a net in eval mode.
Only gradients in the items are computed, none in the weights. What is random comes in from outside: start points, or a
NumPy generator. One gradient of a net with 16 and 32 maps costs about as much as a step of its training: 0.13 ms for an
image of 28 x 28 on one core, 0.09 ms in bf16.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from atelier import noise
from atelier.data.items import Items, Pixels
from atelier.errors import AtelierError
from atelier.params import Attack

Classifier = Callable[[Tensor], Tensor]
Try = Callable[[Tensor, Tensor, Tensor], Tensor]  # items, labels and the items' positions -> the items moved

STARTS = 3  # the use of random numbers that start points are, beside noise.TRAIN, TEST and FRESH
GLANCE, GLANCE_STEPS = 500, 10  # held-out items, and steps of PGD, that curves of training show
CLIP = 9.0  # nats at which an item's loss counts no more for a perturbation of all, so that none decides alone
HALVED = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)  # shares of the queries after which squares get smaller
LARGEST = 0.8  # the first squares, as a share of the image


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Of each item, in nats: (n,)."""
    return F.cross_entropy(logits, y, reduction="none")


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """The highest other logit less the label's, (n,): over 0 where the item is misread (Carlini and Wagner 2017)."""
    label = F.one_hot(y, logits.shape[1]).bool()
    return logits.masked_fill(label, -math.inf).amax(1) - logits[label]


def slope(classify: Classifier, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient of each item's cross-entropy in its pixels, like x, and the logits."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        logits = classify(x)
        (found,) = torch.autograd.grad(cross_entropy(logits, y).sum(), x)
    return found, logits.detach()


def project(moved: Tensor, x: Tensor, epsilon: float) -> Tensor:
    """The point of the ball that is nearest to `moved`: within epsilon of x in every pixel, and within [0, 1]."""
    return torch.minimum(torch.maximum(moved, x - epsilon), x + epsilon).clamp_(0, 1)


def step_size(kind: str, epsilon: float, steps: int = 1, start: str = "random") -> float:
    """How far a step goes where nobody says.

    pgd: 2.5 epsilon / steps, so that the whole ball is in reach of every start (Madry et al. 2018, appendix on L2);
    fgsm: epsilon from the item itself, 1.25 epsilon from a random point (Wong et al. 2020); universal: epsilon / 10.
    """
    factors = {"pgd": 2.5 / steps, "fgsm": 1.25 if start == "random" else 1.0, "universal": 0.1}
    return factors[kind] * epsilon


def fgsm(classify: Classifier, x: Tensor, y: Tensor, epsilon: float) -> Tensor:
    """One step along the sign of the gradient (Goodfellow et al. 2015): the worst there is, where logits are linear."""
    return pgd(classify, x, y, epsilon, steps=1, step=epsilon)


def pgd(
    classify: Classifier,
    x: Tensor,
    y: Tensor,
    epsilon: float,
    *,
    steps: int,
    step: float | None = None,
    start: Tensor | None = None,
    stop: bool = False,
) -> Tensor:
    """Steps along the sign of the gradient, each brought back into the ball (Madry et al. 2018), from `start`, or x.

    step: 2.5 epsilon / steps if None. stop: an item that is misread stays where it is and costs no more.
    """
    step = step or step_size("pgd", epsilon, steps)
    at = project(x if start is None else start, x, epsilon)
    going = torch.arange(len(x), device=x.device)
    for _ in range(steps):
        uphill, logits = slope(classify, at[going], y[going])
        if stop:
            right = logits.argmax(1) == y[going]
            going, uphill = going[right], uphill[right]
        if not len(going):
            break
        at[going] = project(at[going] + step * uphill.sign(), x[going], epsilon)
    return at


def random_start(x: Tensor, epsilon: float, rng: np.random.Generator) -> Tensor:
    """A uniform point of every item's ball, brought within [0, 1]."""
    drawn = torch.from_numpy(rng.random(x.shape, dtype=np.float32)).to(x.device)
    return project(x + epsilon * (2 * drawn - 1), x, epsilon)


def own_start(x: Tensor, epsilon: float, positions: Tensor, *, seed: int, restart: int) -> Tensor:
    """The same, drawn for each item by its position: batches, and which items are still in them, change nothing."""
    first, last = int(positions.min()), int(positions.max())
    drawn = noise.uniform((seed, STARTS, restart), first, last - first + 1, x[0].numel())
    drawn = torch.from_numpy(drawn[positions.cpu().numpy() - first]).to(x).view(x.shape)
    return project(x + epsilon * (2 * drawn - 1), x, epsilon)


def restarted(classify: Classifier, epsilon: float, *, steps: int, restarts: int, seed: int) -> list[Try]:
    """PGD from each of so many random starts."""

    def attempt(restart: int, x: Tensor, y: Tensor, positions: Tensor) -> Tensor:
        start = own_start(x, epsilon, positions, seed=seed, restart=restart)
        return pgd(classify, x, y, epsilon, steps=steps, start=start, stop=True)

    return [partial(attempt, restart) for restart in range(restarts)]


@torch.no_grad()
def hardest(
    classify: Classifier, x: Tensor | Pixels, y: Tensor, tries: Iterable[Try], rows: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """After each try: which items are still read right, bool (n,), and all items as they are hardest so far.

    What is misread, untouched or by some try, is left as it is: so later tries are cheap and never raise accuracy.
    Of an item that is read right after all, the try with the highest cross-entropy is kept. `rows` items at once.
    Both tensors are changed by the next try.
    """
    moved = torch.cat(list(x.split(rows)))
    found = [classify(part) for part in moved.split(rows)]
    right = torch.cat([logits.argmax(1) for logits in found]) == y
    worst = torch.cat([cross_entropy(logits, of) for logits, of in zip(found, y.split(rows), strict=True)])
    for attempt in tries:
        for at in right.nonzero()[:, 0].split(rows):
            if len(at):
                tried = attempt(x[at], y[at], at)
                logits = classify(tried)
                loss, fooled = cross_entropy(logits, y[at]), logits.argmax(1) != y[at]
                better = fooled | (loss > worst[at])
                moved[at[better]], worst[at[better]] = tried[better], loss[better]
                right[at] = ~fooled
        yield right, moved


def universal(
    classify: Classifier,
    x: Tensor | Pixels,
    y: Tensor,
    epsilon: float,
    *,
    steps: int,
    batch: int,
    rng: np.random.Generator,
) -> Tensor:
    """One perturbation for all items, (*shape): ascent along the sign of the summed gradient of mini-batches.

    As Shafahi et al. 2020 ("Universal adversarial training", section 3) have it, with their clipped loss. Ten steps
    reach epsilon at the earliest.
    """
    delta = torch.zeros_like(x[:1][0])
    for _ in range(steps):
        rows = torch.from_numpy(rng.choice(len(y), min(batch, len(y)), replace=False))
        delta = climbed(classify, x[rows], y[rows], delta, epsilon, step_size("universal", epsilon))
    return delta


def climbed(classify: Classifier, x: Tensor, y: Tensor, delta: Tensor, epsilon: float, step: float) -> Tensor:
    """The perturbation of all items after one step on these."""
    with torch.enable_grad():
        delta = delta.detach().requires_grad_()
        loss = cross_entropy(classify((x + delta).clamp(0, 1)), y).clamp(max=CLIP).sum()
        (uphill,) = torch.autograd.grad(loss, delta)
    return (delta.detach() + step * uphill.sign()).clamp_(-epsilon, epsilon)


def shared(x: Tensor, delta: Tensor) -> Tensor:
    """Items under a perturbation of all."""
    return (x + delta).clamp(0, 1)


@torch.no_grad()
def squares(
    classify: Classifier, x: Tensor, y: Tensor, epsilon: float, *, queries: int, rng: np.random.Generator
) -> Tensor:
    """Random search that asks for no gradient (Andriushchenko et al. 2020, "Square attack", L-infinity).

    From stripes of +-epsilon, each query sets a random square of every image to +-epsilon, channel by channel, and
    keeps what raises the margin. x is (n, channels, height, width). An item that is misread stays as it is.
    """
    n, channels, height, width = x.shape

    def signs(*shape: int) -> Tensor:
        return torch.from_numpy(rng.choice(np.float32([-1, 1]), shape)).to(x)

    at = project(x + epsilon * signs(n, channels, 1, width), x, epsilon)
    worst = margin(classify(at), y)
    row, column = (torch.arange(side, device=x.device) for side in (height, width))
    for query in range(1, queries):
        going = (worst <= 0).nonzero()[:, 0]
        if not len(going):
            break
        share = LARGEST / 2 ** sum(query / queries > part for part in HALVED)
        side = min(max(1, round(math.sqrt(share * height * width))), height, width)
        top, left = (torch.from_numpy(rng.integers(0, s - side + 1, (len(going), 1))).to(x.device) for s in x.shape[2:])
        rows, columns = ((i >= begin) & (i < begin + side) for i, begin in ((row, top), (column, left)))
        inside = (rows[:, :, None] & columns[:, None, :])[:, None]
        clean, before = x[going], at[going]
        tried = torch.where(inside, clean + epsilon * signs(len(going), channels, 1, 1), before).clamp_(0, 1)
        found = margin(classify(tried), y[going])
        better = found > worst[going]
        at[going[better]], worst[going[better]] = tried[better], found[better]
    return at


# ---- for training


class Hardener:
    """Moves the batches of one epoch. A perturbation of all items begins anew in each, so no epoch needs the last."""

    def __init__(self, attack: Attack, rng: np.random.Generator) -> None:
        self.how, self.rng = attack, rng
        self.step = attack.step or step_size(attack.kind, attack.epsilon, attack.steps or 1, attack.start)
        self.delta: Tensor | None = None

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """The batch, made hard for the net as it is in eval mode; the net is left in training mode."""
        model.eval()
        moved = (self._universal if self.how.kind == "universal" else self._own)(model.classify, x, y)
        model.train()
        return moved

    def _own(self, classify: Classifier, x: Tensor, y: Tensor) -> Tensor:
        epsilon, steps = self.how.epsilon, self.how.steps or 1
        start = random_start(x, epsilon, self.rng) if self.how.start == "random" else None
        return pgd(classify, x, y, epsilon, steps=steps, step=self.step, start=start)

    def _universal(self, classify: Classifier, x: Tensor, y: Tensor) -> Tensor:
        epsilon = self.how.epsilon
        if self.delta is None:
            drawn = torch.from_numpy(self.rng.random(x.shape[1:], dtype=np.float32)).to(x.device)
            self.delta = epsilon * (2 * drawn - 1) if self.how.start == "random" else torch.zeros_like(drawn)
        self.delta = climbed(classify, x, y, self.delta, epsilon, self.step)
        return shared(x, self.delta)


def check(model: nn.Module, x: Tensor) -> None:
    """Raises AtelierError for a net that does not classify, and for items that are no pixels in [0, 1]."""
    if not hasattr(model, "classify"):
        raise AtelierError("attack needs a family that classifies: it moves items until the label is missed; drop it")
    low, high = (float(end) for end in x.aminmax())
    if low < 0 or high > 1:
        raise AtelierError(f"attack needs pixels in [0, 1]: these items hold {low:.3g} to {high:.3g}; drop attack")


def glance(model: nn.Module, seen: Items, epsilon: float, rows: int) -> dict[str, float]:
    """Accuracy on the first 500 items, in eval mode, under FGSM and under ten steps of PGD.

    Where the first is far above the second, the net has learned to mislead the gradient, not to withstand.
    """
    model.eval()
    x, y = seen.x[:GLANCE], seen.y[:GLANCE]
    ways: dict[str, Try] = {
        "fgsm": lambda x, y, _: fgsm(model.classify, x, y, epsilon),
        "pgd": lambda x, y, _: pgd(model.classify, x, y, epsilon, steps=GLANCE_STEPS, stop=True),
    }
    found = {}
    for name, attempt in ways.items():
        ((right, _),) = hardest(model.classify, x, y, [attempt], rows)
        found[f"{name}_accuracy"] = float(right.double().mean())
    return found
