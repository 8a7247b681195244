"""What people do about retries, each as it is commonly written: the first thing that works, and no worse than that."""

from __future__ import annotations

import asyncpg  # type: ignore[import-untyped]  # has no annotations
import redis.asyncio as redis

from retrysafe.lab.mutants.http import Response, problem
from retrysafe.lab.strategies.charges import PostgresCharges, SqliteCharges
from retrysafe.lab.strategies.shop import Order, Shop, Where, come_again, placed

LEASE_S = 2  # how long a request that died holds its key; the same everywhere
_KEPT_S = 3_600
_JSON = (("content-type", "application/json"),)


class NoGuard(Shop):
    """Every request that arrives is an order."""

    def __init__(self, where: Where) -> None:
        super().__init__(where)
        self.charges = PostgresCharges(where.postgres)

    async def open(self) -> None:
        """Connect."""
        await self.charges.open()

    async def close(self) -> None:
        """Disconnect."""
        await self.charges.close()

    async def place(self, key: str, order: Order) -> Response:  # noqa: ARG002 - nobody looks at it
        """Take it."""
        return placed(await self.charges.add(order), order)


class NoGuardSqlite(Shop):
    """Every request that arrives is an order; the shop's table is in SQLite."""

    FILE = "shop.db"

    def __init__(self, where: Where) -> None:
        super().__init__(where)
        self.charges = SqliteCharges(where.folder / self.FILE)

    async def open(self) -> None:
        """Open the file."""
        await self.charges.open()

    async def close(self) -> None:
        """Let go of the file."""
        await self.charges.close()

    async def place(self, key: str, order: Order) -> Response:  # noqa: ARG002 - nobody looks at it
        """Take it."""
        return placed(await self.charges.add(order), order)


class UniqueConstraint(NoGuard):
    """The customer's number of the order is unique in the table; a second insert is refused as a conflict."""

    async def open(self) -> None:
        """With the constraint."""
        await self.charges.open("CREATE UNIQUE INDEX IF NOT EXISTS charges_reference ON charges (reference)")

    async def place(self, key: str, order: Order) -> Response:
        """Take it, unless there is one of that number."""
        try:
            return await super().place(key, order)
        except asyncpg.UniqueViolationError:
            return problem(409, "already-exists")


class CheckThenInsert(NoGuard):
    """Look the key up; if it is not there, take the order, and then write the key and the answer down."""

    async def open(self) -> None:
        """With a table of keys."""
        await self.charges.open("CREATE TABLE IF NOT EXISTS keys (key text PRIMARY KEY, answer bytea NOT NULL)")

    async def place(self, key: str, order: Order) -> Response:
        """Look, take, write."""
        answer = await self.charges.pool.fetchval("SELECT answer FROM keys WHERE key = $1", key)
        if answer is not None:
            return Response(201, _JSON, answer)
        response = await super().place(key, order)
        await self.charges.pool.execute(
            "INSERT INTO keys (key, answer) VALUES ($1, $2) ON CONFLICT DO NOTHING", key, response.body
        )
        return response


class MemoryCache(NoGuard):
    """Answers are kept in a dictionary of the process; there are two processes, as everywhere here."""

    def __init__(self, where: Where) -> None:
        super().__init__(where)
        self._answers: dict[str, Response] = {}

    async def place(self, key: str, order: Order) -> Response:
        """Look, take, remember."""
        if (answer := self._answers.get(key)) is not None:
            return answer
        self._answers[key] = response = await super().place(key, order)
        return response


class SharedCache(NoGuard):
    """`SET key NX EX` in Redis takes the key for a while, the answer takes its place, and a failure deletes it."""

    _BUSY = b"busy"

    def __init__(self, where: Where) -> None:
        super().__init__(where)
        self._redis = redis.Redis.from_url(where.redis)

    async def close(self) -> None:
        """Disconnect from both."""
        await self._redis.aclose()
        await super().close()

    async def place(self, key: str, order: Order) -> Response:
        """Take the key, take the order, keep the answer."""
        if not await self._redis.set(key, self._BUSY, nx=True, ex=LEASE_S):
            answer = await self._redis.get(key)
            if not isinstance(answer, bytes) or answer == self._BUSY:
                return come_again()
            return Response(201, _JSON, answer)
        try:
            response = await super().place(key, order)
        except Exception:
            await self._redis.delete(key)
            raise
        await self._redis.set(key, response.body, ex=_KEPT_S)
        return response


class BusinessSignature(NoGuard):
    """Customer, item and quantity together are unique; one statement inserts, or finds what was inserted before."""

    _INSERT = (
        "INSERT INTO charges (reference, customer, item, quantity, signature) VALUES ($1, $2, $3, $4, $5) "
        "ON CONFLICT (signature) DO UPDATE SET signature = excluded.signature RETURNING number, reference"
    )

    async def open(self) -> None:
        """With the signature and its constraint."""
        await self.charges.open(
            "ALTER TABLE charges ADD COLUMN IF NOT EXISTS signature bytea",
            "CREATE UNIQUE INDEX IF NOT EXISTS charges_signature ON charges (signature)",
        )

    async def place(self, key: str, order: Order) -> Response:  # noqa: ARG002 - the order is its own key
        """Insert or find."""
        values = (order.reference, order.customer, order.item, order.quantity, order.signature)
        number, reference = await self.charges.pool.fetchrow(self._INSERT, *values)
        return placed(number, Order(reference, order.customer, order.item, order.quantity))
