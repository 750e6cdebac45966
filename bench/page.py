"""reports/bench.md: the answer first, then what it rests on. Every figure on it comes from details.json."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from atelier import files
from bench import pictures
from bench import rows as arithmetic
from bench.anchors import CORES, ITEMS, SEEDS
from bench.rows import Verdict, setting

Measured = dict[str, Any]
MISSING = "–"
UNEVEN = 1.3  # slowest by fastest round from which the page speaks of it

SIDES_DIFFER = """\
- Initial weights of dense and convolutional layers are He-normal on both sides; scikit-learn has Glorot-uniform
  only, and recurrent layers keep each library's own.
- Mini-batches are drawn in a fresh order every epoch on both sides, by each library's own pipeline. A full
  batch is not shuffled.
- Peers hold the images as float32; atelier maps the stored bytes and converts a batch at a time.
- Keras chooses by itself to compile with XLA where it can. Lightning and the DataLoader loop run PyTorch with
  its defaults (Adam unfused, channels first, no worker processes for loading: on two cores they only take time
  from training).
- atelier evaluates after the first epoch and after the last; those are not timed. Peers evaluate nothing.
- Peers run in fp32; atelier's bf16 rows (autocast: products in bfloat16, weights in float32) compare with that."""

HOW = f"""\
- Every contender is a process of its own that trains one epoch to warm up and then waits. They take turns, and
  while one has its turn the others are stopped, so a slow minute of the machine slows all of them alike.
  Figures are medians over the rounds, with the lowest and highest.
- A peer has both cores, by its own threads. atelier is measured twice: one model with {CORES} threads, and a
  study of {SEEDS} seeds on {CORES} workers of one thread.
- atelier's contender starts its jobs by `fan_out`, builds models and items as the train stage does and trains
  them by `fit`, whose `after_epoch` holds it until its next turn.
- A study's turn lasts from the order until the slower of the two jobs has ended its last epoch, and that time
  divided by two models is its seconds for a model. The first two seeds run in the first half of the rounds, the
  others in the second.
- Peak memory is the most during start, loading and the first epoch: anonymous and shared pages (PSS) summed
  over the contender's processes, plus the file pages of the process that has most of them. Pages that workers
  share count once.
- The limit is the best median speed of square matrix products on both cores, the better of before and after.
  Operations are those of matrix products and convolutions: forward, weight gradients, and input gradients but
  for the first layer's.
- All runs on the first {CORES} cores that the process may use."""


def write(details: Measured, out: Path) -> None:
    """The pictures, bench.json and bench.md in `out`."""
    found = arithmetic.rows(details["anchors"], details["limit"])
    drawn = pictures.draw(details, found, out / "bench")
    files.write_json(out / "bench.json", found)
    files.write_text(out / "bench.md", page(details, found, drawn))


