"""The pictures of the benchmark's page."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from atelier import files
from atelier.report.drawing import COLOURS, DOTS_PER_INCH, LOOK
from bench.anchors import ITEMS
from bench.rows import relative_to_largest, setting

Measured = dict[str, Any]


def draw(details: Measured, rows: list[Measured], folder: Path) -> dict[str, str]:
    """Write the pictures; file name -> caption."""
    plans: dict[str, tuple[str, Callable[[], Figure]]] = {}
    against_keras = [row for row in rows if row["peer"] == "keras"]
    if against_keras:
        caption = "How many times as fast as Keras in fp32; the line is equal speed."
        plans["ratio.png"] = caption, lambda: _bars(against_keras, "ratio", "times Keras's speed")
        caption = "Peak memory as a share of Keras's; the line is equal memory."
        memory = [row | {"share": row["peak_memory_mib"] / row["peer_peak_memory_mib"]} for row in against_keras]
        plans["memory.png"] = caption, lambda: _bars(memory, "share", "share of Keras's peak memory")
    caption = (
        "Seconds for 60,000 items against the size of the set (1 is the largest set's; grey: within a tenth of it) and "
        "against the width of one hidden layer; seconds of a whole small study against seeds, and by workers."
    )
    plans["growth.png"] = caption, lambda: _growth(details["growth"])
    for file, (_, picture) in plans.items():
        buffer = io.BytesIO()
        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(LOOK)
            picture().savefig(buffer, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
        files.write_bytes(folder / file, buffer.getvalue())
    return {file: caption for file, (caption, _) in plans.items()}


def _bars(rows: list[Measured], figure: str, label: str) -> Figure:
    """A group of bars for each anchor, one for each way of training."""
    names = list(dict.fromkeys(f"{row['job']}\nbatch {row['batch']}" for row in rows))
    ways = list(dict.fromkeys((row["precision"], row["seeds"]) for row in rows))
    drawing = Figure(figsize=(7.5, 0.5 + 0.75 * len(names)), layout="constrained")
    axes = drawing.subplots()
    height = 0.8 / len(ways)
    for i, (precision, seeds) in enumerate(ways):
        own = [row for row in rows if (row["precision"], row["seeds"]) == (precision, seeds)]
        places = [names.index(f"{row['job']}\nbatch {row['batch']}") - 0.4 + (i + 0.5) * height for row in own]
        bars = axes.barh(
            places, [row[figure] for row in own], height, color=COLOURS[i], label=f"{precision}, {setting(seeds)}"
        )
        axes.bar_label(bars, fmt="%.2f", padding=2, fontsize=7)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.margins(x=0.1)
    axes.set_xlabel(label)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0))
    return drawing


def _growth(growth: Measured) -> Figure:
    drawing = Figure(figsize=(11, 2.9), layout="constrained")
    samples, width, seeds, workers = drawing.subplots(1, 4)
    points = relative_to_largest(growth["samples"])
    for i, job in enumerate(dict.fromkeys(point["job"] for point in points)):
        own = [point for point in points if point["job"] == job]
        x, y = [point["samples"] for point in own], [point["relative"] for point in own]
        samples.plot(x, y, "o-", color=COLOURS[i], label=job, markersize=3)
    samples.axhspan(0.9, 1.1, color="black", alpha=0.07)
    samples.set(xscale="log", xlabel="samples", ylabel="seconds an item, relative", ylim=(0, None))
    sizes = sorted({point["samples"] for point in points})
    samples.set_xticks(sizes, [f"{size / 1000:g}k" for size in sizes])
    samples.minorticks_off()
    samples.legend(fontsize=6, loc="lower right")
    x = [point["width"] for point in growth["width"]]
    width.plot(x, [point["per_60000"] for point in growth["width"]], "o-", color=COLOURS[0], markersize=3)
    width.set(xlabel="units of the hidden layer", ylabel=f"seconds for {ITEMS:,} items", ylim=(0, None))
    most = max(point["workers"] for point in growth["studies"])
    by_seeds = [point for point in growth["studies"] if point["workers"] == most]
    x = [point["seeds"] for point in by_seeds]
    seeds.plot(x, [point["seconds"] for point in by_seeds], "o-", color=COLOURS[0], markersize=3)
    seeds.set(xlabel=f"seeds on {most} workers", ylabel="seconds of the study", ylim=(0, None))
    by_workers = studies_by_workers(growth["studies"])
    bars = workers.bar(
        [str(point["workers"]) for point in by_workers], [point["seconds"] for point in by_workers], color=COLOURS[0]
    )
    workers.bar_label(bars, fmt="%.1f", fontsize=7)
    workers.set(xlabel=f"workers, {by_workers[0]['seeds']} seeds", ylabel="seconds of the study")
    return drawing


def studies_by_workers(studies: list[Measured]) -> list[Measured]:
    """The studies of as many seeds as were run on one worker, by workers."""
    seeds = next(point["seeds"] for point in studies if point["workers"] == 1)
    return sorted((point for point in studies if point["seeds"] == seeds), key=lambda point: point["workers"])
