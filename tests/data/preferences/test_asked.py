"""Dialogues in one text, and prompts in any column."""

import pytest

from matura.core.errors import FormatError
from matura.data.preferences.asked import answered, check_prompt, joined, prompt, question, turns
from tests.data.preferences.rows import said


def test_a_dialogue_is_cut_at_its_marks() -> None:
    found = turns("\n\nHuman: a\n\nb\n\nAssistant: Human: c\n\nHuman:d\n\nAssistant:", "chosen")
    assert found == [
        said("user", "a\n\nb"),
        said("assistant", "Human: c"),
        said("user", "d"),
        said("assistant", ""),
    ]
    for value in ("Human: a", "x\n\nHuman: a", "", "\nHuman: a\n\nAssistant: b"):
        with pytest.raises(FormatError, match="chosen: expected turns"):
            turns(value, "chosen")


def test_an_open_mark_at_the_end_of_a_prompt_is_no_answer() -> None:
    assert question("\n\nHuman: a\n\nAssistant:", "prompt") == [said("user", "a")]
    assert question("Human: a", "prompt") == [said("user", "Human: a")]


def test_turns_of_one_speaker_in_a_row_are_one_message() -> None:
    rows = [said("user", "a"), said("assistant", "b"), said("assistant", "c"), said("user", "d")]
    assert joined(rows) == [said("user", "a"), said("assistant", "b\n\nc"), said("user", "d")]


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        ({"prompt": "a"}, [said("user", "a")]),
        ({"question": "a", "system": "s"}, [said("system", "s"), said("user", "a")]),
        ({"instruction": "a", "input": "b"}, [said("user", "a\n\nb")]),
        ({"input": "a"}, [said("user", "a")]),
        ({"conversations": [{"from": "human", "value": "a"}]}, [said("user", "a")]),
        ({"prompt": [said("system", "t"), said("user", "a")], "system": "s"}, [said("system", "t"), said("user", "a")]),
        ({"messages": [said("user", "a"), {**said("assistant", "b"), "weight": 0.5}, said("user", "c")]},
         [said("user", "a"), said("assistant", "b"), said("user", "c")]),
        ({"chosen": "a"}, []),
    ],
)  # fmt: skip
def test_prompts_of_every_column(row: dict[str, object], wanted: list[dict[str, str]]) -> None:
    assert prompt(row)[1] == wanted


def test_an_answer_may_be_empty_and_a_prompt_may_not() -> None:
    assert answered("", "chosen") == [said("assistant", "")]
    assert answered([said("user", "a"), said("assistant", "")], "chosen")[-1] == said("assistant", "")
    assert answered({"from": "gpt", "value": ""}, "chosen") == [said("assistant", "")]
    with pytest.raises(FormatError, match=r"chosen\[0\].content: is empty"):
        answered([said("user", ""), said("assistant", "a")], "chosen")
    wrong: tuple[object, ...] = (3, [], None)
    for value in wrong:
        with pytest.raises(FormatError, match="chosen: expected a text or messages"):
            answered(value, "chosen")


def test_a_prompt_ends_where_an_assistant_can_answer() -> None:
    check_prompt([said("system", "s"), said("user", "a")], "messages")
    with pytest.raises(FormatError, match="ends with the assistant's message"):
        check_prompt([said("user", "a"), said("assistant", "b")], "messages")
    with pytest.raises(FormatError, match="assistant after system"):
        check_prompt([said("system", "s")], "messages")
    with pytest.raises(FormatError, match=r"messages\[1\]: user after user"):
        check_prompt([said("user", "s"), said("user", "s")], "messages")
