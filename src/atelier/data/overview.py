"""What a person looks at before trusting a data set: counts, sample items, and every corruption side by side."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from atelier import files
from atelier.data.sources import Source
from atelier.data.store import Store

_SAMPLES = 10  # of each class
_INCHES = 0.62  # an item's side


def write(folder: Path, store: Store, source: Source, items: dict[str, dict[str, int]]) -> None:
    """Write index.md, samples.png and noise.png. `items`: split -> class -> number of items."""
    x, y = store.split("test")
    of_class = [np.flatnonzero(y == label) for label in range(len(store.classes))]
    _grid(folder / "samples.png", [x[found[:_SAMPLES]] for found in of_class], store.classes)

    first = [found[0] for found in of_class if len(found)]
    rows, errors = {"clean": x[first]}, {}
    for name in store.corruptions("test"):
        noisy, _ = store.split("test", name)
        rows[name] = noisy[first]
        errors[name] = float(np.mean(np.abs(noisy - x), dtype=np.float64))
    _grid(folder / "noise.png", list(rows.values()), list(rows), [store.classes[label] for label in y[first]])

    files.write_text(folder / "index.md", _page(store, source, items, errors))


def _page(store: Store, source: Source, items: dict[str, dict[str, int]], errors: dict[str, float]) -> str:
    splits = ("train", "validation", "test")
    stored = store.corruptions("train")
    lines = [
        f"# {store.name}",
        "",
        f"{source.title}. Licence: {source.licence}.",
        "",
        "| class | train | validation | test |",
        "|---|--:|--:|--:|",
        *(f"| {name} | {' | '.join(str(items[split][name]) for split in splits)} |" for name in store.classes),
        f"| all | {' | '.join(str(sum(items[split].values())) for split in splits)} |",
        "",
        "Validation items are training items that a study may hold out; a study that does not trains on both columns.",
        "",
        "![Test items of every class](samples.png)",
        "",
        "## Corruptions",
        "",
        "The mean absolute error is that of giving a corrupted test item back as it is: what a denoiser has to beat.",
        "",
        "| corruption | test MAE | stored for training |",
        "|---|--:|---|",
        *(f"| {name} | {error:.4f} | {'yes' if name in stored else 'no'} |" for name, error in errors.items()),
        "",
        "![One test item of each class under every corruption](noise.png)",
        "",
    ]
    return "\n".join(lines)


def _grid(path: Path, rows: list[np.ndarray], labels: Sequence[str], titles: Sequence[str] = ()) -> None:
    """A picture with one row of items (n, channels, height, width) to a label; it shows the first channel."""
    from matplotlib.figure import Figure

    height, width = rows[0].shape[-2:]
    down, across = height + 1, width + 1
    columns = max(map(len, rows))
    mosaic = np.ones((len(rows) * down, columns * across))
    for r, row in enumerate(rows):
        for c, item in enumerate(row):
            mosaic[r * down : r * down + height, c * across : c * across + width] = item[0]
    figure = Figure(figsize=(1.8 + _INCHES * columns, 0.8 + _INCHES * len(rows)), dpi=110, layout="constrained")
    axes = figure.subplots()
    axes.imshow(mosaic, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_yticks(np.arange(len(rows)) * down + height / 2, labels)
    axes.set_xticks(np.arange(len(titles)) * across + width / 2, titles, rotation=40, ha="left", rotation_mode="anchor")
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    files.write_bytes(path, buffer.getvalue())
