"""The pictures of pruned nets: figures against sizes, way by way and all together, and what is left of each layer."""

import functools
import itertools
from typing import TYPE_CHECKING

from atelier.report import costs, tables
from atelier.report.drawing import COLOURS, STYLES, Plans, ends, grid, legend_beside
from atelier.report.results import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WAY = ("criterion", "schedule", "recovery")


def plans(results: Results) -> Plans:
    """None where nothing was pruned."""
    found = costs.of_sizes(results)
    ways = _layer_ways(results)
    if ways:
        caption = "How many nodes of each layer are left where all layers are ranked together, first seed."
        found["layers.png"] = caption, functools.partial(_layers, results, ways)
    for model in dict.fromkeys(g["model"] for g in results.pruned if g["test"]["mean"] is not None):
        caption = (
            f"{model}: test figure against size, mean and 95 % interval; ring: the point chosen on validation. "
            "Nets without recovery may lie outside the frame."
        )
        found[f"pruning-{model}.png"] = caption, functools.partial(_pruning, results, model)
    return found


def _pruning(results: Results, model: str) -> "Figure":
    """The test figure against both sizes. A row per criterion, a colour per recovery, a line style per schedule."""
    from matplotlib.ticker import EngFormatter

    groups = [g for g in results.pruned if g["model"] == model and g["test"]["mean"] is not None]
    metric, exact, dense = f"test.{groups[0]['metric']}", results.models[model]["exact"], groups[0]["dense"]
    scale = tables.scale(metric)
    recovered = [g["test"] for g in groups if g["recovery"] != "none"] or [g["test"] for g in groups]
    shown = [scale * found["mean"] for found in [*recovered, dense] if found["mean"] is not None]
    margin = 0.1 * (max(shown) - min(shown)) or 0.5
    bottom, top = min(shown) - margin, max(shown) + margin
    criteria, schedules, recoveries = (list(dict.fromkeys(g[k] for g in groups)) for k in _WAY)
    sizes = ("parameters", "multiply_adds")
    figure, panels = grid(len(criteria) * len(sizes), len(sizes), 4.4, 3, sharex="col", sharey=True)
    for axes, (criterion, size) in zip(panels, itertools.product(criteria, sizes), strict=True):
        for schedule, recovery in itertools.product(schedules, recoveries):
            line = [g for g in groups if [g[k] for k in _WAY] == [criterion, schedule, recovery]]
            if not line:  # not every schedule has every recovery
                continue
            line.sort(key=lambda g: g[size])
            x, y = [g[size] for g in line], [scale * g["test"]["mean"] for g in line]
            colour, style = COLOURS[recoveries.index(recovery)], STYLES[schedules.index(schedule)]
            label = recovery if len(schedules) == 1 else f"{recovery}, {schedule}"
            axes.plot(x, y, "o" + style, color=colour, markersize=3.5, linewidth=1.3, label=label)
            low, high = ([scale * ends(g["test"])[end] for g in line] for end in (0, 1))
            inside = [bottom <= mean <= top for mean in y]  # the band of a line that left the frame would fill it
            axes.fill_between(x, low, high, where=inside, color=colour, alpha=0.1, linewidth=0)
            chosen = [i for i, g in enumerate(line) if g["chosen"]]
            axes.plot([x[i] for i in chosen], [y[i] for i in chosen], "ko", markersize=9, fillstyle="none")
        if dense["mean"] is not None:
            axes.plot(exact[size], scale * dense["mean"], "k*", markersize=10, label="dense")
        axes.set_ylim(bottom, top)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.set_title(criterion, fontsize=9)
    for axes, size in zip(panels[-2:], sizes, strict=True):
        axes.set_xlabel(size.replace("_", "-"))
    for axes in panels[::2]:
        axes.set_ylabel(tables.label(metric))
    legend_beside(panels[1])
    return figure


def _layer_ways(results: Results) -> list[tuple[str, str, str]]:
    """(model, criterion, schedule) of the ways that leave layers unequal shares."""
    ways = [(g["model"], g["criterion"], g["schedule"]) for g in results.pruned if g["recovery"] == "finetune"]
    return [way for way in dict.fromkeys(ways) if way[1].startswith("global-")]


def _layers(results: Results, ways: list[tuple[str, str, str]]) -> "Figure":
    """A panel for each way, a line for each layer, in the order in which an item meets them; inputs come last."""
    figure, panels = grid(len(ways), min(3, len(ways)), 3.6, 3, sharey=True)
    for axes, way in zip(panels, ways, strict=True):
        model, criterion, schedule = way
        own = [g for g in results.pruned if (g["model"], g["criterion"], g["schedule"]) == way]
        found = {0.0: next(p["widths"] for p in results.points if p["model"] == model and not p["level"])}
        found |= {g["level"]: g["widths"] for g in own if g["recovery"] == "finetune"}
        levels = sorted(found)
        for number, (whole, colour) in enumerate(zip(found[0.0], itertools.cycle(COLOURS)), 1):
            left = [100 * found[level][number - 1] / whole for level in levels]
            axes.plot(levels, left, "o-", color=colour, markersize=4, label=f"layer {number} of {whole}")
        axes.set_xlabel("level")
        axes.set_title(f"{model}: {criterion}, {schedule}", fontsize=9)
        axes.legend(fontsize=7)
    panels[0].set_ylabel("nodes left (%)")
    return figure
