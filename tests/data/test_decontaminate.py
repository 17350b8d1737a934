import gzip
import json
import random
import time
import unicodedata
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from matura.core.errors import ConfigError, FormatError
from matura.core.records import Document
from matura.data import decontaminate
from matura.data.decontaminate import words
from matura.data.problems import read_problems
from matura.data.steps import Outcome

LONG = (
    "Marta’s bakery sold 120 loaves on Monday, twice as many on Tuesday, and a third of Monday's on Wednesday. "
    "How many loaves did the bakery sell in these three days?"
)
SHORT = "Why do cats, unlike dogs, land on their feet?"
TINY = "What is the capital of France?"
PROSE = "The river rose in the night, and by the morning nobody could say where the road had been before. "


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    rows = [{"question": LONG, "answer": "400"}, {"question": SHORT, "choices": {"text": [TINY, "No"]}}]
    path = tmp_path / "exam.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def apply(problems: Path, *texts: str, **settings: object) -> Outcome:
    step = decontaminate.make(problems=str(problems), **settings)
    return step([Document(f"d{i}", text, "s") for i, text in enumerate(texts)])


@pytest.mark.parametrize(
    "leak",
    [
        LONG,
        LONG.upper(),
        "\n".join(LONG.split()),
        LONG.replace(",", "").replace("’", "'"),
        unicodedata.normalize("NFKD", LONG),
        " ".join(LONG.split()[4:17]) + " and then",
        SHORT,
        SHORT.upper().replace(" ", "  "),
    ],
)
def test_items_are_found_however_they_are_written(problems: Path, leak: str) -> None:
    outcome = apply(problems, PROSE, PROSE + leak + " " + PROSE)
    assert [one.id for one in outcome.kept] == ["d0"]
    assert [(one.id, one.step, one.reason) for one in outcome.dropped] == [
        ("d1", "decontaminate", "test item")
    ]
    assert outcome.counts == {"exam.jsonl": 1}


@pytest.mark.parametrize(
    "text",
    [
        PROSE * 20,
        TINY,
        " ".join(words(LONG)[:12]),
        " ".join(words(SHORT)[:-1]),
        " ".join(sorted(words(LONG))),
        " ".join([*words(LONG)[:7], "never", *words(LONG)[7:14]]),
        "",
    ],
    ids=["other", "too short", "12 words", "part of a short one", "other order", "one word more", "empty"],
)
def test_less_than_a_run_is_no_leak(problems: Path, text: str) -> None:
    assert apply(problems, text).kept[0].text == text


def test_a_run_does_not_go_on_into_the_next_document(problems: Path) -> None:
    found = words(LONG)
    assert len(apply(problems, " ".join(found[:8]), " ".join(found[8:16])).kept) == 2


def test_the_drop_tells_file_item_and_run(problems: Path) -> None:
    (one,) = apply(problems, PROSE + SHORT).dropped
    assert one.detail == 'exam.jsonl line 2: "Why do cats, unlike dogs, land on their feet" (9 words)'


def test_the_same_as_a_plain_search(problems: Path) -> None:
    draw = random.Random(0)
    item = words(LONG)
    runs = {tuple(item[i : i + 13]) for i in range(len(item) - 12)}
    texts, expected = [], []
    for _ in range(200):
        start, length = draw.randrange(len(item)), draw.randrange(5, 25)
        text = [*draw.choices(item, k=9), *item[start : start + length], *draw.choices(item, k=9)]
        texts.append(" ".join(text))
        expected.append(any(tuple(text[i : i + 13]) in runs for i in range(len(text) - 12)))
    kept = {one.id for one in apply(problems, *texts).kept}
    assert [f"d{i}" not in kept for i in range(200)] == expected
    assert 20 < sum(expected) < 180


def test_cutting_takes_200_characters_around_and_short_pieces(problems: Path) -> None:
    before, after = "a" * 250 + " " + "b" * 210, "c" * 230 + " " + "d" * 300
    outcome = apply(problems, f"{before} {LONG} {after}", LONG + PROSE, action="cut")
    assert outcome.kept[0].text.split("\n\n")[0] == (before + " ")[:-200].strip()
    assert outcome.kept[0].text.endswith("d" * 300)
    assert SHORT not in outcome.kept[0].text
    assert "bakery" not in outcome.kept[0].text
    assert [(one.id, one.reason) for one in outcome.dropped] == [("d1", "little but test items")]


def test_cutting_text_with_letters_beyond_ascii(problems: Path) -> None:
    text = "é" * 500 + " İstanbul ﬁne " + LONG + " " + "ü" * 500
    (one,) = apply(problems, text, action="cut").kept
    assert set(one.text) <= set("éü \n")
    assert one.text.count("ü") == pytest.approx(300, abs=3)


