"""What each idea brings: the plain loop with it and without it, in turns, on one thread as a worker of a study has."""

import shutil
from dataclasses import dataclass, field, replace
from functools import partial
from statistics import median
from typing import Any

from bench.contender import Contender, Say, alternate, waiting
from bench.plain_loop import Ways


@dataclass(frozen=True)
class Case:
    """`base` is the loop as atelier trains; each of `changes` differs from it in what the idea is about."""

    job: str
    base: Ways
    changes: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Idea:
    """kept: whether atelier does it; `why` says what speaks for or against it beside the time."""

    name: str
    kept: bool
    why: str
    cases: tuple[Case, ...] = field(default_factory=tuple)
    compiles: bool = False


DENSE = Ways()
WIDE = Ways(net="784-800-600-400-200-10", batch=256, samples=6_400)
FULL = Ways(batch=0, samples=60_000, chunk=2000)
CNN = Ways(net="cnn", samples=1_920)
MLP, BIG, WHOLE = "784-300-100-10, batch 128", "784-800-600-400-200-10, batch 256", "784-300-100-10, full batch"
CONV = "CNN 32-64, batch 128"


def in_bf16(ways: Ways) -> Ways:
    return replace(ways, precision="bf16")


CHUNKS = {"in pieces of 1,000": {"chunk": 1000}, "in pieces of 4,000": {"chunk": 4000}, "whole": {"chunk": None}}
ADAMS = {"foreach": {"adam": "foreach"}, "a loop over tensors": {"adam": "for-loop"}}
COMPILED = {"compiled": {"compiled": True}}
FOUR = {"stacked": {"stacked": True}}

IDEAS = (
    Idea(
        "Numbers under 1e-38 are flushed to zero",
        True,
        "Adam's moments of units that died shrink to such denormal numbers, and arithmetic on them is slow",
        (Case(f"{MLP}, after 1,500 steps", replace(DENSE, before=1500), {"denormal": {"flush": False}}),),
    ),
    Idea(
        "Freed memory is kept by the process",
        True,
        "else large tensors go back to the system every step, and their pages are zeroed and mapped again",
        tuple(
            Case(job, ways, {"given back": {"keep_memory": False}})
            for job, ways in ((MLP, DENSE), (WHOLE, FULL), (CONV, CNN))
        ),
    ),
    Idea(
        "Images stay bytes and become float32 a batch at a time",
        True,
        "a byte a pixel and not four, and workers share the file's pages",
        tuple(
            Case(job, ways, {"float32 in memory": {"resident": "float32"}})
            for job, ways in ((MLP, DENSE), (WHOLE, FULL))
        ),
    ),
    Idea(
        "A gather for each batch, not one an epoch",
        True,
        "no second copy of the images",
        (Case(MLP, DENSE, {"one an epoch": {"gather": "epoch"}}),),
    ),
    Idea("Fused Adam", True, "", (Case(MLP, DENSE, ADAMS), Case(BIG, WIDE, ADAMS))),
    Idea(
        "The full batch in pieces of 2,000",
        True,
        "activations of a piece stay in the cache, and memory does not grow with the data",
        (Case(WHOLE, FULL, CHUNKS), Case(f"{WHOLE}, bf16", in_bf16(FULL), CHUNKS)),
    ),
    Idea(
        "Channels last in convolutions",
        True,
        "the layout that oneDNN computes in",
        tuple(
            Case(job, ways, {"channels first": {"channels_last": False}})
            for job, ways in ((CONV, CNN), (f"{CONV}, bf16", in_bf16(CNN)))
        ),
    ),
    Idea(
        "Max pool before the activation",
        True,
        "equal for a rising function, on a quarter of the values",
        (Case(CONV, CNN, {"after it": {"pool_first": False}}),),
    ),
    Idea(
        "The loss is read once an epoch",
        True,
        "on a GPU, reading it each step waits for the device",
        (Case(MLP, DENSE, {"each step": {"read_loss": "step"}}),),
    ),
    Idea(
        "Several seeds as one stacked computation",
        False,
        "pays for tiny nets alone, and would need a second form of every family",
        (
            Case(f"4 x {MLP}", replace(DENSE, seeds=4, samples=12_800), FOUR),
            Case("4 x 64-128-64-10, batch 64", Ways("64-128-64-10", batch=64, seeds=4, samples=6_400), FOUR),
        ),
    ),
    Idea(
        "torch.compile",
        False,
        "needs a C++ compiler, compiles for every job, and ties results to that compiler",
        (
            Case(MLP, DENSE, COMPILED),
            Case(CONV, CNN, COMPILED),
            Case("dense autoencoder, batch 1,000", Ways("autoencoder", batch=1000), COMPILED),
            Case("dense autoencoder, batch 1,000, bf16", in_bf16(Ways("autoencoder", batch=1000)), COMPILED),
        ),
        compiles=True,
    ),
    Idea(
        "First convolution as a matrix product over patches",
        False,
        "the patches are nine times the image",
        (Case(CONV, CNN, {"patches": {"first_convolution": "unfold"}}),),
    ),
    Idea(
        "Max pool as elementwise maxima",
        False,
        "strided reads in both directions",
        (Case(CONV, CNN, {"maxima": {"pool": "maxima"}}),),
    ),
)


def measure(rounds: int, say: Say, quick: bool = False) -> list[dict[str, Any]]:
    """A row for every change of every case: seconds of an epoch both ways, and the idea's speed-up as their ratio."""
    ideas = [idea for idea in IDEAS if not idea.compiles or (shutil.which("g++") and not quick)]
    return [row for idea in ideas for case in idea.cases for row in _rows(idea, case, rounds, say)]


def _rows(idea: Idea, case: Case, rounds: int, say: Say) -> list[dict[str, Any]]:
    ways = {"as kept": case.base} | {label: replace(case.base, **change) for label, change in case.changes.items()}
    starts = [partial(Contender, label, "bench.plain_loop", way.dumps()) for label, way in ways.items()]
    with waiting(*starts) as contenders:
        alternate(contenders, rounds, f"{idea.name}: {case.job}", say)
    base, *others = contenders
    rows = []
    for other in others:
        kept, changed = median(base.seconds), median(other.seconds)
        row = {"idea": idea.name, "kept": idea.kept, "why": idea.why, "job": case.job, "other": other.name}
        row |= {"seconds_kept": kept, "seconds_other": changed, "rounds": rounds}
        row |= {"speedup": changed / kept if idea.kept else kept / changed}
        rows.append(row | {"first_epoch_seconds_other": other.warm_up_seconds})
    return rows
