"""A handler that sells: it writes an order and completes its record on a connection of some kind, then ends as told."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from typing import Any

from starlette.responses import JSONResponse

from retrysafe.operation import operation
from retrysafe.protocol.transitions import TakeOverIfLapsed
from tests.operation.kinds import KINDS


class OutOfStock(Exception):
    """What the handler raises when it is told to."""


def _die(ending: str, moment: str) -> None:
    if ending == f"die {moment}":
        os.kill(os.getpid(), signal.SIGKILL)
    if ending == f"raise {moment}":
        raise OutOfStock


THIEF = b"thief".ljust(16)


def _theft() -> TakeOverIfLapsed:
    """Another attempt takes this operation's claim over."""
    claim = operation()._execute.claim
    return TakeOverIfLapsed(claim.record_id, claim.token, THIEF, lease_ms=60_000, forget_after_ms=60_000)


def sell(place: Any, opened: Any, name: str, ending: str) -> int:
    """With a blocking connection; the status code to answer with."""
    if ending == "lose the claim":
        place.clock.now_ms += 60_000
        assert place.store.perform(_theft())
    with opened(place) as unit:
        unit.write(name)
        operation().complete_within(unit.connection, JSONResponse({"sold": name}, 201))
        _die(ending, "before the commit")
        if ending.startswith("roll back"):
            unit.roll_back()
        else:
            unit.commit()
        _die(ending, "after the commit")
    return 409 if ending == "roll back and say so" else 200


async def sell_async(place: Any, opened: Any, name: str, ending: str) -> int:
    """With a connection for asyncio."""
    if ending == "lose the claim":
        place.clock.now_ms += 60_000
        assert await place.store.submit(_theft())
    async with opened(place) as unit:
        await unit.write(name)
        await operation().complete_within(unit.connection, JSONResponse({"sold": name}, 201))
        _die(ending, "before the commit")
        if ending.startswith("roll back"):
            await unit.roll_back()
        else:
            await unit.commit()
        _die(ending, "after the commit")
    return 409 if ending == "roll back and say so" else 200


class Shop:
    """An ASGI application that sells, over connections of one kind.

    Attributes:
        ending: how the handler ends.
        calls: how often it ran.
    """

    def __init__(self, place: Any, kind: str) -> None:
        _, self._blocking, self._opened = KINDS[kind]
        self._place = place
        self.ending = "commit"
        self.calls = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        name = json.loads((await receive())["body"])["name"]
        self.calls += 1
        if self._blocking:  # as frameworks run them
            status = await asyncio.to_thread(sell, self._place, self._opened, name, self.ending)
        else:
            status = await sell_async(self._place, self._opened, name, self.ending)
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"not ", "more_body": True})
        await send({"type": "http.response.body", "body": b"recorded"})
