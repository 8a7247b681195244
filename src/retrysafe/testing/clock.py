"""Time in the hand of a test."""

from __future__ import annotations


class ManualClock:
    """A clock that goes when it is told to.

    Args:
        now_ms: where it starts, in milliseconds.
    """

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self._now_ms = now_ms

    def __call__(self) -> int:
        """The time in milliseconds."""
        return self._now_ms

    def advance(self, ms: int) -> None:
        """Go on, or back if `ms` is negative, as clocks of hosts do."""
        self._now_ms += ms
