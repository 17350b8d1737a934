"""Text of a Jupyter notebook (nbformat 3 and 4): prose as it is, code in fences, no outputs."""

from __future__ import annotations

import json
from typing import Any

from matura.core.errors import FormatError


def ipynb_text(text: str) -> str:
    """The cells in order. Raises FormatError for what is no notebook."""
    try:
        book = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"broken: not a notebook: {error}") from error
    if not isinstance(book, dict):
        raise FormatError("broken: not a notebook: no object")
    sheets = book.get("worksheets")
    holders = sheets if isinstance(sheets, list) else [book]
    cells = [cell for holder in holders if isinstance(holder, dict) for cell in _list(holder.get("cells"))]
    if not cells and "cells" not in book and not sheets:
        raise FormatError("broken: not a notebook: it has no cells")
    language = _language(book)
    return "\n\n".join(filter(None, (_cell(cell, language) for cell in cells if isinstance(cell, dict))))


def _cell(cell: dict[str, Any], language: str) -> str:
    source = cell.get("source", cell.get("input", ""))
    text = "".join(line for line in source if isinstance(line, str)) if isinstance(source, list) else source
    if not isinstance(text, str) or not text.strip():
        return ""
    return f"```{language}\n{text.rstrip()}\n```" if cell.get("cell_type") == "code" else text.strip()


def _language(book: dict[str, Any]) -> str:
    metadata = book.get("metadata")
    kernel = metadata.get("kernelspec") if isinstance(metadata, dict) else None
    language = kernel.get("language") if isinstance(kernel, dict) else None
    return language if isinstance(language, str) and language.isalnum() else "python"


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
