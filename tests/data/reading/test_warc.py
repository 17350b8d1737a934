import gzip
import zlib
from pathlib import Path

import pytest

from matura.core.corpus_settings import Limits
from matura.data.reading.warc import page_text
from tests.data.reading.made_inputs import answer, members, read_all, reasons, record, web_page


def some(count: int = 30) -> list[bytes]:
    records = [record("warcinfo", "", b"software: own")]
    for i in range(count):
        records.append(record("request", f"http://x/{i}", b"GET / HTTP/1.1\r\n\r\n"))
        records.append(record("response", f"http://x/{i}", answer(web_page(i))))
    return records


def test_only_pages_answered_with_200(tmp_path: Path) -> None:
    packed = answer(gzip.compress(web_page(7)), extra="Content-Encoding: gzip\r\n")
    (tmp_path / "a.warc.gz").write_bytes(
        members(
            [
                record("response", "http://x/ok", answer(web_page(1), "text/html; charset=utf-8")),
                record("response", "http://x/gone", answer(b"<p>gone</p>", status="404 Not Found")),
                record("response", "http://x/image", answer(b"\x89PNG", "image/png")),
                record("response", "http://x/plain", answer("grüße\n".encode(), "text/plain")),
                record("response", "http://x/xhtml", answer(web_page(2), "application/xhtml+xml")),
                record("response", "http://x/packed", packed),
                record("response", "http://x/empty", answer(b"<html></html>")),
                record("metadata", "http://x/ok", b"a: b"),
            ]
        )
    )
    documents, skipped = read_all(tmp_path)
    assert [d.meta["url"] for d in documents] == [f"http://x/{n}" for n in ("ok", "plain", "xhtml", "packed")]
    assert documents[0].meta["title"] == "Page 1"
    assert documents[0].meta["declared_language"] == "en"
    assert "quick brown fox" in documents[0].text
    assert "Menu" not in documents[0].text
    assert "var x" not in documents[0].text
    assert documents[1].text == "grüße"
    assert reasons(skipped) == {
        "a.warc.gz#http://x/gone": "http status",
        "a.warc.gz#http://x/image": "not a page",
        "a.warc.gz#http://x/empty": "no text",
    }


