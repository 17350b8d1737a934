"""The forms of a row: told by the columns, and each becomes the same conversation."""

from typing import Any

import pytest

from matura.core.errors import FormatError
from matura.data.conversations.forms import form_of, talk

ASKED, SAID = {"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}
KIND = {"role": "system", "content": "Be kind."}
FORMS: list[tuple[str, dict[str, Any], tuple[dict[str, Any], ...]]] = [
    ("messages", {"messages": [KIND, ASKED, SAID], "prompt": "2+2?", "id": 3}, (KIND, ASKED, SAID)),
    (
        "messages",
        {"messages": [{"role": "developer", "content": "Be kind."}, ASKED, SAID]},
        (KIND, ASKED, SAID),
    ),
    (
        "messages",
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "2+"}, {"type": "text", "text": "2?"}]},
                SAID,
            ]
        },
        (ASKED, SAID),
    ),
    (
        "sharegpt",
        {
            "conversations": [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}],
            "system": "Be kind.",
        },
        (KIND, ASKED, SAID),
    ),
    ("sharegpt", {"conversations": [ASKED, SAID]}, (ASKED, SAID)),
    (
        "sharegpt",
        {"conversation": [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}]},
        (ASKED, SAID),
    ),
    ("alpaca", {"instruction": "2+2?", "input": "", "output": "4", "text": "all of it"}, (ASKED, SAID)),
    (
        "alpaca",
        {"instruction": "2+2?", "input": None, "output": "4", "system": "Be kind."},
        (KIND, ASKED, SAID),
    ),
    (
        "alpaca",
        {"instruction": "Add.", "input": "2+2", "output": "4"},
        ({"role": "user", "content": "Add.\n\n2+2"}, SAID),
    ),
    (
        "alpaca",
        {"instruction": "Add.", "context": "2+2", "response": "4"},
        ({"role": "user", "content": "Add.\n\n2+2"}, SAID),
    ),
    (
        "alpaca",
        {"instruction": "2+2?", "output": "4", "history": [["2+2?", "4"]]},
        (ASKED, SAID, ASKED, SAID),
    ),
    ("prompt", {"prompt": "2+2?", "completion": "4"}, (ASKED, SAID)),
    ("prompt", {"question": "2+2?", "answer": "4"}, (ASKED, SAID)),
    ("prompt", {"input": "2+2?", "output": "4"}, (ASKED, SAID)),
    ("prompt", {"prompt": [KIND, ASKED], "completion": [SAID]}, (KIND, ASKED, SAID)),
    (
        "prompt",
        {"prompt": [ASKED, SAID, ASKED], "completion": [SAID, ASKED, SAID]},
        (ASKED, {**SAID, "weight": 0.0}, ASKED, SAID, ASKED, SAID),
    ),
]


@pytest.mark.parametrize(("form", "row", "messages"), FORMS)
def test_a_form_is_told_by_its_columns_and_read(
    form: str, row: dict[str, Any], messages: tuple[dict[str, Any], ...]
) -> None:
    assert form_of(row) == form
    found = talk(form, row)
    assert found.messages == messages
    assert (found.text, found.tools) == ("", ())


def test_plain_text() -> None:
    assert form_of({"text": "x", "meta": 1}) == "text"
    assert talk("text", {"text": " some text\n"}).text == " some text\n"


CALL = {"name": "add", "arguments": {"a": 2}}
TOOL = {"type": "function", "function": {"name": "add"}}


def test_tool_calls_of_both_forms() -> None:
    """Arguments are objects, as templates want them; OpenAI's files hold them as text of JSON."""
    call = {"type": "function", "function": CALL}
    expected = (
        ASKED,
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "4"},
        SAID,
    )
    theirs = {"function": {"name": "add", "arguments": '{"a": 2}'}, "type": "function"}
    openai = {
        "messages": [ASKED, {"role": "assistant", "content": None, "tool_calls": [theirs]}, *expected[2:]],
        "tools": [TOOL],
    }
    sharegpt = {
        "conversations": [
            {"from": "human", "value": "2+2?"},
            {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 2}}'},
            {"from": "observation", "value": "4"},
            {"from": "gpt", "value": "4"},
        ],
        "tools": '[{"type": "function", "function": {"name": "add"}}]',
    }
    for form, row in (("messages", openai), ("sharegpt", sharegpt)):
        found = talk(form, row)
        assert found.messages == expected
        assert found.tools == (TOOL,)
    named = {**theirs, "id": "c1"}
    kept = talk("messages", {"messages": [ASKED, {**expected[1], "tool_calls": [named]}]}).messages[1]
    assert kept["tool_calls"] == [{"id": "c1", **call}]


def test_weights_of_messages() -> None:
    for more, weight in (
        ({"weight": 0}, 0.0),
        ({"train": False}, 0.0),
        ({"weight": 0.5}, 0.5),
        ({"weight": 2, "train": True}, 2.0),
    ):
        found = talk("messages", {"messages": [ASKED, {**SAID, **more}]})
        assert found.messages[1]["weight"] == weight
    for more in ({"weight": 1}, {"train": True}, {"weight": None, "train": None}):  # a table has every column
        assert talk("messages", {"messages": [{**ASKED, "weight": None}, {**SAID, **more}]}).messages == (
            ASKED,
            SAID,
        )
    assert (
        talk(
            "sharegpt",
            {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b", "weight": 0}]},
        ).messages[1]["weight"]
        == 0
    )


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        (["texts"], "fit none of the known forms"),
        (["instruction"], "fit none"),
        (["prompt", "chosen", "rejected"], "preferences"),
        ([], r"columns \(none\)"),
    ],
)
def test_columns_that_fit_nothing(columns: list[str], told: str) -> None:
    with pytest.raises(FormatError, match=told):
        form_of(columns)


