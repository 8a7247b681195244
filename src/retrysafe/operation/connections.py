"""The application's own connections to a database: what each kind is asked, and how it says it.

A connection is known by the names of its classes, so that no driver is imported to recognise one. What is done on it is
written once, with `await`: on a blocking connection it is done before it returns, and never waits.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from retrysafe.errors import CallerError

Values = Mapping[str, bytes | int]
Rows = Sequence[Sequence[Any]]

KINDS = (
    "a Connection or AsyncConnection of psycopg, a connection of asyncpg, sqlite3, aiosqlite, PyMySQL or asyncmy, "
    "a Session, AsyncSession, Connection or AsyncConnection of SQLAlchemy, or a connection of Django"
)

_NONE_OPEN = "it has no open transaction"
_FAILED = "its transaction has failed and can only be rolled back"
_AUTOCOMMIT = "it is in autocommit, so that each statement is a transaction of its own"

_PARAMETER = re.compile(r"(?<!:):(\w+)")
_IN_TRANSACTION, _IN_ERROR = 2, 3  # as libpq counts


class Reached(Protocol):
    """A connection of the application.

    Attributes:
        engine: `postgresql`, `mysql`, `sqlite`, or what else SQLAlchemy and Django know; known once it was looked at.
        blocking: what is awaited on it is done at once.
    """

    engine: str
    blocking: bool

    async def refusal(self) -> str | None:
        """Why nothing can be committed together on it; None if a transaction is open."""

    async def change(self, statement: str, values: Values) -> int:
        """The number of rows that a statement with `:named` values changed."""

    async def look(self, statement: str, values: Values) -> Rows:
        """The rows that a statement with `:named` values found."""


def spelled(statement: str, style: str, values: Values) -> tuple[str, Any]:
    """A statement with `:named` values in the style of a driver, and its values as that takes them.

    Args:
        statement: with `:name` for each value.
        style: as PEP 249 calls it, or `numeric_dollar` for `$1`.
        values: by name; those that the statement has no use for are left out.
    """
    names = _PARAMETER.findall(statement)
    if style == "named":
        return statement, {name: values[name] for name in names}
    if style == "pyformat":
        return _PARAMETER.sub(r"%(\1)s", statement), {name: values[name] for name in names}
    if style == "numeric_dollar":
        once = list(dict.fromkeys(names))
        return _PARAMETER.sub(lambda name: f"${once.index(name[1]) + 1}", statement), tuple(map(values.get, once))
    mark = {"qmark": "?", "format": "%s"}[style]
    return _PARAMETER.sub(mark, statement), tuple(values[name] for name in names)


def reach(connection: Any) -> Reached:
    """The connection, as it is spoken to here.

    Raises:
        CallerError: it is of no kind that is known.
    """
    for kind in type(connection).__mro__:
        known = _KNOWN.get((kind.__module__.partition(".")[0], kind.__qualname__))
        if known is not None:
            return known(connection)
    kind = type(connection)
    raise CallerError(f"complete_within was given a {kind.__module__}.{kind.__qualname__}; give it {KINDS}")


def _plain(rows: Sequence[Any]) -> Rows:
    """Rows as tuples, whatever the application has set for its own."""
    return [tuple(row.values()) if isinstance(row, Mapping) else tuple(row) for row in rows]


# --- drivers ------------------------------------------------------------------------------------


class _Dbapi:
    """A blocking driver as PEP 249 has it."""

    blocking = True

    def __init__(self, connection: Any, engine: str, style: str) -> None:
        self.engine = engine
        self._connection = connection
        self._style = style

    async def refusal(self) -> str | None:
        return None if _is_open(self._connection) else _NONE_OPEN

    async def change(self, statement: str, values: Values) -> int:
        cursor = self._cursor()
        try:
            cursor.execute(*spelled(statement, self._style, values))
            return int(cursor.rowcount)
        finally:
            cursor.close()

    async def look(self, statement: str, values: Values) -> Rows:
        cursor = self._cursor()
        try:
            cursor.execute(*spelled(statement, self._style, values))
            return _plain(cursor.fetchall())
        finally:
            cursor.close()

    def _cursor(self) -> Any:
        return self._connection.cursor()


class _Psycopg(_Dbapi):
    """Its cursors are made here, because the application may have set others for its own."""

    def __init__(self, connection: Any) -> None:
        super().__init__(connection, "postgresql", "pyformat")

    async def refusal(self) -> str | None:
        return _libpq_refusal(self._connection)

    def _cursor(self) -> Any:
        return sys.modules["psycopg"].Cursor(self._connection, row_factory=lambda _: tuple)


class _AsyncDbapi:
    """A driver for asyncio in the manner of PEP 249."""

    blocking = False

    def __init__(self, connection: Any, engine: str, style: str) -> None:
        self.engine = engine
        self._connection = connection
        self._style = style

    async def refusal(self) -> str | None:
        return None if _is_open(self._connection) else _NONE_OPEN

    async def change(self, statement: str, values: Values) -> int:
        cursor = await self._cursor()
        try:
            await cursor.execute(*spelled(statement, self._style, values))
            return int(cursor.rowcount)
        finally:
            await cursor.close()

    async def look(self, statement: str, values: Values) -> Rows:
        cursor = await self._cursor()
        try:
            await cursor.execute(*spelled(statement, self._style, values))
            return _plain(await cursor.fetchall())
        finally:
            await cursor.close()

    async def _cursor(self) -> Any:
        return self._connection.cursor()


class _Aiosqlite(_AsyncDbapi):
    def __init__(self, connection: Any) -> None:
        super().__init__(connection, "sqlite", "named")

    async def _cursor(self) -> Any:
        return await self._connection.cursor()


class _AsyncPsycopg(_AsyncDbapi):
    def __init__(self, connection: Any) -> None:
        super().__init__(connection, "postgresql", "pyformat")

    async def refusal(self) -> str | None:
        return _libpq_refusal(self._connection)

    async def _cursor(self) -> Any:
        return sys.modules["psycopg"].AsyncCursor(self._connection, row_factory=lambda _: tuple)


class _Asyncpg:
    engine = "postgresql"
    blocking = False

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def refusal(self) -> str | None:
        return None if self._connection.is_in_transaction() else _NONE_OPEN

    async def change(self, statement: str, values: Values) -> int:
        text, arguments = spelled(statement, "numeric_dollar", values)
        done: str = await self._connection.execute(text, *arguments)
        return int(done.rpartition(" ")[2])

    async def look(self, statement: str, values: Values) -> Rows:
        text, arguments = spelled(statement, "numeric_dollar", values)
        return [tuple(row.values()) for row in await self._connection.fetch(text, *arguments)]


def _libpq_refusal(connection: Any) -> str | None:
    status = int(connection.info.transaction_status)
    if status == _IN_ERROR:
        return _FAILED
    return None if status == _IN_TRANSACTION else _NONE_OPEN


def _is_open(connection: Any) -> bool:
    """Whether a transaction is open on a connection to SQLite or MySQL."""
    if hasattr(connection, "in_transaction"):
        return bool(connection.in_transaction)
    return bool(connection.server_status & 1)  # SERVER_STATUS_IN_TRANS


# --- SQLAlchemy -----------------------------------------------------------------------------------


class _Alchemy:
    """A connection or a session. What it executes begins its transaction, if that is only announced so far."""

    blocking = True

    def __init__(self, connection: Any) -> None:
        self._given = connection() if callable(connection) else connection  # a session that belongs to a scope
        self.engine = ""
        self._connection: Any = None

    async def refusal(self) -> str | None:
        if not self._given.in_transaction():
            return _NONE_OPEN
        self._connection = self._given.connection() if hasattr(self._given, "flush") else self._given
        self.engine = _engine(self._connection)
        return _alchemy_refusal(self._connection)

    async def change(self, statement: str, values: Values) -> int:
        return int(self._execute(statement, values).rowcount)

    async def look(self, statement: str, values: Values) -> Rows:
        return _plain(self._execute(statement, values).all())

    def _execute(self, statement: str, values: Values) -> Any:
        return self._connection.exec_driver_sql(*spelled(statement, self._connection.dialect.paramstyle, values))


class _AsyncAlchemy:
    """The same for asyncio."""

    blocking = False

    def __init__(self, connection: Any) -> None:
        self._given = connection() if callable(connection) else connection
        self.engine = ""
        self._connection: Any = None

    async def refusal(self) -> str | None:
        if not self._given.in_transaction():
            return _NONE_OPEN
        self._connection = await self._given.connection() if hasattr(self._given, "flush") else self._given
        self.engine = _engine(self._connection)
        return _alchemy_refusal(self._connection.sync_connection)

    async def change(self, statement: str, values: Values) -> int:
        return int((await self._execute(statement, values)).rowcount)

    async def look(self, statement: str, values: Values) -> Rows:
        return _plain((await self._execute(statement, values)).all())

    async def _execute(self, statement: str, values: Values) -> Any:
        return await self._connection.exec_driver_sql(*spelled(statement, self._connection.dialect.paramstyle, values))


def _engine(connection: Any) -> str:
    name = str(connection.dialect.name)
    return "mysql" if name == "mariadb" else name


def _alchemy_refusal(connection: Any) -> str | None:
    raw = connection.connection.dbapi_connection
    if not connection.dialect.detect_autocommit_setting(raw):
        return None
    began_by_hand = getattr(connection.connection.driver_connection, "in_transaction", False)  # SQLite, by a BEGIN
    return None if began_by_hand is True else _AUTOCOMMIT


# --- Django -----------------------------------------------------------------------------------------


class _Django:
    """A connection of Django's, or the name under which it stands for that of each thread.

    It is asked for its transaction, and the driver below does the work: so nothing of an answer gets into its log.
    """

    blocking = True

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.engine = str(connection.vendor)

    async def refusal(self) -> str | None:
        if self._connection.needs_rollback:
            return _FAILED
        if self._connection.in_atomic_block:
            return None
        return _AUTOCOMMIT if self._connection.get_autocommit() else None

    async def change(self, statement: str, values: Values) -> int:
        with self._connection.wrap_database_errors:
            return await self._driver().change(statement, values)

    async def look(self, statement: str, values: Values) -> Rows:
        with self._connection.wrap_database_errors:
            return await self._driver().look(statement, values)

    def _driver(self) -> Reached:
        self._connection.ensure_connection()
        return reach(self._connection.connection)


_KNOWN: Mapping[tuple[str, str], Callable[[Any], Reached]] = {
    ("psycopg", "Connection"): _Psycopg,
    ("psycopg", "AsyncConnection"): _AsyncPsycopg,
    ("asyncpg", "Connection"): _Asyncpg,
    ("asyncpg", "PoolConnectionProxy"): _Asyncpg,
    ("sqlite3", "Connection"): lambda connection: _Dbapi(connection, "sqlite", "named"),
    ("aiosqlite", "Connection"): _Aiosqlite,
    ("pymysql", "Connection"): lambda connection: _Dbapi(connection, "mysql", "pyformat"),
    ("MySQLdb", "Connection"): lambda connection: _Dbapi(connection, "mysql", "pyformat"),  # by way of Django
    ("asyncmy", "Connection"): lambda connection: _AsyncDbapi(connection, "mysql", "pyformat"),
    ("sqlalchemy", "Session"): _Alchemy,
    ("sqlalchemy", "scoped_session"): _Alchemy,
    ("sqlalchemy", "Connection"): _Alchemy,
    ("sqlalchemy", "AsyncSession"): _AsyncAlchemy,
    ("sqlalchemy", "async_scoped_session"): _AsyncAlchemy,
    ("sqlalchemy", "AsyncConnection"): _AsyncAlchemy,
    ("django", "BaseDatabaseWrapper"): _Django,
    ("django", "ConnectionProxy"): _Django,
}
