"""Recurrent cells from their equations, with gradients through time, against the library and against differences."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from annotated_types import Ge

from atelier.byhand import cells
from atelier.byhand.activations import Array
from atelier.byhand.faults import deviation
from atelier.data.store import Store
from atelier.report.drawing import COLOURS, Plans, grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FLOORS = {"rounding": {"test.deviation": 1e-10, "test.difference": 1e-6}}
ITEMS, INPUTS = 5, 4
ECHO, TINY = 30, 1e-30  # steps after a pulse that the picture shows
STEP, TRIED = 1e-6, 40  # of a central difference; weights that are moved by it

Cell = Literal["gru-after", "gru-before", "lstm", "peephole", "recurrent"]
Gradients = Callable[[dict[str, Array]], tuple[float, dict[str, Array]]]


def measure(
    seed: int, store: Store, *, cell: Cell, units: Annotated[int, Ge(1)] = 6, steps: Annotated[int, Ge(2)] = 12
) -> dict[str, Any]:
    """On random sequences, of an error that weighs every state. deviation: largest, of the cell's states and gradients
    from those of the library's layer with the same weights, by the largest of the library's; not of peepholes, which
    the library lacks. difference: the same of the gradients from (E(w + h) - E(w - h)) / 2h, for some weights.
    weights: how many the cell has.
    """
    rng = np.random.default_rng(seed)
    x, seen = rng.standard_normal((ITEMS, steps, INPUTS)), rng.standard_normal((ITEMS, steps, units))
    weights = draw(cell, units, rng)
    states, gradients = run(cell, weights, x, seen)
    found = {"test.difference": by_differences(cell, weights, x, seen, gradients, rng)}
    if cell != "peephole":
        found["test.deviation"] = deviation([states, *gradients.values()], by_library(cell, weights, x, seen))
    found |= {"test.weights": float(sum(array.size for array in weights.values()))}
    silence = np.zeros((2, ECHO, INPUTS))
    silence[1, 0] = 1.0  # a pulse in the second of two sequences; biases alone move the first
    (without, after), _ = run(cell, weights, silence, np.zeros((2, ECHO, units)))
    return found | {"series": np.abs(after - without).mean(axis=1).tolist()}


def draw(cell: Cell, units: int, rng: np.random.Generator) -> dict[str, Array]:
    """Random weights by name, w, u and b as in byhand.cells; c of a GRU, p of peepholes."""
    gates = {"recurrent": 1, "gru-after": 3, "gru-before": 3}.get(cell, 4)
    found = {"w": (gates * units, INPUTS), "u": (gates * units, units), "b": (gates * units,)}
    found |= {"c": (units,)} if cell == "gru-after" else {"p": (3, units)} if cell == "peephole" else {}
    return {name: rng.standard_normal(shape) / np.sqrt(units) for name, shape in found.items()}


def run(cell: Cell, weights: dict[str, Array], x: Array, seen: Array) -> tuple[Array, dict[str, Array]]:
    """The states (items, steps, units), and the gradient of E = sum(seen * states) by every array of weights."""
    w, u, b = (weights[name] for name in "wub")
    units = u.shape[1]
    match cell:
        case "recurrent":
            net = cells.Recurrent(w, u, b, np.eye(units), np.zeros(units))
            h, _ = cells.recurrent(net, x)
            by, _ = cells.recurrent_backward(net, x, h, seen)
            return h, {"w": by.w_xh, "u": by.w_hh, "b": by.b_h}
        case "gru-after" | "gru-before":
            reset = cell.removeprefix("gru-")
            net = cells.GRU(w, u, b, weights.get("c", np.zeros(units)))
            h, trace = cells.gru(net, x, reset)
            by, _ = cells.gru_backward(net, x, h, trace, seen, reset)
            return h, {"w": by.w, "u": by.u, "b": by.b} | ({"c": by.c} if "c" in weights else {})
        case _:
            net = cells.LSTM(w, u, b, weights.get("p"))
            h, trace = cells.lstm(net, x)
            by, _ = cells.lstm_backward(net, x, h, trace, seen)
            return h, {"w": by.w, "u": by.u, "b": by.b} | ({"p": by.p} if "p" in weights else {})


def by_library(cell: Cell, weights: dict[str, Array], x: Array, seen: Array) -> list[Array]:
    """What torch's layer gives with these weights: its states, then the gradients in the order of `weights`.

    Its update gate is 1 less ours, so weights go over with the sign of that gate turned, and gradients come back so.
    """
    import torch

    units = weights["u"].shape[1]
    kind = {"recurrent": torch.nn.RNN, "lstm": torch.nn.LSTM}.get(cell, torch.nn.GRU)
    layer = kind(INPUTS, units, batch_first=True).double()
    sign = np.repeat([1.0, -1.0, 1.0], units) if kind is torch.nn.GRU else np.ones(len(weights["b"]))
    second = np.zeros(len(weights["b"]))
    if "c" in weights:
        second[2 * units :] = weights["c"]
    given = (weights["w"] * sign[:, None], weights["u"] * sign[:, None], weights["b"] * sign, second)
    with torch.no_grad():
        for parameter, array in zip(layer.parameters(), given, strict=True):
            parameter.copy_(torch.tensor(array))
    states, _ = layer(torch.tensor(x))
    error = (states * torch.tensor(seen)).sum()
    w, u, b, c = (gradient.numpy() for gradient in torch.autograd.grad(error, list(layer.parameters())))
    found = [states.detach().numpy(), w * sign[:, None], u * sign[:, None], b * sign]
    return [*found, c[2 * units :]] if "c" in weights else found


def by_differences(
    cell: Cell, weights: dict[str, Array], x: Array, seen: Array, gradients: dict[str, Array], rng: np.random.Generator
) -> float:
    slopes, hand = [], []
    for _ in range(TRIED):
        name = str(rng.choice(sorted(weights)))
        place, errors = tuple(rng.integers(weights[name].shape)), []
        for step in (STEP, -STEP):
            moved = weights[name].copy()
            moved[place] += step
            errors.append(float((run(cell, weights | {name: moved}, x, seen)[0] * seen).sum()))
        slopes.append((errors[0] - errors[1]) / (2 * STEP))
        hand.append(gradients[name][place])
    return float(np.abs(np.subtract(slopes, hand)).max() / np.abs(hand).max())


def pictures(store: Store, models: dict[str, dict[str, Any]], series: dict[str, list[Any]]) -> Plans:
    caption = (
        "What a pulse in the first step still changes in the states of cells with random weights: mean over units, "
        "geometric mean over seeds."
    )
    return {"pulse.png": (caption, lambda: _draw(series))}


def _draw(series: dict[str, list[Any]]) -> "Figure":
    figure, (axes,) = grid(1, 1, 6.5, 3.2)
    for (model, runs), colour in zip(series.items(), COLOURS, strict=False):
        axes.plot(
            np.arange(1, ECHO + 1),
            np.exp(np.log(np.maximum(runs, TINY)).mean(axis=0)),
            color=colour,
            label=model,
            linewidth=1.2,
        )
    axes.set(xlabel="step", ylabel="mean change of a state", yscale="log")
    axes.legend()
    return figure


def text(models: dict[str, dict[str, Any]], series: dict[str, list[Any]]) -> str:
    return (
        "## Two GRUs\n\nThe notes reset the state before they multiply it by U_n, as Cho et al. 2014 do; the library "
        "multiplies first and resets after, which lets one matrix product serve all three gates, and its update gate "
        "keeps where theirs renews. So the two are not one function: with the same weights and the sign of the update "
        "gate turned, gru-after is the library's to rounding, and gru-before is far from it."
    )
