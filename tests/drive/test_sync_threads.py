"""The thread that renews for blocking handlers: it is there while it is needed."""

from __future__ import annotations

import io
import threading
import time
from dataclasses import replace

import pytest

import retrysafe.drive.sync
from retrysafe import Policy
from retrysafe.drive.sync import Driver
from retrysafe.model import BytesBody, Claim, Head, Request
from retrysafe.protocol.effects import Execute
from retrysafe.protocol.key import Key
from retrysafe.protocol.transitions import RenewIfHeld
from retrysafe.stores.memory import MemoryStore
from retrysafe.wsgi import IdempotencyMiddleware
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


def test_the_thread_outlives_what_a_renewal_raises():
    """Whatever it is: the others are renewed, and so is the one that it was about, the next time."""
    renewed: list[bytes] = []

    class Store(MemoryStore):
        def perform(self, transition):
            if isinstance(transition, RenewIfHeld):
                renewed.append(transition.claim.token)
                if len(renewed) == 1:
                    raise MemoryError
            return True

    renewals = Driver(Store(), Noted()).renewals
    other = replace(EXECUTE, claim=Claim(b"o" * 32, b"o" * 16, 1))
    renewals.start(EXECUTE)
    renewals.start(other)
    end_s = time.monotonic() + PATIENCE_S
    while len(set(renewed[1:])) < 2:
        assert time.monotonic() < end_s
        threading.Event().wait(0.005)
    renewals.stop(EXECUTE)
    renewals.stop(other)


def test_a_claim_that_cannot_be_renewed_is_taken_back(monkeypatch):
    """Where no thread is to be had nothing has run, and the next attempt may."""

    def no_more(_):
        raise RuntimeError("can't start new thread")

    store, ran = MemoryStore(), []

    def shop(environ, start_response):
        ran.append(environ["PATH_INFO"])
        start_response("201 Created", [])
        return [b"made"]

    door = IdempotencyMiddleware(shop, store=store, scope="anonymous")
    door.open()
    environ = {
        "REQUEST_METHOD": "POST", "PATH_INFO": "/orders", "wsgi.input": io.BytesIO(), "wsgi.url_scheme": "http",
        "HTTP_IDEMPOTENCY_KEY": '"8e03978e-40d5-43dd-bc93-6894a57f9324"',
    }  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_more)
        with pytest.raises(RuntimeError, match="new thread"):
            b"".join(door(dict(environ), lambda *_: lambda _: None))
    assert (ran, store._records) == ([], {})
    assert b"".join(door(dict(environ), lambda *_: lambda _: None)) == b"made"
    door.close()
