"""Servers that lose races, or cannot say that they are at work."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from retrysafe.lab.mutants.correct import LEASE_S, Identity, Record, Server
from retrysafe.lab.mutants.http import Message, Request, Response, document, problem
from retrysafe.lab.mutants.shop import Handler


class LooksThenClaims(Server):
    """Looks a key up, and claims it in a second step."""

    async def find(self, identity: Identity) -> Record | None:
        """Let others look meanwhile."""
        found = await super().find(identity)
        await asyncio.sleep(0.002)
        return found


class NothingMarksWork(Server):
    """Records outcomes, and nothing while a request is at work."""

    def unfinished(self, record: Record) -> Response | None:
        """Let it run."""
        return None


class InFlightIsLocked(Server):
    """Answers a request in flight with 423."""

    def in_progress(self) -> Response:
        """With another status."""
        return problem(423, "in-progress", ("retry-after", "1"), retryable=True)


class InFlightIsNotExplained(Server):
    """Answers a request in flight with 409 and nothing else."""

    def in_progress(self) -> Response:
        """Without a document."""
        return Response(409)


class InFlightHasNoRetryAfter(Server):
    """Does not say when to come back."""

    def in_progress(self) -> Response:
        """Without the field."""
        return problem(409, "in-progress", retryable=True)


class OthersRunInFlight(Server):
    """Runs another request under a key whose first request is at work."""

    def judge(self, record: Record, request: Request) -> Response | None:
        """Compare only what has ended."""
        other = record.fingerprint != self.fingerprint(request)
        return None if other and record.response is None else super().judge(record, request)


class WaitersDeleteTheKey(Server):
    """Forgets a key that is in flight, when somebody has waited for it in vain."""

    async def once(self, identity: Identity, request: Request, handler: Handler) -> Response:
        """Forget what is in flight."""
        response = await super().once(identity, request, handler)
        if b"in-progress" in response.body:
            self.records.pop(identity, None)
        return response


class FlightNeverEnds(Server):
    """Says that a request is in flight when it has ended, if somebody asked meanwhile."""

    def settle(self, identity: Identity, record: Record, request: Request, response: Response) -> None:
        """Record only what nobody asked for."""
        if not record.replays:
            super().settle(identity, record, request, response)

    def unfinished(self, record: Record) -> Response | None:
        """Note that somebody asked."""
        record.replays += 1
        return super().unfinished(record)


class ReplicasAreStrangers(Server):
    """Keeps keys in the memory of each process."""

    def replica(self) -> Server:
        """The same shop, and no common keys."""
        other = type(self)()
        other.shop = self.shop
        return other


class LeavingCancels(Server):
    """Cancels a request whose client leaves, and lets its key stand."""

    async def patient(
        self, request: Request, task: asyncio.Task[Response], receive: Callable[[], Awaitable[Message]]
    ) -> Response | None:
        """Listen for the client's end."""
        if request.wish("patience"):
            return await super().patient(request, task, receive)
        gone = asyncio.create_task(_left(receive))
        await asyncio.wait([task, gone], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
            return None
        gone.cancel()
        return await super().patient(request, task, receive)


class LeavingReleases(LeavingCancels):
    """Cancels a request whose client leaves, behind its effect, and forgets its key."""

    async def once(self, identity: Identity, request: Request, handler: Handler) -> Response:
        """Forget what was cancelled."""

        async def effect_first(request: Request) -> Response:
            if request.wish("delay"):
                self.shop.done(request.json()["reference"])
                await asyncio.sleep(1.0)
                return document(201, {"reference": request.json()["reference"]})
            return await handler(request)

        try:
            return await super().once(identity, request, effect_first)
        except asyncio.CancelledError:
            self.records.pop(identity, None)
            raise


class LeasesAreNotRenewed(Server):
    """Takes a request over that is at work for longer than a lease."""

    def claim(self, identity: Identity, request: Request) -> Record:
        """For one lease."""
        record = super().claim(identity, request)
        record.lease_until_s = self.now() + LEASE_S
        return record

    def unfinished(self, record: Record) -> Response | None:
        """Run again what took too long."""
        return None if record.lease_until_s and self.now() > record.lease_until_s else self.in_progress()


async def _left(receive: Callable[[], Awaitable[Message]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