@pytest.mark.parametrize("packed", [True, False])
def test_the_cut_changes_nothing(tmp_path: Path, packed: bool) -> None:
    data = members(some()) if packed else b"".join(some())
    (tmp_path / ("a.warc.gz" if packed else "a.warc")).write_bytes(data)
    whole, _ = read_all(tmp_path)
    assert len(whole) == 30
    for part_bytes in (len(data) // 3, len(data), 5 * len(data) // 2, 700):
        assert read_all(tmp_path, part_bytes=part_bytes) == (whole, [])


def test_a_file_packed_as_a_whole_is_one_piece(tmp_path: Path) -> None:
    (tmp_path / "a.warc.gz").write_bytes(gzip.compress(b"".join(some())))
    documents, _ = read_all(tmp_path, part_bytes=400)
    assert len(documents) == 30


def test_texts_of_a_wet_file(tmp_path: Path) -> None:
    text = "Ein Text über Köln.\n".encode()
    (tmp_path / "a.warc.wet.gz").write_bytes(members([record("conversion", "http://x/1", text)]))
    ((document,), _) = read_all(tmp_path)
    assert (document.text, document.meta["url"]) == ("Ein Text über Köln.", "http://x/1")


@pytest.mark.parametrize("packed", [True, False])
def test_a_cut_archive_gives_what_came_before(tmp_path: Path, packed: bool) -> None:
    data = members(some(4)) if packed else b"".join(some(4))
    (tmp_path / ("a.warc.gz" if packed else "a.warc")).write_bytes(data[:-60])
    documents, skipped = read_all(tmp_path)
    assert [d.meta["url"] for d in documents] == [f"http://x/{i}" for i in range(3)]
    assert [item.reason for item in skipped] == ["truncated"]


def test_after_a_damaged_member_it_goes_on(tmp_path: Path) -> None:
    packed = [gzip.compress(one, mtime=0) for one in some(6)]
    hurt = bytearray(packed[6])
    hurt[60:80] = bytes(20)
    (tmp_path / "a.warc.gz").write_bytes(b"".join([*packed[:6], bytes(hurt), *packed[7:]]))
    documents, skipped = read_all(tmp_path)
    assert [d.meta["url"][-1] for d in documents] == ["0", "1", "3", "4", "5"]
    assert {item.reason for item in skipped} <= {"broken", "truncated"}
    assert skipped


def test_what_unpacks_to_too_much_is_passed_over(tmp_path: Path) -> None:
    bomb = answer(gzip.compress(b"a" * 5_000_000), extra="Content-Encoding: gzip\r\n")
    large = answer(web_page(1, "x" * 300_000))
    records = [record("response", "http://x/bomb", bomb), record("response", "http://x/large", large)]
    (tmp_path / "a.warc").write_bytes(
        b"".join([*records, record("response", "http://x/1", answer(web_page(1)))])
    )
    documents, skipped = read_all(tmp_path, limits=Limits(file_bytes=200_000))
    assert len(documents) == 1
    assert [item.reason for item in skipped] == ["too large", "too large"]


def test_encodings_are_told_or_found() -> None:
    text = "Größere Häuser stehen südlich der Brücke, und die Straße führt nach Köln. " * 5
    page = f"<html><body><main><p>{text}</p></main></body></html>"
    told, _ = page_text(page.encode("cp1252"), "windows-1252")
    found, _ = page_text(page.encode("cp1252"), None)
    declared = page.replace("<body>", "<head><meta charset='iso-8859-15'></head><body>")
    own, _ = page_text(declared.encode("iso-8859-15"), None)
    assert told == found == own == text.strip()
    _, meta = page_text(page.encode("cp1252"), "utf-8")
    assert int(meta["replaced"]) > 10


def test_one_answer_that_lies_costs_no_other(tmp_path: Path) -> None:
    html = "text/html"
    pages = {
        "ok1": answer(web_page(1)),
        "charset": answer(web_page(2), "text/html; charset=foo-bar"),
        "broken": answer(b"\x1f\x8b\x08" + b"\xff" * 50, html, extra="Content-Encoding: gzip\r\n"),
        "deep": answer(b"<div>" * 20_000 + b"x"),
        "deflate": answer(zlib.compress(web_page(3))[2:-4], html, extra="Content-Encoding: deflate\r\n"),
        "none": b"no answer at all",
        "last": answer(web_page(4)),
    }
    records = [record("response", f"http://x/{name}", body) for name, body in pages.items()]
    for name, data in (("a.warc", b"".join(records)), ("a.warc.gz", members(records))):
        folder = tmp_path / name.replace(".", "-")
        folder.mkdir()
        (folder / name).write_bytes(data)
        documents, skipped = read_all(folder)
        assert [d.meta["url"][9:] for d in documents] == ["ok1", "charset", "deflate", "last"]
        assert reasons(skipped) == {f"{name}#http://x/{n}": "broken" for n in ("broken", "deep", "none")}


@pytest.mark.parametrize("claimed", [99_999_999_999, 10, 100_000])
def test_after_a_wrong_length_it_goes_on_at_the_next_record(tmp_path: Path, claimed: int) -> None:
    records = some(6)
    head, _, rest = records[4].partition(b"Content-Length: ")
    records[4] = head + b"Content-Length: %d\r\n" % claimed + rest.partition(b"\r\n")[2]
    (tmp_path / "a.warc").write_bytes(b"".join(records))
    documents, skipped = read_all(tmp_path)
    assert [d.meta["url"][-1] for d in documents] == ["0", "2", "3", "4", "5"]
    assert "broken" in {item.reason for item in skipped}
