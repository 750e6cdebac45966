"""Lightning: Trainer.fit with logging, checkpoints, progress bar and summary switched off."""

import lightning
import torch
from torch.nn import functional as F

from bench.anchors import Anchor
from bench.gate import Gate
from bench.peers import data
from bench.peers.torch_nets import loader, net


class Classifier(lightning.LightningModule):
    def __init__(self, anchor: Anchor) -> None:
        super().__init__()
        self.net = net(anchor.kind, anchor.widths)

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], _: int) -> torch.Tensor:
        x, y = batch
        return F.cross_entropy(self.net(x), y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


class Turns(lightning.Callback):
    def __init__(self, gate: Gate) -> None:
        self.gate = gate

    def on_train_epoch_end(self, *_) -> None:
        self.gate.after_epoch()


def main() -> None:
    gate = Gate()
    anchor, x, y = data.load()
    lightning.seed_everything(0)
    off = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    trainer = lightning.Trainer(accelerator="cpu", max_epochs=-1, callbacks=[Turns(gate)], **dict.fromkeys(off, False))
    trainer.fit(Classifier(anchor), loader(anchor, x, y))


if __name__ == "__main__":
    main()
