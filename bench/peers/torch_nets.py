"""The nets as a PyTorch tutorial writes them, for the peers that leave the loop to PyTorch or Lightning."""

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from bench.anchors import Anchor


class Recurrent(nn.Module):
    def __init__(self, layer: type[nn.Module], units: int) -> None:
        super().__init__()
        self.layer, self.head = layer(28, units, batch_first=True), nn.Linear(units, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x)[0][:, -1])


def net(kind: str, widths: tuple[int, ...]) -> nn.Module:
    if kind == "mlp":
        sizes, layers = (784, *widths), [nn.Flatten()]
        for inputs, outputs in zip(sizes, widths):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        model = nn.Sequential(*layers, nn.Linear(widths[-1], 10))
    elif kind == "cnn":
        first, second, dense = widths
        model = nn.Sequential(
            *(nn.Conv2d(1, first, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(first, second, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(7 * 7 * second, dense), nn.ReLU(), nn.Linear(dense, 10)),
        )
    else:
        model = Recurrent({"lstm": nn.LSTM, "gru": nn.GRU}[kind], widths[0])
    for layer in model.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
    return model


def loader(anchor: Anchor, x, y) -> DataLoader:
    """num_workers=0: on two cores, worker processes only take time from the one that trains."""
    images = torch.from_numpy(x)
    dataset = TensorDataset(images.unsqueeze(1) if anchor.kind == "cnn" else images, torch.from_numpy(y))
    return DataLoader(dataset, batch_size=anchor.rows, shuffle=anchor.batch != "full", num_workers=0)
