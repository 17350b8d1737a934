"""Small inputs for the tests of readers, and the short way from them to documents."""

import gzip
import json
import zipfile
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

from matura.core.corpus_settings import Limits, Source
from matura.core.records import Document
from matura.data import reading
from matura.data.reading import Skipped

PROSE = "The quick brown fox jumps over the lazy dog while the sun sets behind the old hills. "


def source(path: Path | None, **settings: Any) -> dict[str, Any]:
    """Plain values of a source, as the stage gives them."""
    values = Source(path=None if path is None else str(path), **settings).model_dump()
    return {**values, "resolved": None if path is None else str(path)}


def read_all(
    path: Path, part_bytes: int = 1 << 25, limits: Limits | None = None, **settings: Any
) -> tuple[list[Document], list[Skipped]]:
    """Documents and skipped things of one source; tasks go through JSON, as on the way to a worker."""
    tasks = reading.plan({"here": source(path, **settings)}, limits or Limits(), part_bytes)
    return split(item for task in tasks for item in reading.read(json.loads(json.dumps(task))))


def split(items: Iterable[Document | Skipped]) -> tuple[list[Document], list[Skipped]]:
    everything = list(items)
    documents = [item for item in everything if isinstance(item, Document)]
    return documents, [item for item in everything if isinstance(item, Skipped)]


def reasons(skipped: Iterable[Skipped]) -> dict[str, str]:
    return {item.name: item.reason for item in skipped}


def record(kind: str, url: str, body: bytes) -> bytes:
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {url}\r\nWARC-Date: 2024-05-01T00:00:00Z\r\n"
        f"WARC-Record-ID: <urn:uuid:{url}>\r\nContent-Type: "
        + ("text/plain" if kind == "conversion" else "application/http; msgtype=response")
        + f"\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body + b"\r\n\r\n"


def answer(body: bytes, content: str = "text/html", status: str = "200 OK", extra: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Type: {content}\r\n{extra}\r\n".encode() + body


def web_page(number: int, extra: str = "") -> bytes:
    return (
        f"<html lang='en'><head><title>Page {number}</title></head><body><nav>Menu Home</nav><main>"
        f"<h1>Page {number}</h1><p>{PROSE * 3}{extra}</p></main><script>var x = 1</script></body></html>"
    ).encode()


def members(records: Iterable[bytes]) -> bytes:
    return b"".join(gzip.compress(one, mtime=0) for one in records)


def zipped(files: dict[str, str | bytes]) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


CONTAINER = (
    '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
    '<rootfile full-path="OEBPS/content.opf"/></rootfiles></container>'
)


def epub(pages: dict[str, str], order: Iterable[str] | None = None) -> bytes:
    items = "".join(
        f'<item id="{name}" href="{name}.xhtml" media-type="application/xhtml+xml"/>' for name in pages
    )
    spine = "".join(f'<itemref idref="{name}"/>' for name in (order or pages))
    package = (
        f'<package xmlns="http://www.idpf.org/2007/opf"><manifest>{items}</manifest>'
        f"<spine>{spine}</spine></package>"
    )
    return zipped(
        {
            "META-INF/container.xml": CONTAINER,
            "OEBPS/content.opf": package,
            **{f"OEBPS/{name}.xhtml": body for name, body in pages.items()},
        }
    )


def docx(body: str) -> bytes:
    space = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
    return zipped(
        {"word/document.xml": f"<w:document {space}><w:body>{body}</w:body></w:document>", "junk.txt": "x"}
    )
