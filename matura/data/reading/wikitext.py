"""Wikitext to the text of an article: prose, headings and lists stay, what builds the page around them goes.

One pass over the brackets with a stack, so nesting is handled and the time is linear; no template is expanded.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

MEDIA = ("file", "image", "media", "category")
MAX_DEPTH = 60

COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
VERBATIM = re.compile(r"<(nowiki|math|chem|code|syntaxhighlight|source|pre)\b[^<>]*(?<!/)>", re.IGNORECASE)
REF = re.compile(
    r"<ref\b[^<>]*/\s*>|<ref\b[^<>]*>.*?(?:</ref\s*>|(?=\n\n|\n==)|\Z)|</ref\s*>",
    re.DOTALL | re.IGNORECASE,
)
DROPPED = re.compile(
    r"<(references|gallery|timeline|imagemap|score|graph|templatestyles|hiero|mapframe|inputbox)\b[^<>]*"
    r"(?:/>|>.*?(?:</\1\s*>|\Z))",
    re.DOTALL | re.IGNORECASE,
)
TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
BREAK = re.compile(r"<br\s{0,20}/?\s{0,20}>", re.IGNORECASE)
# Patterns that begin with blanks take time with the square of a run of them.
LONG_RUN = re.compile(r"[ \t]{100,}")
BRACKET = re.compile(r"\{\{|\}\}|\[\[|\]\]|^[ \t:*#]*\{\||^[ \t]*\|\}(?!\})", re.MULTILINE)
EXTERNAL = re.compile(
    r"\[(?:https?:|ftp:)?//[^\s\[\]]*(?:[ \t]+([^\[\]\n]*))?\]|\[mailto:[^\s\[\]]+[ \t]+([^\[\]\n]*)\]"
)
INTERWIKI = re.compile(r"[a-z]{2,3}(?:-[a-z-]+)?:(?! )[^|\n]+")
HEADING = re.compile(r"^(={1,6})[ \t]*(.+?)[ \t]*\1[ \t]*$", re.MULTILINE)
LIST = re.compile(r"^([*#:;]+)[ \t]*", re.MULTILINE)
# Cells and rows of tables that templates open or close.
CELLS = re.compile(r"^[ \t]*(?:\{\||\|[-}+|]?|!)(?!\}).*\n?", re.MULTILINE)
EMPTY_BRACKETS = re.compile(r"[ \t]*[(（\[][\s,;:–-]*[)）\]]")
MAGIC = re.compile(r"__[A-Z]{3,}__")
QUOTES = re.compile(r"'{2,5}")

# The last argument of these is what a reader sees.
TRANSPARENT = frozenset(
    {"lang", "nowrap", "nobr", "transl", "transliteration", "small", "big", "smallcaps", "sc"}
)
_SPECIAL = "{}[]<>'=*#:;|!&_"
_HIDE = str.maketrans({char: chr(0xE000 + i) for i, char in enumerate(_SPECIAL)})
_SHOW = str.maketrans({chr(0xE000 + i): char for i, char in enumerate(_SPECIAL)})
_PRIVATE = re.compile("[\ue000-\ue0ff]")


@dataclass(frozen=True, slots=True)
class Names:
    """Prefixes of links that show a file or put the page into a category, lower case."""

    media: frozenset[str]

    @classmethod
    def of(cls, local: Iterable[str] = ()) -> Names:
        """The English names, which are understood everywhere, and a wiki's own."""
        return cls(frozenset(MEDIA) | {name.strip().lower() for name in local})


def clean(source: str, names: Names | None = None) -> str:
    """The text of an article; headings and list items come out as Markdown."""
    text = COMMENT.sub("", _PRIVATE.sub("", LONG_RUN.sub(" " * 100, source)))
    text = REF.sub("", _verbatim(text))
    text = DROPPED.sub("", text)
    text = _unnested(BREAK.sub("\n", text), names or Names.of())
    text = TAG.sub("", EXTERNAL.sub(lambda match: match[1] or match[2] or "", text))
    text = MAGIC.sub("", QUOTES.sub("", CELLS.sub("", text)))
    text = EMPTY_BRACKETS.sub("", text)
    text = HEADING.sub(lambda match: f"\n{'§' * len(match[1])}\ue0fe{match[2]}\n", text)
    text = LIST.sub(_item, text)
    text = html.unescape(_without_empty_sections(text)).translate(_SHOW)
    return re.sub(r"(?<=\S)[ \t\xa0]+", " ", text).replace(" \n", "\n").strip()


