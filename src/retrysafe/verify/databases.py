"""Effects counted in the database of the API that is verified."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from urllib.parse import quote, unquote, urlsplit

from retrysafe.errors import ConfigurationError, RetrysafeError

_UNIQUE = re.compile(r"'?\{\{\s*unique\s*\}\}'?")


def query(url: str, text: str) -> Callable[[str], int]:
    """A function from a reference to the number that the query gives.

    Args:
        url: `sqlite:///FILE`, `postgresql://...` or `mysql://...`.
        text: the query; `{{unique}}` is handed over as a parameter, never as text.

    Raises:
        ConfigurationError: no such database is known, or its driver is not installed.
    """
    openers: dict[str, Callable[[str, str], Callable[[str], int]]] = {
        "sqlite": _sqlite,
        "postgresql": _postgres,
        "mysql": _mysql,
    }
    scheme = url.partition(":")[0]
    if scheme not in openers or not text:
        raise ConfigurationError(["--effects sql takes a URL of sqlite, postgresql or mysql, and a query behind it"])
    return openers[scheme](url, text)


def _sqlite(url: str, text: str) -> Callable[[str], int]:
    file = unquote(urlsplit(url).path.removeprefix("/")) if url.startswith("sqlite:///") else ""

    def run(reference: str) -> int:
        try:
            with closing(sqlite3.connect(f"file:{quote(file)}?mode=ro", uri=True)) as database:
                return _number(database.execute(*_bound(text, "?", reference)).fetchone())
        except sqlite3.Error as error:
            raise RetrysafeError(f"the counter's query failed: {error}") from error

    return run


def _postgres(url: str, text: str) -> Callable[[str], int]:
    try:
        import psycopg  # noqa: PLC0415 - only who counts there needs it
    except ModuleNotFoundError:
        raise _missing("psycopg", "postgres") from None

    def run(reference: str) -> int:
        try:
            with psycopg.connect(url, autocommit=True) as database:
                return _number(database.execute(*_bound(text, "%s", reference)).fetchone())
        except psycopg.Error as error:
            raise RetrysafeError(f"the counter's query failed: {type(error).__name__}") from error

    return run


def _mysql(url: str, text: str) -> Callable[[str], int]:
    try:
        import pymysql  # noqa: PLC0415 - only who counts there needs it
    except ModuleNotFoundError:
        raise _missing("pymysql", "mysql") from None
    parts = urlsplit(url)

    def run(reference: str) -> int:
        try:
            with closing(
                pymysql.connect(
                    host=parts.hostname,
                    port=parts.port or 3306,
                    user=unquote(parts.username or ""),
                    password=unquote(parts.password or ""),
                    database=parts.path.lstrip("/"),
                    autocommit=True,
                )
            ) as database:
                cursor = database.cursor()
                cursor.execute(*_bound(text, "%s", reference))
                return _number(cursor.fetchone())
        except pymysql.Error as error:
            raise RetrysafeError(f"the counter's query failed: {type(error).__name__}") from error

    return run


def _missing(name: str, extra: str) -> ConfigurationError:
    return ConfigurationError([f'--effects sql needs {name}: pip install "retrysafe[{extra}]"'])


def _bound(text: str, mark: str, reference: str) -> tuple[str, tuple[str, ...]]:
    """The query with marks in place of the reference, and the reference as often."""
    bound, count = _UNIQUE.subn(mark, text)
    return bound, (reference,) * count


def _number(row: tuple[object, ...] | None) -> int:
    if row is None or not isinstance(row[0], int):
        raise RetrysafeError("the counter's query must give one row whose first column is a whole number")
    return row[0]
