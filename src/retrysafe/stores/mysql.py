"""The store in a MySQL or MariaDB database, for any number of hosts. Needs `retrysafe[mysql]`.

Two connections for each event loop and two for threads, on which what arrives together is written
together (`stores.lanes`). The server's clock decides, and its locks; the text of a batch is built in
`mysql_sql`, the server is examined in `mysql_server`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from retrysafe.errors import StoreUnavailable
from retrysafe.protocol.effects import Transition
from retrysafe.stores.contract import Completion, Pending
from retrysafe.stores.lanes import Lanes, finished
from retrysafe.stores.migrations import Migration, due, migrations_of
from retrysafe.stores.mysql_server import (
    Address,
    ServerError,
    bring_up_to_date,
    examine,
    failure_of,
    make_ready,
    missing,
    setup,
)
from retrysafe.stores.mysql_session import MysqlSession, Terms, Wire
from retrysafe.stores.mysql_sql import CLOCK
from retrysafe.stores.url import StoreUrl, lacking
from retrysafe.stores.within import on_mysql

try:
    from retrysafe.stores import mysql_asyncmy, mysql_pymysql
except ModuleNotFoundError as error:
    raise lacking("mysql", error) from error

T = TypeVar("T")

REPLY_S = 15.0
LOCK_WAIT_S = 2


class MysqlStore:
    """Records in tables of a MySQL or MariaDB database.

    Args:
        address: of the server and the database, which is there already.
        reply_s: how long the server may be silent over a batch, before `StoreUnavailable`.
        lock_wait_s: how long a batch waits for a row that somebody holds; whole seconds, as the server counts.
        clock_sql: an expression that is the time in milliseconds; the server's clock.
        migrations: of the schema, in their order.
    """

    def __init__(
        self,
        address: Address,
        *,
        reply_s: float = REPLY_S,
        lock_wait_s: int = LOCK_WAIT_S,
        clock_sql: str = CLOCK,
        migrations: Sequence[Migration] | None = None,
    ) -> None:
        self._name = address.name
        self._migrations = migrations_of("mysql") if migrations is None else migrations
        self._lock_wait_s = lock_wait_s
        self._dial = partial(mysql_pymysql.dial, address, reply_s)
        self._database = address.database
        self._terms = terms = Terms(self._name, clock_sql, lock_wait_s, len(self._migrations))
        self._begin = partial(
            Lanes,
            self._name,
            partial(MysqlSession, partial(mysql_asyncmy.dial, address, reply_s), terms),
            partial(MysqlSession, self._dial, terms),
        )
        self._lanes: Lanes | None = None

    @property
    def name(self) -> str:
        """`mysql`, the host, the port and the database."""
        return self._name

    def open(self, secret: bytes | None = None) -> bytes:
        """Examine the server, create or upgrade the tables, agree on the secret; after `close`, open it again."""
        agreed = self._visit(lambda wire, said: self._prepare(wire, said, secret))
        if self._lanes is None:
            self._lanes = self._begin()
        return agreed

    def perform(self, transition: Transition[T]) -> T:
        """Do one transition on this thread, together with what else waits, and wait for its answer."""
        if self._lanes is None:
            raise self._not_open()
        return self._lanes.perform(transition)

    def submit(self, transition: Transition[T]) -> asyncio.Future[T]:
        """Begin one transition on the running loop; the future is done when the server has committed."""
        future: Pending[T] = Pending(loop=asyncio.get_running_loop())
        if self._lanes is not None:
            return self._lanes.submit(transition)
        future.set_exception(self._not_open())
        return future

    def missing_migrations(self) -> tuple[Migration, ...]:
        """The migrations that the database has not gone through; nothing is made or changed."""
        return self._visit(lambda wire, _: missing(self._name, wire, self._migrations))

    def migrate(self) -> tuple[Migration, ...]:
        """Go through every migration, those after a deployment too; answered by those that were missing."""
        last = len(self._migrations)
        return self._visit(lambda wire, _: bring_up_to_date(self._name, wire, self._migrations, last))

    def completion(self) -> Completion:
        """How a record is completed on a connection of the application to the same server."""
        return on_mysql(self._database, self._terms.clock_sql, lambda: self._terms.told.now_ms)

    def close(self) -> None:
        """Finish what was handed over and close every connection."""
        lanes, self._lanes = self._lanes, None
        if lanes is not None:
            lanes.close()

    def _not_open(self) -> StoreUnavailable:
        return StoreUnavailable(f"{self._name} is closed; open it before it is used")

    def _visit(self, work: Callable[[Wire, Mapping[str, str]], Awaitable[T]]) -> T:
        """Do something on a connection of its own, to a server that may be used, whose variables it is told."""
        try:
            return finished(self._arrive(work))
        except ServerError as error:
            raise failure_of(self._name, error) from None

    async def _arrive(self, work: Callable[[Wire, Mapping[str, str]], Awaitable[T]]) -> T:
        wire = await self._dial()
        try:
            return await work(wire, examine(self._name, (await wire.ask(setup(self._lock_wait_s)))[-1]))
        finally:
            await wire.leave()

    async def _prepare(self, wire: Wire, said: Mapping[str, str], secret: bytes | None) -> bytes:
        await bring_up_to_date(self._name, wire, self._migrations, due(self._migrations))
        return await make_ready(self._name, wire, said, secret)


def store_of(url: StoreUrl) -> MysqlStore:
    """The store that a URL names.

    Args:
        url: `mysql://user:password@host:port/database`, with `?tls=true`, and `&tls_ca=FILE` if the system does not
            trust the server's certificate.
    """
    port, database = url.port(3306), url.path[1:]
    url.refuse(not url.host or not url.user, "it names no user or no host")
    url.refuse(not database or "/" in database, "it names no database")
    tls, tls_ca = url.flag("tls"), url.option("tls_ca")
    url.refuse(tls_ca and not tls, "tls_ca is of use with tls=true")
    url.refuse_rest()
    return MysqlStore(Address(url.host, port, url.user, url.password, database, tls, tls_ca))
