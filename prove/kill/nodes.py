"""A process that serves, as the proof has it in its hand."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from prove.kill.client import Asked
from prove.kill.forks import Forks
from prove.kill.orders import Action, Order
from retrysafe.lab.evidence import Call

PATIENCE_S = 30
_LOOK_S = 0.002


class Node:
    """One forked process.

    Args:
        forks: that forks it.
        order: what it is to be.

    Attributes:
        status: how it ended, as an exit code or a negative signal number; None while it runs.
        asked: the request that it serves.
    """

    def __init__(self, forks: Forks, order: Order) -> None:
        self._forks = forks
        self.order = order
        self.status: int | None = None
        self.asked: Asked | None = None
        ours, theirs = socket.socketpair()
        with socket.create_server(("127.0.0.1", 0)) as listener, theirs:
            self.port: int = listener.getsockname()[1]
            self._id = forks.fork(order, listener, theirs)
        self._control: socket.socket | None = ours

    @property
    def name(self) -> str:
        """In evidence."""
        return str(self._id)

    def ask(self, call: Call, content: bytes) -> Asked:
        """Send it a request."""
        self.asked = Asked(self.port, call, content)
        return self.asked

    def run(self) -> bool:
        """Let it serve its request and end; whether it stands at its point instead.

        Raises:
            TimeoutError: it does none of these.
        """
        asked, told = self.asked, False
        assert asked is not None, "nothing was asked"
        deadline_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline_s:
            controls = [] if self._control is None else [self._control]
            if asked.look(_LOOK_S, *controls) and self._stands():
                return True
            if asked.over and self.has_ended():
                return False
            if asked.over and not told:
                self.signal(signal.SIGTERM)
                told = True
        raise TimeoutError(f"process {self.name} neither answers nor ends; it came to {self.trace()[-1:]}")

    def _stands(self) -> bool:
        assert self._control is not None, "what is closed says nothing"
        with suppress(OSError):
            if self._control.recv(1):
                return True
        self._close()
        return False

    def go_on(self) -> None:
        """From its point."""
        if self.order.action is Action.STOP:
            self.signal(signal.SIGCONT)
        elif self._control is not None:
            self._control.send(b"!")

    def signal(self, number: int) -> None:
        """Send it a signal, if there is anybody."""
        if self.status is None:
            with suppress(ProcessLookupError):
                os.kill(self._id, number)

    def has_ended(self) -> bool:
        """Whether it is gone."""
        if self.status is None:
            self.status = self._forks.status(self._id)
        if self.status is not None:
            self._close()
        return self.status is not None

    def kill(self) -> None:
        """End it at once."""
        self.signal(signal.SIGKILL)
        until(self.has_ended, f"the end of process {self.name}")
        if self.asked is not None:
            self.asked.close()

    def _close(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None

    def trace(self) -> list[str]:
        """The points that it has passed; a line that it did not finish is none."""
        try:
            return Path(self.order.trace).read_text("utf-8").rpartition("\n")[0].splitlines()
        except FileNotFoundError:
            return []


def until(holds: Callable[[], object], what: str, *, every_s: float = _LOOK_S, patience_s: float = PATIENCE_S) -> None:
    """Wait for a state, with a bound.

    Raises:
        TimeoutError: it did not come.
    """
    deadline_s = time.monotonic() + patience_s
    while not holds():
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"not in {patience_s} s: {what}")
        threading.Event().wait(every_s)
