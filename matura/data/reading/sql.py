"""Rows of a database by one SELECT: SQLite by the standard library, others through SQLAlchemy if it is installed."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from matura.core import credentials
from matura.core.errors import ConfigError, FormatError, MaturaError
from matura.data.reading.tables import check_column, found_row
from matura.data.reading.task import BROKEN, Context, Found, Piece
from matura.data.sources import Skipped

URL = re.compile(
    r"(?P<scheme>sqlite|postgresql|postgres|mysql|mariadb|mssql|oracle)(?P<driver>\+\w+)?://.*", re.DOTALL
)
DRIVERS = {"postgresql": "psycopg", "postgres": "psycopg", "mysql": "pymysql", "mariadb": "pymysql"}
"""What the extra `matura[sql]` installs; used unless the URL names another, as in mysql+mysqldb://."""
INSTALL = (
    "pip install 'matura[sql]' brings SQLAlchemy and drivers for PostgreSQL and MySQL; SQLite needs neither"
)
BATCH = 256


def is_database(path: str) -> bool:
    """Whether a source's path is a database's URL."""
    return URL.fullmatch(path) is not None


def check_query(query: str | None) -> str:
    """One SELECT (or WITH ... SELECT). Raises ConfigError for anything else."""
    text = (query or "").strip().rstrip(";").strip()
    bare = re.sub(r"'(?:[^']|'')*'|\"[^\"]*\"|`[^`]*`|--[^\n]*|/\*.*?\*/", " ", text, flags=re.DOTALL).strip()
    if not bare:
        raise ConfigError("a database needs `query`, such as: SELECT text, title FROM articles.")
    if not re.match(r"(?i)(select|with)\b", bare) or ";" in bare:
        raise ConfigError(f"`query` must be one SELECT; found: {text[:80]}")
    if word := re.search(
        r"(?i)\b(insert|update|delete|drop|alter|create|attach|pragma|into|call|exec)\b", bare
    ):
        raise ConfigError(f"`query` only reads; found {word[0].upper()}. (A column of that name: in quotes.)")
    return text


def plan_sql(name: str, path: str, query: str | None) -> dict[str, Any]:
    """The piece for a query. Raises ConfigError for what is no SELECT, MaturaError when a package is missing."""
    check_query(query)
    if path.startswith("sqlite:"):
        sqlite_file(path)
    else:
        _engine(path).dispose()
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
        raise FormatError(f"{BROKEN}: {credentials.shown(piece['path'])}: {error}") from error


def sqlite_file(url: str) -> Path:
    """Where the database of a sqlite: URL is. Raises MaturaError when there is none."""
    path = Path(unquote(url.partition("://")[2].removeprefix("/").partition("?")[0])).expanduser()
    if not path.is_file():
        raise MaturaError(
            f"there is no database at {path} (sqlite:///relative.db or sqlite:////absolute.db)."
        )
    return path


def _sqlite(url: str, query: str) -> Generator[Sequence[Any], None, None]:
    uri = sqlite_file(url).resolve().as_uri() + "?mode=ro"
    with closing(sqlite3.connect(uri, uri=True)) as connection:
        connection.text_factory = lambda data: data.decode("utf-8", "replace")
        connection.execute("PRAGMA query_only = on")
        cursor = connection.execute(query)
        yield [item[0] for item in cursor.description]
        yield from cursor  # one row in memory at a time


def _engine(url: str) -> Any:
    """The engine of SQLAlchemy for a URL; it connects later. Raises MaturaError that says what is missing."""
    shown = credentials.shown(url)
    try:
        import sqlalchemy  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise MaturaError(
            f"{shown} is read through SQLAlchemy, which is not installed. {INSTALL}."
        ) from error
    match = URL.fullmatch(url)
    assert match is not None
    scheme, driver = match["scheme"], match["driver"]
    if driver is None and scheme in DRIVERS:
        dialect = "postgresql" if scheme == "postgres" else scheme
        url = f"{dialect}+{DRIVERS[scheme]}{url[len(scheme) :]}"
    try:
        return sqlalchemy.create_engine(
            credentials.filled(url), poolclass=sqlalchemy.pool.NullPool, hide_parameters=True
        )
    except ModuleNotFoundError as error:
        raise MaturaError(
            f"{shown} needs the driver {error.name}, which is not installed. {INSTALL}."
        ) from error
    except sqlalchemy.exc.NoSuchModuleError as error:
        raise MaturaError(f"{shown}: SQLAlchemy knows no driver of that name.") from error
    except (sqlalchemy.exc.ArgumentError, ValueError):
        # The library's message repeats the URL with its password: neither it nor its cause is kept.
        raise MaturaError(
            f"{shown} is no database URL: expected {scheme}://user:${{PASSWORD}}@host:port/database "
            "(special characters in user and password percent-encoded)."
        ) from None


def _other(url: str, query: str) -> Generator[Sequence[Any], None, None]:
    engine = _engine(url)
    import sqlalchemy

    # Not passing parameters leaves % alone; a server that knows it refuses to write.
    options = {
        "stream_results": True,
        "yield_per": BATCH,
        "no_parameters": True,
        **({"postgresql_readonly": True} if engine.dialect.name == "postgresql" else {}),
    }
    try:
        with engine.connect().execution_options(**options) as connection:
            if engine.dialect.name in ("mysql", "mariadb"):
                connection.exec_driver_sql("START TRANSACTION READ ONLY")
            result = connection.exec_driver_sql(query)
            yield list(result.keys())
            for row in result:
                yield tuple(row)
            connection.rollback()
    except sqlalchemy.exc.SQLAlchemyError as error:
        said = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise FormatError(
            f"{BROKEN}: {credentials.shown(url)}: {credentials.without_secrets(said, url)}"
        ) from None
    finally:
        engine.dispose()
