"""Servers that replay wrongly."""

from __future__ import annotations

import gzip
import json
from email.utils import formatdate

from retrysafe.lab.mutants.correct import MARKER, Identity, Record, Server
from retrysafe.lab.mutants.http import Request, Response, document, problem
from retrysafe.lab.mutants.shop import Handler


class Unprotected(Server):
    """Takes keys and does nothing with them."""

    async def keyed(self, request: Request, handler: Handler) -> Response:
        """Run."""
        return await self.safely(handler, self.plain(request))


class ReplaysAre200(Server):
    """Replays every success with 200."""

    def replay(self, response: Response, request: Request) -> Response:
        """With another status."""
        replayed = super().replay(response, request)
        return Response(200, replayed.headers, replayed.body) if response.status == 201 else replayed


class ReplaysAreConflicts(Server):
    """Answers every retry with 409, although the request was done."""

    def replay(self, response: Response, request: Request) -> Response:
        """Refuse."""
        return problem(409, "duplicate-request")


class ContentIsWrittenAnew(Server):
    """Parses recorded content and writes it anew."""

    def replay(self, response: Response, request: Request) -> Response:
        """The same JSON, and other bytes."""
        replayed = super().replay(response, request)
        if ("content-type", "application/json") not in replayed.headers:
            return replayed
        return Response(replayed.status, replayed.headers, json.dumps(json.loads(replayed.body), indent=1).encode())


class FieldsAreLost(Server):
    """Records content, and of the fields only the content type."""

    def replay(self, response: Response, request: Request) -> Response:
        """Without fields."""
        return super().replay(response.without("location", "etag"), request)


class ReplaysAreNotMarked(Server):
    """Does not say that an answer is a replay."""

    def replay(self, response: Response, request: Request) -> Response:
        """Without the marker."""
        return super().replay(response, request).without(MARKER[0])


class FirstAnswersAreMarked(Server):
    """Marks the first answer as a replay, too."""

    async def once(self, identity: Identity, request: Request, handler: Handler) -> Response:
        """With the marker."""
        response = await super().once(identity, request, handler)
        return response.without(MARKER[0]).adding(MARKER) if response.status < 400 else response


class CookiesAreReplayed(Server):
    """Hands out the cookie of the first answer again."""

    def replay(self, response: Response, request: Request) -> Response:
        """With cookies."""
        cookies = [field for field in response.headers if field[0] == "set-cookie"]
        return super().replay(response, request).adding(*cookies)


class DatesAreReplayed(Server):
    """Replays the Date of the first answer."""

    dates = False

    def settle(self, identity: Identity, record: Record, request: Request, response: Response) -> None:
        """Record the date with the answer."""
        super().settle(identity, record, request, response.adding(("x-date", formatdate(usegmt=True))))

    def replay(self, response: Response, request: Request) -> Response:
        """With the date of then."""
        dates = [("date", value) for name, value in response.headers if name == "x-date"]
        return super().replay(response, request).without("x-date").adding(*dates)

    def with_origin(self, request: Request, response: Response) -> Response:
        """A date for who has none."""
        response = super().with_origin(request, response)
        has_date = any(name == "date" for name, _ in response.headers)
        return response if has_date else response.adding(("date", formatdate(usegmt=True)))


class ReplaysHaveAnAge(Server):
    """Says how old a replay is, as a cache does."""

    def replay(self, response: Response, request: Request) -> Response:
        """With an age."""
        return super().replay(response, request).adding(("age", "1"))


class CodedContentIsReplayed(Server):
    """Records what the compression in front of it made, and replays it to everybody."""

    async def once(self, identity: Identity, request: Request, handler: Handler) -> Response:
        """Protect what is compressed."""
        if request.value("accept-encoding") != "gzip":
            return await super().once(identity, request, handler)

        async def compressed(request: Request) -> Response:
            response = await handler(request)
            coded = response.adding(("content-encoding", "gzip"))
            return Response(coded.status, coded.headers, gzip.compress(response.body))

        return await super().once(identity, request, compressed)


class OriginsAreReplayed(Server):
    """Replays the origin that was allowed at first."""

    async def once(self, identity: Identity, request: Request, handler: Handler) -> Response:
        """Protect what has its origin already."""

        async def allowed(request: Request) -> Response:
            return super(OriginsAreReplayed, self).with_origin(request, await handler(request))

        return await super().once(identity, request, allowed)

    def with_origin(self, request: Request, response: Response) -> Response:
        """Only for what is not protected."""
        there = any(name == "access-control-allow-origin" for name, _ in response.headers)
        return response if there else super().with_origin(request, response)


class RequestIdsAreReplayed(Server):
    """Replays the id of the first request."""

    def replay(self, response: Response, request: Request) -> Response:
        """With the id of then."""
        ids = [field for field in response.headers if field[0] == "x-request-id"]
        return super().replay(response, request).adding(*ids)


