"""A dense net with fewer nodes and in 8-bit integers: what each saves, what they save together, and what that costs."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from annotated_types import Ge, Gt, Lt

from atelier.data.store import Store
from atelier.layers import Width
from atelier.params import Recipe, load
from atelier.report.drawing import COLOURS, Plans, grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from atelier.data.items import Items
    from atelier.jobs import Job

USES = ("families.mlp", "checkpoint", "cost", "data.subset")
CRITERION = "reconstruction"
SEEN = 1000  # test items from which batches are made whose latency is taken
RECIPE = Recipe(
    epochs=40,
    batch=250,
    optimizer="adamw",
    weight_decay=0.1,
    lr=0.003,
    schedule="one-cycle",
    hold_out=True,
    evaluate_every=20,
    augment={"flip": True},
    weight_average=0.05,
)


def measure(
    seed: int,
    store: Store,
    *,
    level: Annotated[float, Gt(0), Lt(1)] | None = None,
    hidden: tuple[Width, ...] = (300, 100),
    epochs: Annotated[int, Ge(1)] = RECIPE.epochs,
    tuning: Annotated[int, Ge(1)] = 80,
) -> dict[str, Any]:
    """A dense net learns from mirrored images. Of each hidden layer the share `level` of the nodes goes, those that the
    others can best stand for, and the net learns on for `tuning` epochs, nine tenths of its targets being what the
    dense one says; without a level it stays as it is. ONNX Runtime has both nets in 8-bit integers too: each weight's
    scale is that of its output, each activation's that of the call.

    accuracy in 32-bit floats, int8_accuracy in integers; lost: how much of the accuracy of the dense net in floats is
    not there in integers. parameters and multiply_adds of one image; int8_bytes: of the ONNX file in integers; smaller:
    the bytes of the dense net's numbers, at 4 each, by these.
    """
    from atelier import checkpoint, jobs, onnx, paths, speed
    from atelier.data.items import items

    splits = {split: items(store, split, None, RECIPE.hold_out) for split in ("train", "validation", "test")}
    paths.jobs().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=paths.jobs(), prefix="integers-") as waiting:
        job = jobs.Job(
            "integers",
            "dense",
            seed,
            "mlp",
            store.folder.name,
            load(families=False).compute,
            RECIPE.changed({"epochs": epochs}),
            {"hidden": hidden},
        )
        jobs.train(job)
        seconds = jobs.result(job)["train_s"]
        dense, whole = checkpoint.load(job.folder)
        net, spec = dense, whole
        if level:
            cut = _cut(job, level, splits["train"], Path(waiting) / "cut")
            recipe = job.recipe.changed({"epochs": tuning, "lr": 0.005, "evaluate_every": 40, "distil": 0.9})
            start, label = Path(waiting) / "cut", f" without {level:g}"
            job = replace(job, settings=cut, recipe=recipe, start=start, teacher=job.folder, label=label)
            jobs.train(job)
            seconds += jobs.result(job)["train_s"]
            net, spec = checkpoint.load(job.folder)
    content = onnx.int8(onnx.export(net, store.shape), splits["train"].x[: onnx.CALIBRATION].numpy())
    found = {
        "test.parameters": float(spec["cost"]["parameters"]),
        "test.multiply_adds": float(spec["cost"]["multiply_adds"]),
        "test.int8_bytes": float(len(content)),
        "test.smaller": 4 * whole["cost"]["parameters"] / len(content),
    }
    for split in ("validation", "test"):
        before, accuracy, integers = (
            _accuracy(graph, splits[split])
            for graph in (onnx.export(dense, store.shape), onnx.export(net, store.shape), content)
        )
        figures = {"accuracy": accuracy, "int8_accuracy": integers, "lost": before - integers}
        found |= {f"{split}.{name}": figure for name, figure in figures.items()}
    nets = {"dense": dense} | ({f"without {level:g}": net} if level else {})
    latency = speed.compare(nets, store.shape, splits["test"].x[:SEEN])
    return found | {"train_s": seconds, "latency": latency, "series": found}


def _cut(job: "Job", level: float, train: "Items", folder: Path) -> dict[str, Any]:
    """Store the job's net in the folder, without the nodes that go; gives its settings."""
    from atelier import checkpoint, cost
    from atelier.prune import choose, remove, score

    model, spec = checkpoint.load(job.folder)
    shape, classes = tuple(spec["shape"]), spec["classes"]
    widths = {nodes.name: nodes.width for nodes in choose.candidates(model, inputs=False)}
    every, means = score.by(CRITERION, model, train, job.seed)
    scores = {name: every[name] for name in widths}
    keep = choose.best(scores, choose.counts(CRITERION, scores, widths, level, str(job)))
    pruned, settings, _ = remove.unread(remove.mask(model, keep, means), job.family, shape, classes, job.settings)
    checkpoint.save(folder, spec | {"settings": settings, "cost": cost.exact(pruned, shape)}, pruned)
    return settings


def _accuracy(graph: bytes, seen: "Items") -> float:
    from atelier import onnx

    session = onnx.session(graph)
    pairs = zip(seen.x.split(1000), seen.y.split(1000), strict=True)
    return sum(int((onnx.run(session, x.numpy()).argmax(1) == y.numpy()).sum()) for x, y in pairs) / len(seen)


def pictures(store: Store, models: dict[str, dict[str, Any]], series: dict[str, list[Any]]) -> Plans:
    caption = "Test accuracy against the multiply-adds of an image, means and ranges over seeds."
    return {"costs.png": (caption, lambda: _draw_costs(series))}


def _draw_costs(series: dict[str, list[Any]]) -> "Figure":
    figure, (axes,) = grid(1, 1, 5.5, 3.2)
    by_cost = sorted(series.items(), key=lambda entry: entry[1][0]["test.multiply_adds"])
    x = [runs[0]["test.multiply_adds"] / 1000 for _, runs in by_cost]
    for metric, colour, label in (
        ("accuracy", COLOURS[0], "32-bit floats"),
        ("int8_accuracy", COLOURS[1], "8-bit integers"),
    ):
        y = np.array([[100 * run[f"test.{metric}"] for run in runs] for _, runs in by_cost])
        axes.plot(x, y.mean(1), "o-", color=colour, label=label)
        axes.fill_between(x, y.min(1), y.max(1), color=colour, alpha=0.15, linewidth=0)
    axes.set(xlabel="multiply-adds of an image, thousands", ylabel="test accuracy (%)")
    axes.legend()
    return figure
