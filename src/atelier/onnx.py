"""The only file that imports onnx and ONNX Runtime: nets as ONNX graphs, run on the CPU, and in 8-bit integers."""

import copy
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from atelier import gru
from atelier.cost import forward
from atelier.errors import AtelierError
from atelier.layers import Shape

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

INPUT, OUTPUT = "items", "answers"
TRACED = 2  # items that the graph is drawn with: of one, an axis could be mistaken for none
CALIBRATION, BATCH = 1000, 100  # items whose activations decide the scales of 8-bit integers, and so many at once


class Forward(nn.Module):
    """What evaluation calls, as `forward`, which is what the exporter calls."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return forward(self.model)(x)


def export(model: nn.Module, shape: Shape) -> bytes:
    """An ONNX graph of what `classify`, else `reconstruct`, makes of items (any number, *shape) in eval mode.

    Raises AtelierError if the model does neither, or something that the exporter has no operator for.
    """
    if forward(model) is None:
        raise AtelierError(f"{_family(model)} neither classifies nor reconstructs; there is nothing to export")
    model = copy.deepcopy(model).cpu().eval()
    for part in model.modules():
        if isinstance(part, gru.GRU):
            part.__class__ = nn.GRU  # the same function; the exporter knows its operator, but not our steps
    content = io.BytesIO()
    like = next(model.parameters())
    try:
        # The exporter that traces: it needs no further package, takes hundredths of a second and keeps a recurrent
        # layer whole, which the newer one unrolls.
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                Forward(model).eval(),
                (torch.rand(TRACED, *shape, dtype=like.dtype),),
                content,
                dynamo=False,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_axes={INPUT: {0: "n"}, OUTPUT: {0: "n"}},
            )
    except Exception as error:  # torch raises what its tracing meets: errors of its own and of the code traced
        reason = str(error).partition("\n")[0]
        raise AtelierError(f"{_family(model)} cannot be exported to ONNX: {reason}; evaluate it in torch") from error
    return content.getvalue()


def session(content: bytes, threads: int = 1) -> "InferenceSession":
    """The graph, ready to run on this many threads of the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def run(graph: "InferenceSession", x: np.ndarray) -> np.ndarray:
    """Items (n, *shape) float32 -> logits (n, classes) or reconstructions (n, *shape)."""
    return graph.run(None, {INPUT: x})[0]


def int8(content: bytes, x: np.ndarray) -> bytes:
    """The graph with weights, a scale for each output, and products in 8-bit integers; x: items (n, *shape) float32.

    With convolutions, the scales of activations come from what the first 1,000 items give. Without, each call finds its
    own: so dense layers are nearer to what they were and as fast, and recurrent ones become integers at all, while
    convolutions would be several times slower.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    convolutions = any(node.op_type.startswith("Conv") for node in onnx.load_from_string(content).graph.node)
    with tempfile.TemporaryDirectory() as folder, _quiet():
        given, ready, made = (str(Path(folder) / name) for name in ("given", "ready", "made"))
        Path(given).write_bytes(content)
        quant_pre_process(given, ready)
        if convolutions:
            quantize_static(
                ready,
                made,
                _Batches(x[:CALIBRATION]),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
        else:
            quantize_dynamic(ready, made, per_channel=True, weight_type=QuantType.QInt8)
        return Path(made).read_bytes()


class _Batches:
    """Items as ONNX Runtime's quantiser asks for them: the next batch, None after the last."""

    def __init__(self, x: np.ndarray) -> None:
        self.left = [{INPUT: x[start : start + BATCH]} for start in range(0, len(x), BATCH)][::-1]

    def get_next(self) -> dict[str, np.ndarray] | None:
        return self.left.pop() if self.left else None


@contextmanager
def _quiet() -> Iterator[None]:
    """The quantiser writes advice on models of other makers to the root logger; errors still show."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _family(model: nn.Module) -> str:
    return f"family {type(model).__module__.rpartition('.')[2].replace('_', '-')}"
