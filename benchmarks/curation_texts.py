"""Real text of this machine for the benchmarks of curation: documentation, manual pages, descriptions of packages."""

from __future__ import annotations

import gzip
import random
import sysconfig
from collections.abc import Iterator
from pathlib import Path

SUFFIXES = (".txt", ".md", ".rst", ".gz", "copyright", "README", "NEWS", "TODO", "METADATA")
SMALLEST, LARGEST = 300, 8000  # characters of a document; files are cut between paragraphs
FILE_BYTES = 2 << 20


def sample(count: int, seed: int, folder: Path | None = None) -> list[str]:
    """`count` documents of about 3,000 characters, drawn from all that the folders hold.

    Texts that occur in several files do come several times, as they do in a crawl.
    """
    draw = random.Random(seed)
    groups = [_pieces(one, count, draw) for one in ([[folder]] if folder else _folders())]
    share = -(-count // len(groups))
    found = [text for group in groups for text in group[:share]]
    found += [text for group in groups for text in group[share:]]  # where another group holds too little
    found = found[:count]
    draw.shuffle(found)
    return found


def _pieces(folders: list[Path], count: int, draw: random.Random) -> list[str]:
    paths = sorted(path for one in folders for path in one.rglob("*") if path.name.endswith(SUFFIXES))
    draw.shuffle(paths)
    found: list[str] = []
    for path in paths:
        pieces = list(_cut(_read(path)))
        # A few pieces of each file, so that no book fills the sample.
        found += draw.sample(pieces, min(8, len(pieces)))
        if len(found) >= count:
            break
    return found


def _folders() -> list[list[Path]]:
    """Groups of folders; each gives an equal share."""
    shared = Path("/usr/share")
    return [
        [shared / "doc"],
        sorted((shared / "man").glob("man[1-8]")),
        [Path(sysconfig.get_path("purelib")), Path(sysconfig.get_path("stdlib"))],
    ]


def _read(path: Path) -> str:
    """The text of a file; nothing for what is no text. Manual pages lose their markup, line by line."""
    try:
        with path.open("rb") as raw:
            file = gzip.GzipFile(fileobj=raw) if path.suffix == ".gz" else raw
            text = file.read(FILE_BYTES).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError):
        return ""
    if "\0" in text:
        return ""
    if path.parent.name.startswith("man"):
        lines = (line for line in text.splitlines() if not line.startswith((".\\", "'\\", ".ds", ".de")))
        text = "\n".join(_plain(line) for line in lines)
    return text


def _plain(line: str) -> str:
    for mark, plain in (("\\-", "-"), ("\\fB", ""), ("\\fI", ""), ("\\fR", ""), ("\\fP", ""), ("\\&", "")):
        line = line.replace(mark, plain)
    if line.startswith((".SH", ".SS", ".PP", ".TP", ".P", ".IP", ".sp")):
        return "\n" + line.partition(" ")[2].strip('"')
    return line.partition(" ")[2] if line.startswith(".") else line


def _cut(text: str) -> Iterator[str]:
    """Pieces of whole paragraphs, each as long as fits."""
    piece: list[str] = []
    size = 0
    for paragraph in text.split("\n\n"):
        if piece and size + len(paragraph) > LARGEST * 3 // 4:
            yield "\n\n".join(piece)
            piece, size = [], 0
        if len(paragraph) < LARGEST:
            piece.append(paragraph)
            size += len(paragraph)
    if size >= SMALLEST:
        yield "\n\n".join(piece)
