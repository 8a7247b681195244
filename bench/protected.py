"""The same applications, protected by the store that `BENCH_STORE` names."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from bench.bare import App, Bare
from retrysafe.asgi import IdempotencyMiddleware
from retrysafe.protocol.effects import Transition
from retrysafe.stores.contract import Pending, Store
from retrysafe.stores.location import open_store

T = TypeVar("T")
SCOPE = "header:X-Account-Id"
POOL = 16


def raw() -> App:
    """Raw ASGI, all defaults."""
    return IdempotencyMiddleware(Bare(), store=_url(), scope=SCOPE)


def framework() -> App:
    """FastAPI, all defaults."""
    from bench.framework import fastapi  # noqa: PLC0415 - other cases are served without loading it

    app = fastapi()
    app.add_middleware(IdempotencyMiddleware, store=_url(), scope=SCOPE)
    return app


def singly() -> App:
    """The same store, which is never given a transition before it has committed the last one."""
    return IdempotencyMiddleware(Bare(), store=OneAtATime([open_store(_url())]), scope=SCOPE)


def pool() -> App:
    """As many stores on one database as a common pool has connections, each doing one transition at a time."""
    return IdempotencyMiddleware(Bare(), store=OneAtATime([open_store(_url()) for _ in range(POOL)]), scope=SCOPE)


def _url() -> str:
    return os.environ["BENCH_STORE"]


class OneAtATime:
    """Stores on the same records, none of which commits two transitions together, as it never has two of them.

    It is what group commit is compared with. For one event loop.
    """

    def __init__(self, stores: list[Store]) -> None:
        self._stores = stores
        self._idle = list(stores)
        self._waiting: deque[Callable[[Store], None]] = deque()

    @property
    def name(self) -> str:
        """The store's own."""
        return self._stores[0].name

    def open(self, secret: bytes | None = None) -> bytes:
        """As the store does."""
        first, *others = [store.open(secret) for store in self._stores]
        assert all(other == first for other in others), "they are not on the same records"
        return first

    def perform(self, transition: Transition[T]) -> T:
        """As the store does; nothing here calls it at the same time as `submit`."""
        return self._stores[0].perform(transition)

    def close(self) -> None:
        """As the store does."""
        for store in self._stores:
            store.close()

    def submit(self, transition: Transition[T]) -> asyncio.Future[T]:
        """Give the transition to a store that has answered all that it was given."""
        answer: Pending[T] = Pending()

        def give(store: Store) -> None:
            store.submit(transition).add_done_callback(_hand_on(answer, lambda: self._idle_again(store)))

        self._waiting.append(give)
        if self._idle:
            self._next()
        return answer

    def _idle_again(self, store: Store) -> None:
        self._idle.append(store)
        if self._waiting:
            self._next()

    def _next(self) -> None:
        self._waiting.popleft()(self._idle.pop())


def _hand_on(answer: asyncio.Future[T], then: Callable[[], None]) -> Callable[[asyncio.Future[T]], Any]:
    """What to do when the store has answered: give it to whoever waits, and let the next one go."""

    def done(future: asyncio.Future[T]) -> None:
        then()
        if error := future.exception():
            answer.set_exception(error)
        else:
            answer.set_result(future.result())

    return done
