"""The records that travel between stages: documents (Parquet) and conversations (JSONL)."""

import difflib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from matura.core.columnar import parquet_batches
from matura.core.errors import FormatError, MaturaError
from matura.core.files import atomic_write, size_text
from matura.core.grouping import filled

if TYPE_CHECKING:
    import pyarrow

ROWS_IN_GROUP = 1024
BYTES_IN_GROUP = 32 << 20  # of text; bounds the memory of writing and of reading back
MAX_GROUP_BYTES = 4 << 30  # a row group of a Parquet file from outside that claims more is refused
MAX_LINE_BYTES = 32 << 20  # of a JSONL file
MAX_HELD = (
    1 << 30
)  # characters of rows that a training holds in memory, with their tokens about 13 bytes for each
CUT = {"end": "cut"}
"""Marks a message that its writer did not finish (it ran out of tokens): its stop token is not to be learned."""

_CONVERSATION_KEYS = ("id", "messages", "text", "tools", "provenance")
_MESSAGE_TYPES: dict[str, tuple[type, ...]] = {"weight": (int, float), "tool_calls": (list,)}
"""Types of what a message may hold beside text."""


@dataclass(frozen=True, slots=True)
class Document:
    """One text with where it came from. `id` is unique in its file; `source` names the raw file."""

    id: str
    text: str
    source: str
    meta: dict[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages, each {"role": ..., "content": ...}; or plain text: no messages, and the text in `text`.

    A message may have a `weight` that scales its loss (0: it is only read), and `tool_calls`, each
    {"type": "function", "function": {"name": ..., "arguments": {...}}}. `tools` describes what may be called.
    `provenance` says how a synthetic one came to be (teacher, template, ...); no stage learns from it.
    """

    id: str
    messages: tuple[dict[str, Any], ...] = field(hash=False)
    text: str = ""
    provenance: dict[str, str] = field(default_factory=dict, hash=False)
    tools: tuple[dict[str, Any], ...] = field(default=(), hash=False)


Row = TypeVar("Row", Document, Conversation)
T = TypeVar("T")


def characters(row: Document | Conversation) -> int:
    """Characters of a document, or of all that is said in a conversation."""
    messages = row.messages if isinstance(row, Conversation) else ()
    return len(row.text) + sum(len(one["content"]) for one in messages)


def said(row: Conversation) -> str:
    """All that is said in a conversation, a line or more for each message; or its plain text."""
    return row.text or "\n".join(one["content"] for one in row.messages)


class Held:
    """Counts the characters of rows that are held in memory. Adding one raises MaturaError, naming `where`, once they
    have more than `most` together: before memory ends."""

    def __init__(self, where: str | os.PathLike[str], most: int = MAX_HELD) -> None:
        self.where, self.left = where, most
        self.most = most

    def add(self, row: Row) -> Row:
        """The row itself."""
        self.left -= characters(row)
        if self.left < 0:
            raise MaturaError(
                f"{self.where}: more than {self.most:,} characters of text, and all of it would be held in memory. "
                "Give a part of it, such as fewer files"
            )
        return row


def text_size(document: Document) -> int:
    """Characters of a document."""
    return len(document.text)


def write_documents(path: str | os.PathLike[str], documents: Iterable[Document]) -> int:
    """Write documents as Parquet (columns id, text, source, meta), atomically; returns how many there were.

    The same documents give the same bytes, with the same pyarrow. Raises FormatError for text that is not
    valid Unicode, ArtifactError when the disk is full.
    """
    import pyarrow.parquet

    schema = _document_schema()
    count = 0
    with (
        atomic_write(path) as temporary,
        pyarrow.parquet.ParquetWriter(temporary, schema, compression="zstd") as writer,
    ):
        for group in filled(documents, BYTES_IN_GROUP, text_size, ROWS_IN_GROUP):
            columns = {
                "id": [document.id for document in group],
                "text": [document.text for document in group],
                "source": [document.source for document in group],
                "meta": [sorted(document.meta.items()) for document in group],
            }
            try:
                table = pyarrow.Table.from_pydict(columns, schema=schema)
            except UnicodeEncodeError as error:
                raise FormatError(_bad_unicode(path, group, error)) from error
            writer.write_table(table, row_group_size=len(group))
            count += len(group)
    return count


def read_documents(path: str | os.PathLike[str]) -> Iterator[Document]:
    """The documents of a Parquet file, a part of a row group in memory at a time.

    Raises FormatError when the file is missing, is not Parquet, lacks a column, or claims an absurd size.
    """
    import pyarrow
    import pyarrow.parquet

    path = Path(path)
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            _check_documents(path, file)
            for batch in parquet_batches(file, ("id", "text", "source", "meta")):
                for row in batch.to_pylist():
                    if None in row.values():
                        raise FormatError(f"{path}: document {row['id']!r} has an empty column.")
                    yield Document(row["id"], row["text"], row["source"], dict(row["meta"]))
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise FormatError(f"Cannot read documents from {path}: {error}") from error


def _document_schema() -> "pyarrow.Schema":
    import pyarrow

    text = pyarrow.string()
    return pyarrow.schema(
        [("id", text), ("text", text), ("source", text), ("meta", pyarrow.map_(text, text))]
    )


def _check_documents(path: Path, file: Any) -> None:
    found, wanted = file.schema_arrow, _document_schema()
    for column in wanted:
        if column.name not in found.names:
            raise FormatError(
                f"{path} holds no documents: it has no column {column.name!r} "
                f"(its columns: {', '.join(found.names)})."
            )
        if found.field(column.name).type != column.type:
            raise FormatError(
                f"{path}: column {column.name!r} is {found.field(column.name).type}, expected {column.type}."
            )
    for group in range(file.num_row_groups):
        claimed = file.metadata.row_group(group).total_byte_size
        if claimed > MAX_GROUP_BYTES:
            raise FormatError(
                f"{path}: row group {group} unpacks to {size_text(claimed)} "
                f"(at most {size_text(MAX_GROUP_BYTES)})."
            )


def _bad_unicode(path: str | os.PathLike[str], group: list[Document], error: UnicodeEncodeError) -> str:
    for document in group:
        texts = (document.id, document.text, document.source, *document.meta, *document.meta.values())
        for text in texts:
            try:
                text.encode()
            except UnicodeEncodeError:
                name = f"document {document.id!r} from {document.source!r}"
                return f"{Path(path).name}: {name} is not valid Unicode: {error}"
    return f"{Path(path).name}: a document is not valid Unicode: {error}"


def write_conversations(path: str | os.PathLike[str], rows: Iterable[Conversation]) -> int:
    """Write conversations as JSONL, atomically; returns how many there were. Raises as
    :func:`write_documents`.
    """

    def line(row: Conversation) -> bytes:
        if row.messages and row.text:
            raise FormatError(f"{Path(path).name}: conversation {row.id!r} has both messages and text.")
        content: dict[str, Any] = {"id": row.id}
        content |= {"messages": list(row.messages)} if row.messages else {"text": row.text}
        content |= {"tools": list(row.tools)} if row.tools else {}
        content |= {"provenance": row.provenance} if row.provenance else {}
        return json.dumps(content, ensure_ascii=False).encode() + b"\n"

    return write_lines(path, rows, line, lambda row: f"conversation {row.id!r}")


def write_lines(
    path: str | os.PathLike[str], rows: Iterable[T], line: Callable[[T], bytes], name: Callable[[T], str]
) -> int:
    """Write a line for every row, atomically; returns how many there were. `line` gives it with its line break, `name`
    says what it is called.

    Raises FormatError for text that is not valid Unicode, ArtifactError when the disk is full.
    """
    count = 0
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        for row in rows:
            try:
                file.write(line(row))
            except UnicodeEncodeError as error:
                raise FormatError(f"{Path(path).name}: {name(row)} is not valid Unicode: {error}") from error
            count += 1
    return count


def read_conversations(path: str | os.PathLike[str]) -> Iterator[Conversation]:
    """The conversations of a JSONL file, in order. Empty lines are skipped; a row without an id gets
    "line-N".

    Raises FormatError, naming file and line, for anything that is not a conversation.
    """
    for number, line in read_lines(Path(path), "conversations"):
        yield _conversation(line, f"{path}:{number}", default_id=f"line-{number}")


def read_lines(path: Path, what: str) -> Iterator[tuple[int, bytes]]:
    """(number, bytes) of the lines of a file that are not blank. Raises FormatError, naming `what` it holds, when it
    cannot be read, and for a line of more than MAX_LINE_BYTES."""
    try:
        file = open(path, "rb")  # noqa: SIM115  (closed below; a failure to open has its own message)
    except OSError as error:
        raise FormatError(f"Cannot read {what} from {path}: {error.strerror}.") from error
    with file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > MAX_LINE_BYTES:
                raise FormatError(f"{path}:{number}: the line is longer than {size_text(MAX_LINE_BYTES)}.")
            if line.strip():
                yield number, line


def _conversation(line: bytes, where: str, default_id: str) -> Conversation:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{where}: not valid JSON: {error}") from error
    if not isinstance(row, dict):
        raise FormatError(
            f'{where}: expected an object such as {{"messages": [...]}}, found {type(row).__name__}.'
        )
    for key in row:
        if key not in _CONVERSATION_KEYS:
            close = difflib.get_close_matches(key, _CONVERSATION_KEYS, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(_CONVERSATION_KEYS)}."
            raise FormatError(f"{where}: unknown key {key!r}; {hint}")
    identity, text, messages = row.get("id", default_id), row.get("text", ""), row.get("messages", [])
    if not isinstance(identity, str) or not isinstance(text, str):
        raise FormatError(f"{where}: 'id' and 'text' must be text.")
    if not isinstance(messages, list):
        raise FormatError(f"{where}: 'messages' must be a list, found {type(messages).__name__}.")
    if (messages and text) or not (messages or "text" in row):
        raise FormatError(
            f"{where}: expected either 'messages' or 'text', found {'both' if text else 'neither'}."
        )
    check_messages(messages, where)
    tools = objects(row.get("tools", []), f"{where}: 'tools'")
    provenance = texts(row.get("provenance", {}), f"{where}: 'provenance'")
    return Conversation(identity, tuple(messages), text, provenance, tools)


def objects(value: Any, where: str) -> tuple[dict[str, Any], ...]:
    """A list of objects, such as tools. Raises FormatError that begins with `where` for anything else."""
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise FormatError(f"{where} must be a list of objects.")
    return tuple(value)


def texts(value: Any, where: str) -> dict[str, str]:
    """An object of texts, such as provenance. Raises FormatError that begins with `where` for anything else."""
    if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
        raise FormatError(f"{where} must be an object whose values are text.")
    return value


def check_messages(messages: Iterable[Any], where: str) -> None:
    """Raises FormatError that begins with `where` for what is no message."""
    for index, message in enumerate(messages):
        _check_message(message, f"{where}: messages[{index}]")


def _check_message(message: Any, where: str) -> None:
    if not isinstance(message, dict):
        raise FormatError(
            f"{where} must be an object with 'role' and 'content', found {type(message).__name__}."
        )
    for key in ("role", "content"):
        if key not in message:
            close = difflib.get_close_matches(key, list(message), n=1, cutoff=0.5)
            raise FormatError(f"{where} has no {key!r}" + (f"; did you mean {close[0]!r}?" if close else "."))
    for key, value in message.items():
        if isinstance(value, bool) or not isinstance(value, _MESSAGE_TYPES.get(key, (str,))):
            wanted = {"weight": "a number", "tool_calls": "a list"}.get(key, "text")
            raise FormatError(f"{where}.{key} must be {wanted}, found {type(value).__name__}.")
    if not 0 <= message.get("weight", 0) < math.inf:
        raise FormatError(f"{where}.weight must be 0 or more, found {message['weight']}.")
    if not message["role"]:
        raise FormatError(f"{where}.role is empty.")
