"""Trees of messages, whole or one message a row: every person's message with its ranked replies."""

from pathlib import Path
from typing import Any

import pytest

from matura.core.errors import FormatError
from matura.core.preference_settings import PreferenceData
from matura.core.preferences import Ranking
from matura.data.preferences import pairs, trees
from matura.data.preferences.loading import UNJUDGED
from tests.data.preferences.rows import loaded


def node(name: str, role: str, *replies: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"message_id": name, "role": role, "text": f"text {name}", "replies": list(replies), **more}


def a(name: str, rank: int | None, *replies: dict[str, Any], **more: Any) -> dict[str, Any]:
    return node(name, "assistant", *replies, rank=rank, **more)


def p(name: str, *replies: dict[str, Any], **more: Any) -> dict[str, Any]:
    return node(name, "prompter", *replies, **more)


def tree(name: str = "t") -> dict[str, Any]:
    later = p("q2", a("d", 0), a("e", 1, synthetic=True, model_name="m"), a("f", None))
    root = p("q", a("b", 2), a("a", 0, later, p("q3", a("g", None))), a("c", 1), a("x", 3, deleted=True))
    return {"message_tree_id": name, "tree_state": "ready_for_export", "prompt": root}


def flat(tree: dict[str, Any]) -> list[dict[str, Any]]:
    rows, waiting = [], [(tree["prompt"], None)]
    while waiting:
        one, parent = waiting.pop()
        rows.append({**one, "parent_id": parent, "message_tree_id": tree["message_tree_id"]})
        waiting += [(reply, one["message_id"]) for reply in rows[-1].pop("replies")]
    return rows


def order(row: Ranking) -> list[str]:
    return [one.text[5:] for one in sorted(row.answers, key=lambda one: one.rank or 99)]


def test_every_ranked_group_of_a_tree_is_a_ranking_with_its_path(tmp_path: Path) -> None:
    found = loaded(tmp_path, tree())
    assert found.forms == {"mine.jsonl": "oasst"}
    first, second = found.train
    assert [one["content"] for one in first.messages] == ["text q"]
    assert [one["content"] for one in second.messages] == ["text q", "text a", "text q2"]
    assert [one["role"] for one in second.messages] == ["user", "assistant", "user"]
    assert (order(first), order(second)) == (["a", "c", "b"], ["d", "e", "f"])
    assert [one.rank for one in second.answers] == [1, 2, None]
    assert [one.source for one in second.answers] == ["human", "m", "human"]
    assert {first.group, second.group} == {"t"}
    assert [first.id, second.id] == ["mine.jsonl:1.1", "mine.jsonl:1.2"]
    assert [len(pairs.of(one)) for one in found.train] == [3, 1]
    assert found.found["dropped"] == {UNJUDGED: 1}


def test_messages_in_rows_make_the_same_rankings_in_any_order(tmp_path: Path) -> None:
    rows = [row for name in "st" for row in flat({**tree(name), "prompt": renamed(tree()["prompt"], name)})]
    found = loaded(tmp_path, *rows)
    assert found.forms == {"mine.jsonl": "oasst_messages"}
    whole = loaded(tmp_path, tree()).train
    assert [one.messages for one in found.train] == [one.messages for one in whole] * 2
    assert {one.group for one in found.train} == {"s", "t"}
    again = loaded(tmp_path, *rows[::-1]).train
    assert {(one.group, one.provenance["message"], *sorted(order(one))) for one in again} == {
        (one.group, one.provenance["message"], *sorted(order(one))) for one in found.train
    }


def renamed(one: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {
        **one,
        "message_id": prefix + one["message_id"],
        "replies": [renamed(r, prefix) for r in one["replies"]],
    }


def test_a_tree_stands_on_one_side(tmp_path: Path) -> None:
    trees_ = [tree(str(number)) for number in range(9)]
    for number, one in enumerate(trees_):
        one["prompt"]["text"] = f"question {number}"
    found = loaded(tmp_path, *trees_, settings=PreferenceData(heldout=6))
    train, heldout = ({one.group for one in side} for side in (found.train, found.heldout))
    assert not train & heldout
    assert (len(train), len(heldout), len(found.heldout)) == (6, 3, 6)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"rank": -1}, r"prompt.replies\[0\].rank: expected 0 \(the best\)"),
        ({"rank": True}, "rank: expected 0"),
        ({"role": "prompter"}, r"replies\[0\].role: prompter out of turn"),
        ({"role": "robot"}, "role: expected prompter or assistant, found 'robot'"),
        ({"text": None}, r"prompt.replies\[0\].text: expected text"),
        ({"text": " "}, r"prompt.replies\[0\].text: is empty"),
        ({"replies": 3}, r"prompt.replies\[0\].replies: expected a list"),
        ({"replies": [3]}, r"prompt.replies\[0\].replies\[0\]: expected a message"),
    ],
)
def test_what_is_wrong_in_a_tree_is_said_with_its_place(change: dict[str, Any], why: str) -> None:
    one = tree()
    one["prompt"]["replies"][0] |= change
    with pytest.raises(FormatError, match=why):
        list(trees.rankings(one, "mine.jsonl:1"))


def test_messages_that_hang_in_no_tree_are_bad_rows(tmp_path: Path) -> None:
    rows = flat(tree())
    lost = [
        {**rows[0], "message_id": "l1", "parent_id": "nobody"},
        {**rows[0], "message_id": "l2", "parent_id": "l3"},
        {**rows[0], "message_id": "l3", "parent_id": "l2"},
        {**rows[0]},
        {**rows[0], "message_id": 3},
    ]
    with pytest.raises(FormatError) as error:
        loaded(tmp_path, *rows, *lost)
    said = str(error.value)
    assert "no message without a parent leads here (and 2 rows more)" in said
    assert "'q' is also that of mine.jsonl:1" in said
    assert "expected texts, found 3" in said
    found = loaded(tmp_path, *rows, *lost, settings=PreferenceData(bad_rows="drop", heldout=0))
    assert (len(found.train), len(found.bad)) == (2, 5)


def test_a_chain_deeper_than_any_conversation_is_refused_and_not_recursed(tmp_path: Path) -> None:
    roles = ("prompter", "assistant")
    rows = [
        {"message_id": str(n), "parent_id": str(n - 1) if n else None, "role": roles[n % 2], "text": "t"}
        for n in range(2100)
    ]
    with pytest.raises(FormatError, match="over 2,000 messages deep"):
        loaded(tmp_path, *rows)
