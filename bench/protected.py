"""The same application, protected: what the middleware costs, store by store."""

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
from retrysafe.stores.sqlite import SqliteStore

T = TypeVar("T")
SCOPE = "header:X-Account-Id"


def memory() -> App:
    """Records in this process."""
    return IdempotencyMiddleware(Bare(), store="memory://", scope=SCOPE)


def sqlite() -> App:
    """Records in the file `BENCH_DATABASE`, durable before they are answered."""
    return IdempotencyMiddleware(Bare(), store=f"sqlite:///{_database()}", scope=SCOPE)


def sqlite_one_commit() -> App:
    """The same file and store, which is never given a transition before it has committed the last one."""
    return IdempotencyMiddleware(Bare(), store=OneAtATime(SqliteStore(_database())), scope=SCOPE)


def _database() -> str:
    return os.environ["BENCH_DATABASE"]


class OneAtATime:
    """A store that cannot commit two transitions together, because it never has two of them.

    It is what group commit is compared with. For one event loop.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: deque[Callable[[], None]] = deque()
        self._busy = False

    @property
    def name(self) -> str:
        """The store's own."""
        return self._store.name

    def open(self, secret: bytes | None = None) -> bytes:
        """As the store does."""
        return self._store.open(secret)

    def perform(self, transition: Transition[T]) -> T:
        """As the store does; nothing here calls it at the same time as `submit`."""
        return self._store.perform(transition)

    def close(self) -> None:
        """As the store does."""
        self._store.close()

    def submit(self, transition: Transition[T]) -> asyncio.Future[T]:
        """Give the transition to the store when all that came before it have been answered."""
        answer: Pending[T] = Pending()
        self._waiting.append(lambda: self._store.submit(transition).add_done_callback(_hand_on(answer, self._next)))
        if not self._busy:
            self._next()
        return answer

    def _next(self) -> None:
        self._busy = bool(self._waiting)
        if self._busy:
            self._waiting.popleft()()


def _hand_on(answer: asyncio.Future[T], then: Callable[[], None]) -> Callable[[asyncio.Future[T]], Any]:
    """What to do when the store has answered: give it to whoever waits, and let the next one go."""

    def done(future: asyncio.Future[T]) -> None:
        then()
        if error := future.exception():
            answer.set_exception(error)
        else:
            answer.set_result(future.result())

    return done
