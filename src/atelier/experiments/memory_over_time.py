"""How far back a recurrent net remembers: its gradient against the lag, and a symbol to recall after as many steps."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from annotated_types import Ge

from atelier.data.store import Store
from atelier.report.drawing import COLOURS, Plans, grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor, nn

    from atelier.data.items import Items

SYMBOLS, TRAIN, TEST = 4, 2_000, 1_000  # to tell apart, and sequences to learn from and to be judged on
EPOCHS, BATCH, RATE = 20, 50, 3e-3
TINY = 1e-30


def measure(
    seed: int,
    store: Store,
    *,
    cell: Literal["gru", "lstm", "rnn"],
    lag: Annotated[int, Ge(1)],
    hidden: Annotated[int, Ge(1)] = 32,
    remember: float = 0.0,
) -> dict[str, Any]:
    """One of 4 symbols, then `lag` steps of noise, then the question which it was; chance is 25 %.

    remember: added to the bias of the gate that keeps the state (of a lstm the forget gate, of a gru the update gate).
    accuracy after 20 epochs of 2,000 sequences. reach_start and reach: the norm of d state_T / d state_(T - lag) by
    that of one step, as decades (0: nothing is lost, -1: nine tenths are), before training and after it.
    """
    import torch

    from atelier.families.recurrent import Model
    from atelier.fit import fit
    from atelier.optim import Optimizer
    from atelier.params import Recipe

    rng = np.random.default_rng(seed)
    train, held = sequences(TRAIN, lag, rng), sequences(TEST, lag, rng)
    recipe = Recipe(epochs=EPOCHS, batch=BATCH, lr=RATE, clip=1.0, evaluate_every=EPOCHS)
    torch.manual_seed(seed)
    optimizer = Optimizer(recipe.optimizer, recipe.lr)
    model = Model((SYMBOLS + 1, lag + 1), SYMBOLS, cell=cell, hidden=(hidden,), optimizer=optimizer)
    keep_longer(model.layers[0], remember)
    start = norms(model.layers[0], held.x[:20])
    state = fit(model, recipe, seed, train, ("test", held))
    trained = norms(model.layers[0], held.x[:20])
    return {
        "test.accuracy": state.curve[-1]["test.accuracy"],
        "test.reach_start": float(np.log10(max(start[-1], TINY) / start[0])),
        "test.reach": float(np.log10(max(trained[-1], TINY) / trained[0])),
        "series": [start, trained],
    }


def sequences(count: int, lag: int, rng: np.random.Generator) -> "Items":
    """x (count, symbols + 1, lag + 1): a symbol first, noise in the last channel of all later steps; y (count,)."""
    import torch

    from atelier.data.items import Items

    y = rng.integers(0, SYMBOLS, count)
    x = np.zeros((count, SYMBOLS + 1, lag + 1), np.float32)
    x[np.arange(count), y, 0] = 1.0
    x[:, -1, 1:] = rng.standard_normal((count, lag))
    tensor = torch.from_numpy(x)
    return Items(tensor, tensor, torch.from_numpy(y))


def keep_longer(layer: "nn.RNNBase", remember: float) -> None:
    """Add to the bias of the gate that keeps the state; the library has it second, of a gru as of a lstm."""
    import torch

    size = layer.hidden_size
    if remember and not isinstance(layer, torch.nn.RNN):
        with torch.no_grad():
            layer.bias_ih_l0[size : 2 * size] += remember


def norms(layer: "nn.RNNBase", x: "Tensor") -> list[float]:
    """Frobenius norm of d state_T / d state_(T - k) for k = 1, 2, ..., a mean over items x (n, features, steps).

    A lstm's state is its output and its cell, so that what the cell carries counts.
    """
    import torch

    kind = next(kind for kind in (torch.nn.RNN, torch.nn.GRU, torch.nn.LSTM) if isinstance(layer, kind))
    lstm = kind is torch.nn.LSTM
    steps = x.transpose(1, 2)
    zeros = torch.zeros(1, len(x), layer.hidden_size)
    state, states = (zeros, zeros) if lstm else zeros, []
    for t in range(steps.shape[1]):
        state = tuple(part.detach().requires_grad_() for part in state) if lstm else state.detach().requires_grad_()
        before = state if lstm else (state,)
        _, state = kind.forward(layer, steps[:, t : t + 1], state)  # our own GRU begins at 0 alone
        states.append((before, torch.cat(state if lstm else (state,), dim=2)))
    # Step by step from the end: the rows of the product of Jacobians so far times the Jacobian of one step more.
    size = states[-1][1].shape[2]
    rows = torch.eye(size)[:, None, None, :].expand(size, 1, len(x), size)
    found = []
    for before, after in reversed(states[1:]):
        parts = torch.autograd.grad(after, before, rows, is_grads_batched=True)
        rows = torch.cat(parts, dim=3)
        found.append(float(rows.square().sum(dim=(0, 1, 3)).sqrt().mean()))
    return found


def pictures(store: Store, models: dict[str, dict[str, Any]], series: dict[str, list[Any]]) -> Plans:
    caption = (
        "Norm of the gradient of the last state by an earlier one against the lag between them, before training "
        "(dashed) and after it (solid); geometric means over seeds, the longest lag of each kind of cell."
    )
    return {"gradients.png": (caption, lambda: _draw(models, series))}


def _draw(models: dict[str, dict[str, Any]], series: dict[str, list[Any]]) -> "Figure":
    longest: dict[tuple, str] = {}
    for model, settings in sorted(models.items(), key=lambda entry: entry[1]["lag"]):
        longest[settings["cell"], settings.get("remember", 0.0)] = model
    figure, (axes,) = grid(1, 1, 7, 3.6)
    for model, colour in zip(longest.values(), COLOURS, strict=False):
        for place, style in ((0, "--"), (1, "-")):
            runs = np.maximum(np.array([run[place] for run in series[model]]), TINY)
            axes.plot(
                np.arange(1, runs.shape[1] + 1),
                np.exp(np.log(runs).mean(axis=0)),
                style,
                color=colour,
                linewidth=1.2,
                label=model if place else None,
            )
    axes.set(yscale="log", xlabel="lag (steps)", ylabel="norm of the gradient")
    axes.legend()
    return figure
