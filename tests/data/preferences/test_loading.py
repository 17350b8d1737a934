"""Artifacts and files to rankings on two sides, nothing lost in silence."""

import gzip
import json
from pathlib import Path

import pytest

from matura.core import artifact
from matura.core.artifact import Artifact
from matura.core.errors import ConfigError, FormatError, MaturaError
from matura.core.preference_settings import PreferenceData
from matura.core.preferences import HELDOUT, SAMPLES, TRAIN, Answer, Ranking, write_rankings
from matura.core.raw import raw_input
from matura.data.preferences.forms import DIFFER, EQUAL
from matura.data.preferences.loading import UNJUDGED, load, load_files
from tests.data.preferences.rows import ALL, loaded, said, write


def row(prompt: str, chosen: str = "a", rejected: str = "b") -> dict[str, str]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def ranking(name: str, *answers: Answer) -> Ranking:
    return Ranking(name, (said("user", name),), answers or (Answer("a", 1), Answer("b", 2)))


def made(folder: Path, kind: str, **files: list[Ranking]) -> Artifact:
    draft = artifact.begin(folder, kind=kind, stage="rank", version=1, config={}, inputs={})
    for name, rows in files.items():
        write_rankings(draft.path / f"{name}.jsonl", rows)
    return draft.commit({})


def asked(rows: tuple[Ranking, ...]) -> list[str]:
    return [one.messages[0]["content"] for one in rows]


def test_rows_keep_their_order_and_place_and_what_says_nothing_is_counted(tmp_path: Path) -> None:
    differ = {side: [said("user", side), said("assistant", "x")] for side in ("chosen", "rejected")}
    found = loaded(tmp_path, row("p"), row("q", "a", "a"), differ, row("r"))
    assert [one.id for one in found.train] == ["mine.jsonl:1", "mine.jsonl:4"]
    assert found.found == {
        "rankings": 2, "heldout_rankings": 0, "bad_rows": 0, "dropped": {DIFFER: 1, EQUAL: 1},
    }  # fmt: skip
    with pytest.raises(FormatError, match="no rows to learn from; 1 were dropped: chosen equals rejected"):
        loaded(tmp_path, row("q", "a", "a"))


def test_bad_rows_stop_with_file_and_row_or_are_counted(tmp_path: Path) -> None:
    rows = [row("p"), row(""), {"prompt": "x", "chosen": "y"}, 3, row("q"), row(" ")]
    with pytest.raises(FormatError) as error:
        loaded(tmp_path, *rows)
    told = str(error.value)
    assert "4 of 6 rows are no preferences" in told
    assert "mine.jsonl:2: prompt: is empty (and 1 rows more)" in told
    assert "mine.jsonl:3: has no rejected" in told
    assert "data.bad_rows=drop" in told
    found = loaded(tmp_path, *rows, settings=PreferenceData(bad_rows="drop"))
    assert (asked(found.train), len(found.bad), found.found["bad_rows"]) == (["p", "q"], 4, 4)
    (tmp_path / "empty").mkdir()
    with pytest.raises(MaturaError, match="holds no preferences: preferences are read from"):
        load_files(tmp_path / "empty", ALL)


def test_files_of_every_kind_and_files_that_are_held_out(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    write(tmp_path / "train-0.jsonl", [row(f"a{n}") for n in range(6)])
    (tmp_path / "train-1.jsonl.gz").write_bytes(gzip.compress(json.dumps(row("b")).encode()))
    (tmp_path / "train-2.json").write_text(json.dumps([row("c")]))
    pa.parquet.write_table(pa.Table.from_pylist([row("d"), row("e")]), tmp_path / "train-3.parquet")
    write(tmp_path / "test" / "one.jsonl", [row("f")])
    found = load_files(tmp_path, PreferenceData())
    assert asked(found.train) == [*(f"a{n}" for n in range(6)), "b", "c", "d", "e"]
    assert asked(found.heldout) == ["f"]
    assert set(found.forms.values()) == {"pairs"}
    alone = load(raw_input(tmp_path / "test" / "one.jsonl"), PreferenceData())
    assert asked(alone.train) == ["f"]


def test_columns_and_facts_by_name(tmp_path: Path) -> None:
    rows = [
        {"frage": f"q{n}", "gut": "a", "schlecht": "b", "level": n, "tests": "assert f()"} for n in range(2)
    ]
    names = {"prompt": "frage", "chosen": "gut", "rejected": "schlecht"}
    found = loaded(tmp_path, *rows, settings=PreferenceData(columns=names, facts=("level", "tests")))
    assert [one.facts for one in found.train] == [{"level": str(n), "tests": "assert f()"} for n in range(2)]
    with pytest.raises(FormatError, match=r"data\.facts: there is no column 'levels'"):
        loaded(tmp_path, *rows, settings=PreferenceData(columns=names, facts=("levels",)))
    with pytest.raises(FormatError, match=r"nothing reads a column 'promt'; did you mean 'prompt'"):
        loaded(tmp_path, *rows, settings=PreferenceData(columns={"promt": "frage"}))
    with pytest.raises(FormatError, match=r"mine\.jsonl:1: the columns .* fit none of the known forms"):
        loaded(tmp_path, *rows)
    with pytest.raises(ConfigError, match="prompts alone"):
        load(raw_input(tmp_path / "mine.jsonl"), PreferenceData(form="prompts"))


def test_artifacts_of_preferences_have_their_sides(tmp_path: Path) -> None:
    given = made(
        tmp_path / "p", "preferences", train=[ranking("a"), ranking("x", Answer("a"))], heldout=[ranking("b")]
    )
    assert {TRAIN, HELDOUT} == set(given.record["files"])
    found = load(given, PreferenceData())
    assert (asked(found.train), asked(found.heldout)) == (["a"], ["b"])
    assert found.found["dropped"] == {UNJUDGED: 1}
    for name, value in (("form", "hh"), ("heldout", 3), ("bad_rows", "drop"), ("facts", ("a",))):
        with pytest.raises(ConfigError, match=rf"data\.{name} is for"):
            load(given, PreferenceData.model_validate({name: value}))


def test_samples_that_somebody_judged_keep_their_sides(tmp_path: Path) -> None:
    rows = [ranking(f"q{n}", Answer("a", score=1.0), Answer("b", score=0.0)) for n in range(9)]
    given = made(tmp_path / "s", "samples", samples=rows[:6], heldout=rows[6:])
    assert SAMPLES in given.record["files"]
    found = load(given, PreferenceData())
    assert (len(found.train), len(found.heldout)) == (6, 3)
    plain = made(tmp_path / "n", "samples", samples=[ranking("q", Answer("a"), Answer("b"))], heldout=[])
    with pytest.raises(FormatError, match="nothing says which answer is better"):
        load(plain, PreferenceData())
