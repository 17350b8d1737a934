"""The prompt of a row, in any of the ways that rows have one, and dialogues that are written as one text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from matura.core.errors import FormatError
from matura.data.conversations.forms import MESSAGES, either, instructed, said, system_of
from matura.data.conversations.messages import Message, check_order, role_of, text, tool_calls

QUESTIONS = ("prompt", "question", "query")
LAST_QUESTION = "input"  # beside an instruction it is a part of that
MARK = re.compile(r"\n\n(Human|Assistant):")
_ANSWER: Message = {"role": "assistant", "content": "..."}


def is_dialogue(value: Any) -> bool:
    """Whether a value is a text of turns, each with "\\n\\nHuman:" or "\\n\\nAssistant:" before it."""
    return isinstance(value, str) and value.startswith("\n\nHuman:")


def turns(value: str, place: str) -> list[Message]:
    """The turns of a dialogue in one text; two turns of one speaker in a row are two messages.

    The text is cut at its marks alone, so all of a turn is in one message, whatever other texts it begins like.
    """
    before, *parts = MARK.split(text(value, place))
    if before.strip() or not parts:
        raise FormatError(f'{place}: expected turns that begin with "\\n\\nHuman:", found {value!r:.60}')
    roles = {"Human": "user", "Assistant": "assistant"}
    return [
        {"role": roles[name], "content": spoken.strip()}
        for name, spoken in zip(parts[::2], parts[1::2], strict=True)
    ]


def prompt(values: Mapping[str, Any]) -> tuple[str, list[Message]]:
    """The messages that a row asks with, and the column they are in; no messages when it has none. A dialogue's open
    "\\n\\nAssistant:" at the end is left out. Raises FormatError for what is no message."""
    name, found = _prompt(values)
    if found and found[0]["role"] != "system":
        found = [*system_of(values), *found]
    return name, [{key: one[key] for key in one if key != "weight"} for one in found]


def _prompt(values: Mapping[str, Any]) -> tuple[str, list[Message]]:
    for name in QUESTIONS:
        if values.get(name) is not None:
            return name, question(values[name], name)
    if values.get("instruction") is not None:
        return "instruction", instructed(values)
    for name in MESSAGES:
        if (items := values.get(name)) is not None:
            if not isinstance(items, list | tuple):
                raise FormatError(f"{name}: expected a list of messages, found {items!r:.60}")
            return name, [either(one, f"{name}[{i}]") for i, one in enumerate(items)]
    if values.get(LAST_QUESTION) is not None:
        return LAST_QUESTION, question(values[LAST_QUESTION], LAST_QUESTION)
    return "", []


def question(value: Any, name: str) -> list[Message]:
    """A text, a text of turns, or messages. Raises FormatError for anything else."""
    if not is_dialogue(value):
        return said("user", value, name)
    found = joined(turns(value, name))
    if found[-1] == {"role": "assistant", "content": ""}:
        found.pop()
    return found


def answered(value: Any, name: str) -> list[Message]:
    """A text, a message or messages that end with an answer, which may be empty: who says nothing is judged too."""
    if isinstance(value, str):
        return [{"role": "assistant", "content": text(value, name)}]
    items = [value] if isinstance(value, Mapping) else value
    if not isinstance(items, list | tuple) or not items:
        raise FormatError(f"{name}: expected a text or messages, found {value!r:.60}")
    last = items[-1]
    if not isinstance(last, Mapping) or (last.get("content") != "" and last.get("value") != ""):
        return said("assistant", list(items), name)
    role = role_of(last.get("role") or last.get("from"), f"{name}[{len(items) - 1}].role")
    before = said("assistant", items[:-1], name) if items[:-1] else []
    calls = role == "assistant" and tool_calls(last.get("tool_calls"), f"{name}.tool_calls")
    return [*before, {"role": role, "content": ""} | ({"tool_calls": calls} if calls else {})]


def joined(messages: Sequence[Message]) -> list[Message]:
    """Messages of one speaker in a row as one, with an empty line between: templates know no other way."""
    made: list[Message] = []
    for one in messages:
        if made and made[-1]["role"] == one["role"]:
            made[-1] = {**made[-1], "content": f"{made[-1]['content']}\n\n{one['content']}"}
        else:
            made.append(one)
    return made


def check_prompt(messages: Sequence[Message], place: str) -> None:
    """Raises FormatError unless an assistant's answer can follow these messages."""
    if messages and messages[-1]["role"] == "assistant":
        raise FormatError(f"{place}: ends with the assistant's message, and an answer cannot follow that")
    check_order((*messages, _ANSWER), place)
