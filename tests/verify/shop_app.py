"""The shop of the laboratory as an application of its own, with effects in a file that outlives its process.

SHOP_PLACE=FOLDER hypercorn tests.verify.shop_app:bare
SHOP_PLACE=FOLDER SHOP_NAMESPACE=live hypercorn tests.verify.shop_app:protected

The store of keys is SHOP_STORE, else a file of SQLite in the folder; of Redis, SHOP_STORE_PID is its process.
"""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path

from retrysafe import Policy
from retrysafe.asgi import IdempotencyMiddleware
from retrysafe.lab.mutants.correct import ACCOUNTS, ORIGINS
from retrysafe.lab.mutants.http import Response, problem, read, write
from retrysafe.lab.mutants.shop import Died, Failed, Shop
from retrysafe.operation import current_operation
from tests.verify.stores_away import BringBack, take_away

LEASE_S = 1.0
LIFETIME_S = 2.0
STORE = "records.db"
STORE_AWAY_S = 12.0


class LastingShop(Shop):
    """The shop, with a ledger in a file."""

    def __init__(self, place: Path) -> None:
        super().__init__()
        self._ledger = place / "ledger"
        self._ledger.touch()

    def lines(self, line: str) -> int:
        """How often the ledger has this line."""
        return self._ledger.read_text().splitlines().count(line)

    def note(self, line: str) -> None:
        """One more line, which is there before this returns."""
        with self._ledger.open("a") as ledger:
            ledger.write(line + "\n")

    def done(self, reference):
        """Note an effect."""
        self.note(f"done {reference}")
        return super().done(reference)

    def _first(self, what, reference):
        first = not self.lines(f"{what} {reference}")
        self.note(f"{what} {reference}")
        return first

    async def look(self, request):
        """What there is of a reference."""
        reference = request.wish("reference")
        self.effects[reference] = self.lines(f"done {reference}")
        return await super().look(request)


class ShopApp:
    """ASGI: the shop behind nothing."""

    def __init__(self, place: Path) -> None:
        self.shop = LastingShop(place)
        self._bring_back: BringBack | None = None

    async def __call__(self, scope, receive, send):
        """One connection."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        request = await read(scope, receive)
        if request is None:
            return
        response = await self.respond(request)
        operation = current_operation()
        if operation and ("idempotency-effect", "none") in response.headers:
            operation.no_effect()
        await write(response, send, head_only=request.method == "HEAD")

    async def respond(self, request):
        """From a request to its answer."""
        if request.path.startswith("/lab/"):
            return self.switch(request.path.removeprefix("/lab/"))
        handler = self.shop.routes.get((request.method, request.path))
        if handler is None and (request.method, request.path.rstrip("/")) in self.shop.routes:
            return Response(307, (("location", request.path.rstrip("/")),))
        if handler is None:
            return problem(404, "no-route")
        try:
            response = await handler(request)
        except Died:
            os.kill(os.getpid(), signal.SIGKILL)
        except Failed as failed:
            return problem(500, "failed", *((("idempotency-effect", "none"),) if str(failed) == "before" else ()))
        if request.wish("store") == "fails":
            self.switch("store-down")
            asyncio.get_running_loop().call_later(STORE_AWAY_S, self.switch, "store-up")
        return response

    def switch(self, name):
        """Take the store of keys away, and bring it back."""
        if name == "store-down" and self._bring_back is None:
            self._bring_back = take_away(store_url(), int(os.environ.get("SHOP_STORE_PID", "0")))
        elif name == "store-up" and self._bring_back is not None:
            self._bring_back()
            self._bring_back = None
        return Response(204)


class Guarded:
    """Around an application: who may come in, and what browsers want to know."""

    def __init__(self, app, place: Path) -> None:
        self.app = app
        self.place = place

    async def __call__(self, scope, receive, send):
        """One connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        origin = headers.get(b"origin", b"").decode()

        async def with_origin(message):
            if message["type"] == "http.response.start" and origin in ORIGINS:
                message = {**message, "headers": [*message["headers"], *_allowed(origin)]}
            await send(message)

        refusal = self.judge(scope, headers)
        if refusal is not None:
            await write(refusal, with_origin)
            return
        await self.app(scope, receive, with_origin)

    def judge(self, scope, headers):
        """An answer that the application is not asked for, or nothing."""
        path = scope["path"]
        if scope["method"] == "OPTIONS" or path == "/lab/ready":
            return Response(200 if path == "/lab/ready" else 204)
        if path in {"/lab/revoke", "/lab/restore"}:
            (self.place / "revoked").write_text("yes" if path == "/lab/revoke" else "")
            return Response(204)
        account = ACCOUNTS.get(headers.get(b"authorization", b"").decode(), "")
        if path == "/signups":
            account = headers.get(b"cookie", b"").decode()
        scope["account"] = account
        if path.startswith("/lab/"):
            return None
        revoked = self.place / "revoked"
        if account == "alice" and revoked.exists() and revoked.read_text():
            return problem(403, "forbidden", ("idempotency-effect", "none"))
        return None if account else problem(401, "unauthenticated", ("idempotency-effect", "none"))


def _allowed(origin):
    return [
        (b"access-control-allow-origin", origin.encode()),
        (b"access-control-allow-headers", b"idempotency-key, content-type, authorization"),
        (b"access-control-expose-headers", b"Idempotent-Replayed"),
    ]


async def _lifespan(receive, send):
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


def store_url() -> str:
    """Where the keys are."""
    return os.environ.get("SHOP_STORE") or f"sqlite:///{Path(os.environ['SHOP_PLACE']) / STORE}"


def bare():
    """The shop that a gateway is in front of."""
    place = Path(os.environ["SHOP_PLACE"])
    return Guarded(ShopApp(place), place)


def protected():
    """The shop behind the ASGI door."""
    place = Path(os.environ["SHOP_PLACE"])
    policy = Policy(required=True, lease=f"{LEASE_S}s")
    door = IdempotencyMiddleware(
        ShopApp(place),
        store=store_url(),
        scope=lambda connection: connection["account"],
        policy=policy,
        routes={
            "POST /short": replace(policy, lifetime=f"{LIFETIME_S}s"),
            "PATCH /counters": policy,
            "DELETE /orders": Policy(),
            "POST /plain": None,
            "POST /lab/store-down": None,
            "POST /lab/store-up": None,
        },
        namespace=os.environ.get("SHOP_NAMESPACE", "live"),
    )
    return Guarded(door, place)
