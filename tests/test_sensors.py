"""Windows of wearable sensors: archives, readers and splits, on files of the published formats, written here."""

import hashlib
import io
import json
import re
import stat
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atelier.data import archives, formats, pamap2, sources, uci_har, windows
from atelier.data.items import items
from atelier.data.store import Store
from atelier.errors import AtelierError
from atelier.stages import add_noise, download

HAR, SUBSET, PAMAP2 = "uci-har", "uci-har-subset", "pamap2"
SETTINGS = {
    HAR: "{validation_subjects: [3]}",
    SUBSET: "{validation: 6}",
    PAMAP2: "{validation_subjects: [105], test_subjects: [106], step: 4}",
}
PARAMS = """
compute: {{threads: 1, device: cpu}}
datasets: {{digits: {{test: 360, validation: 237}}}}
datasets_on_demand: {{{dataset}: {settings}}}
noise: {{seed: 0, gaussian: [0.2], salt-and-pepper: [0.1]}}
experiments: {{}}
studies:
  study:
    asks: Is it read?
    dataset: {dataset}
    seeds: 1
    train: {{epochs: 1}}
    models: {{softmax: {{family: softmax}}}}
    prune: null
    claims: []
    published: {{}}
    note: null
"""
FILES = [f"{kind}_{axis}" for kind in ("body_acc", "body_gyro", "total_acc") for axis in "xyz"]
Members = dict[str, bytes]


def har_path(part: str, file: str) -> str:
    return f"UCI HAR Dataset/{part}/{'Inertial Signals/' if file in FILES else ''}{file}_{part}.txt"


def lines(numbers: np.ndarray, form: str) -> bytes:
    return "".join(" ".join(form % n for n in row) + "\n" for row in np.atleast_2d(numbers)).encode()


def small_har() -> Members:
    """24 training windows of people 1, 3 and 5, and 12 test windows of 2 and 4, in the published form of numbers."""
    rng, members = np.random.default_rng(0), {}
    for part, n, people in (("train", 24, (1, 3, 5)), ("test", 12, (2, 4))):
        for channel, file in enumerate(FILES):
            values = channel + (1 + channel) * rng.standard_normal((n, 128))
            members[har_path(part, file)] = lines(values, "%16.7e")
        members[har_path(part, "y")] = lines(1 + np.arange(n)[:, None] % 6, "%d")
        members[har_path(part, "subject")] = lines(np.sort(np.resize(people, n))[:, None], "%d")
    return members


def recording(seed: int, gaps: float = 0.3) -> np.ndarray:
    """Every activity for 45 to 60 rows with a transient before it, 54 columns, some values missing."""
    rng = np.random.default_rng(seed)
    activity = np.concatenate([np.repeat((0, a), (7, rng.integers(45, 60))) for a in pamap2.ACTIVITIES])
    rows = rng.normal(5, 2, (len(activity), 54)).round(4)
    rows[:, 2:][rng.random((len(rows), 52)) < gaps] = np.nan
    rows[:, 0], rows[:, 1] = 5 + np.arange(len(rows)) / 100, activity
    return rows


def dat(rows: np.ndarray) -> bytes:
    return b"".join(lines(row, "%.7g").replace(b"nan", b"NaN") for row in rows)


@pytest.fixture(scope="module")
def recordings() -> dict[int, np.ndarray]:
    return {subject: recording(subject) for subject in pamap2.SUBJECTS}


def dat_path(subject: int) -> str:
    return f"PAMAP2_Dataset/Protocol/subject{subject}.dat"


def zipped(members: Members) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def error_of(call: Callable, *arguments, **named) -> str:
    with pytest.raises(AtelierError) as caught:
        call(*arguments, **named)
    message = str(caught.value)
    assert "\n" not in message
    return message


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A project folder to stand in, short recordings, and no host that could be reached."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "dvc.yaml").touch()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.setenv("ATELIER_MIRROR", "../mirror")
    monkeypatch.setattr(pamap2, "STEPS", 10)
    return folder


