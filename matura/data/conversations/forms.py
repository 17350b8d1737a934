"""The known forms of a row, told by its columns, and what each becomes."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from matura.core.errors import FormatError
from matura.data.conversations.messages import (
    Message,
    check_order,
    message,
    parsed,
    role_of,
    text,
    tool_call,
    tools_of,
    weight_of,
)


@dataclass(frozen=True, slots=True)
class Talk:
    """What a row holds: messages with the tools they may call, or a plain text."""

    messages: tuple[Message, ...] = ()
    text: str = ""
    tools: tuple[Message, ...] = ()


QUESTIONS = ("prompt", "question", "query", "input")
ANSWERS = ("completion", "answer", "response", "output")
OUTPUTS = ("output", "response", "completion", "answer")  # of an instruction
MESSAGES = ("messages", "conversations", "conversation")
"""Columns that hold a list of messages; the items tell whether they are OpenAI's or ShareGPT's."""
_BESIDE = ("text", "tools", "system", "system_prompt", "instruction", "input", "context", "history")
COLUMNS = frozenset((*QUESTIONS, *ANSWERS, *MESSAGES, *_BESIDE))
"""All columns that are read."""

LEFT_OUT = {"messages": ("system", "system_prompt"), "alpaca": ("tools",), "prompt": ("context", "history")}
"""Columns that other forms read, by form."""
_AS_INSTRUCTION = "Call what is asked an instruction (data.columns.instruction={asked}), and it is read"
INSTEAD = {
    "system": "Make it the first of the messages",
    "system_prompt": "Make it the first of the messages",
    "tools": "Write the rows as messages",
    "context": _AS_INSTRUCTION,
    "history": _AS_INSTRUCTION,
}


def form_of(columns: Iterable[str]) -> str:
    """The form that the columns show; the first that fits, in the order below. Raises FormatError when none does."""
    names = set(columns)
    if found := [name for name in MESSAGES if name in names]:
        return "messages" if found[0] == "messages" else "sharegpt"
    if "instruction" in names and names.intersection(ANSWERS):
        return "alpaca"
    if names.intersection(QUESTIONS) and names.intersection(ANSWERS):
        return "prompt"
    if "text" in names:
        return "text"
    shown = ", ".join(sorted(names)[:20]) or "none"
    known = "messages; conversations; instruction and output; prompt and completion; text"
    preferences = " These are preferences, of which fine-tuning learns nothing." if "chosen" in names else ""
    raise FormatError(
        f"the columns ({shown}) fit none of the known forms ({known}).{preferences} Name them, for example with "
        "data.columns.prompt=NAME data.columns.completion=NAME"
    )


def check_read(form: str, values: Mapping[str, Any]) -> None:
    """Raises FormatError for a column that is not empty, that other forms read and this one does not: where the columns
    told the form, nobody said that it may be left out."""
    for column in LEFT_OUT.get(form, ()):
        given = values.get(column)
        if given and given != "[]" and not (form == "messages" and _has_system(given, values)):
            asked = next((name for name in QUESTIONS if values.get(name) is not None), QUESTIONS[0])
            instead = INSTEAD[column].format(asked=asked)
            raise FormatError(
                f"{column}: the form {form} is read without it. {instead}, or leave it out with data.form={form}"
            )


def _has_system(system: Any, values: Mapping[str, Any]) -> bool:
    """Whether the messages begin with this system message already, or get it."""
    name, items = _items(values)
    own = {"role": "system", "content": system}
    return name != "messages" or (bool(items) and either(items[0], f"{name}[0]") == own)


def talk(form: str, values: Mapping[str, Any]) -> Talk:
    """A row as a conversation. Raises FormatError saying what is wrong with it."""
    found = _READERS[form](values)
    if not found.text:
        check_order(found.messages)
    return found


def _messages(values: Mapping[str, Any]) -> Talk:
    name, items = _items(values)
    system = system_of(values) if name != "messages" else []
    made = [either(one, f"{name}[{i}]") for i, one in enumerate(items)]
    return Talk((*system, *made), tools=tools_of(values.get("tools")))


def _items(values: Mapping[str, Any]) -> tuple[str, list[Any] | tuple[Any, ...]]:
    name = next((name for name in MESSAGES if values.get(name) is not None), None)
    if name is None:
        raise FormatError(f"has no {MESSAGES[0]}" + near(MESSAGES[0], values))
    items = values[name]
    if not isinstance(items, list | tuple):
        raise FormatError(f"{name}: expected a list of messages, found {items!r:.60}")
    return name, items


def either(value: Any, place: str) -> Message:
    """A message in OpenAI's or in ShareGPT's form."""
    if not isinstance(value, Mapping) or value.get("from") is None:
        return message(value, place)
    if value["from"] != "function_call":
        role = role_of(value["from"], f"{place}.from")
        rest = {key: value.get(key) for key in ("weight", "train", "name")}
        return message({"role": role, "content": value.get("value"), **rest}, place)
    calls = parsed(text(value.get("value"), f"{place}.value"), f"{place}.value")
    calls = calls if isinstance(calls, list) else [calls]
    made = [tool_call(one, f"{place}.value") for one in calls]
    call: Message = {"role": "assistant", "content": "", "tool_calls": made}
    weight = weight_of({key: one for key, one in value.items() if one is not None}, "assistant", place)
    return call if weight == 1 else {**call, "weight": weight}


def _alpaca(values: Mapping[str, Any]) -> Talk:
    name, answer = first_of(values, OUTPUTS)
    return Talk((*system_of(values), *instructed(values), _said("assistant", answer, name)))


def instructed(values: Mapping[str, Any]) -> list[Message]:
    """Stanford Alpaca's columns up to the answer; `input` (or `context`) follows the instruction after an empty
    line."""
    asked = text(values.get("instruction"), "instruction")
    more = next((values[name] for name in ("input", "context") if values.get(name)), "")
    if more:
        asked = f"{asked}\n\n{text(more, 'input')}"
    history = values.get("history") or ()
    if not isinstance(history, list | tuple):
        raise FormatError(f"history: expected a list, found {history!r:.60}")
    turns: list[Message] = []
    for i, pair in enumerate(history):
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise FormatError(f"history[{i}]: expected a question and its answer, found {pair!r:.60}")
        turns += [_said("user", pair[0], f"history[{i}][0]"), _said("assistant", pair[1], f"history[{i}][1]")]
    return [*turns, _said("user", asked, "instruction")]


def _prompt(values: Mapping[str, Any]) -> Talk:
    """Texts, or lists of messages; then answers within the prompt are read, not trained."""
    asked_name, asked = first_of(values, QUESTIONS)
    answer_name, answer = first_of(values, ANSWERS)
    before = said("user", asked, asked_name)
    after = said("assistant", answer, answer_name)
    if isinstance(asked, list | tuple):
        before = [{**one, "weight": 0.0} if one["role"] == "assistant" else one for one in before]
    if after[0]["role"] != "assistant":
        raise FormatError(f"{answer_name}: begins with a {after[0]['role']}'s message, not an assistant's")
    return Talk((*system_of(values), *before, *after), tools=tools_of(values.get("tools")))


def said(role: str, value: Any, name: str) -> list[Message]:
    """A text as one message of this role, or a list of messages."""
    if not isinstance(value, list | tuple):
        return [_said(role, value, name)]
    if not value:
        raise FormatError(f"{name}: is empty")
    return [either(one, f"{name}[{i}]") for i, one in enumerate(value)]


def _text(values: Mapping[str, Any]) -> Talk:
    if values.get("text") is None:
        raise FormatError("has no text" + near("text", values))
    found = text(values["text"], "text")
    if not found.strip():
        raise FormatError("text: is empty")
    return Talk(text=found)


_READERS: dict[str, Callable[[Mapping[str, Any]], Talk]] = {
    "messages": _messages,
    "sharegpt": _messages,
    "alpaca": _alpaca,
    "prompt": _prompt,
    "text": _text,
}


def system_of(values: Mapping[str, Any]) -> list[Message]:
    """The system message of a column beside the others, if there is one."""
    given = values.get("system") or values.get("system_prompt")
    return [{"role": "system", "content": text(given, "system")}] if given else []


def _said(role: str, value: Any, place: str) -> Message:
    content = text(value, place)
    if not content.strip():
        raise FormatError(f"{place}: is empty")
    return {"role": role, "content": content}


def first_of(values: Mapping[str, Any], names: Iterable[str]) -> tuple[str, Any]:
    """The first of these columns that is there."""
    wanted = list(names)
    for name in wanted:
        if values.get(name) is not None:
            return name, values[name]
    raise FormatError(f"has no {wanted[0]}" + near(wanted[0], values))


def near(wanted: str, values: Mapping[str, Any]) -> str:
    """The column that may have been meant, else the columns there are: the end of a message."""
    close = difflib.get_close_matches(wanted, [str(name) for name in values], n=1)
    shown = ", ".join(str(name) for name in list(values)[:12])
    return f"; did you mean {close[0]!r}?" if close else f"; its columns are {shown or 'none'}"
