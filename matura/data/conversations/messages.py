"""One message and a whole conversation, checked: roles, contents, tool calls, weights, and whose turn it is.

Everything here raises FormatError with the place inside the row (`messages[2].content: ...`).
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from matura.core.errors import FormatError

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "chatgpt": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "tool_response": "tool",
}
"""Names of roles in the known forms, and ours."""
KEPT = ("name", "tool_call_id", "reasoning_content")
"""Further fields of a message that templates read."""
MAX_MESSAGES = 2_000
MAX_CHARACTERS = 8 << 20
MAX_DEPTH = 32
MAX_WEIGHT = 100.0

Message = dict[str, Any]


def message(value: Any, place: str) -> Message:
    """A message in OpenAI's form as ours: `weight` 0 for `train: false`, contents in parts joined, `null` left out."""
    if not isinstance(value, Mapping):
        raise FormatError(f"{place}: expected an object with role and content, found {value!r:.60}")
    given = {key: one for key, one in value.items() if one is not None}
    for key in ("function_call", "images", "audio"):
        if given.get(key):
            hint = "; write it as tool_calls" if key == "function_call" else ""
            raise FormatError(f"{place}.{key}: this is not supported{hint}")
    role = role_of(given.get("role"), f"{place}.role")
    calls = tool_calls(given.get("tool_calls"), f"{place}.tool_calls")
    if calls and role != "assistant":
        raise FormatError(f"{place}.tool_calls: only an assistant calls tools, not a {role}")
    made: Message = {"role": role, "content": _content(given.get("content"), calls, role, place)}
    made |= {"tool_calls": calls} if calls else {}
    made |= {key: text(given[key], f"{place}.{key}") for key in KEPT if key in given}
    weight = weight_of(given, role, place)
    return made if weight == 1 else {**made, "weight": weight}


def role_of(value: Any, place: str) -> str:
    """The role, by any of its names."""
    if not isinstance(value, str) or value.lower() not in ROLES:
        close = difflib.get_close_matches(str(value).lower(), ROLES, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(ROLES)}"
        raise FormatError(f"{place}: unknown role {value!r:.60}; {hint}")
    return ROLES[value.lower()]


def weight_of(given: Mapping[str, Any], role: str, place: str) -> float:
    """What scales the loss of a message: its `weight`, 0 with `train: false`, else 1."""
    weight, train = given.get("weight", 1), given.get("train", True)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight <= MAX_WEIGHT:
        raise FormatError(f"{place}.weight: expected a number from 0 to {MAX_WEIGHT:g}, found {weight!r:.60}")
    if not isinstance(train, bool):
        raise FormatError(f"{place}.train: expected true or false, found {train!r:.60}")
    if role == "assistant":
        return float(weight) if train else 0.0
    if weight not in (0, 1) or given.get("train") is True:
        raise FormatError(f"{place}: only assistant messages are trained, so a {role}'s has no weight")
    return 1.0


