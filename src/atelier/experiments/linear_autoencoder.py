"""A linear autoencoder beside principal components: the same subspace, spanned by other directions.

Of all linear maps through so many numbers, the projection on the leading principal components leaves the smallest
squared error (Eckart and Young 1936); every minimum of the autoencoder's loss is that projection, and all other points
without a gradient are saddles (Baldi and Hornik 1989). Its two matrices are free to turn, one against the other.
"""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt
from scipy.linalg import subspace_angles
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer as TorchOptimizer

from atelier.data.store import Store
from atelier.errors import AtelierError
from atelier.layers import Width
from atelier.optim import Optimizer
from atelier.report.drawing import COLOURS, Plans, grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FLOORS = {"bounds": {"train.excess": 0.01, "test.degrees": 5.0, "test.cosine": 0.9}}
LOOKS = 40  # points of a curve
ROWS = 2_000  # items added to a triangle at once
SHOWN = 8  # directions in a picture


class Net(nn.Module):
    """x -> D E x, by the family contract. It has no biases, because items come less their mean, as PCA has them."""

    target = "clean"

    def __init__(self, pixels: int, width: int, optimizer: Optimizer) -> None:
        super().__init__()
        self.encode, self.decode = nn.Linear(pixels, width, bias=False), nn.Linear(width, pixels, bias=False)
        self.optimizer = optimizer
        for layer in (self.encode, self.decode):  # neither is the larger, so one rate suits both
            nn.init.normal_(layer.weight, std=pixels**-0.5)

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))

    def optimizers(self) -> list[TorchOptimizer]:
        return [self.optimizer(self.parameters())]

    def losses(self, x: Tensor, y: Tensor) -> Iterator[dict[str, Tensor]]:
        yield {"loss": F.mse_loss(self.reconstruct(x), y)}


