"""The store in PostgreSQL: for any number of processes on any number of hosts.

Asyncio goes through asyncpg, threads go through psycopg; behind a pooler both go through psycopg, which
needs no prepared statements. What they say to the server is the same.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict

from retrysafe.errors import ConfigurationError, StoreUnavailable
from retrysafe.protocol.effects import Transition
from retrysafe.stores.contract import Pending
from retrysafe.stores.lanes import CONFLICTS_MAX, Lanes, Then, finished
from retrysafe.stores.postgres_asyncpg import AsyncpgSession
from retrysafe.stores.postgres_psycopg import LoopSession, ThreadSession
from retrysafe.stores.postgres_schema import agree, bring_up_to_date, scripts
from retrysafe.stores.postgres_session import Place, PostgresSession
from retrysafe.stores.postgres_sql import SERVER_CLOCK, Statements

T = TypeVar("T")

OPTIONS = ("host", "sslmode", "sslrootcert", "sslcert", "sslkey")
"""What may stand in the URL for the drivers, because both of them understand it."""

_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,62}")


class PostgresStore:
    """Records in a PostgreSQL database, or in another that speaks its protocol.

    Args:
        url: `postgresql://user:password@host:port/database`, as libpq understands it.
        schema: where the tables are; it is made if there is none.
        portable: use only what other engines have as well, and expect any level of isolation.
        clock: an SQL expression for the time in milliseconds; the server's clock, unless a test has another.
        upgrades: the scripts of the schema, in their order.

    Raises:
        ConfigurationError: the URL or the name of the schema cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        schema: str = "retrysafe",
        portable: bool = False,
        clock: str = SERVER_CLOCK,
        upgrades: Sequence[str] | None = None,
    ) -> None:
        if not _SCHEMA.fullmatch(schema):
            raise ConfigurationError(["schema= is lower-case letters, digits and underscores, at most 63"])
        self._upgrades = scripts() if upgrades is None else upgrades
        self._place = Place(
            url=url,
            name=f"postgresql {_address(url)} {schema}",
            statements=Statements(f'"{schema}"', clock, portable),
            versions=len(self._upgrades),
        )
        self._lanes: Lanes | None = None

    @property
    def name(self) -> str:
        """`postgresql`, where it is, and the schema; no user and no password."""
        return self._place.name

    def open(self, secret: bytes | None = None) -> bytes:
        """Make or upgrade the schema and agree on the secret; after `close`, open it again."""
        for conflicts_left in reversed(range(CONFLICTS_MAX)):
            session = ThreadSession(self._place)
            try:
                used = finished(self._open(session, secret))
                break
            except Exception as error:  # noqa: BLE001 - `judge` knows them all
                verdict = session.judge(error)
                if verdict.then is not Then.AGAIN or not conflicts_left:
                    raise verdict.failure from verdict.failure.__cause__
            finally:
                finished(session.close())
        if self._lanes is None:
            self._lanes = Lanes(self.name, self._loop_session, lambda: ThreadSession(self._place))
        return used

    def perform(self, transition: Transition[T]) -> T:
        """Do one transition, together with those of other threads, and wait for its answer."""
        return self._opened().perform(transition)

    def submit(self, transition: Transition[T]) -> asyncio.Future[T]:
        """Begin one transition; the future is done when the server has committed it."""
        loop = asyncio.get_running_loop()
        try:
            return self._opened().submit(transition)
        except StoreUnavailable as error:
            future: Pending[T] = Pending(loop=loop)
            future.set_exception(error)
            return future

    def close(self) -> None:
        """Finish what was submitted and let go of every connection."""
        lanes, self._lanes = self._lanes, None
        if lanes is not None:
            lanes.close()

    def _opened(self) -> Lanes:
        if self._lanes is None:
            raise StoreUnavailable(f"{self.name} is closed; open it before it is used")
        return self._lanes

    def _loop_session(self) -> PostgresSession:
        return LoopSession(self._place) if self._place.pooled else AsyncpgSession(self._place)

    async def _open(self, session: ThreadSession, secret: bytes | None) -> bytes:
        await session.dial()
        self._place.pooled = session.server_is_elsewhere()
        await session.refuse_standby()
        await bring_up_to_date(session, self._upgrades)
        return await agree(session, secret)


def _address(url: str) -> str:
    """Where a URL leads to, without who goes there.

    Raises:
        ConfigurationError: it leads nowhere. The text of libpq is not repeated: it quotes what may be a password.
    """
    try:
        parts = conninfo_to_dict(url)
    except psycopg.Error:
        raise ConfigurationError(["the store's URL postgresql://... cannot be understood; check its parts"]) from None
    host, port = parts.get("host", "localhost"), str(parts.get("port", "5432"))
    if not all(number.isdigit() for number in port.split(",")):
        raise ConfigurationError(["the port in the store's URL postgresql://... is no number"])
    return f"{host}:{port}/{parts.get('dbname', '')}"
