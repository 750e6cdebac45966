"""python -m bench: measure everything, write bench.json, bench.md and bench/ (details, pictures). See make bench."""

import argparse
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from atelier import checkpoint, files, paths
from atelier.errors import AtelierError, nearest
from bench import anchors, growth, page, speedups
from bench.anchors import ANCHORS, CORES, PEERS, SEEDS, Anchor
from bench.atelier_path import Run, spec
from bench.contender import ENVIRONMENT, PEER_PYTHON, Contender, alternate, waiting
from bench.limit import training_flops

OURS = ("numpy", "torch")
THEIRS = ("keras", "lightning", "scikit-learn", "tensorflow", "torch")
QUICK_SAMPLES, PROFILED = 6_000, 12_000
STARTED = time.monotonic()


def say(text: str) -> None:
    print(f"[{time.monotonic() - STARTED:5.0f} s] {text}", flush=True)


def main() -> int:
    options = _options()
    try:
        os.chdir(paths.root())
        _measure_and_write(options)
    except AtelierError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("bench: interrupted; what was measured is kept, run the same command to go on", file=sys.stderr)
        return 130
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--jobs", nargs="+", metavar="JOB", help="only these: " + ", ".join(dict.fromkeys(a.job for a in ANCHORS))
    )
    parser.add_argument("--rounds", type=int, help="turns of every contender (5)")
    parser.add_argument(
        "--quick", action="store_true", help="a trial: few rounds, few samples; its figures mean nothing"
    )
    parser.add_argument("--out", type=Path, help="folder to write to (reports; .atelier/bench for a part or a trial)")
    parser.add_argument("--peer-python", type=Path, default=PEER_PYTHON, help="the Python that has the other libraries")
    parser.add_argument("--page", action="store_true", help="measure nothing, write the page anew from details.json")
    options = parser.parse_args()
    options.rounds = options.rounds or (2 if options.quick else 5)
    # A part or a trial never takes the place of the committed figures.
    options.out = options.out or Path(".atelier/bench" if options.jobs or options.quick else "reports")
    return options


def _measure_and_write(options: argparse.Namespace) -> None:
    details = options.out / "bench" / "details.json"
    if not options.page:
        files.write_json(details, _measure(options))
    page.write(files.read_json(details), options.out)
    shutil.rmtree(options.out / "bench" / "unfinished", ignore_errors=True)
    say(f"written: {options.out / 'bench.md'}")


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    chosen = _chosen(options)
    os.sched_setaffinity(0, _cores())
    begun, done = time.monotonic(), Parts(options)
    extra = 1 if options.quick else max(3, options.rounds - 2)  # rounds of what no target is judged by
    limits = done("limit-before", partial(_limit, "before"))
    found = [done(anchor.key, partial(_anchor, anchor, options)) for anchor in chosen]
    grown = done("growth", partial(growth.measure, max(extra, 2), say, options.quick))
    brought = done("speedups", partial(speedups.measure, extra, say, options.quick))
    limits = limits + done("limit-after", partial(_limit, "after"))
    return {
        "machine": _machine(),
        "versions": _versions(options.peer_python),
        "rounds": options.rounds,
        "quick": options.quick,
        "minutes": done.minutes_before + (time.monotonic() - begun) / 60,
        "limit": limits,
        "anchors": found,
        "growth": grown,
        "speedups": brought,
    }


