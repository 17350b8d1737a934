"""Rows changed at random, of every form: a conversation that every template can be given, or FormatError."""

import json
import random
from typing import Any

from matura.core.errors import FormatError, MaturaError
from matura.data.conversations.forms import form_of, talk
from tests.tiny_models import chatml

CALL = {"id": "c", "function": {"name": "f", "arguments": '{"a": 1}'}}
ROWS: list[dict[str, Any]] = [
    {
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": [{"type": "text", "text": "a"}]},
            {"role": "assistant", "content": None, "tool_calls": [CALL], "weight": 0.5},
            {"role": "tool", "content": "x", "tool_call_id": "c"},
            {"role": "assistant", "content": "b", "train": True},
        ],
        "tools": [{"name": "f"}],
    },
    {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}], "system": "s"},
    {"conversations": [{"from": "human", "value": "a"}, {"from": "function_call", "value": '{"name": "f"}'}]},
    {"instruction": "a", "input": "b", "output": "c", "history": [["a", "b"]]},
    {"prompt": "a", "completion": "b"},
    {"prompt": [{"role": "user", "content": "a"}], "completion": [{"role": "assistant", "content": "a"}]},
    {"text": "x"},
]
NAMES = sorted(
    {name for row in ROWS for name in row} | {"role", "content", "from", "value", "weight", "name"}
)
VALUES = [
    None,
    True,
    0,
    -1,
    1.5,
    float("inf"),
    "",
    "x",
    "\ud800",
    [],
    {},
    [[]],
    [{}],
    {"a": 1},
    "user",
    "[",
    "{}",
]


def changed(value: Any, draw: random.Random) -> Any:
    """Some values replaced, some keys renamed, some left out."""
    if draw.random() < 0.1:
        return draw.choice(VALUES)
    if isinstance(value, dict):
        names = [draw.choice(NAMES) if draw.random() < 0.03 else name for name in value]
        return {name: changed(inner, draw) for name, inner in zip(names, value.values(), strict=True)}
    return [changed(inner, draw) for inner in value] if isinstance(value, list) else value


def test_random_rows_are_conversations_or_told() -> None:
    draw, format = random.Random(0), chatml()
    read = refused = 0
    unwritten: list[str] = []
    for number in range(2500):
        row = changed(ROWS[number % len(ROWS)], draw)
        form = draw.choice(["auto", "messages", "sharegpt", "alpaca", "prompt", "text"])
        try:
            if not isinstance(row, dict):
                continue
            found = talk(form_of(row) if form in ("auto", "text") else form, row)
        except FormatError:
            refused += 1
            continue
        read += 1
        json.dumps([*found.messages, *found.tools], allow_nan=False).encode()
        assert bool(found.text) != bool(found.messages)
        if found.messages and number % 10 == 0:
            try:
                format.render(found.messages, found.tools)
            except MaturaError as error:
                unwritten.append(str(error))
    assert all("does not write" in one for one in unwritten)  # this template writes no calls
    assert read > 300
    assert refused > 300
