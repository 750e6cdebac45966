"""A trained net's weights in a text file, read and evaluated by products of NumPy alone: does it still answer alike?"""

import copy
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from annotated_types import Ge

from atelier.byhand import inference
from atelier.data.store import Store
from atelier.experiments import dense_net
from atelier.layers import Width
from atelier.report.drawing import COLOURS, Plans, grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor, nn

FLOORS = {
    "a-millionth": {"test.deviation": 1e-6, "test.deviation_float32": 1e-6},
    "published": {"train.accuracy": 0.973, "test.accuracy": 0.965},
}
CHUNK = 5_000  # images evaluated at once
DECADES = np.arange(-19.0, -2.75, 0.25)  # edges of the histogram's bins

Unit = Literal["linear", "relu", "sigmoid", "tanh"]
BY_HAND = {"sigmoid": "logistic"}  # where byhand has another name


def measure(
    seed: int,
    store: Store,
    *,
    hidden: tuple[Width, ...] = (100, 50),
    activation: tuple[Unit, ...] = ("sigmoid", "relu"),
    epochs: Annotated[int, Ge(1)] = 10,
) -> dict[str, Any]:
    """A dense net is trained on all training images and written to a text file; NumPy reads that and answers.

    accuracy: NumPy's, on training and test images. Over all images and classes, the largest difference of NumPy's
    probabilities from the framework's: deviation, where both count in float64; deviation_float32, where the framework
    counts in float32 as it did in training. other_class: the share of images to which these two give another class.
    """
    import torch

    from atelier.data.items import items
    from atelier.fit import fit
    from atelier.params import Recipe

    seen = {split: items(store, split, None, False) for split in ("train", "test")}
    recipe = Recipe(epochs=epochs, evaluate_every=epochs)
    model = dense_net(store, seed, recipe, hidden=hidden, activation=activation)
    fit(model, recipe, seed, seen["train"], ("test", seen["test"]))
    with tempfile.TemporaryDirectory() as folder:
        inference.write(Path(folder) / "weights.txt", by_hand(model, activation))
        net = inference.read(Path(folder) / "weights.txt")
    double, found = copy.deepcopy(model).double(), {}
    gaps: dict[str, list[np.ndarray]] = {"float64": [], "float32": []}
    others = []
    for split, part in seen.items():
        right = 0
        for start in range(0, len(part), CHUNK):
            x, y = part.x[start : start + CHUNK].double(), part.y[start : start + CHUNK].numpy()
            ours = inference.answers(net, x.flatten(1).numpy())
            exact, usual = framework(double, x), framework(model, x.to(torch.float32))
            gaps["float64"].append(np.abs(ours - exact).max(axis=1))
            gaps["float32"].append(np.abs(ours - usual).max(axis=1))
            others.append(ours.argmax(axis=1) != usual.argmax(axis=1))
            right += int((ours.argmax(axis=1) == y).sum())
        found[f"{split}.accuracy"] = right / len(part)
    by_type = {name: np.concatenate(parts) for name, parts in gaps.items()}
    return found | {
        "test.deviation": float(by_type["float64"].max()),
        "test.deviation_float32": float(by_type["float32"].max()),
        "test.other_class": float(np.concatenate(others).mean()),
        "series": {name: counted(gap).tolist() for name, gap in by_type.items()},
    }


def by_hand(model: "nn.Module", activation: tuple[str, ...]) -> list[inference.Dense]:
    """The layers of a dense net in float64, with softmax after the last."""
    layers = zip((*model.layers, model.head), (*activation, "softmax"), strict=True)
    return [
        inference.Dense(
            layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy(), BY_HAND.get(name, name)
        )
        for layer, name in layers
    ]


def framework(model: "nn.Module", x: "Tensor") -> np.ndarray:
    import torch

    with torch.no_grad():
        return model.eval().classify(x).softmax(1).double().numpy()


def counted(gap: np.ndarray) -> np.ndarray:
    """How many images have a difference of each size; those that are smaller than all bins, in the first."""
    return np.histogram(np.log10(np.maximum(gap, 10 ** DECADES[0])), DECADES)[0]


def text(models: dict[str, dict[str, Any]], series: dict[str, list[Any]]) -> str:
    """The format of the file, as the module that reads it has it."""
    about = (inference.__doc__ or "").partition("\n\n")[2].strip()
    return f"## The file\n\n{about}"


def pictures(store: Store, models: dict[str, dict[str, Any]], series: dict[str, list[Any]]) -> Plans:
    caption = (
        "By how much NumPy's probabilities differ from the framework's, at most over the classes: images by size of "
        "the difference, first seed; the line is one millionth."
    )
    return {"differences.png": (caption, lambda: _draw(series))}


def _draw(series: dict[str, list[Any]]) -> "Figure":
    figure, panels = grid(len(series), 2, 5.5, 3.0)
    for axes, (model, runs) in zip(panels, series.items(), strict=True):
        for (name, counts), colour in zip(runs[0].items(), COLOURS, strict=False):
            axes.stairs(counts, 10**DECADES, color=colour, fill=True, alpha=0.6, label=f"framework in {name}")
        axes.axvline(1e-6, color="0.3", linewidth=0.8)
        axes.set(title=model, xscale="log", yscale="log", xlabel="difference of probabilities", ylabel="images")
        axes.legend(fontsize=7)
    return figure
