"""Manual pages (man(7) macros in roff) to text as a reader sees it, without running roff.

Paragraphs become single lines, what hangs or is shifted is indented by four spaces, tables become lines of cells.
Macros that a page defines itself and numeric expressions are not evaluated: conditions are taken as
nroff would, and unknown macros are left out.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable

from matura.core.errors import FormatError
from matura.data.formats import roff

MAX_STRING = 2_000  # characters of a string that a page defines
MAX_EXPANDED = 1 << 20  # characters that the uses of such strings may add
MAX_REQUEST = 10_000  # characters of a line that is a request; longer ones are left out
MAX_NESTED = 10  # conditions in one line
INDENT = "    "

REQUEST = re.compile(r"[.'][ \t]*([A-Za-z0-9&][^\s\\]*|)[ \t]*(.*)", re.DOTALL)
COMMENT = re.compile(r'(?<!\\)((?:\\\\)*)\\["#].*')
CONDITION = re.compile(
    r"""!?[ \t]*(?:'[^']*'[^']*'|"[^"]*"[^"]*"|(?:\\[^{}]|[^\s\\])+)[ \t]*(.*)""", re.DOTALL
)
ENDLESS = {"de": "..", "de1": "..", "am": "..", "am1": "..", "ig": "..", "dei": ".."}
FONTS = {"B", "I", "SM", "SB", "R", "CW"}
ALTERNATING = {"BR", "RB", "BI", "IB", "RI", "IR"}
PARAGRAPHS = {"PP", "LP", "P"}
VERBATIM = {"nf": False, "EX": False, "Vb": False, "fi": True, "EE": True, "Ve": True}


def man_text(source: str) -> str:
    """The text of a page. Raises FormatError for a page of another macro set (mdoc), and for strings that expand
    without end."""
    if re.search(r"^\.[ \t]*Dd\b", source, re.MULTILINE) and re.search(
        r"^\.[ \t]*Sh\b", source, re.MULTILINE
    ):
        raise FormatError("unknown type: a manual page in mdoc macros")
    page = _Page(deque(source.replace("\\\n", "").split("\n")))
    while page.lines:
        page.step(page.lines.popleft())
    page.flush()
    return re.sub(r"\n{3,}", "\n\n", "\n".join(page.out)).strip("\n")


