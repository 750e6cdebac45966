"""What the machine can do and what a job needs: matrix-product speed in GFLOP/s, and floating-point operations."""

import json
import statistics
import time
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

SIDES = (512, 1024, 2048)
REPEATS = 7
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def matrix_products() -> list[dict[str, Any]]:
    """GFLOP/s of square products: for each precision and number of threads the best median over the sides."""
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for precision, dtype in DTYPES.items():
            speeds = {side: _speed(side, dtype) for side in SIDES}
            best = max(speeds, key=speeds.get)
            found.append({"precision": precision, "threads": threads, "gflops": speeds[best], "side": best})
    return found


def _speed(side: int, dtype: torch.dtype) -> float:
    a, b = (torch.randn(side, side).to(dtype) for _ in range(2))
    out = a @ b
    seconds = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        torch.mm(a, b, out=out)
        seconds.append(time.perf_counter() - begun)
    return 2 * side**3 / statistics.median(seconds) / 1e9


def training_flops(model: torch.nn.Module, shape: tuple[int, ...]) -> int:
    """Operations (two to a multiply-add) that one item takes in training, counted by torch on shapes alone.

    Matrix products and convolutions: forward, gradients of weights, gradients of inputs. The first layer's input needs
    no gradient and is not counted. On the meta device recurrent layers come apart into their products.
    """
    ghost = model.to("meta").train()
    with FlopCounterMode(display=False) as counter:
        losses = ghost.losses(torch.empty(1, *shape, device="meta"), torch.zeros(1, dtype=torch.long, device="meta"))
        next(iter(losses))["loss"].backward()
    return counter.get_total_flops()


if __name__ == "__main__":
    print(json.dumps(matrix_products()))