def publish(monkeypatch, dataset: str, content: bytes, given: str = "") -> str:
    """Put an archive into the mirror, pin it, and write params.yaml; gives the archive's name."""
    source = sources.SOURCES[dataset]
    file = replace(source.files[0], size=len(content), sha256=hashlib.sha256(content).hexdigest())
    monkeypatch.setitem(sources.SOURCES, dataset, replace(source, files=(file,), hosts=()))
    place = Path("../mirror") / (source.shelf or dataset)
    place.mkdir(parents=True, exist_ok=True)
    (place / file.name).write_bytes(content)
    Path("params.yaml").write_text(PARAMS.format(dataset=dataset, settings=given or SETTINGS[dataset]))
    return file.name


def prepare(monkeypatch, dataset: str, content: bytes, given: str = "") -> Store:
    publish(monkeypatch, dataset, content, given)
    download.main(dataset)
    add_noise.main(dataset)
    return Store(Path("data/noisy") / dataset)


# The whole way


def nested(members: Members) -> bytes:
    """As UCI serves it: an archive of an archive, beside what a Mac adds."""
    return zipped({"UCI HAR Dataset.names": b"notes", "UCI HAR Dataset.zip": zipped({"__MACOSX/._a": b"", **members})})


@pytest.mark.parametrize("dataset", [HAR, SUBSET])
def test_windows_are_those_of_the_files_row_by_row(dataset, project, monkeypatch):
    members = small_har()
    store = prepare(monkeypatch, dataset, nested(members) if dataset == HAR else zipped(members))
    assert (store.shape, store.classes[5]) == ((9, 128), "laying")
    held = np.load("data/noisy/" + dataset + "/train.npz")["validation"]
    about = json.loads((store.folder / "about.json").read_text())["signals"]
    assert (len(about["channels"]), about["rate"], about["units"][3]) == (9, 50.0, "rad/s")
    for part in ("train", "test"):
        x, y = store.split(part)
        assert (x.dtype, y.dtype) == (np.float32, np.int64)
        labels = members[har_path(part, "y")].decode().split()
        assert y.tolist() == [int(label) - 1 for label in labels]
        for channel, file in enumerate(FILES):
            texts = {p: members[har_path(p, file)].decode().splitlines() for p in ("train", "test")}
            seen = [float(t) for row, h in zip(texts["train"], held, strict=True) if not h for t in row.split()]
            mean, deviation = np.mean(seen), np.std(seen)
            expected = [[(float(t) - mean) / deviation for t in row.split()] for row in texts[part]]
            np.testing.assert_allclose(x[:, channel], expected, atol=1e-5)
            assert about["mean"][channel] == pytest.approx(mean, abs=1e-6)


def test_whole_people_are_held_out_where_they_are_known(project, monkeypatch):
    members = small_har()
    prepare(monkeypatch, HAR, nested(members))
    people = np.array(members[har_path("train", "subject")].split(), int)
    held = np.load("data/noisy/uci-har/train.npz")["validation"]
    np.testing.assert_array_equal(held, people == 3)


@pytest.mark.parametrize("dataset", [HAR, SUBSET, PAMAP2])
def test_no_validation_or_test_value_reaches_what_is_trained_on(dataset, project, monkeypatch, recordings):
    """Everything outside the training windows is changed wildly; the stored training windows keep every byte."""
    seen = []
    for wild in (1, 1000):
        if dataset == PAMAP2:
            factor = {s: np.r_[1, 1, np.full(52, wild if s in (105, 106) else 1)] for s in recordings}
            content = zipped({dat_path(s): dat(rows * factor[s]) for s, rows in recordings.items()})
        else:
            members = small_har()
            for part in ("train", "test") if seen else ():
                for file in FILES:
                    values = np.loadtxt(io.BytesIO(members[har_path(part, file)]))
                    values[seen[0][1] if part == "train" else slice(None)] *= wild
                    members[har_path(part, file)] = lines(values, "%16.7e")
            content = nested(members) if dataset == HAR else zipped(members)
        store = prepare(monkeypatch, dataset, content)
        stored = store.stored("train", hold_out=True)
        held = np.load(store.folder / "train.npz")["validation"]
        about = json.loads((store.folder / "about.json").read_text())["signals"]
        seen.append((stored.x[stored.rows].tobytes(), held, about, store.split("test")[0].tobytes()))
    assert seen[0][0] == seen[1][0] and seen[0][2] == seen[1][2]
    assert seen[0][3] != seen[1][3]


