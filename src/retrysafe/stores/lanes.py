"""Group commit for stores behind a network: lanes, each a connection with at most one batch in flight.

What arrives while a batch is being written goes out together in the next one: no timers, so nothing
waits when there is little to do. There are two lanes for each event loop, and two for all threads:
one for claims and reads, one for everything that waits for the lock of a row. So a row that somebody
holds for long keeps no new key waiting.

A batch has transitions of one kind, sorted by record, of which no two are on the same record: so lanes
do not wait for each other in a circle, and what is submitted in one lane for one record happens in
that order. Claims on the same record that meet in a batch are one row: the first decides, and the rest
find what it left, as they would have a moment later. The same holds for reads.

The store hands in sessions: how to connect, how to do one batch, what an error means. One text serves
both colours: it is written with `await`, and a session for threads does its work before it returns, so
that `finished` never meets a coroutine that waits.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import random
import threading
import time
import weakref
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from enum import Enum
from typing import Any, Protocol, TypeVar

from retrysafe.errors import StoreError, StoreUnavailable, StoreUnusable
from retrysafe.protocol.effects import Transition
from retrysafe.protocol.transitions import ClaimIfAbsent, Read
from retrysafe.stores.contract import Pending, failure_of_your_own
from retrysafe.value import value

T = TypeVar("T")

BATCH_MAX = 256
BATCH_BYTES_MAX = 4 << 20  # of responses, requests and the like; one that is larger goes alone
CONFLICTS_MAX = 20
CONFLICT_PAUSE_S = 0.01
CLOSE_S = 10.0

Sleep = Callable[[float], Awaitable[None]]


# --- what a store hands in ----------------------------------------------------------------------


class Then(Enum):
    """What is to be done about a batch that failed."""

    EACH_ALONE = "it was undone; each transition is tried alone, so that the one to blame fails alone"
    AGAIN = "it was undone for a conflict with others; it is tried again"
    RECONNECT = "it may or may not have been applied, or the connection cannot be trusted; it is let go of"


@value
class Verdict:
    """What an error means: what the callers are to hear, and what is to be done."""

    failure: StoreError
    then: Then


class Session(Protocol):
    """One connection, made when it is needed, and used by one lane. For an event loop, or for threads."""

    @property
    def connected(self) -> bool:
        """Is there a connection, as far as can be told without asking the server?"""

    async def connect(self) -> None:
        """Make a connection that is ready for use. Raises what `judge` understands."""

    async def run(self, transitions: Sequence[Transition[Any]]) -> Sequence[Any]:
        """Do all of these or none, in one statement; answer them in order. Raises what `judge` understands.

        Args:
            transitions: of one kind, on different records, sorted by record; one, if it is on many records.
        """

    def judge(self, error: Exception) -> Verdict:
        """What an error of `connect` or `run` means."""

    async def close(self) -> None:
        """Take leave of the server. Raises nothing."""

    def drop(self) -> None:
        """Let go of the connection at once, without a word. Raises nothing."""


# --- batches ------------------------------------------------------------------------------------


class Call:
    """A transition, and whoever waits for its answer."""

    __slots__ = ("record_id", "transition")

    def __init__(self, transition: Transition[Any]) -> None:
        self.transition = transition
        self.record_id = record_of(transition)

    def answer(self, outcome: Any) -> None:
        """Tell whoever waits: the answer, or a `StoreError`."""
        raise NotImplementedError


C = TypeVar("C", bound=Call)

_SHARED = (ClaimIfAbsent, Read)


def record_of(transition: Any) -> bytes:
    """The record that a transition is on; those on many records share one of their own, and so go one by one."""
    record_id: bytes = getattr(getattr(transition, "claim", transition), "record_id", b"")
    return record_id


def _size_bytes(transition: Transition[Any]) -> int:
    kind = type(transition)
    if kind not in _LARGE_OF:
        _LARGE_OF[kind] = tuple(name for name in _LARGE if hasattr(kind, name))
    return sum([len(getattr(transition, name) or b"") for name in _LARGE_OF[kind]])


_LARGE = ("response", "seen_response", "request", "journal", "entry")
_LARGE_OF: dict[type[Transition[Any]], tuple[str, ...]] = {}


def take(waiting: deque[C]) -> list[list[list[C]]]:
    """Take what may be done together from the front of the queue: batches of one kind, of rows, of calls.

    The calls of a row share its answer. What else is on a record that was met waits for the next turn, in
    its order.
    """
    rows: dict[bytes, list[C]] = {}
    later: list[C] = []
    barred: set[bytes] = set()  # records on which something waits, which nothing may overtake
    size_bytes = 0
    while waiting and len(rows) < BATCH_MAX and len(later) < BATCH_MAX:
        call = waiting[0]
        size_bytes += _size_bytes(call.transition)
        if rows and size_bytes > BATCH_BYTES_MAX:
            break
        waiting.popleft()
        row = rows.setdefault(call.record_id, [])
        if not row or (call.record_id not in barred and _may_share(row[0].transition, call.transition)):
            row.append(call)
        else:
            barred.add(call.record_id)
            later.append(call)
    waiting.extendleft(reversed(later))
    batches: dict[type, list[list[C]]] = {}
    for _, row in sorted(rows.items()):
        batches.setdefault(type(row[0].transition), []).append(row)
    return list(batches.values())


def _may_share(first: Transition[Any], other: Transition[Any]) -> bool:
    return type(first) is type(other) and isinstance(first, _SHARED)


async def _carry_all(session: Session, batches: Sequence[Sequence[Sequence[Call]]], sleep: Sleep) -> None:
    """Do what was taken, batch by batch, and answer everybody."""
    for batch in batches:
        outcomes = await carry(session, [row[0].transition for row in batch], sleep)
        for row, outcome in zip(batch, outcomes, strict=True):
            for call in row:
                call.answer(outcome)


async def carry(session: Session, transitions: Sequence[Transition[Any]], sleep: Sleep) -> Sequence[Any]:
    """What each of a batch comes to, in order: its answer, or a `StoreError`.

    What the server undid because of a conflict is tried again, up to `CONFLICTS_MAX` times: nothing ran
    yet, and a handler is never part of it.
    """
    for conflicts in range(CONFLICTS_MAX):
        try:
            if not session.connected:
                await session.connect()
            return await session.run(transitions)
        except Exception as error:  # noqa: BLE001 - whatever it is, the callers are to hear it
            verdict = session.judge(error)
        if verdict.then is not Then.AGAIN:
            break
        await sleep(random.random() * CONFLICT_PAUSE_S * conflicts)  # noqa: S311 - spreads, and hides nothing
    if verdict.then is Then.RECONNECT:
        session.drop()
    elif len(transitions) > 1:
        return await _each_alone(session, transitions, sleep)
    return [verdict.failure] * len(transitions)


async def _each_alone(session: Session, transitions: Sequence[Transition[Any]], sleep: Sleep) -> Sequence[Any]:
    outcomes: list[Any] = []
    for transition in transitions:
        (outcome,) = await carry(session, [transition], sleep)
        outcomes.append(outcome)
        if isinstance(outcome, StoreError) and not session.connected:  # the rest would fail alike, and wait as long
            return outcomes + [outcome] * (len(transitions) - len(outcomes))
    return outcomes


# --- asyncio ------------------------------------------------------------------------------------


class _Awaited(Call):
    """A transition that a coroutine waits for."""

    __slots__ = ("future",)

    def __init__(self, transition: Transition[Any], future: asyncio.Future[Any]) -> None:
        super().__init__(transition)
        self.future = future

    def answer(self, outcome: Any) -> None:
        if self.future.done():  # by a lane that stopped in the middle
            return
        if isinstance(outcome, StoreError):
            self.future.set_exception(failure_of_your_own(outcome))
        else:
            self.future.set_result(outcome)


class Lane:
    """One connection of one event loop, and what waits for it. Lives in that loop alone.

    Args:
        session: the connection.
        gone: told when the loop ends, or the lane was closed.
    """

    def __init__(self, session: Session, gone: Callable[[], None]) -> None:
        self._session = session
        self._gone = gone
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Awaited] = deque()
        self._running: asyncio.Task[None] | None = None
        self._end: AsyncGenerator[None, None] | None = None
        self._leaving: asyncio.Task[None] | None = None

    def submit(self, transition: Transition[T]) -> asyncio.Future[T]:
        """Queue a transition. The lane sets out in the loop's next turn, with all that this one brings."""
        future: Pending[T] = Pending(loop=self._loop)
        self._waiting.append(_Awaited(transition, future))
        if self._running is None:  # in a context of its own, which keeps nothing of the first request alive
            self._running = self._loop.create_task(self._run(), context=contextvars.Context())
            self._running.add_done_callback(self._never_began)
        return future

    async def close(self) -> None:
        """Finish what was submitted, then take leave of the server."""
        while self._running is not None:
            await asyncio.wait([self._running])
        await self._leave()

    async def _run(self) -> None:
        batches: list[list[list[_Awaited]]] = []
        try:
            if self._end is None:
                self._end = self._until_the_end()
                await anext(self._end)
            while self._waiting:
                batches = take(self._waiting)
                await _carry_all(self._session, batches, asyncio.sleep)
        except BaseException as error:
            self._session.drop()
            self._fail([call for batch in batches for row in batch for call in row], error)
            raise
        finally:
            self._running = None

    def _never_began(self, task: asyncio.Task[None]) -> None:
        """Leave nobody waiting for a task that was cancelled before its first step: it did nothing at all."""
        if self._running is task:
            self._running = None
            self._fail((), asyncio.CancelledError())

    async def _until_the_end(self) -> AsyncGenerator[None, None]:
        """Lets go of the connection when the loop ends: a loop that ends closes its asynchronous generators."""
        try:
            yield
        finally:
            await self._leave()

    async def _leave(self) -> None:
        """Take leave of the server, once, whoever asks for it."""
        if self._leaving is None:
            self._leaving = self._loop.create_task(self._session.close())
        await asyncio.wait([self._leaving])
        self._gone()

    def _fail(self, taken: Sequence[_Awaited], error: BaseException) -> None:
        """Leave nobody waiting: the loop is being ended, or something happened that was not expected."""
        for call in (*taken, *self._waiting):
            call.answer(_stopped(error))
        self._waiting.clear()


