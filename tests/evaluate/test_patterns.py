"""Patterns from outside end in time, and leave the process as it was."""

import signal
import threading
import time

import pytest

from matura.core.errors import ConfigError, MaturaError
from matura.evaluate import grading, patterns
from matura.evaluate.spec import Extract, Task
from matura.evaluate.tasks import Item

ENDLESS, TEXT = r"(a|aa)+$", "a" * 60 + "b"


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "SECONDS", 0.1)


@pytest.mark.parametrize("use", [patterns.find, patterns.cut])
def test_a_pattern_without_end_is_an_error_in_time(use: object, soon: None) -> None:
    assert callable(use)
    before, began = signal.getsignal(signal.SIGVTALRM), time.process_time()
    with pytest.raises(
        ConfigError, match=r"\(a\|aa\)\+\$' takes more than 0\.1 s on a text of 61 characters"
    ):
        use(ENDLESS, TEXT)
    assert time.process_time() - began < 2
    assert signal.getsignal(signal.SIGVTALRM) == before
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)


@pytest.mark.parametrize("part", ["extract", "ignore"])
def test_grading_tells_of_it_instead_of_hanging(part: str, soon: None) -> None:
    given = {"extract": (Extract(name="x", pattern=ENDLESS),), "ignore": (ENDLESS,)}
    task = Task(name="t", kind="writing", data=("t.jsonl",), answer="a", **{part: given[part]})
    (metric,) = grading.metrics(task)
    with pytest.raises(ConfigError, match="takes more than"):
        metric.mark(task, Item("t-0", "q", ("a",), 0, "t"), [TEXT])


def test_ordinary_patterns_find_what_they_found() -> None:
    assert [one[1] for one in patterns.find(r"#### (-?[0-9.,]+)", "so #### 12, and #### -3.")] == [
        "12,",
        "-3.",
    ]
    assert patterns.cut(r"[$,]", "$1,200") == "1200"


@pytest.mark.parametrize("pattern", ["(", "(" * 1500, "a" * 3000, "a{99999999999}"])
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"is not a regular expression|at most 2000 are read"):
        patterns.check(pattern)


def test_another_thread_is_told_that_it_cannot() -> None:
    found: list[Exception] = []

    def ask() -> None:
        try:
            patterns.find("a", "a")
        except MaturaError as error:
            found.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert "main thread" in str(found[0])
