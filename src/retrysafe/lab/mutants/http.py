"""As much of HTTP as a small server needs, on top of ASGI."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl

Message = MutableMapping[str, Any]
Fields = tuple[tuple[str, str], ...]
_PIECE_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Request:
    """One request with its whole content."""

    method: str
    path: str
    query: str
    headers: Fields
    body: bytes
    account: str = ""

    def values(self, name: str) -> list[str]:
        """Every field of that name."""
        return [value for field_name, value in self.headers if field_name == name]

    def value(self, name: str) -> str:
        """The first field of that name, or nothing."""
        return next(iter(self.values(name)), "")

    def wish(self, name: str) -> str:
        """A parameter of the query, or nothing."""
        return dict(parse_qsl(self.query)).get(name, "")

    def json(self) -> Any:
        """The content as JSON; None if it is not JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class Response:
    """One response."""

    status: int
    headers: Fields = ()
    body: bytes = b""
    streamed: bool = field(default=False, compare=False)

    def adding(self, *fields: tuple[str, str]) -> Response:
        """The same with more fields."""
        return replace(self, headers=(*self.headers, *fields))

    def without(self, *names: str) -> Response:
        """The same without the fields of these names."""
        return replace(self, headers=tuple(each for each in self.headers if each[0] not in names))


def document(status: int, content: Any, *fields: tuple[str, str]) -> Response:
    """A response with JSON content."""
    return Response(status, (("content-type", "application/json"), *fields), json.dumps(content).encode())


def problem(status: int, code: str, *fields: tuple[str, str], retryable: bool = False) -> Response:
    """A refusal as a problem document."""
    content = {"type": f"https://problems.example/{code}", "title": code, "status": status, "code": code}
    answer = document(status, {**content, "retryable": retryable}, *fields, ("cache-control", "no-store"))
    return replace(answer, headers=(("content-type", "application/problem+json"), *answer.headers[1:]))


async def read(scope: Message, receive: Callable[[], Awaitable[Message]]) -> Request | None:
    """The request; None if its sender left before it was whole."""
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        if not message.get("more_body", False):
            break
    headers = tuple((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"])
    return Request(scope["method"], scope["path"], scope["query_string"].decode("latin-1"), headers, body)


async def write(response: Response, send: Callable[[Message], Awaitable[None]], *, head_only: bool = False) -> None:
    """Send a response, in one piece or in several."""
    headers = [(name.encode(), value.encode("latin-1")) for name, value in response.headers]
    if not response.streamed:
        headers.append((b"content-length", b"%d" % len(response.body)))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    body = b"" if head_only else response.body
    if response.streamed:
        for start in range(0, len(body), _PIECE_BYTES):
            await send({"type": "http.response.body", "body": body[start : start + _PIECE_BYTES], "more_body": True})
        body = b""
    await send({"type": "http.response.body", "body": body})
