"""Text of a Word document (ECMA-376): paragraphs in order, headings marked, cells of a table row on one line."""

from __future__ import annotations

import re
from xml.etree.ElementTree import Element

from matura.data.formats.archive import Archive

W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
HEADING = re.compile(r"(?:heading|berschrift|titre)\s*(\d)", re.IGNORECASE)
MAX_DEPTH = 60  # tables in tables


def docx_text(archive: Archive) -> str:
    """The document's text. Deleted text of tracked changes and field codes are not part of it.

    Raises FormatError for an archive that is no Word document.
    """
    body = archive.xml("word/document.xml").find(f"{W}body")
    return "" if body is None else "\n\n".join(filter(None, _blocks(body, 0)))


def _blocks(parent: Element, depth: int) -> list[str]:
    found: list[str] = []
    if depth > MAX_DEPTH:
        return found
    for item in parent:
        if item.tag == f"{W}p":
            found.append(_paragraph(item))
        elif item.tag == f"{W}tbl":
            rows = [
                "\t".join(" ".join(_blocks(cell, depth + 1)) for cell in row.iter(f"{W}tc"))
                for row in item.findall(f"{W}tr")
            ]
            found.append("\n".join(row for row in rows if row.strip()))
        elif item.tag in (f"{W}sdt", f"{W}sdtContent", f"{W}ins"):
            found.extend(_blocks(item, depth + 1))
    return found


def _paragraph(paragraph: Element) -> str:
    parts: list[str] = []
    for item in paragraph.iter():
        if item.tag == f"{W}t":
            parts.append(item.text or "")
        elif item.tag == f"{W}tab":
            parts.append("\t")
        elif item.tag in (f"{W}br", f"{W}cr"):
            parts.append("\n")
        elif item.tag == f"{W}noBreakHyphen":
            parts.append("-")
    text = "".join(parts).strip()
    style = paragraph.find(f"{W}pPr/{W}pStyle")
    level = HEADING.search(style.get(f"{W}val", "")) if style is not None else None
    if level and text:
        return "#" * int(level[1]) + " " + text
    listed = paragraph.find(f"{W}pPr/{W}numPr") is not None
    return f"- {text}" if listed and text else text
