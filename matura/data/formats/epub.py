"""Text of an EPUB book (EPUB 3.3): the pages of its spine, in reading order."""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from urllib.parse import unquote

from matura.core.errors import FormatError
from matura.data.formats.archive import Archive

CONTAINER = "META-INF/container.xml"


def epub_text(archive: Archive, page_text: Callable[[bytes], str]) -> tuple[str, tuple[str, ...]]:
    """The book's text by `page_text` (HTML bytes to text), and notes about pages that could not be read.

    Raises FormatError when the archive is no book, is protected, or holds no text.
    """
    if "META-INF/rights.xml" in archive.names:
        raise FormatError("broken: a protected book (DRM)")
    package = next(
        (item.get("full-path") for item in archive.xml(CONTAINER).iter() if item.tag.endswith("}rootfile")),
        None,
    )
    if not package:
        raise FormatError(f"broken: {CONTAINER} names no package")
    files: dict[str, str] = {}
    order: list[str] = []
    for item in archive.xml(package).iter():
        tag = item.tag.rpartition("}")[2]
        if tag == "item" and "html" in item.get("media-type", ""):
            files[item.get("id", "")] = unquote(item.get("href", ""))
        elif tag == "itemref" and item.get("linear") != "no":
            order.append(item.get("idref", ""))
    pages: list[str] = []
    notes: list[str] = []
    for identity in order:
        if identity not in files:
            continue
        name = posixpath.normpath(posixpath.join(posixpath.dirname(package), files[identity]))
        try:
            pages.append(page_text(archive.read(name)))
        except FormatError as error:
            if str(error).startswith("expands"):
                raise
            notes.append(f"{name}: {error}")
    text = "\n\n".join(page for page in pages if page.strip())
    if not text:
        raise FormatError(f"broken: a book without text ({len(order)} pages)")
    return text, tuple(notes)
