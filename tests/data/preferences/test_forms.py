"""Every form of a row, and what is wrong with rows that are none."""

import random
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest

from matura.core.errors import FormatError
from matura.core.preferences import Answer, Ranking, as_line
from matura.data.preferences import pairs
from matura.data.preferences.forms import DIFFER, EQUAL, Dropped, form_of, read
from matura.data.preferences.loading import load_files
from tests.data.preferences.rows import ALL, loaded, said

ASKED = [said("system", "be kind"), said("user", "why?")]


def one(row: dict[str, Any]) -> Ranking | Dropped:
    (found,) = read(form_of(row), row, "mine.jsonl:1")
    return found


def texts(found: Ranking | Dropped) -> tuple[list[str], list[tuple[str, str]]]:
    assert isinstance(found, Ranking)
    return [m["content"] for m in found.messages], [(p.chosen.text, p.rejected.text) for p in pairs.of(found)]


@pytest.mark.parametrize(
    ("form", "row"),
    [
        ("pairs", {"prompt": "why?", "chosen": "a", "rejected": "b", "system": "be kind"}),
        ("pairs", {"prompt": ASKED, "chosen": [said("assistant", "a")], "rejected": [said("assistant", "b")]}),
        ("pairs", {"chosen": [*ASKED, said("assistant", "a")], "rejected": [*ASKED, said("assistant", "b")]}),
        ("pairs", {"prompt": "why?", "messages": [*ASKED, said("assistant", "a")],
                   "chosen": [*ASKED, said("assistant", "a")], "rejected": [*ASKED, said("assistant", "b")]}),
        ("pairs", {"messages": [*ASKED, said("assistant", "a")],
                   "chosen": [*ASKED, said("assistant", "a")], "rejected": [*ASKED, said("assistant", "b")]}),
        ("pairs", {"conversations": [{"from": "system", "value": "be kind"}, {"from": "human", "value": "why?"}],
                   "chosen": {"from": "gpt", "value": "a"}, "rejected": {"from": "gpt", "value": "b"}}),
        ("answers", {"prompt": ASKED, "completions": [{"response": "b", "overall_score": 2.5},
                                                     {"response": "a", "overall_score": 4}]}),
        ("answers", {"prompt": ASKED, "weak": {"solution": "b", "is_correct": False}, "gold": "7",
                     "strong": {"solution": "a", "is_correct": True}}),
        ("rankings", {"messages": ASKED, "answers": [{"text": "b", "rank": 2}, {"text": "a", "rank": 1}]}),
    ],
)  # fmt: skip
def test_one_preference_in_every_form(form: str, row: dict[str, Any]) -> None:
    assert form_of(row) == form
    assert texts(one(row)) == (["be kind", "why?"], [("a", "b")])


def test_the_prompt_swallows_nothing_of_an_answer_that_begins_alike(tmp_path: Path) -> None:
    """T7: a dialogue is cut at the last assistant's turn. The longest common start, the control, cuts into words."""
    draw, rows = random.Random(0), []
    for number in range(300):
        before = (
            f"\n\nHuman: question {number}\n\nAssistant: The first answer\n\nHuman: {draw.choice('xyz')} and?"
        )
        start = draw.choice(["I am", "I a", "", " ", "Human: I", "Sure.\n\nI th"])
        ends = [start + end for end in draw.sample(["mend it", "nd you", "m", " more", "ink so"], 2)]
        rows.append(
            {
                side: f"{before}\n\nAssistant: {end}"
                for side, end in zip(("chosen", "rejected"), ends, strict=True)
            }
        )
    found = loaded(tmp_path, *rows).train
    assert len(found) == 300
    swallowed = 0
    for ranking, row in zip(found, rows, strict=True):
        assert len(ranking.messages) == 3
        (pair,) = pairs.of(ranking)
        for answer, text in ((pair.chosen, row["chosen"]), (pair.rejected, row["rejected"])):
            assert text.rpartition("\n\nAssistant:")[2].strip() == answer.text
        common = len(list(takewhile(lambda two: two[0] == two[1], zip(*row.values(), strict=False))))
        swallowed += common > len(row["chosen"].rpartition("\n\nAssistant: ")[0]) + len("\n\nAssistant: ")
    assert swallowed > 100


