"""Where the time of atelier's path goes: an epoch under torch's profiler, on one thread, by operator."""

import json
import sys

from atelier.fanout import fan_out
from bench import anchors
from bench.anchors import Anchor
from bench.atelier_path import fit_anchor

SHOWN = 8


def profile(job: tuple[Anchor, str]) -> list[dict]:
    """The operators with most self time in the second epoch: their share of all self CPU time, and how often called."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    anchor, precision = job
    recorder = profiler(activities=[ProfilerActivity.CPU])

    def after_epoch(state) -> None:
        if state.epoch == 1:
            recorder.start()
        elif state.epoch == 2:
            recorder.stop()

    fit_anchor(anchor, precision, 0, after_epoch, epochs=3)
    found = sorted(recorder.key_averages(), key=lambda row: -row.self_cpu_time_total)
    total = sum(row.self_cpu_time_total for row in found)
    top = [{"operator": f.key, "share": f.self_cpu_time_total / total, "calls": f.count} for f in found[:SHOWN]]
    return [*top, {"operator": "all others", "share": 1 - sum(row["share"] for row in top), "calls": None}]


if __name__ == "__main__":
    out = sys.stdout
    sys.stdout = sys.stderr  # fan_out shows its progress there
    job = (anchors.loads(sys.argv[1]), sys.argv[2])
    print(json.dumps(fan_out(profile, [job], workers=1, threads=1, title="profile")[0]), file=out)
