"""HTTP requests as a server hands them to an ASGI application, in this process and without a socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from retrysafe.asgi import IdempotencyMiddleware
from retrysafe.server.capture import Message
from retrysafe.server.handling import Application
from retrysafe.server.scope import Connection as Scope
from retrysafe.stores.contract import Store
from retrysafe.stores.memory import MemoryStore

START = "http.response.start"
Headers = Iterable[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client got.

    Attributes:
        status: the status code; 0 if none was sent.
        headers: as sent.
        body: what arrived of the content.
        whole: the content was sent to its end.
    """

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    whole: bool

    def values(self, name: str) -> list[str]:
        """All fields of that name."""
        return [value.decode("latin-1") for field, value in self.headers if field.lower() == name.encode()]

    @property
    def replayed(self) -> bool:
        """Whether it is marked as a replay."""
        return self.values("idempotent-replayed") == ["true"]

    @property
    def code(self) -> str | None:
        """The code of the problem, if it is one."""
        if self.values("content-type") != ["application/problem+json"]:
            return None
        code: str | None = json.loads(self.body).get("code")
        return code


class Connection:
    """One request and its answer, from the side of the server.

    Args:
        target: method and path, with a query if there is one.
        key: of the `Idempotency-Key` field; None sends none.
        account: of the `X-Account` field; None sends none.
        body: the content, or its pieces.
        headers: further fields.
        extra: entries of the connection scope.

    Attributes:
        messages: what the application sent.
        error: what it raised.
    """

    def __init__(
        self,
        target: str = "POST /orders",
        *,
        key: str | None = "k-1",
        account: str | None = "alice",
        body: bytes | list[bytes] = b'{"item": 7}',
        headers: Headers = (),
        **extra: Any,
    ) -> None:
        method, _, uri = target.partition(" ")
        path, _, query = uri.partition("?")
        fields = [(b"content-type", b"application/json"), *headers]
        fields += [(b"idempotency-key", key.encode("latin-1"))] if key is not None else []
        fields += [(b"x-account", account.encode())] if account is not None else []
        self.scope: Scope = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"}, "http_version": "1.1",
            "method": method, "scheme": "http", "path": path, "raw_path": path.encode(),
            "query_string": query.encode(), "headers": fields, **extra,
        }  # fmt: skip
        pieces = body if isinstance(body, list) else [body]
        self.incoming: asyncio.Queue[Message] = asyncio.Queue()
        for number, piece in enumerate(pieces, 1):
            self.incoming.put_nowait({"type": "http.request", "body": piece, "more_body": number < len(pieces)})
        self.messages: list[Message] = []
        self.error: BaseException | None = None
        self.on_send: Callable[[Message], None] = lambda _: None

    def leave(self) -> None:
        """The client goes away."""
        self.incoming.put_nowait({"type": "http.disconnect"})

    async def receive(self) -> Message:
        """For the application."""
        return await self.incoming.get()

    async def send(self, message: Message) -> None:
        """For the application; as strict as servers are."""
        self.on_send(message)
        started, whole = self.answer.status != 0, self.answer.whole
        if message["type"] != "http.response.early_hint" and ((message["type"] == START) is started or whole):
            raise RuntimeError(f"unexpected {message['type']}")
        self.messages.append(dict(message))

    async def run(self, app: Application) -> Answer:
        """Serve the request to its end; what the application raises is kept as `error`."""
        try:
            await app(self.scope, self.receive, self.send)
        except Exception as error:  # noqa: BLE001 - a server catches whatever an application raises
            self.error = error
        return self.answer

    @property
    def answer(self) -> Answer:
        """What has been sent up to now."""
        starts = [message for message in self.messages if message["type"] == START]
        pieces = [message for message in self.messages if message["type"] == "http.response.body"]
        return Answer(
            status=starts[0]["status"] if starts else 0,
            headers=tuple(starts[0].get("headers", ())) if starts else (),
            body=b"".join(piece.get("body", b"") for piece in pieces),
            whole=bool(pieces) and not pieces[-1].get("more_body", False),
        )


async def ask(app: Application, target: str = "POST /orders", **request: Any) -> Answer:
    """Serve one request by an application that does not fail; its answer."""
    connection = Connection(target, **request)
    answer = await connection.run(app)
    if connection.error is not None:
        raise connection.error
    return answer


def protected(app: Application, store: str | Store | None = None, **settings: Any) -> IdempotencyMiddleware:
    """The door around an application, with a memory store and the scope that `Connection` sends."""
    return IdempotencyMiddleware(app, store=store or MemoryStore(), scope="header:X-Account", **settings)
