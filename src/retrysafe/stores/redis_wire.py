"""One connection to a single server for each event loop, over the `hiredis` parser.

Transitions of any number of tasks share it: what begins in one turn of the loop goes out in one write, and
answers come back in order. That is the group commit of this store, and why a command costs a thirtieth of
what it costs through a pool of connections.

A command is written by the loop and answered by the loop; no task stands in between, so that one that is
cancelled leaves nothing half read. When the connection fails, what was sent is in doubt, and says so; what
was not yet sent waits for the next connection. A lost connection is made again when it is next needed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol, assert_never, cast

from retrysafe.errors import StoreError
from retrysafe.stores.contract import failure_of_your_own
from retrysafe.stores.redis_errors import DEMOTED, NOT_LOADED, code_of, in_doubt, refused, unreachable
from retrysafe.stores.redis_place import RedisPlace
from retrysafe.stores.redis_plan import RECORDS_A_PAGE, Call, Keys, Page, Plan, Reads, Step, Wait
from retrysafe.stores.url import lacking

try:
    import hiredis
except ModuleNotFoundError as missing:
    raise lacking("redis", missing) from missing

_FAREWELL_S = 1.0


class Asked(Protocol):
    """Whoever waits for one answer of the server."""

    def packed(self) -> bytes:
        """The command, as it is sent."""

    def answered(self, answer: Any) -> None:
        """The server's answer, which may be an error."""

    def failed(self, error: StoreError) -> None:
        """There will be no answer."""


class Wire(asyncio.Protocol):
    """A connection: commands go out, and their answers come back in order.

    Args:
        lane: whose it is.
        name: of the store.
        timeout_s: how long the server may be silent while it owes answers.
    """

    def __init__(self, lane: Lane, name: str, timeout_s: float) -> None:
        self.paused = False
        self.ended = lane.loop.create_future()
        self._lane = lane
        self._name = name
        self._timeout_s = timeout_s
        self._transport: asyncio.Transport | None = None
        self._reader = hiredis.Reader()
        self._waiting: deque[Asked] = deque()
        self._heard_at_s = 0.0
        self._watch: asyncio.TimerHandle | None = None
        self._why = "the connection was lost"
        self._leaving = False

    def send(self, asked: Sequence[Asked]) -> None:
        """Write commands, in one go."""
        assert self._transport is not None, "what is not connected is not sent to"
        if not self._waiting:
            self._heard_at_s = self._lane.loop.time()
            if self._watch is None:
                self._watch = self._lane.loop.call_later(self._timeout_s, self._look)
        self._waiting.extend(asked)
        self._transport.write(b"".join([one.packed() for one in asked]))

    def leave(self) -> None:
        """Let the server answer what it was sent; then end."""
        self._leaving = True
        if not self._waiting and self._transport is not None:
            self._transport.close()

    def abort(self, why: str) -> None:
        """End at once."""
        self._why = why
        if self._transport is not None:
            self._transport.abort()

    # --- what the event loop calls ----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one, and not derived from it

    def data_received(self, data: bytes) -> None:
        """Hand every whole answer to whoever waits for it."""
        self._heard_at_s = self._lane.loop.time()
        try:
            self._reader.feed(data)
            while (answer := self._reader.gets()) is not False:
                self._waiting.popleft().answered(answer)
        except (hiredis.ProtocolError, IndexError) as error:
            self.abort(f"what came back is no answer to anything that was sent ({type(error).__name__})")
        if self._leaving:
            self.leave()

    def pause_writing(self) -> None:
        """The server does not read as fast as we write: keep what comes until it does."""
        self.paused = True

    def resume_writing(self) -> None:
        """It has caught up."""
        self.paused = False
        self._lane.flush_soon()

    def connection_lost(self, exc: Exception | None) -> None:
        """Whoever waits is told that nobody knows."""
        if self._watch is not None:
            self._watch.cancel()
        self._lane.lost(self)
        while self._waiting:
            self._waiting.popleft().failed(in_doubt(self._name, exc or self._why))
        if not self.ended.done():
            self.ended.set_result(None)

    def _look(self) -> None:
        """Has the server been silent for too long?"""
        self._watch = None
        if not self._waiting:
            return
        left_s = self._heard_at_s + self._timeout_s - self._lane.loop.time()
        if left_s <= 0:
            self.abort(f"it was silent for {self._timeout_s:g} s")
        else:
            self._watch = self._lane.loop.call_later(left_s, self._look)


