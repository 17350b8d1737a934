"""What a chat template leaves out of a conversation: found by changing it and looking whether the text changes too."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matura.core.errors import MaturaError

Message = Mapping[str, Any]
Write = Callable[[Sequence[Message], Sequence[Message]], str]
"""(messages, tools) -> text."""


def check_written(write: Write, messages: Sequence[Message], tools: Sequence[Message]) -> None:
    """Raises MaturaError when the template passes over the tools, a tool call, or a message of any other role than
    user and assistant. (A model would learn an answer without what it rests on, or an empty one for a call.)"""
    told = [i for i, one in enumerate(messages) if one["role"] not in ("user", "assistant")]
    calling = [i for i, one in enumerate(messages) if one.get("tool_calls")]
    if not (told or calling or tools):
        return
    text = write(messages, tools)

    def check(what: str, changed: Sequence[Message], changed_tools: Sequence[Message]) -> None:
        if write(changed, changed_tools) == text:
            raise MaturaError(
                f"the chat template does not write {what}, so the model would not see it. Leave it out of the data, "
                "or take a model whose template writes it"
            )

    for i in told:
        other = {**messages[i], "content": f"{messages[i]['content']} x"}
        role = messages[i]["role"]
        check(f"messages of the role {role!r}", [*messages[:i], other, *messages[i + 1 :]], tools)
    for i in calling:
        other = {**messages[i], "tool_calls": _renamed(messages[i]["tool_calls"])}
        check("tool calls", [*messages[:i], other, *messages[i + 1 :]], tools)
    if tools:
        check("the tools", messages, _renamed(tools))


def _renamed(calls: Any) -> Any:
    """Tools or calls with other names of the functions."""
    if isinstance(calls, Mapping):
        return {
            key: f"{value}x" if key == "name" and isinstance(value, str) else _renamed(value)
            for key, value in calls.items()
        }
    return [_renamed(one) for one in calls] if isinstance(calls, list | tuple) else calls
