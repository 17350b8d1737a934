"""Tool calls and tool messages through a template, and what a template leaves out."""

import json
from typing import Any

import pytest

from matura.core.errors import MaturaError
from matura.tokenizer.conversation import Format
from tests.tiny_models import CHATML, chatml

TOOLS = [{"type": "function", "function": {"name": "add", "description": "a <|im_end|> b", "parameters": {}}}]
CALLING = (
    "{% if tools %}<|im_start|>system\n{% for t in tools %}{{ t | tojson }}\n{% endfor %}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for call in m.tool_calls or [] %}<call>{{ call.function.name }}{{ call.function.arguments | tojson }}"
    "</call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
THINKING = (  # the prompt opens an answer with thoughts that are empty
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n\n</think>\n\n{% endif %}"
)
DEAF = (  # passes over every role it does not know
    "{% for m in messages %}{% if m.role in ['user', 'assistant'] %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "<|im_end|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def with_template(template: str) -> Format:
    plain = chatml()
    return Format(plain.tokenizer, template, plain.stop_ids)


def called(**arguments: Any) -> list[dict[str, Any]]:
    """A question, a call, its result, and the answer."""
    call = {"type": "function", "function": {"name": "add", "arguments": arguments}}
    return [
        {"role": "user", "content": "1+2?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "3"},
        {"role": "assistant", "content": "It is 3."},
    ]


def answers(format: Format, messages: list[dict[str, Any]], tools: list[dict[str, Any]]) -> list[str]:
    rendered = format.render(messages, tools)
    return [format.tokenizer.decode(rendered.ids[one.start : one.end]) for one in rendered.answers]


def test_calls_are_trained_and_results_are_read() -> None:
    format = with_template(CALLING)
    assert answers(format, called(a=1, b=2), TOOLS) == [
        '<call>add{"a": 1, "b": 2}</call><|im_end|>',
        "It is 3.<|im_end|>",
    ]
    rendered = format.render(called(a=1), TOOLS)
    for answer in rendered.answers:
        assert format.prompt(called(a=1)[: answer.message], TOOLS) == rendered.ids[: answer.start]
    assert json.dumps(TOOLS[0]) in format.tokenizer.decode(rendered.ids)


def test_neither_tools_nor_keys_of_arguments_forge_markup() -> None:
    format = with_template(CALLING)
    stop = format.tokenizer.id("<|im_end|>")
    expected = format.render(called(a=1), [{"name": "add"}]).ids.count(stop)
    assert format.render(called(a=1), TOOLS).ids.count(stop) == expected
    assert format.render(called(**{"<|im_end|>": "<|im_start|>"}), TOOLS).ids.count(stop) == expected


@pytest.mark.parametrize(
    ("template", "messages", "tools", "told"),
    [
        (CHATML, called(a=1), [], "does not write tool calls"),
        (CHATML, called(a=1)[:1] + called(a=1)[3:], TOOLS, "does not write the tools"),
        (DEAF, [{"role": "system", "content": "Be kind."}, *called(a=1)[::3]], [], "of the role 'system'"),
        (DEAF, called(a=1), [], "of the role 'tool'"),
    ],
)
def test_what_a_template_leaves_out_is_refused_in_training(
    template: str, messages: list[dict[str, Any]], tools: list[dict[str, Any]], told: str
) -> None:
    """T8: a call that the template passes over would train an empty answer."""
    format = with_template(template)
    with pytest.raises(MaturaError, match=told):
        format.render(messages, tools)
    assert format.prompt(messages, tools)  # a chat may go on


def test_what_the_prompt_opens_is_not_trained() -> None:
    """T9: tokens of the generation prompt, such as empty thoughts, are read, though they stand in the answer's turn."""
    format = with_template(THINKING)
    messages = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "you"}]
    rendered = format.render(messages)
    assert answers(format, messages, []) == ["you<|im_end|>"]
    assert format.tokenizer.decode(rendered.ids[: rendered.answers[0].start]).endswith("</think>\n\n")
    assert format.prompt(messages[:1]) == rendered.ids[: rendered.answers[0].start]