class Lane:
    """Runs the plans of one event loop.

    Args:
        place: the server.
    """

    def __init__(self, place: RedisPlace) -> None:
        self.loop = asyncio.get_running_loop()
        self._place = place
        self._wire: Wire | None = None
        self._leaving: set[Wire] = set()
        self._connecting: asyncio.Task[None] | None = None
        self._queue: list[Asked] = []
        self._flushing = False
        self._waits = _Waits(self)
        self._closed = False
        self._end: AsyncGenerator[None, None] | None = None

    def run(self, plan: Plan[Any], future: asyncio.Future[Any]) -> None:
        """Begin a plan; the future gets what it comes to."""
        Job(self, plan, future).advance(None)

    def ask(self, asked: Asked) -> None:
        """Send a command, together with whatever else this turn of the loop has to send."""
        self._queue.append(asked)
        if not self._flushing:
            self.flush_soon()

    def ask_replicas(self, job: Job, wait: Wait) -> None:
        """Find out how many replicas have what was written so far."""
        self._waits.join(job, wait)

    def flush_soon(self) -> None:
        """Write what is queued, at the end of this turn."""
        if not self._flushing:
            self._flushing = True
            self.loop.call_soon(self._flush)

    def retire(self) -> None:
        """Send nothing more through this connection; the next command makes another."""
        wire, self._wire = self._wire, None
        if wire is not None:
            self._leaving.add(wire)
            wire.leave()

    def lost(self, wire: Wire) -> None:
        """A connection has ended. What waits for replicas waited for those of this connection."""
        if wire is self._wire:
            self._wire = None
        self._leaving.discard(wire)
        self._waits.lost(in_doubt(self._place.name, "the connection was lost"))
        if self._queue:
            self.flush_soon()

    def close(self) -> None:
        """Finish what was begun, then let go of the connection. On the loop's own thread."""
        self._closed = True
        if not self._queue and self._connecting is None:
            self.retire()

    def _flush(self) -> None:
        self._flushing = False
        if not self._queue:
            return
        if self._wire is None:
            if self._connecting is None:
                self._connecting = self.loop.create_task(self._connect(), name="retrysafe: connect to redis")
                self._connecting.add_done_callback(self._never_began)
        elif not self._wire.paused:
            queue, self._queue = self._queue, []
            self._wire.send(queue)
            if self._closed:
                self.retire()

    async def _connect(self) -> None:
        """Make a connection for what is queued, or tell everybody why there is none."""
        if self._end is None:
            self._end = self._at_the_end()
            await anext(self._end)
        failure: StoreError | None = unreachable(self._place.name, "this event loop is ending")
        try:
            self._wire = await self._connected()
            failure = None
        except StoreError as error:
            failure = error
        except TimeoutError:
            failure = unreachable(self._place.name, f"no answer within {self._place.timeout_ms} ms")
        except Exception as error:  # noqa: BLE001 - whatever it is, the callers are to hear it
            failure = unreachable(self._place.name, error)
        finally:
            self._connecting = None
            if failure is None:
                self.flush_soon()
            else:
                self._fail(failure)

    def _never_began(self, task: asyncio.Task[None]) -> None:
        """Leave nobody waiting for a task that was cancelled before its first step."""
        if self._connecting is task:
            self._connecting = None
            self._fail(unreachable(self._place.name, "this event loop is ending"))

    def _fail(self, failure: StoreError) -> None:
        queue, self._queue = self._queue, []
        for asked in queue:
            asked.failed(failure_of_your_own(failure))

    async def _connected(self) -> Wire:
        place, timeout_s = self._place, self._place.timeout_ms / 1_000
        ((host, port),) = place.hosts
        context = None if place.tls is None else place.tls.context()
        wire = Wire(self, place.name, timeout_s)
        try:
            async with asyncio.timeout(timeout_s):
                await self.loop.create_connection(lambda: wire, host, port, ssl=context)
                for command in _greeting(place):
                    greeting = _Greeting(self.loop.create_future(), place.name, command)
                    wire.send([greeting])
                    await greeting.accepted
        except BaseException:
            wire.abort("the server was not to be used")
            raise
        return wire

    async def _at_the_end(self) -> AsyncGenerator[None, None]:
        """Event loops close their asynchronous generators as the last thing, when all tasks are over: and this one
        the connection, and those that have not quite ended, which would otherwise be left open behind them.
        """
        try:
            yield
        finally:
            self.retire()
            for wire in list(self._leaving):
                wire.abort("the event loop has ended")
                with suppress(TimeoutError):
                    async with asyncio.timeout(_FAREWELL_S):
                        await wire.ended