def text(value: Any, place: str) -> str:
    """Text that is valid Unicode and not absurdly long."""
    if not isinstance(value, str):
        raise FormatError(f"{place}: expected text, found {value!r:.60}")
    if len(value) > MAX_CHARACTERS:
        raise FormatError(f"{place}: {len(value):,} characters, the limit is {MAX_CHARACTERS:,}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise FormatError(f"{place}: not valid Unicode at character {error.start}") from error
    return value


def _content(value: Any, calls: list[Message], role: str, place: str) -> str:
    if isinstance(value, list | tuple):
        for i, part in enumerate(value):
            kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
            if kind != "text":
                raise FormatError(f"{place}.content[{i}]: only text is supported, found {kind!r:.60}")
        value = "".join(text(part.get("text"), f"{place}.content[{i}]") for i, part in enumerate(value))
    if value is None and calls:
        return ""
    if value is None:
        raise FormatError(f"{place}: has no content")
    content = text(value, f"{place}.content")
    if not content.strip() and not calls and role in ("user", "assistant"):
        raise FormatError(f"{place}.content: is empty")
    return content


def tool_calls(value: Any, place: str) -> list[Message]:
    """Calls in OpenAI's form, their arguments as objects: templates write those as JSON themselves."""
    if value is None:
        return []
    if not isinstance(value, list | tuple):
        raise FormatError(f"{place}: expected a list, found {value!r:.60}")
    return [tool_call(one, f"{place}[{i}]") for i, one in enumerate(value)]


def tool_call(value: Any, place: str) -> Message:
    """One call: {"function": {"name", "arguments"}} or the inner object alone; arguments an object or its JSON."""
    function = value.get("function", value) if isinstance(value, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str) or not function["name"]:
        raise FormatError(f"{place}: expected a function with name and arguments, found {value!r:.80}")
    arguments = function.get("arguments", {})
    arguments = parsed(arguments, f"{place}.arguments") if isinstance(arguments, str) else arguments
    if not isinstance(arguments, dict):
        raise FormatError(f"{place}.arguments: expected an object, found {arguments!r:.60}")
    check_json(function, f"{place}.function")
    check_json(arguments, f"{place}.arguments")
    made: Message = {
        "type": "function",
        "function": {"name": function["name"], "arguments": dict(arguments)},
    }
    identity = value.get("id")
    return {"id": text(identity, f"{place}.id"), **made} if identity is not None else made


def tools_of(value: Any, place: str = "tools") -> tuple[Message, ...]:
    """Descriptions of tools: a list of objects, or its JSON."""
    if isinstance(value, str):
        value = parsed(value, place) if value.strip() else None
    if value is None:
        return ()
    if not isinstance(value, list | tuple) or not all(isinstance(tool, Mapping) for tool in value):
        raise FormatError(f"{place}: expected a list of objects, found {value!r:.60}")
    for i, tool in enumerate(value):
        check_json(tool, f"{place}[{i}]")
    return tuple(dict(tool) for tool in value)


def parsed(value: str, place: str) -> Any:
    """The value of a text of JSON."""
    try:
        return json.loads(text(value, place))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{place}: not JSON: {error}"[:200]) from error


def check_json(value: Any, place: str, depth: int = 0) -> None:
    """Raises FormatError for values that no JSON has, are nested too deep, or hold text that is not valid."""
    if depth > MAX_DEPTH:
        raise FormatError(f"{place}: nested over {MAX_DEPTH} deep")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            check_json(text(key, place), place, depth + 1)
            check_json(inner, place, depth + 1)
    elif isinstance(value, list | tuple):
        for inner in value:
            check_json(inner, place, depth + 1)
    elif isinstance(value, str):
        text(value, place)
    elif isinstance(value, float) and not math.isfinite(value):
        raise FormatError(f"{place}: {value} is no JSON number")
    elif not isinstance(value, int | float | bool | None):
        raise FormatError(f"{place}: holds a {type(value).__name__}, which JSON has not")


def check_order(messages: Sequence[Message], place: str = "messages") -> None:
    """Whose turn it is: a system message only first; user and assistant in turn; a tool speaks when it was called."""
    if not messages:
        raise FormatError(f"{place}: is empty")
    if len(messages) > MAX_MESSAGES:
        raise FormatError(f"{place}: {len(messages):,} messages, the limit is {MAX_MESSAGES:,}")
    before = "the start"
    for i, one in enumerate(messages):
        role = one["role"]
        if role not in _AFTER[before]:
            known = " or ".join(sorted(_AFTER[before]))
            raise FormatError(f"{place}[{i}]: {role} after {before}, expected {known}")
        before = "a tool call" if one.get("tool_calls") else role
    if not any(one["role"] == "assistant" for one in messages):
        raise FormatError(f"{place}: no message is an assistant's, so there is nothing to learn")


def opening(messages: Sequence[Message]) -> str:
    """What is asked before the first answer, without a system message."""
    asked = []
    for one in messages:
        if one["role"] == "assistant":
            break
        if one["role"] != "system":
            asked.append(one["content"])
    return "\n".join(asked)


_AFTER = {
    "the start": {"system", "user"},
    "system": {"user"},
    "user": {"assistant"},
    "assistant": {"user"},
    "a tool call": {"tool"},
    "tool": {"tool", "assistant"},
}
