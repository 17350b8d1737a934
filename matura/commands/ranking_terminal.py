"""Ranking in the terminal: single keys where there is one, lines of keys where stdin is a pipe."""

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, TextIO

from matura.core.errors import MaturaError

if TYPE_CHECKING:
    from rich.console import Console

    from matura.align.ranking.page import View
    from matura.align.ranking.sitting import Sitting

QUIT, CTRL_D = "q", "\x04"
GOES = frozenset("suq")
"""Keys that leave a prompt by themselves, or open one again: no Enter belongs behind them."""
ARROWS = re.compile(r"\x1b(\[[0-9;?]*[@-~]|O.)?")
"""Arrows and their relatives, as a terminal sends them."""
HINT = "1-{n} place · t tie · x not judged · a-{last} answer · s skip · u undo · Enter save · q quit"


def ask(sitting: "Sitting", stdin: TextIO) -> None:
    """Ask until all is judged or the person leaves (q, Ctrl-D, the end of stdin; Ctrl-C is KeyboardInterrupt)."""
    from rich.console import Console

    console = Console(highlight=False)
    if stdin.isatty():
        _by_keys(sitting, stdin, console)
    else:
        _by_lines(sitting, stdin, console)


def _by_keys(sitting: "Sitting", stdin: TextIO, console: "Console") -> None:
    """One key after another, each shown at once."""
    from matura.align.ranking.page import view

    keys, shown = _keys(stdin), -1
    while sitting.item is not None:
        now = view(sitting)
        if sitting.state.at != shown:
            _show(now, console)
            shown = sitting.state.at
        _status(now, console)
        key = next(keys, QUIT)
        if key != QUIT:
            sitting.press([key])
        if key == QUIT or sitting.state.at != shown:
            print()  # the line of state stays as it is
        if key == QUIT:
            return


def _by_lines(sitting: "Sitting", stdin: TextIO, console: "Console") -> None:
    """A line is the keys of a prompt and ends in Enter, but for one that skips or goes back; empty lines say nothing.

    Raises MaturaError at a line that judges nothing: the lines behind it are meant for other prompts than they would
    be taken for.
    """
    from matura.align.ranking.page import view

    number, shown = 0, -1
    while sitting.item is not None:
        if sitting.state.at != shown:
            _show(view(sitting), console)
            shown = sitting.state.at
        if not (line := stdin.readline()):
            return
        number += 1
        keys = [one for one in line.lower() if not one.isspace()]
        for key in [*keys, *(["enter"] if keys and keys[-1] not in GOES else [])]:
            if key == QUIT:
                return
            sitting.press([key])
            if sitting.state.notice:
                raise MaturaError(
                    f"line {number} ({line.strip()!r:.40}): {sitting.state.notice}. Mend it, leave out the lines "
                    "before it, and run this again: it goes on there."
                )


def _keys(stdin: TextIO) -> Iterator[str]:
    """Keys of a terminal by their names."""
    with _unbuffered(stdin):
        while data := os.read(stdin.fileno(), 64):
            for one in ARROWS.sub("", data.decode("utf-8", "ignore")).lower():
                if one == CTRL_D:
                    return
                yield "enter" if one in "\r\n" else one


@contextlib.contextmanager
def _unbuffered(stdin: TextIO) -> Iterator[None]:
    """Keys come one by one and are not echoed; as it was before, however the block ends."""
    import termios
    import tty

    before = termios.tcgetattr(stdin)
    try:
        tty.setcbreak(stdin, termios.TCSADRAIN)
        yield
    finally:
        termios.tcsetattr(stdin, termios.TCSADRAIN, before)


def _show(now: "View", console: "Console") -> None:
    """The prompt and its answers. Their texts are plain: no markup, no control characters."""
    from rich.panel import Panel
    from rich.rule import Rule
    from rich.text import Text

    done = now.progress
    console.print(Rule(f"{done.total - done.left + 1} of {done.total}"))
    for turn in now.prompt:
        console.print(Text(turn.role, style="bold cyan"))
        console.print(Text(turn.text))
    if now.earlier:
        console.print(Text(now.earlier, style="yellow"))
    for card in now.cards:
        said = [f"written {card.copies} times"] if card.copies > 1 else []
        said += ["cut off at the length limit"] if card.cut else []
        text = Text(card.text) if card.text.strip() else Text("(empty)", style="dim")
        console.print(
            Panel(
                text,
                title=Text(card.letter, style="bold"),
                title_align="left",
                subtitle=", ".join(said) or None,
            )
        )
    last = now.cards[-1].letter.lower() if now.cards else ""
    console.print(Text(HINT.format(n=len(now.cards), last=last), style="dim"))


def _status(now: "View", console: "Console") -> None:
    """One line that is written over: places, and a notice or the keys."""
    from rich.text import Text

    line = Text()
    for card in now.cards:
        place = {"": "·", "x": "x"}.get(card.place, card.place)
        line.append(f" {card.letter} {place} ", style="reverse bold" if card.focus else "")
    line.append(
        f"  {now.notice or ('Enter saves' if now.complete else '')}", style="red" if now.notice else "bold"
    )
    line.truncate(max(console.width - 1, 1))
    sys.stdout.write("\r\x1b[2K")
    console.print(line, end="")
    sys.stdout.flush()