def _stopped(error: BaseException) -> StoreError:
    failure = StoreUnavailable(
        f"the store was stopped in the middle by {type(error).__name__}; what was in flight may or may not have been "
        "applied"
    )
    failure.__cause__ = error
    return failure


# --- threads ------------------------------------------------------------------------------------


class _Blocked(Call):
    """A transition that a thread waits for; it may be woken to lead before there is an answer."""

    __slots__ = ("_outcome", "_woken", "answered", "leads")

    def __init__(self, transition: Transition[Any]) -> None:
        super().__init__(transition)
        self.answered = self.leads = False
        self._outcome: Any = None
        self._woken = threading.Lock()  # the lightest thing that one thread can wait for and another set
        self._woken.acquire()

    def wait(self) -> None:
        self._woken.acquire()

    def lead(self) -> None:
        self.leads = True
        self._woken.release()

    def answer(self, outcome: Any) -> None:
        if not self.answered:
            self._outcome, self.answered = outcome, True
            self._woken.release()

    def outcome(self) -> Any:
        if isinstance(self._outcome, StoreError):
            raise failure_of_your_own(self._outcome)
        return self._outcome


class ThreadLane:
    """One connection for threads. Whoever finds it idle leads: writes a batch for all that wait, then hands over.

    So there is no thread to start, to stop, or to lose in a fork.

    Args:
        session: the connection; its methods do their work before they return.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._waiting: deque[_Blocked] = deque()
        self._led = False
        self._closed = False
        # Guards the three above. A condition takes and leaves its lock in Python, where a signal handler may raise.
        self._turn = threading.RLock()
        self._idle = threading.Condition(self._turn)  # notified when nobody leads

    def perform(self, transition: Transition[T]) -> T:
        """Do one transition, together with what else waits, and wait for its answer."""
        call = _Blocked(transition)
        try:  # around all of it: a signal handler may raise between any two lines
            self._join(call)
            if not call.leads:
                call.wait()
            if not call.answered:
                self._lead()
        except BaseException:
            self._withdraw(call)
            raise
        answer: T = call.outcome()
        return answer

    def _join(self, call: _Blocked) -> None:
        with self._turn:
            if self._closed:
                raise StoreUnavailable("the store was closed in this moment; nothing was done")
            self._waiting.append(call)
            call.leads, self._led = not self._led, True

    def close(self) -> None:
        """Refuse what comes, wait for what was handed over, then take leave of the server."""
        with self._turn:
            self._closed = True
            self._idle.wait_for(lambda: not self._led, CLOSE_S)
            finished(self._session.close())

    def _lead(self) -> None:
        """Write one batch, in which the leader's own transition is the first."""
        batches: list[list[list[_Blocked]]] = []
        try:
            with self._turn:
                batches = take(self._waiting)
            finished(_carry_all(self._session, batches, _sleep))
        except BaseException as error:
            self._session.drop()
            for call in (call for batch in batches for row in batch for call in row):
                call.answer(_stopped(error))
            raise
        finally:
            try:
                with self._turn:
                    self._hand_over()
            except BaseException:  # of a signal handler, which must not leave a lane that nobody leads
                with self._turn:
                    if self._led and not (self._waiting and self._waiting[0].leads):
                        self._hand_over()
                raise

    def _withdraw(self, call: _Blocked) -> None:
        """Take back what a signal interrupted while it waited: nobody would be there if it were to lead."""
        with self._turn:
            if call in self._waiting:
                self._waiting.remove(call)
                if call.leads:
                    self._hand_over()

    def _hand_over(self) -> None:
        if self._waiting:
            self._waiting[0].lead()
        else:
            self._led = False
            self._idle.notify_all()


