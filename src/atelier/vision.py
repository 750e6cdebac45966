"""torchvision, which no other file imports.

Its operators are built against one build of torch. Beside another, as its wheel beside a torch for the CPU alone, they
do not load, and then torchvision 0.28 cannot be imported: it describes two operators, which nobody has declared. Here
they are declared first, where they are absent, so that all works that needs no such operator.
"""

from types import ModuleType

OPERATORS = {  # as torchvision/csrc/ops declares them
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


def models() -> ModuleType:
    """torchvision.models: nets of the literature, an independent reference for ours."""
    import torch

    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
        for name, schema in OPERATORS.items():
            torch.library.define(f"torchvision::{name}", schema)
        import torchvision
    return torchvision.models
