"""What the tests of drivers and doors share: a loop for a test, a clock, and a store that can be tampered with."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from retrysafe.errors import StoreError, StoreUnavailable
from retrysafe.model import Record, State
from retrysafe.observe import Event
from retrysafe.protocol.effects import Transition
from retrysafe.stores.contract import Pending, Store
from retrysafe.stores.memory import MemoryStore

T = TypeVar("T")
Hook = Callable[[Transition[Any]], Awaitable[None] | None]

PATIENCE_S = 10
STORE = "store"  # the name of tasks that stand for the work of a store, which no loop can cancel


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an asyncio test in a loop of its own, and fail it for every task that it leaves behind."""

    @functools.wraps(test)
    def run(*arguments: Any, **fixtures: Any) -> None:
        asyncio.run(_watched(test(*arguments, **fixtures)))

    return run


async def _watched(test: Coroutine[Any, Any, None]) -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    async with asyncio.timeout(PATIENCE_S):
        await test
        await eventually(lambda: not others())
    assert not complaints, complaints


def others() -> set[asyncio.Task[Any]]:
    """The tasks that run besides the current one."""
    return {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}


async def eventually(condition: Callable[[], object]) -> None:
    """Let the loop turn until the condition holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - any condition, of code that offers no event
            await asyncio.sleep(0.001)


class ManualClock:
    """A clock in milliseconds that goes when it is told to."""

    def __init__(self) -> None:
        self.now_ms = 1_000_000

    def __call__(self) -> int:
        """The time."""
        return self.now_ms


class Noted:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def notice(self, event: Event) -> None:
        """Keep the event."""
        self.events.append(event)

    def of(self, kind: type[Event]) -> list[Event]:
        """The events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]


class TamperedStore:
    """A store between whose operations a test steps in.

    Args:
        inner: the store that does the work.
        before: called with each transition before it is done, and awaited; may raise a `StoreError`.
        after: the same once it is done: an error raised here is a reply that was lost.

    Attributes:
        done: the names of the transitions that were done, in order.
        away: `open` fails while this is set.
    """

    name = "tampered"

    def __init__(self, inner: Store, before: Hook | None = None, after: Hook | None = None) -> None:
        self.inner = inner
        self.before = before
        self.after = after
        self.done: list[str] = []
        self.away = False
        self._working: set[asyncio.Task[None]] = set()

    def open(self, secret: bytes | None = None) -> bytes:
        """Open the inner store."""
        if self.away:
            raise StoreUnavailable
        return self.inner.open(secret)

    def perform(self, transition: Transition[T]) -> T:
        """Do one transition on this thread."""
        if self.before is not None:
            self.before(transition)
        answer = self.inner.perform(transition)
        self.done.append(type(transition).__name__)
        if self.after is not None:
            self.after(transition)
        return answer

    def submit(self, transition: Transition[T]) -> asyncio.Future[T]:
        """Begin one transition; who stops waiting for it does not stop it."""
        loop = asyncio.get_running_loop()
        future: Pending[T] = Pending()
        work = loop.create_task(self._carry_out(transition, future), name=STORE)
        self._working.add(work)
        work.add_done_callback(self._working.discard)
        return future

    async def _carry_out(self, transition: Transition[T], future: asyncio.Future[T]) -> None:
        try:
            await _awaited(self.before, transition)
            answer = self.inner.perform(transition)
            self.done.append(type(transition).__name__)
            await _awaited(self.after, transition)
        except StoreError as error:
            if not future.done():
                future.set_exception(error)
        else:
            if not future.done():
                future.set_result(answer)

    def close(self) -> None:
        """Close the inner store."""
        self.inner.close()


async def _awaited(hook: Hook | None, transition: Transition[Any]) -> None:
    waiting = hook(transition) if hook is not None else None
    if inspect.isawaitable(waiting):
        await waiting


async def turn(count: int) -> None:
    """Let the loop turn so many times."""
    for _ in range(count):
        await asyncio.sleep(0)


def turns(count: int) -> Hook:
    """A hook that takes so many turns of the loop."""

    async def take(_: Transition[Any]) -> None:
        await turn(count)

    return take


def failing(*kinds: type[Transition[Any]], times: int | None = None) -> Hook:
    """A hook that fails transitions of these kinds, for ever or so many times."""
    failed = 0

    def fail(transition: Transition[Any]) -> None:
        nonlocal failed
        if isinstance(transition, kinds) and (times is None or failed < times):
            failed += 1
            raise StoreUnavailable

    return fail


def records(store: Store) -> list[Record]:
    """Everything that a memory store holds, at whatever depth it is."""
    while isinstance(store, TamperedStore):
        store = store.inner
    assert isinstance(store, MemoryStore)
    return list(store._records.values())


def states(store: Store) -> list[State]:
    """The states of all records of a memory store."""
    return [record.state for record in records(store)]
