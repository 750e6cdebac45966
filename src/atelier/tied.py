"""Tied weights: the way back through a dense layer takes the layer's own weights (Vincent et al. 2010)."""

from torch import Tensor, nn
from torch.nn import functional as F


class Transposed(nn.Module):
    """h -> h W + b for the layer x -> x W^T + a: its weights from the other side, and biases b of its own, 0 at first.

    (n, the layer's outputs) -> (n, its inputs). The weights stay the layer's: here they are no parameters.
    """

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.bias = nn.Parameter(layer.weight.new_zeros(layer.in_features))
        self._layer = (layer,)  # in a tuple, or it would be a module of this one too and stand in the state twice

    def forward(self, h: Tensor) -> Tensor:
        return F.linear(h, self._layer[0].weight.T, self.bias)
