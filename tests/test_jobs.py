"""Jobs: what their key depends on, what survives a kill at any moment, and what a stored model is checked for."""

import copy
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CLASSES, RECIPE, SHAPE, contents, write_params
from filelock import FileLock

from atelier import checkpoint, code, families, fanout, files, jobs, paths
from atelier.errors import AtelierError
from atelier.params import Compute, Recipe, TrainNoise, load
from atelier.stages import train

pytestmark = pytest.mark.usefixtures("one_thread")
FOUR_EPOCHS = {"net": {"family": "mlp", "hidden": [12], "dropout": [0.2]}}


def only_job() -> jobs.Job:
    (job,) = jobs.of_study(load(), "tiny")
    assert job.key  # found now, before a test changes what it depends on
    return job


@pytest.fixture
def job(project) -> jobs.Job:
    return only_job()


@pytest.fixture
def new_family(project, monkeypatch):
    """Writes the source of a family for this test alone."""
    folder = project / "families"
    folder.mkdir()
    monkeypatch.setattr(families, "__path__", [*families.__path__, str(folder)])

    def write(source: str, name: str = "made_up") -> str:
        (folder / f"{name}.py").write_text(textwrap.dedent(source))
        sys.modules.pop(f"atelier.families.{name}", None)
        code.of_family.cache_clear()
        code._read.cache_clear()
        return name.replace("_", "-")

    yield write
    sys.modules.pop("atelier.families.made_up", None)
    code.of_family.cache_clear()


# ---- the key


def test_the_key_changes_with_everything_that_a_result_depends_on(job, monkeypatch):
    noisy = job.recipe.changed({"noise": {"kind": "gaussian", "level": 0.2}})
    changed = {
        "seed": replace(job, seed=1),
        "settings": replace(job, settings=job.settings | {"hidden": (13,)}),
        "recipe": replace(job, recipe=job.recipe.changed({"lr": 0.02})),
        "noise": replace(job, recipe=noisy),
        "draw": replace(job, recipe=noisy.changed({"noise": TrainNoise(kind="gaussian", level=0.2, draw="fresh")})),
        "threads": replace(job, compute=Compute(threads=2, device="cpu")),
        "family": replace(job, family="recurrent"),
    }
    keys = {what: other.key for what, other in changed.items()}
    for name, value in {"_versions": {"torch": "0"}, "device": "cuda"}.items():
        with monkeypatch.context() as patch:
            patch.setattr(jobs, name, lambda *_, value=value: value)
            keys[name] = replace(job).key
    assert len({job.key, *keys.values()}) == len(keys) + 1, keys


def test_the_key_does_not_change_with_names_or_a_new_option_that_is_off_but_with_another_default(job):
    class Later(Recipe):
        """As a later version may have it."""

        warmup: int = 0

    class Changed(Recipe):
        momentum: float = 0.8

    assert replace(job, study="other", model="alias", label=" again").key == job.key
    assert replace(job, recipe=Later(**job.recipe.model_dump())).key == job.key
    assert replace(job, recipe=Later(**job.recipe.model_dump(), warmup=3)).key != job.key
    assert replace(job, recipe=job.recipe.changed({"momentum": 0.9, "clip": None})).key == job.key
    assert replace(job, recipe=Recipe(**RECIPE)).key == job.key != replace(job, recipe=Changed(**RECIPE)).key


def test_the_key_follows_the_files_that_the_job_reads(job):
    noisy = replace(job, recipe=job.recipe.changed({"noise": {"kind": "gaussian", "level": 0.2}}))
    assert noisy.key != job.key
    about = paths.noisy("digits") / "about.json"
    content = files.read_json(about)
    changes = {"train.npz": (True, True), "test.npz": (True, True), "train.gaussian-0.2.npz": (False, True)}
    changes |= {"test.gaussian-0.2.npz": (False, True), "test.masking-0.5.npz": (False, False)}
    for name, expected in changes.items():
        files.write_json(about, content | {"files": content["files"] | {name: "0" * 64}})
        assert (replace(job).key != job.key, replace(noisy).key != noisy.key) == expected, name


