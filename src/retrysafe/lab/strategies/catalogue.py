"""Every strategy, in the order in which they are shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from retrysafe.lab.strategies import guards, protected
from retrysafe.lab.strategies.shop import Where


@dataclass(frozen=True, slots=True)
class Strategy:
    """One of them.

    Attributes:
        name: for command lines.
        title: for tables.
        build: its ASGI application.
        uses: the servers that it needs: `postgres`, `redis`.
        charges: the file in which the shop's table is; nothing if it is in PostgreSQL.
        is_ours: it is retrysafe.
    """

    name: str
    title: str
    build: Callable[[Where], Any]
    uses: tuple[str, ...] = ("postgres",)
    charges: str = ""
    is_ours: bool = False

    @property
    def baseline(self) -> str:
        """The strategy without a guard that has its table in the same database."""
        return "no-guard-sqlite" if self.charges else "no-guard"


_SHOP, _RECORDS = guards.NoGuardSqlite.FILE, protected.CommitsWithRecordSqlite.FILE
_ALL = (
    Strategy("no-guard", "no guard", guards.NoGuard),
    Strategy("no-guard-sqlite", "no guard, over SQLite", guards.NoGuardSqlite, (), _SHOP),
    Strategy("unique-constraint", "unique business constraint", guards.UniqueConstraint),
    Strategy("check-then-insert", "check, then insert", guards.CheckThenInsert),
    Strategy("memory-cache", "in-memory cache, two processes", guards.MemoryCache),
    Strategy("shared-cache", "shared cache, SET NX and a time to live", guards.SharedCache, ("postgres", "redis")),
    Strategy("business-signature", "atomic constraint, business signature", guards.BusinessSignature),
    Strategy("retrysafe-sqlite", "retrysafe, SQLite", protected.sqlite, (), _SHOP, is_ours=True),
    Strategy(
        "retrysafe-sqlite-transactional",
        "retrysafe, SQLite, one commit",
        protected.sqlite_transactional,
        (),
        _RECORDS,
        is_ours=True,
    ),
    Strategy("retrysafe-postgres", "retrysafe, PostgreSQL", protected.postgres, is_ours=True),
    Strategy(
        "retrysafe-postgres-transactional",
        "retrysafe, PostgreSQL, one commit",
        protected.postgres_transactional,
        is_ours=True,
    ),
    Strategy("retrysafe-redis", "retrysafe, Redis", protected.redis, ("postgres", "redis"), is_ours=True),
)

STRATEGIES = {one.name: one for one in _ALL}
