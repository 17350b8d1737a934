"""reStructuredText to text as a reader sees it.

docutils refuses or garbles the roles and directives that Sphinx and others add, and most real files use them.
So the source is cleaned line by line instead: what a reader would see stays, what steers the rendering goes.
"""

import re

DIRECTIVE = re.compile(r"^(?P<indent>\s*)\.\.\s+(?:\|[^|]+\|\s+)?(?P<name>[\w:.+-]+?)::(?:\s+(?P<rest>.*))?$")
EXPLICIT = re.compile(r"^\s*\.\.(?:\s|$)")
FOOTNOTE = re.compile(r"^(\s*)\.\.\s+\[([#*\w-]+)\]\s+(.*)$")
OPTION = re.compile(r"^\s+:[\w-]+:")
NAMED = {"note", "warning", "tip", "important", "caution", "danger", "hint", "attention", "error", "seealso"}
SHOWN = {"code", "code-block", "sourcecode", "parsed-literal", "math", "doctest", "testcode", "figure"}
INVISIBLE = {
    *(
        "image",
        "toctree",
        "include",
        "literalinclude",
        "index",
        "contents",
        "raw",
        "meta",
        "highlight",
        "module",
    ),
    *(
        "currentmodule",
        "default-role",
        "role",
        "sectnum",
        "header",
        "footer",
        "target-notes",
        "unicode",
        "replace",
    ),
    *("automodule", "autoclass", "autofunction", "automethod", "autosummary", "autodata", "graphviz", "date"),
    *("tabularcolumns", "sectionauthor", "codeauthor", "testsetup", "testcleanup", "todo", "only"),
}


def rst_text(text: str) -> str:
    """Roles and references become their text, admonitions and code stay; comments, targets, images and tables
    of contents go."""
    out: list[str] = []
    lines = text.expandtabs(8).split("\n")
    at = 0
    while at < len(lines):
        line = lines[at]
        if not EXPLICIT.match(line):
            out.append(line)
            at += 1
            continue
        end = _block_end(lines, at)
        shown: list[str] = []
        if line.strip() == ".." and not "".join(lines[at + 1 : at + 2]).strip():
            end = at + 1  # an empty comment: what follows is not part of it
        elif note := FOOTNOTE.match(line):
            shown = [f"{note[1]}[{note[2]}] {note[3]}", *lines[at + 1 : end]]
        elif directive := DIRECTIVE.match(line):
            shown = _directive(directive, lines[at + 1 : end])
        if shown and out and out[-1].strip():
            out.append("")
        out += shown
        at = end
    return _inline("\n".join(out))


def _block_end(lines: list[str], at: int) -> int:
    """The line after the block that is indented deeper than line `at`."""
    depth = len(lines[at]) - len(lines[at].lstrip())
    end = at + 1
    last = end
    while end < len(lines):
        line = lines[end]
        if line.strip():
            if len(line) - len(line.lstrip()) <= depth:
                break
            last = end + 1
        end += 1
    return last


def _directive(match: re.Match[str], body: list[str]) -> list[str]:
    name = match["name"].split(":")[-1].lower()
    rest = (match["rest"] or "").strip()
    if name in INVISIBLE:
        return []
    start = 0
    while start < len(body) and (OPTION.match(body[start]) or not body[start].strip()):
        start += 1
    gap = start > 0 and not body[start - 1].strip()
    body = body[start:]
    if name in NAMED:
        label = "See also" if name == "seealso" else name.capitalize()
        return _under(f"{match['indent']}{label}: {rest}".rstrip(), body, gap)
    if name in SHOWN:
        return body
    if name in {"versionadded", "versionchanged", "deprecated", "versionremoved"}:
        said = {"versionadded": "New in", "versionchanged": "Changed in", "deprecated": "Deprecated since"}
        version, _, why = rest.partition(" ")
        return _under(f"{match['indent']}{said.get(name, 'Removed in')} {version}. {why}".rstrip(), body, gap)
    return _under(f"{match['indent']}{rest}" if rest else "", body, gap)


def _under(head: str, body: list[str], gap: bool) -> list[str]:
    if not head.strip():
        return body
    return [head, "", *body] if gap and body else [head, *body]


ROLE = re.compile(r"(?<![\w`]):[a-zA-Z][\w+.:-]*:`([^`]+)`|`([^`]+)`:[a-zA-Z][\w.-]*:(?!`)")
LINK = re.compile(r"(?<!`)`([^`<]+)<[^`<>]*>`__?")
REFERENCE = re.compile(r"(?<!`)`([^`]+)`__?(?!\w)")
LITERAL = re.compile(r"``([^`]+(?:`[^`]+)*)``")
SUBSTITUTION = re.compile(r"(?<![\w|])\|([^\s|](?:[^|\n]*[^\s|])?)\|_{0,2}(?![\w|])")


def _inline(text: str) -> str:
    text = ROLE.sub(lambda match: _role_text(match[1] or match[2]), text)
    text = LINK.sub(lambda match: match[1].rstrip(), text)
    text = REFERENCE.sub(r"\1", text)
    text = LITERAL.sub(r"`\1`", text)
    text = SUBSTITUTION.sub(r"\1", text)
    # "Run::" shows one colon before its code; "Run. ::" and "::" alone show none.
    text = re.sub(r"(?m)(?:(?<=\s)|^)::[ \t]*$", "", text)
    return re.sub(r"(?m)(?<=\S)::[ \t]*$", ":", text)


def _role_text(content: str) -> str:
    """`title <target>` shows its title; `~package.Name` its last part; `!name` the name."""
    if content.endswith(">") and "<" in content[1:]:
        content = content[: content.rindex("<")].rstrip()
    return content.rsplit(".", 1)[-1] if content.startswith("~") else content.lstrip("!")
