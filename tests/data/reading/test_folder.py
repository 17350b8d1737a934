import bz2
import gzip
import hashlib
import json
import lzma
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pytest

from matura.core.corpus_settings import Limits
from matura.core.errors import MaturaError
from matura.data import reading
from matura.data.formats import worker
from matura.data.reading import folder
from tests.data.reading.made_inputs import PROSE, docx, epub, read_all, reasons, source, split, zipped

PAGE = f"<html><body><p>{PROSE}</p></body></html>"


def test_documents_of_every_kind(tmp_path: Path) -> None:
    prose = {"cell_type": "markdown", "source": ["# A\n", "note"]}
    code = {"cell_type": "code", "source": "print(1)", "outputs": [{"text": "SECRET"}]}
    (tmp_path / "a.md").write_text(PROSE)
    (tmp_path / "b.html").write_text(PAGE)
    (tmp_path / "c.epub").write_bytes(epub({"two": "<p>second</p>", "one": "<p>first</p>"}, ["one", "two"]))
    paragraph = '<w:p><w:pPr><w:pStyle w:val="Heading2"/></w:pPr><w:r><w:t>Top</w:t></w:r></w:p>'
    gone = "<w:del><w:r><w:delText>no</w:delText></w:r></w:del>"
    paragraph += f"<w:p><w:r><w:t>Hel</w:t></w:r><w:r><w:t>lo</w:t></w:r>{gone}</w:p>"
    cells = "".join(f"<w:tc><w:p><w:r><w:t>{cell}</w:t></w:r></w:p></w:tc>" for cell in "xy")
    (tmp_path / "d.docx").write_bytes(docx(f"{paragraph}<w:tbl><w:tr>{cells}</w:tr></w:tbl>"))
    (tmp_path / "e.ipynb").write_text(json.dumps({"cells": [prose, code]}))
    (tmp_path / "f.png").write_bytes(b"x")
    (tmp_path / "g.txt").write_text("")
    documents, skipped = read_all(tmp_path)
    texts = {document.source: document.text for document in documents}
    assert texts == {
        "a.md": PROSE.strip(),
        "b.html": PROSE.strip(),
        "c.epub": "first\n\nsecond",
        "d.docx": "## Top\n\nHello\n\nx\ty",
        "e.ipynb": "# A\nnote\n\n```python\nprint(1)\n```",
    }
    assert reasons(skipped) == {"f.png": "unknown type", "g.txt": "empty"}
    assert documents[0].meta == {"origin": "here", "kind": "md", "encoding": "utf-8"}


@pytest.mark.parametrize("suffix", ["gz", "bz2", "xz", "zst"])
def test_packed_documents_and_cut_ones(tmp_path: Path, suffix: str) -> None:
    text = "".join(f"line {i} {hashlib.sha256(str(i).encode()).hexdigest()}\n" for i in range(400)).encode()
    packers: dict[str, Callable[[bytes], bytes]] = {
        "gz": gzip.compress,
        "bz2": bz2.compress,
        "xz": lzma.compress,
        "zst": lambda data: pyarrow.compress(data, codec="zstd", asbytes=True),
    }
    pack = packers[suffix]
    half = len(text) // 2
    packed = pack(text[:half]) + pack(text[half:])
    (tmp_path / f"a.txt.{suffix}").write_bytes(packed)
    (tmp_path / f"b.txt.{suffix}").write_bytes(packed[:-30])
    (tmp_path / f"c.txt.{suffix}").write_bytes(b"no packed data at all, but enough of it")
    documents, skipped = read_all(tmp_path)
    assert [document.text for document in documents] == [text.decode().strip()]
    assert reasons(skipped) == {f"b.txt.{suffix}": "truncated", f"c.txt.{suffix}": "broken"}


def test_bombs_are_found_before_they_unfold(tmp_path: Path) -> None:
    zeros = b"\0" * (8 << 20)
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(zeros))
    (tmp_path / "b.txt.bz2").write_bytes(bz2.compress(zeros))
    (tmp_path / "c.epub").write_bytes(zipped({"META-INF/container.xml": zeros}))
    (tmp_path / "d.docx").write_bytes(zipped({f"{i}.xml": "" for i in range(20_001)}))
    inner = zipped({"word/document.xml": zeros})
    (tmp_path / "e.docx").write_bytes(zipped({"nested.zip": inner, "word/document.xml": "<a/>"}))
    documents, skipped = read_all(tmp_path)
    assert not documents
    assert reasons(skipped) == {
        "a.txt.gz": "expands too much",
        "b.txt.bz2": "expands too much",
        "c.epub": "expands too much",
        "d.docx": "expands too much",
        "e.docx": "no text",
    }


def test_entities_that_expand_without_end_are_refused(tmp_path: Path) -> None:
    laughs = '<!DOCTYPE a [<!ENTITY b "ha">]><a>&b;</a>'
    (tmp_path / "a.docx").write_bytes(zipped({"word/document.xml": laughs}))
    _, skipped = read_all(tmp_path)
    assert [(s.reason, "entities" in s.detail) for s in skipped] == [("broken", True)]


