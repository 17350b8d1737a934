"""An HTTP answer as archives keep it (RFC 9112): status, headers, and the content without its transfer's packing.

Archives hold what servers really sent, and what crawlers changed afterwards: a header that names a packing the content
does not have is no error.
"""

from __future__ import annotations

import codecs
import re
import zlib
from dataclasses import dataclass
from io import BytesIO

from matura.core.errors import FormatError

MAX_HEAD = 256 << 10
BLOCK = 1 << 20
_STATUS = re.compile(rb"HTTP/\d(?:\.\d)?[ \t]+(\d{3})\b")
_CHUNK = re.compile(rb"[ \t]*([0-9a-fA-F]{1,15})[ \t]*(?:;[^\r\n]{0,4096})?\r?\n")
_CHARSET = re.compile(r"""charset\s*=\s*["']?([\w.:+-]+)""", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Answer:
    """Header names are in lower case; of one that comes twice the last counts."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def kind(self) -> str:
        """The media type, without parameters, in lower case."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def charset(self) -> str | None:
        """The charset told, when it is one that exists."""
        return known_charset(self.headers.get("content-type", ""))


def known_charset(content_type: str) -> str | None:
    """The charset of a Content-Type header; None when there is none, or none that exists."""
    match = _CHARSET.search(content_type)
    try:
        return codecs.lookup(match[1]).name if match else None
    except (LookupError, ValueError):
        return None


def parse_answer(data: bytes) -> Answer:
    """Raises FormatError when it does not begin as an answer does."""
    status = _STATUS.match(data)
    end = re.search(rb"\r?\n\r?\n", data[:MAX_HEAD])
    if status is None or end is None:
        raise FormatError("broken: no HTTP answer")
    headers = {}
    for line in data[: end.start()].decode("latin-1").split("\n")[1:]:
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip().lower()] = value.strip()
    return Answer(int(status[1]), headers, data[end.end() :])


def content(answer: Answer, max_bytes: int) -> bytes:
    """What was sent, unpacked. Raises FormatError: "truncated", "too large" (over `max_bytes`) or "broken"."""
    body = answer.body
    if "chunked" in answer.headers.get("transfer-encoding", "").lower() and _CHUNK.match(body):
        body = _unchunked(body)
    for coding in reversed(answer.headers.get("content-encoding", "").lower().split(",")):
        body = _unpacked(body, coding.strip(), max_bytes)
    if len(body) > max_bytes:
        raise FormatError(f"too large: over {max_bytes:,} bytes")
    return body


def _unchunked(body: bytes) -> bytes:
    parts: list[bytes] = []
    at = 0
    while match := _CHUNK.match(body, at):
        size = int(match[1], 16)
        if size == 0:
            return b"".join(parts)
        at = match.end() + size
        if at > len(body):
            break
        parts.append(body[match.end() : at])
        at += 2 if body[at : at + 2] == b"\r\n" else 1 if body[at : at + 1] == b"\n" else 0
    raise FormatError(f"truncated: the last of {len(parts):,} chunks is missing")


def _unpacked(body: bytes, coding: str, max_bytes: int) -> bytes:
    if coding in ("gzip", "x-gzip") and body[:2] == b"\x1f\x8b":
        return _inflated(body, zlib.MAX_WBITS | 16, max_bytes)
    if coding == "deflate":  # with the header that the standard asks for, or without, as many servers send it
        wrapped = len(body) > 1 and body[0] & 15 == 8 and int.from_bytes(body[:2], "big") % 31 == 0
        return _inflated(body, zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS, max_bytes)
    if coding == "br" or (coding == "zstd" and body[:4] == b"\x28\xb5\x2f\xfd"):
        return _streamed(body, "brotli" if coding == "br" else "zstd", max_bytes)
    return body


def _inflated(body: bytes, window: int, max_bytes: int) -> bytes:
    decoder = zlib.decompressobj(window)
    try:
        found = decoder.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise FormatError(f"broken: {error}") from error
    if len(found) > max_bytes:
        raise FormatError(f"too large: over {max_bytes:,} bytes")
    if not decoder.eof:
        raise FormatError("truncated: its packed content ends in the middle")
    return found


def _streamed(body: bytes, codec: str, max_bytes: int) -> bytes:
    import pyarrow

    parts: list[bytes] = []
    size = 0
    try:
        stream = pyarrow.CompressedInputStream(BytesIO(body), codec)
        while block := stream.read(BLOCK):
            size += len(block)
            if size > max_bytes:
                raise FormatError(f"too large: over {max_bytes:,} bytes")
            parts.append(block)
    except OSError as error:
        raise FormatError(f"broken: {codec}: {error}") from error
    return b"".join(parts)
