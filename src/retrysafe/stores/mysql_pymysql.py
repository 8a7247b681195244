"""A connection to MySQL or MariaDB for threads, through PyMySQL."""

from __future__ import annotations

import select
import ssl
from collections.abc import Sequence
from contextlib import suppress

import pymysql
from pymysql.constants import CLIENT
from pymysql.err import MySQLError  # by name: Django, with this for its driver, exchanges the module in `pymysql.err`

from retrysafe.stores.mysql_server import CONNECT_S, Address, ServerError
from retrysafe.stores.mysql_sql import Result

_LOST = 2013


class BlockingWire:
    """A connection whose coroutines do their work before they return."""

    def __init__(self, connection: pymysql.Connection) -> None:
        self._connection = connection

    @property
    def whole(self) -> bool:
        """Has the server not ended it? What can be read when nothing was asked is its end."""
        sock = self._connection._sock  # type: ignore[attr-defined]  # noqa: SLF001 - the library does not look
        if sock is None:
            return False
        looking = select.poll()
        looking.register(sock, select.POLLIN)
        return not looking.poll(0)

    async def ask(self, text: str) -> Sequence[Result]:
        """What each statement of the text came to."""
        results: list[Result] = []
        try:
            cursor = self._connection.cursor()
            cursor.execute(text)
            while True:
                results.append(cursor.rowcount if cursor.description is None else cursor.fetchall())
                if not cursor.nextset():
                    return results
        except (MySQLError, OSError) as error:
            raise _said(error) from None  # what the server quotes may be a part of a stored answer

    async def leave(self) -> None:
        """Say goodbye and let go."""
        with suppress(MySQLError, OSError):
            self._connection.close()

    def drop(self) -> None:
        """Let go at once; a goodbye is no wait, and what comes of it does not matter."""
        with suppress(MySQLError, OSError):
            self._connection.close()


async def dial(address: Address, reply_s: float) -> BlockingWire:
    """Connect, before it returns.

    Args:
        address: of the server.
        reply_s: how long the server may be silent.
    """
    try:
        return BlockingWire(
            pymysql.connect(
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
                write_timeout=reply_s,
                program_name="retrysafe",
                ssl=ssl.create_default_context(cafile=address.tls_ca) if address.tls else None,
                ssl_disabled=not address.tls,
            )
        )
    except (MySQLError, OSError) as error:
        raise _said(error) from None


def _said(error: Exception) -> ServerError:
    code, said = (*error.args, "", "")[:2] if isinstance(error, MySQLError) else (_LOST, repr(error))
    return ServerError(code if isinstance(code, int) and code else _LOST, str(said))