def test_text_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("Grüße aus Köln und München. ".encode("cp1252") * 20)
    (tmp_path / "b.txt").write_bytes(b"\x00\x01" * 100)
    (tmp_path / "c.ipynb").write_text('{"no": "cells"}')
    (tmp_path / "d.pdf").write_bytes(b"%PDF-1.4 nothing follows")
    documents, skipped = read_all(tmp_path)
    assert documents[0].text.startswith("Grüße aus Köln")
    assert reasons(skipped) == {"b.txt": "binary", "c.ipynb": "broken", "d.pdf": "broken"}


def test_a_parser_that_hangs_is_ended_and_the_next_file_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "parser.py"
    script.write_text(
        "import sys, time\nfrom matura.data import extraction\nfrom matura.data.formats import worker\n"
        "extraction.pdf_text = lambda data: time.sleep(60) if b'hang' in data else ('fine', ())\n"
        "worker.serve(sys.stdin.buffer, sys.stdout.buffer)\n"
    )

    def parser(seconds: float, bounds: dict[str, object]) -> worker.Parser:
        return worker.Parser(seconds, bounds, (sys.executable, str(script)))

    monkeypatch.setenv("PYTHONPATH", str(Path(worker.__file__).parents[3]))
    monkeypatch.setattr(folder, "Parser", parser)
    files = tmp_path / "files"
    files.mkdir()
    (files / "a.pdf").write_bytes(b"hang")
    (files / "b.pdf").write_bytes(b"good")
    documents, skipped = read_all(files, limits=Limits(seconds=1.0))
    assert [document.text for document in documents] == ["fine"]
    assert reasons(skipped) == {"a.pdf": "timed out"}


def test_a_parser_that_dies_costs_one_file(tmp_path: Path) -> None:
    parser = worker.Parser(5.0, {}, (sys.executable, "-c", "raise SystemExit(1)"))
    with pytest.raises(MaturaError, match="broken: the pdf parser died"):
        parser.extract(b"x" * 500_000, "pdf")
    parser.close()


def test_unreadable_files_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.md").write_text(PROSE)
    (tmp_path / "b.md").write_text(PROSE)
    tasks = reading.plan({"x": source(tmp_path)}, Limits(), 1 << 20)
    (tmp_path / "a.md").unlink()
    documents, skipped = split(item for task in tasks for item in reading.read(task))
    assert [document.source for document in documents] == ["b.md"]
    assert reasons(skipped) == {"a.md": "unreadable"}


def test_large_files_and_large_documents_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x" * 3000)
    (tmp_path / "b.txt").write_text("y" * 1500)
    (tmp_path / "c.txt").write_text("z" * 900)
    (tmp_path / "d.txt.gz").write_bytes(gzip.compress(os.urandom(1500).hex().encode()))
    documents, skipped = read_all(tmp_path, limits=Limits(file_bytes=2000, document_bytes=1000))
    assert [document.source for document in documents] == ["c.txt"]
    assert reasons(skipped) == dict.fromkeys(("a.txt", "b.txt", "d.txt.gz"), "too large")


def test_strict_names_the_broken_file(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"not damage")
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(PROSE.encode())[:-9])
    with pytest.raises(MaturaError, match=r"b\.txt\.gz.*truncated.*strict"):
        read_all(tmp_path, limits=Limits(strict=True))


def test_a_file_that_changed_since_it_was_hashed_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text(PROSE)
    told = {"a.md": {"sha256": hashlib.sha256(PROSE.encode()).hexdigest()}}
    tasks = reading.plan({"x": {**source(tmp_path), "files": told}}, Limits(), 1 << 20)
    assert [document.source for document in split(reading.read(tasks[0]))[0]] == ["a.md"]
    (tmp_path / "a.md").write_text("other")
    assert reasons(split(reading.read(tasks[0]))[1]) == {"a.md": "changed"}
    strict = reading.plan({"x": {**source(tmp_path), "files": told}}, Limits(strict=True), 1 << 20)
    with pytest.raises(MaturaError, match=r"a\.md: changed.*strict"):
        list(reading.read(strict[0]))


def test_tiny_files_are_grouped_in_an_order_of_names(tmp_path: Path) -> None:
    for i in range(40):
        (tmp_path / f"{i:02}.txt").write_text(f"{i} {PROSE}")
    tasks = reading.plan({"x": source(tmp_path)}, Limits(), 1000)
    names = [[piece["name"] for piece in task["pieces"]] for task in tasks]
    assert [name for group in names for name in group] == [f"{i:02}.txt" for i in range(40)]
    assert 3 < len(tasks) < 10
    one, _ = read_all(tmp_path)
    many, _ = read_all(tmp_path, part_bytes=1000)
    assert one == many
    assert len({document.id for document in one}) == 40


def test_ids_tell_sources_places_and_texts_apart() -> None:
    ids = {
        reading.identity(*parts)
        for parts in [("a", "b", "c"), ("a", "c", "b"), ("b", "b", "c"), ("", "b", "c")]
    }
    assert len(ids) == 4
    assert all(len(one) == 20 for one in ids)
