"""What a chat template leaves out of a conversation: found by marking it and looking for the marks in the text."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from matura.core.errors import MaturaError

Message = Mapping[str, Any]
Write = Callable[[Sequence[Message], Sequence[Message]], str]
"""(messages, tools) -> text."""


class _Part(NamedTuple):
    """Something that must be written: the words for it, where it stands, and the number of its message."""

    words: str
    key: str
    message: int = -1


def check_written(write: Write, messages: Sequence[Message], tools: Sequence[Message]) -> None:
    """Raises MaturaError when the template passes over the tools, a tool call, or a message of any other role than
    user and assistant. (A model would learn an answer without what it rests on, or an empty one for a call.)

    All parts are marked at once, so a long conversation is written once more and not once for each part. A part whose
    mark is not found is changed alone, for a template may write it in other words: the text must differ then.
    """
    parts = _parts(messages, tools)
    if not parts:
        return
    marks = dict(zip(parts, _marks(len(parts), messages, tools), strict=True))
    found = write(*_marked(messages, tools, marks)).lower()
    missing = [part for part in parts if marks[part] not in found]
    text = write(messages, tools) if missing else ""
    for part in missing:
        if write(*_marked(messages, tools, {part: marks[part]})) == text:
            raise MaturaError(
                f"the chat template does not write {part.words}, so the model would not see it. Leave it out of the "
                "data, or take a model whose template writes it"
            )


def _parts(messages: Sequence[Message], tools: Sequence[Message]) -> list[_Part]:
    roles = [(i, one["role"]) for i, one in enumerate(messages)]
    told = [
        _Part(f"messages of the role {role!r}", "content", i)
        for i, role in roles
        if role not in ("user", "assistant")
    ]
    calls = [_Part("tool calls", "tool_calls", i) for i, one in enumerate(messages) if one.get("tool_calls")]
    return [*told, *calls, *([_Part("the tools", "tools")] if tools else [])]


def _marks(count: int, messages: Sequence[Message], tools: Sequence[Message]) -> list[str]:
    """Words that stand nowhere yet, none of them within another."""
    written = json.dumps([dict(one) for one in (*messages, *tools)], default=str).lower()
    number = 0
    while f"zq{number}x" in written:
        number += 1
    return [f"zq{number}x{i}q" for i in range(count)]


def _marked(
    messages: Sequence[Message], tools: Sequence[Message], marks: Mapping[_Part, str]
) -> tuple[list[Message], Sequence[Message]]:
    """The conversation with a mark at the end of some parts: of a content, or of the names of functions."""
    changed = list(messages)
    for (_, key, i), mark in marks.items():
        if key == "tools":
            tools = _renamed(tools, mark)
        else:
            value = changed[i][key]
            changed[i] = {**changed[i], key: f"{value} {mark}" if key == "content" else _renamed(value, mark)}
    return changed, tools


def _renamed(calls: Any, mark: str) -> Any:
    """Tools or calls with other names of the functions."""
    if isinstance(calls, Mapping):
        return {
            key: f"{value}{mark}" if key == "name" and isinstance(value, str) else _renamed(value, mark)
            for key, value in calls.items()
        }
    return [_renamed(one, mark) for one in calls] if isinstance(calls, list | tuple) else calls
