"""Specifications of tasks: those of the package, and a user's own with their mistakes."""

import re
from pathlib import Path

import pytest

from matura.core.errors import ConfigError, FormatError
from matura.evaluate import grading, rows, spec
from matura.evaluate.rows import Sources
from matura.tokenizer import wording

DOCS = Path(__file__).parents[2] / "docs" / "stages" / "evaluate.md"


@pytest.mark.parametrize("task", spec.builtin().values(), ids=list(spec.builtin()))
def test_every_task_of_the_package_is_whole(task: spec.Task) -> None:
    assert task.about
    assert grading.metrics(task)
    if task.name != "perplexity":  # any texts
        assert task.source
        assert task.licence
    metrics = {metric.name.partition(".")[0] for metric in grading.metrics(task)}
    assert {one.metric for one in task.published} <= metrics
    if any("test split" in one.source for one in task.published):
        assert task.split == "test"
    assert f"| `{task.name}` |" in DOCS.read_text("utf-8")


def write(folder: Path, text: str) -> Path:
    (folder / "mine.yaml").write_text(text)
    return folder / "mine.yaml"


GOOD = "name: mine\nkind: choices\ndata: [mine.jsonl]\nprompt: '{{ q }}'\nchoices: options\nanswer: right\n"


def test_a_folder_adds_tasks_and_may_replace_ours(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    assert spec.find("mine", tmp_path).prompt == "{{ q }}"
    write(tmp_path, GOOD.replace("mine", "piqa", 1))
    assert spec.find("piqa", tmp_path).choices == "options"
    assert spec.find("piqa", None).choices == "[sol1, sol2]"
    (tmp_path / "again.yaml").write_text(GOOD.replace("mine", "piqa", 1))
    with pytest.raises(ConfigError, match="another file specifies a task 'piqa' too"):
        spec.own(tmp_path)


def test_a_task_that_is_not_there_is_told_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="there is no task 'hellaswg'; did you mean 'hellaswag'"):
        spec.find("hellaswg", None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("kind: choices", "kind: choice"), "kind"),
        (("choices: options\n", ""), "kind=choices needs `choices`"),
        (("prompt:", "promt:"), "promt"),
        (("'{{ q }}'", "'{{ q'"), r"mine\.yaml: prompt: it is not valid Jinja"),
        (("options", "'options |'"), r"mine\.yaml: choices: it is not valid Jinja"),
        (("name: mine", "name: my task"), "expected letters, digits"),
        (("kind: choices", "kind: choices\nuntil: ['.']"), "until is for kind=writing"),
        (("kind: choices", "kind: choices\nignore_case: true"), "ignore_case is for kind=writing"),
        (("kind: choices", "kind: continuation"), "choices is for kind=choices"),
        (
            ("kind: choices", "kind: writing\nextract: [{name: n, pattern: '('}]"),
            "is not a regular expression",
        ),
    ],
)
def test_a_mistake_is_told_with_file_and_field(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    path = write(tmp_path, GOOD.replace(*change))
    with pytest.raises(ConfigError, match=message) as told:
        spec.read(path)
    assert "mine.yaml" in str(told.value)


def test_texts_and_values_over_a_row() -> None:
    row = {"q": "1 + 1", "n": 2, "Odd Name": "x", "list": ["a", "b"], "": 0}
    assert wording.Text("Q: {{ q }}\n").of(row) == "Q: 1 + 1\n"
    assert wording.Text("{{ q }} = {{ n }}").of(row) == "1 + 1 = 2"
    assert wording.Text("no field { } at all").of(row) == "no field { } at all"
    assert wording.Value("row['Odd Name']").of(row) == "x"
    assert wording.Value("list.index('b')").of(row) == 1
    assert wording.Value("[q, n | string]").of(row) == ["1 + 1", "2"]


def test_an_expression_reaches_nothing_but_the_row() -> None:
    with pytest.raises(FormatError, match=r"is not for templates|fails"):
        wording.Value("q.__class__.__mro__").of({"q": "x"})
    with pytest.raises(FormatError):
        wording.Value("'x' * 100000000").of({})


def test_rows_of_every_format_are_read(tmp_path: Path) -> None:
    import gzip

    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"q": ["a", "b"]})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    with pyarrow.ipc.new_stream(str(tmp_path / "t.arrow"), table.schema) as writer:
        writer.write_table(table)
    (tmp_path / "t.csv").write_text("q\na\nb\n")
    (tmp_path / "t.jsonl").write_text('{"q": "a"}\n\n{"q": "b"}\n')
    (tmp_path / "t.jsonl.gz").write_bytes(gzip.compress(b'{"q": "a"}\n{"q": "b"}\n'))
    for name in ("t.parquet", "t.arrow", "t.csv", "t.jsonl", "t.jsonl.gz"):
        found = rows.read(Sources(folder=tmp_path), (name,), "t")
        assert [(one.row, one.number) for one in found] == [({"q": "a"}, 0), ({"q": "b"}, 1)]
    (tmp_path / "t.txt").write_text("whole")
    assert rows.read(Sources(folder=tmp_path), ("t.txt",), "t")[0].row == {"text": "whole"}


def test_rows_lie_below_links_too_and_a_ring_of_links_ends(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "t.jsonl").write_text('{"q": "a"}\n')
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "ring").symlink_to(folder)
    assert [one.row for one in rows.read(Sources(folder=folder), ("t.jsonl",), "t")] == [{"q": "a"}]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.jsonl", b'{"q": 1}\n\n{', "cannot read exam questions: ValueError: line 3: not JSON"),
        ("t.jsonl", b"[1]", "expected a JSON object, found a list"),
        ("t.jsonl.gz", b"no gzip", "BadGzipFile"),
        ("t.parquet", b"no parquet", "ArrowInvalid"),
        ("t.exe", b"", "the name must end in"),
    ],
)
def test_a_broken_file_of_rows_is_told(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FormatError, match=message) as told:
        rows.read(Sources(folder=tmp_path), (name,), "t")
    assert name in str(told.value)


def test_rows_stay_inside_the_folder(tmp_path: Path) -> None:
    (tmp_path / "secret.jsonl").write_text("{}")
    (tmp_path / "tasks").mkdir()
    for place in ("../secret.jsonl", str(tmp_path / "secret.jsonl")):
        with pytest.raises(ConfigError, match="must be a path inside the folder"):
            rows.read(Sources(folder=tmp_path / "tasks"), (place,), "t")


def test_a_file_without_rows_is_there(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").touch()
    (tmp_path / "other.jsonl").write_text('{"q": 1}\n')
    assert rows.read(Sources(folder=tmp_path), ("t.jsonl", "other.jsonl"), "t") == []
    assert len(rows.read(Sources(folder=tmp_path), ("none.jsonl", "other.jsonl"), "t")) == 1


def test_rows_that_are_nowhere_are_told_with_where_they_could_be(tmp_path: Path) -> None:
    places = ("wheel:x/*.arrow", "mine.jsonl")
    with pytest.raises(
        ConfigError, match=re.escape("(`exams`) or in a folder with a file mine.jsonl (`folder`); ")
    ):
        rows.read(Sources(), places, "t")
    with pytest.raises(ConfigError, match="has none"):
        rows.read(Sources(folder=tmp_path), places, "t")
