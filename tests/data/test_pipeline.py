"""Phases over part files: the same bytes whatever the parts, the workers and the kills."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from matura.core.corpus_settings import Engine, Mixture
from matura.core.errors import MaturaError
from matura.core.records import Document, read_documents, write_documents
from matura.data import parts, pipeline, selection, tally, work
from matura.data.parts import PartFiles, Row, Sampler
from matura.data.pipeline import Workshop
from matura.data.steps import Dropped, Outcome

SHORT = ("matura.data.selection:short", {"least": 10})


def documents(count: int, origin: str = "") -> list[Document]:
    meta = {"origin": origin} if origin else {}
    return [
        Document(f"id{i:03d}", f"text number {i} " * (i % 7), f"file{i % 5}.md", meta) for i in range(count)
    ]


def files(folder: Path, rows: list[Document], size: int) -> list[dict[str, Any]]:
    folder.mkdir(parents=True)
    found = []
    for start in range(0, len(rows), size):
        path = folder / f"{start}.parquet"
        write_documents(path, rows[start : start + size])
        found.append({"input": str(path)})
    return found


def make(folder: Path, size: int, rows: list[Document] | None = None) -> tuple[bytes, list[Dropped], Any]:
    shop = Workshop(folder / "work", Engine(workers=1))
    rows = documents(60) if rows is None else rows
    phase = shop.run("clean", files(folder / "in", rows, size), [SHORT], index=True)
    chosen = pipeline.choose(phase.rows(), heldout=5, seed=0, mixture=Mixture(), weights={"": 1.0})
    pipeline.write(shop, phase, chosen, folder)
    steps = [{key: value for key, value in step.items() if key != "seconds"} for step in phase.steps]
    both = b"".join((folder / f"{side}.parquet").read_bytes() for side in ("train", "heldout"))
    return both, phase.dropped(), steps


def test_another_cut_and_another_order_give_the_same_bytes_and_the_same_numbers(tmp_path: Path) -> None:
    one = make(tmp_path / "a", 60)
    assert make(tmp_path / "b", 7) == one
    assert make(tmp_path / "c", 13, documents(60)[::-1]) == one
    assert [row.reason for row in one[1]] == ["too short"] * 9


def test_many_parts_are_merged_in_rounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = make(tmp_path / "a", 60)
    monkeypatch.setattr(parts, "OPEN_FILES", 3)
    assert make(tmp_path / "b", 2) == one


def test_a_finished_part_is_not_done_again_and_an_unfinished_one_is(tmp_path: Path) -> None:
    shop = Workshop(tmp_path / "work", Engine(workers=1))
    inputs = files(tmp_path / "in", documents(30), 10)
    first = shop.run("clean", inputs, [SHORT])
    kept = [path.read_bytes() for path in first.documents]
    first.parts[1].path(".json").unlink()
    first.parts[1].path(".parquet").write_bytes(b"half")
    for entry in (0, 2):
        Path(inputs[entry]["input"]).unlink()  # a part that is done again would miss its input
    assert [path.read_bytes() for path in shop.run("clean", inputs, [SHORT]).documents] == kept


def test_a_file_that_was_written_whole_is_not_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Workshop(tmp_path / "work", Engine(workers=1))
    phase = shop.run("clean", files(tmp_path / "in", documents(30), 10), [SHORT], index=True)
    chosen = pipeline.choose(phase.rows(), heldout=5, seed=0, mixture=Mixture(), weights={"": 1.0})
    pipeline.write(shop, phase, chosen, tmp_path)
    (tmp_path / "heldout.parquet").write_bytes(b"half")
    written: list[str] = []
    real = pipeline._write

    def noted(target: Path, *rest: Any) -> None:
        written.append(target.name)
        real(target, *rest)

    monkeypatch.setattr(pipeline, "_write", noted)
    pipeline.write(shop, phase, chosen, tmp_path)
    assert written == ["heldout.parquet"]
    assert len(list(read_documents(tmp_path / "heldout.parquet"))) == 5


def test_an_id_that_comes_twice_is_written_once(tmp_path: Path) -> None:
    twice = documents(20) + documents(20)[5:9]
    assert make(tmp_path / "a", 6, twice)[0] == make(tmp_path / "b", 50, documents(20))[0]


def test_examples_are_bounded_masked_and_the_same_however_parts_are_cut(tmp_path: Path) -> None:
    dropped = [Dropped(f"{i}", "s", "gopher", "words", "", "") for i in range(1000)]
    whole, halves = Sampler(), Sampler()
    whole.add(dropped)
    for half in (dropped[500:], dropped[:500]):
        part = Sampler()
        part.add(half)
        halves.add(part.rows())
    assert whole.rows() == halves.rows()
    assert len(whole.rows()) == parts.SAMPLES
    secret = Dropped("1", "s", "gopher", "words", "", "ask jane@example.com today")
    (one,) = work.shown([secret])
    assert one.sample == "ask <EMAIL> today"


def test_a_name_that_is_no_unicode_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / "dropped.parquet"
    parts.write_dropped(path, [Dropped("", "bad\udcff.md", "read", "unreadable")])
    assert parts.read_dropped(path)[0].source == "bad?.md"


class TestTally:
    def test_sums_do_not_depend_on_the_parts(self) -> None:
        def noted(values: list[float]) -> list[tally.StepTally]:
            step = tally.empty("gopher")
            outcome = Outcome(documents(2), measures={"gopher.words": values})
            outcome.counts["EMAIL"] += 1
            tally.note(step, [10 + n for n in range(len(values))], outcome, 0.0)
            return [json.loads(json.dumps(step))]

        one, two = noted([0.005, 0.015, 3.5, math.nan]), noted([1e9, 0.015])
        (merged,) = tally.merge([one, two])
        assert [merged] == tally.merge([two, one])
        histogram = merged["measures"]["gopher.words"]
        assert len(histogram["edges"]) == len(histogram["counts"]) + 1
        assert (histogram["counts"][0], histogram["counts"][1], histogram["counts"][-1]) == (1, 2, 1)
        assert (histogram["bytes"][0], histogram["bytes"][1], histogram["bytes"][-1]) == (10, 22, 10)
        assert (merged["documents_in"], merged["counts"]) == (6, {"EMAIL": 2})

    def test_a_step_that_measures_too_few_documents_is_an_error(self) -> None:
        with pytest.raises(IndexError):
            tally.note(tally.empty("x"), [1, 2, 3], Outcome(measures={"m": [0.5, 0.5]}), 0.0)

    def test_a_measure_that_no_document_has_can_be_merged(self) -> None:
        step = tally.empty("x")
        tally.note(step, [5], Outcome(measures={"m": [math.nan]}), 0.0)
        (merged,) = tally.merge([[step]])
        assert (merged["measures"]["m"]["counts"], merged["measures"]["m"]["bytes"]) == ([0], [0])

    def test_bins_hold_what_lies_between_their_edges(self) -> None:
        assert list(tally.EDGES) == sorted(set(tally.EDGES))
        step = tally.empty("x")
        tally.note(step, [1, 1], Outcome(measures={"m": [3.5, 4.0]}), 0.0)
        (merged,) = tally.merge([[step]])
        histogram = merged["measures"]["m"]
        filled = [histogram["edges"][i : i + 2] for i, count in enumerate(histogram["counts"]) if count]
        assert filled == [[3.0, 4.0], [4.0, 5.0]]


class TestMixture:
    def rows(self, origin: str, count: int) -> list[Row]:
        return [
            Row(f"{origin}{i}", "s", origin, f"{origin}{i}", f"{origin}{i}", 100, 100) for i in range(count)
        ]

    def test_every_source_fills_its_share(self) -> None:
        rows = self.rows("a", 50) + self.rows("b", 50)
        out = selection.mixture(rows, {"a": 3.0, "b": 1.0}, 4000, "bytes", 0)
        assert [sum(row.origin == origin and row.id not in out for row in rows) for origin in "ab"] == [
            30,
            10,
        ]
        assert selection.mixture(rows[::-1], {"a": 3.0, "b": 1.0}, 4000, "bytes", 0) == out
        assert selection.mixture(rows, {"a": 3.0, "b": 1.0}, 4000, "bytes", 1) != out
        assert selection.mixture(rows, {"a": 3.0, "b": 1.0}, 1000, "tokens", 0) == out

    def test_a_small_source_gives_all_it_has_and_no_other_fills_up(self) -> None:
        rows = self.rows("a", 50) + self.rows("b", 2)
        out = selection.mixture(rows, {"a": 1.0, "b": 1.0}, 2000, "bytes", 0)
        assert [sum(row.origin == origin and row.id not in out for row in rows) for origin in "ab"] == [10, 2]

    def test_what_is_over_a_share_is_told(self) -> None:
        rows = self.rows("a", 20)
        chosen = pipeline.choose(
            rows, heldout=2, seed=0, mixture=Mixture(total=1000, unit="bytes"), weights={"a": 1}
        )
        step, dropped = pipeline.over_share(chosen)
        assert (len(chosen.train), len(chosen.heldout), len(chosen.over)) == (8, 2, 10)
        assert (step["documents_in"], step["documents_out"], step["dropped"]) == (
            20,
            10,
            {"over its share": 10},
        )
        assert {row.reason for row in dropped} == {"over its share"}


def test_too_few_documents_are_an_error() -> None:
    with pytest.raises(MaturaError, match="at least 3 are needed"):
        pipeline.choose([], heldout=1, seed=0, mixture=Mixture(), weights={"": 1.0})


def test_a_marker_that_a_kill_cut_short_is_no_marker(tmp_path: Path) -> None:
    part = PartFiles(tmp_path, 3)
    assert part.finished() is None
    part.path(".json").write_text('{"documents": 1')
    assert part.finished() is None
    part.finish({"documents": 1, "steps": []})
    assert part.finished() == {"documents": 1, "steps": []}


def test_what_has_no_licence_is_summed_beside_what_has() -> None:
    def row(license: str, language: str = "") -> Row:
        return Row("id", "a.txt", "web", "copy", "rank", 8, 8, language=language, license=license)

    both = pipeline.shares([row("MIT"), row(""), row("")])
    assert both["licenses"] == {
        "MIT": {"documents": 1, "bytes": 8, "tokens": 2},
        "": {"documents": 2, "bytes": 16, "tokens": 4},
    }
    assert both["languages"] == {}
    assert both["sources"] == {"web": {"documents": 3, "bytes": 24, "tokens": 6}}
