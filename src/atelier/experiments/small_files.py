"""How few numbers, and how small a file, a net of digits can be: pruned, its weights shared, coded, and read again."""

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator

from atelier import files
from atelier.data.store import Store
from atelier.errors import AtelierError
from atelier.params import Count, Recipe
from atelier.report.drawing import COLOURS, Plans, by_decades, frontier, grid
from atelier.strict import Table, checked

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import nn

    from atelier.data.items import Items
    from atelier.jobs import Job

USES = ("families.cnn", "families.mlp", "sparsity", "checkpoint", "cost", "data.subset", "decode")
NETS: dict[str, tuple[str, dict[str, Any]]] = {
    "300-100": ("mlp", {"hidden": (300, 100)}),
    "lenet-5": ("cnn", {"plan": ("conv 20 5 valid", "pool 2", "conv 50 5 valid", "pool 2", "dense 500")}),
}
FLIPS = 100
SECTIONS = ("values", "indices", "codebook", "biases", "shapes", "header")
# Published on MNIST: what is left, and the test error in percent, some of it the least that was seen in training.
RECORDS: dict[tuple[str, str], dict[str, tuple[float, float]]] = {
    ("300-100", "parameters"): {
        "variational bottleneck (Dai et al. 2018)": (9_674, 1.6),
        "L0 gates (Louizos et al. 2018)": (26_773, 1.6),
    },
    ("300-100", "bytes"): {
        "Deep Compression (Han et al. 2016)": (27_000, 1.58),
        "soft weight sharing (Ullrich et al. 2017)": (266_610 * 4 / 64, 1.94),
        "reparameterisation (Oktay et al. 2020)": (8_560, 1.9),
    },
    ("lenet-5", "parameters"): {"Bayesian compression (Louizos et al. 2017)": (2_792, 1.0)},
    ("lenet-5", "bytes"): {
        "Deep Compression (Han et al. 2016)": (44_000, 0.74),
        "reparameterisation (Oktay et al. 2020)": (2_840, 1.0),
    },
}


class Step(Recipe):
    """A further training. values: before it, every matrix takes so many values besides 0; biases: every vector does."""

    values: Count | None = None
    biases: Count | None = None

    @property
    def recipe(self) -> Recipe:
        return Recipe(**{key: getattr(self, key) for key in Recipe.model_fields})


def _is_step(changes: Mapping[str, Any]) -> Mapping[str, Any]:
    checked(Step, changes)
    return changes


