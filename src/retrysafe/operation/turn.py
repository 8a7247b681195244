"""A turn that threads and tasks take alike: whoever has it may wait for something without holding up a loop."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from concurrent.futures import Future


class Turn:
    """Given to one at a time, in the order in which they asked; a task that is cancelled meanwhile loses its place."""

    __slots__ = ("_mutex", "_queue", "_taken")

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._queue: deque[Future[None]] = deque()
        self._taken = False

    def wait(self) -> None:
        """Have the turn, on a thread."""
        place = self._ask()
        if place is not None:
            place.result()

    async def arrive(self) -> None:
        """Have the turn, on a loop."""
        place = self._ask()
        if place is None:
            return
        try:
            await asyncio.wrap_future(place)
        except asyncio.CancelledError:
            if not place.cancel():  # it was given meanwhile
                self.end()
            raise

    def _ask(self) -> Future[None] | None:
        with self._mutex:
            if not self._taken:
                self._taken = True
                return None
            place: Future[None] = Future()
            self._queue.append(place)
            return place

    def end(self) -> None:
        """Give the turn to the next."""
        with self._mutex:
            while self._queue:
                place = self._queue.popleft()
                if place.set_running_or_notify_cancel():
                    place.set_result(None)
                    return
            self._taken = False
