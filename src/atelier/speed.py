"""How long nets take to answer, one thread: in PyTorch, in ONNX Runtime, and there in 8-bit integers, all in turns."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from atelier import latency, onnx
from atelier.cost import forward
from atelier.data.items import Pixels
from atelier.layers import Shape

BATCHES = (1, 256)
REPEATS = 30


def compare(nets: Mapping[str, nn.Module], shape: Shape, items: Tensor, repeats: int = REPEATS) -> list[dict[str, Any]]:
    """Records with net, runtime (torch, onnx or onnx-int8), batch, and median_ms and p95_ms of a call.

    items (n, *shape) float32: batches are made of them, over and over if they are few, and the scales of integers.
    """
    found = []
    graphs = {name: onnx.export(net, shape) for name, net in nets.items()}
    runtimes = {
        "onnx": {name: onnx.session(graph) for name, graph in graphs.items()},
        "onnx-int8": {name: onnx.session(onnx.int8(graph, items.numpy())) for name, graph in graphs.items()},
    }
    for batch in BATCHES:
        x = items[torch.arange(batch) % len(items)]
        calls: dict[tuple[str, str], Callable[[], Any]] = {
            (name, "torch"): partial(_answer, net.eval(), x) for name, net in nets.items()
        }
        for runtime, sessions in runtimes.items():
            calls |= {(name, runtime): partial(onnx.run, graph, x.numpy()) for name, graph in sessions.items()}
        spent = latency.compare({f"{name} in {runtime}": call for (name, runtime), call in calls.items()}, repeats)
        found += [
            {"net": name, "runtime": runtime, "batch": batch, "median_ms": round(median, 4), "p95_ms": round(late, 4)}
            for (name, runtime), (median, late) in zip(calls, spent.values(), strict=True)
        ]
    return found


@torch.inference_mode()
def _answer(model: nn.Module, x: Tensor) -> Tensor:
    return forward(model)(x)


@torch.inference_mode()
def deviation(model: nn.Module, shape: Shape, items: Tensor | Pixels) -> float:
    """The largest difference between what ONNX Runtime and PyTorch make of items (n, *shape)."""
    graph = onnx.session(onnx.export(model, shape))
    return max(
        float(abs(torch.from_numpy(onnx.run(graph, x.numpy())) - _answer(model.eval(), x)).max())
        for x in items.split(1000)
    )
