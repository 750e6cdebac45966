"""What dense, convolutional and recurrent nets cost, and how it grows with width, depth, maps, kernel and steps."""

import math
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from annotated_types import Ge

from atelier.data.store import Store
from atelier.report.drawing import COLOURS, Plans, grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import nn

CHANNELS, STEPS, CLASSES = 52, 100, 12  # the windows of the source
WIDTH, DEPTH, MAPS, KERNEL = 128, 2, 16, 5  # and its nets: what does not grow stays at these
BATCH, REPEATS = 128, 3
FLOORS = {
    "linear": {"test.parameters_growth": 1.05, "test.multiply_adds_growth": 1.05},
    "once": {"test.per_parameter": 1.01},
    "unchanged": {"test.serial_growth": 0.01, "test.parameters_growth": 0.01},
}
COUNTS = ("parameters", "multiply_adds", "activations", "serial")

Net = Literal["convolutional", "dense", "recurrent"]
Along = Literal["depth", "kernel", "maps", "steps", "width"]


def measure(seed: int, store: Store, *, net: Net, along: Along, size: Annotated[int, Ge(2)]) -> dict[str, Any]:
    """Of one window: parameters; multiply_adds; activations, the values that its layers give, 4 bytes each; serial, the
    longest chain of layers and steps of which each waits for the one before; per_parameter, multiply-adds by
    parameters. Their growth (parameters_growth, multiply_adds_growth, activations_growth, serial_growth): the logarithm
    to base 2 of what doubling the size to this one multiplies them by, so 1 is linear and 2 is square.
    """
    model, shape, chain = build(net, along, size)
    now = counts(model, shape, chain)
    before = counts(*build(net, along, size // 2))
    doublings = math.log2(size / (size // 2))
    growth = {f"test.{name}_growth": math.log2(now[name] / before[name]) / doublings for name in COUNTS}
    found = {f"test.{name}": float(value) for name, value in now.items()}
    per_parameter = {"test.per_parameter": now["multiply_adds"] / now["parameters"]}
    return found | per_parameter | growth | {"train_s": seconds(model, shape, seed)}


def build(net: Net, along: Along, size: int) -> tuple["nn.Module", tuple[int, int], int]:
    """The net whose `along` is `size`, the shape of its windows, and the length of its longest chain.

    The convolutional net has no dense layer but the last, over the mean of its maps: the source's has one that holds
    nearly all of its parameters, and would hide what convolutions cost.
    """
    from atelier.families import cnn, mlp, recurrent

    value = {"width": WIDTH, "depth": DEPTH, "maps": MAPS, "kernel": KERNEL, "steps": STEPS} | {along: size}
    shape, depth = (CHANNELS, value["steps"]), value["depth"]
    match net:
        case "dense":
            return mlp.Model(shape, CLASSES, hidden=(value["width"],) * depth), shape, depth + 1
        case "convolutional":
            plan = (f"conv {value['maps']} 1x{value['kernel']}",) * depth + (f"avgpool {CHANNELS}x{value['steps']}",)
            return cnn.Model(shape, CLASSES, plan=plan), shape, depth + 1
        case "recurrent":
            model = recurrent.Model(shape, CLASSES, cell="lstm", hidden=(value["width"],) * depth)
            return model, shape, value["steps"] + depth


def counts(model: "nn.Module", shape: tuple[int, int], chain: int) -> dict[str, int]:
    import torch

    from atelier import cost

    values = 0

    def add(layer: "nn.Module", inputs: Any, output: Any) -> None:
        nonlocal values
        if isinstance(layer, torch.nn.Flatten):
            return  # the same values in another shape
        values += (output[0] if isinstance(output, tuple) else output).numel()

    handles = [layer.register_forward_hook(add) for layer in model.modules() if not list(layer.children())]
    with torch.no_grad():
        model.eval().classify(torch.zeros(1, *shape))
    for handle in handles:
        handle.remove()
    exact = cost.exact(model, shape)
    kept = {name: exact[name] for name in ("parameters", "multiply_adds")}
    return kept | {"activations": values, "serial": chain}


def seconds(model: "nn.Module", shape: tuple[int, int], seed: int) -> float:
    """Median time of one step on a batch of 128 random windows, forward and backward."""
    import torch

    from atelier import latency

    x = torch.from_numpy(np.random.default_rng(seed).standard_normal((BATCH, *shape)).astype(np.float32))
    y = torch.zeros(BATCH, dtype=torch.int64)
    model.train()

    def step() -> None:
        for out in model.losses(x, y):
            out["loss"].backward()

    return latency.compare({"step": step}, REPEATS)["step"][0] / 1000


def text(models: dict[str, dict[str, Any]], series: dict[str, list[Any]]) -> str:
    """What the source says of its own nets, counted."""
    from atelier.families import cnn, mlp

    plan = ("conv 16 1x5", "pool 1x2", "conv 16 1x5", "pool 1x2", "dense 32")
    net = cnn.Model((CHANNELS, STEPS), CLASSES, plan=plan)
    every = sum(p.numel() for p in net.parameters())
    dense = sum(p.numel() for name, p in net.named_parameters() if p.dim() == 2 or "head" in name) + 32
    width, depth = 128, 3
    deep = mlp.Model((width,), width, hidden=(width,) * (depth - 1))
    weights = sum(p.numel() for p in deep.parameters() if p.dim() == 2)
    return "\n".join(
        [
            "## The source's own counts",
            "",
            f"- It gives a net of L layers of W units W^L weights. There are L W^2: {weights:,} for {depth} layers of "
            f"{width}, where {width}^{depth} is {width**depth:,}.",
            f"- Of the {every:,} parameters of its convolutional net, {100 * dense / every:.1f} % are in the two dense "
            "layers: what it says of memory is true of these, and not of its convolutions.",
            "",
            "Seconds of a training step, which differ from run to run, stand among the times below, for every net.",
        ]
    )


def pictures(store: Store, models: dict[str, dict[str, Any]], series: dict[str, list[Any]]) -> Plans:
    caption = (
        "Parameters, multiply-adds, activations and the longest chain of steps of one window, against what grows; both "
        "axes are logarithmic, grey lines are linear and square growth."
    )
    return {"growth.png": (caption, lambda: _draw(models))}


def _draw(models: dict[str, dict[str, Any]]) -> "Figure":
    lines: dict[tuple[str, str], list[int]] = {}
    for settings in models.values():
        lines.setdefault((settings["net"], settings["along"]), []).append(settings["size"])
    figure, panels = grid(len(lines), min(len(lines), 3), 3.2, 2.7, sharey=True)
    for axes, ((net, along), sizes) in zip(panels, lines.items(), strict=True):
        sizes = sorted(sizes)
        found = [counts(*build(net, along, size)) for size in sizes]
        for name, colour in zip(COUNTS, COLOURS, strict=False):
            axes.plot(
                sizes, [one[name] for one in found], "o-", color=colour, markersize=3, label=name.replace("_", "-")
            )
        guide = np.array(sizes, dtype=float)
        for power in (1, 2):
            axes.plot(guide, found[0]["parameters"] * (guide / guide[0]) ** power, color="0.8", linewidth=0.8, zorder=0)
        axes.set(xscale="log", yscale="log", title=f"{net}: {along}")
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.minorticks_off()
    panels[0].legend(fontsize=7)
    return figure