def finished(coroutine: Coroutine[Any, Any, T]) -> T:
    """What a coroutine comes to that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        answer: T = end.value
        return answer
    coroutine.close()
    raise AssertionError("a session for threads waited for an event loop")


async def _sleep(pause_s: float) -> None:
    time.sleep(pause_s)  # noqa: ASYNC251, TID251 - on a thread, to let the winner of a conflict finish; has a bound


# --- all lanes of a store -----------------------------------------------------------------------


class Lanes:
    """The lanes of one store, in one process.

    Args:
        name: of the store, for people.
        session: makes what a lane of an event loop works with.
        thread_session: makes what a lane for threads works with.
    """

    def __init__(self, name: str, session: Callable[[], Session], thread_session: Callable[[], Session]) -> None:
        self._name = name
        self._session = session
        self._thread_session = thread_session
        self._closed = False
        self._begin()
        _ALL.add(self)

    def perform(self, transition: Transition[T]) -> T:
        """Do one transition on this thread, and wait for its answer."""
        self._refuse()
        return self._threads[_waits_for_rows(transition)].perform(transition)

    def submit(self, transition: Transition[T]) -> asyncio.Future[T]:
        """Begin one transition on the running loop; the future cannot be cancelled."""
        loop = asyncio.get_running_loop()
        try:
            self._refuse()
        except StoreError as error:
            future: Pending[T] = Pending(loop=loop)
            future.set_exception(error)
            return future
        pair = self._loops.get(loop)
        if pair is None:
            for gone in [known for known in list(self._loops) if known.is_closed()]:  # without a word to its generators
                self._forget(gone)
            pair = self._loops[loop] = (self._lane(loop), self._lane(loop))
        return pair[_waits_for_rows(transition)].submit(transition)

    def close(self) -> None:
        """Refuse what comes, finish what was handed over, let go of every connection. Safe to repeat.

        What belongs to the loop of this thread, or to a loop that does not run, is closed when that runs.
        """
        self._closed = True
        here = asyncio.get_running_loop() if _in_a_loop() else None
        for loop, pair in list(self._loops.items()):
            closed = threading.Event()
            with suppress(RuntimeError):  # the loop is closed, and so are its connections
                loop.call_soon_threadsafe(_begin_to_close, pair, closed)
                if loop is not here and loop.is_running():
                    closed.wait(CLOSE_S)
        for lane in self._threads:
            lane.close()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._threads = (ThreadLane(self._thread_session()), ThreadLane(self._thread_session()))
        self._loops: dict[asyncio.AbstractEventLoop, tuple[Lane, Lane]] = {}

    def _lane(self, loop: asyncio.AbstractEventLoop) -> Lane:
        return Lane(self._session(), lambda: self._forget(loop))

    def _forget(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loops.pop(loop, None)

    def _refuse(self) -> None:
        if self._closed:
            raise StoreUnavailable(f"{self._name} is closed; open it before it is used")
        if self._pid != os.getpid():
            raise StoreUnusable(
                f"{self._name} was open when this process was forked by something that does not tell Python; "
                "open it only after the fork"
            )

    def begin_anew(self) -> None:
        """In a child: leave the connections to the parent, without a word on them, and make others when needed."""
        _INHERITED.append((self._threads, self._loops))
        self._begin()


def _waits_for_rows(transition: Transition[Any]) -> bool:
    """Does it change a record that is there, and may wait for whoever else changes it?"""
    return not isinstance(transition, _SHARED)


def _begin_to_close(pair: tuple[Lane, Lane], closed: threading.Event) -> None:
    closing = asyncio.get_running_loop().create_task(_close(pair, closed))
    _CLOSING.add(closing)
    closing.add_done_callback(_CLOSING.discard)


async def _close(pair: tuple[Lane, Lane], closed: threading.Event) -> None:
    try:
        for lane in pair:
            await lane.close()
    finally:
        closed.set()


def _in_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


_CLOSING: set[asyncio.Task[None]] = set()  # a loop does not keep its tasks alive
_ALL: weakref.WeakSet[Lanes] = weakref.WeakSet()
_INHERITED: list[Any] = []  # kept, because what is deleted says goodbye, in the name of the parent


def _after_fork() -> None:
    for lanes in list(_ALL):
        lanes.begin_anew()


os.register_at_fork(after_in_child=_after_fork)
