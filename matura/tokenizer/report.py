"""The report of a tokenizer: numbers as JSON, and a self-contained page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matura.core import page
from matura.core.files import atomic_write, write_json
from matura.core.picture import svg

TEMPLATE = Path(__file__).with_name("report.html")
COLOUR, PALE = "#3b82c4", "#8a93a3"
MAX_ROWS = 60
MAX_TEXT = 120

Table = dict[str, Any]


def write(folder: Path, told: Mapping[str, Any]) -> None:
    """report.json and report.html in `folder`. `told` has `line`, `tokenizers` (name -> what `Survey.told` gave, this
    one first), `absent` (name -> why), `unused`, `longest` and `settings`."""
    write_json(folder / "report.json", told)
    with atomic_write(folder / "report.html") as temporary:
        temporary.write_text(render(told), encoding="utf-8", errors="backslashreplace")


def render(told: Mapping[str, Any]) -> str:
    """The page. Texts of tokens are escaped and their control characters named."""
    found: Mapping[str, Mapping[str, Any]] = told["tokenizers"]
    return page.render(
        TEMPLATE,
        line=told["line"],
        picture=_picture(found),
        whole=_whole(found),
        groups=[
            {"title": title, "table": _group(found, key)}
            for key, title in (
                ("languages", "Bytes per token by language"),
                ("sources", "Bytes per token by source"),
            )
        ],
        absent=[
            {"name": _shown(name), "why": page.visible(why, 1000)} for name, why in told["absent"].items()
        ],
        unused=told["unused"],
        examples=[_shown(one) for one in told["unused"]["examples"]],
        longest=_table(
            ["token", "bytes", "id"],
            [(_shown(one["text"]), str(one["bytes"]), str(one["id"])) for one in told["longest"]],
        ),
        settings=_table(
            ["setting", "value"], [(name, str(value)) for name, value in told["settings"].items()]
        ),
    )


def _picture(found: Mapping[str, Mapping[str, Any]]) -> str:
    names = list(found)[::-1]

    def draw(axes: Any) -> None:
        values = [found[name]["bytes_per_token"] for name in names]
        axes.barh(range(len(names)), values, color=[*[PALE] * (len(names) - 1), COLOUR], height=0.6)
        axes.set_yticks(range(len(names)), [_shown(name)[:40].replace("$", r"\$") for name in names])
        axes.set_xlabel("bytes of text in a token, on held-out documents (more is better)")

    return svg(0.6 + 0.3 * len(names), draw, "Bytes per token of this tokenizer and others")


def _whole(found: Mapping[str, Mapping[str, Any]]) -> Table:
    heads = [
        "tokenizer",
        "vocabulary",
        "bytes per token",
        "tokens per word",
        "unknown",
        "back as it was",
        "MB/s",
    ]
    rows = [
        (
            name,
            f"{one['vocabulary']:,}",
            f"{one['bytes_per_token']:.3f}",
            f"{one['tokens_per_word']:.3f}",
            f"{one['unknown']:.3%}",
            f"{one['exact']:.1%}",
            f"{one['bytes'] / 1e6 / max(one['seconds'], 1e-9):.1f}",
        )
        for name, one in found.items()
    ]
    return _table(heads, rows)


def _group(found: Mapping[str, Mapping[str, Any]], key: str) -> Table:
    """A row for each group, a column for each tokenizer; the largest groups first."""
    first = next(iter(found.values()))[key]
    names = sorted(first, key=lambda name: (-first[name]["bytes"], name))
    rows = [
        (
            name or "not known",
            f"{first[name]['bytes']:,}",
            *(f"{one[key][name]['bytes_per_token']:.3f}" for one in found.values()),
        )
        for name in names
    ]
    return _table(["", "bytes", *found], rows)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    shown = [[_shown(cell) for cell in row] for row in rows[:MAX_ROWS]]
    return {"heads": [_shown(head) for head in heads], "rows": shown, "more": max(0, len(rows) - MAX_ROWS)}


def _shown(text: str) -> str:
    return page.visible(text, MAX_TEXT)