def test_the_key_follows_the_stored_noise_of_a_first_training(job):
    noise = {"kind": "gaussian", "level": 0.2}
    first = replace(job, recipe=job.recipe.changed({"pretrain": {"epochs": 1, "noise": noise}}))
    about = paths.noisy("digits") / "about.json"
    content = files.read_json(about)
    before = (first.key, job.key)
    files.write_json(about, content | {"files": content["files"] | {"train.gaussian-0.2.npz": "0" * 64}})
    assert replace(first).key != before[0] and replace(job).key == before[1]


def test_the_key_follows_the_weights_that_a_job_starts_from_and_not_their_place(job, tmp_path):
    for name, content in {"a": "1", "b": "1", "c": "2"}.items():
        files.write_text(tmp_path / name / "weights.sha256", content + "\n")
    a, b, c = (replace(job, start=tmp_path / name).key for name in "abc")
    assert a == b and len({a, c, job.key}) == 3


FAMILY = """
    {doc}
    from torch import nn
    from atelier.layers import class_losses
    from atelier.optim import Optimizer

    class Model(nn.Module):
        {doc}
        def __init__(self, shape, classes, *, optimizer: Optimizer = Optimizer()) -> None:
            {doc}
            super().__init__()
            self.head, self.own = nn.Linear({inputs}, classes), optimizer  # {comment}

        def classify(self, x):
            return self.head(x.flatten(1))

        def optimizers(self):
            return [self.own(self.parameters())]

        def losses(self, x, y):
            yield class_losses(self.classify(x), y)
    """


def test_the_key_follows_the_code_of_the_family_and_not_its_words(job, new_family):
    def key(**changes: str) -> str:
        source = FAMILY.format(**{"doc": '"""Words."""', "comment": "why", "inputs": "36"} | changes)
        return replace(job, family=new_family(source), settings={}).key

    first = key()
    assert key() == first
    assert key(comment="another reason") == first
    assert key(doc='"""Other words."""') == first
    assert key(doc="# no docstring") == first
    assert key(inputs="6 * 6") != first


def test_the_key_follows_what_the_family_imports_and_what_every_job_runs(job, monkeypatch, tmp_path):
    before, real = job.key, code.find_spec
    for module, counts in {"fit": True, "noise": True, "optim": True, "layers": True, "params": False}.items():
        copied = tmp_path / f"{module}.py"
        copied.write_text(Path(real(f"atelier.{module}").origin).read_text() + "\nMORE = 1\n")

        def changed(name: str, module=module, copied=copied):
            spec = copy.copy(real(name))  # an imported module's own
            if name == f"atelier.{module}":
                spec.origin = str(copied)
            return spec

        with monkeypatch.context() as patch:
            patch.setattr(code, "find_spec", changed)
            code.of_family.cache_clear()
            assert (replace(job).key != before) == counts, module
        code.of_family.cache_clear()
        assert replace(job).key == before


