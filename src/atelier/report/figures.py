"""The pictures of a study's page."""

import functools
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from atelier import assess, params
from atelier.report import attacks, pruned, tables
from atelier.report.drawing import COLOURS, STYLES, Plans, ends, grid, legend_beside, save
from atelier.report.results import Results, kind_and_level, parts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DECADES = 1e2  # figures that are further apart are shown on an axis of decades


def draw(results: Results, study: params.Study, folder: Path) -> dict[str, str]:
    """Write every picture that the results have figures for.

    Returns file name -> caption, in the order of the page.
    """
    return save(_plans(results, study), folder)


def of_experiment(results: Results, entry: params.Experiment) -> Plans:
    """The figures that claims compare, or without claims all of them, model by model; and trends."""
    claimed = [c.compare.metric for c in entry.claims if not c.compare.over and not c.compare.timed]
    every = [metric for model in results.models for metric in results.metrics(model)]
    shown = list(dict.fromkeys(claimed or every))
    caption = "What the claims compare: mean and 95 % interval over seeds; dots: single seeds."
    headline = functools.partial(_headline, results, entry.published, shown)
    return {"headline.png": (caption, headline)} | trends(results, entry.claims)


def trends(results: Results, claims: Sequence[params.Claim]) -> Plans:
    """The picture of every trend that is claimed over models; none where none is."""
    panels = _trend_panels(claims)
    caption = "Every trend that is claimed, model by model: mean and 95 % interval over seeds; dots: single seeds."
    return {"trends.png": (caption, functools.partial(_trends, results, panels))} if panels else {}


def _plans(results: Results, study: params.Study) -> Plans:
    published = study.published
    plans: Plans = {}
    shown = _metrics_to_show(results, published)
    if shown:
        caption = "Mean and 95 % interval over seeds; dots: single seeds; diamond: the published figure."
        plans["headline.png"] = caption, functools.partial(_headline, results, published, shown)
    if any(_learned(results, model) for model in results.models):
        caption = (
            "Learning curves: mean and range over seeds; solid: held-out items, dashed: training items. "
            "The first tenth of training may lie outside the frame."
        )
        plans["learning-curves.png"] = caption, functools.partial(_learning_curves, results)
    plans |= trends(results, study.claims)
    if any(entry.get("settings", {}).get(penalty) for entry in results.models.values() for penalty in ("l1", "l2")):
        caption = "Weights after training: the norm of all, and how many lie under 0.001; mean and 95 % interval."
        plans["weights.png"] = caption, functools.partial(_weights, results)
    for name, file in (("accuracy", "noise.png"), ("mae", "reconstruction-noise.png")):
        if results.corruptions(name):
            caption = f"Test {name} against noise level: mean and 95 % interval."
            plans[file] = caption, functools.partial(_against_noise, results, name)
    if any(model in results.confusion for model in results.models):
        caption = "Confusion matrices on the test set, summed over seeds; shades are shares of a row."
        plans["confusion.png"] = caption, functools.partial(_confusion, results)
    return plans | pruned.plans(results) | attacks.plans(results) | of_families(results)


def of_families(results: Results) -> Plans:
    """What the families' own judges draw of the models that are theirs."""
    plans: Plans = {}
    for family in results.families:
        judge = assess.load(family)
        if hasattr(judge, "pictures"):
            own = {m: entry for m, entry in results.models.items() if entry["settings"]["family"] == family}
            settings = {model: entry["settings"] for model, entry in own.items()}
            plans |= judge.pictures(settings, {model: _series(results, model) for model in own})
    return plans


def _series(results: Results, model: str) -> list[dict[str, Any]]:
    """What a family's judge has left to draw, one dict a seed, and in each the seed's curve."""
    left = results.models[model].get("series") or [{}] * len(results.seeds)
    curves = results.curves.get(model, {})
    return [own | {"curve": curves.get(seed, {})} for seed, own in zip(results.seeds, left, strict=True)]


def _metrics_to_show(results: Results, published: dict[str, dict[str, float]]) -> list[str]:
    """Every headline metric, and every metric that a source gives a figure for."""
    headlines = [results.headline(model) for model in results.models]
    said = [m for model in results.models for m in published.get(model, {}) if m in results.metrics(model)]
    return [m for m in dict.fromkeys([*headlines, *said]) if m]


