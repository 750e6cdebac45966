"""Data sets: download under faults, formats read from bytes built here, splits, and the store that add_noise leaves."""

import contextlib
import gzip
import hashlib
import io
import json
import math
import shutil
import struct
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.special import ndtri

from atelier import files, noise
from atelier.data import formats, overview, sources
from atelier.data.items import Pixels, items
from atelier.data.splits import hold_out
from atelier.data.store import Store, as_pixels, quantise
from atelier.errors import AtelierError
from atelier.stages import add_noise, download

PARAMS = """
compute: {{threads: 1, device: cpu}}
datasets:
  digits: {digits}
  mnist: {mnist}
noise: {{seed: 0, gaussian: [0.2, 0.5], salt-and-pepper: [0.1], masking: [0.25]}}
experiments: {{}}
studies:
  study:
    asks: Is it read?
    dataset: digits
    seeds: 1
    train: {{epochs: 1}}
    models: {{softmax: {{family: softmax}}}}
    prune: null
    claims: []
    published: {{}}
    note: null
"""
DIGITS = "{test: 360, validation: 237, train_noise: [gaussian-0.2]}"
MNIST = "{validation: 20, train_noise: [masking-0.25]}"


def idx_bytes(values: np.ndarray) -> bytes:
    head = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
    return head + values.astype(np.uint8).tobytes()


