"""Norms of the gradient, layer by layer, at the start and while a dense net trains: does it vanish on the way?"""

from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from annotated_types import Ge

from atelier.data.store import Store
from atelier.experiments import dense_net
from atelier.layers import Init, Width
from atelier.report.drawing import Plans, grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import nn

LOOKED_AT, CHUNK = 2_000, 2_000  # items that the norms are taken on; rows of a full batch held at once
TINY = 1e-30


def measure(
    seed: int,
    store: Store,
    *,
    hidden: tuple[Width, ...],
    init: Init = "he",
    epochs: Annotated[int, Ge(1)],
) -> dict[str, Any]:
    """The norm of dE/dW of the first layer by that of the last: reach_start before training, reach_mean its geometric
    mean over training, as decades (0: equal, -1: a tenth). norm_start: decades of the first layer's own norm. loss: the
    training loss in the end.
    """
    from atelier.data.items import items
    from atelier.fit import fit
    from atelier.params import Recipe

    train, held = items(store, "train", None, False), items(store, "test", None, False)
    recipe = Recipe(epochs=epochs, batch="full", chunk=CHUNK, evaluate_every=epochs)
    model = dense_net(store, seed, recipe, hidden=hidden, init=init)
    x, y = train.x[:LOOKED_AT], train.y[:LOOKED_AT]
    series: list[list[float]] = []
    state = fit(model, recipe, seed, train, ("test", held), after_epoch=lambda _: series.append(norms(model, x, y)))
    reach = np.log10([max(by_layer[0], TINY) / max(by_layer[-1], TINY) for by_layer in series])
    return {
        "test.reach_start": float(reach[0]),
        "test.reach_mean": float(reach.mean()),
        "test.norm_start": float(np.log10(max(series[0][0], TINY))),
        "train.loss": state.curve[-1]["train.loss"],
        "series": series,
    }


def norms(model: "nn.Module", x, y) -> list[float]:
    """The norm of the gradient by every matrix, from the input on; the model's own gradients are left as they were."""
    import torch

    matrices = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    (out,) = model.losses(x, y)
    return [float(gradient.norm()) for gradient in torch.autograd.grad(out["loss"], matrices)]


def pictures(store: Store, models: dict[str, dict[str, Any]], series: dict[str, list[Any]]) -> Plans:
    caption = (
        "Norm of the gradient by the weights of each layer over epochs, means over seeds; layer 1 reads the image."
    )
    return {"norms.png": (caption, lambda: _draw(series))}


def _draw(series: dict[str, list[Any]]) -> "Figure":
    figure, panels = grid(len(series), 2, 4.5, 2.6, sharey=True)
    for axes, (model, runs) in zip(panels, series.items(), strict=True):
        mean = np.exp(np.log(np.maximum(np.array(runs), TINY)).mean(axis=0))  # (epochs + 1, layers)
        for layer in range(mean.shape[1]):
            axes.plot(mean[:, layer], label=f"layer {layer + 1}", linewidth=1.2)
        axes.set(title=model, yscale="log", xlabel="epoch")
        axes.legend(fontsize=7)
    return figure