def _verbatim(text: str) -> str:
    """What stands between tags such as `nowiki` loses its meaning as markup, until the end."""
    parts: list[str] = []
    position = 0
    endless: set[str] = set()  # a search for an end that is not there is made once
    for match in VERBATIM.finditer(text):
        name = match[1].lower()
        if match.start() < position or name in endless:
            continue
        end = re.compile(rf"</{name}\s*>", re.IGNORECASE).search(text, match.end())
        if end is None:
            endless.add(name)
            continue
        inside = html.unescape(text[match.end() : end.start()]).translate(_HIDE)
        parts += [text[position : match.start()], inside]
        position = end.end()
    return "".join((*parts, text[position:]))


def _item(match: re.Match[str]) -> str:
    marks = match[1]
    return "  " * (len(marks) - 1) + "- " if marks[-1] in "*#" else ""


def _unnested(text: str, names: Names) -> str:
    """Templates and tables out, links replaced by what they show."""
    stack: list[tuple[str, list[str]]] = [("", [])]
    position = 0
    for match in BRACKET.finditer(text):
        stack[-1][1].append(text[position : match.start()])
        position = match.end()
        token = match[0]
        if token in _CLOSES:
            _close(stack, _CLOSES[token], names)
        elif token.strip() == "|}":
            _close(stack, "{|", names)
        else:
            opening = token if token in ("{{", "[[") else "{|"
            if len(stack) <= MAX_DEPTH:
                stack.append((opening, []))
    stack[-1][1].append(text[position:])
    while len(stack) > 1:
        kind, parts = stack.pop()
        stack[-1][1].append(_unclosed(kind, "".join(parts)))
    return "".join(stack[0][1])


_CLOSES = {"}}": "{{", "]]": "[["}


def _close(stack: list[tuple[str, list[str]]], kind: str, names: Names) -> None:
    depth = next((i for i in range(len(stack) - 1, 0, -1) if stack[i][0] == kind), 0)
    # A link does not close what a template or table opened around an unclosed bracket of its own.
    if depth == 0 or (kind == "[[" and depth != len(stack) - 1):
        return
    while len(stack) - 1 > depth:
        inner, parts = stack.pop()
        stack[-1][1].append(_unclosed(inner, "".join(parts)) if kind == "{{" else "")
    _, parts = stack.pop()
    stack[-1][1].append(_SHOWN[kind]("".join(parts), names))


def _unclosed(kind: str, content: str) -> str:
    """What is left of a bracket without an end: of a table what follows the next heading, of others all."""
    if kind != "{|":
        return content
    heading = re.search(r"^==", content, re.MULTILINE)
    return content[heading.start() :] if heading else ""


def _template(content: str, names: Names) -> str:
    name, *arguments = content.split("|")
    name = name.strip().lower()
    if arguments and (name in TRANSPARENT or name.startswith("lang-")):
        return next((value for value in reversed(arguments) if "=" not in value), "")
    if name == "convert" and len(arguments) > 1:
        return f"{arguments[0].strip()} {arguments[1].strip()}"
    return ""


def _link(content: str, names: Names) -> str:
    target, _, label = content.partition("|")
    target = target.strip()
    prefix, colon, rest = target.partition(":")
    if colon and prefix.strip().lower() in names.media:
        return ""
    if target.startswith(":"):
        target = target[1:]
    elif not label and INTERWIKI.fullmatch(target):
        return ""
    if label:
        return label
    if content.endswith("|"):  # the pipe trick: neither namespace nor brackets are shown
        return re.sub(r"\s*\([^()]*\)$", "", rest if colon else target)
    return target.replace("_", " ").partition("#")[0] or target.lstrip("#")


_SHOWN: dict[str, Callable[[str, Names], str]] = {
    "{{": _template,
    "[[": _link,
    "{|": lambda content, names: "",
}


def _without_empty_sections(text: str) -> str:
    """Headings as Markdown, without those of sections of which nothing is left."""
    kept: list[str] = []
    pending: list[tuple[int, str]] = []
    for line in text.split("\n"):
        marks, heading, title = line.partition("\ue0fe")
        if heading:
            pending = [item for item in pending if item[0] < len(marks)]
            pending.append((len(marks), f"\n{'#' * len(marks)} {title.strip()}\n"))
        elif line.strip(" -"):
            kept.extend(shown for _, shown in pending)
            pending = []
            kept.append(line)
        elif not line.strip():
            kept.append("")
    return re.sub(r"\n{3,}", "\n\n", "\n".join(kept))
