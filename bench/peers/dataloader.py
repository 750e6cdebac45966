"""The usual PyTorch loop over a DataLoader."""

import torch
from torch import nn

from bench.gate import Gate
from bench.peers import data
from bench.peers.torch_nets import loader, net


def main() -> None:
    gate = Gate()
    anchor, x, y = data.load()
    torch.manual_seed(0)
    model, batches, criterion = net(anchor.kind, anchor.widths), loader(anchor, x, y), nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    while True:
        running = 0.0
        for inputs, labels in batches:
            optimizer.zero_grad()
            loss = criterion(model(inputs), labels)
            loss.backward()
            optimizer.step()
            running += loss.item() * len(inputs)
        gate.after_epoch()


if __name__ == "__main__":
    main()