class Job:
    """A plan, and the step of it that is being done."""

    __slots__ = ("_future", "_lane", "_plan", "_reloaded", "_step")

    def __init__(self, lane: Lane, plan: Plan[Any], future: asyncio.Future[Any]) -> None:
        self._lane = lane
        self._plan = plan
        self._future = future
        self._reloaded = False
        self._step: Step | None = None

    def packed(self) -> bytes:
        """The command of the step."""
        step = self._step
        if isinstance(step, Call):
            script, keys, arguments = step
            return _pack(("EVALSHA", script.sha, len(keys), *keys, *arguments))
        assert isinstance(step, Page), "replicas are waited for in common, and reads are many"
        _, position = step.cursor or (0, 0)
        return _packed("SCAN", position, "MATCH", step.pattern, "COUNT", RECORDS_A_PAGE)

    def answered(self, answer: Any) -> None:
        """Go on with the plan."""
        if isinstance(answer, hiredis.ReplyError):
            self.refused(str(answer))
            return
        if isinstance(self._step, Page):
            position, keys = answer
            answer = Keys(keys, (0, int(position)) if int(position) else None)
        self._go_on(self._plan.send, answer)

    def failed(self, error: StoreError) -> None:
        """Let the plan know; it may know another way."""
        self._go_on(self._plan.throw, error)

    def advance(self, answer: Any) -> None:
        """Give the plan an answer and do its next step."""
        self._go_on(self._plan.send, answer)

    def _go_on(self, resume: Callable[[Any], Step], with_this: Any) -> None:
        try:
            self._step = resume(with_this)
            self._reloaded = False
        except StopIteration as end:
            self._future.set_result(end.value)
        except StoreError as error:
            self._future.set_exception(error)
        except Exception as error:  # noqa: BLE001 - who waits must be told, and the next answer is for somebody else
            failure = StoreError(f"an answer that no server gives: {type(error).__name__}")
            failure.__cause__ = error
            self._future.set_exception(failure)
        else:
            self._do()

    def _do(self) -> None:
        step = self._step
        match step:
            case Call() | Page():
                self._lane.ask(self)
            case Wait():
                self._lane.ask_replicas(self, step)
            case Reads(commands):
                _Reading(self, len(commands)).begin(self._lane, commands)
            case None:
                raise AssertionError("a plan yields steps")
            case _:
                assert_never(step)

    def refused(self, said: str) -> None:
        """The server said no."""
        code = code_of(said)
        if code == NOT_LOADED and isinstance(self._step, Call) and not self._reloaded:
            self._reloaded = True
            self._lane.ask(_Load(self._step.script.text))
            self._lane.ask(self)
            return
        if code == DEMOTED:
            self._lane.retire()
        self.failed(refused(self._lane._place.name, said))  # noqa: SLF001 - a job is a part of its lane


class _Load:
    """A script on its way to the server; what it is for, comes right behind it and says if it failed."""

    def __init__(self, text: str) -> None:
        self._text = text

    def packed(self) -> bytes:
        return _packed("SCRIPT", "LOAD", self._text)

    def answered(self, answer: Any) -> None:
        """Nothing depends on it."""

    def failed(self, error: StoreError) -> None:
        """Nothing depends on it."""


