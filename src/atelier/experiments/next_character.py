"""What comes after h, e, l, l? A recurrent net of a few units learns one word, by the equations of byhand.cells."""

from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from annotated_types import Ge

from atelier.byhand import cells
from atelier.byhand.activations import Array
from atelier.byhand.backprop import softmax
from atelier.byhand.optimizers import Adam
from atelier.data.store import Store
from atelier.report.drawing import Plans, grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WORD = "hello"
RATE = 0.05


def measure(
    seed: int,
    store: Store,
    *,
    units: Annotated[int, Ge(1)] = 4,
    steps: Annotated[int, Ge(1)] = 300,
    recurs: bool = True,
) -> dict[str, Any]:
    """Learns to give the next letter of "hello" after every one of h, e, l, l. recurs: false takes W_hh away, so that
    nothing but the last letter is known, and l is followed once by l and once by o.

    o: the probability of o after the whole of hell; right: the share of the four letters that it says; nll: mean
    cross-entropy over them in nats.
    """
    rng = np.random.default_rng(seed)
    letters = sorted(set(WORD))
    codes = np.eye(len(letters))[[letters.index(letter) for letter in WORD]]
    x, t = codes[None, :-1], codes[None, 1:]
    net = cells.Recurrent(
        w_xh=rng.standard_normal((units, len(letters))) / np.sqrt(len(letters)),
        w_hh=rng.standard_normal((units, units)) / np.sqrt(units) * recurs,
        b_h=np.zeros(units),
        w_hy=rng.standard_normal((len(letters), units)) / np.sqrt(units),
        b_y=np.zeros(len(letters)),
    )
    rule = Adam(RATE)
    for _ in range(steps):
        h, y = cells.recurrent(net, x)
        gradient, _ = cells.recurrent_backward(net, x, h, (probabilities(y) - t) / t.shape[1])
        if not recurs:
            gradient.w_hh[:] = 0.0
        names = list(vars(net))
        for name, change in zip(names, rule([getattr(gradient, name) for name in names]), strict=True):
            setattr(net, name, getattr(net, name) + change)
    h, y = cells.recurrent(net, x)
    said = probabilities(y)
    return {
        "train.o": float(said[0, -1, letters.index("o")]),
        "train.right": float((said.argmax(2) == t.argmax(2)).mean()),
        "train.nll": float(-np.log((said * t).sum(2)).mean()),
        "series": {"states": h[0].T.tolist(), "said": said[0].T.tolist()},
    }


def probabilities(y: Array) -> Array:
    return softmax(y.reshape(-1, y.shape[-1])).reshape(y.shape)


def pictures(store: Store, models: dict[str, dict[str, Any]], series: dict[str, list[Any]]) -> Plans:
    caption = (
        "States of the hidden units after each letter (left) and the probabilities of the next one (right), first seed."
    )
    return {"states.png": (caption, lambda: _draw(series))}


def _draw(series: dict[str, list[Any]]) -> "Figure":
    letters = sorted(set(WORD))
    figure, panels = grid(2 * len(series), 2, 3.6, 2.3)
    for place, (model, runs) in enumerate(series.items()):
        states, said = (np.array(runs[0][name]) for name in ("states", "said"))
        for axes, shown, names, title, colours in (
            (panels[2 * place], states, [f"unit {i + 1}" for i in range(len(states))], f"{model}: state", "RdBu"),
            (panels[2 * place + 1], said, letters, f"{model}: next letter", "Blues"),
        ):
            axes.imshow(shown, cmap=colours, vmin=-1 if colours == "RdBu" else 0, vmax=1, aspect="auto")
            for (row, column), value in np.ndenumerate(shown):
                dark = abs(value) > 0.6
                axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7,
                          color="white" if dark else "black")  # fmt: skip
            axes.set_xticks(range(len(WORD) - 1), list(WORD[:-1]))
            axes.set_yticks(range(len(names)), names)
            axes.set_title(title, fontsize=9)
            axes.grid(False)
    return figure
