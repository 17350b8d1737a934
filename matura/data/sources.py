"""Walk a folder of documents: which files are read, in which order, and why the others are not."""

import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from matura.core.errors import FormatError, MaturaError

SUFFIXES = {
    ".md": "md",
    ".markdown": "md",
    ".txt": "txt",
    ".text": "txt",
    ".rst": "rst",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".pdf": "pdf",
    ".epub": "epub",
    ".docx": "docx",
    ".ipynb": "ipynb",
}
MAX_FILE_BYTES = 50 << 20

UNKNOWN, EMPTY, LARGE, BINARY, UNDECODABLE = "unknown type", "empty", "too large", "binary", "undecodable"
UNREADABLE, SPECIAL = "unreadable", "not a regular file"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file worth opening. `name` is its path below the root, with '/'; `kind` is a value of SUFFIXES."""

    name: str
    path: Path
    kind: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that was passed over, the reason (one of the above) and what exactly was wrong."""

    name: str
    reason: str
    detail: str = ""


def walk(
    root: Path,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    max_file_bytes: int = MAX_FILE_BYTES,
) -> Iterator[SourceFile | Skipped]:
    """List a folder (or one file) in the order of the files' names below it, the same on every machine.

    Hidden files and folders (a leading dot) are passed over in silence, and so is what `include` (when given)
    or `exclude` (globs, see `matches`) rule out. Links are followed; a folder is entered once, so loops end.

    Raises MaturaError when `root` does not exist.
    """
    for name, path in paths(root, include=include, exclude=exclude):
        yield _classify(name, path, max_file_bytes)


def paths(
    root: Path, *, include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> Iterator[tuple[str, Path]]:
    """The names and paths that `walk` looks at, in its order, whatever they are. Raises as `walk`."""
    root = Path(root).expanduser()
    if not root.exists():
        raise MaturaError(f"there is no folder or file at {root}. Give the folder that holds your documents.")
    if root.is_file():
        yield root.name, root
        return
    for name, path in sorted(_files(root, "", set())):
        if (not include or matches(name, include)) and not matches(name, exclude):
            yield name, path


def _files(folder: Path, prefix: str, entered: set[tuple[int, int]]) -> Iterator[tuple[str, Path]]:
    try:
        status = folder.stat()
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        yield prefix.rstrip("/") or ".", folder  # reported as unreadable
        return
    if (status.st_dev, status.st_ino) in entered:
        return
    entered.add((status.st_dev, status.st_ino))
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if _is_folder(entry):
            yield from _files(folder / entry.name, f"{prefix}{entry.name}/", entered)
        else:
            yield f"{prefix}{entry.name}", folder / entry.name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: reported as unreadable
        return False


def _classify(name: str, path: Path, max_file_bytes: int) -> SourceFile | Skipped:
    size = regular(name, path)
    if isinstance(size, Skipped) and size.reason != EMPTY:
        return size
    kind = SUFFIXES.get(path.suffix.lower())
    if kind is None:
        return Skipped(name, UNKNOWN, path.suffix or "no suffix")
    if isinstance(size, Skipped):
        return size
    if size > max_file_bytes:
        return Skipped(name, LARGE, f"{size:,} bytes, the limit is {max_file_bytes:,}")
    return SourceFile(name, path, kind, size)


def regular(name: str, path: Path) -> int | Skipped:
    """The size of a file with something in it, or why it cannot be read."""
    try:
        status = path.stat()
    except OSError as error:
        return Skipped(name, UNREADABLE, error.strerror or str(error))
    if stat.S_ISDIR(status.st_mode):
        return Skipped(name, UNREADABLE, "a folder that cannot be listed")
    if not stat.S_ISREG(status.st_mode):
        return Skipped(name, SPECIAL)
    return status.st_size or Skipped(name, EMPTY, "0 bytes")


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether a path below the root fits a glob.

    `*.md` looks at the file's name, at any depth; a pattern with a `/` looks at the whole path, where `**`
    crosses folders; `drafts/` stands for everything in folders of that name.
    """
    return any(_pattern(pattern).fullmatch(name) for pattern in patterns)


def _pattern(glob: str) -> re.Pattern[str]:
    glob = glob.removeprefix("./")
    if "/" not in glob.rstrip("/"):
        glob = f"**/{glob}"
    if glob.endswith("/"):
        glob += "**"
    parts = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    pieces = re.split(r"(\*\*/|\*\*|\*|\?)", glob.lstrip("/"))
    return re.compile("".join(parts.get(piece, re.escape(piece)) for piece in pieces), re.DOTALL)


def read(file: SourceFile, max_file_bytes: int = MAX_FILE_BYTES) -> bytes | Skipped:
    """The bytes of a file, never more than the limit, even when it grew since it was listed."""
    try:
        with file.path.open("rb") as stream:
            data = stream.read(max_file_bytes + 1)
    except OSError as error:
        return Skipped(file.name, UNREADABLE, error.strerror or str(error))
    if len(data) > max_file_bytes:
        return Skipped(file.name, LARGE, f"over {max_file_bytes:,} bytes")
    return data or Skipped(file.name, EMPTY, "0 bytes")


BYTE_ORDER_MARKS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)


def decode(data: bytes, *, html: bool = False) -> tuple[str, str]:
    """Text and the name of its encoding: by byte order mark, else UTF-8, else as detected, always strictly.

    For a page of HTML the charset it declares comes before detection. Raises FormatError when the bytes are
    no text: NUL bytes or many control characters (its message begins with "binary"), or no encoding fits.
    """
    encoding = next((name for mark, name in BYTE_ORDER_MARKS if data.startswith(mark)), None)
    if encoding is None and b"\x00" in data:
        raise FormatError(f"{BINARY}: holds NUL bytes")
    if encoding is None:
        try:
            return _checked(data.decode("utf-8")), "utf-8"
        except UnicodeDecodeError:
            from resiliparse.parse.encoding import detect_encoding

            encoding = detect_encoding(data, from_html_meta=html) or "utf-8"
    try:
        return _checked(data.decode(encoding)), encoding
    except (UnicodeDecodeError, LookupError) as error:
        raise FormatError(f"{UNDECODABLE}: it is not {encoding}, and no other encoding fits") from error


def _checked(text: str) -> str:
    # An eight-bit encoding decodes any bytes; what gives a binary file away then is its control characters.
    controls = len(re.findall(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f-\x84\x86-\x9f]", text))
    if controls * 100 > len(text):
        raise FormatError(f"{BINARY}: {controls:,} control characters in {len(text):,}")
    return text


def nothing_usable(root: Path, skipped: Sequence[Skipped]) -> MaturaError:
    """The error for a place without documents; it differs for an empty folder and for useless files."""
    known = f"Documents are read from {', '.join(SUFFIXES)} files, tables, web archives and dumps."
    if not skipped:
        return MaturaError(f"{root} holds no documents: it is empty, or all is hidden or excluded. {known}")
    counts = Counter(item.reason for item in skipped)
    reasons = ", ".join(f"{count} {reason}" for reason, count in counts.most_common())
    shown = "; ".join(f"{item.name}: {item.reason} ({item.detail})" for item in skipped[:3])
    hint = f" {known}" if UNKNOWN in counts else ""
    return MaturaError(
        f"none of the {len(skipped)} files in {root} can be used ({reasons}).{hint}\nFor example: {shown}"
    )
