"""Parts through workers: every result in order, whatever the engine; errors named; finished parts kept."""

import gc
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from matura.core.corpus_settings import Engine
from matura.core.errors import MaturaError
from matura.data.engine import PartFailed, run_parts

WHERE = "tests.data.test_engine"
pytestmark = pytest.mark.filterwarnings(
    "ignore:unclosed file:ResourceWarning"
)  # Daft leaves pipes to its workers


@pytest.fixture(scope="module", autouse=True)
def _collected_here() -> Iterator[None]:
    yield
    gc.collect()


def double(part: dict[str, Any]) -> dict[str, Any]:
    Path(part["folder"], str(part["n"])).write_text("done")
    return {"twice": 2 * part["n"], "process": os.getpid()}


def fails_on_two(part: dict[str, Any]) -> dict[str, Any]:
    if part["n"] == 2:
        raise MaturaError("part 2 is broken")
    if part["n"] == 3:
        raise KeyError("no such thing")
    return double(part)


def first_waits_for_the_others(part: dict[str, Any]) -> dict[str, Any]:
    folder = Path(part["folder"])
    until = time.monotonic() + 30
    while part["n"] == 0 and len(list(folder.iterdir())) < part["others"] and time.monotonic() < until:
        time.sleep(0.02)
    return {"found": len(list(folder.iterdir())), **double(part)}


def parts(folder: Path, count: int) -> list[dict[str, Any]]:
    return [{"n": n, "folder": str(folder)} for n in range(count)]


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order(workers: int, tmp_path: Path) -> None:
    heard: list[int] = []
    results = run_parts(
        f"{WHERE}:double",
        parts(tmp_path, 5),
        Engine(workers=workers),
        advance=lambda result: heard.append(result["twice"]),
    )
    assert [result["twice"] for result in results] == [0, 2, 4, 6, 8]
    assert sorted(heard) == [0, 2, 4, 6, 8]
    assert ({result["process"] for result in results} == {os.getpid()}) is (workers == 1)


def test_a_slow_part_keeps_no_worker_from_the_others(tmp_path: Path) -> None:
    work = [{**part, "others": 7} for part in parts(tmp_path, 8)]
    results = run_parts(f"{WHERE}:first_waits_for_the_others", work, Engine(workers=2))
    assert results[0]["found"] == 7


def test_one_part_runs_here(tmp_path: Path) -> None:
    (result,) = run_parts(f"{WHERE}:double", parts(tmp_path, 1), Engine(workers=2))
    assert result["process"] == os.getpid()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failed_part_is_named_and_the_others_are_kept(workers: int, tmp_path: Path) -> None:
    with pytest.raises(PartFailed, match=r"part 2 is broken \(and 1 more parts\)"):
        run_parts(f"{WHERE}:fails_on_two", parts(tmp_path, 5), Engine(workers=workers))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "4"]


def test_a_bug_names_its_line(tmp_path: Path) -> None:
    with pytest.raises(PartFailed, match=r"(?s)fails_on_two failed on .*no such thing"):
        run_parts(f"{WHERE}:fails_on_two", parts(tmp_path, 4)[3:], Engine(workers=1))
