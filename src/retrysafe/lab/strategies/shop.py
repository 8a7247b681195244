"""A shop that takes orders. Each strategy is this shop with another answer to the question whether to take this one."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrysafe.lab.mutants.http import Message, Response, document, problem, read, write


@dataclass(frozen=True, slots=True)
class Order:
    """What a customer wants.

    Attributes:
        reference: the number that the customer's own system gives it; effects are counted by it.
        customer: who.
        item: what.
        quantity: how many.
    """

    reference: str
    customer: str
    item: str
    quantity: int

    @property
    def signature(self) -> bytes:
        """A digest of what the order is, and not of which order it is."""
        return hashlib.sha256(f"{self.customer}\n{self.item}\n{self.quantity}".encode()).digest()


@dataclass(frozen=True, slots=True)
class Where:
    """Where the databases of a strategy are.

    Attributes:
        postgres: URL of a database, or nothing.
        redis: URL of a database, or nothing.
        folder: for files.
    """

    postgres: str
    redis: str
    folder: Path

    def environment(self) -> dict[str, str]:
        """As variables: a URL may have a password in it, and arguments can be seen by others."""
        return {"LAB_POSTGRES": self.postgres, "LAB_REDIS": self.redis, "LAB_FOLDER": str(self.folder)}

    @classmethod
    def of_environment(cls) -> Where:
        """What `environment` wrote."""
        return cls(os.environ["LAB_POSTGRES"], os.environ["LAB_REDIS"], Path(os.environ["LAB_FOLDER"]))


def placed(number: int, order: Order) -> Response:
    """The receipt."""
    return document(
        201,
        {
            "order": number,
            "reference": order.reference,
            "customer": order.customer,
            "item": order.item,
            "quantity": order.quantity,
            "state": "placed",
        },
    )


def come_again() -> Response:
    """The answer to who asks for what is at work."""
    return problem(409, "in-progress", ("retry-after", "1"), retryable=True)


class Shop:
    """ASGI: `POST /orders` with an `Idempotency-Key`.

    Args:
        where: the databases.
    """

    def __init__(self, where: Where) -> None:
        self.where = where

    async def open(self) -> None:
        """Connect, and make the tables that are not there yet."""

    async def close(self) -> None:
        """Disconnect."""

    async def place(self, key: str, order: Order) -> Response:
        """Place an order, or answer what the strategy has to say to a retry.

        Args:
            key: that the client sent; the same in each attempt.
            order: the order.
        """
        raise NotImplementedError

    async def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        """One connection."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        request = await read(scope, receive)
        if request is None:
            return
        asked: Any = request.json()
        await write(await self.place(request.value("idempotency-key").strip('"'), Order(**asked)), send)

    async def _live(
        self, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        await receive()
        await self.open()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.close()
        await send({"type": "lifespan.shutdown.complete"})