def test_the_page_counts_shows_and_warns(project, monkeypatch):
    from PIL import Image

    store = prepare(monkeypatch, SUBSET, zipped(small_har()))
    page = Path("reports/data/uci-har-subset/index.md").read_text()
    assert "| all | 18 | 6 | 12 |" in page
    assert "a window of 9 channels and 128 steps, 50.0 a second: 2.56 s" in page
    assert sources.SOURCES[SUBSET].note in page and "may share half its samples" in page
    assert "## Corruptions" not in page and store.corruptions("test") == []
    assert set(tree(Path("reports/data/uci-har-subset"))) == {"index.md", "samples.png"}
    with Image.open("reports/data/uci-har-subset/samples.png") as picture:
        assert min(picture.size) > 300
    before = tree(Path())
    add_noise.main(SUBSET)
    assert tree(Path()) == before


def test_what_models_read_is_what_is_stored(project, monkeypatch):
    store = prepare(monkeypatch, SUBSET, zipped(small_har()))
    seen = items(store, "train", None, hold_out=True)
    np.testing.assert_array_equal(seen.x[:].numpy(), store.split("train", hold_out=True)[0])
    assert seen.x[:].mean((0, 2)).abs().max() < 1e-5
    np.testing.assert_allclose(seen.x[:].numpy().std((0, 2)), 1, atol=1e-5)


# PAMAP2 beside straightforward code


def by_hand(rows: np.ndarray, step: int, channels: list[int], steps: int) -> list[tuple[int, np.ndarray]]:
    """Windows of a recording (activity, values), built a row at a time."""
    last, kept, number = [float("nan")] * 54, [], 0
    for at, row in enumerate(rows):
        last = [new if new == new else old for new, old in zip(row, last, strict=True)]
        if at and (row[1] != rows[at - 1][1] or row[0] - rows[at - 1][0] > pamap2.GAP):
            number += 1
        if at % 3 == 0:
            kept.append((number, int(row[1]), [last[c] for c in channels]))
    found, start = [], 0
    while start < len(kept):
        piece = kept[start : start + steps]
        whole = len(piece) == steps and piece[0][0] == piece[-1][0]
        if whole and piece[0][1]:
            found.append((piece[0][1], np.array([values for _, _, values in piece]).T))
        following = start + step
        while start < following and start < len(kept):
            start += 1
            if start < len(kept) and kept[start][0] != kept[start - 1][0]:
                break
    return found


@pytest.mark.parametrize("channels", ["document", "valid"])
@pytest.mark.parametrize("step", [4, 33])
def test_pamap2_windows_are_those_built_row_by_row(channels, step, tmp_path, monkeypatch, recordings):
    monkeypatch.setattr(pamap2, "STEPS", 10)
    broken = {**recordings, 103: recordings[103].copy()}
    broken[103][200:, 0] += 1  # a second is lost in the middle of an activity
    (tmp_path / "a.zip").write_bytes(zipped({dat_path(s): dat(rows) for s, rows in broken.items()}))
    raw = pamap2.read(tmp_path / "a.zip", channels=channels, step=step)
    assert raw.signals.rate == pytest.approx(33.33, abs=0.01)
    wanted = list(range(2, 54))
    if channels == "valid":
        wanted = [c + 17 * unit for unit in range(3) for c in range(4, 16)]  # without temperature and orientation
    assert raw.train[0].shape[1] == len(wanted) == len(raw.signals.channels) == {"document": 52, "valid": 36}[channels]
    x, y = raw.train
    for subject, rows in broken.items():
        expected = by_hand(np.array([[float(f"{v:.7g}") for v in row] for row in rows]), step, wanted, 10)
        own = raw.subjects == subject
        assert y[own].tolist() == [pamap2.ACTIVITIES.index(activity) for activity, _ in expected]
        np.testing.assert_array_equal(x[own], np.array([w for _, w in expected], np.float32))


