"""A process of its own for parsers that may hang or eat memory: pdf, epub, docx.

It answers one request after the other and lives as long as its `Parser`; one that takes too long is killed, and the
next request starts another.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any, BinaryIO

from matura.core.errors import FormatError

MEMORY = 4 << 30  # bytes of address space
APART = frozenset({"pdf", "epub", "docx"})
"""Kinds that are parsed here."""
_COMMAND = (sys.executable, "-m", "matura.data.formats.worker")
_HEAD = struct.Struct(">II")
_READY = b"ready\n"
START_SECONDS = 120.0
"""For starting, which is no part of the time for parsing: on a busy machine it may take longer than a small file."""


class Parser:
    """`extract` of matura.data.extraction in another process, with a time limit in seconds of wall clock."""

    def __init__(self, seconds: float, bounds: dict[str, Any], command: Sequence[str] = _COMMAND) -> None:
        self._seconds, self._bounds, self._command = seconds, bounds, command
        self._process: subprocess.Popen[bytes] | None = None

    def extract(self, data: bytes, kind: str) -> tuple[str, tuple[str, ...]]:
        """Text and notes. Raises FormatError: as the parser does, or "timed out", or when the process dies."""
        head = json.dumps({"kind": kind, **self._bounds}).encode()
        try:
            answer = self._ask(self._started(), _HEAD.pack(len(head), len(data)) + head + data)
        except TimeoutError:
            self.close()
            raise FormatError(f"timed out: parsing took over {self._seconds:g} seconds") from None
        except (OSError, ValueError, struct.error) as error:
            self.close()
            raise FormatError(f"broken: the {kind} parser died, perhaps of too much memory") from error
        if "error" in answer:
            raise FormatError(answer["error"])
        return answer["text"], tuple(answer["notes"])

    def close(self) -> None:
        """End the process, if there is one."""
        process, self._process = self._process, None
        if process is not None and process.stdin and process.stdout:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(BrokenPipeError):  # what was not sent yet goes nowhere
                    pipe.close()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            assert self._process.stdout is not None
            source = self._process.stdout.fileno()
            if not select.select([source], [], [], START_SECONDS)[0] or os.read(source, 16) != _READY:
                raise OSError("the process did not start")
        return self._process

    def _ask(self, process: subprocess.Popen[bytes], request: bytes) -> dict[str, Any]:
        assert process.stdin is not None
        assert process.stdout is not None
        until = time.monotonic() + self._seconds
        to, source = process.stdin.fileno(), process.stdout.fileno()
        os.set_blocking(to, False)
        sent, got = memoryview(request), bytearray()
        while len(got) < 4 or len(got) < 4 + int.from_bytes(got[:4], "big"):
            left = until - time.monotonic()
            ready, free, _ = select.select([source], [to] if sent else [], [], max(left, 0))
            if not ready and not free:
                raise TimeoutError
            if free:
                sent = sent[os.write(to, sent[: 1 << 16]) :]
            if ready:
                block = os.read(source, 1 << 16)
                if not block:
                    raise OSError("the process ended")
                got += block
        answer: dict[str, Any] = json.loads(got[4:])
        return answer


def serve(source: BinaryIO, to: BinaryIO) -> None:
    """Answer requests until the other side closes."""
    from matura.data.extraction import extract

    to.write(_READY)
    to.flush()
    while len(head := source.read(_HEAD.size)) == _HEAD.size:
        options, size = _HEAD.unpack(head)
        request = json.loads(source.read(options))
        data = source.read(size)
        try:
            found = extract(data, **request)
            answer: dict[str, Any] = {"text": found.text, "notes": found.notes}
        except FormatError as error:
            answer = {"error": str(error)}
        except MemoryError:
            answer = {"error": "broken: parsing it takes too much memory"}
        except Exception as error:  # parsers of damaged files raise almost anything
            answer = {"error": f"broken: {type(error).__name__}: {error}"[:300]}
        body = json.dumps(answer).encode()
        to.write(len(body).to_bytes(4, "big") + body)
        to.flush()


if __name__ == "__main__":
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, ValueError, OSError):  # not on this system; the time limit holds all the same
        pass
    serve(sys.stdin.buffer, sys.stdout.buffer)
