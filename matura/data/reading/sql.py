"""Rows of a database by one SELECT: SQLite by the standard library, others through SQLAlchemy if it is installed."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from matura.core.errors import ConfigError, FormatError, MaturaError
from matura.data.reading.tables import check_column, found_row
from matura.data.reading.task import BROKEN, Context, Found, Piece
from matura.data.sources import Skipped

URL = re.compile(r"(?P<scheme>sqlite|postgresql|postgres|mysql|mariadb|mssql|oracle)(\+\w+)?://.*", re.DOTALL)
BATCH = 256


def is_database(path: str) -> bool:
    """Whether a source's path is a database's URL."""
    return URL.fullmatch(path) is not None


def check_query(query: str | None) -> str:
    """One SELECT (or WITH ... SELECT). Raises ConfigError for anything else."""
    text = (query or "").strip().rstrip(";").strip()
    bare = re.sub(r"'(?:[^']|'')*'|\"[^\"]*\"|--[^\n]*|/\*.*?\*/", " ", text, flags=re.DOTALL).strip()
    if not bare:
        raise ConfigError("a database needs `query`, such as: SELECT text, title FROM articles.")
    if not re.match(r"(?i)(select|with)\b", bare) or ";" in bare:
        raise ConfigError(f"`query` must be one SELECT; found: {text[:80]}")
    if word := re.search(
        r"(?i)\b(insert|update|delete|drop|alter|create|attach|pragma|into|call|exec)\b", bare
    ):
        raise ConfigError(f"`query` only reads; found {word[0].upper()}.")
    return text


def shown(url: str) -> str:
    """A URL without its password, for messages."""
    return re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", url)


def plan_sql(name: str, path: str, query: str | None) -> dict[str, Any]:
    """The piece for a query. Raises ConfigError for what is no SELECT, MaturaError when SQLAlchemy is missing."""
    check_query(query)
    if path.startswith("sqlite:"):
        _sqlite_file(path)
    else:
        _sqlalchemy(path)
    return {"reader": "sql", "name": name, "path": path, "bytes": 0}


def read_sql(piece: Piece, context: Context) -> Iterator[Found | Skipped]:
    """Rows as they come, a few hundred in memory at a time.

    A row is named by its `id` column, or by its number: then the query should have an ORDER BY.
    """
    query, column = check_query(context.query), context.text
    rows = (
        _sqlite(piece["path"], query) if piece["path"].startswith("sqlite:") else _other(piece["path"], query)
    )
    try:
        with closing(rows):
            columns = next(rows)
            check_column(column, list(columns))
            for number, row in enumerate(rows):
                values = dict(zip(columns, row, strict=True))
                name = values.get("id", number)
                yield found_row(values, column, f"{piece['name']}@{name}")
    except sqlite3.Error as error:
        raise FormatError(f"{BROKEN}: {shown(piece['path'])}: {error}") from error


def _sqlite_file(url: str) -> Path:
    path = Path(unquote(url.partition("://")[2].removeprefix("/").partition("?")[0])).expanduser()
    if not path.is_file():
        raise MaturaError(
            f"there is no database at {path} (sqlite:///relative.db or sqlite:////absolute.db)."
        )
    return path


def _sqlite(url: str, query: str) -> Generator[Sequence[Any], None, None]:
    uri = _sqlite_file(url).resolve().as_uri() + "?mode=ro"
    with closing(sqlite3.connect(uri, uri=True)) as connection:
        connection.text_factory = lambda data: data.decode("utf-8", "replace")
        connection.execute("PRAGMA query_only = on")
        cursor = connection.execute(query)
        yield [item[0] for item in cursor.description]
        while rows := cursor.fetchmany(BATCH):
            yield from rows


def _sqlalchemy(url: str) -> Any:
    try:
        import sqlalchemy  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise MaturaError(
            f"{shown(url)} is read through SQLAlchemy, which is not installed: "
            "pip install sqlalchemy and the database's driver. SQLite needs neither."
        ) from error
    return sqlalchemy


def _other(url: str, query: str) -> Generator[Sequence[Any], None, None]:
    sqlalchemy = _sqlalchemy(url)
    try:
        engine = sqlalchemy.create_engine(url)
        with engine.connect().execution_options(stream_results=True, yield_per=BATCH) as connection:
            result = connection.exec_driver_sql(query)
            yield list(result.keys())
            for row in result:
                yield tuple(row)
            connection.rollback()
    except sqlalchemy.exc.SQLAlchemyError as error:
        said = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise FormatError(f"{BROKEN}: {shown(url)}: {said}") from error