def _headline(results: Results, published: dict[str, dict[str, float]], shown: list[str]) -> "Figure":
    heights = [0.7 + 0.3 * len(results.with_metric(metric)) for metric in shown]
    figure, panels = grid(len(shown), 1, 7, sum(heights) / len(shown), height_ratios=heights)
    for axes, metric in zip(panels, shown, strict=True):
        models, scale = results.with_metric(metric), tables.scale(metric)
        for y, model in enumerate(models):
            found, said = results.summary(model, metric), published.get(model, {}).get(metric)
            if found["mean"] is not None:
                axes.plot([scale * end for end in ends(found)], [y, y], "|-", color=COLOURS[0], markersize=9)
                axes.plot(scale * found["mean"], y, "o", color=COLOURS[0])
                seeds = [scale * v for v in found["values"]]
                axes.plot(seeds, [y + 0.27] * len(seeds), ".", color=COLOURS[0], alpha=0.5, markersize=5)
            if said is not None:
                axes.plot(scale * said, y, "D", color=COLOURS[1], fillstyle="none", markeredgewidth=1.5)
        axes.set_yticks(range(len(models)), models)
        axes.set_ylim(len(models) - 0.4, -0.6)
        axes.set_xlabel(tables.label(metric))
        known = [v for model in models for v in results.summary(model, metric)["values"] if v is not None]
        if known and 0 < min(known) < max(known) / DECADES:
            axes.set_xscale("log")
    return figure


def _learning_curves(results: Results) -> "Figure":
    """A row of panels for at most six models of one kind, so that every line keeps a colour of its own."""
    kinds: dict[tuple[str, ...], list[str]] = {}
    for model in results.models:
        kinds.setdefault(_learned(results, model), []).append(model)
    kinds.pop((), None)
    n = len(COLOURS)
    rows = [(names, models[i : i + n]) for names, models in kinds.items() for i in range(0, len(models), n)]
    columns = max(len(names) for names, _ in rows)
    figure, panels = grid(len(rows) * columns, columns, 4.8, 3.4)
    for row, (names, models) in enumerate(rows):
        line = panels[row * columns : (row + 1) * columns]
        for axes, name in zip(line, names, strict=False):
            _curves(axes, results, models, name)
        line[len(names) - 1].legend(frameon=True, framealpha=0.8, edgecolor="none")
        for axes in line[len(names) :]:
            axes.set_axis_off()
    return figure


def _learned(results: Results, model: str) -> tuple[str, ...]:
    """The curves of a model that belong to a split; others, as of a game's two losses, its family's judge draws."""
    known = {parts(metric)[2] for metric in results.curve_metrics(model) if parts(metric)[0] != "running"}
    return tuple(name for name in ("loss", "accuracy") if name in known)


def _curves(axes: "Axes", results: Results, models: list[str], name: str) -> None:
    scale, later = tables.scale(name), []
    for model, colour in zip(models, COLOURS, strict=False):
        known = results.curve_metrics(model)
        held_out = next((m for m in (f"validation.{name}", f"test.{name}") if m in known), None)
        for metric, style, label in ((held_out, "-", model), (f"train.{name}", "--", None)):
            epochs, values = results.over_seeds(model, metric)
            low, mean, high = ([scale * way(v) for v in values] for way in (min, fmean, max))
            axes.plot(epochs, mean, style, color=colour, linewidth=1.3, label=label)
            axes.fill_between(epochs, low, high, color=colour, alpha=0.15, linewidth=0)
            first = len(epochs) // 10
            later += low[first:] + high[first:]
    if later:
        margin = 0.04 * (max(later) - min(later)) or 0.01
        axes.set_ylim(min(later) - margin, max(later) + margin)
    axes.set_xlabel("epoch")
    axes.set_ylabel(tables.label(name))


def _trend_panels(claims: Sequence[params.Claim]) -> dict[tuple[str, tuple[str, ...]], dict[str, tuple[str, ...]]]:
    """(metric, labels of the models) -> {label of a line: its models}.

    Claims on one metric whose models differ in their stem alone share a panel: plain-2, plain-8 and residual-2,
    residual-8 are two lines over 2 and 8.
    """
    panels: dict[tuple[str, tuple[str, ...]], dict[str, tuple[str, ...]]] = {}
    for compare in (claim.compare for claim in claims):
        if compare.over and not compare.timed:
            split = [re.fullmatch(r"(.*?)-?(\d+(?:\.\d+)?)", model) for model in compare.over]
            stems = {found[1] if found else None for found in split}
            numbered = len(stems) == 1 and None not in stems
            labels = tuple(found[2] for found in split) if numbered else compare.over
            panels.setdefault((compare.metric, labels), {})[stems.pop() if numbered else ""] = compare.over
    return panels


def _trends(results: Results, panels: dict[tuple[str, tuple[str, ...]], dict[str, tuple[str, ...]]]) -> "Figure":
    figure, every = grid(len(panels), min(len(panels), 2), 4.6, 3.3)
    for axes, ((metric, labels), lines) in zip(every, panels.items(), strict=True):
        x = _places(labels)
        for (stem, models), colour in zip(lines.items(), itertools.cycle(COLOURS)):
            found, scale = [results.summary(model, metric) for model in models], tables.scale(metric)
            axes.plot(x, [scale * s["mean"] for s in found], "o-", color=colour, label=stem, markersize=4)
            low, high = ([scale * ends(s)[end] for s in found] for end in (0, 1))
            axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
            for place, s in zip(x, found, strict=True):
                axes.plot(
                    [place] * s["n"], [scale * v for v in s["values"]], ".", color=colour, markersize=4, alpha=0.5
                )
        axes.set_xticks(x, labels, rotation=20 if max(map(len, labels)) > 6 else 0)
        axes.set_ylabel(tables.label(metric))
        stem, *others = lines
        if others:
            axes.legend()
        elif stem:
            axes.set_xlabel(stem)
    return figure


