"""Bytes of a file to plain text: one extractor per kind, then the same clean-up for all."""

import logging
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO

from matura.core.errors import FormatError
from matura.data.formats.archive import Archive
from matura.data.formats.docx import docx_text
from matura.data.formats.epub import epub_text
from matura.data.formats.ipynb import ipynb_text
from matura.data.formats.man import man_text
from matura.data.rst import rst_text
from matura.data.sources import decode

MAX_UNPACKED_BYTES = 200 << 20
MAX_EXPANSION = 200.0
MAX_PDF_PAGES = 5_000
MAX_PDF_CHARACTERS = 20_000_000
MAX_PDF_PAGE_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Extracted:
    """Clean text, the encoding it was in, and what to know about the reading (damaged pages, cuts)."""

    text: str
    encoding: str
    notes: tuple[str, ...] = ()


def extract(
    data: bytes, kind: str, *, max_bytes: int = MAX_UNPACKED_BYTES, expansion: float = MAX_EXPANSION
) -> Extracted:
    """Plain text of a file whose kind is "md", "txt", "rst", "html", "ipynb", "man", "pdf", "epub" or "docx".

    `max_bytes` and `expansion` bound what an epub or docx unpacks to, in total and as a ratio. Raises FormatError when
    the file is not what its suffix says.
    """
    if kind == "pdf":
        text, notes = pdf_text(data)
        return Extracted(normalise(text), "pdf", notes)
    if kind in ("epub", "docx"):
        archive = Archive(data, max_bytes=max_bytes, expansion=expansion)
        text, notes = epub_text(archive, _page) if kind == "epub" else (docx_text(archive), ())
        return Extracted(normalise(text), kind, notes)
    source, encoding = decode(data, html=kind == "html")
    readers: dict[str, Callable[[str], str]] = {
        "md": markdown_text,
        "rst": rst_text,
        "html": html_text,
        "ipynb": ipynb_text,
        "man": man_text,
        "txt": lambda text: text,
    }
    return Extracted(normalise(readers[kind](unify_newlines(source))), encoding)


def unify_newlines(text: str) -> str:
    """Every line and page separator of Unicode becomes a newline."""
    return re.sub(r"\r\n|[\r\x0b\x0c\x85\u2028\u2029]", "\n", text)


def normalise(text: str) -> str:
    """NFC, no control characters but tabs and newlines, no spaces at line ends, at most two empty lines."""
    text = unicodedata.normalize("NFC", unify_newlines(text))
    # Controls, soft hyphens, byte order marks, lone surrogates and noncharacters carry no text.
    text = re.sub(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\u00ad\ufeff\ud800-\udfff\ufffe\uffff]", "", text)
    lines = [line.rstrip() for line in text.split("\n")]
    return re.sub(r"\n{4,}", "\n\n\n", "\n".join(lines)).strip("\n")


def markdown_text(text: str) -> str:
    """Markdown stays as it is; only YAML or TOML front matter goes."""
    text = text.removeprefix("\ufeff")
    for fence, key in (("---", r"[\w.-]+\s*:"), ("+++", r"[\w.\"-]+\s*=")):
        if not text.startswith(fence + "\n"):
            continue
        end = text.find(f"\n{fence}\n", len(fence))
        if end >= 0 and re.match(rf"\s*(?:#.*\n\s*)*{key}", text[len(fence) : end + 1]):
            return text[end + len(fence) + 2 :]
    return text


MAIN = "main, [role=main], div.body, article"
CHROME = [
    *("nav", "footer", "aside", "form", "button", "body > header", "[role=navigation]", "[role=search]"),
    *(
        "[aria-hidden=true]",
        "a.headerlink",
        ".sidebar",
        ".breadcrumb",
        ".breadcrumbs",
        ".navbar",
        ".toctree-wrapper",
    ),
]


def html_text(text: str) -> str:
    """The text of a page's main element, or of its body where it has none, without menus and footers.

    The parser's own guess at the main content is not used: it drops every bulleted list.
    """
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.html import HTMLTree

    try:
        document = HTMLTree.parse(text).document
        mains = document.query_selector_all(MAIN) if document is not None else []
        only = len(mains) == 1 or (mains and mains[0].tag == "main")
        pages = [mains[0].html] if only else []
        for page in [*pages, text]:
            shown: str = extract_plain_text(page, main_content=False, alt_texts=False, skip_elements=CHROME)
            if shown.strip():
                return shown
    except (ValueError, RuntimeError) as error:
        raise FormatError(f"HTML that cannot be parsed: {error}") from error
    return ""


def _page(data: bytes) -> str:
    return html_text(unify_newlines(decode(data, html=True)[0]))


def pdf_text(data: bytes) -> tuple[str, tuple[str, ...]]:
    """Text of a PDF page by page. A page that cannot be read is left out and told in the notes.

    Raises FormatError when the file is broken as a whole, encrypted with a password, or has no text at all.
    """
    import pypdf

    # pypdf reports every oddity of a file on its logger; the notes say what matters.
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    try:
        reader = pypdf.PdfReader(BytesIO(data), strict=False)
        if reader.is_encrypted and not reader.decrypt(""):
            raise FormatError("a PDF with a password")
        count = len(reader.pages)
    except FormatError:
        raise
    except (
        Exception
    ) as error:  # a damaged file raises almost anything: KeyError, RecursionError, struct.error ...
        raise FormatError(f"a PDF that cannot be read: {_short(error)}") from error
    pages: list[str] = []
    failed: list[str] = []
    characters = 0
    for number in range(min(count, MAX_PDF_PAGES)):
        try:
            page = reader.pages[number]
            contents = page.get_contents()
            if contents is not None and len(contents.get_data()) > MAX_PDF_PAGE_BYTES:
                raise FormatError(f"more than {MAX_PDF_PAGE_BYTES:,} bytes of drawing")
            pages.append(page.extract_text())
        except Exception as error:  # one bad page must not cost the others
            failed.append(f"page {number + 1}: {_short(error)}")
            continue
        characters += len(pages[-1])
        if characters > MAX_PDF_CHARACTERS:
            failed.append(f"cut after page {number + 1}: over {MAX_PDF_CHARACTERS:,} characters")
            break
    if count > MAX_PDF_PAGES:
        failed.append(f"cut after page {MAX_PDF_PAGES:,} of {count:,}")
    text = join_hyphens("\n\n".join(pages))
    if not text.strip():
        raise FormatError(f"a PDF without text ({count} pages, perhaps scanned)" + _first(failed))
    return text, tuple(failed)


def join_hyphens(text: str) -> str:
    """Words cut at a line's end ("exam-\\nple") are made whole again."""
    return re.sub(r"(?<=[^\W\d_])-\n(?=[a-zà-öø-ÿ])", "", text)


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".strip()[:120]


def _first(notes: list[str]) -> str:
    return f"; {notes[0]}" if notes else ""