def test_dialogues_of_different_prompts_are_no_preference() -> None:
    row = {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: c\n\nAssistant: d"}
    assert form_of(row) == "hh"
    assert one(row) == Dropped(DIFFER)
    assert one(
        {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: b "}
    ) == Dropped(EQUAL)
    explicit = {
        "prompt": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:",
        "chosen": "d",
        "rejected": "e",
    }
    assert texts(one(explicit)) == (["a", "b", "c"], [("d", "e")])


def test_scores_beside_pairs_give_margins() -> None:
    found = one({"prompt": "q", "chosen": "a", "rejected": "b", "score_chosen": 8, "score_rejected": 5.5})
    assert isinstance(found, Ranking)
    assert pairs.of(found)[0].margin == 2.5


@pytest.mark.parametrize("liked", [True, False])
def test_a_thumb(liked: bool) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": ASKED, "completion": "a", "label": liked},
        {"messages": [*ASKED, said("assistant", "a")], "label": liked},
        {"prompt": ASKED, "completion": [said("assistant", "a")], "label": liked},
    ]
    for row in rows:
        assert form_of(row) == "thumbs"
        found = one(row)
        assert isinstance(found, Ranking)
        assert found.answers == (Answer("a", liked=liked),)
        assert list(found.messages) == ASKED


def test_tools_and_gold_answers_are_kept() -> None:
    found = one(
        {"prompt": "q", "chosen": "a", "rejected": "b", "tools": '[{"name": "f"}]', "ground_truth": "42"}
    )
    assert isinstance(found, Ranking)
    assert (found.tools, found.facts) == (({"name": "f"},), {"gold": "42"})


def test_our_own_rows_are_read_as_they_are_written(tmp_path: Path) -> None:
    rows = [
        Ranking("r1", tuple(ASKED), (Answer("a", 1, 0.5), Answer("b", 1), Answer("c", end="length")), "g", "ann",
                {"gold": "1"}, ({"name": "f"},), {"shown": "2 0 1"}),
        Ranking("r2", tuple(ASKED), (Answer("a", liked=True, source="m"),)),
    ]  # fmt: skip
    path = tmp_path / "own.jsonl"
    path.write_bytes(b"".join(map(as_line, rows)))
    assert load_files(path, ALL).train == tuple(rows)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"chosen": "a", "rejected": "b"}, "where its prompt ends cannot be told"),
    ({"chosen": [said("assistant", "a")], "rejected": [said("assistant", "b")]}, "where its prompt ends"),
    ({"prompt": "q", "chosen": [*ASKED, said("assistant", "a")], "rejected": "b"}, "not with what is asked in prompt"),
    ({"prompt": "q", "chosen": [said("user", "q")], "rejected": "b"}, "chosen: ends with a user's message"),
    ({"prompt": "q", "chosen": 3, "rejected": "b"}, "chosen: expected a text or messages"),
    ({"prompt": " ", "chosen": "a", "rejected": "b"}, "prompt: is empty"),
    ({"prompt": [said("user", "q"), said("assistant", "b")], "chosen": "a", "rejected": "b"},
     "ends with the assistant"),
    ({"prompt": "q", "chosen": "a", "rejected": "b", "score_chosen": "x", "score_rejected": 1},
     "score_chosen: expected"),
    ({"prompt": "q", "completion": "a", "label": True, "tools": 3}, "tools: expected a list"),
    ({"completion": "a", "label": True}, "has no prompt"),
    ({"completions": [{"response": "a", "score": 1}], "promt": "q"}, "has no prompt; did you mean 'promt'"),
    ({"messages": [said("user", "q")], "label": True}, "has no completion"),
    ({"messages": ASKED, "answers": [{"text": "a", "rnk": 1}]}, "unknown key 'rnk'; did you mean 'rank'"),
    ({"messages": [said("robot", "q")], "answers": []}, "unknown role 'robot'"),
    ({"messages": [said("user", "a"), said("user", "b")], "answers": []}, "user after user"),
    ({"messages": ASKED, "answers": [{"text": "\ud800"}]}, r"answers\[0\].text: not valid Unicode"),
    ({"messages": ASKED, "answers": [{"text": "a", "rank": 1}], "annotator": "\ud800"}, "ranking: not valid Unicode"),
    ({"chosen": "\n\nHuman: a", "rejected": "\n\nHuman: a\n\nAssistant: b"}, "chosen: ends with a user's message"),
    ({"prompt": "q", "chosen": {"role": "assistant", "content": None, "tool_calls": [{"name": "f", "arguments": {}}]},
      "rejected": "b"}, "an answer that calls tools cannot be compared"),
]  # fmt: skip


@pytest.mark.parametrize(("row", "why"), BAD)
def test_what_is_wrong_is_said(row: dict[str, Any], why: str) -> None:
    with pytest.raises(FormatError, match=why):
        list(read(form_of(row), row, "mine.jsonl:1"))


def test_columns_that_fit_no_form_are_named() -> None:
    with pytest.raises(
        FormatError, match=r"the columns \(frage, wahl\) fit none of the known forms.*data\.columns"
    ):
        form_of({"frage": "a", "wahl": "b"})
    with pytest.raises(FormatError, match="fit none"):
        form_of({"text": "a", "label": True})
    with pytest.raises(FormatError, match=r"the columns \(chosen \(null\), prompt, rejected\) fit none"):
        form_of({"prompt": "q", "chosen": None, "rejected": "b"})
    with pytest.raises(FormatError, match=r"^label: expected true or false, found 'yes'"):
        form_of({"prompt": "q", "completion": "a", "label": "yes"})
