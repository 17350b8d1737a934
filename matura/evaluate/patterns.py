"""Regular expressions that came with a task, in bounded time.

A pattern such as `(a|aa)+$` tries ever more ways on a text that does not fit, and a task may come from anywhere.
Python's matcher looks for signals while it works, so a timer of the process's own computing time ends it.
"""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from matura.core.errors import ConfigError, MaturaError

SECONDS = 2.0
"""Of computing, for one pattern on one text; patterns that are fit for use take a thousandth."""
MAX_LENGTH = 2000
"""Characters of a pattern."""


def check(pattern: str) -> str:
    """The pattern itself. Raises ValueError for what is no regular expression, or an absurd one."""
    if len(pattern) > MAX_LENGTH:
        raise ValueError(f"{pattern[:40]!r}... has {len(pattern)} characters, at most {MAX_LENGTH} are read")
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"{pattern!r:.200} is not a regular expression: {error}") from error
    return pattern


def find(pattern: str, text: str) -> list[re.Match[str]]:
    """All matches, as `re.finditer` has them. Raises ConfigError for a pattern that takes too long."""
    with _bounded(pattern, text):
        return list(re.finditer(pattern, text))


def cut(pattern: str, text: str) -> str:
    """The text without what matches. Raises ConfigError for a pattern that takes too long."""
    with _bounded(pattern, text):
        return re.sub(pattern, "", text)


class _TooLongError(Exception):
    pass


@contextmanager
def _bounded(pattern: str, text: str) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        raise MaturaError(
            "the regular expressions of a task are bounded in time by a signal, which only the main thread hears; "
            "run the exam there"
        )
    before = signal.signal(signal.SIGVTALRM, _stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        yield
    except _TooLongError:
        raise ConfigError(
            f"the pattern {pattern!r:.200} takes more than {SECONDS:g} s on a text of {len(text):,} characters: it can "
            "match the same in very many ways, as repeats within repeats do. Write it so that there is one way"
        ) from None
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _stop(number: int, frame: object) -> None:
    raise _TooLongError
