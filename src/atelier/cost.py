"""What a model costs: parameters, multiply-adds for one item, bytes."""

from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def forward(model: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """What the model does with an item: classify, else reconstruct, else nothing that evaluation knows."""
    return getattr(model, "classify", None) or getattr(model, "reconstruct", None)


def exact(model: nn.Module, shape: tuple[int, ...]) -> dict[str, int | None]:
    """Sizes that follow from the architecture alone; bytes are those of all weights and buffers in memory."""
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "multiply_adds": multiply_adds(model, shape),
        "bytes": sum(t.numel() * t.element_size() for t in model.state_dict().values()),
    }


def multiply_adds(model: nn.Module, shape: tuple[int, ...]) -> int | None:
    """Multiply-adds of matrix products and convolutions for one item, counted by torch on shapes alone.

    The meta device runs no arithmetic and takes recurrent layers apart into their products, which the CPU hides.
    """
    call = forward(model)
    if call is None:
        return None
    ghost = deepcopy(model).to("meta").eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        forward(ghost)(torch.empty(1, *shape, device="meta"))
    return counter.get_total_flops() // 2
