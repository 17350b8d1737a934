"""What a template leaves out is found, in a time that grows as the conversation does."""

from collections.abc import Sequence
from typing import Any

import pytest

from matura.core.errors import MaturaError
from matura.tokenizer.omissions import Message, Write, check_written

TOOLS = [{"type": "function", "function": {"name": "add"}}]


def long(count: int) -> list[dict[str, Any]]:
    """`count` times a question, a call, its result and an answer, after a system message."""
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    turns = [
        {"role": "user", "content": "1+2?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "3"},
        {"role": "assistant", "content": "It is 3."},
    ]
    return [{"role": "system", "content": "Add."}, *(turns * count)]


def everything(messages: Sequence[Message], tools: Sequence[Message]) -> str:
    return f"{[one['function']['name'] for one in tools]}" + "".join(
        f"{one['role']}: {one['content']} {[call['function']['name'] for call in one.get('tool_calls', ())]}\n"
        for one in messages
    )


def counted(write: Write) -> tuple[Write, list[int]]:
    """The same, and the lengths of what it was asked to write."""
    asked: list[int] = []

    def writes(messages: Sequence[Message], tools: Sequence[Message]) -> str:
        asked.append(len(messages))
        return write(messages, tools)

    return writes, asked


def test_a_conversation_is_written_once_more_however_many_parts_it_has() -> None:
    for count in (1, 10, 100):
        write, asked = counted(everything)
        check_written(write, long(count), TOOLS)
        assert asked == [4 * count + 1]
    write, asked = counted(everything)
    check_written(write, [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}], [])
    assert asked == []


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (lambda i, key: key != "tools", "the tools"),
        (lambda i, key: key != "content" or i != 0, "messages of the role 'system'"),
        (lambda i, key: key != "content" or i != 35, "messages of the role 'tool'"),
        (lambda i, key: key != "tool_calls" or i != 38, "tool calls"),
    ],
)
def test_one_part_of_many_that_is_left_out_is_found(seen: Any, words: str) -> None:
    """Also where the template writes others of its kind, such as the first system message alone."""

    def deaf(messages: Sequence[Message], tools: Sequence[Message]) -> str:
        kept = [
            {**one, "content": one["content"] if seen(i, "content") else ""} for i, one in enumerate(messages)
        ]
        for i, one in enumerate(kept):
            if not seen(i, "tool_calls"):
                one.pop("tool_calls", None)
        return everything(kept, tools if seen(0, "tools") else [])

    write, asked = counted(deaf)
    with pytest.raises(MaturaError, match=f"does not write {words}"):
        check_written(write, long(10), TOOLS)
    assert len(asked) == 3


@pytest.mark.parametrize(
    "change", [str.upper, str.title, lambda text: text.replace("q", "k"), lambda text: str(len(text))]
)
def test_what_is_written_in_other_words_is_written(change: Any) -> None:
    check_written(lambda messages, tools: change(everything(messages, tools)), long(3), TOOLS)


def test_a_mark_that_stands_in_the_text_already_is_no_proof() -> None:
    """A conversation about marks: the system message, which is left out, has a mark in its content."""
    messages = [{"role": "system", "content": "x"}, {"role": "user", "content": "zq0x0q zq1x0q"}]
    with pytest.raises(MaturaError, match="of the role 'system'"):
        check_written(lambda messages, tools: everything(messages[1:], tools), messages, [])
