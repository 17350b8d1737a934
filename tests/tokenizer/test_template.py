"""Chat templates of well-known styles write what transformers writes, and nothing they do reaches out."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from transformers.utils.chat_template_utils import _compile_jinja_template

from matura.core.errors import FormatError, MaturaError
from matura.tokenizer.conversation import Format
from matura.tokenizer.template import MAX_CHARACTERS, Template
from tests.tiny_models import chatml
from tests.tokenizer.chat_templates import ALL, CONVERSATIONS, LLAMA, TOOLS


def values(messages: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {"messages": messages, "add_generation_prompt": True, "bos_token": "<s>", "tools": None} | more


@pytest.mark.parametrize("tools", [None, TOOLS])
@pytest.mark.parametrize("messages", CONVERSATIONS)
@pytest.mark.parametrize("name", ALL)
def test_writes_what_transformers_writes(name: str, messages: list[dict[str, Any]], tools: Any) -> None:
    ours, theirs = Template(ALL[name]), _compile_jinja_template(ALL[name])
    for prompt in (True, False):
        given = values(messages, add_generation_prompt=prompt, tools=tools)
        assert ours.render(given) == theirs.render(**given)


def test_tool_calls_and_their_results() -> None:
    call = {"function": {"name": "weather", "arguments": {"city": "Zürich", "days": [1, 2]}}}
    messages = [
        *CONVERSATIONS[0],
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "sunny"},
    ]
    assert Template(LLAMA).render(values(messages)) == _compile_jinja_template(LLAMA).render(
        **values(messages)
    )
    with pytest.raises(Exception, match="one call at a time"):
        Template(LLAMA).render(values([{"role": "assistant", "content": "", "tool_calls": [call, call]}]))


def test_the_date_can_be_fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    assert Template("{{ strftime_now('%d %b %Y %%') }}").render(values([])) == "02 Jan 1970 %"


@pytest.mark.parametrize(
    "expression",
    [
        "'a' * 3 ~ [1, (2,)] ~ {'k': 1.5}", "[3, 1, 2] | sort | join('-', attribute=none)", "'ab' in 'cabd'",
        "[1, 2] + [3] == [1, 2, 3]", "(messages | map('string') or 1) is string", "range(5) | list",
        "range(9)[2:8:2] | list | tojson(indent=2)",
        "'%05.1f|%s|%%' | format(2.25, 'x')", "'{0:>4}{{{1!r}}}'.format(1, 'é')",
        "'a\nb\n\nc' | indent(2, first=true)", "'x' | center(5)", "'banana' | replace('a', 'o', 2)",
        "'banana'.replace('', '.')", "'  a '.strip() ~ ' b\n' | trim",
        "'a,b,c'.rsplit(',', 1)", "', '.join(['a', 'b'])",
        "{'b': 1, 'a': 2} | dictsort", "{'b': 1}.items() | list", "[{'n': 1}, {'n': 2}] | sum(attribute='n')",
        "[1.26, 2] | map('round', 1) | list", "missing | default('d')", "missing is defined", "(1, 2) | first",
        "[1, [2]] | string | upper", "'aXb' | lower | capitalize", "7 // 2 ** 2 % 5 - -1", "1 < 2 <= 2 != 3",
        "'<' | e", "messages[0]['content'][::-1]", "messages[0].nothing is undefined", "'ab' | list | reverse | list",
        "'w' | tojson ~ ('é' | tojson(ensure_ascii=true))", "dict(a=1) | length", "[[1, 2], [3]] | map('length') | max",
    ],
)  # fmt: skip
def test_expressions_have_their_ordinary_values(expression: str) -> None:
    template = "{{ " + expression + " }}"
    given = values(CONVERSATIONS[0])
    assert Template(template).render(given) == _compile_jinja_template(template).render(**given)


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}", "{{ messages.__class__ }}", "{{ messages['__class__'] }}",
        "{{ raise_exception.__globals__ }}", "{{ range.__globals__ }}", "{{ cycler.__init__.__globals__ }}",
        "{{ '' | attr('__class__') }}", "{{ [''] | map(attribute='__class__') | list }}",
        "{{ [''] | map('attr', '__class__') | list }}", "{{ '{0.__class__}'.format('') }}",
        "{{ '{x.__class__}'.format_map({'x': 1}) }}", "{{ dict.mro() }}",
        "{{ messages.append(1) }}", "{{ messages.clear() }}", "{{ dict.update(messages[0], {'role': 'x'}) }}",
        "{{ messages[0].update({'role': 'x'}) }}", "{{ (messages | map('upper')).gi_frame }}", "{{ 'a'.encode() }}",
        "{{ (1).to_bytes(2, 'big') }}", "{{ lipsum() }}", "{% include '/etc/passwd' %}", "{% import 'os' as os %}",
        "{% extends 'x' %}", "{% block a %}{% endblock %}", "{{ [1, 2] | random }}", "{{ 'a' | urlize }}",
    ],
)  # fmt: skip
def test_nothing_outside_is_reached(template: str) -> None:
    messages = [{"role": "user", "content": "hello"}]
    with pytest.raises(MaturaError):
        Format(chatml().tokenizer, template, ()).prompt(messages)
    assert messages == [{"role": "user", "content": "hello"}]


def test_a_key_may_be_named_like_a_method_that_is_not_for_templates() -> None:
    given = values([{"role": "user", "content": "x", "copy": 3}])
    assert Template("{{ messages[0].copy }}{{ messages[0].get('role') }}").render(given) == "3user"


def test_a_template_that_is_none_is_refused() -> None:
    for source in ("{% for %}", "{{ 'a' | nothing }}", "{{ " + "(" * 9000, "{{ " + "9" * 9000 + " }}"):
        with pytest.raises(FormatError, match="not valid Jinja"):
            Template(source)
    with pytest.raises(FormatError, match=f"more than {MAX_CHARACTERS}"):
        Template("x" * (MAX_CHARACTERS + 1))
    with pytest.raises(FormatError, match="expressions and statements"):
        Template("{{a+b+c}}" * 4500)


def test_a_long_conversation_is_no_attack() -> None:
    content = "Some words of an ordinary question, and <tool_response> too.\n" * 400
    messages = [{"role": ("user", "assistant")[i % 2], "content": content} for i in range(100)]
    many = [{"role": ("user", "assistant")[i % 2], "content": "hi"} for i in range(2000)]
    for name in ("llama", "gemma", "qwen", "chatml"):
        template, theirs = Template(ALL[name]), _compile_jinja_template(ALL[name])
        for one in (messages, many):
            assert template.render(values(one)) == theirs.render(**values(one))


def test_several_threads_share_a_template() -> None:
    template = Template("{% for i in range(300) %}{{ messages[0].content }}{% endfor %}")
    endless = Template("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}")

    def write(n: int) -> str:
        if n == 7:
            with pytest.raises(FormatError, match="far more work"):
                endless.render(values([]))
        return template.render(values([{"role": "user", "content": str(n)}]))

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(write, range(40))) == [str(n) * 300 for n in range(40)]


def test_the_price_of_counting_is_small() -> None:
    template = Template(ALL["chatml"])
    talk = [{"role": ("user", "assistant")[i % 2], "content": "Some words. " * 30} for i in range(6)]
    start = time.process_time()
    for _ in range(100):
        template.render(values(talk))
    assert time.process_time() - start < 0.2  # 2 ms each; about 0.05 ms on an idle machine
