"""The store in one SQLite file: the default for one host, however many processes.

Each process has one thread that writes to the file; blocking callers hand it their transitions, and event
loops what each of their turns brings, and it answers them. What arrives while a commit is being made durable
shares the next one (group commit): no timers, so nothing waits when there is little to do, and a disk that is
slow to sync costs latency but hardly throughput. One store for each file and process is best; more are safe.

A fork is prepared for: the connection is closed before and made again after, on both sides, because
SQLite's locks belong to a process and its memory of them would be inherited. For Unix only.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, TypeVar

from retrysafe.errors import StoreError, StoreUnavailable, StoreUnusable
from retrysafe.protocol.effects import Transition
from retrysafe.stores.clock import Clock, host_clock
from retrysafe.stores.contract import Completion, Pending, failure_of_your_own
from retrysafe.stores.migrations import Migration
from retrysafe.stores.plan import AgreeOnSecret
from retrysafe.stores.sqlite_file import CHECKPOINTS_SAFE_SINCE, Identity, SqliteFile, migrations
from retrysafe.stores.sqlite_session import Session, refused
from retrysafe.stores.url import StoreUrl
from retrysafe.stores.within import on_sqlite

_LOG = logging.getLogger("retrysafe.stores.sqlite")

T = TypeVar("T")

BATCH_MAX = 256  # a batch that has so many takes nothing more
BUSY_MS = 5_000

# Held while a store is made, a transition is handed over, a thread is started or stopped, and a process forks. One
# for all stores, because a fork concerns all of them; it is never held while anything waits for a disk, but in a fork.
_HANDING = threading.Lock()


class SqliteStore:
    """Records in one SQLite file.

    Args:
        path: of the file; it is made, for this user only, if there is none.
        clock: milliseconds; the store makes it monotone, over restarts too.
        force: use the file even on a network file system.
        busy_ms: how long to wait for another process that is writing, before `StoreUnavailable`.
        schema: the migrations of the schema, in their order.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        clock: Clock = host_clock,
        force: bool = False,
        busy_ms: int = BUSY_MS,
        schema: Sequence[Migration] | None = None,
    ) -> None:
        self._file = SqliteFile(
            path=Path(os.path.realpath(path)),
            force=force,
            busy_ms=busy_ms,
            migrations=migrations() if schema is None else schema,
        )
        self._clock = clock
        self._writer: _Writer | None = None
        self._gathered: dict[asyncio.AbstractEventLoop, list[_Awaited]] = {}  # in the present turn of each loop
        self._closed = False
        with _HANDING:  # a fork goes through them
            _STORES.add(self)

    @property
    def name(self) -> str:
        """`sqlite` and the path of the file."""
        return f"sqlite {self._file.path}"

    def open(self, secret: bytes | None = None) -> bytes:
        """Create or upgrade the file and agree on the secret; after `close`, open it again."""
        self._closed = False
        return self.perform(AgreeOnSecret(secret))

    def perform(self, transition: Transition[T]) -> T:
        """Hand one transition to the writer and wait for its answer."""
        call = _Blocking(transition)
        with _HANDING:
            self.hand_over_all()  # what was submitted before it, also on a loop that was closed in that turn
            self._ready_writer().calls.put([call])
        answer: T = call.wait()
        return answer

    def submit(self, transition: Transition[T]) -> asyncio.Future[T]:
        """Hand one transition to the writer; the future is done when it is durable.

        What a turn of the loop brings is handed over together, at its end: the writer is woken once, and commits it
        together.
        """
        loop = asyncio.get_running_loop()
        future: Pending[T] = Pending(loop=loop)
        call = _Awaited(transition, future)
        with _HANDING:
            gathered = self._gathered.setdefault(loop, [])
            gathered.append(call)
            if len(gathered) == 1:
                loop.call_soon(self._end_turn, loop)
            elif len(gathered) == BATCH_MAX:
                self._hand_over(loop)
        return future

    def _end_turn(self, loop: asyncio.AbstractEventLoop) -> None:
        with _HANDING:
            self._hand_over(loop)

    def _hand_over(self, loop: asyncio.AbstractEventLoop) -> None:
        calls = self._gathered.pop(loop, [])
        try:
            if calls:
                self._ready_writer().calls.put(calls)
        except StoreError as error:
            _settle([(call.future, failure_of_your_own(error)) for call in calls])

    def missing_migrations(self) -> tuple[Migration, ...]:
        """The migrations of the schema that the file has not gone through; it is neither made nor changed."""
        return self._visit(self._file.missing)

    def migrate(self) -> tuple[Migration, ...]:
        """Go through every migration, those after a deployment too; answered by those that were missing."""
        return self._visit(self._file.migrate)

    def _visit(self, action: Callable[[], T]) -> T:
        """Do something with the file on this thread, whose connection is not the writer's."""
        try:
            return action()
        except (sqlite3.Error, OSError) as error:
            raise refused(self._file.path, error) from error

    def completion(self) -> Completion:
        """How a record is completed on a connection of the application to the same file."""
        # Nor may it begin the log anew under the store's checkpoints, which are the only ones in these releases.
        unsafe = sqlite3.sqlite_version_info < CHECKPOINTS_SAFE_SINCE
        return on_sqlite(self._clock, ("PRAGMA wal_autocheckpoint = 0",) if unsafe else ())

    def close(self) -> None:
        """Finish what was handed over, end the thread and close the file."""
        with _HANDING:
            self.hand_over_all()
            self._closed = True
            writer, self._writer = self._writer, None
            self._file = replace(self._file, identity=Identity())
        if writer is not None:
            writer.stop()

    def hand_over_all(self) -> None:
        """Hand over what every loop has gathered, before something else is done. Whoever calls it has `_HANDING`."""
        if not self._gathered:
            return
        with suppress(StoreError):  # each loop tells of it, when its turn ends
            writer = self._ready_writer()
            for calls in self._gathered.values():
                writer.calls.put(calls)
            self._gathered.clear()

    def _ready_writer(self) -> _Writer:
        """The writer, started if there is none. Whoever calls it has `_HANDING`.

        Raises:
            StoreError: the store is closed, or belongs to another process, or its thread cannot be started.
        """
        if self._closed:
            raise StoreUnavailable(f"{self.name} is closed; open it before it is used")
        writer = self._writer
        if writer is None or writer.stopped:
            try:
                writer = self._writer = _Writer(self._file, self._clock)
            except RuntimeError as error:
                raise StoreUnavailable(f"{self.name}: its thread cannot be started: {error}") from error
            weakref.finalize(self, writer.calls.put, None).atexit = False
        if writer.pid != os.getpid():
            raise StoreUnusable(
                f"{self.name} was open when this process was forked by something that does not tell Python; "
                "open it only after the fork"
            )
        return writer