class _Page:
    """Where the reading of a page is: lines to come, lines that are done, and the paragraph under way."""

    def __init__(self, lines: deque[str]) -> None:
        self.lines = lines
        self.out: list[str] = []
        self.words: list[str] = []  # of the paragraph under way
        self.fill = True
        self.shift = 0  # by RS
        self.hanging = 0  # of what follows a tag
        self.awaits = ""  # what the next line is: "tag", "heading" or text
        self.otherwise = False  # whether `el` is to be taken
        self.glued = False  # whether the next text follows without a space
        self.link = ""
        self.strings: dict[str, str] = {"R": "®", "Tm": "™", "lq": "“", "rq": "”"}
        self.characters: dict[str, str] = {}
        self.expanded = 0

    def step(self, line: str) -> None:
        """One line of the source."""
        line = COMMENT.sub(r"\1", line) if "\\" in line else line
        for _ in range(MAX_NESTED):
            if line[:1] not in (".", "'"):
                self.text_line(line)
                return
            match = REQUEST.fullmatch(line) if len(line) <= MAX_REQUEST else None
            if match is None:
                return
            taken = self.condition(match[1], match[2])
            if taken is None:
                self.request(match[1], match[2])
                return
            if not taken.strip():
                return
            line = taken

    def condition(self, name: str, rest: str) -> str | None:
        """What a condition leaves of its line; None when it is no condition."""
        if name in ("if", "ie", "while"):
            match = CONDITION.fullmatch(rest)
            body, holds = (match[1], _holds(rest) and name != "while") if match else ("", False)
            if name == "ie":
                self.otherwise = not holds
        elif name == "el":
            body, holds = rest, self.otherwise
        else:
            return None
        if holds:
            return body.lstrip().removeprefix(r"\{").lstrip()
        depth = body.count(r"\{") - body.count(r"\}")
        while depth > 0 and self.lines:
            line = self.lines.popleft()
            depth += line.count(r"\{") - line.count(r"\}")
        return ""

    def request(self, name: str, rest: str) -> None:
        """A request or macro that is no condition."""
        if name in ENDLESS:
            given = roff.arguments(rest)
            end = given[-1] if given and name != "ig" and len(given) > 1 else ENDLESS[name].lstrip(".") or "."
            while self.lines and self.lines.popleft().strip() not in (f".{end}", ".."):
                pass
        elif name == "ds":
            key, _, value = rest.partition(" ")
            self.strings[key] = self.plain(value.lstrip().removeprefix('"'))[:MAX_STRING]
        elif name == "tr" and rest.startswith(r"\(*W-"):  # perl's pages use a Greek letter for a dash
            self.characters["*W"] = "-"
        elif name in VERBATIM:
            self.flush()
            self.fill = VERBATIM[name]
        elif name in ("TS", "EQ"):
            self.flush()
            self.table(".TE" if name == "TS" else ".EN", shown=name == "TS")
        else:
            macro = MACROS.get(name)
            if macro is not None:
                macro(self, [self.plain(one) for one in roff.arguments(rest)])
            elif name in FONTS or name in ALTERNATING:
                parts = [self.plain(one) for one in roff.arguments(rest)]
                if parts:
                    self.add(("" if name in ALTERNATING else " ").join(parts))

    def text_line(self, line: str) -> None:
        """A line of text, in a paragraph or as it is."""
        text = self.plain(line)
        if not text.strip():
            if not line.strip() or self.fill:
                self.flush(gap=not line.strip())
            return
        if line[0] == " " and self.fill and not self.glued:
            self.flush()
        self.add(text)
        self.glued = self.fill and line.endswith(r"\c")

    def add(self, text: str) -> None:
        """Text in the output's own words."""
        if self.awaits == "heading":
            self.heading(text)
        elif self.awaits == "tag":
            self.tag(text)
        elif self.fill and self.glued and self.words:
            self.words[-1] += text.rstrip()
        elif self.fill:
            self.words.append(text.strip())
        else:
            self.out.append((self.margin() + text.expandtabs(8)).rstrip())

    def heading(self, text: str) -> None:
        self.paragraph()
        self.shift, self.awaits = 0, ""
        self.out += [text.strip(), ""]

    def tag(self, text: str) -> None:
        """The head of a hanging paragraph."""
        self.awaits, self.hanging = "", 0
        self.out.append((self.margin() + text.strip()).rstrip())
        self.hanging = 1

    def paragraph(self) -> None:
        """What comes next begins anew, without indent of its own."""
        self.flush(gap=True)
        self.hanging, self.awaits = 0, ""

    def flush(self, gap: bool = False) -> None:
        """End the line under way, and leave an empty one if asked."""
        if self.words:
            self.out.append(self.margin() + re.sub(r"[ \t]+", " ", " ".join(self.words)))
            self.words = []
        if gap and self.out and self.out[-1]:
            self.out.append("")

    def margin(self) -> str:
        return INDENT * min(self.shift + self.hanging, 10)

    def plain(self, text: str) -> str:
        """Escapes resolved, within what strings may add."""
        shown = roff.plain(text, self.strings, self.characters)
        self.expanded += max(0, len(shown) - len(text))
        if self.expanded > MAX_EXPANDED:
            raise FormatError("expands too much: strings of a manual page")
        return shown

    def table(self, end: str, *, shown: bool) -> None:
        """Everything up to `end`; of a table (tbl(1)) the cells of each row in a line."""
        rows: list[str] = []
        while self.lines and not (line := self.lines.popleft()).startswith(end):
            rows.append(line)
        if not shown:
            return
        options = rows[0] if rows and rows[0].rstrip().endswith(";") else ""
        separator = found[1] if (found := re.search(r"tab\s*\((.)\)", options)) else "\t"
        in_format, cells, inside = True, list[str](), False
        for line in rows[1 if options else 0 :]:
            if in_format or line.startswith(".T&"):
                in_format = not line.rstrip().endswith(".")
            elif inside or not (line[:1] == "." or line.strip() in ("_", "=")):
                inside = self.cells(cells, line, separator, inside)
                if not inside:
                    self.out.append((self.margin() + "  ".join(filter(None, cells))).rstrip())
                    cells = []
        self.out.append("")

    def cells(self, cells: list[str], line: str, separator: str, inside: bool) -> bool:
        """Add what a line has of a row's cells; returns whether one of several lines is still open."""
        if inside:
            if not line.startswith("T}"):
                if not line.startswith((".", "'")):
                    cells[-1] = f"{cells[-1]} {self.plain(line).strip()}".strip()
                elif match := REQUEST.fullmatch(line[:MAX_REQUEST]):
                    words = "".join(self.plain(one) for one in roff.arguments(match[2]))
                    if match[1] in FONTS or match[1] in ALTERNATING:
                        cells[-1] = f"{cells[-1]} {words}".strip()
                return True
            line = line[2:].removeprefix(separator)
            if not line:
                return False
        parts = [part.strip() for part in line.split(separator)]
        opened = parts[-1] == "T{"
        cells += [self.plain(part) for part in (parts[:-1] if opened else parts) if part not in ("_", "=")]
        if opened:
            cells.append("")
        return opened