def chat(*messages: Any) -> dict[str, Any]:
    return {"messages": list(messages)}


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("messages", {"message": []}, "has no messages; did you mean 'message'"),
    ("messages", {"messages": "hello"}, "expected a list of messages"),
    ("messages", chat(), "messages: is empty"),
    ("messages", chat("hello"), r"messages\[0\]: expected an object"),
    (
        "messages",
        chat({"role": "asistant", "content": "x"}),
        r"messages\[0\].role: unknown role 'asistant'; did you mean 'assistant'",
    ),
    ("messages", chat({"content": "x"}), "unknown role None"),
    ("messages", chat({"role": ["user"], "content": "x"}), "unknown role"),
    ("messages", chat({"role": "user"}), "has no content"),
    ("messages", chat({"role": "user", "content": " \n"}), r"messages\[0\].content: is empty"),
    ("messages", chat(ASKED, {"role": "assistant", "content": ""}), r"messages\[1\].content: is empty"),
    ("messages", chat({"role": "user", "content": 3}), "expected text, found 3"),
    (
        "messages",
        chat({"role": "user", "content": [{"type": "image_url"}]}),
        "only text is supported, found 'image_url'",
    ),
    ("messages", chat({"role": "user", "content": "\ud800"}), "not valid Unicode at character 0"),
    ("messages", chat(SAID), r"messages\[0\]: assistant after the start, expected system or user"),
    ("messages", chat(ASKED, ASKED, SAID), r"messages\[1\]: user after user, expected assistant"),
    ("messages", chat(ASKED, SAID, SAID), r"messages\[2\]: assistant after assistant, expected user"),
    ("messages", chat(ASKED, SAID, KIND), r"messages\[2\]: system after assistant"),
    ("messages", chat(ASKED, {"role": "tool", "content": "4"}), r"messages\[1\]: tool after user"),
    (
        "messages",
        chat(ASKED, SAID, {"role": "tool", "content": "4"}),
        r"messages\[2\]: tool after assistant, expected user",
    ),
    ("messages", chat(KIND, ASKED), "no message is an assistant's"),
    (
        "messages",
        chat(ASKED, {**SAID, "weight": -1}),
        r"messages\[1\].weight: expected a number from 0 to 100",
    ),
    ("messages", chat(ASKED, {**SAID, "weight": True}), "expected a number"),
    ("messages", chat(ASKED, {**SAID, "weight": float("nan")}), "expected a number"),
    ("messages", chat(ASKED, {**SAID, "train": "no"}), "expected true or false"),
    ("messages", chat({**ASKED, "train": True}, SAID), "only assistant messages are trained"),
    ("messages", chat(ASKED, {**SAID, "function_call": {"name": "f"}}), "write it as tool_calls"),
    ("messages", chat({**ASKED, "tool_calls": [CALL]}, SAID), "only an assistant calls tools"),
    (
        "messages",
        chat(ASKED, {**SAID, "tool_calls": [{"name": ""}]}),
        r"tool_calls\[0\]: expected a function",
    ),
    (
        "messages",
        chat(ASKED, {**SAID, "tool_calls": [{"name": "f", "arguments": "{"}]}),
        "arguments: not JSON",
    ),
    (
        "messages",
        chat(ASKED, {**SAID, "tool_calls": [{"name": "f", "arguments": "[1]"}]}),
        "expected an object",
    ),
    ("messages", chat(ASKED, {**SAID, "tool_calls": "f"}), "expected a list"),
    ("messages", {**chat(ASKED, SAID), "tools": [3]}, "tools: expected a list of objects"),
    ("messages", {**chat(ASKED, SAID), "tools": "[{"}, "tools: not JSON"),
    ("messages", {**chat(ASKED, SAID), "tools": [{"a": float("inf")}]}, "no JSON number"),
    ("sharegpt", {"conversations": [{"from": "humn", "value": "x"}]}, "did you mean 'human'"),
    ("sharegpt", {"conversations": [{"from": "human"}]}, "has no content"),
    ("alpaca", {"instruction": "x"}, "has no output"),
    ("alpaca", {"instruction": None, "output": "x"}, "instruction: expected text"),
    ("alpaca", {"instruction": "x", "output": "x", "history": ["ab"]}, r"history\[0\]"),
    ("prompt", {"prompt": "x", "complation": "y"}, "has no completion; did you mean 'complation'"),
    ("prompt", {"prompt": "x", "completion": " "}, "completion: is empty"),
    ("prompt", {"prompt": [], "completion": "y"}, "prompt: is empty"),
    ("prompt", {"prompt": "x", "completion": [ASKED]}, "begins with a user's message"),
    ("text", {"txt": "x"}, "has no text; did you mean 'txt'"),
    ("text", {"text": "\n"}, "text: is empty"),
]


@pytest.mark.parametrize(("form", "row", "told"), BAD)
def test_what_is_wrong_with_a_row_is_said(form: str, row: dict[str, Any], told: str) -> None:
    with pytest.raises(FormatError, match=told):
        talk(form, row)


def test_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    from matura.data.conversations import messages

    monkeypatch.setattr(messages, "MAX_CHARACTERS", 10)
    monkeypatch.setattr(messages, "MAX_MESSAGES", 4)
    with pytest.raises(FormatError, match="11 characters, the limit is 10"):
        talk("messages", chat({"role": "user", "content": "x" * 11}))
    with pytest.raises(FormatError, match="6 messages, the limit is 4"):
        talk("messages", chat(*[ASKED, SAID] * 3))
    deep: Any = {}
    for _ in range(50):
        deep = {"a": deep}
    with pytest.raises(FormatError, match="nested over 32 deep"):
        talk("messages", {**chat(ASKED, SAID), "tools": [deep]})
