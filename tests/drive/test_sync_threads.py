"""The thread that renews for blocking handlers: it is there while it is needed."""

from __future__ import annotations

import threading
import time

import retrysafe.drive.sync
from retrysafe import Policy
from retrysafe.drive.sync import Driver
from retrysafe.model import BytesBody, Claim, Head, Request
from retrysafe.protocol.effects import Execute
from retrysafe.protocol.key import Key
from retrysafe.stores.memory import MemoryStore
from tests.drive.harness import PATIENCE_S, Noted

EXECUTE = Execute(
    Claim(b"r" * 32, b"t" * 16, 1),
    Key("k"),
    "a",
    Request(Head("POST", b"/", b"", ()), BytesBody()),
    Policy(lease="60ms"),
)


def renewing() -> set[threading.Thread]:
    """The threads that renew."""
    return {thread for thread in threading.enumerate() if thread.name == "retrysafe renewals"}


def wait_until_ended(threads: set[threading.Thread]) -> None:
    """Give up after a while."""
    deadline_s = time.monotonic() + PATIENCE_S
    for thread in threads:
        thread.join(deadline_s - time.monotonic())
        assert not thread.is_alive()


def test_the_thread_ends_when_it_has_nothing_to_do_and_comes_back(monkeypatch):
    """A process that stops handling requests keeps no thread; the next handler is renewed all the same."""
    monkeypatch.setattr(retrysafe.drive.sync, "IDLE_S", 0.01)
    others = renewing()
    renewals = Driver(MemoryStore(), Noted()).renewals
    for _ in range(2):
        renewals.start(EXECUTE)
        mine = renewing() - others
        assert len(mine) == 1
        renewals.stop(EXECUTE)
        wait_until_ended(mine)  # it looks again when the claim would have been due


def test_a_fork_frees_the_lock_of_the_child(monkeypatch):
    """Whoever held it in the parent is not in the child."""
    renewals = Driver(MemoryStore(), Noted()).renewals
    with renewals._change:
        retrysafe.drive.sync._after_fork()
        assert renewals._change.acquire(blocking=False)
        renewals._change.release()
