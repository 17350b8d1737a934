"""Pictures of reports: drawing them takes longer than all else that most tests of stages do."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from matura.core import picture

DRAWN = picture.panels
PLACES = ("matura.core.picture.panels", "matura.evaluate.plots.panels", "matura.data.plots.panels")
MARK = "viewBox"
"""What a page has only where its pictures are real ones."""


def captioned(height: float, draws: Any, title: str, margins: Any = None) -> str:
    """A picture's caption in place of it."""
    return f'<svg aria-label="{title}"></svg>'


@contextmanager
def pictures(draw: Any) -> Iterator[None]:
    """Inside, pictures are made by `draw`: `captioned`, or `DRAWN` for real ones."""
    with pytest.MonkeyPatch.context() as patch:
        for place in PLACES:
            patch.setattr(place, draw)
        yield
