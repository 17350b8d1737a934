"""Python programs in answers, run against tests in limited processes. What the limits are, and are not: `sandbox.py`
and docs/rewards.md."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from matura.align.rewards.completion import Completion
from matura.core.errors import MaturaError
from matura.core.reward_settings import UnitTests

TESTS = "tests"
"""The fact that holds the tests: Python statements that raise when the program is wrong."""

SANDBOX = Path(__file__).with_name("sandbox.py")
MAX_PROGRAM = 64 << 10
"""Bytes of a program; a longer one fails."""
MAX_SAID = 256
"""Bytes that are read of what the sandbox writes."""
WAITING = 10.0
"""Real time that a program may take, as a multiple of its processor time: it may sleep, or the machine be busy."""
_FENCE = re.compile(r"^```[a-zA-Z0-9]*[ \t]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def tests(settings: UnitTests, completions: Sequence[Completion]) -> list[float | None]:
    """1 where the program passes, 0 where it does not; None for prompts without tests."""

    def judge(one: Completion) -> float | None:
        given = one.prompt.facts.get(TESTS)
        return None if given is None else float(passes(settings, program(one.text), given))

    with ThreadPoolExecutor(settings.processes) as pool:
        return list(pool.map(judge, completions))


def prepared(settings: UnitTests) -> Callable[[Sequence[Completion]], list[float | None]]:
    """`tests`, after a program that must pass did: else every answer would be worth nothing, and nobody knew why.

    Raises MaturaError where programs cannot be run.
    """
    if not passes(settings, "one = 1", "assert one == 1") or passes(settings, "one = 2", "assert one == 1"):
        raise MaturaError(
            "rewards.tests: a program of one line does not run within the limits on this machine; give more "
            "rewards.tests.seconds or memory_mb (it needs POSIX: Linux or macOS)"
        )
    return partial(tests, settings)


def program(text: str) -> str:
    """The last block between ``` in an answer, else all of it."""
    blocks = _FENCE.findall(text)
    return blocks[-1] if blocks else text


def passes(settings: UnitTests, program: str, tests: str) -> bool:
    """Whether a program runs and its tests raise nothing, within the limits."""
    try:
        sent = program.encode(), tests.encode()
    except UnicodeEncodeError:
        return False
    if len(sent[0]) > MAX_PROGRAM:
        return False
    token = secrets.token_hex(16)
    limits = f"{settings.seconds} {settings.memory_mb << 20} {token} {len(sent[0])}\n".encode()
    with tempfile.TemporaryDirectory(prefix="matura-tests-") as folder:
        said = _run(folder, limits + sent[0] + sent[1], settings.seconds * WAITING)
    return said == token.encode()


def _run(folder: str, sent: bytes, seconds: float) -> bytes:
    """What the sandbox writes; nothing when it takes too long.

    It writes into a file, whose size the sandbox limits: a program that finds the descriptor cannot fill our memory.
    """
    # The environment is empty but for a fixed hash seed, so that sets have one order: -I would ignore that seed, and
    # there is nothing else for it to ignore.
    with tempfile.TemporaryFile() as told:
        process = subprocess.Popen(
            [sys.executable, "-P", "-s", "-B", str(SANDBOX)],
            stdin=subprocess.PIPE,
            stdout=told,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env={"PYTHONHASHSEED": "0"},
            start_new_session=True,
            close_fds=True,
        )
        try:
            process.communicate(sent, timeout=seconds)
        except subprocess.TimeoutExpired:
            return b""
        finally:
            _end(process)
        told.seek(0)
        return told.read(MAX_SAID)


def _end(process: subprocess.Popen[bytes]) -> None:
    """The process and all that it started in its group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
