"""Repeated spans: the first stays, wherever it is; everything else of the texts stays as it was."""

from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from matura.core.corpus_settings import Substring
from matura.core.records import read_documents
from matura.data.dedup import cut_repeats
from matura.data.dedup.shingles import runs, word_hashes
from matura.data.dedup.substring import winnow
from tests.data.dedup.making import HERE, text, write

SETTINGS = Substring(use="on", words=20)


def cut(
    tmp_path: Path, texts: dict[str, str], parts: int = 1, **more: Any
) -> tuple[dict[str, str], list[Any]]:
    name = f"{len(list(tmp_path.iterdir()))}"
    written = write(tmp_path / f"{name}-in", texts, parts, backwards=more.pop("backwards", False))
    results = cut_repeats(
        written, tmp_path / f"{name}-out", SETTINGS, folder=tmp_path / f"{name}-work", engine=HERE, **more
    )
    left = {
        document.id: document.text
        for path in written
        for document in read_documents(tmp_path / f"{name}-out" / path.name)
    }
    return left, results


def test_a_span_of_another_document_is_cut_from_the_later_one(tmp_path: Path) -> None:
    shared = text(1, 25)
    texts = {
        "b": f"Before it. {shared.upper()}, and what follows.",
        "a": f"The first\n{shared}\nstays.",
        "c": "nothing of the kind",
    }
    left, (result,) = cut(tmp_path, texts)
    assert left == {"a": texts["a"], "b": "Before it. and what follows.", "c": texts["c"]}
    assert (result["documents"], result["kept"], result["cut"], result["spans"]) == (3, 3, 1, 1)
    assert result["characters"] == len(shared) + 2
    (span,) = pyarrow.parquet.read_table(tmp_path / "0-out/0.spans.parquet").to_pylist()
    assert texts["b"][span["start"] : span["end"]] == shared.upper() + ", "


def test_spans_shorter_than_the_limit_stay(tmp_path: Path) -> None:
    shared = text(1, 19)
    texts = {"a": f"one {shared} two", "b": f"three {shared} four"}
    left, _ = cut(tmp_path, texts)
    assert left == texts
    again = {name: written.replace(shared, text(1, 20)) for name, written in texts.items()}
    left, _ = cut(tmp_path, again)
    assert left == {"a": again["a"], "b": "three four"}


@pytest.mark.parametrize("offset", range(0, 40, 7))
def test_every_place_of_a_span_is_found(tmp_path: Path, offset: int) -> None:
    shared = text(3, 20)
    texts = {"a": f"{text(10, 33)} {shared}", "b": f"{text(11, offset)} {shared} {text(12, 9)}".strip()}
    left, _ = cut(tmp_path, texts)
    assert left["b"] == f"{text(11, offset)} {text(12, 9)}".strip()


def test_every_window_of_a_text_has_a_pick() -> None:
    texts = [text(seed, count).encode().split() for seed, count in enumerate((5, 20, 21, 90, 0, 60))]
    hashes, counts = word_hashes(texts)
    places, picks = winnow(hashes, counts, 20)
    assert picks.tolist() == runs(hashes, 10)[places].tolist()
    assert len(places) < len(hashes) // 3
    start = 0
    for count in counts.tolist():
        inside = places[(places >= start) & (places <= start + count - 10)]
        assert len(inside) == 0 or count >= 20
        for window in range(start, start + count - 19):
            assert ((inside >= window) & (inside <= window + 10)).any()
        start += count


def test_repeats_within_a_document(tmp_path: Path) -> None:
    shared = text(2, 30)
    left, _ = cut(tmp_path, {"a": f"start {shared} middle {shared} end"})
    assert left == {"a": f"start {shared} middle end"}


def test_a_period_keeps_its_first_run_whole(tmp_path: Path) -> None:
    left, _ = cut(tmp_path, {"a": "never more " * 200})
    assert left["a"].split()[:20] == ["never", "more"] * 10
    assert 20 <= len(left["a"].split()) <= 22


def test_documents_with_too_little_left_are_dropped(tmp_path: Path) -> None:
    shared = text(1, 40)
    left, (result,) = cut(tmp_path, {"a": shared, "b": shared, "c": f"{shared} tail"}, min_characters=10)
    assert left == {"a": shared}
    assert [(row["id"], row["step"], row["reason"]) for row in result["dropped"]] == [
        ("b", "substring", "repeated"),
        ("c", "substring", "repeated"),
    ]


def test_parts_and_order_change_nothing(tmp_path: Path) -> None:
    texts = {f"{n:02d}": f"{text(n, 10)} {text(100 + n % 4, 30)} {text(50 + n, 10)} Ü{n}" for n in range(12)}
    one, _ = cut(tmp_path, texts)
    three, _ = cut(tmp_path, texts, 3, backwards=True)
    assert one == three
    assert sum(one[name] == texts[name] for name in texts) == 4


def test_other_scripts(tmp_path: Path) -> None:
    shared = "春眠暁を覚えず処処啼鳥を聞く夜来風雨の声花落つること知る多少"
    left, _ = cut(tmp_path, {"a": f"İ {shared}。", "b": f"ﬁn {shared}。後"})
    assert left == {"a": f"İ {shared}。", "b": "ﬁn 後"}


def test_what_is_finished_is_read_again(tmp_path: Path) -> None:
    paths = write(tmp_path / "in", {"a": text(1, 30), "b": text(1, 30)})
    folders: dict[str, Any] = {"folder": tmp_path / "work", "engine": HERE}
    first = cut_repeats(paths, tmp_path / "out", SETTINGS, **folders)
    before = (tmp_path / "out/0.parquet").stat().st_mtime_ns
    assert cut_repeats(paths, tmp_path / "out", SETTINGS, **folders) == first
    assert (tmp_path / "out/0.parquet").stat().st_mtime_ns == before


def test_texts_too_short_for_a_run(tmp_path: Path) -> None:
    left, (result,) = cut(tmp_path, {"a": "", "b": "short", "c": text(1, 19)})
    assert (len(left), result["cut"]) == (3, 0)
