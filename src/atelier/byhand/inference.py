"""Inference with matrix products alone: a dense net's weights from a plain text file, its answers from NumPy.

For every layer the file has a line `inputs outputs function`, and under it a line for each output: its weights, one
for each input, then its bias. Two layers, of two ReLU units and of two classes:

    3 2 relu
    0.5 -1.25 2 0.1
    1 0 0.75 -0.2
    2 2 softmax
    1 -1 0
    -1 1 0.5

Numbers have 17 significant digits at most, by which every float64 is read back as it was.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from atelier.byhand.activations import ACTIVATIONS, Array
from atelier.byhand.backprop import Layer, softmax
from atelier.errors import AtelierError, nearest

FUNCTIONS: dict[str, Callable[[Array], Array]] = {name: f.value for name, f in ACTIVATIONS.items()}
FUNCTIONS["softmax"] = softmax


@dataclass
class Dense(Layer):
    """y = f(W x + b), with f one of FUNCTIONS."""

    function: str


def answers(net: Sequence[Dense], x: Array) -> Array:
    """Items (n, inputs) -> what the last layer gives of them (n, outputs)."""
    for layer in net:
        x = FUNCTIONS[layer.function](x @ layer.weights.T + layer.biases)
    return x


def write(path: Path, net: Sequence[Dense]) -> None:
    with open(path, "w") as file:
        for layer in net:
            outputs, inputs = layer.weights.shape
            print(inputs, outputs, layer.function, file=file)
            np.savetxt(file, np.column_stack([layer.weights, layer.biases]), fmt="%.17g")


def read(path: Path) -> list[Dense]:
    """The net in a file. Raises AtelierError, which names the layer, if the file is not as described above."""
    net: list[Dense] = []
    with open(path) as lines:
        for header in lines:
            where = f"{path}: layer {len(net) + 1}"
            try:
                inputs, outputs, function = header.split()
                table = np.loadtxt(islice(lines, int(outputs)), ndmin=2)
            except ValueError as error:
                raise AtelierError(f"{where}: {error}; write the file again") from None
            if table.shape != (int(outputs), int(inputs) + 1):
                raise AtelierError(f"{where}: {table.shape} numbers for {inputs} inputs, a bias and {outputs} outputs")
            if function not in FUNCTIONS:
                raise AtelierError(f"{where}: there is no function {function}; {nearest(function, FUNCTIONS)}")
            net.append(Dense(table[:, :-1], table[:, -1], function))
    return net