class Parts:
    """Every part is written as soon as it is measured, and a run that was cut goes on from there.

    They are told apart by options and code, so that no two kinds of figures are mixed.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        digest = hashlib.sha256(repr((options.rounds, options.quick)).encode())
        for file in sorted([*Path("bench").rglob("*.py"), *Path("src/atelier").rglob("*.py")]):
            digest.update(file.read_bytes())
        self.folder = options.out / "bench" / "unfinished" / digest.hexdigest()[:16]
        self.minutes_before = 0.0

    def __call__(self, name: str, measure: Callable[[], Any]) -> Any:
        path = self.folder / f"{name}.json"
        if path.exists():
            say(f"{name}: kept from a run that was cut")
        else:
            begun = time.monotonic()
            found = measure()
            files.write_json(path, {"found": found, "minutes": (time.monotonic() - begun) / 60})
            return found
        part = files.read_json(path)
        self.minutes_before += part["minutes"]
        return part["found"]


def _chosen(options: argparse.Namespace) -> list[Anchor]:
    known = {anchor.job for anchor in ANCHORS}
    for job in options.jobs or ():
        if job not in known:
            raise AtelierError(f"there is no job {job}; {nearest(job, known)}")
    if not options.peer_python.exists():
        raise AtelierError(f"{options.peer_python}: not there; run make bench, which makes it")
    if not Path(anchors.DATA).exists():
        raise AtelierError(f"{anchors.DATA}: not there; run make bench, which prepares it")
    chosen = [anchor for anchor in ANCHORS if not options.jobs or anchor.job in options.jobs]
    return [anchor.with_samples(QUICK_SAMPLES) for anchor in chosen] if options.quick else chosen


def _cores() -> list[int]:
    mine = sorted(os.sched_getaffinity(0))
    if len(mine) < CORES:
        raise AtelierError(f"this machine has {len(mine)} core; the benchmark needs {CORES}")
    return mine[:CORES]


def _limit(when: str) -> list[dict[str, Any]]:
    say(f"matrix products, {when}")
    return [{"when": when} | row for row in _result("bench.limit")]


def _anchor(anchor: Anchor, options: argparse.Namespace) -> dict[str, Any]:
    """All contenders of a job in turns, then the profile of atelier's path."""
    peers = [peer for peer in PEERS if peer != "sklearn" or anchor.kind == "mlp"]
    runs = [Run(precision, *how) for precision in ("fp32", "bf16") for how in ((1, 1, CORES), (SEEDS, CORES, 1))]

    def start(name: str, *arguments: Any, **keywords: Any) -> Contender:
        contender = Contender(name, *arguments, **keywords)
        say(f"{anchor}: {name} is ready, {contender.peak_memory_mib:.0f} MiB")
        return contender

    starts = [partial(start, peer, f"bench.peers.{peer}", anchor.dumps(), python=options.peer_python) for peer in peers]
    starts += [partial(start, str(run), "bench.atelier_path", anchor.dumps(), run.dumps()) for run in runs]
    with waiting(*starts) as contenders:
        ours = contenders[len(peers) :]
        studies = [contender for contender, run in zip(ours, runs) if run.seeds > 1]
        turns = [1 if options.quick else anchor.turn] * len(contenders)
        alternate(contenders, options.rounds, str(anchor), say, turns, studies)
    profiled = anchor.with_samples(min(PROFILED, anchor.samples))
    profiles = {}
    for precision in ("fp32", "bf16"):
        say(f"{anchor}: profile in {precision}")
        profiles[precision] = _result("bench.profiles", profiled.dumps(), precision)
    return {
        "job": anchor.job,
        "batch": anchor.batch,
        "samples": anchor.samples,
        "flops_per_item": training_flops(checkpoint.build(spec(anchor)), spec(anchor)["shape"]),
        "contenders": [
            {
                "name": contender.name,
                "peer": run is None,
                "precision": run.precision if run else "fp32",
                "seeds": run.seeds if run else 1,
                "side_by_side": run.workers if run else 1,
                "seconds": contender.seconds,
                "cpu_seconds": contender.cpu_seconds,
                "warm_up_seconds": contender.warm_up_seconds,
                "peak_memory_mib": contender.peak_memory_mib,
                "largest_process_mib": contender.largest_process_mib,
            }
            for contender, run in zip(contenders, [None] * len(peers) + runs)
        ],
        "profiles": profiles,
    }


def _result(module: str, *arguments: str) -> Any:
    """What a module prints as JSON, run in a process of its own."""
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, env=os.environ | ENVIRONMENT, capture_output=True, text=True)
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        raise AtelierError(f"{module} failed; its output stands above")
    return json.loads(done.stdout)


def _machine() -> dict[str, Any]:
    info = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":", 1)[1].strip() for line in info if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return {"cpu": cpu, "cores": CORES, "memory_gib": memory}


def _versions(peer_python: Path) -> dict[str, str]:
    script = "import importlib.metadata as m, json, sys; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
    theirs = json.loads(subprocess.check_output([peer_python, "-c", script, *THEIRS]))
    ours = {"python": platform.python_version()} | {name: version(name) for name in OURS}
    return ours | {name: number for name, number in theirs.items() if name not in ours}


if __name__ == "__main__":
    sys.exit(main())
