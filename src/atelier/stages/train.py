"""train: data/noisy/<dataset> + studies.<study> -> models/<study>/<model>/<seed>/."""

import shutil
import time

from atelier import files, jobs, paths, timings
from atelier.fanout import beforehand
from atelier.params import load

RESULT = ("weights.safetensors", "weights.sha256", "spec.json", "history.json", "snapshots.npz")


def main(study: str) -> None:
    started = time.monotonic()
    params = load(families=False)  # the workers check the rest: only they need torch
    wanted = beforehand(_jobs, study, **params.crew)
    trained = jobs.train_all(wanted, params, f"train {study}")
    shutil.rmtree(paths.models(study), ignore_errors=True)
    for job in wanted:
        for name in RESULT:
            if (job.folder / name).exists():
                files.write_bytes(paths.model(study, job.model, job.seed) / name, (job.folder / name).read_bytes())
    distinct = len({job.key for job in wanted})
    # A run that reused jobs says nothing of how long the study takes.
    seconds = {"train": round(time.monotonic() - started, 2)} if trained == distinct else {}
    timings.update(paths.timings(study), [jobs.result(job) for job in wanted], stages=seconds)
    print(f"train {study}: {trained} of {distinct} jobs trained, the others reused")


def _jobs(study: str) -> list[jobs.Job]:
    return jobs.of_study(load(), study)
