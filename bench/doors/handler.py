"""What the handler of every framework does: nothing, or nothing for 50 ms; and where records are."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
from typing import Any

from bench.bare import ANSWER, SLOW_PATH, SLOW_S

JSON = "application/json"
PATHS = ("/charges", SLOW_PATH)


class Handler:
    """The handler, for threads and for an event loop, and how often it was entered."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)  # whose next one no two threads get
        self._runs = 0

    def charge(self, path: str) -> bytes:
        """On a thread."""
        self._runs = next(self._numbers)
        if path == SLOW_PATH:
            threading.Event().wait(SLOW_S)
        return ANSWER

    async def charge_async(self, path: str) -> bytes:
        """In a task."""
        self._runs = next(self._numbers)
        if path == SLOW_PATH:
            await asyncio.sleep(SLOW_S)
        return ANSWER

    @property
    def runs(self) -> str:
        """How often, for `GET /runs`."""
        return str(self._runs)


def settings() -> dict[str, Any]:
    """Of every door: the store that `BENCH_STORE` names, and whose key it is; else the defaults."""
    return {"store": os.environ["BENCH_STORE"], "scope": "header:X-Account-Id"}
