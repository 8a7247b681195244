"""The store in PostgreSQL: for any number of processes on any number of hosts.

Asyncio goes through asyncpg, threads go through psycopg; behind a pooler both go through psycopg, which
needs no prepared statements. What they say to the server is the same.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from retrysafe.errors import ConfigurationError, StoreUnavailable
from retrysafe.protocol.effects import Transition
from retrysafe.stores.contract import Completion, Pending
from retrysafe.stores.lanes import CONFLICTS_MAX, Lanes, Then, finished
from retrysafe.stores.migrations import Migration, due, migrations_of
from retrysafe.stores.postgres_schema import agree, bring_up_to_date, missing
from retrysafe.stores.postgres_session import Place, PostgresSession
from retrysafe.stores.postgres_sql import SERVER_CLOCK, Statements
from retrysafe.stores.url import StoreUrl, lacking
from retrysafe.stores.within import on_postgres

try:
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    from retrysafe.stores.postgres_asyncpg import AsyncpgSession
    from retrysafe.stores.postgres_psycopg import LoopSession, ThreadSession
except ModuleNotFoundError as error:
    raise lacking("postgres", error) from error

T = TypeVar("T")

_OPTIONS = ("host", "sslmode", "sslrootcert", "sslcert", "sslkey")
"""What may stand in the URL for the drivers, because both of them understand it."""

_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,62}")


class PostgresStore:
    """Records in a PostgreSQL database, or in another that speaks its protocol.

    Args:
        url: `postgresql://user:password@host:port/database`, as libpq understands it.
        schema: where the tables are; it is made if there is none.
        portable: use only what other engines have as well, and expect any level of isolation.
        clock: an SQL expression for the time in milliseconds; the server's clock, unless a test has another.
        migrations: of the schema, in their order.

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
        migrations: Sequence[Migration] | None = None,
    ) -> None:
        if not _SCHEMA.fullmatch(schema):
            raise ConfigurationError(["schema= is lower-case letters, digits and underscores, at most 63"])
        self._migrations = migrations_of("postgres") if migrations is None else migrations
        self._place = Place(
            url=url,
            name=f"postgresql {_address(url)} {schema}",
            statements=Statements(f'"{schema}"', clock, portable),
            migrations=len(self._migrations),
        )
        self._lanes: Lanes | None = None

    @property
    def name(self) -> str:
        """`postgresql`, where it is, and the schema; no user and no password."""
        return self._place.name

    def open(self, secret: bytes | None = None) -> bytes:
        """Make or upgrade the schema and agree on the secret; after `close`, open it again."""
        used = self._visit(lambda session: self._prepare(session, secret))
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

    def missing_migrations(self) -> tuple[Migration, ...]:
        """The migrations that the schema has not gone through, as they are for it; nothing is made or changed."""
        return self._visit(lambda session: missing(session, self._migrations))

    def migrate(self) -> tuple[Migration, ...]:
        """Go through every migration, those after a deployment too; answered by those that were missing."""
        return self._visit(lambda session: bring_up_to_date(session, self._migrations, len(self._migrations)))

    def completion(self) -> Completion:
        """How a record is completed on a connection of the application to the same database."""
        statements = self._place.statements
        return on_postgres(statements.schema, statements.clock, lambda: self._place.told.now_ms)

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

    def _visit(self, work: Callable[[ThreadSession], Awaitable[T]]) -> T:
        """Do something on a connection of its own, again if it was undone for a conflict with others."""
        for conflicts_left in reversed(range(CONFLICTS_MAX)):
            session = ThreadSession(self._place)
            try:
                return finished(self._arrive(session, work))
            except Exception as error:  # noqa: BLE001 - `judge` knows them all
                verdict = session.judge(error)
                if verdict.then is not Then.AGAIN or not conflicts_left:
                    raise verdict.failure from verdict.failure.__cause__
            finally:
                finished(session.close())
        raise AssertionError("the last conflict is an error")

    async def _arrive(self, session: ThreadSession, work: Callable[[ThreadSession], Awaitable[T]]) -> T:
        await session.dial()
        self._place.pooled = session.server_is_elsewhere()
        await session.refuse_standby()
        return await work(session)

    async def _prepare(self, session: ThreadSession, secret: bytes | None) -> bytes:
        await bring_up_to_date(session, self._migrations, due(self._migrations))
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


def store_of(url: StoreUrl) -> PostgresStore:
    """The store that a URL names.

    Args:
        url: `postgresql://user:password@host:port/database`, with `?schema=name` for where the tables are,
            `portable=true` for other engines that speak this protocol, and what docs/how-to/postgres.md lists of
            the options of libpq.
    """
    url.refuse(url.authority.count("@") > 1, "an @ in a user or a password is written %40")
    schema, portable = url.option("schema"), url.flag("portable")
    passed_on = {name: given for name in _OPTIONS if (given := url.option(name)) is not None}
    url.refuse_rest()
    return PostgresStore(url.only_with(passed_on), schema="retrysafe" if schema is None else schema, portable=portable)