def test_no_sample_is_in_windows_of_two_splits(project, monkeypatch, recordings):
    """Each sample carries a number of its own in place of its heart rate, and is looked for in every split."""
    marked = {
        s: np.column_stack([rows[:, :2], np.arange(len(rows)) + 10_000 * s, rows[:, 3:]])
        for s, rows in recordings.items()
    }
    store = prepare(monkeypatch, PAMAP2, zipped({dat_path(s): dat(rows) for s, rows in marked.items()}))
    about = json.loads((store.folder / "about.json").read_text())["signals"]
    mean, deviation = (np.float64(about[key][0]) for key in ("mean", "deviation"))
    seen = {}
    for split in ("train", "validation", "test"):
        x, _ = store.split(split, hold_out=True)
        seen[split] = {int(n) // 10_000 for n in np.rint(x[:, 0] * deviation + mean).ravel()}
    assert seen == {"train": {101, 102, 103, 104, 107, 108, 109}, "validation": {105}, "test": {106}}


def test_before_its_first_value_a_channel_stands_at_its_training_mean(project, monkeypatch, recordings):
    late = {s: rows.copy() for s, rows in recordings.items()}
    late[101][:, 2] = np.nan
    late[101][-1, 2] = 80
    store = prepare(monkeypatch, PAMAP2, zipped({dat_path(s): dat(rows) for s, rows in late.items()}))
    count = len(pamap2.read(Path("data/raw/pamap2") / sources.get(PAMAP2).files[0].name, step=4).subjects)
    x, _ = store.split("train")
    own = len(by_hand(late[101], 4, [2], 10))
    assert count > own and not x[:own, 0].any() and x[own:, 0].any()


def test_a_channel_that_never_changes_becomes_zero(project, monkeypatch, recordings):
    still = {s: np.column_stack([rows[:, :-1], np.ones(len(rows))]) for s, rows in recordings.items()}
    store = prepare(monkeypatch, PAMAP2, zipped({dat_path(s): dat(rows) for s, rows in still.items()}))
    assert not store.split("train")[0][:, -1].any()


VALUES = st.floats(-9, 9, width=32) | st.just(float("nan"))


@settings(derandomize=True, deadline=None)
@given(st.integers(1, 4).flatmap(lambda c: st.lists(st.lists(VALUES, min_size=c, max_size=c), min_size=1, max_size=30)))
def test_gaps_are_filled_as_pandas_does(rows):
    x = np.array(rows)
    np.testing.assert_array_equal(windows.filled(x), pd.DataFrame(x).ffill().to_numpy())


@settings(derandomize=True, deadline=None)
@given(st.lists(st.integers(1, 3), max_size=60), st.integers(1, 7), st.integers(1, 9))
def test_cut_gives_every_window_that_fits_a_run(run, steps, step):
    x = np.arange(2.0 * len(run)).reshape(len(run), 2)
    expected, start = [], 0
    for at in range(len(run)):
        start = at if at == 0 or run[at] != run[at - 1] else start
        if (at - start) % step == 0 and len(set(run[at : at + steps])) == 1 and at + steps <= len(run):
            expected.append(at)
    found, first = windows.cut(x, np.array(run, int), steps, step)
    assert first.tolist() == expected and found.shape == (len(expected), 2, steps)
    for window, at in zip(found, expected, strict=True):
        np.testing.assert_array_equal(window, x[at : at + steps].T)


@settings(derandomize=True, deadline=None)
@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 99))
def test_what_is_standardised_can_be_put_back(n, channels, seed):
    x = np.random.default_rng(seed).normal(3, 5, (n, channels, 4)).astype(np.float32)
    signals = uci_har.Signals((uci_har.Sensor("s", "g", tuple(map(str, range(channels)))),), 50)
    standard = windows.standard(x, np.ones(n, bool), signals, "here")
    np.testing.assert_allclose(standard.undo(standard.apply(x)), x, atol=1e-4)
    assert (standard.mean.dtype, standard.apply(x).dtype) == (np.float32, np.float32)


