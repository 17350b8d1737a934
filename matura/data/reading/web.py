"""One file of the web, over HTTP: bounded, taken up again where it broke off, complete or absent."""

from __future__ import annotations

import base64
import http.client
import mimetypes
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from email.message import Message
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from matura.core import credentials
from matura.core.errors import MaturaError
from matura.core.files import size_text
from matura.data.reading.folder import kind_of
from matura.data.reading.unpack import inner_name

SECONDS = 60.0
BLOCK = 1 << 20
LEAST_RATE = 1024  # bytes a second over SECONDS; slower counts as broken off
TRIES = 4  # in a row that bring nothing new
WAIT = 0.5  # seconds before the next try, doubled each time
BUSY = {429, 500, 502, 503, 504}
RESERVE = 1 << 30  # bytes of the disk that a download leaves free
SUFFIXES = {
    "text/html": ".html",
    "text/plain": ".txt",
    "text/markdown": ".md",
    "application/xhtml+xml": ".html",
}


class _BrokenOff(Exception):  # noqa: N818
    """What came before stays; the next try goes on there."""


def fetch_file(address: str, place: Path, max_bytes: int) -> Path:
    """The file at an address, below the folder `place`; what is there already is not fetched again.

    User and password of the address go to its own host only, never to where it redirects. Raises MaturaError.
    """
    for known in sorted(place.iterdir()) if place.is_dir() else ():
        if not known.name.startswith("."):
            return known
    place.mkdir(parents=True, exist_ok=True)
    bound = min(max_bytes, max(shutil.disk_usage(place).free - RESERVE, 0))
    partial = place / f".download.{os.getpid()}"
    try:
        with partial.open("wb") as file:
            name = _Download(address, file, bound).run()
        target = place / name
        partial.replace(target)
        return target
    finally:
        partial.unlink(missing_ok=True)


class _Download:
    """One file under way."""

    def __init__(self, address: str, file: Any, max_bytes: int) -> None:
        self.address, self.file, self.max_bytes = address, file, max_bytes
        self.size = 0
        self.claimed: int | None = None
        self.validator = ""  # ETag or date by which a server knows the same content again

    def run(self) -> str:
        """Fetch all of it; the name it should have."""
        failures = 0
        while True:
            before = self.size
            try:
                return self._try()
            except _BrokenOff as error:
                failures = 1 if self.size > before else failures + 1
                if failures >= TRIES:
                    raise self._error(str(error)) from None
                time.sleep(WAIT * 2 ** (failures - 1))

    def _try(self) -> str:
        try:
            with _opener().open(self._request(), timeout=SECONDS) as answer:
                self._begin(answer)
                self._receive(answer)
                name = _name(self.address, answer.url, answer.headers)
        except urllib.error.HTTPError as error:
            error.close()
            said = f"{error.code} {error.reason}"
            if error.code in BUSY:
                raise _BrokenOff(said) from None
            raise self._error(said) from None
        except (http.client.IncompleteRead, ConnectionError, TimeoutError) as error:
            raise _BrokenOff(f"it broke off after {self.size:,} bytes ({_line(error)})") from None
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise self._error(_line(error)) from None
        if self.claimed is not None and self.size < self.claimed:
            raise _BrokenOff(f"it broke off after {self.size:,} of {self.claimed:,} bytes")
        return name

    def _request(self) -> urllib.request.Request:
        parts = urlsplit(credentials.filled(self.address))
        user, at, host = parts.netloc.rpartition("@")
        url = urlunsplit((parts.scheme, host, parts.path, parts.query, ""))
        request = urllib.request.Request(url, headers={"User-Agent": "matura", "Accept-Encoding": "identity"})
        if at:
            pair = base64.b64encode(":".join(map(unquote, (*user.split(":", 1), "")[:2])).encode()).decode()
            request.add_unredirected_header("Authorization", f"Basic {pair}")
        if self.size and self.validator:
            request.add_header("Range", f"bytes={self.size}-")
            request.add_header("If-Range", self.validator)
        return request

    def _begin(self, answer: Any) -> None:
        """Whether this goes on after what has come, or starts again."""
        length = answer.headers.get("Content-Length") or ""
        claimed = int(length) if re.fullmatch(r"\d{1,18}", length) else None
        if answer.status == 206:
            place = re.match(r"bytes (\d+)-\d+/", answer.headers.get("Content-Range") or "")
            if place is None or int(place[1]) != self.size:
                raise self._error("it answered with another part of the file than was asked for")
            self.claimed = None if claimed is None else self.size + claimed
        else:
            self.file.seek(0)
            self.file.truncate()
            self.size, self.claimed = 0, claimed
        tag = answer.headers.get("ETag") or ""
        self.validator = (
            tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified") or ""
        )
        if self.claimed is not None and self.claimed > self.max_bytes:
            raise too_large(self.address, self.claimed, self.max_bytes)

    def _receive(self, answer: Any) -> None:
        since, then = time.monotonic(), self.size
        while block := answer.read1(BLOCK):
            self.size += len(block)
            if self.size > self.max_bytes:
                raise too_large(self.address, self.size, self.max_bytes)
            self.file.write(block)
            if (passed := time.monotonic() - since) > SECONDS:
                if self.size - then < LEAST_RATE * passed:
                    raise self._error(f"it sends under {LEAST_RATE} bytes a second")
                since, then = time.monotonic(), self.size

    def _error(self, said: str) -> MaturaError:
        said = credentials.without_secrets(said, self.address)
        return MaturaError(f"Cannot fetch {public(self.address)}: {said}")


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        old, new = urlsplit(req.full_url), urlsplit(newurl)
        if new.scheme not in ("http", "https") or (old.scheme == "https" and new.scheme == "http"):
            raise ValueError(f"it redirects to {new.scheme}://, which is not followed")
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        if request is not None and (old.scheme, old.netloc) == (new.scheme, new.netloc):
            for name, value in req.unredirected_hdrs.items():
                if name == "Authorization":
                    request.add_unredirected_header(name, value)
        return request


def _opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(_Redirects)


def _name(address: str, final: str, headers: Message) -> str:
    """The first name that tells what it is: the address's, that of where it led to, the answer's own; else by type."""
    own = _last(urlsplit(address).path) or "index"
    told = headers.get_filename() or ""
    name = next((one for one in (own, _last(urlsplit(final).path), _last(told)) if kind_of(one)), "")
    if not name:
        kind = headers.get_content_type()
        name = own + (SUFFIXES.get(kind) or mimetypes.guess_extension(kind) or "")
    if headers.get("Content-Encoding", "").lower() in ("gzip", "x-gzip") and inner_name(name)[1] is None:
        name += ".gz"
    return name


def _last(path: str) -> str:
    return re.sub(r"[\x00-\x1f/\\]", "", PurePosixPath(unquote(path)).name).lstrip(".")[-120:]


def too_large(path: str, size: int, max_bytes: int) -> MaturaError:
    """The error for more than may be fetched."""
    return MaturaError(
        f"{public(path)} has {size_text(size)}, at most {size_text(max_bytes)} are fetched. "
        "Choose a part of it with `include`, or free disk space."
    )


def public(url: str) -> str:
    """A URL without user, password and signature."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _line(error: Exception) -> str:
    reason = getattr(error, "reason", None)
    return (str(reason or error).strip() or type(error).__name__).splitlines()[0][:300]
