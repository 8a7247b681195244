"""Doors that cannot be reached from the application that they stand in: they note themselves here."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Protocol

from retrysafe.operation.recovery import Report
from retrysafe.protocol.published import Published

_DEPTH_MAX = 32  # of layers around an application
_OF_DJANGO = "load_middleware"  # what its applications have, and no others


class NotedDoor(Protocol):
    """A door, for commands that work beside a running application."""

    @property
    def recovers(self) -> bool:
        """It was told what to do about operations that nobody drives any more."""

    async def start(self) -> None:
        """Make the store ready, for a process that serves nothing."""

    async def stop(self) -> None:
        """Let the store go."""

    async def recover(self, told: Callable[[Report], None]) -> Report:
        """Look once for operations that nobody drives any more."""

    def published(self) -> Published:
        """What the door promises to clients."""


NOTED: weakref.WeakSet[Any] = weakref.WeakSet()


def noted_door_of(application: Any) -> NotedDoor | None:
    """The door of an application of Django; None of any other, or if it has none.

    Its middleware is hidden in closures. The doors of a process have the same settings, so that any will do.
    """
    for _ in range(_DEPTH_MAX):
        if application is None:
            return None
        if hasattr(application, _OF_DJANGO):
            door: NotedDoor | None = next(iter(NOTED), None)
            return door
        application = getattr(application, "app", None)
    return None