def _holds(condition: str) -> bool:
    """Of all conditions only "in nroff" and "not in troff" are known to hold."""
    return re.match(r"(?:n|!\s*t)(?!\w)", condition) is not None


def _title(page: _Page, given: list[str]) -> None:
    if given:
        page.out += [f"{given[0]}({given[1]})" if len(given) > 1 else given[0], ""]


def _section(page: _Page, given: list[str]) -> None:
    page.paragraph()
    page.fill = True
    if given:
        page.heading(" ".join(given))
    else:
        page.awaits = "heading"


def _tagged(page: _Page, given: list[str]) -> None:
    page.paragraph()
    page.awaits = "tag"


def _another_tag(page: _Page, given: list[str]) -> None:
    page.flush()
    page.awaits = "tag"


def _item(page: _Page, given: list[str]) -> None:
    page.paragraph()
    tag = given[0].strip() if given else ""
    if len(tag) > 3 or (tag and tag[-1:].isalpha()):
        page.tag(tag)
        return
    page.hanging = 1
    if tag:
        page.words.append(tag)


def _shifted(by: int) -> Callable[[_Page, list[str]], None]:
    def shift(page: _Page, given: list[str]) -> None:
        page.flush()
        page.shift = min(20, max(0, page.shift + by))
        page.hanging = 0

    return shift


def _link(page: _Page, given: list[str]) -> None:
    page.link = given[0] if given else ""


def _linked(page: _Page, given: list[str]) -> None:
    page.add(f"<{page.link}>{''.join(given)}" if page.link else "".join(given))
    page.link = ""


def _option(page: _Page, given: list[str]) -> None:
    page.add(f"[{' '.join(given)}]")


def _synopsis(page: _Page, given: list[str]) -> None:
    page.flush()
    page.add(" ".join(given))


MACROS: dict[str, Callable[[_Page, list[str]], None]] = {
    "TH": _title,
    "SH": _section,
    "SS": _section,
    **{name: lambda page, given: page.paragraph() for name in PARAGRAPHS},
    "HP": lambda page, given: page.paragraph(),
    "TP": _tagged,
    "TQ": _another_tag,
    "IP": _item,
    "RS": _shifted(1),
    "RE": _shifted(-1),
    "br": lambda page, given: page.flush(),
    "sp": lambda page, given: page.flush(gap=True),
    "Sp": lambda page, given: page.flush(gap=True),
    "UR": _link,
    "MT": _link,
    "UE": _linked,
    "ME": _linked,
    "OP": _option,
    "SY": _synopsis,
    "YS": lambda page, given: page.flush(),
}
