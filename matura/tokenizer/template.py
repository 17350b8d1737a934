"""Chat templates, compiled and run so that one from a stranger can neither reach out nor exhaust the machine.

A template is a program that comes with a model. It runs in Jinja's immutable sandbox, made narrower: only the
attributes, filters and functions that writing a conversation takes. Everything it makes, walks or compares is paid for
from a budget (see `budget.py`) by hooks at the few places where Jinja's generated code does anything: operators,
calls, filters, tests, literals, loops and output.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError
from jinja2.utils import Cycler, Joiner, Namespace
from jinja2.visitor import NodeTransformer

from matura.core.errors import FormatError
from matura.tokenizer import methods
from matura.tokenizer.budget import OPERATION, limited, paid, spend, steps
from matura.tokenizer.filters import FILTERS, TESTS

MAX_CHARACTERS = 64_000
MAX_NODES = 20_000  # of the syntax tree; the longest known templates have a few thousand
_OBJECTS = (Namespace, LoopContext, Macro, Cycler, Joiner, Undefined)


class Template:
    """A compiled chat template; it may be used by several threads at once."""

    def __init__(self, source: str) -> None:
        """Raises FormatError when `source` is too long, no Jinja, or asks for what templates here do not have."""
        if len(source) > MAX_CHARACTERS:
            raise FormatError(f"the chat template has {len(source)} characters, more than {MAX_CHARACTERS}")
        try:
            with limited():
                self._template = _environment().from_string(source)
        except Exception as error:  # also what deep nesting does to parsers
            reason = str(error) or type(error).__name__
            raise FormatError(f"the chat template is not valid Jinja: {reason}") from error

    def render(self, values: Mapping[str, Any]) -> str:
        """The text. Raises whatever the template raises: it is a program of its own and can fail in any way."""
        with limited(*values.values()):
            context = self._template.new_context(dict(values))
            return _Environment.concat(self._template.root_render_func(context))


def _environment() -> _Environment:
    environment = _Environment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation], finalize=paid
    )
    for name in set(environment.globals) - {"range", "dict", "namespace", "cycler", "joiner"}:
        del environment.globals[name]
    environment.globals.update(raise_exception=_raise_exception, strftime_now=_strftime_now)
    environment.filters.clear()
    environment.filters.update(FILTERS | _PAYMENTS)
    environment.tests.clear()
    environment.tests.update(TESTS)
    return environment


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(format: str) -> str:
    """Today's date; that of `SOURCE_DATE_EPOCH` (seconds) where it is set, so that a run can be repeated."""
    if len(format) > 200 or re.search(r"%[^a-zA-Z%]", format):  # "%999999999d" would be that long
        raise FormatError(f"strftime_now cannot write {format!r:.200}")
    fixed = os.environ.get("SOURCE_DATE_EPOCH")
    return time.strftime(format, time.localtime() if fixed is None else time.gmtime(int(fixed)))


class _Generation(Extension):
    """`{% generation %}` marks an answer in some templates; our own masks need no mark, so it only stands there."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(("+", "-", "*", "/", "//", "**", "%"))

    def _generate(self, source: nodes.Template, *args: Any, **settings: Any) -> str:
        if _work(source.body) > 2 * MAX_NODES:
            raise FormatError(f"it has more than {MAX_NODES} expressions and statements")
        return super()._generate(_Pay().visit(source), *args, **settings)

    @staticmethod
    def concat(pieces: Any) -> str:
        """Joins the output of the template, of a macro or of a block."""
        parts = []
        for piece in pieces:
            spend(len(piece) + 1)
            parts.append(piece)
        return "".join(parts)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, _OBJECTS):
            return super().is_safe_attribute(obj, attr, value)
        return attr in methods.of(obj)

    def unsafe_undefined(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, Mapping) and attribute in obj:
            return obj[attribute]
        raise SecurityError(f"{attribute!r} of a {type(obj).__name__} is not for templates")

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        write = super().wrap_str_format(value)
        if write is None:
            return None
        return methods.bounded_format(value.__self__, write)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator in ("*", "**", "%"):
            methods.pay_for_operator(operator, left, right)
        return paid(self.binop_table[operator](left, right))

    def getitem(self, obj: Any, argument: Any) -> Any:
        if not isinstance(argument, str | int):
            paid(argument)  # a key is hashed
        return super().getitem(obj, argument)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """Double underscores, so that keyword arguments of the template may have any name."""
        spend(OPERATION * (2 + len(args) + len(kwargs)))
        paid(args)
        paid(tuple(kwargs.values()))
        args = methods.pay_for_method(__obj, args)
        result = super().call(__context, __obj, *args, **kwargs)
        return steps(result) if methods.is_view(result) else paid(result)


class _Pay(NodeTransformer):
    """Puts a payment around what Jinja compiles to plain Python, where no other hook reaches it."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        work = OPERATION + _work([node.test] if node.test else [])
        self.visit_Macro(node)
        node.iter = _payment("pay each", node.iter, work)
        return node

    def visit_Macro(self, node: Any) -> nodes.Node:
        """A body that may run again and again pays for its length every time."""
        work = _work(node.body)
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(_payment("pay work", nodes.Const(work)), lineno=node.lineno))
        return node

    visit_CallBlock = visit_Macro

    def visit_Block(self, node: nodes.Node) -> nodes.Node:
        raise FormatError("it uses blocks or other files, which a conversation does not have")

    visit_Extends = visit_Include = visit_Import = visit_FromImport = visit_Block

    def visit_List(self, node: nodes.Expr) -> nodes.Node:
        return _payment("pay", self.generic_visit(node))

    visit_Dict = visit_List

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        self.generic_visit(node)
        return _payment("pay", node) if node.ctx == "load" else node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        return _payment("pay copy", node) if isinstance(node.arg, nodes.Slice) else node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        node.nodes = [_read(part) for part in node.nodes]
        return _payment("pay", node)

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        node.expr = _read(node.expr)
        for operand in node.ops:
            operand.expr = _read(operand.expr)
        return node


def _work(body: list[nodes.Node]) -> int:
    """Units of one pass over a body without what its parts pay themselves."""
    return sum(2 + _work(list(node.iter_child_nodes())) for node in body)


def _read(node: nodes.Expr) -> nodes.Expr:
    """An operand; short constants are free."""
    if isinstance(node, nodes.Const) and len(str(node.value)) < OPERATION:
        return node
    return _payment("pay", node)


def _payment(name: str, node: Any, *args: int) -> nodes.Expr:
    """The expression through one of the functions below."""
    constants = [nodes.Const(arg) for arg in args]
    return nodes.Filter(node, name, constants, [], None, None, lineno=node.lineno or 1)


# With a context as argument, Jinja cannot run them while it compiles instead.


@jinja2.pass_context
def _pay(_: Any, value: Any) -> Any:
    return paid(value)


@jinja2.pass_context
def _pay_copy(_: Any, value: Any) -> Any:
    return paid(value) if isinstance(value, str) else steps(value)


@jinja2.pass_context
def _pay_each(_: Any, values: Any, units: int) -> Any:
    return steps(values, units)


@jinja2.pass_context
def _pay_work(_: Any, units: int) -> None:
    spend(units)


_PAYMENTS = {"pay": _pay, "pay copy": _pay_copy, "pay each": _pay_each, "pay work": _pay_work}
