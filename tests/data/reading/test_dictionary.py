"""Dictionaries of dictd: entries by their index, damaged and hostile ones bounded."""

import gzip
from pathlib import Path

import pytest

from matura.core.corpus_settings import Limits
from matura.data.reading import dictionary
from tests.data.reading.made_inputs import read_all, reasons

DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
ENTRIES = {
    "apple": 'Apple \\Ap"ple\\, n.\n   A fruit.\n',
    "ärger": "Ärger, m.\n   Trouble.\n",
    "zoo": "Zoo, n.\n   A park.\n",
}


def number(value: int) -> str:
    digits = ""
    while value or not digits:
        value, digit = divmod(value, 64)
        digits = DIGITS[digit] + digits
    return digits


def dictzip(data: bytes) -> bytes:
    """gzip with an extra field in its head, as dictzip writes."""
    packed = gzip.compress(data, mtime=0)
    extra = b"RA\x06\x00\x01\x00\x00\xe0\x01\x00"
    return packed[:3] + b"\x04" + packed[4:10] + len(extra).to_bytes(2, "little") + extra + packed[10:]


def write(folder: Path, name: str, more: str = "", cut: int | None = None, pack: bool = True) -> None:
    head = b"about the dictionary\n"
    text, index = head, f"00-database-info\tA\t{number(len(head))}\n"
    for word, entry in ENTRIES.items():
        index = (
            f"{word}\t{number(len(text))}\t{number(len(entry.encode()))}\n{index}"  # in no order of places
        )
        text += entry.encode()
    (folder / f"{name}.index").write_text(index + more)
    data = text[:cut]
    (folder / f"{name}.dict{'.dz' if pack else ''}").write_bytes(dictzip(data) if pack else data)


@pytest.mark.parametrize("pack", [True, False])
def test_each_entry_is_a_document_and_the_index_is_none(tmp_path: Path, pack: bool) -> None:
    write(tmp_path, "small", more="fruit\tV\th\nfruit\tV\th\n", pack=pack)
    write(tmp_path, "small", more=f"apples\t{number(21)}\t{number(len(ENTRIES['apple']))}\n", pack=pack)
    documents, skipped = read_all(tmp_path)
    assert [one.text for one in documents] == [one.strip() for one in ENTRIES.values()]
    assert [one.meta["title"] for one in documents] == list(ENTRIES)
    assert documents[0].meta["kind"] == "dictionary"
    assert documents[0].source == f"small.dict{'.dz' if pack else ''}@21"
    assert skipped == []


def test_an_index_alone_is_an_unknown_file_and_a_text_alone_is_broken(tmp_path: Path) -> None:
    (tmp_path / "book.index").write_text("one\tA\tB\n")
    (tmp_path / "lone.dict.dz").write_bytes(dictzip(b"text"))
    documents, skipped = read_all(tmp_path)
    assert not documents
    assert reasons(skipped) == {"book.index": "unknown type", "lone.dict.dz": "broken"}


def test_wrong_lines_and_cut_texts_cost_only_themselves(tmp_path: Path) -> None:
    long = "x" * 10_000 + "\tA\tB\n"
    write(tmp_path, "small", more=f"no numbers\nbad\t?\tB\nbad\tA\tAAAAAAAAAAAA\n{long}", cut=70)
    documents, skipped = read_all(tmp_path)
    assert [one.meta["title"] for one in documents] == ["apple"]
    assert [one.reason for one in skipped] == ["broken", "truncated"]
    assert "4 lines are no entries, such as line 5" in skipped[0].detail
    assert "'ärger'" in skipped[1].detail


def test_large_and_overlapping_entries_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.dict").write_bytes(b"word " * 10_000)
    (tmp_path / "a.index").write_text("".join(f"w{n}\t{number(n)}\t{number(40_000)}\n" for n in range(100)))
    documents, skipped = read_all(tmp_path, limits=Limits(document_bytes=30_000))
    assert not documents
    assert {one.reason for one in skipped} == {"too large"}
    monkeypatch.setattr(dictionary, "FLOOR", 0)
    documents, skipped = read_all(tmp_path)
    assert len(documents) == 4 * 50_000 // 40_000
    assert [one.reason for one in skipped] == ["expands too much"]