class _Awaited(NamedTuple):
    """A transition that a coroutine waits for."""

    transition: Transition[Any]
    future: asyncio.Future[Any]


class _Blocking:
    """A transition that a thread waits for."""

    __slots__ = ("_done", "_outcome", "transition")

    def __init__(self, transition: Transition[Any]) -> None:
        self.transition = transition
        self._outcome: Any = None
        self._done = threading.Lock()  # the lightest thing that one thread can wait for and another set
        self._done.acquire()

    def wait(self) -> Any:
        self._done.acquire()
        if isinstance(self._outcome, StoreError):
            raise self._outcome
        return self._outcome

    def answer(self, outcome: Any) -> None:
        self._outcome = outcome
        self._done.release()


class _Writer:
    """The thread that writes to one store's file, and the queue in front of it.

    The queue needs no bound of its own: whoever puts something in waits for its answer.
    """

    def __init__(self, file: SqliteFile, clock: Clock) -> None:
        self.pid = os.getpid()
        self.stopped = False
        self.calls: SimpleQueue[Sequence[_Awaited | _Blocking] | None] = SimpleQueue()
        # A daemon, because the interpreter waits for other threads before it runs what stops this one.
        self._thread = threading.Thread(
            target=self._run, args=(file, clock), name=f"retrysafe {file.path.name}", daemon=True
        )
        self._thread.start()
        _WRITERS.add(self)

    def stop(self) -> None:
        """Let it answer what it was handed, close the file and end; wait for that."""
        if self.pid == os.getpid():
            self.stopped = True
            self.calls.put(None)
            self._thread.join()

    def _run(self, file: SqliteFile, clock: Clock) -> None:
        session = Session(file, clock)
        last = False
        while not last:
            waiting, last = self._take()
            try:
                outcomes = session.run([call.transition for call in waiting])
                answered, waiting = waiting, []
                _deliver(answered, outcomes)
                session.tidy()
            except Exception as error:  # noqa: BLE001 - who waits for a thread that died would wait for ever
                _LOG.exception("%s: unexpected; the connection is made anew", file.path)
                session.close()
                failure = f"{file.path}: {type(error).__name__}, which was not expected; see the log"
                _deliver(waiting, [StoreUnavailable(failure) for _ in waiting])
        session.close()
        _WRITERS.discard(self)

    def _take(self) -> tuple[list[_Awaited | _Blocking], bool]:
        """Wait for something to do; take all there is by then. Also: is it the last?"""
        calls: list[_Awaited | _Blocking] = []
        handed = self.calls.get()
        while handed is not None:
            calls += handed
            if len(calls) >= BATCH_MAX:
                return calls, False
            try:
                handed = self.calls.get_nowait()
            except Empty:
                return calls, False
        return calls, True


