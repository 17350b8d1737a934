"""The known traps of fine-tuning and alignment (masks, packing, losses of preferences, reinforcement learning,
adapters, resuming: T1 to T40) each have a test that names them, in its docstring or its name."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
TRAPS = range(1, 41)
IN_DOCSTRING = re.compile(r'^ +"""((?:T\d+, )*T\d+): ', re.MULTILINE)
IN_NAME = re.compile(r"^def test_t(\d+)_", re.MULTILINE)


def named() -> set[str]:
    texts = [path.read_text("utf-8") for path in TESTS.rglob("test_*.py")]
    told = {trap for text in texts for one in IN_DOCSTRING.findall(text) for trap in one.split(", ")}
    return told | {f"T{number}" for text in texts for number in IN_NAME.findall(text)}


@pytest.mark.parametrize("trap", TRAPS)
def test_a_trap_is_named_in_a_test(trap: int) -> None:
    assert f"T{trap}" in named()


def test_what_is_in_no_test_is_not_found() -> None:
    assert "T1000" not in named()
