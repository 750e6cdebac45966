"""Grids of items: what a model gets wrong, what it rebuilds."""

import io
from pathlib import Path

import numpy as np
import torch
from torch import nn

from atelier import files
from atelier.assess import Row
from atelier.data.items import Items
from atelier.fit import first_of_each_class
from atelier.report.png import packed

IMAGE, WINDOW = 0.8, 1.6  # inches: curves need room, and so do the names of what people do
WINDOWS = 5  # in a line
SEEN = ("clean", "input")  # rows of items as they are, and as a model that rebuilds them sees them


def mistakes(test: Items, answers: np.ndarray, classes: list[str], count: int = 10) -> list[Row]:
    """A row of the items that a model got wrong with most confidence, each under its class and the predicted one.

    answers: log-probabilities (n, classes).
    """
    y, predicted = test.y.numpy(), answers.argmax(1)
    wrong = np.flatnonzero(predicted != y)
    worst = wrong[np.argsort(-answers[wrong].max(1), kind="stable")][:count]
    captions = [f"{classes[y[i]]}\nas {classes[predicted[i]]}" for i in worst]
    return [("surest mistakes", test.x[worst].numpy(), captions)]


def reconstructions(seen: Items, rebuilt: np.ndarray, snapshots: Path) -> list[Row]:
    """One item of each class: as it is, as the model sees it, as it was rebuilt at snapshot epochs and at the end."""
    chosen = first_of_each_class(seen.y)
    rows = [(label, x[chosen].numpy(), []) for label, x in zip(SEEN, (seen.clean, seen.x), strict=True)]
    if snapshots.exists():
        with np.load(snapshots) as shots:
            rows += [(f"epoch {epoch}", shots[epoch] / 255, []) for epoch in sorted(shots, key=int)]
    return [*rows, ("at the end", rebuilt, [])]


def samples(model: nn.Module, seed: int, count: int = 10, lines: int = 2) -> list[Row]:
    """Rows of items that a model draws, if it can."""
    if not hasattr(model, "sample"):
        return []
    torch.manual_seed(seed)
    with torch.no_grad():
        drawn = model.eval().sample(count * lines).cpu().numpy()
    return [("samples" if i == 0 else "", drawn[i * count : (i + 1) * count], []) for i in range(lines)]


def examples(path: Path, by_model: dict[str, list[Row]]) -> None:
    """A PNG with a block for each model and a line of items for each row; items that are no images become curves."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [
        (f"{model}\n{label}", items if _images(items) else items[:WINDOWS], captions)
        for model, block in _below_what_they_saw(by_model)
        for label, items, captions in block
    ]
    columns = max((len(items) for _, items, _ in rows), default=1)
    width = IMAGE if all(_images(items) for _, items, _ in rows) else WINDOW
    figure = Figure(
        figsize=(1.4 + width * columns, 0.3 + sum(0.85 + 0.3 * bool(c) for _, _, c in rows)), layout="constrained"
    )
    FigureCanvasAgg(figure)
    heights = [0.85 + 0.3 * bool(captions) for _, _, captions in rows]
    grid = figure.subplots(max(len(rows), 1), columns, squeeze=False, height_ratios=heights or [1])
    for axis in grid.flat:
        axis.set_axis_off()
    for line, (label, items, captions) in zip(grid, rows, strict=False):
        line[0].text(-0.25, 0.5, label, transform=line[0].transAxes, ha="right", va="center", fontsize=8)
        for axis, item, caption in zip(line, items, captions or [""] * len(items), strict=False):
            if _images(items):
                axis.imshow(item[0], cmap="gray", vmin=0, vmax=1)
            else:
                axis.plot(item.reshape(item.shape[0], -1).T, linewidth=0.5)
            axis.set_title(caption, fontsize=6, pad=2)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100, metadata={"Software": None})
    files.write_bytes(path, packed(buffer.getvalue()))


def _below_what_they_saw(by_model: dict[str, list[Row]]) -> list[tuple[str, list[Row]]]:
    """The blocks, those of models that rebuilt the same from the same below one another, and that only once."""
    alike: dict[bytes, list[tuple[str, list[Row]]]] = {}
    for model, block in by_model.items():
        shown = b"".join(items.tobytes() for label, items, _ in block if label in SEEN) or model.encode()
        above = [row for row in block if row[0] not in SEEN] if shown in alike else block
        alike.setdefault(shown, []).append((model, above))
    return [block for blocks in alike.values() for block in blocks]


def _images(items: np.ndarray) -> bool:
    return items.ndim == 4 and items.shape[1] == 1