@settings(derandomize=True, deadline=None, max_examples=30)
@given(
    st.lists(st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3), min_size=1, max_size=8),
    st.sampled_from(["\n", "\r\n"]),
)
def test_a_table_is_read_as_float_reads_each_number(rows, end):
    text = end.join("  ".join(map(repr, row)) for row in rows) + end
    np.testing.assert_array_equal(windows.table(text.encode(), "here", 3), rows)


# Damage


def changed(file: str, change: Callable[[bytes], bytes], part: str = "train") -> Callable[[Members], bytes]:
    return lambda members: zipped(members | {har_path(part, file): change(members[har_path(part, file)])})


def with_entry(*entries: tuple[str, bytes, int]) -> Callable[[Members], bytes]:
    """The archive with these members (name, content, Unix mode) added."""

    def build(members: Members) -> bytes:
        buffer = io.BytesIO(zipped(members))
        with zipfile.ZipFile(buffer, "a") as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # zipfile warns of a name that is there
            for name, content, mode in entries:
                info = zipfile.ZipInfo(name)
                info.external_attr = mode << 16
                archive.writestr(info, content)
        return buffer.getvalue()

    return build


def without(file: str) -> Callable[[Members], bytes]:
    return lambda members: zipped({k: v for k, v in members.items() if k != har_path("train", file)})


def flipped(members: Members) -> bytes:
    content = bytearray(zipped(members))
    content[300] ^= 0xFF
    return bytes(content)