class _Reading:
    """Reads of one job, whose answers it gets together, or the first failure."""

    def __init__(self, job: Job, number: int) -> None:
        self._job = job
        self._answers: list[Any] = [None] * number
        self._left = number
        self._failed = False

    def begin(self, lane: Lane, commands: Sequence[tuple[str | bytes | int, ...]]) -> None:
        if not commands:
            self._job.advance([])
        for place, command in enumerate(commands):
            lane.ask(_ReadOne(self, place, command))

    def answered(self, place: int, answer: Any) -> None:
        self._answers[place] = answer
        self._left -= 1
        if not self._left and not self._failed:
            refusal = next((one for one in self._answers if isinstance(one, hiredis.ReplyError)), None)
            if refusal is None:
                self._job.advance(self._answers)
            else:
                self._job.refused(str(refusal))

    def failed(self, error: StoreError) -> None:
        if not self._failed:
            self._failed = True
            self._job.failed(error)


class _ReadOne:
    """One of several reads."""

    def __init__(self, reading: _Reading, place: int, command: tuple[str | bytes | int, ...]) -> None:
        self._reading = reading
        self._place = place
        self._command = command

    def packed(self) -> bytes:
        return _packed(*self._command)

    def answered(self, answer: Any) -> None:
        self._reading.answered(self._place, answer)

    def failed(self, error: StoreError) -> None:
        self._reading.failed(error)


class _Waits:
    """Those who wait for replicas. One command is under way, and one more is for all who come meanwhile."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._asked: list[Job] = []
        self._next: list[Job] = []
        self._wait = Wait(0, 0)

    def join(self, job: Job, wait: Wait) -> None:
        self._wait = wait
        self._next.append(job)
        if not self._asked:
            self._ask()

    def packed(self) -> bytes:
        return _packed("WAIT", self._wait.replicas, self._wait.wait_ms)

    def answered(self, answer: Any) -> None:
        jobs, self._asked = self._asked, []
        if self._next:
            self._ask()
        for job in jobs:
            job.answered(answer)

    def failed(self, error: StoreError) -> None:
        self.lost(error)

    def lost(self, error: StoreError) -> None:
        """Another connection would count its own writes, and not those that are waited for."""
        jobs, self._asked, self._next = self._asked + self._next, [], []
        for job in jobs:
            job.failed(failure_of_your_own(error))

    def _ask(self) -> None:
        self._asked, self._next = self._next, []
        self._lane.ask(self)


class _Greeting:
    """A command that a connection begins with."""

    def __init__(self, accepted: asyncio.Future[None], name: str, command: tuple[str | int, ...]) -> None:
        self.accepted = accepted
        self._name = name
        self._command = command

    def packed(self) -> bytes:
        return _packed(*self._command)

    def answered(self, answer: Any) -> None:
        if self.accepted.done():  # too late: whoever waited has given up
            return
        if isinstance(answer, hiredis.ReplyError):
            self.accepted.set_exception(refused(self._name, str(answer)))
        elif isinstance(answer, list) and (failure := _unwelcome(self._name, answer)):
            self.accepted.set_exception(failure)
        else:
            self.accepted.set_result(None)

    def failed(self, error: StoreError) -> None:
        if not self.accepted.done():
            self.accepted.set_exception(unreachable(self._name, error))


_pack = cast(Callable[[tuple[str | bytes | int, ...]], bytes], hiredis.pack_command)  # its stub knows one part


def _packed(*parts: str | bytes | int) -> bytes:
    return _pack(parts)


def _greeting(place: RedisPlace) -> Sequence[tuple[str | int, ...]]:
    hello: tuple[str | int, ...] = ("HELLO", 2)
    if place.password is not None:
        hello += ("AUTH", place.username or "default", place.password)
    hello += ("SETNAME", "retrysafe")
    return [hello, ("SELECT", place.database)] if place.database else [hello]


def _unwelcome(name: str, hello: Sequence[Any]) -> StoreError | None:
    """What a server says of itself that makes it unfit."""
    said = dict(zip(hello[::2], hello[1::2], strict=True))
    if said.get(b"mode") == b"cluster":
        return refused(name, "MOVED")
    if said.get(b"role") in (b"replica", b"slave"):
        return refused(name, DEMOTED)
    return None
