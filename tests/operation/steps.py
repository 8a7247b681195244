"""What the tests of steps share: an attempt of an operation in a store, without a server around it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from typing import Any

from retrysafe import Operation, Policy
from retrysafe.model import BytesBody, Claim, Head, Request
from retrysafe.observe import Observer
from retrysafe.operation import handle
from retrysafe.operation.notebook import Notebook
from retrysafe.protocol.effects import Execute
from retrysafe.protocol.flow import Terms
from retrysafe.protocol.key import Key
from retrysafe.protocol.transitions import ClaimIfAbsent, TakeOverIfLapsed
from retrysafe.stores.contract import Store
from retrysafe.stores.memory import MemoryStore
from tests.drive.harness import ManualClock, Noted

SECRET = b"0123456789abcdef0123456789abcdef"
RECORD_ID = bytes(range(32))
LEASE_MS = 60_000
DAY_MS = 86_400_000
REQUEST = Request(Head("POST", b"/orders", b"", ()), BytesBody(b"{}"))


class Shop:
    """A store with one operation, whose attempts come one after the other.

    Args:
        store: in place of one in memory.
        policy: options of the route.
    """

    def __init__(self, store: Store | None = None, **policy: Any) -> None:
        self.clock = ManualClock()
        self.store: Any = store or MemoryStore(self.clock)
        self.store.open(SECRET)
        self.policy = Policy(**{"recovery": "rerun", **policy})
        self.noted: Observer = Noted()
        self.claim = Claim(RECORD_ID, b"", 0)

    def attempt(self) -> Operation:
        """The next attempt: the one before is gone, and its lease has lapsed."""
        token = os.urandom(16)
        if not self.claim.attempt:
            self.store.perform(ClaimIfAbsent(RECORD_ID, token, b"fingerprint", LEASE_MS, DAY_MS))
            self.claim = Claim(RECORD_ID, token, 1)
        else:
            self.clock.now_ms += LEASE_MS
            assert self.store.perform(TakeOverIfLapsed(RECORD_ID, self.claim.token, token, LEASE_MS, DAY_MS))
            self.claim = Claim(RECORD_ID, token, self.claim.attempt + 1)
        execute = Execute(self.claim, Key("k-1"), "alice", REQUEST, self.policy)
        return copy_context().run(  # current in no context that outlives the test
            handle.begin,
            execute,
            Terms(self.policy, "default", SECRET, token),
            partial(Notebook, self.store, self.noted),
        )


class Died(BaseException):
    """The process ended here: nothing that comes after it happens."""


@contextmanager
def dying() -> Iterator[None]:
    """The end of an attempt that dies."""
    try:
        yield
    except Died:
        return
    raise AssertionError("it lived")