DAMAGE = {
    "missing member": (
        without("body_gyro_y"),
        r"has no member UCI HAR Dataset/train/Inertial Signals/body_gyro_y_train.txt",
    ),
    "missing subjects": (without("subject"), r"has no member UCI HAR Dataset/train/subject_train.txt"),
    "truncated archive": (lambda m: zipped(m)[:-40], r"is not a whole zip archive"),
    "first half only": (lambda m: zipped(m)[: len(zipped(m)) // 2], r"is not a whole zip archive"),
    "no archive": (lambda m: b"<html>404</html>", r"is not a whole zip archive: File is not a zip file"),
    "empty archive file": (lambda m: b"\0", r"is not a whole zip archive"),
    "flipped byte": (flipped, r"cannot be unpacked"),
    "empty member": (changed("total_acc_x", lambda c: b""), r"total_acc_x_train.txt is empty"),
    "only blanks": (changed("y", lambda c: b" \n\n"), r"y_train.txt is empty"),
    "too few columns": (
        changed("body_acc_x", lambda c: b"\n".join(row.rsplit(b" ", 1)[0] for row in c.splitlines())),
        r"body_acc_x_train.txt has 127 numbers to a line, where 128 belong",
    ),
    "torn line": (changed("body_acc_z", lambda c: c[:-700]), r"body_acc_z_train.txt is not lines of 128 numbers"),
    "text": (changed("body_acc_y", lambda c: c.replace(b"e+00", b"e+oo", 1)), r"could not convert string '.*e\+oo'"),
    "no text": (changed("body_acc_y", lambda c: b"\xff\xfe" + c[2:]), r"is not lines of 128 numbers"),
    "comment": (changed("body_acc_y", lambda c: b"# " + c[2:]), r"is not lines of 128 numbers"),
    "gap": (changed("body_gyro_x", lambda c: b"NaN " + c.split(maxsplit=1)[1]), r"has a gap \(NaN\) in line 1"),
    "infinite": (
        changed("body_gyro_x", lambda c: b"inf " + c.split(maxsplit=1)[1]),
        r"holds an infinite number in line 1",
    ),
    "label 7": (
        changed("y", lambda c: c.replace(b"3\n", b"7\n", 1)),
        r"has the label 7 in line 3, which is none of 1, 2",
    ),
    "label 0": (changed("y", lambda c: b"0" + c[1:]), r"has the label 0 in line 1"),
    "half a label": (changed("y", lambda c: b"1.5" + c[1:]), r"has the label 1.5 in line 1"),
    "no label": (changed("y", lambda c: b"nan" + c[1:]), r"has the label nan in line 1"),
    "fewer rows": (
        changed("total_acc_y", lambda c: b"".join(c.splitlines(True)[:-1])),
        r"total_acc_y_train.txt has 23 windows, where there are 24 labels",
    ),
    "fewer labels": (changed("y", lambda c: c[:-2]), r"has 24 windows, where there are 23 labels"),
    "fewer subjects": (changed("subject", lambda c: c[:-2]), r"has 23 subjects for the 24 windows of its train part"),
    "subject 31": (changed("subject", lambda c: b"31" + c[1:]), r"has the subject 31 in line 1"),
    "shared subject": (changed("subject", lambda c: b"2" + c[1:]), r"has subject 2 in both its training and its test"),
    "path upwards": (with_entry(("UCI HAR Dataset/../../evil", b"x", 0o644)), r"which leaves the folder"),
    "path upwards, other slash": (with_entry(("a\\..\\evil", b"x", 0o644)), r"which leaves the folder"),
    "absolute path": (with_entry(("/etc/evil", b"x", 0o644)), r"which is no plain relative path"),
    "drive": (with_entry(("C:evil", b"x", 0o644)), r"which is no plain relative path"),
    "link": (with_entry(("link", b"/etc", stat.S_IFLNK | 0o777)), r"has the member 'link', which is a link"),
    "duplicate": (with_entry((har_path("test", "y"), b"1\n", 0o644)), r"has the member '.*y_test.txt' 2 times"),
    "duplicate in other words": (
        with_entry(("a//b", b"", 0o644), ("a/b", b"", 0o644)),
        r"has the member 'a/b' 2 times",
    ),
    "bomb": (
        changed("body_acc_x", lambda c: bytes(2**26 + 1)),
        r"unpacks to 67108865 bytes, where 67108864 are allowed",
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_archive_gives_one_line_and_leaves_nothing(kind, project, monkeypatch):
    build, reason = DAMAGE[kind]
    file = publish(monkeypatch, HAR, build(small_har()))
    download.main(HAR)
    message = error_of(add_noise.main, HAR)
    assert re.search(reason, message), message
    assert str(Path("data/raw/uci-har") / file) in message and "; delete it and download the data set again" in message
    assert not [*Path("data/noisy").glob("*")] and not Path("reports").exists()
    assert {path.name for path in Path.cwd().parent.iterdir()} == {"project", "mirror"}


def edited(subject: int, change: Callable[[np.ndarray], None]) -> Callable[[dict[int, np.ndarray]], Members]:
    def build(recordings: dict[int, np.ndarray]) -> Members:
        rows = recordings[subject].copy()
        change(rows)
        return {dat_path(s): dat(rows if s == subject else known) for s, known in recordings.items()}

    return build


def worded(subject: int, change: Callable[[bytes], bytes]) -> Callable[[dict[int, np.ndarray]], Members]:
    return lambda recordings: {
        dat_path(s): change(dat(rows)) if s == subject else dat(rows) for s, rows in recordings.items()
    }


def put(rows: slice | int, column: int, value: float) -> Callable[[np.ndarray], None]:
    return lambda table: table.__setitem__((rows, column), value)


RECORDING_DAMAGE = {
    "channel without a value": (
        edited(104, put(slice(None), 4, np.nan)),
        r"subject104.dat has no value of hand .* x \(column 5\)",
    ),
    "time runs backwards": (edited(102, put(9, 0, 1.0)), r"has the time 1 s in line 10, which does not follow"),
    "no time": (edited(102, put(3, 0, np.nan)), r"has the time nan s in line 4"),
    "unknown activity": (edited(107, put(20, 1, 9)), r"has the activity 9 in line 21, which is none of 0, 1, 2"),
    "53 columns": (
        worded(109, lambda c: b"".join(row.rsplit(b" ", 1)[0] + b"\n" for row in c.splitlines())),
        r"subject109.dat has 53 numbers to a line, where 54 belong",
    ),
    "torn line": (worded(109, lambda c: c[:-30]), r"subject109.dat is not lines of 54 numbers: .* columns changed"),
    "text": (worded(101, lambda c: c.replace(b"NaN", b"none", 1)), r"could not convert string 'none'"),
    "empty": (worded(108, lambda c: b""), r"subject108.dat is empty"),
    "missing person": (
        lambda recordings: {dat_path(s): dat(rows) for s, rows in recordings.items() if s != 107},
        r"has no member PAMAP2_Dataset/Protocol/subject107.dat",
    ),
}


@pytest.mark.parametrize("kind", RECORDING_DAMAGE)
def test_a_damaged_recording_gives_one_line_and_leaves_nothing(kind, project, monkeypatch, recordings):
    build, reason = RECORDING_DAMAGE[kind]
    publish(monkeypatch, PAMAP2, zipped({"PAMAP2_Dataset.zip": zipped(build(recordings))}))
    download.main(PAMAP2)
    message = error_of(add_noise.main, PAMAP2)
    assert re.search(reason, message), message
    assert not [*Path("data/noisy").glob("*")] and not Path("reports").exists()


def test_a_channel_without_a_training_value_is_named(recordings):
    signals = uci_har.Signals((uci_har.Sensor("pulse", "1/min", ()),), 1)
    x = np.full((2, 1, 3), np.nan, np.float32)
    x[1] = 1
    assert "here holds no value of pulse in any training" in error_of(
        windows.standard, x, np.array([True, False]), signals, "here"
    )


def test_all_that_is_unpacked_is_counted_together(tmp_path):
    inner = zipped({"a": bytes(600), "b": bytes(600)})
    (tmp_path / "z.zip").write_bytes(zipped({"inner.zip": inner}))
    archive = archives.Archive(tmp_path / "z.zip", archives.Allowance(1000, len(inner) + 1000)).inner("inner.zip")
    assert archive.read("a") == bytes(600)
    assert "inner.zip: b unpacks to 600 bytes, where 400 are allowed" in error_of(archive.read, "b")


def test_a_size_that_lies_unpacks_no_more_than_it_says(tmp_path):
    """The central directory says 10 bytes of a member that holds a million."""
    content = bytearray(zipped({"a": bytes(10**6)}))
    at = content.rindex(b"PK\x01\x02")
    content[at + 24 : at + 28] = (10).to_bytes(4, "little")
    (tmp_path / "z.zip").write_bytes(content)
    assert "cannot be unpacked" in error_of(
        archives.Archive(tmp_path / "z.zip", archives.Allowance(1000, 1000)).read, "a"
    )


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.data())
def test_a_damaged_byte_is_never_a_traceback(tmp_path_factory, data):
    content = bytearray(zipped({"UCI HAR Dataset/train/y_train.txt": b"1\n2\n", "b": b"x" * 50}))
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.mktemp("zip") / "z.zip"
    path.write_bytes(content)
    try:
        archive = archives.Archive(path, archives.Allowance(1000, 1000))
        assert archive.read("b") == b"x" * 50
    except AtelierError as error:
        assert str(path) in str(error) and "\n" not in str(error)


# Settings and sources


@pytest.mark.parametrize(
    ("dataset", "given_settings", "reason"),
    [
        (HAR, "{validation_subjects: [2]}", "validation_subjects names 2, who has no items; (1, 3, 5)"),
        (HAR, "{validation_subjects: [1, 3, 5]}", "names all 3 who have items; leave some to train on"),
        (HAR, "{validation: 6}", "uci-har.validation would part one person's items; give validation_subjects"),
        (
            HAR,
            "{validation_subjects: [3], test_subjects: [1]}",
            "test_subjects is set, but uci-har has its own test set",
        ),
        (HAR, "{validation_subjects: [3], step: 5}", "step is set, but uci-har has no step; remove it"),
        (SUBSET, "{validation_subjects: [3]}", "its items name nobody; give validation"),
        (SUBSET, "{validation: 6, train_noise: [gaussian-0.2]}", "noise is for pixels in [0, 1]; remove it"),
        (SUBSET, "{validation: 6, channels: valid}", "uci-har-subset has no channels; remove it"),
        (PAMAP2, "{validation_subjects: [105]}", "test_subjects is missing; pamap2 has no test set of its own"),
        (PAMAP2, "{validation_subjects: [105], test_subjects: [110]}", "names 110, who has no items; did you mean 10"),
        (PAMAP2, "{validation_subjects: [105], test: 5}", "pamap2.test would part one person's items"),
        (SUBSET, "{}", "uci-har-subset.validation is missing; give a count, or validation_subjects"),
        (SUBSET, "{validation: 6, validation_subjects: [1]}", ".validation and .validation_subjects are both set"),
        (PAMAP2, "{validation_subjects: [105], test_subjects: [105]}", "names 105, as validation_subjects does"),
        (PAMAP2, "{validation_subjects: [105], channels: all}", "(document, valid)"),
        (PAMAP2, "{validation_subjects: [105, 105]}", "give each once"),
    ],
)
def test_settings_that_do_not_fit_change_nothing(dataset, given_settings, reason, project, monkeypatch, recordings):
    content = {HAR: lambda: nested(small_har()), SUBSET: lambda: zipped(small_har())}.get(
        dataset, lambda: zipped({dat_path(s): dat(rows) for s, rows in recordings.items()})
    )
    publish(monkeypatch, dataset, content(), given_settings)
    download.main(dataset)
    message = error_of(add_noise.main, dataset)
    assert message.startswith("params.yaml: ") and reason in message
    assert f"datasets_on_demand.{dataset}" in message
    assert not [*Path("data/noisy").glob("*")]


def test_the_subset_lies_on_the_shelf_of_the_whole_set_or_in_its_own_folder(project, monkeypatch):
    file = publish(monkeypatch, SUBSET, zipped(small_har()))
    assert (Path("../mirror/uci-har") / file).exists()
    download.main(SUBSET)
    Path("../mirror/uci-har").rename("../mirror/uci-har-subset")
    Path("data/raw/uci-har-subset", file).unlink()
    download.main(SUBSET)
    Path("data/raw/uci-har-subset", file).unlink()
    monkeypatch.delenv("ATELIER_MIRROR")
    assert error_of(download.main, SUBSET) == (
        "uci-har/uci-har-subset.zip could not be had from anywhere: it has no public host: "
        "set ATELIER_MIRROR to a folder or URL that holds uci-har/uci-har-subset.zip"
    )


def test_a_file_whose_size_was_not_published_is_held_to_its_sum_and_a_bound(project, monkeypatch):
    name = publish(monkeypatch, HAR, zipped(small_har()))
    file = replace(sources.SOURCES[HAR].files[0], size=None)
    monkeypatch.setitem(sources.SOURCES, HAR, replace(sources.SOURCES[HAR], files=(file,)))
    download.main(HAR)
    sources.check(HAR, Path("data/raw/uci-har"))
    Path("data/raw/uci-har", name).write_bytes(b"other")
    assert "not the pinned bytes" in error_of(sources.check, HAR, Path("data/raw/uci-har"))
    monkeypatch.setattr(sources, "_MOST", 1000)
    assert "longer than the 1000 bytes allowed" in error_of(download.main, HAR)


def test_every_data_set_of_sensors_has_classes_and_a_reader():
    assert [len(sources.get(name).classes) for name in (HAR, SUBSET, PAMAP2)] == [6, 6, 12]
    assert len(pamap2.ACTIVITIES) == 12
    assert {HAR, SUBSET, PAMAP2} <= set(formats._READERS)
