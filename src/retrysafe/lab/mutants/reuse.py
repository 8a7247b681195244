"""Servers that cannot tell another request from a retry, or a retry from another request."""

from __future__ import annotations

import json
import re

from retrysafe.lab.mutants.correct import Identity, Record, Server
from retrysafe.lab.mutants.http import Request, Response, document, problem
from retrysafe.lab.mutants.shop import Handler


class ContentIsNotCompared(Server):
    """Replays the first answer to whatever comes under the key."""

    def canonical_body(self, request: Request) -> object:
        """Nothing."""
        return None


class BytesAreCompared(Server):
    """Compares JSON byte by byte."""

    def canonical_json(self, body: bytes) -> object:
        """The bytes."""
        return body


class BoundariesAreCompared(Server):
    """Compares multipart content with its boundary."""

    def canonical_parts(self, request: Request) -> object:
        """The bytes."""
        return request.body


class FilesAreNotCompared(Server):
    """Compares the fields of a form, and not its files."""

    def canonical_parts(self, request: Request) -> object:
        """The names."""
        return re.findall(rb'name="[^"]*"', request.body)


class NumbersAreDoubles(Server):
    """Reads whole numbers as doubles."""

    def canonical_json(self, body: bytes) -> object:
        """Numbers as JavaScript has them."""
        try:
            return self.frozen(json.loads(body, object_pairs_hook=self.members, parse_int=float))
        except ValueError:
            return body


class LastMemberWins(Server):
    """Takes the last of two members of the same name."""

    def members(self, pairs: list[tuple[str, object]]) -> dict[str, object]:
        """The last of each."""
        return dict(pairs)


class FirstMemberCounts(Server):
    """Compares the first of two members of the same name, and lets the last one act."""

    def members(self, pairs: list[tuple[str, object]]) -> dict[str, object]:
        """The first of each."""
        return dict(reversed(pairs))


class ArraysAreSets(Server):
    """Takes the order of arrays for nothing."""

    def frozen(self, value: object) -> object:
        """Arrays in order of their items."""
        return super().frozen(sorted(value, key=repr) if isinstance(value, list) else value)


class CodingsAreCompared(Server):
    """Compares content as it was coded."""

    def canonical_body(self, request: Request) -> object:
        """With its coding."""
        return (request.value("content-encoding"), super().canonical_body(request))


class QueryIsNotCompared(Server):
    """Takes the query for nothing."""

    def canonical_query(self, request: Request) -> object:
        """Nothing."""
        return None


class QueryOrderCounts(Server):
    """Compares the query as text."""

    def canonical_query(self, request: Request) -> object:
        """The text."""
        return request.query


class FieldsAreCompared(Server):
    """Takes fields that change with each attempt for a part of the request."""

    def fingerprint(self, request: Request) -> object:
        """With the trace."""
        return (super().fingerprint(request), request.value("traceparent"))


class UserAgentsAreCompared(Server):
    """Takes the client's name and version for a part of the request."""

    def fingerprint(self, request: Request) -> object:
        """With the client."""
        return (super().fingerprint(request), request.value("user-agent"))


class PathsAreNotCompared(Server):
    """Replays the answer of one operation to another."""

    def fingerprint(self, request: Request) -> object:
        """Only the content."""
        return self.canonical_body(request)


class RoutesAreCompared(Server):
    """Compares the template of the route, so that ticket 1 and ticket 2 are one."""

    def fingerprint(self, request: Request) -> object:
        """With the template in place of the path."""
        path = re.sub(r"\d+", "{number}", request.path)
        return (request.method, path, self.canonical_query(request), self.canonical_body(request))


class ReuseIsAConflict(Server):
    """Answers a reuse with 409 and the words of a request in flight."""

    def mismatch(self, record: Record) -> Response:
        """With another status."""
        return self.in_progress()


class ReuseRuns(Server):
    """Runs another request under a used key, and records it in place of the first."""

    def judge(self, record: Record, request: Request) -> Response | None:
        """Let it run."""
        return super().judge(record, request) if record.fingerprint == self.fingerprint(request) else None


class ContentIsPartOfTheKey(Server):
    """Takes a key with other content for another key."""

    async def once(self, identity: Identity, request: Request, handler: Handler) -> Response:
        """Look it up with the content."""
        return await super().once((*identity, repr(self.fingerprint(request))), request, handler)


class RetriesAreRefused(Server):
    """Loses the fingerprint with the first answer, and takes every retry for a reuse."""

    def settle(self, identity: Identity, record: Record, request: Request, response: Response) -> None:
        """Record the answer, and nothing of the request."""
        super().settle(identity, record, request, response)
        record.fingerprint = ""


class ReuseForgetsTheFirst(Server):
    """Refuses a reuse, and forgets the request that the key belongs to."""

    async def once(self, identity: Identity, request: Request, handler: Handler) -> Response:
        """Forget after a refusal."""
        response = await super().once(identity, request, handler)
        if response.status == 422:
            del self.records[identity]
        return response


class ReuseTells(Server):
    """Shows what the key was used for."""

    def mismatch(self, record: Record) -> Response:
        """With the first request and answer."""
        was = record.response.body.decode() if record.response else repr(record.fingerprint)
        return document(422, {"type": "https://problems.example/key-reused", "was": was})


class SameContentIsADuplicate(Server):
    """Takes requests with the same content for duplicates, whatever their keys are."""

    async def once(self, identity: Identity, request: Request, handler: Handler) -> Response:
        """Refuse the same content under another key."""
        same = [
            record
            for key, record in self.records.items()
            if key != identity and record.fingerprint == self.fingerprint(request)
        ]
        if same and identity not in self.records:
            return problem(409, "duplicate-content")
        return await super().once(identity, request, handler)
