"""Sessions over asyncpg: for event loops that are connected to the server itself.

asyncpg prepares every statement, in a round trip before its first use: over a pooler that gives each
transaction another connection, the statement would be elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import asyncpg  # type: ignore[import-untyped]  # has no annotations

from retrysafe.stores.postgres_session import ANSWER_S, CONNECT_S, PostgresSession


class AsyncpgSession(PostgresSession):
    """A connection of an event loop."""

    _connection: Any = None

    @property
    def connected(self) -> bool:
        """The loop notices a connection that was cut."""
        return self._connection is not None and not self._connection.is_closed()

    async def dial(self) -> None:
        """Make the connection."""
        self._connection = await asyncpg.connect(
            self.place.url,
            timeout=CONNECT_S,
            max_cached_statement_lifetime=0,  # there are few, and each is used for as long as the connection lasts
            server_settings={"application_name": "retrysafe"},
        )
        self._connection.add_log_listener(self._note)

    async def fetch(self, statement: str, *values: Any) -> Sequence[Sequence[Any]]:
        """The rows of one statement."""
        rows: Sequence[Sequence[Any]] = await self._connection.fetch(statement, *values, timeout=self.answer_s)
        return rows

    async def script(self, text: str) -> None:
        """Do statements that have no values."""
        await self._connection.execute(text, timeout=ANSWER_S)

    async def close(self) -> None:
        """Take leave of the server."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):
                await connection.close(timeout=CONNECT_S)

    def drop(self) -> None:
        """Let go of the connection at once."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):
                connection.terminate()

    def _note(self, _: object, message: Any) -> None:
        if message.severity_en == "WARNING":
            self.warning = message.message
