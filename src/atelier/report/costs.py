"""What results cost: figures against sizes and seconds, with the frontier of what no other beats in both."""

import itertools
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

from atelier.report import tables
from atelier.report.drawing import COLOURS, Plans, by_decades, frontier, grid
from atelier.report.results import Results, higher_is_better

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DENSE = "dense"
SIZES = ("parameters", "multiply_adds", "bytes")
RUNTIMES = {"torch": "PyTorch", "onnx": "ONNX Runtime", "onnx-int8": "ONNX Runtime, int8"}


class Net(NamedTuple):
    """A point of a picture: its figure, the mean of a metric, and what it costs, by name."""

    label: str
    group: str
    metric: str
    figure: float
    costs: Mapping[str, float]


def latency(records: Sequence[dict[str, Any]]) -> str:
    """Tables, one a model: milliseconds in each runtime, and how many times as fast as the first net there."""
    bodies = []
    for model in dict.fromkeys(record["model"] for record in records):
        own = {(r["net"], r["runtime"], r["batch"]): r for r in records if r["model"] == model}
        nets, runtimes, batches = (list(dict.fromkeys(key[i] for key in own)) for i in range(3))
        rows = []
        for net in nets:
            cells = []
            for batch in batches:
                for runtime in runtimes:
                    found, first = own[net, runtime, batch], own[nets[0], runtime, batch]
                    faster = first["median_ms"] / found["median_ms"]
                    cells.append(f"{found['median_ms']:.3g} ({found['p95_ms']:.3g}), {faster:.3g}×")
            rows.append([net, *cells])
        columns = [f"{RUNTIMES[runtime]}, {_items(batch)}" for batch in batches for runtime in runtimes]
        bodies += [f"### {model}", tables.table(["Net", *columns], rows)]
    note = (
        "Milliseconds a call takes on one thread: the median (95th percentile) of calls in turns, and how many times "
        "as fast as the first net in the same runtime. Nets of one shape are timed once, first seed."
    )
    return "\n\n".join(["## Latency", note, *bodies]) if bodies else ""


def _items(batch: int) -> str:
    return f"{batch:,} item{'s' * (batch > 1)}"


def of_models(results: Results, jobs: Sequence[dict[str, Any]]) -> Plans:
    """The models of a study by what training, storing and asking them costs, where all of that is known; a cost that is
    the same for all is not shown.
    """
    metric = next((results.headline(model) for model in results.models), None)
    nets = []
    for model in results.with_metric(metric) if metric else ():
        own = [job for job in jobs if job["model"] == model]
        costs = {
            "minutes of training": _mean([job.get("train_s") for job in own], 1 / 60),
            "parameters": results.models[model]["exact"].get("parameters"),
            "microseconds an item": _mean([job.get("inference_s_per_1000") for job in own], 1000),
        }
        figure = results.summary(model, metric)["mean"]
        if None not in (figure, *costs.values()):
            nets.append(Net(model, "", metric, figure, costs))
    differs = [name for name in (nets[0].costs if nets else ()) if len({net.costs[name] for net in nets}) > 1]
    nets = [net._replace(costs={name: net.costs[name] for name in differs}) for net in nets]
    caption = "Test figure against what a model costs, means over seeds; the line: models that no other beats in both."
    return {"models.png": (caption, lambda: draw(nets))} if len(nets) > 2 and differs else {}


def _mean(values: Sequence[float | None], scale: float) -> float | None:
    return scale * fmean(values) if values and all(values) else None


def of_pruned(results: Results, records: Sequence[dict[str, Any]]) -> Plans:
    """Dense and fine-tuned nets by their milliseconds in PyTorch; nets of one shape share a latency."""
    own = [record for record in records if record["runtime"] == "torch" and "widths" in record]
    times = {(r["model"], *r["widths"], r["batch"]): r["median_ms"] for r in own}
    batches = sorted({record["batch"] for record in own})
    nets = []
    for net, widths in _tuned(results):
        costs = {f"milliseconds for {_items(b)}": times.get((net.group, *widths, b)) for b in batches}
        if costs and None not in costs.values():
            nets.append(net._replace(costs=costs))
    caption = (
        "Test figure of dense (stars) and fine-tuned nets against milliseconds in PyTorch, one thread. The nets of a "
        "model were timed in turns, one model after the other: compare times within a model."
    )
    return {"pruned.png": (caption, lambda: draw(nets))} if nets else {}