def measure(
    seed: int,
    store: Store,
    *,
    net: Literal["300-100", "lenet-5"],
    steps: tuple[Annotated[Table[str, Any], AfterValidator(_is_step)], ...],
    coder: Literal["huffman", "range"] = "range",
    hold_out: bool = False,
) -> dict[str, Any]:
    """A net learns by the first of the steps, each a recipe; then on by each of the others, where `distil` learns from
    the net that the first made. Nodes that fell silent are removed. Weights that share values learn on together and
    are rounded to float16 then. The last net is written to a file, which another process decodes and judges.

    Of that process and on test items, accuracy; exact is 1 if the log-probabilities of all are those of the net that
    was written, in every bit. accuracy_dense: after the first step, of which lost is the part that is not there in the
    end; accuracy_before: before values were shared.

    parameters: weights and biases of the net that is left, and a 32nd for each value that it could read, if it reads
    only some of its inputs or flattened maps; weights: those of matrices that are not 0; multiply_adds: of an item.
    bytes: of the file; smaller: the bytes of the first net, at 4 a number, by these. refused: the share of 100 copies,
    each with one byte changed at random, that are refused. onnx: the largest difference of a logit in ONNX Runtime.
    int8_bytes and int8_accuracy: of the first net in 8-bit integers, by ONNX Runtime. hold_out: validation items are
    set apart from training, and accuracy is taken on them too.
    """
    from atelier import checkpoint, compress, evaluation, speed
    from atelier.data.items import items
    from atelier.decode import answers
    from atelier.paths import jobs as place

    place().mkdir(parents=True, exist_ok=True)
    test = items(store, "test", None, hold_out)
    with tempfile.TemporaryDirectory(dir=place(), prefix="small-") as waiting:
        folders, seconds = trained(seed, store, net, [checked(Step, step) for step in steps], hold_out, Path(waiting))
        (dense, dense_spec), (model, spec) = (checkpoint.load(folders[end]) for end in (0, -1))
        shared = next((i for i, step in enumerate(steps) if step.get("values") or step.get("biases")), len(steps))
        before, _ = checkpoint.load(folders[shared - 1])
        accuracy, digest = answers(model, test)
        file = Path(waiting) / "net"
        ledger = compress.write(file, spec, model, coder)
        decoded = _decoded(file, store.folder.name)
        exact = decoded == (f"{accuracy:.6f}", digest)
        content = file.read_bytes()
    first = evaluation.judge(dense, test)["accuracy"]
    found = {
        "test.accuracy": float(decoded[0]),
        "test.accuracy_dense": first,
        "test.lost": first - float(decoded[0]),
        "test.accuracy_before": evaluation.judge(before, test)["accuracy"],
        "test.parameters": float(spec["cost"]["parameters"] + _mask(spec)),
        "test.weights": float(sum(int((w != 0).sum()) for w in model.parameters() if w.dim() > 1)),
        "test.multiply_adds": float(spec["cost"]["multiply_adds"]),
        "test.bytes": float(len(content)),
        "test.smaller": 4 * dense_spec["cost"]["parameters"] / len(content),
        "test.exact": float(exact),
        "test.refused": _refused(content, seed),
        "test.onnx": speed.deviation(model, store.shape, test.x),
    }
    found |= _integers(dense, store, items(store, "train", None, hold_out), test)
    if hold_out:
        held = items(store, "validation", None, hold_out)
        found["validation.accuracy"] = evaluation.judge(model, held)["accuracy"]
    widths = {nodes.name: nodes.width for nodes in model.nodes()}
    series = {"figures": found, "ledger": ledger, "widths": widths, "inputs": list(spec["settings"].get("inputs", ()))}
    return found | {"train_s": seconds, "series": series}


def trained(
    seed: int, store: Store, net: str, steps: list[Step], hold_out: bool, waiting: Path
) -> tuple[list[Path], float]:
    """The folders of the nets that each step left, and the seconds of all; each is a job, done once for all models."""
    from atelier import jobs
    from atelier.params import load

    family, settings = NETS[net]
    job = jobs.Job(
        "small-files", net, seed, family, store.folder.name, load(families=False).compute, steps[0].recipe, settings
    )
    folders: list[Path] = []
    seconds = 0.0
    for number, step in enumerate(steps):
        recipe = step.recipe.changed({"hold_out": hold_out})
        job = replace(job, recipe=recipe, label=f" step {number + 1}")
        if folders:
            start = folders[-1]
            if step.values or step.biases:
                start = _share(start, step, waiting / f"{number}-shared")
            job = replace(job, start=start, teacher=folders[0] if recipe.distil else None)
        jobs.train(job)
        seconds += jobs.result(job)["train_s"]
        folders.append(job.folder)
        if step.values or step.biases:
            folders[-1] = _share(job.folder, step, waiting / f"{number}-rounded")  # learning has left float16
        if recipe.thin and recipe.thin.what == "nodes":
            folders[-1] = _cut(job, store, waiting / f"{number}-cut")
            job = replace(job, settings=files.read_json(folders[-1] / "spec.json")["settings"])
    return folders, seconds


