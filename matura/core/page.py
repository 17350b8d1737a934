"""Self-contained HTML pages: nothing is loaded from anywhere, and every text from outside is escaped."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jinja2

HIDDEN = {"Cc", "Cf", "Co", "Cs", "Zl", "Zp"}
"""Unicode's categories of what is not seen but may change how its surroundings look, bidi controls among them."""


def render(template: Path, *, filters: Mapping[str, Callable[..., str]] | None = None, **values: Any) -> str:
    """The page that a Jinja template file makes of the values. `{% include "page_head.html" %}` gives its style.

    Values are escaped; one that the template uses and nobody gave is an error.
    """
    environment = _environment(template.parent)
    if filters:
        environment = environment.overlay()
        environment.filters = {**environment.filters, **filters}
    return environment.get_template(template.name).render(**values)


@functools.cache
def _environment(folder: Path) -> jinja2.Environment:
    """One for each folder: it keeps the templates that it has compiled."""
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, Path(__file__).parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def visible(text: str, most: int) -> str:
    """At most `most` characters of a text from outside, with control and format characters named, such as <U+202E>.

    Line feeds and tabs stay.
    """
    shown = "".join(
        f"<U+{ord(one):04X}>" if one not in "\n\t" and unicodedata.category(one) in HIDDEN else one
        for one in text[:most].replace("\r\n", "\n")
    )
    return shown if len(text) <= most else shown + " …"


def seconds(value: float) -> str:
    """A duration for people: "4.2 s", "2 min 05 s"."""
    if value < 90:
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    return f"{int(value) // 60} min {int(value) % 60:02d} s"
