"""Random templates: each is refused or written, in little time and memory, and never brings the process down."""

import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from matura.core.errors import MaturaError
from matura.tokenizer.filters import FILTERS

MEMORY, SECONDS = 300 << 20, 3.0
ATOMS = [
    "0", "1", "-1", "2.5", "99999", "2147483647", "10 ** 20", "''", "'ab'", "'a\n' * 1000",
    "'%s%9999d'", "true", "none", "x", "y", "ns", "ns.v", "messages", "messages[0]",
    "messages[0].content", "range(99999)", "[]", "{}", "missing", "messages[1]", "ns.v", "dict",
    "range", "namespace", "cycler", "joiner", "bos_token", "strftime_now", "'{0}{1:>99}'",
    "'\ue000\U0001f600'",
]  # fmt: skip
METHODS = [
    "capitalize", "casefold", "center", "count", "endswith", "expandtabs", "find", "format",
    "format_map", "get", "index", "items", "join", "keys", "ljust", "lower", "lstrip", "partition",
    "pop", "replace", "rfind", "rjust", "rpartition", "rsplit", "split", "splitlines", "startswith",
    "strip", "swapcase", "title", "translate", "update", "upper", "values", "zfill", "append",
    "__class__", "__len__", "cycle", "next", "current", "changed", "length",
]  # fmt: skip
KINDS = ["defined", "string", "mapping", "upper", "divisibleby(7)", "eq('ab')", "in(messages)"]
NAMES = sorted(FILTERS)
OPERATORS = ["+", "-", "*", "/", "//", "%", "**", "~", "==", "<", ">=", "in", "not in", "and", "or"]


def expression(draw: random.Random, depth: int) -> str:
    """A random expression."""

    def one() -> str:
        return expression(draw, depth - 1)

    def some() -> str:
        return ", ".join(one() for _ in range(draw.randrange(4)))

    if depth <= 0 or draw.random() < 0.15:
        return draw.choice(ATOMS)
    kinds: list[Callable[[], str]] = [
        lambda: f"({one()} {draw.choice(OPERATORS)} {one()})",
        lambda: f"({one()} {draw.choice(OPERATORS)} {one()})",
        lambda: f"({one()}) | {draw.choice(NAMES)}({some()})",
        lambda: f"({one()}) | {draw.choice(['map', 'select', 'reject'])}('{draw.choice(NAMES)}') | list",
        lambda: f"({one()}) is {draw.choice(KINDS)}",
        lambda: f"({one()}).{draw.choice(METHODS)}({some()})",
        lambda: f"({one()})[{one()}]",
        lambda: f"({one()})[{one()}:{one()}]",
        lambda: f"[{some()}]",
        lambda: f"({some()},)" if draw.random() < 0.5 else f"{{{one()}: {one()}}}",
        lambda: f"({one()} if {one()} else {one()})",
        lambda: f"{draw.choice(['f', 'range', 'namespace', 'dict', 'cycler'])}({some()})",
    ]  # fmt: skip
    return draw.choice(kinds)()


def statement(draw: random.Random, depth: int) -> str:
    """A random piece of a template."""

    def body() -> str:
        return "".join(statement(draw, depth - 1) for _ in range(draw.randrange(1, 3)))

    def one() -> str:
        return expression(draw, draw.randrange(4))

    if depth <= 0 or draw.random() < 0.3:
        return "{{ " + one() + " }}"
    kinds: list[Callable[[], str]] = [
        lambda: "{% set x = " + one() + " %}",
        lambda: "{% set ns.v = " + one() + " %}",
        lambda: "{% set y %}" + body() + "{% endset %}",
        lambda: "{% for x in " + one() + " %}" + body() + "{% endfor %}",
        lambda: "{% for x in range(60) %}{% set ns.v = " + one() + " %}" + body() + "{% endfor %}",
        lambda: "{% for x in " + one() + " recursive %}" + body() + "{{ loop(" + one() + ") }}{% endfor %}",
        lambda: "{% if " + one() + " %}" + body() + "{% else %}" + body() + "{% endif %}",
        lambda: "{% macro f(x, y=1) %}" + body() + "{% endmacro %}",
        lambda: "{% call f(" + one() + ") %}" + body() + "{% endcall %}",
        lambda: "{% filter " + draw.choice(NAMES) + " %}" + body() + "{% endfilter %}",
        lambda: "{% with y = " + one() + " %}" + body() + "{% endwith %}",
    ]
    return draw.choice(kinds)()


def attack(count: int, seed: int) -> None:
    """Prints how many templates were refused and how many wrote something."""
    from matura.tokenizer.conversation import Format
    from tests.tiny_models import chatml

    tokenizer, draw = chatml().tokenizer, random.Random(seed)
    messages = [{"role": "user", "content": "hello"}, {"role": "user", "content": "é" * 50}]
    Format(tokenizer, "{{ messages }}", ()).prompt(messages)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    counts = {"refused": 0, "written": 0}
    for _ in range(count):
        opening = "{% set ns = namespace(v='a') %}{% macro f(x=1, y=2) %}{{ x }}{{ caller() if caller }}{% endmacro %}"
        template = opening + statement(draw, draw.randrange(4))
        start = time.process_time()
        try:
            format = Format(tokenizer, template, ())
            format._text(messages, generation_prompt=True)
            counts["written"] += 1
        except MaturaError as error:
            assert not isinstance(error.__cause__, MemoryError), template  # noqa: PT017
            counts["refused"] += 1
        seconds = time.process_time() - start
        assert seconds < SECONDS, f"{seconds:.1f} s: {template}"
    print(counts["refused"], counts["written"])


def test_random_templates_are_written_or_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-Wignore", "-m", "tests.tokenizer.test_template_fuzz", "250", "0"],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr[-3000:]
    refused, written = map(int, done.stdout.split())
    assert refused > 50
    assert written > 20


if __name__ == "__main__":
    attack(int(sys.argv[1]), int(sys.argv[2]))
