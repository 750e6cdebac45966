"""The timed side of atelier: fan_out starts the jobs, fit trains them, nothing of the loop is written again here.

Jobs stop in fit's after_epoch and hear from the main process when to go on; a turn lasts from the order to the end of
the slowest job's last epoch, so uneven jobs count against us.
"""

import json
import os
import sys
import threading
import time
from dataclasses import asdict, dataclass
from multiprocessing.connection import Client, Listener
from pathlib import Path
from typing import Any

from atelier.fanout import fan_out
from bench import anchors
from bench.anchors import Anchor
from bench.gate import Gate

FAMILIES = {"mlp": "mlp", "cnn": "cnn", "lstm": "recurrent", "gru": "recurrent"}
CHUNK = 2000  # rows of a full batch that are held at once
NEVER = 10**6


@dataclass(frozen=True)
class Run:
    """What a contender trains: `seeds` models on `workers` processes of `threads` threads."""

    precision: str = "fp32"
    seeds: int = 1
    workers: int = 1
    threads: int = 2

    def __str__(self) -> str:
        return f"atelier {self.precision}, {self.seeds} seed{'s' * (self.seeds > 1)}"

    def dumps(self) -> str:
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class Job:
    anchor: Anchor
    precision: str
    seed: int
    address: str

    def __str__(self) -> str:
        return f"{self.anchor} seed {self.seed}"


class Enough(Exception):
    """Ends a training in the middle; raised in after_epoch."""


def settings(anchor: Anchor) -> dict[str, Any]:
    """The family's settings of a job."""
    if anchor.kind == "mlp":
        return {"hidden": anchor.widths}
    if anchor.kind == "cnn":
        first, second, dense = anchor.widths
        return {"plan": (f"conv {first} 3", "pool 2", f"conv {second} 3", "pool 2", f"dense {dense}")}
    return {"cell": anchor.kind, "hidden": anchor.widths}


def spec(anchor: Anchor) -> dict[str, Any]:
    return {"family": FAMILIES[anchor.kind], "shape": (1, 28, 28), "classes": 10, "settings": settings(anchor)}


def fit_anchor(anchor: Anchor, precision: str, seed: int, after_epoch, epochs: int = NEVER) -> None:
    """As the train stage does it: the same items, model, recipe and loop."""
    import torch

    from atelier import checkpoint
    from atelier.data.items import Items, Pixels, items
    from atelier.data.store import Store
    from atelier.fit import fit
    from atelier.optim import Optimizer
    from atelier.params import Recipe

    store = Store(Path(anchors.DATA).parent)
    train, held = items(store, "train", None, False), items(store, "test", None, False)
    if anchor.samples < len(train):
        x = Pixels(train.x.stored[: anchor.samples], train.x.scale)
        train = Items(x, x, train.y[: anchor.samples])
    chunk = CHUNK if anchor.batch == "full" else None
    recipe = Recipe(epochs=epochs, batch=anchor.batch, chunk=chunk, precision=precision, evaluate_every=NEVER)
    torch.manual_seed(seed)
    optimizer = Optimizer(recipe.optimizer, recipe.lr, recipe.momentum, recipe.weight_decay)
    model = checkpoint.build(spec(anchor), optimizer=optimizer)
    fit(model, recipe, seed, train, ("test", held), after_epoch=after_epoch)


def train(job: Job) -> None:
    """Train until told to stop. The first epoch, which fit evaluates, warms up."""
    with Client(job.address) as orders:
        left = 1

        def after_epoch(state) -> None:
            nonlocal left
            if state.epoch == 0:
                return
            left -= 1
            if left == 0:
                orders.send(None)
                left = orders.recv()
                if not left:
                    raise Enough

        try:
            fit_anchor(job.anchor, job.precision, job.seed, after_epoch)
        except Enough:
            pass
        except Exception as error:
            orders.send(f"{type(error).__name__}: {error}")
            raise


def converse(gate: Gate, listener: Listener, jobs: int, side_by_side: int) -> None:
    """Hand orders to the jobs that run and answer when all are through; order 0 ends them and waits for the next."""
    for _ in range(0, jobs, side_by_side):
        running = [listener.accept() for _ in range(side_by_side)]
        epochs, begun = 1, time.perf_counter()
        while epochs:
            for error in [job.recv() for job in running]:
                if error:
                    gate.say(error=error)
            gate.say(seconds=time.perf_counter() - begun)
            epochs, begun = gate.order(), time.perf_counter()
            for job in running:
                job.send(epochs)


def main() -> None:
    gate = Gate()
    anchor, run = anchors.loads(sys.argv[1]), Run(**json.loads(sys.argv[2]))
    with Listener(f"\0atelier-bench-{os.getpid()}") as listener:  # an address that leaves no file behind
        arguments = (gate, listener, run.seeds, run.workers)
        threading.Thread(target=converse, args=arguments, daemon=True).start()
        jobs = [Job(anchor, run.precision, seed, listener.address) for seed in range(run.seeds)]
        fan_out(train, jobs, workers=run.workers, threads=run.threads, title=str(anchor))


if __name__ == "__main__":
    from bench.atelier_path import main as importable  # so that workers find `train` by its module's name

    importable()
