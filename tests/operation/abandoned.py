"""What the tests of recovery share: a door, and operations whose process was killed in the middle of the handler."""

from __future__ import annotations

import os
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from retrysafe import Operation, Policy, operation
from retrysafe.asgi import IdempotencyMiddleware
from retrysafe.drive.step import first, sent
from retrysafe.encryption import key_ring
from retrysafe.model import BytesBody, Claim, Head, Record, Request, State
from retrysafe.operation import handle
from retrysafe.operation.notebook import Notebook
from retrysafe.operation.recovery import Fared
from retrysafe.protocol.effects import Admit, Execute, Transition
from retrysafe.protocol.flow import Terms, protect
from retrysafe.protocol.transitions import ClaimIfRetryable, ListRecords
from retrysafe.recovery import Identity
from retrysafe.server.scope import Connection
from retrysafe.stores.contract import Store
from retrysafe.stores.memory import MemoryStore
from tests.drive.harness import ManualClock, Noted, TamperedStore

LEASE_MS = 60_000
KEYS = "ab" * 32
SECRET = b"0123456789abcdef0123456789abcdef"
RERUN = Policy(recovery="rerun", stored_request_except=("X-Token",))


class Case:
    """A door over a store on a clock in the hand of the test.

    Args:
        before: of the store: called with each transition.
        store: in place of one in memory.
        settings: of the door.

    Attributes:
        runs: what each run of the handler saw.
    """

    def __init__(self, *, before: Any = None, store: Any = None, **settings: Any) -> None:
        self.clock = ManualClock()
        self.store = TamperedStore(store or MemoryStore(self.clock), before=before)
        self.store.open(SECRET)
        self.noted = Noted()
        self.runs: list[dict[str, Any]] = []
        self.raises: Exception | None = None
        self.settings: dict[str, Any] = {
            "policy": RERUN, "encryption_keys": KEYS, "secret": SECRET, "observer": self.noted,
            "reauthenticate": lambda account: Identity(headers={"X-By": account}), **settings,
        }  # fmt: skip
        self.door = self.make_door()

    def make_door(self, **settings: Any) -> IdempotencyMiddleware:
        """Another door over the same store."""
        routes = [Route("/orders", self.handle, methods=["POST"]), Route("/other", self.handle, methods=["POST"])]
        app = Starlette(routes=[*routes, Mount("/mounted", routes=routes)])
        return IdempotencyMiddleware(
            app, store=self.store, **{"scope": "header:X-Account", **self.settings, **settings}
        )

    async def handle(self, request: Any) -> Any:
        """Note what came; then answer, or raise."""
        seen = {"attempt": operation().attempt, "content": await request.body(), "url": str(request.url)}
        self.runs.append({**seen, "headers": request.headers, "connection": request.scope})
        if self.raises is not None:
            raise self.raises
        return JSONResponse({"attempt": operation().attempt}, 201)

    def abandon(self, path: str = "/orders", **request: Any) -> Operation:
        """One request whose process was killed in its handler; its lease has lapsed, and it is due."""
        left = leave(self.store.inner, path, **request)
        self.clock.now_ms += LEASE_MS + 1_000
        self._left = left
        return left

    def abandon_again(self) -> Operation:
        """A retry that was released, up to its handler; then its process is killed."""
        (record_id,) = self.records()
        record, token = self.records()[record_id], os.urandom(16)
        claiming = ClaimIfRetryable(record_id, record.token, token, LEASE_MS, LEASE_MS)
        assert self.store.inner.perform(claiming)
        execute = replace(self._left._execute, claim=Claim(record_id, token, record.attempt + 1))
        make_steps = partial(Notebook, self.store.inner, Noted())
        return copy_context().run(handle.begin, execute, self._left._terms, make_steps)

    async def recover(self, door: IdempotencyMiddleware | None = None) -> dict[Fared, int]:
        """One pass of a door; how records fared."""
        door = door or self.door
        await door.open()
        try:
            report = await door.recover()
        finally:
            await door.close()
        return {fared: count for fared, count in report.counts.items() if count}

    def records(self) -> dict[bytes, Record]:
        """All that is in the store."""
        page = self.store.inner.perform(ListRecords(tuple(State)))
        return {listed.record_id: listed.record for listed in page.records}

    def states(self) -> list[State]:
        """Of all records."""
        return records_of(self.store.inner)


def user_of(connection: Connection) -> str | None:
    """The account, from what authentication left in the connection."""
    return connection.get("user")


def records_of(store: Store) -> list[State]:
    """The states of all records."""
    page = store.perform(ListRecords(tuple(State)))
    return [listed.record.state for listed in page.records]


def leave(
    store: Store,
    path: str,
    *,
    key: str = "k-1",
    account: str = "alice",
    policy: Policy = RERUN,
    route: str = "*",
    namespace: str = "default",
    root: str = "",
    fields: tuple[tuple[bytes, bytes], ...] = (),
    content: bytes = b'{"item": 7}',
) -> Operation:
    """One request up to its handler, and nothing after that: its process was killed."""
    named = ((b"idempotency-key", key.encode()), (b"x-account", account.encode()), (b"host", b"shop.example"))
    head = Head("POST", path.encode(), b"q=%31", (*named, (b"content-type", b"application/json"), *fields))
    terms = Terms(
        policy, namespace, SECRET, os.urandom(16), route=route, encryption=key_ring(KEYS),
        stores_requests=policy.recovery == "rerun", place=("https", root),
    )  # fmt: skip
    flow = protect(head, terms)
    wish: Any = first(flow)
    while not isinstance(wish, Execute):
        match wish:
            case Admit():
                wish = sent(flow, (account, Request(head, BytesBody(content))))
            case Transition():
                wish = sent(flow, store.perform(wish))
            case _:
                raise AssertionError(wish)
    return copy_context().run(handle.begin, wish, terms, partial(Notebook, store, Noted()))
