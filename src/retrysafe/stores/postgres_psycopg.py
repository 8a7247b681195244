"""Sessions over psycopg: for threads, and for event loops behind a pooler.

Behind a pooler no statement is prepared: its text, its values and its execution go out together, and
whichever connection they meet does the whole of it.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, TypeVar, cast

import psycopg
from psycopg import AsyncConnection, AsyncRawCursor, Connection, RawCursor
from psycopg.abc import PQGen
from psycopg.errors import Diagnostic
from psycopg.types.numeric import Int8

from retrysafe.stores.postgres_session import ANSWER_S, CONNECT_S, PostgresSession

RV = TypeVar("RV")


class _Patient(Connection[Any]):
    """Waits for an answer for so long, and not for ever: libpq has no bound of its own."""

    answer_s = ANSWER_S

    def wait(self, gen: PQGen[RV], interval: float = 0.5, timeout: float | None = None) -> RV:
        return super().wait(gen, interval, self.answer_s if timeout is None else timeout)


class _PsycopgSession(PostgresSession):
    """What both colours have in common."""

    _connection: Connection[Any] | AsyncConnection[Any] | None = None

    @property
    def connected(self) -> bool:
        """Looks whether the server has hung up: where nothing is asked for, whatever can be read is the end."""
        connection = self._connection
        if connection is None or connection.closed:
            return False
        readable = select.poll()
        readable.register(connection.fileno(), select.POLLIN)
        return not readable.poll(0)

    def drop(self) -> None:
        """Let go of the connection at once."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(psycopg.Error):
                connection.pgconn.finish()

    def _options(self) -> dict[str, Any]:
        return {
            "autocommit": True,
            "prepare_threshold": None if self.place.pooled else 0,
            "connect_timeout": round(CONNECT_S),
            "fallback_application_name": "retrysafe",
        }

    def _note(self, diagnostic: Diagnostic) -> None:
        if diagnostic.severity_nonlocalized == "WARNING":
            self.warning = diagnostic.message_primary


class ThreadSession(_PsycopgSession):
    """A connection for threads."""

    _connection: _Patient | None

    async def dial(self) -> None:
        """Make the connection."""
        self._connection = _Patient.connect(self.place.url, cursor_factory=RawCursor, **self._options())
        self._connection.add_notice_handler(self._note)

    async def fetch(self, statement: str, *values: Any) -> Sequence[Sequence[Any]]:
        """The rows of one statement."""
        connection = cast(_Patient, self._connection)
        connection.answer_s = self.answer_s
        return connection.execute(statement.encode(), _typed(values), binary=True).fetchall()

    async def script(self, text: str) -> None:
        """Do statements that have no values."""
        cast(Connection[Any], self._connection).execute(text.encode(), prepare=False)

    async def close(self) -> None:
        """Take leave of the server."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(psycopg.Error):
                connection.close()

    def server_is_elsewhere(self) -> bool:
        """Is it another's connection that this one reaches the server by, as behind a pooler?"""
        connection = cast(Connection[Any], self._connection)
        ((process,),) = connection.execute(b"SELECT pg_backend_pid()", prepare=False).fetchall()
        return bool(process != connection.info.backend_pid)


class LoopSession(_PsycopgSession):
    """A connection of an event loop."""

    _connection: AsyncConnection[Any] | None

    async def dial(self) -> None:
        """Make the connection."""
        self._connection = await AsyncConnection.connect(
            self.place.url, cursor_factory=AsyncRawCursor, **self._options()
        )
        self._connection.add_notice_handler(self._note)

    async def fetch(self, statement: str, *values: Any) -> Sequence[Sequence[Any]]:
        """The rows of one statement."""
        connection = cast(AsyncConnection[Any], self._connection)
        async with asyncio.timeout(self.answer_s):
            cursor = await connection.execute(statement.encode(), _typed(values), binary=True)
            return await cursor.fetchall()

    async def script(self, text: str) -> None:
        """Do statements that have no values."""
        await cast(AsyncConnection[Any], self._connection).execute(text.encode(), prepare=False)

    async def close(self) -> None:
        """Take leave of the server."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(psycopg.Error):
                await connection.close()


def _typed(values: Sequence[Any]) -> Sequence[Any]:
    """Arrays of numbers as bigint[], however small they are: or a statement would be prepared anew for each size."""
    return [
        [Int8(item) for item in value] if isinstance(value, list) and value and isinstance(value[0], int) else value
        for value in values
    ]