def of_sizes(results: Results) -> Plans:
    """Dense and fine-tuned nets by what they hold and compute."""
    nets = [net for net, _ in _tuned(results)]
    caption = (
        "Test figure of dense (stars) and fine-tuned nets against their size, means over seeds; bytes are those of the "
        "net's file as it is; the lines: nets that no other of the model beats in both."
    )
    return {"frontier.png": (caption, lambda: draw(nets))} if nets else {}


def _tuned(results: Results) -> list[tuple[Net, tuple[int, ...]]]:
    """Every dense net that was pruned, its fine-tuned nets after it, with their widths, first seed."""
    found = []
    for group in results.pruned:
        if group["recovery"] == "finetune" and group["test"]["mean"] is not None:
            label = f"{group['criterion']} {group['schedule']} {group['level']:g}"
            net = Net(label, group["model"], f"test.{group['metric']}", group["test"]["mean"], _sizes(group))
            found.append((net, group["widths"]))
    for model, metric in {net.group: net.metric for net, _ in found}.items():
        dense = [point for point in results.points if point["model"] == model and not point["level"]]
        sizes = {name: _mean([point.get(name) for point in dense], 1) for name in SIZES}
        figure = next(g["dense"]["mean"] for g in results.pruned if g["model"] == model)
        if figure is not None:
            found.append((Net(DENSE, model, metric, figure, _sizes(sizes)), tuple(dense[0]["widths"])))
    return found


def _sizes(entry: Mapping[str, Any]) -> dict[str, float]:
    return {name.replace("_", "-"): entry[name] for name in SIZES if entry.get(name) is not None}


def draw(nets: Sequence[Net]) -> "Figure":
    """A row for each metric, a panel for each cost, a colour for each group, a line along each group's frontier."""
    names, groups = list(nets[0].costs), list(dict.fromkeys(net.group for net in nets))
    metrics = list(dict.fromkeys(net.metric for net in nets))
    colours = dict(zip(groups, itertools.cycle(COLOURS)))
    figure, panels = grid(len(metrics) * len(names), len(names), 4.2, 3.4, sharex="col", sharey="row")
    for axes, (metric, name) in zip(panels, itertools.product(metrics, names), strict=True):
        for group in dict.fromkeys(net.group for net in nets if net.metric == metric):
            own = [net for net in nets if (net.group, net.metric) == (group, metric)]
            _draw_group(axes, own, name, metric, colours[group])
        axes.margins(x=0.1)
        by_decades(axes)
    for axes, name in zip(panels[-len(names) :], names, strict=True):
        axes.set_xlabel(name)
    for first, last, metric in zip(panels[:: len(names)], panels[len(names) - 1 :: len(names)], metrics, strict=True):
        first.set_ylabel(tables.label(metric))
        if groups != [""]:
            last.legend()
    return figure


def _draw_group(axes: "Axes", nets: Sequence[Net], cost: str, metric: str, colour: str) -> None:
    points = [(net.costs[cost], tables.scale(metric) * net.figure) for net in nets]
    for (x, y), net in zip(points, nets, strict=True):
        whole = net.group and net.label == DENSE  # labels without a group are names of models
        axes.plot(x, y, "*" if whole else ".", color=colour, markersize=9 if whole else 6)
        if not net.group:
            axes.annotate(net.label, (x, y), (4, 4), textcoords="offset points", fontsize=7)
    best = frontier(points, higher_is_better(metric))
    axes.plot(*zip(*best, strict=True), "-", color=colour, alpha=0.5, label=nets[0].group or None)
