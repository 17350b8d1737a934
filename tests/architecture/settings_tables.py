"""The tables of settings in docs/, written from the Config classes.

    python -m tests.architecture.settings_tables        write them anew

A table stands between `<!-- settings matura.stages.curate:Config -->` and `<!-- end -->`.
"""

import importlib
import re
from pathlib import Path

from matura.core.config import describe

ROOT = Path(__file__).parents[2]
PLACE = re.compile(r"(<!-- settings (?P<module>[\w.]+):(?P<name>\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
LINE = re.compile(r"  (?P<name>\S+)  \((?P<type>.*); (?:default )?(?P<default>.*?)\)")


def table(module: str, name: str) -> str:
    """The settings of one Config as a Markdown table."""
    rows = ["| setting | type | default | what it does |", "|---|---|---|---|"]
    lines = describe(getattr(importlib.import_module(module), name))
    for i, line in enumerate(lines):
        match = LINE.fullmatch(line)
        if match is None:
            continue
        about = lines[i + 1].strip() if i + 1 < len(lines) and LINE.fullmatch(lines[i + 1]) is None else ""
        default = (
            match["default"] if match["default"] in ("required", "none", "empty") else f"`{match['default']}`"
        )
        cells = [f"`{match['name']}`", match["type"], default, about]
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)


def filled(text: str) -> str:
    """A page with every table as it should be."""
    return PLACE.sub(lambda m: f"{m[1]}\n{table(m['module'], m['name'])}\n\n{m[4]}", text)


def pages() -> list[Path]:
    """All pages of the documentation."""
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


if __name__ == "__main__":
    for page in pages():
        text = page.read_text(encoding="utf-8")
        page.write_text(filled(text), encoding="utf-8")