def page(details: Measured, found: list[Measured], drawn: dict[str, str]) -> str:
    settled = arithmetic.verdicts(found, details["growth"])

    def picture(file: str) -> str:
        return f"![{drawn[file]}](bench/{file})\n\n*{drawn[file]}*" if file in drawn else ""

    sections = [
        "# How fast does atelier train, against Keras and others on the same machine?",
        f"**Answer.** {answer(found, settled)}",
        _verdicts(settled),
        _missed(settled, details["anchors"]),
        _stalls(details["anchors"]),
        picture("ratio.png"),
        "## Seconds",
        f"Seconds for each model and {ITEMS:,} items: median, and lowest to highest over the rounds. *Ratio*: Keras's "
        f"seconds by these. *Limit*: share of what matrix products reach on both cores. *Busy*: share of both cores' "
        "time in which it computed. *Memory*: peak, MiB.",
        *(_anchor(anchor, details["limit"]) for anchor in details["anchors"]),
        picture("memory.png"),
        "## The machine's limit",
        _limit(details["limit"]),
        "## How the time grows",
        picture("growth.png"),
        *_growth(details["growth"]),
        "## What each idea brings",
        "A small loop of its own (`bench/plain_loop.py`) with an idea and without it, in turns, on one thread. "
        "*Speed-up*: seconds without the idea by seconds with it.",
        _ideas("Kept", [row for row in details["speedups"] if row["kept"]]),
        _ideas("Tried and not kept", [row for row in details["speedups"] if not row["kept"]]),
        *([] if any(row["idea"] == "torch.compile" for row in details["speedups"]) else [NOT_COMPILED]),
        _ways(details["anchors"]),
        "## Where the time goes",
        "Share of self CPU time by operator in one epoch of atelier's path, on one thread.",
        *_profiles(details["anchors"]),
        "## What differs between the sides",
        SIDES_DIFFER,
        "## How it is measured",
        HOW,
        "## Machine",
        _machine(details),
        "## Run it again",
        "```\nmake bench\n```",
        f"It needs nothing else to run on the machine; this run took {details['minutes']:.0f} minutes with "
        f"{details['rounds']} rounds. The same figures as data: [bench.json](bench.json), "
        "[everything measured](bench/details.json).",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


ARTICLE = ("one model", f"a study of {SEEDS} seeds")
MISSED = (
    "**Missed.** What would be possible, and where the time goes; what was tried against it stands below, among the "
    "ideas that were not kept. Convolutions are oneDNN's on both sides, so only the rest of a convolutional net can "
    "differ."
)
NOT_COMPILED = "torch.compile was not measured in this run: it needs a C++ compiler, and a quick run leaves it out."


def answer(found: list[Measured], settled: Sequence[Verdict]) -> str:
    """The range of ratios against Keras in each precision, and how many targets are met."""
    parts = []
    for precision in dict.fromkeys(row["precision"] for row in found):
        for seeds in (SEEDS, 1):
            own = [
                row["ratio"]
                for row in found
                if (row["precision"], row["seeds"], row["peer"]) == (precision, seeds, "keras")
            ]
            if own:
                parts.append(f"{min(own):.1f} to {max(own):.1f} times as fast in {precision} for {ARTICLE[seeds > 1]}")
    met = sum(verdict.met for verdict in settled)
    ratios = [verdict for verdict in settled if verdict.least]
    even = sum(verdict.against_fastest >= verdict.least for verdict in ratios)
    strict = f" Against Keras's fastest round, {even} of the {len(ratios)} ratios would be." if ratios else ""
    speed = f"Against Keras in fp32, by median seconds for each model: {', '.join(parts)}. " if parts else ""
    return f"{speed}By medians, {met} of {len(settled)} targets are met.{strict}"


def table(header: Sequence[str], body: Iterable[Sequence[Any]]) -> str:
    """A Markdown table; all columns but the first are aligned right where their header ends in a colon."""
    rule = ["---:" if name.endswith(":") else "---" for name in header]
    lines = [[name.removesuffix(":") for name in header], rule, *([str(cell) for cell in row] for row in body)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _verdicts(settled: Sequence[Verdict]) -> str:
    body = []
    for v in settled:
        others = [f"{ratio:.2f} x" if ratio else MISSING for ratio in (v.against_fastest, v.at_limit)]
        body.append((v.target, v.wanted, v.measured, *others, "met" if v.met else "**missed**"))
    header = ("target", "wanted", "measured:", "against Keras's fastest round:", "at the machine's limit:", "verdict")
    return table(header, body)


def _missed(settled: Sequence[Verdict], anchors: list[Measured]) -> str:
    """A line for every ratio that was missed: out of reach on this machine, or where the time goes."""
    profiles = {(a["job"], a["batch"], p): rows for a in anchors for p, rows in a["profiles"].items()}
    lines: dict[str, None] = {}  # one for a job and precision, though both ways of running it may miss
    for v in settled:
        if v.met or v.least is None:
            continue
        most = [f"{row['operator']} {row['share']:.0%}" for row in profiles[v.key][:4]]
        reach = f"products at full speed and nothing else would make it {v.at_limit:.2f} x"
        if v.at_limit < v.least:
            reach += ", so it is out of reach here"
        job, batch, precision = v.key
        lines[f"- {job}, batch {batch}, {precision}: {reach}; the time goes to {', '.join(most)}."] = None
    return f"{MISSED}\n\n" + "\n".join(lines) if lines else ""


def _stalls(anchors: list[Measured]) -> str:
    """Says how uneven Keras's own rounds are, and that it waits in the slow ones, if it does."""
    uneven = []
    for anchor in anchors:
        for keras in (c for c in anchor["contenders"] if c["name"] == "keras"):
            shares = [cpu / turn / CORES for cpu, turn in zip(keras["cpu_seconds"], keras["seconds"])]
            if max(keras["seconds"]) > UNEVEN * min(keras["seconds"]):
                slow = shares[keras["seconds"].index(max(keras["seconds"]))]
                fast = shares[keras["seconds"].index(min(keras["seconds"]))]
                name = f"{anchor['job']}, batch {anchor['batch']}"
                ratio = max(keras["seconds"]) / min(keras["seconds"])
                uneven.append(f"{name}: {ratio:.1f} x, busy {slow:.0%} against {fast:.0%}")
    if not uneven:
        return ""
    return (
        "**Keras's rounds differ among themselves**: some of its epochs begin with a wait in which none of its threads "
        "computes (the main thread waits for the step function; it is so without any stopping too). Slowest by fastest "
        f"round, and the share of both cores' time in which each computed: {'; '.join(uneven)}. Medians include these "
        "waits, for a user has them too; the column of the fastest round does not."
    )


def _anchor(anchor: Measured, limits: list[Measured]) -> str:
    keras = next((c for c in anchor["contenders"] if c["name"] == "keras"), None)
    body = []
    for contender in anchor["contenders"]:
        taken = arithmetic.seconds(anchor, contender)
        share = anchor["flops_per_item"] * ITEMS / 1e9 / median(taken)
        share /= arithmetic.limit(limits, contender["precision"])
        ratio = median(arithmetic.seconds(anchor, keras)) / median(taken) if keras else None
        name = contender["name"] if contender["peer"] else f"**atelier**, {setting(contender['seeds'])}"
        figures = [f"{median(taken):.3g}", f"{min(taken):.3g} to {max(taken):.3g}", len(taken)]
        figures += [MISSING if ratio is None else f"{ratio:.2f}", f"{share:.0%}"]
        figures += [f"{arithmetic.busy(contender):.0%}", f"{contender['peak_memory_mib']:.0f}"]
        body.append((name, contender["precision"], *figures))
    gflop = anchor["flops_per_item"] * ITEMS / 1e9
    title = f"**{anchor['job']}, batch {anchor['batch']}** ({gflop:,.0f} GFLOP for {ITEMS:,} items)"
    header = ("", "precision", "seconds:", "low to high:", "rounds:", "ratio:", "limit:", "busy:", "memory:")
    return f"{title}\n\n{table(header, body)}"


def _limit(limits: list[Measured]) -> str:
    header = ("when", "precision", "threads:", "GFLOP/s:", "side of the matrices:")
    keys = ("when", "precision", "threads", "gflops", "side")
    return table(header, [[f"{row[k]:,.0f}" if k == "gflops" else row[k] for k in keys] for row in limits])


def _growth(growth: Measured) -> list[str]:
    points = arithmetic.relative_to_largest(growth["samples"])
    sizes = sorted({point["samples"] for point in points})
    by_job = {(point["job"], point["samples"]): point for point in points}
    body = []
    for job in dict.fromkeys(point["job"] for point in points):
        own = [by_job[job, size] for size in sizes]
        body.append((job, *(f"{point['per_60000']:.3g} ({point['relative']:.2f})" for point in own)))
    studies = [
        (p["seeds"], p["workers"], f"{p['seconds']:.1f}", f"{p['seconds'] / p['seeds']:.2f}") for p in growth["studies"]
    ]
    return [
        f"Samples: seconds for {ITEMS:,} items, one model in fp32 (in brackets: relative to the largest set).",
        table(("job", *(f"{size:,}:" for size in sizes)), body),
        f"Width of one hidden layer at batch 128: seconds for {ITEMS:,} items.",
        table([f"{p['width']}:" for p in growth["width"]], [[f"{p['per_60000']:.3g}" for p in growth["width"]]]),
        "Seeds and workers: seconds of a whole small study, evaluation included.",
        table(("seeds:", "workers:", "seconds:", "seconds a seed:"), studies),
    ]


def _ideas(title: str, speedups: list[Measured]) -> str:
    body = []
    for row in speedups:
        against = f"{row['job']}; not {row['other']}" if row["kept"] else row["job"]
        note = row["why"]
        if row["idea"] == "torch.compile":
            note += f" ({row['first_epoch_seconds_other']:.0f} s with the first epoch)"
        body.append((row["idea"], against, f"{row['speedup']:.2f} x", note))
    return table((title.lower(), "where", "speed-up:", "why"), body) if body else ""


def _ways(anchors: list[Measured]) -> str:
    """Ideas that the anchors themselves measure: bf16, and two jobs of one thread against one of two."""
    body = []
    for anchor in anchors:
        own = {
            (c["precision"], c["seeds"]): median(arithmetic.seconds(anchor, c))
            for c in anchor["contenders"]
            if not c["peer"]
        }
        cells = [own["fp32", 1] / own["bf16", 1], own["fp32", SEEDS] / own["bf16", SEEDS]]
        cells += [own["fp32", 1] / own["fp32", SEEDS], own["bf16", 1] / own["bf16", SEEDS]]
        body.append((f"{anchor['job']}, batch {anchor['batch']}", *(f"{cell:.2f} x" for cell in cells)))
    header = ("", "bf16, one model:", "bf16, study:", "two jobs of one thread, fp32:", "the same, bf16:")
    text = (
        "Two ideas that the jobs above measure: bf16 against fp32, and two jobs of one thread side by side against one "
    )
    return f"{text}job of two threads.\n\n{table(header, body)}" if body else ""


def _profiles(anchors: list[Measured]) -> list[str]:
    sections = []
    for anchor in anchors:
        columns = anchor["profiles"]
        cells = [[f"{row['operator']} {row['share']:.0%}" for row in columns[precision]] for precision in columns]
        sections.append(f"**{anchor['job']}, batch {anchor['batch']}**\n\n{table(tuple(columns), zip(*cells))}")
    return sections


def _machine(details: Measured) -> str:
    machine, versions = details["machine"], details["versions"]
    named = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    return f"{machine['cpu']}, {machine['cores']} cores used, {machine['memory_gib']:.0f} GiB. {named}."
