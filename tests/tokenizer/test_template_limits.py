"""Templates that work without end or write without measure: each is stopped within seconds and little memory."""

import resource
import subprocess
import sys
import time
from pathlib import Path

from matura.core.errors import FormatError, MaturaError

MEMORY, SECONDS = 300 << 20, 2.0
TWICE = "{% for i in range(99999) %}{% for j in range(99999) %}BODY{% endfor %}{% endfor %}"
GROWING = (
    "{% set ns = namespace(s=START) %}{% for i in range(70) %}{% set ns.s = STEP %}{% endfor %}{{ ns.s }}"
)
LONG = "{% set a = 'a' * 1000000 %}{% set b = 'b' * 1000000 ~ 'a' %}"
OFTEN = LONG + "{% for i in range(99999) %}BODY{% endfor %}"


def growing(start: str, step: str) -> str:
    return GROWING.replace("START", start).replace("STEP", step)


def often(body: str) -> str:
    return OFTEN.replace("BODY", body)


LOOPS = {
    "nested loops": TWICE.replace("BODY", ""),
    "nested loops that write": TWICE.replace("BODY", "x"),
    "loops that pass everything over": TWICE.replace(") %}BODY", ") if false %}"),
    "a macro that calls itself": "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
    "a macro that calls itself twice": "{% macro f(n) %}{{ f(n - 1) ~ f(n - 1) if n }}{% endmacro %}{{ f(60) }}",
    "a loop that calls itself": "{% for x in [1] recursive %}{{ loop([1, 1]) }}{% endfor %}",
    "a loop that calls itself often": "{% for x in [1] recursive %}{{ loop([1, 1]) if loop.depth < 60 }}{% endfor %}",
    "a long body": "{% for i in range(99999) %}" + "{% set b = i %}" * 3000 + "{% endfor %}",
    "a long constant": "{% for i in range(99999) %}{% set b = [" + "0," * 15000 + "] %}{% endfor %}",
    "a long text": "{% for i in range(99999) %}" + "x" * 50000 + "{% endfor %}",
    "a long text that is kept": "{% set x %}{% for i in range(99999) %}" + "x" * 50000 + "{% endfor %}{% endset %}",
    "a huge range": "{{ range(10 ** 9) | list }}",
    "many ranges": "{% for i in range(99999) %}{{ range(99999) | sum }}{% endfor %}",
    "lazy filters": "{% for i in range(99999) %}{{ range(99999) | select('none') | list }}{% endfor %}",
    "a sorted range": "{% for i in range(99999) %}{{ (range(99999) | list | sort)[0] }}{% endfor %}",
    "long comparisons": often("{{ a == b[1:] ~ 'a' }}"),
    "long searches": often("{{ 'aaaab' in a }}"),
    "long copies": often("{% set c = a[1:] %}"),
    "long tests": often("{{ a is eq(b) }}{{ a is upper }}"),
    "long keys": "{% set t = (0,) * 100000 %}{% for i in range(99999) %}{{ {}[t] }}{% endfor %}",
    "stripping": LONG + "{{ a.strip(b) }}",
    "trimming": LONG + "{{ a | trim(b) }}",
    "searching backwards": LONG + "{{ a.rfind('b' + a[9:]) }}",
    "joined lists": "{{ ([[0] * 1000] * 1000) | sum(start=[]) }}",
}  # fmt: skip
SIZES = {
    "a product": "{{ 'a' * 10 ** 9 }}",
    "a product of constants": "{{ 'a' * 1000000000 }}",
    "a long list": "{{ [0] * 1000000000 }}",
    "a list of long texts": "{{ (['x' * 100000] * 1000) | join }}",
    "doubling by +": growing("'aaaa'", "ns.s + ns.s"),
    "doubling by ~": growing("'aaaa'", "ns.s ~ ns.s"),
    "doubling lists": growing("['a']", "[ns.s, ns.s]"),
    "doubling objects": growing("{}", "{'a': ns.s, 'b': ns.s}").replace("{{ ns.s }}", "{{ ns.s | tojson }}"),
    "doubling namespaces": growing("1", "namespace(a=ns.s, b=ns.s)"),
    "squaring": growing("99", "ns.s * ns.s"),
    "a power": "{{ 10 ** (10 ** 10) }}",
    "deep lists": growing("[]", "[ns.s]"),
    "deep tuples": growing("()", "(ns.s,)"),
    "a namespace in itself": "{% set ns = namespace() %}{% set ns.s = [ns] %}{{ ns.s }}",
    "join": "{{ range(99999) | join('x' * 100000) }}",
    "join as a method": "{{ ('x' * 100000).join(['a'] * 100000) }}",
    "center": "{{ 'a' | center(1000000000) }}",
    "center as a method": "{{ 'a'.center(1000000000) }}",
    "zfill": "{{ 'a'.zfill(10 ** 9) }}",
    "format": "{{ '%1000000000d' | format(1) }}",
    "format with a named value": "{{ '%(a(b)c)1000000000d' % {'a(b)c': 1} }}",
    "format with a width as value": "{{ '%*d' | format(1000000000, 1) }}",
    "format with many values": "{{ ('%(a)s' * 100000) % {'a': 'a' * 100000} }}",
    "format as a method": "{{ '{:1000000000}'.format(1) }}",
    "format as a method, a width as value": "{{ '{:{}}'.format(1, 1000000000) }}",
    "format as a method, many values": "{{ ('{0}' * 100000).format('a' * 100000) }}",
    "indent": "{{ 'a\nb' | indent(1000000000) }}",
    "indent of many lines": "{{ ('a\n' * 100000) | indent('b' * 100000) }}",
    "wordwrap": "{{ ('a' * 1000000) | wordwrap(1) }}",
    "replace": "{{ ('a' * 100000) | replace('', 'b' * 100000) }}",
    "replace as a method": "{{ ('a' * 100000).replace('a', 'b' * 100000) }}",
    "indented JSON": "{{ [[[[1]]]] | tojson(indent=1000000000) }}",
    "round": "{{ 1.5 | round(1000000000, 'floor') }}",
    "a long number": "{{ ('f' * 1000000) | int(base=16) }}",
    "a date": "{{ strftime_now('%1000000000Y') }}",
}
PARSING = {
    "brackets": "{{ " + "[" * 30000 + "]" * 30000 + " }}",
    "a long sum": "{{ 1" + "+1" * 30000 + " }}",
    "nested ifs": "{% if 1 %}" * 3000 + "{% endif %}" * 3000,
    "calls of calls": "{{ f" + "()" * 30000 + " }}",
    "dictionaries in dictionaries": "{{ " + "{1: " * 900 + "1" + "}" * 900 + " }}",
}
ALL = LOOPS | SIZES | PARSING
WHOLE = {"a macro that calls itself twice", "doubling namespaces", "doubling by +"}


def attack() -> None:
    """Every template in this process, under a limit of memory.

    The time goes with the budget, so most run with an eighth of it.
    """
    from matura.tokenizer import budget
    from matura.tokenizer.conversation import Format
    from tests.tiny_models import chatml

    tokenizer, messages = chatml().tokenizer, [{"role": "user", "content": "hello"}]
    Format(tokenizer, "{{ messages }}", ()).prompt(messages)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    full = budget.MAX_UNITS
    for name, template in ALL.items():
        budget.MAX_UNITS = full if name in WHOLE else full // 8
        start, problem = time.process_time(), "it was not refused"
        try:
            Format(tokenizer, template, ()).prompt(messages)
        except MaturaError as error:
            problem = "out of memory" if isinstance(error.__cause__, MemoryError) else ""
            if name in PARSING and not isinstance(error, FormatError):
                problem = "it was compiled"
        seconds = time.process_time() - start
        assert not problem, f"{name}: {problem}"
        assert seconds < SECONDS, f"{name}: {seconds:.1f} s"


def test_templates_without_measure_are_stopped() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.tokenizer.test_template_limits"],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr[-3000:]


if __name__ == "__main__":
    attack()