def measure(
    seed: int,
    store: Store,
    *,
    width: Width = 32,
    batch: Width | Literal["full"] = 128,
    epochs: Annotated[int, Ge(1)] = 40,
    lr: Annotated[float, Gt(0)] = 5.0,
) -> dict[str, Any]:
    """A linear autoencoder through `width` numbers is trained on all training items, beside PCA of the same width, by
    momentum and a one-cycle schedule. With batch full, the rows of R of the items' QR decomposition stand for them: as
    many as an item has values, with the loss and the gradients of all items for every linear map.

    excess: by how much its mean squared error is above PCA's, as a share of that, on training and on test items.
    degrees: the largest of the principal angles between the span of the decoder's columns and that of the leading
    components, 0 where they are one, 90 where one has a direction that the other knows nothing of; mean_degrees: their
    mean. degrees_halves: the largest between the components of one half of the items, drawn by the seed, and of the
    other; gap: how much less variance the next component has than the last of `width`, as a share. cosine: how near a
    component is to the nearest of the columns, mean over components, 1 if the columns were the components; overlap: how
    near a column is to the nearest of the others, 0 if they were at right angles.
    """
    from atelier.data.items import Items, items
    from atelier.fit import State, fit
    from atelier.params import Recipe

    started = time.perf_counter()
    seen, unseen = (items(store, split, None, False) for split in ("train", "test"))
    x = seen.x[:].flatten(1)
    n, pixels = x.shape
    if width >= min(n, pixels):
        raise AtelierError(f"width is {width}; give less than {store.name} has values in an item, and items")
    mean = x.mean(0)
    x = x - mean  # not in place: these may be the stored values themselves
    halves = [triangle(x[rows]) for rows in np.array_split(np.random.default_rng(seed).permutation(n), 2)]
    whole = {"train": triangle(torch.cat(halves)), "test": triangle(unseen.x[:].flatten(1) - mean)}
    bases = [components(part, width) for part in (whole["train"], *halves)]
    projection = bases[0] @ bases[0].T
    least = {split: error(part, projection) for split, part in whole.items()}
    trained_on = ((len(whole["train"]) / n) ** 0.5 * whole["train"]).float() if batch == "full" else x
    train = Items(trained_on, trained_on, torch.zeros(len(trained_on)))
    recipe = Recipe(
        epochs=epochs, batch=batch, optimizer="momentum", lr=lr, schedule="one-cycle", evaluate_every=epochs
    )
    torch.manual_seed(seed)
    model = Net(pixels, width, Optimizer(recipe.optimizer, recipe.lr, recipe.momentum))
    curve: list[dict[str, Any]] = []

    def look(state: State) -> None:
        if state.epoch % max(1, epochs // LOOKS) and state.epoch != epochs:
            return
        angles = between(columns(model), bases[0])
        excess = {split: error(part, product(model)) / least[split] - 1 for split, part in whole.items()}
        curve.append({"epoch": state.epoch, "angles": angles.tolist(), **excess})

    fit(model, recipe, seed, train, ("test", train), after_epoch=look)
    last, found = curve[-1], columns(model)
    cosines, others = (bases[0].T @ found).abs(), (found.T @ found).abs().fill_diagonal_(0.0)
    variances = torch.linalg.svdvals(whole["train"]).square()
    return {
        "train.excess": last["train"],
        "test.excess": last["test"],
        "test.degrees": last["angles"][0],
        "test.mean_degrees": float(np.mean(last["angles"])),
        "test.degrees_halves": float(between(*bases[1:])[0]),
        "test.gap": float(1 - variances[width] / variances[width - 1]),
        "test.cosine": float(cosines.amax(1).mean()),
        "test.overlap": float(others.amax(1).mean()),
        "train_s": time.perf_counter() - started,
        "series": {
            "curve": curve,
            "cosines": cosines.tolist(),
            "components": bases[0].T[:SHOWN].tolist(),
            "columns": found.T[:SHOWN].tolist(),
        },
    }


def triangle(x: Tensor) -> Tensor:
    """R of the QR decomposition of items (n, pixels), in float64: (pixels, pixels), and R^T R is x^T x. Made piece by
    piece, so that no copy of all items is needed.
    """
    found = torch.empty(0, x.shape[1], dtype=torch.float64)
    for part in x.split(ROWS):
        found = torch.linalg.qr(torch.cat([found, part.double()]), mode="r").R
    return found


def components(part: Tensor, width: int) -> Tensor:
    """The leading principal components of the items whose triangle this is: (pixels, width)."""
    return torch.linalg.svd(part).Vh[:width].T


def error(part: Tensor, product: Tensor) -> float:
    """Summed squared error of x -> x product over the items whose triangle this is."""
    return float((part @ product - part).square().sum())


def between(a: Tensor, b: Tensor) -> np.ndarray:
    """Principal angles between two spans (pixels, width) in degrees, from the largest down."""
    return np.degrees(subspace_angles(a.numpy(), b.numpy()))


@torch.no_grad()
def product(model: Net) -> Tensor:
    """The whole net as one matrix in float64, for items that are rows."""
    return model.encode.weight.double().T @ model.decode.weight.double().T


@torch.no_grad()
def columns(model: Net) -> Tensor:
    """What the decoder makes of each of the numbers alone, of length 1, in float64: (pixels, width)."""
    return nn.functional.normalize(model.decode.weight.double(), dim=0)


def pictures(store: Store, models: dict[str, dict[str, Any]], series: dict[str, list[Any]]) -> Plans:
    over_time = (
        "Over epochs, single seeds: the principal angles between the decoder's span and that of the components, the "
        "largest above; and the mean squared error above PCA's, as a share of it."
    )
    directions = f"The first {SHOWN} principal components and as many columns of the decoders, first seed. Grey is 0."
    cosines = "How near the decoder's columns are to principal components: the cosine between them without its sign."
    return {
        "angles.png": (over_time, lambda: _draw_angles(series)),
        "directions.png": (directions, lambda: _draw_directions(store, series)),
        "cosines.png": (cosines, lambda: _draw_cosines(series)),
    }


def _draw_angles(series: dict[str, list[Any]]) -> "Figure":
    figure, panels = grid(2 * len(series), 2, 4.5, 3.2)
    for line, (model, runs) in enumerate(series.items()):
        angles_axes, error_axes = panels[2 * line : 2 * line + 2]
        for run in runs:
            epochs = [point["epoch"] for point in run["curve"]]
            angles = np.array([point["angles"] for point in run["curve"]])
            for values, colour, label in ((angles[:, 0], COLOURS[1], "largest"), (angles.mean(1), COLOURS[0], "mean")):
                angles_axes.plot(epochs, values, color=colour, linewidth=0.9, label=label if run is runs[0] else None)
            for split, colour in zip(("train", "test"), COLOURS, strict=False):
                excess = [100 * point[split] for point in run["curve"]]
                label = f"{split} items" if run is runs[0] else None
                error_axes.plot(epochs, excess, color=colour, linewidth=0.9, label=label)
        angles_axes.set(title=f"{model}: principal angles", xlabel="epoch", ylabel="degrees", ylim=(0, 90))
        error_axes.set(title=f"{model}: error above PCA's", xlabel="epoch", ylabel="% of PCA's error", yscale="log")
        angles_axes.legend(fontsize=7)
        error_axes.legend(fontsize=7)
    return figure


def _draw_directions(store: Store, series: dict[str, list[Any]]) -> "Figure":
    rows = {"components": np.array(next(iter(series.values()))[0]["components"])}
    rows |= {f"columns:\n{model}": np.array(runs[0]["columns"]) for model, runs in series.items()}
    shown = max(map(len, rows.values()))
    figure, panels = grid(len(rows) * shown, shown, 1.1, 1.15)
    for axes in panels:
        axes.set_axis_off()
    for line, (label, directions) in enumerate(rows.items()):
        for place, direction in enumerate(directions):
            axes, largest = panels[line * shown + place], np.abs(direction).max()
            image = direction.reshape(-1, *store.shape[-2:])[0]
            axes.imshow(image, cmap="gray", vmin=-largest, vmax=largest)
            axes.set_title(f"{place + 1}", fontsize=7, pad=2)
        panels[line * shown].text(
            -0.15, 0.5, label, transform=panels[line * shown].transAxes, ha="right", va="center", fontsize=8
        )
    return figure


def _draw_cosines(series: dict[str, list[Any]]) -> "Figure":
    figure, panels = grid(len(series), 2, 4.6, 3.8)
    for axes, (model, runs) in zip(panels, series.items(), strict=True):
        end = len(runs[0]["cosines"]) + 0.5
        shown = axes.imshow(runs[0]["cosines"], cmap="Blues", vmin=0, vmax=1, extent=(0.5, end, end, 0.5))
        axes.set(title=f"{model}, first seed", xlabel="column of the decoder", ylabel="principal component")
        axes.grid(False)
        figure.colorbar(shown, ax=axes, label="|cosine|")
    return figure
