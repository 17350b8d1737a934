"""Zip archives from outside, bounded before and while their members are read."""

from __future__ import annotations

import zipfile
import zlib
from io import BytesIO
from xml.etree import ElementTree

from matura.core.errors import FormatError

MAX_MEMBERS = 20_000
FLOOR = 4 << 20  # bytes of a member below which its ratio does not matter


class Archive:
    """The members of a zip file by name. Archives inside it are bytes like any other: they are never opened.

    Raises FormatError ("broken: ..." or "expands too much: ...") for what is no zip file, holds more than 20,000
    members, or whose members, as they claim or as they turn out, exceed `max_bytes` in total or `expansion` in ratio.
    """

    def __init__(self, data: bytes, *, max_bytes: int, expansion: float) -> None:
        try:
            self._zip = zipfile.ZipFile(BytesIO(data))
        except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError) as error:
            raise FormatError(f"broken: not a zip archive: {error}") from error
        members = self._zip.infolist()
        if len(members) > MAX_MEMBERS:
            raise FormatError(f"expands too much: {len(members):,} members, at most {MAX_MEMBERS:,}")
        claimed = sum(member.file_size for member in members)
        if claimed > max_bytes:
            raise FormatError(f"expands too much: {claimed:,} bytes unpacked, at most {max_bytes:,}")
        for member in members:
            if member.file_size > FLOOR and member.file_size > expansion * max(member.compress_size, 1):
                raise FormatError(f"expands too much: {member.filename} over {expansion:g} times")
        self._left = max_bytes
        self.names = frozenset(self._zip.namelist())

    def read(self, name: str) -> bytes:
        """The bytes of a member. Raises FormatError when it is missing, damaged, encrypted or too large."""
        try:
            with self._zip.open(name) as member:
                data = member.read(self._left + 1)
        except KeyError as error:
            raise FormatError(f"broken: the archive has no member {name}") from error
        except (
            zipfile.BadZipFile,
            zlib.error,
            RuntimeError,
            NotImplementedError,
            EOFError,
            OSError,
        ) as error:
            raise FormatError(f"broken: member {name}: {error}") from error
        self._left -= len(data)
        if self._left < 0:
            raise FormatError("expands too much: members are larger than they claim")
        return data

    def xml(self, name: str) -> ElementTree.Element:
        """The root of a member that is XML. One that declares entities is refused: they can expand without end."""
        data = self.read(name)
        if b"<!ENTITY" in data or data[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise FormatError(f"broken: {name} declares entities or is not UTF-8")
        try:
            return ElementTree.fromstring(data)
        except ElementTree.ParseError as error:
            raise FormatError(f"broken: {name}: {error}") from error