def test_a_gpu_that_is_not_there_is_said(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert jobs.device(Compute(device="auto")) == jobs.device(Compute(device="cpu")) == "cpu"
    with pytest.raises(AtelierError, match="compute.device is cuda, but torch sees no GPU"):
        jobs.device(Compute(device="cuda"))


# ---- a job


def test_a_finished_job_is_reused_under_any_name(project, job, capsys):
    assert jobs.train(job) and jobs.finished(job)
    before = {name: (job.folder / name).stat().st_mtime_ns for name in contents(job.folder)}
    assert not jobs.train(job)
    write_params(project, {"net": FOUR_EPOCHS["net"], "twin": FOUR_EPOCHS["net"]}, seeds=2)
    train.main("tiny")
    assert {name: (job.folder / name).stat().st_mtime_ns for name in before} == before
    shown = capsys.readouterr().out
    assert "train tiny: 1 of 2 jobs reused, 1 to train" in shown
    assert "train tiny: 1 of 2 jobs trained, the others reused" in shown
    folders = {name: contents(paths.models("tiny") / name) for name in ("net", "twin")}
    assert folders["net"] == folders["twin"] and len(folders["net"]) == 2 * 4
    assert {job["train_s"] for job in files.read_json(paths.timings("tiny"))["jobs"]} <= {
        files.read_json(file)["train_s"] for file in paths.jobs().glob("*/timing.json")
    }


def test_a_model_that_left_the_study_leaves_its_folder(project):
    write_params(project, FOUR_EPOCHS | {"gone": {"family": "softmax"}})
    train.main("tiny")
    write_params(project, FOUR_EPOCHS)
    train.main("tiny")
    assert [folder.name for folder in paths.models("tiny").iterdir()] == ["net"]


def test_two_runs_at_once_do_a_job_once(job):
    done = []
    threads = [threading.Thread(target=lambda: done.append(jobs.train(job))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == [False, True]


def test_progress_tells_every_epoch(project):
    write_params(project, epochs=5, evaluate_every=2)
    job = only_job()
    assert jobs.progress(job) is None
    jobs.train(job)
    header, *epochs, end = map(json.loads, (job.folder / "progress.jsonl").read_text().splitlines())
    assert header == {"study": "tiny", "model": "net", "seed": 0, "epochs": 5, "key": job.key}
    assert [line["epoch"] for line in epochs] == [1, 2, 3, 4, 5] and end == {"done": True}
    curve = files.read_json(job.folder / "history.json")["curve"]
    assert [record["epoch"] for record in curve] == [1, 2, 4, 5]
    assert [line for line in epochs if line["epoch"] != 3] == curve
    assert epochs[2].keys() == {"epoch", "running.loss"}
    files.write_text(job.folder / "progress.jsonl", json.dumps(header) + "\n")
    assert jobs.progress(job) == (0, 5)
    files.write_text(job.folder / "progress.jsonl", json.dumps(header) + "\n" + json.dumps(epochs[3]) + "\n")
    assert jobs.progress(job) == (4, 5)
    files.write_text(job.folder / "progress.jsonl", json.dumps(header) + "\n" + json.dumps(epochs[3])[:20])
    assert jobs.progress(job) is None


def test_a_job_starts_from_the_weights_that_it_is_given(job):
    jobs.train(job)
    still = job.recipe.changed({"epochs": 1, "optimizer": "sgd", "lr": 1e-30})
    further = replace(job, recipe=still, start=job.folder, label=" further")
    jobs.train(further)
    before, after = (checkpoint.read_weights(each.folder) for each in (job, further))
    assert further.folder != job.folder and all(torch.equal(before[name], after[name]) for name in before)


def test_a_job_that_diverges_names_itself_and_leaves_no_model(project):
    models = {"calm": {"family": "softmax"}, "wild": {"family": "softmax", "train": {"optimizer": "sgd", "lr": 1e38}}}
    write_params(project, models)
    with pytest.raises(AtelierError, match="1 of 2 jobs failed: .*study tiny, model wild, seed 0: loss is .* epoch 1"):
        train.main("tiny")
    assert not paths.models("tiny").exists()
    states = {job.model: jobs.finished(job) for job in jobs.of_study(load(), "tiny")}
    assert states == {"calm": True, "wild": False}


def test_a_last_step_that_diverges_is_noticed_though_no_loss_follows_it(job, new_family):
    name = new_family(
        """
        import torch
        from torch import nn

        class Model(nn.Module):
            def __init__(self, shape, classes):
                super().__init__()
                self.w = nn.Parameter(torch.zeros(1))

            def optimizers(self):
                return [torch.optim.SGD(self.parameters(), lr=3e38)]

            def losses(self, x, y):
                yield {"loss": 2 * self.w.sum()}
        """
    )
    with pytest.raises(AtelierError, match="study tiny, model net, seed 0: weights or figures are not finite after"):
        jobs.train(replace(job, family=name, settings={}, recipe=Recipe(epochs=1, batch="full")))


TWO_STAGES = """
    import torch
    from torch import nn
    from torch.nn import functional as F
    from atelier.layers import class_losses
    from atelier.optim import Optimizer

    class Encoder(nn.Module):
        target = "clean"

        def __init__(self, model, optimizer):
            super().__init__()
            self.model, self.back, self.own = model, nn.Linear(6, 36), optimizer

        def optimizers(self):
            return [self.own(self.parameters())]

        def reconstruct(self, x):
            return self.back(self.model.code(x)).sigmoid().view(x.shape)

        def losses(self, x, y):
            yield {"loss": F.mse_loss(self.reconstruct(x), y)}

    class Model(nn.Module):
        def __init__(self, shape, classes, *, optimizer: Optimizer = Optimizer()) -> None:
            super().__init__()
            self.first, self.head, self.own = nn.Linear(36, 6), nn.Linear(6, classes), optimizer

        def pretrain(self, optimizer):
            return Encoder(self, optimizer)

        def code(self, x):
            return self.first(x.flatten(1)).relu()

        def classify(self, x):
            return self.head(self.code(x))

        def optimizers(self):
            return [self.own(self.head.parameters())]

        def losses(self, x, y):
            yield class_losses(self.classify(x), y)
    """
IN_TWO = {"epochs": 3, "items": 20, "batch": 10, "pretrain": {"epochs": 4, "items": None, "lr": 0.03}}


@pytest.fixture
def staged(job, new_family) -> jobs.Job:
    """A job that first trains a code of all items and then, on 20 labels, nothing but the layer that reads it."""
    return replace(job, family=new_family(TWO_STAGES), settings={}, recipe=Recipe(**IN_TWO))


def test_a_first_training_makes_the_weights_that_the_second_starts_from(staged):
    jobs.train(staged)
    history = files.read_json(staged.folder / "history.json")
    assert [point["epoch"] for point in history["pretraining"]] == [1, 2, 3, 4]
    assert history["pretraining"][-1]["train.mse"] < history["pretraining"][0]["train.mse"]
    assert [point["epoch"] for point in history["curve"]] == [1, 2, 3] and "train.accuracy" in history["curve"][0]
    plain = replace(staged, recipe=staged.recipe.changed({"pretrain": None}))
    jobs.train(plain)
    one, other = (checkpoint.read_weights(job.folder) for job in (staged, plain))
    assert one.keys() == other.keys() == {"first.weight", "first.bias", "head.weight", "head.bias"}
    assert not torch.equal(one["first.weight"], other["first.weight"])
    assert jobs.finished(staged) and plain.key != staged.key


@pytest.mark.parametrize("last, epoch", [(False, 2), (False, 4), (True, 1), (True, 2)])
def test_a_job_of_two_trainings_goes_on_where_it_was(staged, last, epoch, monkeypatch):
    jobs.train(staged)
    whole = result(staged)
    for file in staged.folder.iterdir():
        file.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(jobs, "CHECKPOINT_SECONDS", -1)
        real = jobs._Log.__call__

        def log(self, state):
            real(self, state)
            if (self.last, state.epoch) == (last, epoch):
                raise Stop

        patch.setattr(jobs._Log, "__call__", log)
        with pytest.raises(Stop):
            jobs.train(staged)
    assert jobs.progress(staged) == (epoch + 4 * last, 7)
    ran = epochs_run(monkeypatch)
    jobs.train(staged)
    assert result(staged) == whole
    # Each training that is begun tells of its start; the last epoch of the first leaves nothing to do in it.
    assert (
        ran
        == {(False, 2): [3, 4, 0, 1, 2, 3], (False, 4): [0, 1, 2, 3], (True, 1): [2, 3], (True, 2): [3]}[last, epoch]
    )


def test_long_jobs_are_handed_out_first(project, monkeypatch):
    """By the seconds of the last time; those without are ahead of all, and among themselves go by epochs."""
    epochs = {"brief": 1, "usual": 3, "slow": 2, "new": 4, "longest": 9}
    write_params(project, {name: FOUR_EPOCHS["net"] | {"train": {"epochs": n}} for name, n in epochs.items()})
    took = {"brief": 3.0, "usual": 20.0, "slow": 500.0}
    known = [{"model": name, "seed": 0, "train_s": seconds} for name, seconds in took.items()]
    files.write_json(paths.timings("tiny"), {"jobs": [*known, {"model": "gone", "seed": 0, "epochs": 1}]})
    handed_out: list[str] = []
    monkeypatch.setattr(fanout, "fan_out", lambda call, work, **_: [bool(handed_out.append(j.model)) for j in work])
    params = load()
    jobs.train_all(jobs.of_study(params, "tiny"), params, "train tiny")
    assert handed_out == ["longest", "new", "slow", "usual", "brief"]


# ---- stopping and going on


class Stop(Exception):
    pass


def stopped_after(job: jobs.Job, epochs: int) -> None:
    """Train with a checkpoint after every epoch and stop as if killed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs, "CHECKPOINT_SECONDS", -1)
        real = jobs._Log.__call__

        def log(self, state):
            real(self, state)
            if state.epoch == epochs:
                raise Stop

        patch.setattr(jobs._Log, "__call__", log)
        with pytest.raises(Stop):
            jobs.train(job)


def result(job: jobs.Job) -> dict[str, bytes]:
    return {name: (job.folder / name).read_bytes() for name in train.RESULT if (job.folder / name).exists()}


@pytest.fixture
def trained(job) -> dict[str, bytes]:
    """The result of an undisturbed job, which is then forgotten."""
    jobs.train(job)
    found = result(job)
    for file in job.folder.iterdir():
        file.unlink()
    return found


def epochs_run(monkeypatch) -> list[int]:
    ran, real = [], jobs._Log.__call__
    monkeypatch.setattr(jobs._Log, "__call__", lambda self, state: (ran.append(state.epoch), real(self, state)))
    return ran


def test_a_stopped_job_goes_on_after_its_checkpoint(job, trained, monkeypatch, capsys):
    stopped_after(job, 3)
    with open(job.folder / "progress.jsonl", "a") as file:
        file.write('{"epoch": 4, "train.lo')  # torn
    assert jobs.progress(job) is None
    ran = epochs_run(monkeypatch)
    jobs.train(job)
    assert ran == [4] and result(job) == trained
    lines = [json.loads(line) for line in (job.folder / "progress.jsonl").read_text().splitlines()]
    assert [line.get("epoch") for line in lines[1:]] == [1, 2, 3, 4, None]
    assert not (job.folder / "checkpoint.pt").exists()
    assert "damaged" not in capsys.readouterr().out


def test_a_stopped_job_goes_on_with_the_mean_of_its_weights(project):
    write_params(project, weight_average=0.2, label_smoothing=0.1)
    job = only_job()
    jobs.train(job)
    whole = result(job)
    for file in job.folder.iterdir():
        file.unlink()
    stopped_after(job, 3)
    stored = torch.load(job.folder / "checkpoint.pt", weights_only=True)["state"]
    assert not torch.equal(stored["average"]["head.weight"], stored["model"]["head.weight"])
    jobs.train(job)
    assert result(job) == whole


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "text", "bomb"])
def test_a_damaged_checkpoint_means_starting_over(job, trained, damage, monkeypatch, capsys):
    stopped_after(job, 2)
    path = job.folder / "checkpoint.pt"
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        weight = torch.load(path, weights_only=True)["state"]["model"]["head.weight"]
        content[content.index(weight.numpy().tobytes()) + 2] ^= 1  # torch.load would not notice
    elif damage == "bomb":
        torch.save({"state": Path("/"), "seconds": 0.0}, path)
        content = path.read_bytes()
    path.write_bytes({"empty": b"", "cut": content[: len(content) // 2], "text": b"{}"}.get(damage, bytes(content)))
    ran = epochs_run(monkeypatch)
    jobs.train(job)
    assert ran == [0, 1, 2, 3, 4] and result(job) == trained
    assert capsys.readouterr().out == "net seed 0: its checkpoint is damaged, starting over\n"


def test_no_flipped_bit_in_a_checkpoint_changes_a_result(job, trained, capsys):
    stopped_after(job, 3)
    content = (job.folder / "checkpoint.pt").read_bytes()
    for place in np.random.default_rng(0).integers(0, len(content), 25):
        flipped = bytearray(content)
        flipped[place] ^= 4
        for file in job.folder.iterdir():
            file.unlink()
        (job.folder / "checkpoint.pt").write_bytes(flipped)
        jobs.train(job)
        assert result(job) == trained, place
    assert 3 < capsys.readouterr().out.count("starting over") <= 25


def test_a_finished_job_whose_weights_are_damaged_is_trained_again(job, trained):
    jobs.train(job)
    flip(job.folder / "weights.safetensors")
    assert not jobs.finished(job)
    assert jobs.train(job) and result(job) == trained


KILLS = """
    import os, signal, sys
    from pathlib import Path
    import torch._dynamo  # the first optimizer would
    from atelier import files, jobs
    from atelier.stages import train

    jobs.CHECKPOINT_SECONDS = -1
    replace, line = os.replace, jobs._Log._line

    def die():
        sys.stdout.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    def before_writing(name, count):
        left = [count]

        def watched(source, target):
            left[0] -= Path(target).name == name
            die() if Path(target).name == name and not left[0] else replace(source, target)

        files.os.replace = watched

    def in_line(count):
        left = [count]

        def torn(log, record):
            left[0] -= 1
            if left[0]:
                return line(log, record)
            with open(log.path, "a") as file:
                file.write('{"epoch": 3, "tra')
                file.flush()
                die()

        jobs._Log._line = torn

    def run(prepare, *arguments):
        # A fork spares the seconds that it takes to import torch.
        child = os.fork()
        if not child:
            try:
                prepare(*arguments)
                train.main("tiny")
                sys.stdout.flush()
            finally:
                os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    for moment in (
        (before_writing, "progress.jsonl", 1),
        (before_writing, "checkpoint.pt", 2),
        (in_line, 2),
        (before_writing, "weights.sha256", 1),
        (before_writing, "timing.json", 1),
        (before_writing, "checkpoint.pt", 3),
        (before_writing, "spec.json", 3),
    ):
        print("status", run(*moment))
    print("status", run(lambda: None))
    os.chdir(sys.argv[1])
    print("status", run(lambda: None))
    """


def python(source: str, *arguments: str, **options) -> subprocess.Popen:
    command = [sys.executable, "-c", textwrap.dedent(source), *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, **options)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
def test_a_run_killed_at_any_moment_ends_like_one_that_never_was(project, prepared, tmp_path_factory):
    rebuilder = {"family": "autoencoder", "widths": [5], "train": {"snapshots": [0, 3], "patience": 3}}
    rebuilder["train"]["noise"] = {"kind": "masking", "level": 0.25, "draw": "fresh"}
    other = tmp_path_factory.mktemp("other")
    (other / "data").symlink_to(project / "data")
    for folder in (project, other):
        (folder / "dvc.yaml").touch()
        write_params(folder, FOUR_EPOCHS | {"rebuilder": rebuilder})
    runner = python(KILLS, str(other))
    shown, _ = runner.communicate(timeout=120)
    statuses = [int(line.split()[1]) for line in shown.splitlines() if line.startswith("status")]
    assert statuses == [-signal.SIGKILL] * 7 + [0, 0]
    assert "damaged" not in shown
    assert len(contents(project / "models")) == 2 * 4 + 1
    assert contents(project / "models") == contents(other / "models")


def children(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rsplit(")", 1)[1].split()[:2]
        except OSError:  # ended meanwhile
            continue
        if int(parent) == pid and state != "Z":
            found.append(int(stat.parent.name))
    return found


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_workers_end_soon_after_the_run_that_started_them_was_killed(project):
    write_params(project, epochs=1_000_000, evaluate_every=1000, seeds=2, workers=2)
    source = """
        from atelier import fanout
        from atelier.__main__ import main

        fanout.cores = lambda: 2
        main(["train", "tiny"])
        """
    run = python(source)
    workers = []
    try:
        logs = [job.folder / "progress.jsonl" for job in jobs.of_study(load(), "tiny")]
        busy = lambda: all(log.exists() and log.read_bytes().count(b"\n") > 2 for log in logs)  # noqa: E731
        assert wait_until(busy, 90)
        workers = children(run.pid)
        assert len(workers) >= 2
        run.kill()
        run.communicate()
        assert wait_until(lambda: not any(map(alive, workers)), 4)
        for log in logs:  # the next run need not wait for a lock
            with FileLock(log.parent / "lock", timeout=0):
                pass
    finally:
        for pid in (run.pid, *workers):
            if alive(pid):
                os.kill(pid, signal.SIGKILL)


# ---- stored models


def flip(path: Path, place: int = -5) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def spec_and_model(seed: int = 0) -> tuple[dict, torch.nn.Module]:
    torch.manual_seed(seed)
    settings = {"plan": ("conv 3 3", "pool 2", "dense 5")}
    spec = {"family": "cnn", "shape": SHAPE, "classes": CLASSES, "settings": settings}
    return spec, checkpoint.build(spec)


def test_a_stored_model_answers_as_before(tmp_path):
    spec, model = spec_and_model()
    checkpoint.save(tmp_path, spec, model)
    loaded, read = checkpoint.load(tmp_path)
    x = torch.rand(6, *SHAPE)
    assert torch.equal(loaded.classify(x), model.eval().classify(x)) and not loaded.training
    assert read["settings"] == {"plan": ["conv 3 3", "pool 2", "dense 5"]}
    assert loaded.plan == ("conv 3 3", "pool 2", "dense 5")
    assert checkpoint.intact(tmp_path) and not checkpoint.intact(tmp_path / "elsewhere")


def test_equal_weights_give_equal_bytes(tmp_path):
    for name, seed in {"a": 0, "b": 0, "c": 1}.items():
        checkpoint.save(tmp_path / name, *spec_and_model(seed))
    a, b, c = (contents(tmp_path / name) for name in "abc")
    assert a == b and a["weights.safetensors"] != c["weights.safetensors"]
    assert a.keys() == {"weights.safetensors", "weights.sha256", "spec.json"}


@pytest.mark.parametrize("place", [0, 100, -5])
def test_damaged_weights_are_refused_by_name(tmp_path, place):
    checkpoint.save(tmp_path, *spec_and_model())
    flip(tmp_path / "weights.safetensors", place)
    with pytest.raises(AtelierError, match=r"weights\.safetensors: damaged.*train again"):
        checkpoint.load(tmp_path)
    assert not checkpoint.intact(tmp_path)


def test_a_damaged_sum_counts_as_damage(tmp_path):
    checkpoint.save(tmp_path, *spec_and_model())
    (tmp_path / "weights.sha256").write_bytes(b"\xff\xfe")
    with pytest.raises(AtelierError, match="damaged"):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.sha256", "spec.json"])
def test_a_missing_file_is_named(tmp_path, name):
    checkpoint.save(tmp_path, *spec_and_model())
    (tmp_path / name).unlink()
    with pytest.raises(AtelierError, match=rf"{name}: not there; run the"):
        checkpoint.load(tmp_path)


def test_where_workers_train_the_train_stage_itself_needs_no_torch(project):
    write_params(project, workers=2, seeds=2)
    script = (
        "import sys; from atelier.stages import train; train.main('tiny'); "
        "print({'torch', 'sklearn', 'mlflow', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "2 of 2 jobs trained" in done.stdout and done.stdout.splitlines()[-1] == "set()"


def test_a_wrong_setting_that_a_worker_finds_is_told_in_one_line(project):
    write_params(project, {"net": {"family": "mlp", "hidden": [12], "activaton": "elu"}}, workers=2)
    # As workers end, joblib may warn of a semaphore that is gone already.
    quiet = os.environ | {"PYTHONWARNINGS": "ignore:resource_tracker"}
    command = [sys.executable, "-m", "atelier", "train", "tiny"]
    done = subprocess.run(command, capture_output=True, text=True, env=quiet)
    assert done.returncode == 2 and "did you mean activation?" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
