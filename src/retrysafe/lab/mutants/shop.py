"""What the servers sell. It does its work whenever it is asked, and knows nothing of retries.

What goes wrong is asked for in the query: `delay=MS`, `fail=before|after|decline|unavailable|limit`,
`die=before|after`. A failure that a retry can get over happens once for each reference.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from retrysafe.lab.mutants.http import Request, Response, document, problem

Handler = Callable[[Request], Awaitable[Response]]
_REPORT_LINES = 50_000


class Died(Exception):
    """The worker died at work."""


class Failed(Exception):
    """The handler raised, before its effect or behind it."""


class Shop:
    """Orders and what else there is to try, and a count of every effect."""

    def __init__(self) -> None:
        self.effects: Counter[str] = Counter()
        self.orders: dict[str, dict[str, Any]] = {}
        self._met: set[tuple[str, str]] = set()
        self._numbers = itertools.count(1)
        self.routes: dict[tuple[str, str], Handler] = {
            ("POST", "/orders"): self.order,
            ("POST", "/short"): self.order,
            ("GET", "/orders"): self.look,
            ("HEAD", "/orders"): self.look,
            ("PUT", "/orders"): self.modify,
            ("DELETE", "/orders"): self.remove,
            ("PATCH", "/counters"): self.order,
            ("POST", "/refunds"): self.order,
            ("POST", "/tickets/1"): self.order,
            ("POST", "/tickets/2"): self.order,
            ("POST", "/uploads"): self.upload,
            ("POST", "/exports"): self.export,
            ("POST", "/reports"): self.report,
            ("POST", "/forms"): self.form,
            ("POST", "/sessions"): self.session,
            ("POST", "/tokens"): self.token,
            ("POST", "/plain"): self.order,
            ("POST", "/signups"): self.order,
        }

    def done(self, reference: str) -> int:
        """Note an effect; its number."""
        self.effects[reference] += 1
        return next(self._numbers)

    async def order(self, request: Request) -> Response:
        """An order, with whatever the query wants to go wrong."""
        asked = request.json()
        if not isinstance(asked, dict) or not {"reference", "quantity"} <= asked.keys():
            return problem(400, "invalid-order")
        reference = str(asked["reference"])
        if refusal := self._refuse(request.wish("fail"), reference):
            return refusal
        await self._meet(request, reference, "before")
        await asyncio.sleep(int(request.wish("delay") or 0) / 1_000)
        number = self.done(reference)
        self.orders[reference] = {"id": f"order-{secrets.token_hex(6)}", **asked}
        await self._meet(request, reference, "after")
        place = ("location", f"/orders?reference={reference}")
        return document(
            201, self.orders[reference], place, ("etag", f'"{number}"'), ("x-request-id", secrets.token_hex(8))
        )

    def _refuse(self, fail: str, reference: str) -> Response | None:
        """What the business, or a limit, has against it."""
        if fail == "decline":
            return document(402, {"code": "card-declined", "attempt": secrets.token_hex(4)})
        if fail in {"limit", "unavailable"} and self._first(fail, reference):
            status = 429 if fail == "limit" else 503
            return problem(status, fail, ("idempotency-effect", "none"), retryable=True)
        return None

    async def _meet(self, request: Request, reference: str, when: str) -> None:
        """Fail or die here, if that was asked for."""
        if request.wish("die") == when and self._first(f"die-{when}", reference):
            raise Died
        if request.wish("fail") == when and (when == "after" or self._first(when, reference)):
            raise Failed(when)

    def _first(self, what: str, reference: str) -> bool:
        """Whether this happens to the reference for the first time."""
        met = (what, reference) in self._met
        self._met.add((what, reference))
        return not met

    async def look(self, request: Request) -> Response:
        """What there is of a reference."""
        reference = request.wish("reference")
        return document(200, {"total": self.effects[reference], "order": self.orders.get(reference)})

    async def modify(self, request: Request) -> Response:
        """Change an order."""
        reference = request.wish("reference")
        if reference not in self.orders:
            return document(404, {"code": "no-order"})
        self.orders[reference] |= {"state": "changed"}
        return document(200, self.orders[reference])

    async def remove(self, request: Request) -> Response:
        """Delete an order, but not that there was one."""
        gone = self.orders.pop(request.wish("reference"), None)
        return Response(204) if gone else document(404, {"code": "no-order"})

    async def upload(self, request: Request) -> Response:
        """Take a file."""
        reference = request.wish("reference")
        return document(201, {"id": f"file-{self.done(reference)}"})

    async def export(self, request: Request) -> Response:
        """Start a job."""
        number = self.done(request.json()["reference"])
        return document(202, {"job": number}, ("location", f"/jobs/{number}"))

    async def report(self, request: Request) -> Response:
        """A large answer that is sent in pieces."""
        number = self.done(request.json()["reference"])
        lines = b"".join(b"%d,%d,line of a report\n" % (number, line) for line in range(_REPORT_LINES))
        return Response(200, (("content-type", "text/csv"),), lines, streamed=True)

    async def form(self, request: Request) -> Response:
        """A form that sends the browser on."""
        number = self.done(request.json()["reference"])
        return Response(303, (("location", f"/orders/{number}"),))

    async def session(self, request: Request) -> Response:
        """Something that sets a cookie."""
        number = self.done(request.json()["reference"])
        return document(201, {"id": number}, ("set-cookie", f"session={secrets.token_hex(16)}"))

    async def token(self, request: Request) -> Response:
        """Something that shows a secret once."""
        self.done(request.json()["reference"])
        return document(201, {"secret": secrets.token_hex(16)})
