"""The outermost layer of the gateway: refuses what must go no further, and finishes every answer."""

from __future__ import annotations

import json
import time
import uuid
from email.utils import formatdate
from http import HTTPStatus

from retrysafe.errors import IncompleteResponse
from retrysafe.gateway.strict import TARGET, Fault, asks_for_upgrade, fault, origin_form, target_of
from retrysafe.model import Response
from retrysafe.protocol.problem import Problem
from retrysafe.server.capture import Message
from retrysafe.server.handling import Application, Receive, Send
from retrysafe.server.scope import Connection

_UPGRADE = Problem(
    "upgrade-unsupported",
    "The gateway carries requests and answers only. For a WebSocket, connect to the upstream itself.",
)


class Front:
    """Stands before the door.

    Args:
        application: gets the requests that are in order, with their target in origin form.
        problems_url: where the pages of the problem types are.
    """

    def __init__(self, application: Application, problems_url: str) -> None:
        self._application = application
        self._problems_url = problems_url

    async def __call__(self, connection: Connection, receive: Receive, send: Send) -> None:
        """One ASGI connection."""

        async def send_dated(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = _dated(message)
            await send(message)

        headers = tuple(connection["headers"])
        target = origin_form(target_of(connection), headers)
        if target is None:
            wrong: Fault | None = Fault(400, "The request target must be a path, or a URL with the host of Host.")
        else:
            wrong = fault(connection["method"], connection["http_version"], target, headers)
        if wrong is not None:
            await _respond(_plain(wrong), send_dated)
        elif asks_for_upgrade(headers):
            await _respond(_UPGRADE.response(self._problems_url, uuid.uuid4().urn), send_dated)
        else:
            try:
                await self._application({**connection, "headers": headers, TARGET: target}, receive, send_dated)
            except IncompleteResponse:
                return  # whoever raised it has logged it; the server breaks the connection of an answer with no end


def _plain(wrong: Fault) -> Response:
    """A refusal that needs no type of its own: the status says it (RFC 9457 4.2.1)."""
    title = HTTPStatus(wrong.status).phrase
    document = {"type": "about:blank", "title": title, "status": wrong.status, "detail": wrong.detail}
    content = json.dumps(document, separators=(",", ":")).encode()
    headers = ((b"content-type", b"application/problem+json"), (b"content-length", b"%d" % len(content)))
    return Response(wrong.status, headers, content)


async def _respond(response: Response, send: Send) -> None:
    # What follows on such a connection may be read wrongly: it is not kept.
    headers = [*response.headers, (b"connection", b"close")]
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})


def _dated(message: Message) -> Message:
    """Add `Date` to an answer without one: replays, refusals, careless upstreams (RFC 9110 6.6.1)."""
    headers = message["headers"]
    if b"date" in [name.lower() for name, _ in headers]:
        return message
    return {**message, "headers": [*headers, (b"date", _DATE.now())]}


class _Date:
    """The date as a field has it, made once a second."""

    def __init__(self) -> None:
        self._second = -1
        self._text = b""

    def now(self) -> bytes:
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._text = second, formatdate(usegmt=True).encode()
        return self._text


_DATE = _Date()
