"""The jobs that are timed, as plain data: the processes of every library read them, so nothing is imported here."""

import json
from dataclasses import asdict, dataclass, replace
from typing import Literal

ITEMS = 60_000  # Fashion-MNIST's training images, all of them
DATA = "data/noisy/fashion-mnist/train.npz"
PEERS = ("keras", "sklearn", "lightning", "dataloader")
SEEDS = 4  # models of the small study that is timed beside the single job
CORES = 2  # everything runs on as many: a study as two jobs of one thread, all else with two threads


@dataclass(frozen=True)
class Anchor:
    """A net and how it is trained: Adam at 1e-3, softmax cross-entropy, ReLU, pixels in [0, 1].

    widths: of an MLP's hidden layers; maps of two 3x3 convolutions, each followed by a 2x2 max pool, and units of the
    dense layer of a CNN; units of an LSTM or GRU over the 28 rows of 28 pixels, whose last state is classified.
    turn: epochs timed at once, so that a turn takes a second or more.
    """

    job: str
    kind: Literal["mlp", "cnn", "lstm", "gru"]
    widths: tuple[int, ...]
    batch: int | Literal["full"]
    turn: int = 1
    samples: int = ITEMS

    def __str__(self) -> str:
        return f"{self.job}, batch {self.batch}"

    @property
    def key(self) -> str:
        return f"{self.job}-batch-{self.batch}"

    @property
    def rows(self) -> int:
        """Items of a batch."""
        return self.samples if self.batch == "full" else self.batch

    def with_samples(self, samples: int) -> "Anchor":
        return replace(self, samples=samples)

    def dumps(self) -> str:
        return json.dumps(asdict(self))


def loads(text: str) -> Anchor:
    fields = json.loads(text)
    return Anchor(**fields | {"widths": tuple(fields["widths"])})


ANCHORS = (
    Anchor("mlp-300-100", "mlp", (300, 100), "full", turn=3),
    Anchor("mlp-300-100", "mlp", (300, 100), 128, turn=2),
    Anchor("mlp-800-600-400-200", "mlp", (800, 600, 400, 200), 256),
    Anchor("cnn-32-64", "cnn", (32, 64, 128), 128),
    Anchor("lstm-128", "lstm", (128,), 128),
    Anchor("gru-128", "gru", (128,), 128),
)
