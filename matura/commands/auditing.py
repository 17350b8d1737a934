"""`matura finetune --audit`: what would be trained, token by token and in counts; nothing is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matura.core import planning
from matura.core.errors import ConfigError
from matura.core.recipe import Recipe
from matura.core.workspace import Workspace

if TYPE_CHECKING:
    from rich.text import Text

    from matura.train.audit import Audit, Piece, Shown

ROWS = 5
OPEN, CLOSE = "⟦", "⟧"
TRAINED, READ, SPECIAL = "black on green", "", "dim"
LEGEND = f"{OPEN}trained{CLOSE}  {OPEN}×0.5 trained with half the weight{CLOSE}  the rest is only read"


def rows_in(settings: list[str]) -> tuple[list[str], int]:
    """Settings without a bare number among them, and that number: `--audit 20` leaves it there."""
    numbers = [one for one in settings if one.isdecimal()]
    return [one for one in settings if not one.isdecimal()], int(numbers[-1]) if numbers else ROWS


def audit(recipe: Recipe, stage: str, rows: int, workspace: Workspace, *, wait: bool) -> None:
    """Print the audit of one stage; models that it needs are pulled, nothing else is made.

    Raises ConfigError when there is no such stage, when it has nothing to audit, or needs what is not made yet.
    """
    from matura.commands.running import pull

    step = next((step for step in recipe.steps if step.name == stage), None)
    able = [step.name for step in recipe.steps if hasattr(step.module, "audit")]
    if step is None or stage not in able:
        known = f"; those that have: {', '.join(able)}" if able else ""
        raise ConfigError(f"{recipe.name} has no stage {stage!r} with something to audit{known}")
    with workspace.lock(wait):
        inputs = planning.ready_inputs(recipe, step, workspace, pull)
        show(step.module.audit(step.config, inputs, rows))


def show(found: Audit) -> None:
    """The counts and the rows, in colours on a terminal; the marks tell the same without them."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    for line in counts(found):
        console.print(line, markup=False)
    if found.shown:
        console.print(f"\n{LEGEND}", markup=False)
    for row in found.shown:
        console.print()
        console.print(_heading(row), style="bold", markup=False)
        console.print(written(row))


def counts(found: Audit) -> list[str]:
    """What the whole material comes to, in lines."""
    share = found.trained / found.tokens if found.tokens else 0.0
    more = "".join(f", {n:,} {name.replace('_', ' ')}" for name, n in found.found.items() if n)
    lines = [*found.about, f"{found.rows:,} rows to learn from{more}"]
    for reason, n in found.dropped.items():
        names = ", ".join(found.names[reason])
        lines.append(f"  dropped, {reason}: {n:,} ({names}{', ...' if n > len(found.names[reason]) else ''})")
    mean = found.tokens / found.examples if found.examples else 0.0
    lines += [
        f"{found.examples:,} examples, {found.tokens:,} tokens; the longest has {found.longest:,}, the mean {mean:.1f}",
        f"{found.trained:,} tokens are trained ({share:.1%}); {found.stops:,} examples end in a trained stop token",
        f"rows of {found.capacity:,} tokens, filled to {found.fill:.1%}",
    ]
    return lines


def _heading(row: Shown) -> str:
    end = "" if row.stops else ", no stop token at the end"
    return f"── {visible(row.name)}: {row.tokens:,} tokens, {row.trained:,} trained{end}"


def written(row: Shown) -> Text:
    """A row with its trained tokens in brackets and in colour."""
    from rich.text import Text

    text = Text()
    weight = 0.0
    for piece in row.pieces:
        if piece.weight != weight:
            text.append(_edge(weight, piece.weight))
            weight = piece.weight
        text.append(visible(piece.text), _style(piece))
    text.append(_edge(weight, 0.0))
    return text


def _edge(before: float, after: float) -> str:
    closing = CLOSE if before else ""
    return closing + ("" if not after else OPEN if after == 1 else f"{OPEN}×{after:g} ")


def _style(piece: Piece) -> str:
    return TRAINED if piece.weight else SPECIAL if piece.special else READ


def visible(text: str) -> str:
    """Text whose line ends, tabs, other control characters and spaces at a line's end can be seen; harmless to a
    terminal."""
    lines = text.replace("\t", "⇥").split("\n")
    ends = [line.rstrip(" ") + "·" * (len(line) - len(line.rstrip(" "))) for line in lines[:-1]]
    return "↵\n".join("".join(map(_letter, line)) for line in [*ends, lines[-1]])


def _letter(letter: str) -> str:
    return letter if letter.isprintable() else repr(letter)[1:-1]
