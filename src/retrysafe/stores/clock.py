"""Time, for stores whose clock is this host's: whole milliseconds, handed in so that tests own it."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], int]


def host_clock() -> int:
    """This host's wall clock in milliseconds since 1970, UTC. It may step back; a store does not."""
    return time.time_ns() // 1_000_000  # noqa: TID251 a store on this host has no other clock