def test_a_document_of_many_leaks_is_dropped(problems: Path) -> None:
    outcome = apply(problems, (PROSE * 9 + SHORT) * 12, action="cut")
    assert [one.reason for one in outcome.dropped] == ["too many test items"]


def test_words_of_scripts_without_spaces_are_characters(tmp_path: Path) -> None:
    path = tmp_path / "items.txt"
    path.write_text("小明有三个苹果和五个梨一共有多少个水果呢\n", "utf-8")
    assert apply(path, "题目是小明有三个苹果和五个梨一共有多少个水果呢请回答").dropped


def test_files_of_every_form_and_columns(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    (tmp_path / "a.txt").write_text("first\nitem\n\nsecond item", "utf-8")
    (tmp_path / "b.jsonl.gz").write_bytes(
        gzip.compress(b'{"q": "third", "n": 1}\n\n{"q": "fourth", "x": ["fifth"]}\n')
    )
    pyarrow.parquet.write_table(pyarrow.table({"q": ["sixth"], "id": [7]}), tmp_path / "c.parquet")
    (tmp_path / "d.md").write_text("not read", "utf-8")
    assert list(read_problems(tmp_path)) == [
        ("a.txt", "paragraph 1", "first\nitem"),
        ("a.txt", "paragraph 2", "second item"),
        ("b.jsonl.gz", "line 1", "third"),
        ("b.jsonl.gz", "line 3", "fourth"),
        ("b.jsonl.gz", "line 3", "fifth"),
        ("c.parquet", "row 1", "sixth"),
    ]
    assert [text for *_, text in read_problems(tmp_path / "b.jsonl.gz", ["x"])] == ["fifth"]
    with pytest.raises(FormatError, match="no row has the column 'question'"):
        list(read_problems(tmp_path / "b.jsonl.gz", ["question"]))


@pytest.mark.parametrize(
    ("name", "content", "error", "told"),
    [
        ("x.jsonl", b'{"a": 1}\nnonsense\n', FormatError, r"x\.jsonl:2: expected one JSON value a line"),
        ("x.jsonl", b'{"a": "\xff"}\n', FormatError, r"x\.jsonl:1"),
        ("x.jsonl", b"[" * 100_000, FormatError, r"x\.jsonl:1"),
        ("x.jsonl.gz", b"no gzip", FormatError, r"x\.jsonl\.gz"),
        ("x.parquet", b"PAR1", FormatError, r"x\.parquet: cannot read"),
        ("x.txt", b"\xff\xfe\xff", FormatError, r"x\.txt: cannot read"),
        ("x.txt", b"too short", ConfigError, "none of 1 test items has 8 words"),
        ("x.csv", b"a,b", ConfigError, r"must end in \.txt"),
    ],
)
def test_broken_files_of_items(
    tmp_path: Path, name: str, content: bytes, error: type[Exception], told: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=told):
        decontaminate.make(problems=str(tmp_path / name))


def test_missing_items(tmp_path: Path) -> None:
    for settings, told in [({}, "name a folder"), ({"problems": str(tmp_path)}, "holds no file")]:
        with pytest.raises(ConfigError, match=told):
            decontaminate.make(**settings)
    with pytest.raises(ConfigError, match="does not exist"):
        decontaminate.make(problems=str(tmp_path / "none"))


def test_it_is_fast_enough_not_to_matter(problems: Path) -> None:
    step = decontaminate.make(problems=str(problems))
    documents = [Document(str(i), PROSE * 40, "s") for i in range(500)]
    began = time.process_time()
    step(documents)
    assert len(PROSE) * 40 * 500 / (time.process_time() - began) > 5e6  # bytes per CPU-second


def test_a_leak_is_told_as_it_is_written_so_that_personal_data_in_it_can_be_masked(tmp_path: Path) -> None:
    from matura.data.work import shown

    item = "If you have found the grey cat of the station please write to jane.roe@corp-mail.io tonight"
    (tmp_path / "items.txt").write_text(item)
    (one,) = shown(apply(tmp_path / "items.txt", PROSE + item).dropped)
    assert "<EMAIL>" in one.detail
    assert "jane" not in one.detail.lower() + one.sample.lower()


def test_a_table_that_says_much_in_few_bytes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A text that stands once in the file counts in every row that has it."""
    pyarrow.parquet.write_table(pyarrow.table({"q": ["a" * 50_000] * 200}), tmp_path / "t.parquet")
    assert (tmp_path / "t.parquet").stat().st_size < 500_000
    assert len(list(read_problems(tmp_path))) == 200
    monkeypatch.setattr("matura.data.problems.MAX_BYTES", 1_000_000)
    with pytest.raises(FormatError, match="unpacks to more than"):
        list(read_problems(tmp_path))
