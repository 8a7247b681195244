"""Servers that record what they should release, and release what they should record."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from retrysafe.lab.mutants.correct import MARKER, Identity, Record, Server
from retrysafe.lab.mutants.http import Message, Request, Response, problem, read
from retrysafe.lab.mutants.shop import Handler


class CutRequestsAreClaimed(Server):
    """Claims a key before the content has come, and keeps it when the client leaves."""

    async def read(self, scope: Message, receive: Callable[[], Awaitable[Message]]) -> Request | None:
        """Claim first."""
        request = await read(scope, receive)
        if request is None:
            headers = tuple((name.decode(), value.decode("latin-1")) for name, value in scope["headers"])
            head = Request(scope["method"], scope["path"], scope["query_string"].decode(), headers, b"")
            key = self.key(head.values("idempotency-key"))
            self.records["alice", key or ""] = Record(None, None)
        return request

    def judge(self, record: Record, request: Request) -> Response | None:
        """A claim without content fits every content."""
        return self.in_progress() if record.fingerprint is None else super().judge(record, request)


class InvalidRequestsAreHalfRecorded(Server):
    """Leaves a record of an invalid request that it cannot read afterwards."""

    def settle(self, identity: Identity, record: Record, request: Request, response: Response) -> None:
        """Keep what is not whole."""
        if self.understood(response):
            super().settle(identity, record, request, response)
        else:
            record.fingerprint = None

    def judge(self, record: Record, request: Request) -> Response | None:
        """Fail on it."""
        if record.fingerprint is None:
            return problem(500, "record-unreadable")
        return super().judge(record, request)


class RefusalsAreRecorded(Server):
    """Records a 401, whoever it was for."""

    async def respond(self, request: Request) -> Response:
        """Look for a record before anything else."""
        key = self.key(request.values("idempotency-key"))
        refused = self.records.get(("refused", key or ""))
        if refused is not None and refused.response is not None:
            return self.replay(refused.response, request)
        response = await super().respond(request)
        if key and response.status == 401:
            self.records["refused", key] = Record(None, None, response=response)
        return response


class LimitsAreRecorded(Server):
    """Records a 429."""

    def releases(self, response: Response) -> bool:
        """Never after 429."""
        return response.status != 429 and super().releases(response)


class OutagesAreRecorded(Server):
    """Records a 503 that did nothing."""

    def releases(self, response: Response) -> bool:
        """Never after 503."""
        return response.status != 503 and super().releases(response)


class FailuresAreReleased(Server):
    """Lets the key go after every server error, as if nothing had happened."""

    def releases(self, response: Response) -> bool:
        """After every 5xx."""
        return response.status >= 500 or super().releases(response)


class RefusalsByBusinessRunAgain(Server):
    """Does not record 4xx."""

    def releases(self, response: Response) -> bool:
        """After every 4xx."""
        return 400 <= response.status < 500 or super().releases(response)


class ExceptionsWedge(Server):
    """Says that a request is in flight for ever, once its handler has raised."""

    def settle(self, identity: Identity, record: Record, request: Request, response: Response) -> None:
        """Forget to."""
        if response.status != 500:
            super().settle(identity, record, request, response)


class FailuresAreNotMarked(Server):
    """Marks the replays of successes only."""

    def replay(self, response: Response, request: Request) -> Response:
        """Without the marker on failures."""
        replayed = super().replay(response, request)
        return replayed.without(MARKER[0]) if response.status >= 400 else replayed


class DeadWorkersHoldTheKey(Server):
    """Says that a request is in flight for ever, once its worker has died."""

    def unfinished(self, record: Record) -> Response | None:
        """Always at work."""
        return self.in_progress()


class DeadWorkersAreReplaced(Server):
    """Runs again what a dead worker left, although nobody knows how far it came."""

    def unfinished(self, record: Record) -> Response | None:
        """Run, past the lease."""
        dead = record.lease_until_s is not None and self.now() > record.lease_until_s
        return None if dead else self.in_progress()


class RunsWithoutStore(Server):
    """Runs without protection while the store is away."""

    async def keyed(self, request: Request, handler: Handler) -> Response:
        """Run."""
        if self.store_down and request.values("idempotency-key"):
            return await self.safely(handler, request)
        return await super().keyed(request, handler)


class UnrecordedIsForgotten(Server):
    """Forgets the key when the outcome cannot be recorded."""

    def settle(self, identity: Identity, record: Record, request: Request, response: Response) -> None:
        """Forget it."""
        super().settle(identity, record, request, response)
        if record.unrecorded:
            del self.records[identity]


class UnrecordedIsAFailure(Server):
    """Hides a success that could not be recorded behind a server error."""

    async def once(self, identity: Identity, request: Request, handler: Handler) -> Response:
        """Fail."""
        response = await super().once(identity, request, handler)
        return problem(500, "store-failed") if request.wish("store") == "fails" else response


class GivingUpReleases(Server):
    """Forgets the key when the gateway in front gives up."""

    async def patient(
        self, request: Request, task: asyncio.Task[Response], receive: Callable[[], Awaitable[Message]]
    ) -> Response | None:
        """Forget it."""
        response = await super().patient(request, task, receive)
        if response is not None and response.status == 504:
            key = self.key(request.values("idempotency-key"))
            self.records.pop(("alice", key or ""), None)
        return response


class ExpiredKeysRun(Server):
    """Runs a late retry as a new request."""

    def expired(self) -> Response | None:
        """Let it run."""
        return None


class ExpiredKeysAreInFlight(Server):
    """Forgets the answer when the lifetime is over, and keeps the key: in flight for ever."""

    def expired(self) -> Response | None:
        """Say so."""
        return self.in_progress()


class ForgetsEarly(Server):
    """Forgets keys before their lifetime is over."""

    def settle(self, identity: Identity, record: Record, request: Request, response: Response) -> None:
        """Record it as if it were older."""
        super().settle(identity, record, request, response)
        if record.lifetime_s is not None:
            record.lifetime_s /= 4

    def expired(self) -> Response | None:
        """Let it run."""
        return None


class GetIsReplayed(Server):
    """Replays GET, HEAD and OPTIONS."""

    def enrolled(self, request: Request) -> bool:
        """Everything."""
        return request.path != "/plain"


class HeadIsReplayed(Server):
    """Replays HEAD."""

    def enrolled(self, request: Request) -> bool:
        """HEAD too."""
        return request.method == "HEAD" or super().enrolled(request)


class PatchIsNotProtected(Server):
    """Does not protect PATCH."""

    def enrolled(self, request: Request) -> bool:
        """Everything but PATCH."""
        return request.method != "PATCH" and super().enrolled(request)


class DeleteRunsAgain(Server):
    """Answers the retry of a deletion with 404."""

    def enrolled(self, request: Request) -> bool:
        """Everything but DELETE."""
        return request.method != "DELETE" and super().enrolled(request)


class ProtectsInWords(Server):
    """Says that it replayed where keys do not count."""

    async def keyed(self, request: Request, handler: Handler) -> Response:
        """With the marker."""
        response = await super().keyed(request, handler)
        return response.adding(MARKER) if request.path == "/plain" else response


class RouterRedirectsAreRecorded(Server):
    """Records a redirect by the router, which then stands in the way of the request."""

    def no_route(self, request: Request) -> Response:
        """Record it."""
        response = super().no_route(request)
        key = self.key(request.values("idempotency-key"))
        if key and response.status == 307:
            self.records["alice", key] = Record(self.fingerprint(request), None, response=response)
        return response
