"""What a panel asks, and what becomes of the replies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matura.core.errors import FormatError
from matura.evaluate.asking import Reply, Request, Score, Scored
from matura.evaluate.panels.figures import Combined, Figure
from matura.evaluate.rows import Sources

Replies = Sequence[Sequence[Reply]]
"""For each item of a sheet, the replies to its requests."""
Figures = list[Figure | Combined]


@dataclass(frozen=True)
class Room:
    """Where an exam takes place: where rows are, the longest input in tokens, how many tokens a text has.

    `corpus`: the folder of the corpus with planted secrets, `trained`: of the one that the model was trained on,
    `examples`: the file that a classifier of toxicity learns from.
    """

    sources: Sources
    window: int
    count: Callable[[str], int]
    corpus: Path | None = None
    trained: Path | None = None
    examples: Path | None = None


@dataclass(frozen=True)
class Sheet:
    """The questions of one panel. `asked` holds the requests of each item, `items` their ids.

    `figures` and `marks` (a row of JSON for each item, without texts) are made of one model's replies.
    """

    name: str
    items: Sequence[str]
    asked: Sequence[list[Request]]
    figures: Callable[[Replies], Figures]
    marks: Callable[[Replies], list[dict[str, Any]]]
    notes: Sequence[str] = field(default=())

    def requests(self, start: int = 0, end: int | None = None) -> list[list[Request]]:
        """What is asked for each item."""
        return list(self.asked[start:end])


def choices(context: str, texts: Sequence[str]) -> list[Request]:
    """Requests that score each text as what follows, after a space."""
    return [Score(context, f" {text}") for text in texts]


def scored(replies: Sequence[Reply]) -> list[Scored]:
    """The scores among the replies to one item."""
    return [one for one in replies if isinstance(one, Scored)]


def written(replies: Sequence[Reply]) -> list[str]:
    """The texts among the replies to one item."""
    return [one for one in replies if isinstance(one, str)]


def likeliest(found: Sequence[Scored], texts: Sequence[str]) -> int:
    """The choice with the best log-probability per character, so that a longer one is not the worse for it."""
    values = likelihood(found, texts)
    return max(range(len(values)), key=values.__getitem__)


def likelihood(found: Sequence[Scored], texts: Sequence[str]) -> list[float]:
    """Log-probability per character of each choice."""
    return [one.logprob / max(1, len(text)) for one, text in zip(found, texts, strict=True)]


def files(sources: Sources, pattern: str) -> list[Path]:
    """Files of the folder whose names fit the pattern, by name."""
    if sources.folder is None:
        return []
    return sorted(path for path in sources.folder.rglob(pattern) if path.is_file())


def text(path: Path, limit: int = 16 << 20) -> str:
    """The text of a file of a data set. Raises FormatError for one that is too large or no UTF-8."""
    if path.stat().st_size > limit:
        raise FormatError(f"{path}: more than {limit} bytes")
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: no text in UTF-8: {error}") from error
