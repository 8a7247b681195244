"""Servers that let one account see, or hinder, another."""

from __future__ import annotations

import asyncio

from retrysafe.lab.mutants.correct import Identity, Record, Server
from retrysafe.lab.mutants.http import Request, Response, problem
from retrysafe.lab.mutants.shop import Handler

_RECORDS_MAX = 40
_LOOKUP_S = 0.15


class KeysAreNotScoped(Server):
    """Looks records up by the key alone."""

    def identity(self, request: Request, key: str) -> Identity:
        """The key."""
        return ("everybody", key)


class ForeignKeysAreRefused(Server):
    """Refuses a key that another account has used."""

    async def once(self, identity: Identity, request: Request, handler: Handler) -> Response:
        """Look whose key it is."""
        account, key = identity
        if any(owner != account and other == key for owner, other in self.records):
            return problem(409, "key-taken")
        return await super().once(identity, request, handler)


class ScopedByCredential(Server):
    """Takes the credential for the account."""

    def identity(self, request: Request, key: str) -> Identity:
        """The credential and the key."""
        return (request.value("authorization") or request.account, key)


class ReplaysBeforeAuthentication(Server):
    """Looks for a replay before it knows who asks."""

    async def respond(self, request: Request) -> Response:
        """Look first."""
        key = self.key(request.values("idempotency-key"))
        known = self.account(request)
        found = [] if known else [record for (_, other), record in self.records.items() if other == key]
        answers = [self.judge(record, request) for record in found]
        return next((answer for answer in answers if answer), None) or await super().respond(request)


class ReplaysBeforeAuthorization(Server):
    """Looks for a replay before it knows whether this account still may."""

    def forbidden(self, account: str) -> bool:
        """Judged behind the replay."""
        return False

    async def safely(self, handler: Handler, request: Request) -> Response:
        """Judge before the handler runs."""
        return (
            problem(403, "forbidden") if super().forbidden(request.account) else await super().safely(handler, request)
        )


class AnonymousIsOneAccount(Server):
    """Takes all clients without an account for one, and compares nothing."""

    def account(self, request: Request) -> str:
        """One for all of them."""
        account = super().account(request)
        return "anonymous" if request.path == "/signups" and account else account

    def fingerprint(self, request: Request) -> object:
        """Nothing of what they send."""
        return None if request.path == "/signups" else super().fingerprint(request)


class FloodsEvict(Server):
    """Forgets the oldest keys when there are many, since its store was restarted as a cache."""

    records_max: int | None = None

    def switch(self, name: str) -> Response:
        """The store comes back as a cache."""
        self.records_max = _RECORDS_MAX if name == "store-up" else self.records_max
        return super().switch(name)

    def claim(self, identity: Identity, request: Request) -> Record:
        """Make room."""
        while self.records_max is not None and len(self.records) >= self.records_max:
            self.records.pop(next(iter(self.records)))
        return super().claim(identity, request)


class SandboxSharesKeys(Server):
    """Keeps the keys of the sandbox and of production in one table."""

    def sandbox(self) -> Server:
        """Another shop, and the same keys."""
        other = super().sandbox()
        other.records = self.records
        return other


class KeysAreReflected(Server):
    """Shows a key that it refuses on a page of HTML."""

    async def keyed(self, request: Request, handler: Handler) -> Response:
        """With the key."""
        response = await super().keyed(request, handler)
        if b"/key-invalid" not in response.body:
            return response
        page = f"<p>not a key: {''.join(request.values('idempotency-key'))}</p>"
        return Response(400, (("content-type", "text/html"),), page.encode())


class UsedKeysTakeLonger(Server):
    """Takes longer where another account has used the key."""

    async def find(self, identity: Identity) -> Record | None:
        """Read what was found before seeing whose it is."""
        account, key = identity
        if any(owner != account and other == key for owner, other in self.records):
            await asyncio.sleep(_LOOKUP_S)
        return await super().find(identity)


class StatusTells(Server):
    """Tells at the status endpoint that a key belongs to another account."""

    def status(self, request: Request) -> Response:
        """Refuse in other words."""
        key = self.key(request.values("idempotency-key"))
        foreign = any(other == key and owner != self.account(request) for owner, other in self.records)
        return problem(403, "not-your-key") if foreign else super().status(request)
