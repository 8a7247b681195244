"""What the handlers do, and what stands on the other side of them."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import json
import os
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from prove.kill import tables
from prove.kill.orders import Order
from retrysafe.lab.evidence import Effect, Row, StepKept
from retrysafe.lab.failpoints import Failpoints
from retrysafe.lab.ledger import Ledger
from retrysafe.model import Response
from retrysafe.operation import StepCall, current_operation, operation
from retrysafe.server.handling import Application, Receive, Send
from retrysafe.server.scope import Connection

LEASE_MS = 300
SLOW_S = LEASE_MS / 2_000  # past the first renewal, and before the second
_PATIENCE_S = 20
_STEPS = ("reserve", "charge")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a handler has.

    Attributes:
        points: of its process.
        ledger: takes effects.
        order: that its process was forked with.
    """

    points: Failpoints
    ledger: Ledger
    order: Order


MakeHandler = Callable[[Surroundings], Application]


@dataclass(frozen=True, slots=True)
class Wish:
    """A request, as a handler reads it.

    Attributes:
        scope, key: of the operation.
        slow: whether to take more than a third of the lease.
        call: its number at the client.
        fingerprint: of its content.
    """

    scope: str
    key: str
    slow: bool
    call: int
    fingerprint: str


async def wish_of(connection: Connection, receive: Receive) -> Wish:
    """Read the request."""
    pieces: list[bytes] = []
    more = True
    while more:
        message = await receive()
        pieces.append(message.get("body", b""))
        more = message.get("more_body", False)
    content = b"".join(pieces)
    said = json.loads(content)
    call = int(dict(connection["headers"])[b"x-call"])
    return Wish(said["scope"], said["key"], said["slow"], call, digest(content))


def digest(content: bytes) -> str:
    """That evidence tells contents apart by."""
    return hashlib.sha256(content).hexdigest()[:16]


async def answer(send: Send, wish: Wish, **said: Any) -> None:
    """An answer in three messages, which is never the same twice."""
    headers, body = _order(wish, said)
    await send({"type": "http.response.start", "status": 201, "headers": headers})
    await send({"type": "http.response.body", "body": body[:20], "more_body": True})
    await send({"type": "http.response.body", "body": body[20:]})


def _order(wish: Wish, said: dict[str, Any]) -> tuple[list[tuple[bytes, bytes]], bytes]:
    number = uuid.uuid4().hex
    headers = [(b"content-type", b"application/json"), (b"x-order", number.encode())]
    return headers, json.dumps({"scope": wish.scope, "order": number, **said}).encode()


# --- one effect -----------------------------------------------------------------------------------


def ordering(around: Surroundings) -> Application:
    """Enters an order into the ledger."""

    async def order(connection: Connection, receive: Receive, send: Send) -> None:
        await answer(send, await _ordered(around, connection, receive))

    return order


def ordering_whole(around: Surroundings) -> Application:
    """The same, answered with a length and in one piece, so that how many arrive at a gateway is no accident."""

    async def order(connection: Connection, receive: Receive, send: Send) -> None:
        headers, body = _order(await _ordered(around, connection, receive), {})
        length = (b"content-length", b"%d" % len(body))
        await send({"type": "http.response.start", "status": 201, "headers": [*headers, length]})
        await send({"type": "http.response.body", "body": body})

    return order


async def _ordered(around: Surroundings, connection: Connection, receive: Receive) -> Wish:
    wish = await wish_of(connection, receive)
    now = current_operation()
    around.points.reach("before the effect")
    around.ledger.write(
        Effect(
            time.monotonic_ns(),
            wish.scope,
            wish.key,
            call=wish.call,
            node=str(os.getpid()),
            fingerprint=wish.fingerprint,
            attempt=now.attempt if now is not None else 1,
        )
    )
    around.points.reach("after the effect")
    if wish.slow:
        await asyncio.sleep(SLOW_S)
    return wish


# --- effects in steps, at another side that knows its keys ----------------------------------------


def calling(around: Surroundings) -> Application:
    """Calls the other side twice, each time in a step."""

    async def order(connection: Connection, receive: Receive, send: Send) -> None:
        wish = await wish_of(connection, receive)
        numbers = {name: await _step(around, wish, name) for name in _STEPS}
        if wish.slow:
            await asyncio.sleep(SLOW_S)
        await answer(send, wish, **numbers)

    return order


async def _step(around: Surroundings, wish: Wish, name: str) -> Any:
    async def call(made: StepCall) -> Any:
        around.points.reach(f"before the call {name}")
        number = await asyncio.to_thread(_post, around.order.beside, wish, name, made)
        around.points.reach(f"after the call {name}")
        return number

    number = await operation().step(
        name, call, input={"key": wish.key}, if_interrupted="resend", downstream_window="1h"
    )
    around.ledger.write(StepKept(time.monotonic_ns(), wish.scope, wish.key, name, operation().attempt))
    return number


def _post(port: int, wish: Wish, name: str, made: StepCall) -> Any:
    document = {
        "scope": wish.scope,
        "key": wish.key,
        "call": wish.call,
        "fingerprint": wish.fingerprint,
        "node": str(os.getpid()),
        "attempt": operation().attempt,
        "step": name,
        "child_key": made.key,
        "input": digest(made.input or b""),
    }
    other = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE_S)
    try:
        other.request("POST", "/", json.dumps(document))
        return json.loads(other.getresponse().read())
    finally:
        other.close()


def reached(around: Surroundings) -> Application:
    """The other side: does each key once, and answers it as the first time."""
    known: dict[str, str] = {}

    async def serve(_: Connection, receive: Receive, send: Send) -> None:
        made = json.loads((await receive())["body"])
        is_new = made["child_key"] not in known
        number = known.setdefault(made["child_key"], uuid.uuid4().hex)
        around.ledger.write(Effect(time.monotonic_ns(), **made, applied=is_new))
        body = json.dumps(number).encode()
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return serve


# --- a row and the record in one transaction ------------------------------------------------------


def committing(around: Surroundings) -> Application:
    """Writes a row and completes its record with it, on a thread, as frameworks run blocking handlers."""

    async def order(connection: Connection, receive: Receive, send: Send) -> None:
        wish = await wish_of(connection, receive)
        headers, body = _order(wish, {})
        await asyncio.to_thread(_commit, around, wish, Response(201, tuple(headers), body))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"not what was recorded"})

    return order


def _commit(around: Surroundings, wish: Wish, response: Response) -> None:
    with closing(tables.connect(around.order.store)) as database:
        around.points.reach("before the row")
        tables.insert(database, Row(wish.scope, wish.key, operation().attempt))
        around.points.reach("after the row")
        if wish.slow:
            threading.Event().wait(SLOW_S)
        operation().complete_within(database, response)
        around.points.reach("before the commit")
        database.commit()
        around.points.reach("after the commit")
