"""An event loop in which nothing is left to chance: time is a number, and who goes next is asked of a `Choices`.

What runs belongs to an *actor*: a worker process, its connection to the store, or the world around them. Within an
actor callbacks run in the order in which they were scheduled, as in asyncio; between actors the order is chosen.
An actor can be paused, and then nothing of it runs, timers included; or killed, and then nothing of it ever runs
again, `finally` blocks included.

The loop has what asyncio asks of one and no more: no sockets, no threads, no signals. It touches two things that
asyncio keeps for itself, the running loop and a task's complaint about being dropped; a test pins both.
"""

from __future__ import annotations

import asyncio
import heapq
import inspect
import math
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any, Protocol, TypeVar, cast

T = TypeVar("T")


class Actor:
    """One that acts: what it has to do, whether it can, and its clock.

    Args:
        name: for the log.
        offset_s: what its clock is ahead.
        rate: how fast its clock goes.
    """

    __slots__ = ("alive", "context", "name", "offset_s", "paused", "queue", "rate")

    def __init__(self, name: str, offset_s: float = 0.0, rate: float = 1.0) -> None:
        self.name = name
        self.offset_s = offset_s
        self.rate = rate
        self.queue: deque[Handle] = deque()
        self.alive = True
        self.paused = False
        self.context = Context()
        self.context.run(_ACTOR.set, self)

    def __repr__(self) -> str:
        """Its name."""
        return self.name


_ACTOR: ContextVar[Actor] = ContextVar("retrysafe_actor")


class Choices(Protocol):
    """Who goes next, and how long things take."""

    def pick(self, busy: list[Actor]) -> int:
        """The index of one of several actors that could go next."""

    def latency_s(self, actor: Actor) -> float:
        """How long the next message of an actor is under way."""


class Handle:
    """A callback that is going to run, unless it is cancelled or its actor dies."""

    __slots__ = ("actor", "args", "callback", "context", "is_off", "when_s")

    def __init__(self, callback: Callable[..., Any], args: tuple[Any, ...], actor: Actor, context: Context) -> None:
        self.callback = callback
        self.args = args
        self.actor = actor
        self.context = context
        self.is_off = False
        self.when_s = 0.0

    def cancel(self) -> None:
        """Do not run."""
        self.is_off = True

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self.is_off

    def when(self) -> float:
        """When it is due, by the clock of its actor."""
        return self.when_s


class StuckError(Exception):
    """The run does not come to an end."""


