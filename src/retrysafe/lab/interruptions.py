"""What may happen to a request inside the engine, made to happen: it takes its time, or its worker dies.

The product has no such switches. While `interruptible` lasts, the drivers are wrapped from outside: a request in whose
context an `Interruption` stands is held between its effect and its record, or its claim is abandoned there, as a
process that is killed abandons it: nothing of it is recorded, released or renewed from then on.
"""

from __future__ import annotations

import threading
from asyncio import sleep
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from enum import StrEnum
from typing import Any
from weakref import WeakKeyDictionary

from retrysafe.drive import aio, sync
from retrysafe.protocol.answers import Answer
from retrysafe.protocol.effects import Claiming, Effect, Execute, Flow, Outcome


class Kind(StrEnum):
    """What happens to a request."""

    SEEN = "seen"  # nothing: it is only noted that the engine has it
    SLOW = "slow"  # its effect is there, and its record is not, for a while
    DIES_BEFORE = "die-before"  # its claim is there, its handler was not called
    DIES_AFTER = "die-after"  # its effect is there, and its record never will be


class WorkerDied(BaseException):
    """The worker of a blocking request is dead. Not an `Exception`: no application may take it for an error of its."""


class Interruption:
    """What is to happen to one request, and what did.

    Args:
        kind: what happens.
        hold_s: how long a slow one is held.
        lease_ms: what the claim of one that dies holds, in place of what its policy says.

    Attributes:
        reached: the engine has the request.
        died: its worker is dead.
    """

    def __init__(self, kind: Kind, hold_s: float, lease_ms: int) -> None:
        self.kind = kind
        self.hold_s = hold_s
        self.lease_ms = lease_ms
        self.reached = False
        self.died = False

    @property
    def is_deadly(self) -> bool:
        """Whether its worker dies."""
        return self.kind in {Kind.DIES_BEFORE, Kind.DIES_AFTER}

    def flow_of(self, flow: Flow[Answer]) -> Flow[Answer]:
        """The flow of the request, whose claim ends soon after a death."""
        self.reached = True
        return _with_lease(flow, self.lease_ms) if self.is_deadly else flow


current: ContextVar[Interruption | None] = ContextVar("interruption", default=None)


_installing = threading.Lock()
_installed: list[Callable[[], None]] = []  # what takes the wrapping off again, once for each context that lasts


@contextmanager
def interruptible() -> Iterator[None]:
    """While the context lasts, the drivers do to a request what stands in its context.

    Contexts may overlap, in whatever order they end: the drivers are wrapped once, from the first to the last.
    """
    with _installing:
        _installed.append(_installed[0] if _installed else _install())
    try:
        yield
    finally:
        with _installing:
            take_off = _installed.pop()
            if not _installed:
                take_off()


def _install() -> Callable[[], None]:
    """Wrap the drivers; what takes that off again."""
    before = (aio.Driver.run, sync.Driver.start, sync.Held.conclude)
    held: WeakKeyDictionary[sync.Held, Interruption] = WeakKeyDictionary()

    async def run(self: aio.Driver, flow: Flow[Answer], exchange: aio.Exchange) -> None:
        what = current.get()
        if what is None:
            await before[0](self, flow, exchange)
        else:
            await before[0](self, what.flow_of(flow), _InterruptedExchange(exchange, what))

    def start(self: sync.Driver, flow: Flow[Answer], exchange: sync.Exchange) -> sync.Held | Answer:
        what = current.get()
        got = before[1](self, flow if what is None else what.flow_of(flow), exchange)
        if what is not None and isinstance(got, sync.Held):
            held[got] = what
            if what.kind is Kind.DIES_BEFORE:
                _die(got, what)
        return got

    def conclude(self: sync.Held, outcome: Outcome) -> Answer:
        what = held.pop(self, None)
        if what is not None and what.kind is Kind.SLOW:
            threading.Event().wait(what.hold_s)
        if what is not None and what.is_deadly:
            _die(self, what)
        return before[2](self, outcome)

    _set(run, start, conclude)
    return lambda: _set(*before)


def _set(run: Any, start: Any, conclude: Any) -> None:
    for owner, name, function in (
        (aio.Driver, "run", run),
        (sync.Driver, "start", start),
        (sync.Held, "conclude", conclude),
    ):
        setattr(owner, name, function)


def _die(held: sync.Held, what: Interruption) -> None:
    what.died = True
    held.let_go()
    raise WorkerDied


class _InterruptedExchange:
    """The exchange of a request to which something happens; it can all that the inner one can.

    A worker that dies on an event loop does so without an exception, which would be the business of every task group
    on its way: its outcome is concluded by nobody, so that the driver lets the claim lie.
    """

    def __init__(self, inner: aio.Exchange, what: Interruption) -> None:
        self._inner = inner
        self._what = what

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def execute(self, effect: Execute, conclude: aio.Conclude) -> None:
        """As the inner one, up to where something happens."""
        what = self._what
        if what.kind is Kind.DIES_BEFORE:
            self._die()
            return

        async def concluding(outcome: Outcome) -> None:
            if what.kind is Kind.SLOW:
                await sleep(what.hold_s)
            if what.is_deadly:
                self._die()
            else:
                await conclude(outcome)

        await self._inner.execute(effect, concluding)

    def _die(self) -> None:
        self._what.died = True
        self._inner.leave()
        self._inner.overdue()


def _with_lease(flow: Flow[Answer], lease_ms: int) -> Generator[Effect[Any], Any, Answer]:
    """The same flow, whose claims hold for this long."""
    try:
        step = next(flow)
        while True:
            if isinstance(step, Claiming):
                step = replace(step, lease_ms=lease_ms)  # type: ignore[type-var] # each claim is a dataclass, see `value`
            try:
                answer = yield step
            except Exception as error:  # noqa: BLE001 - whatever the driver throws is the flow's to judge
                step = flow.throw(error)
            else:
                step = flow.send(answer)
    except StopIteration as end:
        result: Answer = end.value
        return result