class PreconditionsAreJudged(Server):
    """Judges preconditions before it looks for a replay."""

    async def once(self, identity: Identity, request: Request, handler: Handler) -> Response:
        """Refuse what exists."""
        if request.value("if-none-match") == "*" or request.value("if-match") == '"zzz"':
            return problem(412, "precondition-failed")
        return await super().once(identity, request, handler)


class RangesAreServed(Server):
    """Serves a part of a replay."""

    def replay(self, response: Response, request: Request) -> Response:
        """The part that was asked for."""
        replayed = super().replay(response, request)
        if not request.value("range"):
            return replayed
        return Response(
            206, (*replayed.headers, ("content-range", f"bytes 0-3/{len(response.body)}")), response.body[:4]
        )


class ExpectationsFail(Server):
    """Does not know `Expect: 100-continue`."""

    def replay(self, response: Response, request: Request) -> Response:
        """Refuse."""
        return problem(417, "expectation-failed") if request.value("expect") else super().replay(response, request)


class ReplaysMayBeCached(Server):
    """Lets caches keep answers to requests with a key."""

    def replay(self, response: Response, request: Request) -> Response:
        """For a minute."""
        return (
            super().replay(response, request).without("cache-control").adding(("cache-control", "public, max-age=60"))
        )


class _RunsAgain(Server):
    """Does not record some outcomes."""

    def keeps(self, request: Request, response: Response) -> bool:
        """Whether an outcome is recorded."""
        raise NotImplementedError

    def settle(self, identity: Identity, record: Record, request: Request, response: Response) -> None:
        """Record it, or forget the key."""
        super().settle(identity, record, request, response)
        if not self.keeps(request, response):
            self.records.pop(identity, None)


class StreamsRunAgain(_RunsAgain):
    """Does not record what is streamed."""

    def keeps(self, request: Request, response: Response) -> bool:
        """What came in one piece."""
        return not response.streamed


class OnlyThreeStatusesAreRecorded(_RunsAgain):
    """Records 200, 201 and 202; everything else runs again."""

    def keeps(self, request: Request, response: Response) -> bool:
        """These three."""
        return response.status in {200, 201, 202}


class RedirectsRunAgain(_RunsAgain):
    """Does not record redirects."""

    def keeps(self, request: Request, response: Response) -> bool:
        """What does not lead on."""
        return response.status != 303


class JobsStartAgain(_RunsAgain):
    """Does not record what was accepted for later."""

    def keeps(self, request: Request, response: Response) -> bool:
        """What is finished."""
        return response.status != 202


class SecretsAreMadeAgain(_RunsAgain):
    """Does not record answers with secrets, and makes another secret."""

    def keeps(self, request: Request, response: Response) -> bool:
        """What is not secret."""
        return request.path != "/tokens"


class CookiesRunAgain(_RunsAgain):
    """Does not record answers that set a cookie."""

    def keeps(self, request: Request, response: Response) -> bool:
        """What sets none."""
        return all(name != "set-cookie" for name, _ in response.headers)


class LargeRequestsRunAgain(_RunsAgain):
    """Does not protect uploads."""

    def keeps(self, request: Request, response: Response) -> bool:
        """What is no upload."""
        return request.path != "/uploads"


class StreamsAreCut(Server):
    """Breaks a streamed answer off after its first piece."""

    async def respond(self, request: Request) -> Response:
        """Only the beginning, and a length that says more."""
        response = await super().respond(request)
        if not response.streamed:
            return response
        length = ("content-length", str(len(response.body)))
        return Response(response.status, (*response.headers, length), response.body[:1_000], streamed=True)


class StreamsBecomeEmptyObjects(Server):
    """Replays a streamed answer as `{}`."""

    def replay(self, response: Response, request: Request) -> Response:
        """An empty object."""
        replayed = super().replay(response, request)
        return document(200, {}, *replayed.headers[1:]) if response.streamed else replayed


class SecondRetriesRun(Server):
    """Forgets a key when it has replayed it twice."""

    def judge(self, record: Record, request: Request) -> Response | None:
        """Count replays."""
        answer = super().judge(record, request)
        if answer is not None and MARKER in answer.headers:
            record.replays += 1
            if record.replays > 2:
                record.released, record.replays = True, 0
        return answer


class DeletedIsMadeAgain(Server):
    """Finds out by the order itself whether it was placed, so that a deleted one is placed again."""

    def judge(self, record: Record, request: Request) -> Response | None:
        """Look whether it is there."""
        answer = super().judge(record, request)
        done = record.response is not None and record.response.status == 201 and request.path == "/orders"
        gone = done and dict(self.plain(request).json() or {}).get("reference") not in self.shop.orders
        return None if gone and answer is not None and MARKER in answer.headers else answer


class ChangedIsAConflict(Server):
    """Refuses the retry of a creation when what was created has changed since."""

    def replay(self, response: Response, request: Request) -> Response:
        """Compare it with what is there."""
        order = self.shop.orders.get(dict(request.json() or {}).get("reference", ""), {})
        return problem(409, "order-changed") if "state" in order else super().replay(response, request)
