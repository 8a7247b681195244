"""Servers that do right, and do not say so."""

from __future__ import annotations

from typing import Any

from retrysafe.lab.mutants.correct import Server
from retrysafe.lab.mutants.http import Request, Response, document
from retrysafe.lab.mutants.shop import Handler


class NoLifetimeIsPublished(Server):
    """Does not say for how long it remembers keys."""

    def papers(self) -> dict[str, Any]:
        """Without it."""
        made = super().papers()
        for path in made["paths"].values():
            del path["post"]["x-idempotency"]["lifetime"]
        return made


class AnotherLifetimeIsPublished(Server):
    """Publishes a lifetime that does not hold."""

    def papers(self) -> dict[str, Any]:
        """With another one."""
        made = super().papers()
        made["paths"]["/short"]["post"]["x-idempotency"]["lifetime"] = "PT9S"
        return made


class TheFieldIsNotPublished(Server):
    """Does not list the key's field in its OpenAPI document."""

    def papers(self) -> dict[str, Any]:
        """Without it."""
        made = super().papers()
        made["paths"]["/orders"]["post"]["parameters"] = []
        return made


class ErrorsAreNotPublished(Server):
    """Does not list the errors of keys in its OpenAPI document."""

    def papers(self) -> dict[str, Any]:
        """Without them."""
        made = super().papers()
        responses = made["paths"]["/orders"]["post"]["responses"]
        for status in ("409", "422"):
            del responses[status]
        return made


class ErrorsLookAlike(Server):
    """Gives all errors of keys one code."""

    async def keyed(self, request: Request, handler: Handler) -> Response:
        """The same for each."""
        response = await super().keyed(request, handler)
        if response.status not in {400, 409, 422} or b"problems.example" not in response.body:
            return response
        kept = [field for field in response.headers if field[0] not in {"content-type", "cache-control"}]
        same = {"type": "https://problems.example/idempotency", "status": response.status}
        return Response(response.status, (("content-type", "application/problem+json"), *kept), document(0, same).body)


class ErrorsAreText(Server):
    """Answers errors of keys with a line of text."""

    async def keyed(self, request: Request, handler: Handler) -> Response:
        """As text."""
        response = await super().keyed(request, handler)
        if ("content-type", "application/problem+json") not in response.headers or response.status == 409:
            return response
        return Response(response.status, (("content-type", "text/plain"),), response.body)


class StatusesDiffer(Server):
    """Says another status inside a problem document than outside."""

    async def keyed(self, request: Request, handler: Handler) -> Response:
        """With another number inside."""
        response = await super().keyed(request, handler)
        return Response(response.status, response.headers, response.body.replace(b'"status": 422', b'"status": 400'))


class PreflightsForgetTheKey(Server):
    """Does not allow the key's field to browsers."""

    def with_origin(self, request: Request, response: Response) -> Response:
        """Without it."""
        made = super().with_origin(request, response)
        fields = tuple((name, value.replace("idempotency-key, ", "")) for name, value in made.headers)
        return Response(made.status, fields, made.body, made.streamed)
