"""The known traps of fine-tuning (masks, packing, adapters, resuming: T1 to T11, T31 to T40) each have a test that
names them in its docstring."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
TRAPS = [*range(1, 12), *range(31, 41)]
NAMED = re.compile(r'^ +"""((?:T\d+, )*T\d+): ', re.MULTILINE)


def named() -> set[str]:
    found = (NAMED.findall(path.read_text("utf-8")) for path in TESTS.rglob("test_*.py"))
    return {trap for names in found for one in names for trap in one.split(", ")}


@pytest.mark.parametrize("trap", TRAPS)
def test_a_trap_is_named_in_a_test(trap: int) -> None:
    assert f"T{trap}" in named()


def test_what_is_in_no_test_is_not_found() -> None:
    assert "T1000" not in named()