def zipped(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


def small_mnist() -> dict[str, bytes]:
    """The four files with 120 training and 40 test items of ten classes."""
    generator = np.random.default_rng(0)
    found = {}
    for part, n in (("t10k", 40), ("train", 120)):
        x, y = generator.integers(0, 256, (n, 28, 28)), generator.permutation(np.arange(n) % 10)
        found[f"{part}-images-idx3-ubyte.gz"] = zipped(idx_bytes(x))
        found[f"{part}-labels-idx1-ubyte.gz"] = zipped(idx_bytes(y))
    return found


def write_params(folder: Path, digits: str = DIGITS, mnist: str = MNIST) -> None:
    (folder / "params.yaml").write_text(PARAMS.format(digits=digits, mnist=mnist))


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def error_of(call, *arguments, **named) -> str:
    with pytest.raises(AtelierError) as caught:
        call(*arguments, **named)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A project folder to stand in, a table of sources whose mnist is small, and no host that could be reached."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "dvc.yaml").touch()
    write_params(folder)
    monkeypatch.chdir(folder)
    for variable in ("DVC_ROOT", "ATELIER_MIRROR", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    pins = tuple(
        sources.File(name, len(content), hashlib.sha256(content).hexdigest()) for name, content in small_mnist().items()
    )
    monkeypatch.setitem(sources.SOURCES, "mnist", replace(sources.SOURCES["mnist"], files=pins, hosts=()))
    monkeypatch.setitem(sources.SOURCES, "fashion-mnist", replace(sources.SOURCES["fashion-mnist"], hosts=()))
    return folder


@pytest.fixture
def mirror(tmp_path) -> Path:
    folder = tmp_path / "mirror"
    (folder / "mnist").mkdir(parents=True)
    for name, content in small_mnist().items():
        (folder / "mnist" / name).write_bytes(content)
    return folder


@pytest.fixture
def web(mirror) -> Iterator[str]:
    """A server on the loopback: /good serves the mirror, the other first parts of a path misbehave."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _, mode, *rest = self.path.split("/")
            content = mirror.joinpath(*rest).read_bytes()
            self.send_response(404 if mode == "missing" else 200)
            if mode != "endless":
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if mode == "stalled":
                time.sleep(1)
            elif mode == "torn":
                self.wfile.write(content[: len(content) // 2])
            elif mode == "wrong":
                self.wfile.write(bytes([content[0] ^ 1]) + content[1:])
            elif mode == "endless":
                while True:
                    self.wfile.write(content)
            elif mode == "good":
                self.wfile.write(content)

        def handle(self) -> None:
            with contextlib.suppress(ConnectionError):  # the downloader hangs up, as it should on an endless answer
                super().handle()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


# Download


def test_the_data_sets_are_those_in_the_table():
    assert sources.names() == ["digits", "fashion-mnist", "mnist", "pamap2", "uci-har", "uci-har-subset"]
    message = error_of(sources.get, "fashion-mist")
    assert "did you mean fashion-mnist?" in message


def test_every_pin_is_whole():
    for source in sources.SOURCES.values():
        assert len(source.classes) in (6, 10, 12)
        for file in source.files:
            assert file.size is None or file.size > 0
            assert len(bytes.fromhex(file.sha256)) == 32


def test_digits_are_copied_from_the_package_without_importing_it(project):
    code = (
        "import sys; from atelier.stages import download; download.main('digits'); sys.exit('sklearn' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=project)
    content = (project / "data/raw/digits/digits.csv.gz").read_bytes()
    assert hashlib.sha256(content).hexdigest() == sources.SOURCES["digits"].files[0].sha256


def test_digits_without_their_package_name_it(project, monkeypatch):
    monkeypatch.setattr(sources.importlib.util, "find_spec", lambda name: None)
    message = error_of(download.main, "digits")
    assert "sklearn (not installed)" in message
    assert "set ATELIER_MIRROR to a folder or URL that holds digits/digits.csv.gz" in message


@pytest.mark.parametrize("form", ["folder", "relative", "file URL", "http URL"])
def test_a_mirror_is_a_folder_or_a_url(form, project, mirror, web, monkeypatch):
    setting = {"folder": str(mirror), "relative": "../mirror", "file URL": mirror.as_uri(), "http URL": f"{web}/good/"}
    monkeypatch.setenv("ATELIER_MIRROR", setting[form])
    download.main("mnist")
    assert tree(project / "data/raw/mnist") == small_mnist()


def test_a_relative_mirror_is_taken_from_the_parent_repository_of_an_experiment(project, mirror, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(mirror.parent))
    monkeypatch.setenv("ATELIER_MIRROR", "mirror")
    download.main("mnist")
    assert tree(project / "data/raw/mnist") == small_mnist()


def test_a_mirror_of_an_unknown_kind_is_refused(project, monkeypatch):
    monkeypatch.setenv("ATELIER_MIRROR", "ftp://example.org/data")
    assert "give a folder or a URL of http, https or file" in error_of(download.main, "mnist")


def hosts(monkeypatch, *places: str) -> None:
    monkeypatch.setitem(sources.SOURCES, "mnist", replace(sources.SOURCES["mnist"], hosts=places))


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        ("missing", "HTTP 404"),
        ("torn", "ends after"),
        ("wrong", "SHA-256"),
        ("endless", "longer than"),
        ("stalled", "timed out"),
    ],
)
def test_a_bad_host_leaves_nothing_and_the_next_one_is_asked(mode, reason, project, web, mirror, monkeypatch):
    monkeypatch.setattr(sources, "_TIMEOUT", 0.2)
    hosts(monkeypatch, f"{web}/{mode}/mnist", (mirror / "none").as_uri())
    message = error_of(download.main, "mnist")
    assert reason in message
    assert f"{web}/{mode}/mnist/t10k-images-idx3-ubyte.gz" in message
    assert "/mirror/none/t10k-images-idx3-ubyte.gz (" in message
    assert tree(project / "data") == {}

    hosts(monkeypatch, f"{web}/{mode}/mnist", f"{web}/good/mnist")
    download.main("mnist")
    assert tree(project / "data/raw/mnist") == small_mnist()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[:-1]), "ends after"),
        (lambda p: p.write_bytes(p.read_bytes() + b"x"), "longer than"),
        (lambda p: p.write_bytes(p.read_bytes()[:-1] + b"x"), "SHA-256"),
        (lambda p: p.write_bytes(b""), "ends after 0"),
        (lambda p: p.unlink(), "No such file"),
        (lambda p: (p.unlink(), p.mkdir()), "Is a directory"),
    ],
)
def test_a_bad_mirror_leaves_nothing_of_the_file_and_is_named(damage, reason, project, mirror, monkeypatch):
    damage(mirror / "mnist/train-images-idx3-ubyte.gz")
    monkeypatch.setenv("ATELIER_MIRROR", str(mirror))
    hosts(monkeypatch, "http://127.0.0.1:9/mnist")  # the discard port: nobody listens
    message = error_of(download.main, "mnist")
    assert reason in message
    assert f"{mirror}/mnist/train-images-idx3-ubyte.gz (" in message
    assert "http://127.0.0.1:9/mnist/train-images-idx3-ubyte.gz (Connection refused)" in message
    assert "set ATELIER_MIRROR to a folder or URL that holds mnist/train-images-idx3-ubyte.gz" in message
    expected = {n: c for n, c in small_mnist().items() if n.startswith("t10k")}
    assert tree(project / "data/raw/mnist") == expected


def test_no_more_than_one_byte_too_many_is_read(tmp_path):
    (tmp_path / "long").write_bytes(bytes(10**6))
    assert sum(map(len, sources._read(str(tmp_path / "long"), 1000))) == 1001


def test_an_interrupted_download_leaves_nothing(project, mirror, monkeypatch):
    def interrupted(address: str, size: int) -> Iterator[bytes]:
        yield b"half"
        raise KeyboardInterrupt

    monkeypatch.setattr(sources, "_read", interrupted)
    monkeypatch.setenv("ATELIER_MIRROR", str(mirror))
    with pytest.raises(KeyboardInterrupt):
        download.main("mnist")
    assert tree(project / "data") == {}


def test_a_right_file_is_kept_a_wrong_one_replaced_and_a_torn_one_removed(project, mirror, monkeypatch):
    monkeypatch.setenv("ATELIER_MIRROR", str(mirror))
    download.main("mnist")
    raw = project / "data/raw/mnist"
    kept = (raw / "train-images-idx3-ubyte.gz").stat()
    labels = raw / "t10k-labels-idx1-ubyte.gz"
    labels.write_bytes(bytes(labels.stat().st_size))
    (raw / ".t10k-images-idx3-ubyte.gz.k1ll3d").write_bytes(b"torn")
    for name in small_mnist():
        if name != "t10k-labels-idx1-ubyte.gz":
            (mirror / "mnist" / name).unlink()
    download.main("mnist")
    assert tree(raw) == small_mnist()
    again = (raw / "train-images-idx3-ubyte.gz").stat()
    assert (again.st_ino, again.st_mtime_ns) == (kept.st_ino, kept.st_mtime_ns)


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_is_shown_on_a_terminal_only(terminal, project, web, mirror, monkeypatch, capsys):
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")  # rich's way of saying that this is a terminal
    monkeypatch.setenv("ATELIER_MIRROR", f"{web}/good")
    download.main("mnist")
    assert ("train-images" in capsys.readouterr().err) == terminal

    shutil.rmtree(project / "data")
    monkeypatch.setenv("ATELIER_MIRROR", str(mirror))
    download.main("mnist")
    assert capsys.readouterr().err == ""


# Formats


@settings(derandomize=True, deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=3), st.randoms(use_true_random=False))
def test_idx_gives_back_what_was_written(tmp_path_factory, shape, random):
    values = np.frombuffer(random.randbytes(math.prod(shape)), np.uint8).reshape(shape)
    path = tmp_path_factory.mktemp("idx") / "values.gz"
    path.write_bytes(zipped(idx_bytes(values)))
    found = formats.idx(path, len(shape))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, values)


def test_idx_reads_the_published_layout_from_bytes_written_by_hand(tmp_path):
    path = tmp_path / "hand.gz"
    path.write_bytes(zipped(bytes.fromhex("00000803 00000002 00000001 00000003 0a0b0c fdfeff")))
    np.testing.assert_array_equal(formats.idx(path, 3), [[[10, 11, 12]], [[253, 254, 255]]])


WHOLE = idx_bytes(np.arange(120).reshape(10, 3, 4))


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (zipped(WHOLE)[:-9], "not a whole gzip file"),
        (zipped(WHOLE)[:3], "not a whole gzip file"),
        (WHOLE, "not a whole gzip file"),
        (flipped(zipped(WHOLE), 40), "not a whole gzip file"),
        (flipped(zipped(WHOLE), -6), "not a whole gzip file"),  # the checksum at the end
        (zipped(WHOLE) + b"rest", "not a whole gzip file"),
        (b"", "starts with nothing"),
        (zipped(b""), "starts with nothing"),
        (zipped(flipped(WHOLE, 2)), "starts with 0000f703"),
        (zipped(idx_bytes(np.arange(9))), "starts with 00000801"),
        (zipped(WHOLE[:13]), "ends inside its header"),
        (zipped(WHOLE[:-1]), "holds 119 bytes of data where its header says 120"),
        (zipped(WHOLE + b"x"), "holds 121 bytes of data where its header says 120"),
        (zipped(flipped(WHOLE, 4)), "where its header says"),
    ],
)
def test_a_damaged_idx_file_is_named_in_one_line(content, reason, tmp_path):
    path = tmp_path / "damaged.gz"
    path.write_bytes(content)
    message = error_of(formats.idx, path, 3)
    assert str(path) in message
    assert reason in message


def test_a_missing_file_is_named(tmp_path):
    assert f"{tmp_path / 'none.gz'} is not there" in error_of(formats.idx, tmp_path / "none.gz", 1)


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("", "could not convert"),
        ("1,2,3", "is not lines of 64 pixels"),
        (",".join(["17"] * 64 + ["1"]), "is not lines of 64 pixels"),
        (",".join(["-1"] * 64 + ["1"]), "is not lines of 64 pixels"),
        (",".join(["1.5"] * 64 + ["1"]), "could not convert"),
        ("1,2\n1,2,3", "columns"),
    ],
)
def test_a_damaged_digits_file_is_named_in_one_line(lines, reason, tmp_path):
    (tmp_path / "digits.csv.gz").write_bytes(zipped(lines.encode()))
    message = error_of(formats.read, "digits", tmp_path, 10)
    assert str(tmp_path / "digits.csv.gz") in message
    assert reason in message


def test_digits_are_those_that_scikit_learn_loads(project):
    from sklearn.datasets import load_digits

    download.main("digits")
    raw = formats.read("digits", project / "data/raw/digits", 10)
    bunch = load_digits()
    np.testing.assert_array_equal(raw.train[0][:, 0], bunch.images)
    np.testing.assert_array_equal(raw.train[1], bunch.target)
    assert (raw.test, raw.scale) == (None, 16)


def test_images_and_labels_must_agree(mirror):
    folder = mirror / "mnist"
    raw = formats.read("mnist", folder, 10)
    assert raw.train[0].shape == (120, 1, 28, 28)
    assert raw.test[1].dtype == np.int64
    assert "labels are not all in 0 to 8" in error_of(formats.read, "mnist", folder, 9)
    shutil.copy(folder / "t10k-labels-idx1-ubyte.gz", folder / "train-labels-idx1-ubyte.gz")
    assert "holds 120 x 28 x 28 pixels where the labels ask for 40" in error_of(formats.read, "mnist", folder, 10)


# Splits


@settings(derandomize=True, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=2, max_size=8), st.integers(0, 2**31 - 1), st.data())
def test_a_held_out_share_is_stratified_exact_and_repeatable(sizes, seed, data):
    y = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    assume(len(y) >= 2 * len(sizes))
    count = data.draw(st.integers(len(sizes), len(y) - len(sizes)))
    held = hold_out(y, count, seed, "here")
    assert held.sum() == count
    shares = np.bincount(y[held], minlength=len(sizes))
    assert np.all(np.abs(shares - count * np.array(sizes) / len(y)) < 1)
    np.testing.assert_array_equal(held, hold_out(y, count, seed, "here"))


def test_seeds_hold_out_different_items_and_each_item_equally_often():
    y = np.arange(60) % 3
    masks = np.array([hold_out(y, 15, seed, "here") for seed in range(400)])
    assert len(np.unique(masks, axis=0)) > 390
    assert masks.mean(axis=0) == pytest.approx(0.25, abs=0.1)  # more than 4 standard errors


@pytest.mark.parametrize("count", [1, 9, 91, 100, 5000])
def test_a_share_that_does_not_fit_says_what_would(count):
    message = error_of(hold_out, np.arange(100) % 10, count, 0, "datasets.x.validation")
    assert message == f"params.yaml: datasets.x.validation is {count}; 100 items of 10 classes allow 10 to 90"


# The store and the stage that fills it


@settings(derandomize=True, deadline=None)
@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=50))
def test_quantised_pixels_are_the_nearest_of_256(values):
    x = np.array(values, np.float32)
    stored = quantise(x)
    assert stored.dtype == np.uint8
    assert np.all(np.abs(stored / 255 - x) <= 0.5 / 255 + 1e-7)


def test_every_stored_value_survives_the_way_there_and_back():
    k = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(quantise(k / np.float32(255)), k)


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    """A project in which add_noise has prepared the digits; tests read it and copy what they break."""
    folder = tmp_path_factory.mktemp("digits")
    (folder / "dvc.yaml").touch()
    write_params(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("DVC_ROOT", raising=False)
        download.main("digits")
        add_noise.main("digits")
    return folder


def published_digits(project: Path) -> tuple[np.ndarray, np.ndarray]:
    return formats.read("digits", project / "data/raw/digits", 10).train


def test_the_splits_share_no_item_and_lose_none(digits):
    store = Store(digits / "data/noisy/digits")
    parts = [store.split(name, hold_out=True) for name in ("train", "validation", "test")]
    assert [len(y) for _, y in parts] == [1200, 237, 360]
    x, y = published_digits(digits)
    together = np.concatenate([np.column_stack([16 * x.reshape(len(x), -1), y]) for x, y in parts])
    expected = np.column_stack([x.reshape(len(x), -1), y])
    np.testing.assert_array_equal(together[np.lexsort(together.T)], expected[np.lexsort(expected.T)])


def test_without_holding_out_training_has_every_item_and_validation_none(digits):
    store = Store(digits / "data/noisy/digits")
    for corruption in (None, "gaussian-0.2"):
        x, y = store.split("train", corruption)
        assert (x.shape, x.dtype, y.shape, y.dtype) == ((1437, 1, 8, 8), np.float32, (1437,), np.int64)
        assert x.flags.c_contiguous
        none, no_labels = store.split("validation", corruption)
        assert (none.shape, no_labels.shape) == ((0, 1, 8, 8), (0,))


def test_a_corrupted_item_stands_where_its_clean_one_does(digits):
    store = Store(digits / "data/noisy/digits")
    for split in ("train", "validation"):
        clean, y = store.split(split, hold_out=True)
        noisy, labels = store.split(split, "gaussian-0.2", hold_out=True)
        np.testing.assert_array_equal(y, labels)
        error = np.abs(noisy - clean).mean()
        assert error < 0.12 < np.abs(np.roll(noisy, 1, axis=0) - clean).mean()


@pytest.mark.parametrize(("split", "use"), [("train", noise.TRAIN), ("test", noise.TEST)])
def test_stored_noise_is_the_definition_rounded_to_255_steps(split, use, digits):
    folder = digits / "data/noisy/digits"
    clean, _ = Store(folder).split(split)
    u = noise.uniform(noise.field(0, use, "gaussian"), 0, len(clean), 64).reshape(clean.shape)
    exact = 255 * np.clip(clean + 0.2 * ndtri(u), 0, 1)
    with np.load(folder / f"{split}.gaussian-0.2.npz") as arrays:
        stored, scale = arrays["x"], arrays["scale"]
    assert (stored.dtype, float(scale)) == (np.uint8, 255)
    assert np.abs(stored - exact).max() <= 0.5 + 1e-4


def test_blocks_do_not_show_in_stored_noise(monkeypatch):
    x = np.full((50, 1, 8, 8), 128, np.uint8)
    arguments = (x, 255, "gaussian", 0.2, (1,))
    at_once = add_noise.corrupted(*arguments)
    monkeypatch.setattr(add_noise, "_BLOCK", 7)
    np.testing.assert_array_equal(add_noise.corrupted(*arguments), at_once)
    assert len(np.unique(at_once.reshape(50, -1), axis=0)) == 50


def test_about_lists_every_file_with_its_sum_and_counts_every_item(digits):
    folder = digits / "data/noisy/digits"
    about = json.loads((folder / "about.json").read_text())
    levels = ["gaussian-0.2", "gaussian-0.5", "masking-0.25", "salt-and-pepper-0.1"]
    expected = {"train.npz", "test.npz", "train.gaussian-0.2.npz", *(f"test.{level}.npz" for level in levels)}
    assert set(about["files"]) == expected == set(tree(folder)) - {"about.json"}
    for name, total in about["files"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == total
    assert (about["dataset"], about["shape"], about["classes"]) == ("digits", [1, 8, 8], list("0123456789"))
    _, y = published_digits(digits)
    counted = [sum(about["items"][split][str(label)] for split in about["items"]) for label in range(10)]
    assert counted == np.bincount(y).tolist()
    store = Store(folder)
    assert (store.name, store.shape, store.classes) == ("digits", (1, 8, 8), list("0123456789"))
    assert (store.corruptions("test"), store.corruptions("train")) == (levels, ["gaussian-0.2"])


def test_the_report_counts_and_shows(digits):
    from PIL import Image

    folder = digits / "reports/data/digits"
    page = (folder / "index.md").read_text()
    assert "| all | 1200 | 237 | 360 |" in page
    store = Store(digits / "data/noisy/digits")
    error = np.abs(store.split("test", "gaussian-0.2")[0] - store.split("test")[0]).mean(dtype=np.float64)
    assert f"| gaussian-0.2 | {error:.4f} | yes |" in page
    for name in ("samples.png", "noise.png"):
        assert f"]({name})" in page
        with Image.open(folder / name) as picture:
            assert "Software" not in picture.info
            shades = np.asarray(picture.convert("L"))
        assert min(shades.shape) > 300
        assert len(np.unique(shades)) > 16


def test_preparing_again_gives_the_same_bytes(digits, tmp_path, monkeypatch):
    (tmp_path / "dvc.yaml").touch()
    write_params(tmp_path)
    monkeypatch.chdir(tmp_path)
    download.main("digits")
    add_noise.main("digits")
    assert tree(tmp_path) == tree(digits)
    (tmp_path / "data/noisy/digits/test.old-0.7.npz").write_bytes(b"of earlier parameters")
    add_noise.main("digits")
    assert tree(tmp_path) == tree(digits)


@pytest.mark.parametrize("old", [False, True])
def test_the_bytes_of_arrays_are_those_of_every_python(old, tmp_path, monkeypatch):
    """3.11.3 and before wrote the sizes twice, and a lower version, in the header of a member of 64-bit sizes."""
    if old:
        now = zipfile.ZipInfo.FileHeader

        def before(entry: zipfile.ZipInfo, zip64: bool | None = None) -> bytes:
            lowest = entry.extract_version
            header = now(entry, zip64)
            entry.extract_version = entry.create_version = lowest
            return header[:4] + struct.pack("<H", lowest) + header[6:18] + struct.pack("<LL", 24, 24) + header[26:]

        monkeypatch.setattr(zipfile.ZipInfo, "FileHeader", before)
    arrays = {"x": np.arange(6, dtype=np.uint8).reshape(2, 3), "scale": np.float64(255)}
    files.write_arrays(tmp_path / "a.npz", **arrays)
    digest = hashlib.sha256((tmp_path / "a.npz").read_bytes()).hexdigest()
    assert digest == "6e99d301160a32547f2936f29ef838fa7c187ea73b2c1a48823162027e165e54"
    with np.load(tmp_path / "a.npz") as read:
        assert all((read[name] == array).all() for name, array in arrays.items())


def test_a_published_test_set_is_used_as_it_is(project, mirror, monkeypatch):
    monkeypatch.setenv("ATELIER_MIRROR", str(mirror))
    download.main("mnist")
    add_noise.main("mnist")
    store = Store(project / "data/noisy/mnist")
    raw = formats.read("mnist", mirror / "mnist", 10)
    x, y = store.split("test")
    np.testing.assert_array_equal(np.rint(255 * x), raw.test[0])
    np.testing.assert_array_equal(y, raw.test[1])
    x, y = store.split("train")
    np.testing.assert_array_equal(np.rint(255 * x), raw.train[0])
    _, y = store.split("validation", "masking-0.25", hold_out=True)
    assert np.bincount(y).tolist() == [2] * 10


@pytest.mark.parametrize(
    ("dataset", "settings_given", "reason"),
    [
        ("digits", "{test: 360, validation: 1437}", "datasets.digits.validation is 1437; 1437 items of 10 classes"),
        ("digits", "{test: 1797, validation: 100}", "datasets.digits.test is 1797; 1797 items of 10 classes"),
        ("digits", "{test: 5, validation: 100}", "datasets.digits.test is 5"),
        ("digits", "{validation: 100}", "digits.test is missing"),
        ("mnist", "{test: 20, validation: 20}", "mnist has its own test set; remove it"),
        ("mnist", "{validation: 119}", "allow 10 to 110"),
    ],
)
def test_counts_that_do_not_fit_change_nothing(dataset, settings_given, reason, project, mirror, monkeypatch):
    monkeypatch.setenv("ATELIER_MIRROR", str(mirror))
    download.main(dataset)
    (project / "data/noisy" / dataset).mkdir(parents=True)
    (project / "data/noisy" / dataset / "earlier").write_bytes(b"kept")
    write_params(project, **{dataset: settings_given})
    assert reason in error_of(add_noise.main, dataset)
    assert tree(project / "data/noisy") == {f"{dataset}/earlier": b"kept"}
    assert not (project / "data/noisy" / f".{dataset}.unfinished").exists()


def test_a_failure_at_the_very_end_keeps_the_earlier_outcome(project, mirror, monkeypatch):
    monkeypatch.setenv("ATELIER_MIRROR", str(mirror))
    download.main("mnist")
    add_noise.main("mnist")
    before = tree(project / "data/noisy")
    write_params(project, mnist="{validation: 30}")
    with monkeypatch.context() as patch, pytest.raises(OSError, match="disk full"):
        patch.setattr(overview, "write", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        add_noise.main("mnist")
    assert tree(project / "data/noisy") == before
    add_noise.main("mnist")
    assert len(Store(project / "data/noisy/mnist").split("validation", hold_out=True)[1]) == 30


@pytest.mark.parametrize("state", ["not there", "not the pinned bytes"])
def test_raw_files_are_checked_again_before_they_are_read(state, project, mirror, monkeypatch):
    monkeypatch.setenv("ATELIER_MIRROR", str(mirror))
    download.main("mnist")
    damaged = project / "data/raw/mnist/train-labels-idx1-ubyte.gz"
    damaged.unlink()
    if state != "not there":
        damaged.write_bytes(zipped(idx_bytes(np.zeros(120))))
    assert f"{damaged}: {state}; run atelier download mnist" in error_of(add_noise.main, "mnist")


@pytest.fixture
def broken(digits, tmp_path) -> Path:
    return Path(shutil.copytree(digits / "data/noisy/digits", tmp_path / "digits"))


def test_an_unfinished_store_is_refused(broken):
    (broken / "about.json").unlink()
    assert error_of(Store, broken) == f"{broken}: not there or unfinished; run atelier add_noise digits"


@pytest.mark.parametrize("content", ["{}", "[]", "{"])
def test_a_broken_description_is_refused(content, broken):
    (broken / "about.json").write_text(content)
    assert str(broken / "about.json") in error_of(Store, broken)


def test_damaged_and_missing_files_are_refused(broken):
    path = broken / "test.gaussian-0.2.npz"
    path.write_bytes(flipped(path.read_bytes(), 5000))
    assert f"{path}: not the file that about.json describes" in error_of(Store(broken).split, "test", "gaussian-0.2")
    path.unlink()
    assert f"{path}: not there" in error_of(Store(broken).split, "test", "gaussian-0.2")
    assert len(Store(broken).split("test")[1]) == 360


def test_what_is_not_stored_is_named_with_the_nearest(digits):
    store = Store(digits / "data/noisy/digits")
    assert "did you mean gaussian-0.2?" in error_of(store.split, "test", "gausian-0.2")
    assert "no train items with masking-0.25" in error_of(store.split, "validation", "masking-0.25")
    assert "did you mean test?" in error_of(store.split, "tst")


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_pixels_are_the_stored_values_wherever_they_are_read(data):
    n, scale = data.draw(st.integers(1, 12)), data.draw(st.sampled_from([1.0, 16.0, 255.0]))
    stored = torch.from_numpy(np.random.default_rng(n).integers(0, 256, (n, 2, 3), np.uint8))
    some = data.draw(st.none() | st.lists(st.integers(0, n - 1)))
    pixels = Pixels(stored, scale, None if some is None else torch.tensor(some, dtype=torch.int64))
    expected = as_pixels(stored.numpy() if some is None else stored.numpy()[some], scale)
    start, stop = sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n))))
    assert len(pixels) == len(expected)
    np.testing.assert_array_equal(pixels[start:stop].numpy(), expected[start:stop], strict=True)
    np.testing.assert_array_equal(np.concatenate([expected[:0], *pixels.split(5)]), expected, strict=True)
    picked = data.draw(st.lists(st.integers(0, len(expected) - 1))) if len(expected) else []
    np.testing.assert_array_equal(pixels[torch.tensor(picked, dtype=torch.int64)].numpy(), expected[picked])
    np.testing.assert_array_equal(pixels[picked].numpy(), expected[picked])


def test_items_are_mapped_from_the_file_and_not_copied(broken):
    """Workers that train on the same split share its memory; what one does to its tensors never reaches the file."""
    store, before = Store(broken), (broken / "train.npz").read_bytes()
    for held in (False, True):
        seen = items(store, "train", None, held)
        mapped = store.stored("train", hold_out=held).x
        assert isinstance(mapped.base, np.memmap) and not mapped.flags.owndata
        assert seen.x.stored.data_ptr() == mapped.ctypes.data
    seen.x.stored.zero_()
    assert not mapped.any() and (broken / "train.npz").read_bytes() == before
    assert Store(broken).split("train")[0].any()


def test_a_store_of_floats_is_read_with_its_scale(tmp_path):
    """Sequences are kept as float32; the reader must not depend on bytes."""
    x, y = np.linspace(0, 2, 24, dtype=np.float32).reshape(4, 6), np.arange(4)
    buffer = io.BytesIO()
    np.savez(buffer, x=x, y=y, scale=np.float64(2))
    (tmp_path / "test.npz").write_bytes(buffer.getvalue())
    total = hashlib.sha256(buffer.getvalue()).hexdigest()
    about = {"dataset": "s", "shape": [6], "classes": list("abcd"), "items": {}, "files": {"test.npz": total}}
    (tmp_path / "about.json").write_text(json.dumps(about))
    found, labels = Store(tmp_path).split("test")
    np.testing.assert_array_equal(found, x / 2)
    np.testing.assert_array_equal(labels, y)