class SimulatedLoop:
    """See the module. To asyncio it is a loop, because it has what is asked of one.

    Args:
        choices: decide what is open.
        steps_max: more callbacks than that are a run that does not end.
        end_s: as much for its time.
    """

    def __init__(self, choices: Choices, steps_max: int = 50_000, end_s: float = 1e7) -> None:
        self.now_s = 0.0
        self.world = Actor("world")
        self.actor = self.world
        self.steps = 0
        self._interruption: tuple[int, Callable[[], None]] | None = None
        self._choices = choices
        self._tasks: list[tuple[Actor, asyncio.Task[Any]]] = []
        self._steps_max = steps_max
        self._end_s = end_s
        self._futures: list[tuple[Actor, asyncio.Future[Any]]] = []
        self._busy: list[Actor] = []
        self._timers: list[tuple[float, int, Handle]] = []
        self._timers_made = 0
        self._stamp_ns = 0
        self._running = False
        self._closed = False

    def as_loop(self) -> asyncio.AbstractEventLoop:
        """Itself, for those who ask for a loop."""
        return cast(asyncio.AbstractEventLoop, self)

    def stamp_ns(self) -> int:
        """The time, never the same twice: what has a greater one happened later."""
        self._stamp_ns = max(self._stamp_ns + 1, int(self.now_s * 1_000_000_000))
        return self._stamp_ns

    # --- what asyncio asks of a loop --------------------------------------------------------------

    def time(self) -> float:
        """The time by the clock of the actor that runs."""
        actor = self.actor
        return self.now_s * actor.rate + actor.offset_s

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> Handle:
        """Run it when its actor is chosen."""
        if context is None:
            actor, context = self.actor, copy_context()
        else:
            actor = context.get(_ACTOR, self.world)
        handle = Handle(callback, args, actor, context)
        self._enqueue(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> Any:
        """Run it after a time by its actor's clock."""
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> Any:
        """Run it at a time of its actor's clock."""
        actor = self.actor
        handle = Handle(callback, args, actor, context or copy_context())
        handle.when_s = when
        due_s = max((when - actor.offset_s) / actor.rate, self.now_s)
        while due_s * actor.rate + actor.offset_s < when:  # a timer that fires finds that its time has come
            due_s = math.nextafter(due_s, math.inf)
        self._timers_made += 1
        heapq.heappush(self._timers, (due_s, self._timers_made, handle))
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        """A future of this loop."""
        return asyncio.Future(loop=self.as_loop())

    def create_task(
        self, coro: Coroutine[Any, Any, T], *, name: str | None = None, context: Context | None = None
    ) -> asyncio.Task[T]:
        """A task of the actor that runs, or of the one that the context belongs to."""
        task = asyncio.Task(coro, loop=self.as_loop(), name=name or "task", context=context)
        self._tasks.append((self.actor if context is None else context.get(_ACTOR, self.world), task))
        return task

    def get_task_factory(self) -> Any:
        """One, so that nobody starts tasks by another way."""
        return self.create_task

    def get_debug(self) -> bool:
        """No."""
        return False

    def is_running(self) -> bool:
        """Whether `run` is under way."""
        return self._running

    def is_closed(self) -> bool:
        """Whether the run is over."""
        return self._closed

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Nothing: tasks and futures are kept to the end, and asked then."""

    # --- what a simulation does with it -----------------------------------------------------------

    def post(self, actor: Actor, delay_s: float, callback: Callable[..., Any], *args: Any) -> Handle:
        """Let an actor do something after a time of the world's clock; it is nobody's timer but the world's."""
        handle = Handle(callback, args, actor, actor.context)
        if delay_s <= 0:
            self._enqueue(handle)
        else:
            self._timers_made += 1
            heapq.heappush(self._timers, (self.now_s + delay_s, self._timers_made, handle))
        return handle

    def interrupt(self, step: int, callback: Callable[[], None]) -> None:
        """Call this after so many steps."""
        self._interruption = step, callback

    def spawn(self, actor: Actor, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """A task of an actor."""
        return self.create_task(work, context=actor.context.copy())

    def pause(self, actor: Actor) -> None:
        """Nothing of it runs until it is resumed."""
        actor.paused = True
        if actor in self._busy:
            self._busy.remove(actor)

    def resume(self, actor: Actor) -> None:
        """It goes on where it stood, and learns how late it is."""
        actor.paused = False
        if actor.alive and actor.queue and actor not in self._busy:
            self._busy.append(actor)

    def kill(self, actor: Actor) -> None:
        """Nothing of it ever runs again."""
        self.pause(actor)
        actor.alive = False
        actor.queue.clear()

    def run(self) -> None:
        """Run until nothing is left to be done.

        Raises:
            StuckError: there is no end.
        """
        self._running = True
        events._set_running_loop(self.as_loop())  # noqa: SLF001 - there is no other way to be the running loop
        try:
            while self._busy or self._advance():
                busy = self._busy
                while busy:
                    actor = busy[0] if len(busy) == 1 else busy[self._choices.pick(busy)]
                    handle = actor.queue.popleft()
                    if not actor.queue:
                        busy.remove(actor)
                    if handle.is_off:
                        continue
                    self.actor = actor
                    self.steps += 1
                    handle.context.run(handle.callback, *handle.args)
                    if self._interruption is not None and self.steps == self._interruption[0]:
                        self._interruption[1]()
                    if self.steps > self._steps_max:
                        raise StuckError(f"no end after {self._steps_max} steps")
                self.actor = self.world
        finally:
            events._set_running_loop(None)  # noqa: SLF001 - as above
            self._running = False

    def pending(self, actor: Actor) -> list[asyncio.Task[Any]]:
        """The tasks of a living actor that have not come to their end."""
        return [task for owner, task in self._tasks if owner is actor and not task.done()]

    def unretrieved(self, actor: Actor) -> list[BaseException]:
        """What went wrong in tasks and futures of a living actor, and nobody asked for."""
        kept = (future for owner, future in (*self._tasks, *self._futures) if owner is actor and future.done())
        return [future.exception() or StuckError() for future in kept if future._log_traceback]  # noqa: SLF001 - asyncio complains by it

    def keep(self, actor: Actor, future: asyncio.Future[Any]) -> None:
        """Remember a future that an actor is to look at."""
        self._futures.append((actor, future))

    def close(self) -> None:
        """Let go of everything, the tasks of the dead too."""
        self._closed = True
        for _, task in self._tasks:
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined] # noqa: SLF001 - it was killed, not forgotten
                work = task.get_coro()
                if inspect.iscoroutine(work) and inspect.getcoroutinestate(work) == inspect.CORO_CREATED:
                    work.close()
        self._tasks.clear()
        self._futures.clear()
        self._timers.clear()
        self._busy.clear()

    def _enqueue(self, handle: Handle) -> None:
        actor = handle.actor
        if not actor.alive or self._closed:
            return
        if not actor.queue and not actor.paused:
            self._busy.append(actor)
        actor.queue.append(handle)

    def _advance(self) -> bool:
        """Go to the next instant at which something is due; whether there is one."""
        timers = self._timers
        while timers:
            due_s, _, handle = heapq.heappop(timers)
            if handle.is_off or not handle.actor.alive:
                continue
            if due_s > self._end_s:
                raise StuckError(f"no end after {self._end_s} s")
            self.now_s = due_s
            self._enqueue(handle)
            while timers and timers[0][0] == due_s:
                _, _, also = heapq.heappop(timers)
                if not also.is_off:
                    self._enqueue(also)
            return True
        return False
