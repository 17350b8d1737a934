"""Programs in limited processes. The tests of what is refused each have a program that would otherwise succeed."""

import os
import time
import tracemalloc

import pytest

from matura.align.rewards import programs
from matura.core.errors import MaturaError
from matura.core.reward_settings import UnitTests
from tests.align.completions import asked, said

LIMITS = UnitTests(weight=1.0, seconds=1.0, memory_mb=256)
PROGRAM = "def add(a, b):\n    return a + b\n"


def test_right_wrong_and_not_judged():
    prompt = asked(tests="assert add(2, 3) == 5\nassert add(-1, 1) == 0")
    given = [
        said(f"Here:\n```python\n{PROGRAM}```\nDone.", prompt),
        said("```python\ndef add(a, b):\n    return a - b\n```", prompt),
        said("I cannot.", prompt),
        said(PROGRAM),
    ]
    assert programs.tests(LIMITS, given) == [1.0, 0.0, 0.0, None]


@pytest.mark.parametrize(
    "program",
    [
        "raise SystemExit(0)",
        "import os\nos._exit(0)",
        "while True: pass",
        "held = bytearray(1 << 30)",
        "import socket\nsocket.socket()",
        "import subprocess\nsubprocess.run(['true'])",
        "import os\nos.fork()",
        "open('../matura-was-here', 'w')",
        "import ctypes\nctypes.CDLL(None)",
        "open('large', 'wb').write(bytes(2 << 20))",
    ],
    ids=["exit", "_exit", "endless", "memory", "socket", "process", "fork", "write", "ctypes", "large file"],
)
def test_what_ends_early_or_reaches_out_does_not_pass(program):
    assert not programs.passes(LIMITS, f"ok = True\n{program}\n", "assert ok")


def test_what_a_program_may_do():
    program = "import math, re, collections\nprint('hi')\nopen('note', 'w').write('x')\nok = open('note').read() == 'x'"
    assert programs.passes(LIMITS, program, "assert ok")


def test_what_a_program_writes_past_the_sandbox_fills_no_memory():
    """A program that finds the descriptor of the verdict and floods it."""
    flood = (
        "import os\n"
        "for told in range(3, 32):\n"
        "    try:\n"
        "        while True: os.write(told, bytes(1 << 16))\n"
        "    except OSError: pass\n"
    )
    tracemalloc.start()
    try:
        assert not programs.passes(LIMITS, flood, "")
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_sleeping_programs_are_ended_and_leave_no_process_behind(monkeypatch):
    monkeypatch.setattr(programs, "WAITING", 1.0)
    began = time.monotonic()
    assert not programs.passes(UnitTests(weight=1.0, seconds=0.5), "import time\ntime.sleep(60)", "")
    assert time.monotonic() - began < 10


def test_environment_and_folder_are_empty():
    os.environ["MATURA_SECRET"] = "x"
    try:
        assert programs.passes(
            LIMITS, "import os", "assert 'MATURA_SECRET' not in os.environ and not os.listdir()"
        )
    finally:
        del os.environ["MATURA_SECRET"]


def test_the_last_block_is_the_program():
    assert programs.program("```\na\n```\nbetter:\n```python\nb\n```\n") == "b\n"
    assert programs.program("plain = 1") == "plain = 1"


def test_where_nothing_runs_it_is_said_at_once(monkeypatch):
    monkeypatch.setattr(programs, "passes", lambda *_: False)
    with pytest.raises(MaturaError, match="does not run within the limits"):
        programs.prepared(LIMITS)
