"""How deep a page's elements are nested: some of what is done with a tree takes time with the square of its depth."""

from __future__ import annotations

import re

from matura.core.errors import FormatError

MAX_DEPTH = 1_000
"""Browsers stop at 512."""
FEW = 3 * MAX_DEPTH  # signs "<" that cannot be trouble
_TAG = re.compile(r"<(/?)([a-zA-Z][\w-]*)")
# Elements without content, and those whose end tag may be left out: the next one of their kind ends them.
_FLAT = frozenset(
    [
        "area",
        "base",
        "br",
        "col",
        "embed",
        "hr",
        "img",
        "input",
        "link",
        "meta",
        "param",
        "source",
        "track",
        "wbr",
    ]
) | frozenset(
    [
        "p",
        "li",
        "dt",
        "dd",
        "tr",
        "td",
        "th",
        "thead",
        "tbody",
        "tfoot",
        "option",
        "optgroup",
        "rp",
        "rt",
        "colgroup",
    ]
)


def check_depth(page: str) -> None:
    """Raises FormatError for elements nested over 1,000 deep."""
    if page.count("<") < FEW:
        return
    depth = 0
    for end, name in _TAG.findall(page):
        if name.lower() in _FLAT:
            continue
        depth = max(depth - 1, 0) if end else depth + 1
        if depth > MAX_DEPTH:
            raise FormatError(f"broken: HTML elements nested over {MAX_DEPTH:,} deep")