_WRITERS: set[_Writer] = set()
_STORES: weakref.WeakSet[SqliteStore] = weakref.WeakSet()


def _deliver(calls: Sequence[_Awaited | _Blocking], outcomes: Sequence[Any]) -> None:
    """Answer everybody; each event loop is woken once."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any]]] = {}
    for call, outcome in zip(calls, outcomes, strict=True):
        if isinstance(call, _Blocking):
            call.answer(outcome)
        else:
            by_loop.setdefault(call.future.get_loop(), []).append((call.future, outcome))
    for loop, answers in by_loop.items():
        with suppress(RuntimeError):  # the loop is closed: nobody waits there any more
            loop.call_soon_threadsafe(_settle, answers)


def _settle(answers: Sequence[tuple[asyncio.Future[Any], Any]]) -> None:
    for future, outcome in answers:
        if isinstance(outcome, StoreError):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)


# --- the ends of processes ----------------------------------------------------------------------


def _stop_all() -> None:
    for writer in list(_WRITERS):
        writer.stop()


def _before_fork() -> None:
    """Close every file. SQLite would believe in the child that it holds the locks of its parent: the
    parent, when it closes, would delete a log that the child goes on writing to.
    """
    _HANDING.acquire()
    for store in list(_STORES):
        store.hand_over_all()
    _stop_all()


def _after_fork() -> None:
    with suppress(RuntimeError):  # it was not prepared for: `SqliteStore._ready_writer` refuses what was open
        _HANDING.release()


atexit.register(_stop_all)
os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)


def store_of(url: StoreUrl) -> SqliteStore:
    """The store that a URL names.

    Args:
        url: `sqlite:///relative.db` or `sqlite:////absolute/path.db`, with `?force=true` for a file on a network
            file system that only one host ever opens.
    """
    path = url.path[1:]
    url.refuse(url.authority, "a relative path has three slashes before it, an absolute one four")
    url.refuse(not path, "it names no file")
    force = url.flag("force")
    url.refuse_rest()
    return SqliteStore(path, force=force)
