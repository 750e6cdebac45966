"""The one place that writes files: a file gets its name when it is whole, and equal content gives equal bytes."""

import hashlib
import io
import json
import os
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from atelier.errors import AtelierError


def write_bytes(path: Path, content: bytes) -> None:
    write_chunks(path, (content,))


def write_chunks(path: Path, chunks: Iterable[bytes]) -> None:
    """Write through a temporary file in the same folder, so that a reader or a crash never meets half a file.

    An error raised by `chunks`, after the last one too, leaves the folder as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_text(path: Path, content: str) -> None:
    write_bytes(path, content.encode())


def write_json(path: Path, value: Any) -> None:
    """Sorted keys and no NaN: a missing figure is null."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    try:
        return json.loads(Path(path).read_text())
    except FileNotFoundError:
        raise AtelierError(f"{path}: not there; run the stage that makes it (make help lists the targets)") from None
    except ValueError as error:
        raise AtelierError(f"{path}: not valid JSON ({error}); delete it and run its stage again") from None


def write_csv(path: Path, columns: list[str], rows: Iterable[Iterable[Any]]) -> None:
    """Plain CSV; floats in their shortest exact form, a missing value is empty."""
    lines = [",".join(columns)]
    lines += [",".join("" if v is None else repr(v) if isinstance(v, float) else str(v) for v in row) for row in rows]
    write_text(path, "\n".join(lines) + "\n")


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """An uncompressed .npz: its checksums catch flipped bits, its bytes depend on the arrays alone."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            with archive.open(_Member(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
    write_bytes(path, buffer.getvalue())


class _Member(zipfile.ZipInfo):
    """With the header that Python gives a member of 64-bit sizes since 3.11.4; np.savez takes that of any release."""

    def FileHeader(self, zip64: bool | None = None) -> bytes:
        self.create_version = self.extract_version = zipfile.ZIP64_VERSION
        header = super().FileHeader(zip64)
        return header[:18] + b"\xff" * 8 + header[26:]  # both sizes: they are in the field of 64-bit ones


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