def _share(source: Path, step: Step, folder: Path) -> Path:
    """The net, its weights rounded to as few values as the step says."""
    import torch

    from atelier import checkpoint
    from atelier.compress import share

    model, spec = checkpoint.load(source)
    few = {name: step.values if weight.dim() > 1 else step.biases for name, weight in model.named_parameters()}
    tensors = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    tensors = share.share_all(tensors, {name: count for name, count in few.items() if count})
    model.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in tensors.items()})
    checkpoint.save(folder, spec, model)
    return folder


def _cut(job: "Job", store: Store, folder: Path) -> Path:
    """The net of a job without the nodes that nobody reads."""
    from atelier import checkpoint, cost
    from atelier.prune import remove

    model, spec = checkpoint.load(job.folder)
    model, settings, _ = remove.unread(model, job.family, store.shape, len(store.classes), job.settings)
    checkpoint.save(folder, spec | {"settings": settings, "cost": cost.exact(model, store.shape)}, model)
    return folder


def _mask(spec: Mapping[str, Any]) -> int:
    """A bit for each value that a net could read, in numbers of 32 bits, if it reads only some of them."""
    from atelier import checkpoint

    settings = {name: value for name, value in spec["settings"].items() if name not in ("inputs", "features")}
    if settings == spec["settings"]:
        return 0
    whole = checkpoint.build(spec | {"settings": settings})
    return -(-next(nodes.width for nodes in whole.nodes() if nodes.given) // 32)


def _decoded(file: Path, dataset: str) -> tuple[str, str]:
    """Test accuracy, and the digest of the answers, as another process finds them that has the file alone."""
    command = [sys.executable, "-m", "atelier", "decode", str(file), "--dataset", dataset]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        raise AtelierError(f"the file of a net could not be decoded: {run.stderr.strip()}")
    lines = run.stdout.splitlines()
    return lines[-2].split()[-1], lines[-1].split()[-1]


def _refused(content: bytes, seed: int) -> float:
    from atelier.compress import format

    rng, refused = np.random.default_rng(seed), 0
    for _ in range(FLIPS):
        damaged = bytearray(content)
        damaged[rng.integers(len(content))] ^= int(rng.integers(1, 256))
        try:
            format.load(bytes(damaged))
        except AtelierError:
            refused += 1
    return refused / FLIPS


def _integers(model: "nn.Module", store: Store, seen: "Items", test: "Items") -> dict[str, float]:
    from atelier import onnx

    content = onnx.int8(onnx.export(model, store.shape), seen.x[: onnx.CALIBRATION].numpy())
    graph = onnx.session(content)
    right = sum(
        int((onnx.run(graph, x.numpy()).argmax(1) == y.numpy()).sum())
        for x, y in zip(test.x.split(1000), test.y.split(1000), strict=True)
    )
    return {"test.int8_bytes": float(len(content)), "test.int8_accuracy": right / len(test)}


def text(models: dict[str, dict[str, Any]], series: dict[str, list[Any]]) -> str:
    """How many nodes of each layer are left, and what each part of the file takes."""
    from atelier.report.tables import table

    widths, parts = [], []
    for model, runs in series.items():
        names = list(dict.fromkeys(name for run in runs for name in run["widths"]))
        left = ", ".join(f"{name} {_range([run['widths'].get(name, 0) for run in runs])}" for name in names)
        widths.append([model, models[model]["net"], left])
        sizes = [np.mean([run["ledger"][section] for run in runs]) for section in SECTIONS]
        parts.append([model, *(f"{size:,.0f}" for size in sizes), f"{sum(sizes):,.0f}"])
    layers = table(["Model", "Net", "Nodes left"], widths)
    ledger = table(["Model", *(section.capitalize() for section in SECTIONS), "File"], parts)
    about = "Bytes of each part, means over seeds. Shapes hold which inputs are read, the header has the checksum."
    return f"## What is left of each layer\n\n{layers}\n\n## What the file holds\n\n{about}\n\n{ledger}"


def _range(values: list[int]) -> str:
    return f"{min(values)}" if min(values) == max(values) else f"{min(values)} to {max(values)}"


def pictures(store: Store, models: dict[str, dict[str, Any]], series: dict[str, list[Any]]) -> Plans:
    frontier = (
        "Test error against what is left of a net, means and ranges over seeds, beside published figures; the line: "
        "those of ours that no other of ours beats in both."
    )
    ledger = "Bytes of the parts of each file, means over seeds."
    inputs = "The inputs that nets read which were free to drop them, and in how many of the seeds."
    plans: Plans = {
        "frontier.png": (frontier, lambda: _draw_frontier(models, series)),
        "ledger.png": (ledger, lambda: _draw_ledger(series)),
    }
    reading = {model: [run["inputs"] for run in runs] for model, runs in series.items() if runs[0]["inputs"]}
    if reading:
        plans["inputs.png"] = inputs, lambda: _draw_inputs(store.shape, reading)
    return plans


def _draw_frontier(models: dict[str, dict[str, Any]], series: dict[str, list[Any]]) -> "Figure":
    """A row for each net, a column for parameters and one for bytes."""
    nets = list(dict.fromkeys(settings["net"] for settings in models.values()))
    figure, panels = grid(2 * len(nets), 2, 5.2, 3.6)
    for row, net in enumerate(nets):
        own = {model: [run["figures"] for run in series[model]] for model in models if models[model]["net"] == net}
        for column, what in enumerate(("parameters", "bytes")):
            axes = panels[2 * row + column]
            _draw_panel(axes, own, what, RECORDS[net, what])
            axes.set_title(net)
    return figure


def _draw_panel(
    axes: "Axes", own: dict[str, list[dict[str, float]]], what: str, records: dict[str, tuple[float, float]]
) -> None:
    points = []
    for model, found in own.items():
        sizes, errors = [f[f"test.{what}"] for f in found], [100 * (1 - f["test.accuracy"]) for f in found]
        x, y = float(np.mean(sizes)), float(np.mean(errors))
        points.append((x, y))
        axes.plot([x, x], [min(errors), max(errors)], "|-", color=COLOURS[0])
        axes.plot(x, y, "o", color=COLOURS[0])
        axes.annotate(model, (x, y), (5, 4), textcoords="offset points", fontsize=7, color=COLOURS[0])
    axes.plot(*zip(*frontier(points, higher=False), strict=True), "-", color=COLOURS[0], alpha=0.4)
    for (name, (x, y)), marker in zip(records.items(), "Ds^v", strict=False):
        axes.plot(x, y, marker, color=COLOURS[1], fillstyle="none", markeredgewidth=1.5, label=name)
    axes.set(xlabel=what, ylabel="test error (%)")
    axes.margins(x=0.2, y=0.15)
    by_decades(axes)
    axes.legend(fontsize=7)


def _draw_ledger(series: dict[str, list[Any]]) -> "Figure":
    figure, (axes,) = grid(1, 1, 7, 0.8 + 0.35 * len(series))
    left = np.zeros(len(series))
    for section, colour in zip(SECTIONS, COLOURS, strict=True):
        sizes = np.array([np.mean([run["ledger"][section] for run in runs]) for runs in series.values()])
        axes.barh(list(series), sizes, left=left, color=colour, label=section)
        left += sizes
    axes.invert_yaxis()
    axes.set_xlabel("bytes")
    axes.legend(ncols=len(SECTIONS), fontsize=7, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure


def _draw_inputs(shape: tuple[int, ...], reading: dict[str, list[list[int]]]) -> "Figure":
    figure, panels = grid(len(reading), min(4, len(reading)), 2.4, 2.6)
    for axes, (model, runs) in zip(panels, reading.items(), strict=True):
        counts = np.bincount(np.concatenate(runs), minlength=int(np.prod(shape)))
        axes.imshow(counts.reshape(shape[-2:]), cmap="viridis", vmin=0, vmax=len(runs))
        axes.set_title(model, fontsize=8)
        axes.set_axis_off()
    return figure
