"""The modes: how a handler makes its effect, behind which door, and what the auditor permits."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from retrysafe import Policy
from retrysafe.lab import evidence
from retrysafe.lab.evidence import Effect
from retrysafe.lab.failpoints import Failpoints
from retrysafe.lab.ledger import Ledger
from retrysafe.operation import current_operation
from retrysafe.server.handling import Application, Receive, Send
from retrysafe.server.scope import Connection

SLOW_S = 0.15  # at a lease of 300 ms, past the first renewal and before the second


@dataclass(frozen=True, slots=True)
class Mode:
    """One way to be protected.

    Attributes:
        name: for people and command lines.
        promise: what the auditor holds it to.
        options: of its policy.
        gateway: the handler stands behind the gateway, in another process.
    """

    name: str
    promise: evidence.Mode
    options: dict[str, Any] = field(default_factory=dict)
    gateway: bool = False

    def policy(self, lease_ms: int) -> Policy:
        """Of its route."""
        return Policy(lease=f"{lease_ms}ms", **self.options)


PROVED = (
    Mode("manual", evidence.Mode.MANUAL),
    Mode("rerun", evidence.Mode.RERUN, {"recovery": "rerun"}),
    Mode("gateway", evidence.Mode.MANUAL, gateway=True),
)
BROKEN = Mode("broken", evidence.Mode.MANUAL, {"recovery": "rerun"})
"""Promises at most one effect and runs again: whoever proves that has proved nothing."""

MODES = {mode.name: mode for mode in (*PROVED, BROKEN)}


def orders(points: Failpoints, ledger: Ledger, *, whole: bool = False) -> Application:
    """The handler: it enters an order into the ledger, and answers in three messages.

    Args:
        points: of its process.
        ledger: takes the effect.
        whole: answer in two messages and with a length, so that how many pieces arrive elsewhere is no accident.
    """

    async def order(connection: Connection, receive: Receive, send: Send) -> None:
        content = await _content(receive)
        wish = json.loads(content)
        points.reach("before the effect")
        ledger.write(_effect(connection, content, wish))
        points.reach("after the effect")
        if wish["slow"]:
            await asyncio.sleep(SLOW_S)
        number = uuid.uuid4().hex
        headers = [(b"content-type", b"application/json"), (b"x-order", number.encode())]
        body = json.dumps({"scope": wish["scope"], "order": number}).encode()
        if whole:
            await send({"type": "http.response.start", "status": 201, "headers": [*headers, _length(body)]})
            await send({"type": "http.response.body", "body": body})
            return
        await send({"type": "http.response.start", "status": 201, "headers": headers})
        await send({"type": "http.response.body", "body": body[:20], "more_body": True})
        await send({"type": "http.response.body", "body": body[20:]})

    return order


def _effect(connection: Connection, content: bytes, wish: dict[str, Any]) -> Effect:
    operation = current_operation()
    headers = dict(connection["headers"])
    return Effect(
        time.monotonic_ns(),
        wish["scope"],
        wish["key"],
        call=int(headers[b"x-call"]),
        node=str(os.getpid()),
        fingerprint=digest(content),
        attempt=operation.attempt if operation is not None else 1,
    )


def _length(body: bytes) -> tuple[bytes, bytes]:
    return b"content-length", b"%d" % len(body)


def digest(content: bytes) -> str:
    """That evidence tells contents apart by."""
    return hashlib.sha256(content).hexdigest()[:16]


async def _content(receive: Receive) -> bytes:
    pieces: list[bytes] = []
    while True:
        message = await receive()
        pieces.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(pieces)
