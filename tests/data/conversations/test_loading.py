"""Files to two sides: nothing lost in silence, and one prompt never on both sides."""

import json
from pathlib import Path
from typing import Any

import pytest

from matura.core.conversation_settings import ConversationData
from matura.core.errors import FormatError
from matura.core.records import Conversation
from matura.data.conversations import load
from matura.data.conversations.loading import prompt_of

NONE = ConversationData(heldout=0)


def row(prompt: str, answer: str = "yes") -> dict[str, str]:
    return {"prompt": prompt, "completion": answer}


def write(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


def asked(rows: tuple[Conversation, ...]) -> list[str]:
    return [prompt_of(one) for one in rows]


def test_rows_keep_their_order_and_their_place(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.jsonl", [row("a"), row("b")])
    found = load(path, NONE)
    assert [one.id for one in found.train] == ["mine.jsonl:1", "mine.jsonl:2"]
    assert asked(found.train) == ["a", "b"]
    assert (found.heldout, found.bad, found.forms) == ((), (), {"mine.jsonl": "prompt"})


def test_rows_of_one_prompt_stay_on_one_side_and_new_rows_move_few(tmp_path: Path) -> None:
    rows = [row(f"question {n}", f"answer {k}") for n in range(60) for k in range(3)]
    rows += [{"messages": None, **row(" Question 7!", "the same but for signs")}]
    path = write(tmp_path / "mine.jsonl", [{k: v for k, v in one.items() if v} for one in rows])
    settings = ConversationData(heldout=30)
    found = load(path, settings)
    train, heldout = set(asked(found.train)), set(asked(found.heldout))
    assert not train & heldout
    assert (
        len({prompt.strip(" !").lower() for prompt in train}) + len({p.strip(" !").lower() for p in heldout})
        == 60
    )
    assert 24 <= len(found.heldout) <= 30
    assert len(found.train) + len(found.heldout) == 181
    assert load(path, settings) == found
    write(path, [*rows[:-1], *[row(f"new {n}") for n in range(6)]])
    again = set(asked(load(path, settings).heldout))
    assert len(again & heldout) >= len(heldout) - 3
    shuffled = write(tmp_path / "other.jsonl", rows[:-1][::-1])
    one, other = load(shuffled, settings), load(write(path, rows[:-1]), settings)
    assert set(asked(one.heldout)) == set(asked(other.heldout))


def test_few_prompts_are_all_learned(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.jsonl", [row("a", "1"), row("a", "2"), row("b")])
    assert load(path, ConversationData()).heldout == ()
    path = write(tmp_path / "mine.jsonl", [row("a"), row("b"), row("c")])
    assert len(load(path, ConversationData()).heldout) == 1  # at most a third
    assert load(path, NONE).heldout == ()


def test_files_that_are_for_examination_are_held_out(tmp_path: Path) -> None:
    write(tmp_path / "data" / "train-0.jsonl", [row(f"a{n}") for n in range(9)])
    write(tmp_path / "data" / "test-0.jsonl", [row("b")])
    write(tmp_path / "validation" / "contest.jsonl", [{"text": "c"}])
    write(tmp_path / "contest.jsonl", [row("d")])  # no file of tests
    found = load(tmp_path, ConversationData())
    assert asked(found.heldout) == ["b", "c"]
    assert len(found.train) == 10
    assert found.forms["validation/contest.jsonl"] == "text"
    alone = load(tmp_path / "data" / "test-0.jsonl", ConversationData())
    assert asked(alone.train) == ["b"]  # what is named is learned


def test_bad_rows_stop_with_the_first_ones_named_or_are_dropped_and_counted(tmp_path: Path) -> None:
    rows = [row("a"), row(""), row("b"), {"prompt": "x"}, *[row("")] * 9, row("c")]
    rows += [{"prompt": "x", "completion": n} for n in range(6)]
    path = write(tmp_path / "mine.jsonl", rows)
    with pytest.raises(FormatError) as error:
        load(path, ConversationData())
    said = str(error.value)
    assert "17 of 20 rows are no conversations" in said
    assert "mine.jsonl:2: prompt: is empty (and 9 rows more)" in said
    assert "mine.jsonl:4: has no completion" in said
    assert "... and 3 problems more" in said
    assert "data.bad_rows=drop" in said
    found = load(path, ConversationData(bad_rows="drop", heldout=0))
    assert asked(found.train) == ["a", "b", "c"]
    assert len(found.bad) == 17
    write(path, [row("")] * 3)
    with pytest.raises(FormatError, match="no row is a conversation"):
        load(path, ConversationData(bad_rows="drop"))
    write(path, [])
    with pytest.raises(FormatError, match="there are no rows"):
        load(path, ConversationData())


def test_columns_by_other_names_and_forms_by_name(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.jsonl", [{"frage": "a", "antwort": "b", "prompt": "not this", "text": "c"}])
    named = ConversationData(columns={"prompt": "frage", "completion": "antwort"}, heldout=0)
    (found,) = load(path, named).train
    assert [one["content"] for one in found.messages] == ["a", "b"]
    (found,) = load(path, ConversationData(form="text", heldout=0)).train
    assert found.text == "c"
    with pytest.raises(FormatError, match=r"data\.columns\.prompt: there is no column 'fragen'"):
        load(path, ConversationData(columns={"prompt": "fragen"}))
    with pytest.raises(FormatError, match=r"nothing reads a column 'promt'; did you mean 'prompt'"):
        load(path, ConversationData(columns={"promt": "frage"}))
    with pytest.raises(FormatError, match="fit none of the known forms"):
        load(write(path, [{"frage": "a"}]), ConversationData())


TALK = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


@pytest.mark.parametrize(
    ("given", "form", "message"),
    [
        (
            {"question": "a", "context": "c", "answer": "b"},
            "prompt",
            r"context: the form prompt is read without it.*data\.columns\.instruction=question",
        ),
        ({"messages": TALK, "system": "s"}, "messages", "system: .*Make it the first of the messages"),
        ({"instruction": "a", "output": "b", "tools": [{"name": "f"}]}, "alpaca", "tools: .*as messages"),
    ],
)
def test_a_column_that_another_form_reads_is_not_left_out_in_silence(
    given: dict[str, Any], form: str, message: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "mine.jsonl", [given])
    with pytest.raises(FormatError, match=f"{message}.*data.form={form}"):
        load(path, NONE)
    assert load(path, ConversationData(form=form, heldout=0)).train
    (extra,) = given.keys() & {"context", "system", "tools"}
    for empty in (None, "", [], "[]"):
        assert load(write(path, [given | {extra: empty}]), NONE).train


def test_a_context_is_read_with_an_instruction_and_a_system_text_that_is_there_twice_once(
    tmp_path: Path,
) -> None:
    path = write(tmp_path / "mine.jsonl", [{"question": "a", "context": "c", "answer": "b"}])
    (found,) = load(path, ConversationData(columns={"instruction": "question"}, heldout=0)).train
    assert [one["content"] for one in found.messages] == ["a\n\nc", "b"]
    first = {"role": "system", "content": "s"}
    (found,) = load(write(path, [{"messages": [first, *TALK], "system": "s"}]), NONE).train
    assert [one["content"] for one in found.messages] == ["s", "a", "b"]


def test_the_prompt_is_what_stands_before_the_first_answer() -> None:
    """T7: by turns and never by characters: answers that begin alike leave it alone, words are not cut."""
    asked = ({"role": "system", "content": "s"}, {"role": "user", "content": "same"})
    rows = [
        Conversation("r", (*asked, {"role": "assistant", "content": answer}, *asked[1:]))
        for answer in ("same start", "same stars", "")
    ]
    assert {prompt_of(one) for one in rows} == {"same"}
    assert prompt_of(Conversation("t", (), "some text")) == "some text"