def _places(labels: Sequence[str]) -> list[float]:
    """Where labels stand on an axis: by their numbers if these are spread evenly enough to be read, else in a row."""
    try:
        values = [float(label) for label in labels]
    except ValueError:
        return list(range(len(labels)))
    steps = [b - a for a, b in itertools.pairwise(values)]
    return values if 0 < max(steps) <= 12 * min(steps) else list(range(len(labels)))


def _weights(results: Results) -> "Figure":
    metrics = ("weights.norm", "weights.small")
    figure, panels = grid(2, 2, 4.4, 0.9 + 0.3 * len(results.models), sharey=True)
    for axes, metric in zip(panels, metrics, strict=True):
        models, scale = results.with_metric(metric), tables.scale(metric)
        for y, model in enumerate(models):
            found = results.summary(model, metric)
            axes.barh(y, scale * found["mean"], color=COLOURS[0], alpha=0.6)
            axes.plot([scale * end for end in ends(found)], [y, y], "k|-", linewidth=1)
        axes.set_yticks(range(len(models)), models)
        axes.set_ylim(len(models) - 0.4, -0.6)
    panels[0].set_xlabel("norm of all weights")
    panels[1].set_xlabel("weights under 0.001 (%)")
    return figure


def _against_noise(results: Results, name: str) -> "Figure":
    """A panel for each kind of noise; level 0 is the clean test set. Floors, where there are any, are grey."""
    clean, kinds = f"test.{name}", {}
    for corruption in results.corruptions(name):
        kinds.setdefault(kind_and_level(corruption)[0], []).append(corruption)
    columns = min(len(kinds), 3)
    figure, panels = grid(len(kinds), columns, 3.4, 3.1, sharey=True)
    for axes, (kind, corruptions) in zip(panels, kinds.items(), strict=True):
        levels = {0.0: clean} | {kind_and_level(c)[1]: f"test.{c}.{name}" for c in corruptions}
        for i, model in enumerate(results.with_metric(clean)):
            found = {x: results.summary(model, metric) for x, metric in levels.items()}
            known = {x: s for x, s in found.items() if s and s["mean"] is not None}
            means = [tables.scale(name) * s["mean"] for s in known.values()]
            reach = [
                tables.scale(name) * s["ci95"][1] - mean if s["ci95"] else 0
                for s, mean in zip(known.values(), means, strict=True)
            ]
            style = "o" + STYLES[i // len(COLOURS) % len(STYLES)]
            axes.errorbar(list(known), means, reach, fmt=style, color=COLOURS[i % len(COLOURS)],
                          markersize=4, capsize=3, linewidth=1.3, label=model)  # fmt: skip
        for i, (floor, figures) in enumerate(sorted(results.floors.items())):
            known = {x: figures[metric] for x, metric in levels.items() if figures.get(metric) is not None}
            if known:
                style = STYLES[i % len(STYLES)]
                axes.plot(list(known), list(known.values()), style, color="grey", linewidth=1, label=floor)
        axes.set_xlabel(f"{kind} level")
    for axes in panels[::columns]:
        axes.set_ylabel(tables.label(clean))
    legend_beside(panels[columns - 1])
    return figure


def _confusion(results: Results) -> "Figure":
    """A panel per model; the classes are named at the left and under the lowest panel of each column."""
    models = [m for m in results.models if m in results.confusion]
    names = [str(c) for c in results.confusion[models[0]]["classes"]]
    columns = min(len(models), 3)
    size = 0.8 + 0.3 * len(names)
    figure, panels = grid(len(models), columns, size, size)
    for place, (axes, model) in enumerate(zip(panels, models, strict=True)):
        matrix = results.confusion[model]["matrix"]
        shares = [[v / max(sum(row), 1) for v in row] for row in matrix]
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for y, row in enumerate(matrix):
            for x, value in enumerate(row):
                if value:
                    font = {"fontsize": 6 if value < 1000 else 5, "color": "white" if shares[y][x] > 0.5 else "black"}
                    axes.text(x, y, str(value), ha="center", va="center", **font)
        axes.set_xticks(range(len(names)), names, rotation=90 if max(map(len, names)) > 2 else 0)
        axes.set_yticks(range(len(names)), names)
        axes.grid(False)
        axes.set_title(model, fontsize=9)
        lowest, leftmost = place + columns >= len(models), place % columns == 0
        axes.tick_params(labelbottom=lowest, labelleft=leftmost)
        axes.set_xlabel("predicted" if lowest else "")
        axes.set_ylabel("true" if leftmost else "")
    return figure
