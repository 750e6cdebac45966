"""Zip archives from elsewhere, read in memory: no member reaches a path, and none is larger than was allowed."""

import io
import lzma
import stat
import struct
import zipfile
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from atelier.data.raw import fault

_MEMBERS = 10_000
_FAULTS = (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error)


@dataclass
class Allowance:
    """Bytes that one member may unpack to, and that all may together: `total` is what is left of them."""

    member: int
    total: int


class Archive:
    """An opened zip file, or bytes that are one. Raises AtelierError if it is not whole, or has more members than any
    data set needs, or one that would be written elsewhere, or over another, if it were unpacked.

    place: what errors call it.
    """

    def __init__(self, file: Path | bytes, allowance: Allowance, place: str = "") -> None:
        self.place, self._allowance = place or str(file), allowance
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(file) if isinstance(file, bytes) else file)
        except FileNotFoundError:
            raise fault(self.place, "is not there") from None
        except _FAULTS as error:
            raise fault(self.place, f"is not a whole zip archive: {_line(error)}") from None
        self._members = {info.filename: info for info in self._zip.infolist()}
        self._refuse_unsafe(self._zip.infolist())

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def read(self, name: str) -> bytes:
        """A member's bytes, whole and as its checksum has them."""
        if name not in self._members:
            raise fault(self.place, f"has no member {name}")
        place, size = self.place_of(name), self._members[name].file_size
        allowed = min(self._allowance.member, self._allowance.total)
        if size > allowed:
            raise fault(place, f"unpacks to {size} bytes, where {allowed} are allowed")
        try:
            with self._zip.open(name) as stream:
                content = stream.read()  # never more than the size that was said
        except _FAULTS as error:
            raise fault(place, f"cannot be unpacked: {_line(error)}") from None
        if len(content) != size:
            raise fault(place, f"ends after {len(content)} of {size} bytes")
        self._allowance.total -= size
        return content

    def inner(self, name: str) -> "Archive":
        """The archive that a member is, under what is left of the same allowance."""
        return Archive(self.read(name), self._allowance, self.place_of(name))

    def place_of(self, name: str) -> str:
        """A member as errors call it."""
        return f"{self.place}: {name}"

    def _refuse_unsafe(self, members: list[zipfile.ZipInfo]) -> None:
        if len(members) > _MEMBERS:
            raise fault(self.place, f"has {len(members)} members, where {_MEMBERS} are allowed")
        for info in members:
            name = info.orig_filename
            if ".." in name.replace("\\", "/").split("/"):
                raise fault(self.place, f"has the member {name!a}, which leaves the folder")
            if name.startswith("/") or "\\" in name or "\0" in name or ":" in name.split("/")[0]:
                raise fault(self.place, f"has the member {name!a}, which is no plain relative path")
            if stat.S_ISLNK(info.external_attr >> 16):  # the upper half is a Unix file mode
                raise fault(self.place, f"has the member {name!a}, which is a link")
        counted = Counter(str(PurePosixPath(info.filename)) for info in members)
        for name, times in counted.most_common(1):
            if times > 1:
                raise fault(self.place, f"has the member {name!a} {times} times")


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
