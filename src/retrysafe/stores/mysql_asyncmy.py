"""A connection to MySQL or MariaDB for an event loop, through asyncmy."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import asyncmy
from asyncmy import errors
from asyncmy.constants import CLIENT

from retrysafe.stores.mysql_server import CONNECT_S, Address, ServerError
from retrysafe.stores.mysql_sql import Result

_LOST = 2013


class AwaitedWire:
    """A connection of the running loop."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    @property
    def whole(self) -> bool:
        """Has the server not ended it?"""
        return not self._connection._stream_broken  # noqa: SLF001 - `connected` does not know what the stream knows

    async def ask(self, text: str) -> Sequence[Result]:
        """What each statement of the text came to."""
        results: list[Result] = []
        try:
            cursor = self._connection.cursor()
            await cursor.execute(text)
            while True:
                results.append(cursor.rowcount if cursor.description is None else await cursor.fetchall())
                if not await cursor.nextset():
                    return results
        except (errors.MySQLError, OSError) as error:
            raise _said(error) from None  # what the server quotes may be a part of a stored answer

    async def leave(self) -> None:
        """Say goodbye and let go."""
        with suppress(errors.MySQLError, OSError, RuntimeError):
            await self._connection.ensure_closed()

    def drop(self) -> None:
        """Let go at once."""
        with suppress(RuntimeError):  # the loop is closed: the connection went with it
            self._connection.close()


async def dial(address: Address, reply_s: float) -> AwaitedWire:
    """Connect.

    Args:
        address: of the server.
        reply_s: how long the server may be silent.
    """
    try:
        return AwaitedWire(
            await asyncmy.connect(
                host=address.host,
                port=address.port,
                user=address.user,
                password=address.password.encode(),
                database=address.database,
                charset="utf8mb4",
                autocommit=True,
                client_flag=CLIENT.MULTI_STATEMENTS | CLIENT.FOUND_ROWS,
                connect_timeout=CONNECT_S,
                read_timeout=reply_s,
                program_name="retrysafe",
                ssl=ssl.create_default_context(cafile=address.tls_ca) if address.tls else None,
            )
        )
    except (errors.MySQLError, OSError) as error:
        raise _said(error) from None


def _said(error: Exception) -> ServerError:
    code, said = (*error.args, "", "")[:2] if isinstance(error, errors.MySQLError) else (_LOST, repr(error))
    return ServerError(code if isinstance(code, int) and code else _LOST, str(said))
