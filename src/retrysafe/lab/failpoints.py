"""Failpoints that nobody lists: every effect of the driver, every call of the store, every message of the door.

The product has none of them. A process that is to be hurt wraps its parts from outside, serves one request, and so
enumerates the points that the request passes; another process, told to stop at one of them, is killed there.

A point is a name and how often that name was passed before: `before CompleteIfHeld #1`. So it is found again in
another run, where threads and timers may have changed the order of the points around it.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from retrysafe.drive import aio
from retrysafe.protocol.effects import Effect, Transition
from retrysafe.server.capture import Message
from retrysafe.server.handling import Application, Receive, Send
from retrysafe.server.scope import Connection
from retrysafe.stores.contract import CompletesWithin, Completion, Pending, Store

T = TypeVar("T")

_PACKAGE = str(Path(__file__).parents[1])
_LAB = str(Path(__file__).parent)


class Failpoints:
    """The points of one process. Any thread may pass one.

    Args:
        act: told of each point as it is passed, on the thread that passes it; what it does, killing the process say,
            is done there.
    """

    def __init__(self, act: Callable[[str], None]) -> None:
        self._act = act
        self._passed: Counter[str] = Counter()
        self._lock = threading.Lock()

    def reach(self, name: str) -> None:
        """Pass the point of this name."""
        with self._lock:
            self._passed[name] += 1
            point = f"{name} #{self._passed[name]}"
        self._act(point)


class PointedStore:
    """A store whose every call has a point before it is sent, and one when it was applied and nobody knows yet.

    Args:
        inner: the store that does the work.
        points: of this process.
    """

    def __init__(self, inner: Store, points: Failpoints) -> None:
        self.name = inner.name
        self._inner = inner
        self._points = points

    def open(self, secret: bytes | None = None) -> bytes:
        """As the inner store."""
        return self._between("open", lambda: self._inner.open(secret))

    def perform(self, transition: Transition[T]) -> T:
        """As the inner store."""
        return self._between(type(transition).__name__, lambda: self._inner.perform(transition))

    def submit(self, transition: Transition[T]) -> asyncio.Future[T]:
        """As the inner store; the answer is handed on at the point after it."""
        name = type(transition).__name__
        self._points.reach(f"before {name}")
        answer: Pending[T] = Pending()
        self._inner.submit(transition).add_done_callback(lambda done: self._hand_on(name, done, answer))
        return answer

    def close(self) -> None:
        """As the inner store."""
        self._between("close", self._inner.close)

    def _between(self, name: str, work: Callable[[], T]) -> T:
        self._points.reach(f"before {name}")
        answer = work()
        self._points.reach(f"after {name}")
        return answer

    def _hand_on(self, name: str, done: asyncio.Future[T], answer: Pending[T]) -> None:
        error = done.exception()
        self._points.reach(f"after {name}" if error is None else f"failed {name}")
        if error is None:
            answer.set_result(done.result())
        else:
            answer.set_exception(error)


class _CompletingStore(PointedStore):
    """The same for a store that a handler may complete its own record in."""

    def __init__(self, inner: Store, points: Failpoints, completing: CompletesWithin) -> None:
        super().__init__(inner, points)
        self._completing = completing

    def completion(self) -> Completion:
        """As the inner store: the statements run on a connection of the handler's."""
        return self._completing.completion()


def pointed_store(inner: Store, points: Failpoints) -> PointedStore:
    """The store with its points; it can do what the inner one can."""
    if isinstance(inner, CompletesWithin):
        return _CompletingStore(inner, points, inner)
    return PointedStore(inner, points)


def pointed(application: Application, points: Failpoints, where: str) -> Application:
    """The application, with a point before and after each message that it takes and sends, and around it.

    Args:
        application: any ASGI application: what stands behind a door, or the door itself.
        points: of this process.
        where: names the points: `door`, `handler`.
    """

    async def serving(connection: Connection, receive: Receive, send: Send) -> None:
        if connection["type"] != "http":
            await application(connection, receive, send)
            return

        async def receiving() -> Message:
            points.reach(f"before {where} receives")
            message = await receive()
            points.reach(f"after {where} receives {message['type']}")
            return message

        async def sending(message: Message) -> None:
            points.reach(f"before {where} sends {message['type']}")
            await send(message)
            points.reach(f"after {where} sends {message['type']}")

        points.reach(f"before {where}")
        await application(connection, receiving, sending)
        points.reach(f"after {where}")

    return serving


@contextmanager
def pointed_driver(points: Failpoints) -> Iterator[None]:
    """While the context lasts, drivers on asyncio pass a point before and after each step of a flow.

    Before a step its effect is performed and the flow does not know; after it the next effect is wanted and not
    begun. The point after a step is named by that effect, or by the answer that the flow came to.
    """
    before = {name: getattr(aio, name) for name in ("first", "sent", "thrown")}

    def stepping(name: str, step: Callable[..., Any]) -> Callable[..., Any]:
        def taken(*arguments: Any) -> Any:
            points.reach(f"before the flow is {name}")
            came = step(*arguments)
            points.reach(f"after the flow {'wants' if isinstance(came, Effect) else 'returns'} {type(came).__name__}")
            return came

        return taken

    for name, step in before.items():
        setattr(aio, name, stepping(_STEPS[name], step))
    try:
        yield
    finally:
        for name, step in before.items():
            setattr(aio, name, step)


_STEPS = {"first": "begun", "sent": "answered", "thrown": "told of a failure"}


def point_every_line(points: Failpoints) -> None:
    """From now on every line of this package is a point, on whichever thread it runs; it slows all of it down.

    These are far more points than the others, and show what none of those does: a death between two statements.
    """

    def lines(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            code = frame.f_code
            points.reach(f"{Path(code.co_filename).relative_to(_PACKAGE)}:{frame.f_lineno}")
        return lines

    def calls(frame: FrameType, _: str, __: Any) -> Any:
        path = frame.f_code.co_filename
        return lines if path.startswith(_PACKAGE) and not path.startswith(_LAB) else None

    threading.settrace(calls)
    sys.settrace(calls)
