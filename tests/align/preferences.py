"""Made-up preferences for tests: who says hello is preferred to who says no."""

from pathlib import Path

from matura.core import artifact
from matura.core.artifact import Artifact
from matura.core.preferences import HELDOUT, TRAIN, Answer, Ranking, write_rankings


def question(number: int) -> tuple[dict[str, str], ...]:
    return ({"role": "user", "content": f"say {number}"},)


def pair(number: int, *, swapped: bool = False) -> Ranking:
    """Two answers with ranks."""
    good, bad = f"hello {number}", "no no " * (1 + number % 3)
    return Ranking(f"p{number}", question(number), (Answer(good, 1 + swapped), Answer(bad, 2 - swapped)))


def ranked(number: int) -> Ranking:
    """Three answers with ranks, so three pairs."""
    texts = (f"hello hello {number}", f"hello {number}", "no")
    return Ranking(f"r{number}", question(number), tuple(Answer(t, i) for i, t in enumerate(texts, 1)))


def thumb(number: int) -> Ranking:
    """One answer with a thumb."""
    liked = number % 2 == 0
    return Ranking(f"t{number}", question(number), (Answer("hello" if liked else "no no", liked=liked),))


def preferences(folder: Path, train: list[Ranking], heldout: list[Ranking]) -> Artifact:
    """A preferences artifact."""
    draft = artifact.begin(folder, kind="preferences", stage="rank", version=1, config={}, inputs={})
    write_rankings(draft.path / TRAIN, train)
    write_rankings(draft.path / HELDOUT, heldout)
    return draft.commit({})
