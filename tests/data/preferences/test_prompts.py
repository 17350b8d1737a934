"""Prompts of whatever has prompts, each once, with what rewards may read."""

from pathlib import Path
from typing import Any

import pytest

from matura.core.errors import FormatError
from matura.core.preference_settings import PreferenceData
from matura.core.preferences import Answer, Ranking
from matura.core.records import Conversation
from matura.data.preferences import prompts
from matura.data.preferences.prompts import SAME, TEXT
from tests import tiny_models
from tests.data.preferences.rows import ALL, said, write
from tests.data.preferences.test_loading import made

Q, A = said("user", "q"), said("assistant", "a")


def read(folder: Path, *rows: dict[str, Any], settings: PreferenceData = ALL) -> tuple[Ranking, ...]:
    return prompts.load_files(write(folder / "mine.jsonl", list(rows)), settings).train


@pytest.mark.parametrize(
    ("row", "facts"),
    [
        ({"prompt": "q"}, {}),
        ({"prompt": [Q]}, {}),
        ({"messages": [Q]}, {}),
        ({"messages": [Q, A]}, {"gold": "a"}),
        ({"question": "q", "answer": "a"}, {"gold": "a"}),
        ({"question": "q", "answer": "a", "ground_truth": "b"}, {"gold": "b"}),
        ({"prompt": "q", "completion": [A]}, {"gold": "a"}),
        ({"instruction": "q", "output": "a"}, {"gold": "a"}),
        ({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}, {"gold": "a"}),
        ({"prompt": "q", "chosen": "x", "rejected": "y"}, {}),
        ({"chosen": "\n\nHuman: q\n\nAssistant: x", "rejected": "\n\nHuman: q\n\nAssistant: y"}, {}),
        ({"messages": [Q], "facts": {"gold": "7"}}, {"gold": "7"}),
        ({"messages": [Q], "answers": [{"text": "x"}], "annotator": "me"}, {}),
    ],
)
def test_one_prompt_of_every_form(tmp_path: Path, row: dict[str, Any], facts: dict[str, str]) -> None:
    (found,) = read(tmp_path, row)
    assert (list(found.messages), found.answers, found.facts, found.annotator) == ([Q], (), facts, "")


def test_of_a_conversation_all_before_the_last_answer_is_the_prompt(tmp_path: Path) -> None:
    (found,) = read(
        tmp_path, {"messages": [Q, {**A, "weight": 0.5}, said("user", "r"), said("assistant", "gold")]}
    )
    assert list(found.messages) == [Q, A, said("user", "r")]
    assert found.facts == {"gold": "gold"}


def test_a_prompt_is_there_once_and_not_on_both_sides(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", [{"prompt": "p"}, {"prompt": "q"}, {"prompt": "p"}])
    write(tmp_path / "test.jsonl", [{"prompt": "q"}, {"prompt": "r"}, {"prompt": "q", "gold": "other"}])
    found = prompts.load_files(tmp_path, ALL)
    # "test" comes first by name, but what is to be learned is looked at first
    assert [one.messages[0]["content"] for one in found.train] == ["p", "q"]
    assert [one.facts for one in found.heldout] == [{}, {"gold": "other"}]
    assert found.found["dropped"] == {SAME: 2}


def test_what_has_no_prompt_is_said(tmp_path: Path) -> None:
    for row, why in (
        ({"text": "x"}, "has no prompt"),
        ({"prompt": ""}, "prompt: is empty"),
        ({"messages": [said("system", "s"), A]}, "messages"),
        ({"messages": [Q, A, A]}, "ends with the assistant's message"),
    ):
        with pytest.raises(FormatError, match=f"no row is a prompt(.|\n)*{why}"):
            read(tmp_path, row)


def test_every_message_of_a_person_in_a_tree_is_a_prompt(tmp_path: Path) -> None:
    from tests.data.preferences.test_trees import tree

    assert len(read(tmp_path, tree())) == 3  # one of them has a single reply, which nobody ranked


def test_facts_are_kept_for_rewards(tmp_path: Path) -> None:
    settings = PreferenceData(facts=("tests",), heldout=0)
    (found,) = read(tmp_path, {"prompt": "q", "tests": ["assert f(1) == 2"]}, settings=settings)
    assert found.facts == {"tests": '["assert f(1) == 2"]'}


def test_prompts_of_artifacts(tmp_path: Path) -> None:
    text = Conversation("t", (), "some text")
    talks = tiny_models.conversations(tmp_path / "c", [tiny_models.talk(1), text], [tiny_models.talk(2)])
    found = prompts.load(talks, PreferenceData())
    assert [one.messages[-1]["content"] for one in (*found.train, *found.heldout)] == ["say 1", "say 2"]
    assert found.train[0].facts == {"gold": "hello hello 1"}
    assert found.found["dropped"] == {TEXT: 1}
    rows = [
        Ranking(f"r{n}", (said("user", f"q{n // 2}"),), (Answer("a", 1),), "g", f"ann{n}") for n in range(8)
    ]
    samples = prompts.load(made(tmp_path / "s", "samples", samples=rows, heldout=[]), PreferenceData())
    assert len(samples.train) == 4
    assert {one.group for one in samples.train} == {"g"}
    judged = made(tmp_path / "p", "preferences", train=rows[:4], heldout=rows[4:])
    both = prompts.load(judged, PreferenceData())
    assert (len(both.train), len(both.heldout)) == (2, 2)
