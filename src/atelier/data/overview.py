"""What a person looks at before trusting a data set: counts, sample items, and every corruption side by side."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from atelier import files
from atelier.data.sources import Source
from atelier.data.store import Store
from atelier.data.windows import Standard
from atelier.report import drawing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SAMPLES = 10  # of each class
_INCHES = 0.62  # an item's side


def write(
    folder: Path, store: Store, source: Source, items: dict[str, dict[str, int]], standard: Standard | None = None
) -> None:
    """Write index.md and pictures. `items`: split -> class -> number of items; `standard`: that of windows."""
    x, y = store.split("test")
    of_class = [np.flatnonzero(y == label) for label in range(len(store.classes))]
    page = [*_head(store, source, items), *(_signals(store, standard) if standard else _samples())]
    if standard:
        shown = zip(store.classes, of_class, strict=True)
        first = {name: standard.undo(x[found[0]]) for name, found in shown if len(found)}
        drawing.save({"samples.png": ("", lambda: _curves(first, standard))}, folder)
    else:
        _grid(folder / "samples.png", [x[found[:_SAMPLES]] for found in of_class], store.classes)
    if store.corruptions("test"):
        page += _corruptions(folder, store, x, y, [found[0] for found in of_class if len(found)])
    files.write_text(folder / "index.md", "\n".join(page))


def _head(store: Store, source: Source, items: dict[str, dict[str, int]]) -> list[str]:
    splits = ("train", "validation", "test")
    return [
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
        *([source.note] if source.note else []),
        "",
    ]


def _samples() -> list[str]:
    return ["![Test items of every class](samples.png)", ""]


def _signals(store: Store, standard: Standard) -> list[str]:
    """The windows of a data set of sensors: how they look, what their channels are."""
    channels, steps = store.shape
    rate = standard.signals.rate
    rows = []
    for sensor, own in standard.signals.by_sensor():
        figures = (", ".join(f"{value:.4g}" for value in of[own]) for of in (standard.mean, standard.deviation))
        rows.append(
            f"| {sensor.name} | {', '.join(sensor.axes) or '-'} | {sensor.unit or '-'} | {' | '.join(figures)} |"
        )
    return [
        f"An item is a window of {channels} channels and {steps} steps, {rate:.1f} a second: {steps / rate:.2f} s.",
        "",
        "![A test window of every class, a row for each sensor in its own unit](samples.png)",
        "",
        "## Channels",
        "",
        "What is stored has the mean taken off and is divided by the standard deviation, those of the training windows",
        "without the ones for validation. No corruptions are stored: noise is defined for pixels in [0, 1].",
        "",
        "| sensor | axes | unit | mean | standard deviation |",
        "|---|---|---|--:|--:|",
        *rows,
        "",
    ]


def _corruptions(folder: Path, store: Store, x: np.ndarray, y: np.ndarray, first: list[int]) -> list[str]:
    """The section on noisy images, and noise.png with the items `first` under each corruption."""
    rows, errors = {"clean": x[first]}, {}
    for name in store.corruptions("test"):
        noisy, _ = store.split("test", name)
        rows[name] = noisy[first]
        errors[name] = float(np.mean(np.abs(noisy - x), dtype=np.float64))
    _grid(folder / "noise.png", list(rows.values()), list(rows), [store.classes[label] for label in y[first]])
    stored = store.corruptions("train")
    return [
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


def _curves(windows: dict[str, np.ndarray], standard: Standard) -> "Figure":
    """A row for each sensor with the windows (channels, steps) of all classes side by side, each from 0 s on."""
    sensors, steps = standard.signals.sensors, next(iter(windows.values())).shape[1]
    seconds = np.arange(steps) / standard.signals.rate
    begins = np.arange(len(windows)) * 1.15 * seconds[-1]
    ticks = np.arange(np.floor(seconds[-1]) + 1)
    height = 1.5 if len(sensors) < 6 else 1.0
    figure, panels = drawing.grid(len(sensors), 1, 1.5 + 1.5 * len(windows), height, sharex=True)
    for panel, (sensor, own) in zip(panels, standard.signals.by_sensor(), strict=True):
        for begin, window in zip(begins, windows.values(), strict=True):
            panel.set_prop_cycle(color=drawing.COLOURS)
            drawn = panel.plot(begin + seconds, window[own].T, linewidth=1)
        label = sensor.name.replace(" ", "\n")
        panel.set_ylabel(f"{label}\n({sensor.unit})" if sensor.unit else label, rotation=0, ha="right", va="center")
        if sensor.axes:
            panel.legend(drawn, sensor.axes, loc="center left", bbox_to_anchor=(1, 0.5), handlelength=1)
    for begin, name in zip(begins, windows, strict=True):
        middle = begin + seconds[-1] / 2
        panels[0].text(middle, 1.05, name, transform=panels[0].get_xaxis_transform(), ha="center")
    panels[-1].set_xticks((begins[:, None] + ticks).ravel(), [f"{tick:g}" for tick in ticks] * len(windows))
    panels[-1].set_xlabel("seconds")
    panels[-1].set_xlim(-0.1, begins[-1] + seconds[-1] + 0.1)
    return figure


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
