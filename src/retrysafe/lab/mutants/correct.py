"""A server that does everything right, in one process and in memory. Each step is a method that can be broken."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import uuid
import zlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from email import message_from_bytes, policy
from typing import Any, ClassVar, Literal
from urllib.parse import parse_qsl

from retrysafe.lab.mutants import papers
from retrysafe.lab.mutants.http import Message, Request, Response, document, problem, read, write
from retrysafe.lab.mutants.shop import Died, Failed, Handler, Shop

LEASE_S = 0.5
LIFETIME_S = 2.0
ACCOUNTS = {"Bearer alice": "alice", "Bearer alice-2": "alice", "Bearer bob": "bob"}
ORIGINS = ("https://one.example", "https://two.example")
MARKER = ("idempotent-replayed", "true")

_PROTECTED = frozenset({"POST", "PATCH", "DELETE"})
_PUBLIC = frozenset({"/signups", "/openapi.json"})
_QUOTED = re.compile(r' *"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)" *(?:;[a-z*][a-z0-9_.*-]*(?:=[^,;"]+)?)*')
_BARE = re.compile(r"[A-Za-z0-9\-._~:/+=]+")
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_RELEASED = frozenset({401, 403, 408, 425, 429})
_NEVER_REPLAYED = ("set-cookie", "x-request-id", "date")

Identity = tuple[str, ...]


@dataclass(slots=True)
class Record:
    """What is known of a key."""

    fingerprint: object
    lifetime_s: float | None
    lease_until_s: float | None = None
    response: Response | None = None
    finished_s: float = 0.0
    released: bool = False
    unrecorded: bool = False
    replays: int = 0


class Server:
    """The server, an ASGI application.

    Attributes:
        parser: how uvicorn reads HTTP. h11 keeps trailers apart from fields, httptools does not.
        dates: whether the server in front gives answers their Date.
    """

    parser: ClassVar[Literal["h11", "httptools"]] = "h11"
    dates: ClassVar[bool] = True

    def __init__(self) -> None:
        self.shop = Shop()
        self.records: dict[Identity, Record] = {}
        self.store_down = False
        self.revoked: set[str] = set()
        self._tasks: set[asyncio.Task[Response]] = set()

    def replica(self) -> Server:
        """Another process of the same deployment."""
        return self

    def sandbox(self) -> Server:
        """The deployment for tries."""
        return type(self)()

    def papers(self) -> dict[str, Any]:
        """What it publishes of itself."""
        return papers.openapi(LIFETIME_S)

    # --- the way of a request ---------------------------------------------------------------------

    async def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        """One ASGI connection. What has begun is not ended by a client that leaves."""
        request = await self.read(scope, receive)
        if request is None:
            return
        task = asyncio.create_task(self.respond(request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        response = await self.patient(request, task, receive)
        if response is not None:
            response = self.with_origin(request, response)
            await write(response, send, head_only=request.method == "HEAD")

    async def read(self, scope: Message, receive: Callable[[], Awaitable[Message]]) -> Request | None:
        """The whole request, or nothing."""
        return await read(scope, receive)

    async def patient(
        self, request: Request, task: asyncio.Task[Response], _receive: Callable[[], Awaitable[Message]]
    ) -> Response | None:
        """Wait for the answer, or as long as a gateway in front has patience; the work goes on."""
        patience_ms = request.wish("patience")
        await asyncio.wait([task], timeout=int(patience_ms) / 1_000 if patience_ms else None)
        return task.result() if task.done() else problem(504, "gateway-timeout", retryable=True)

    async def respond(self, request: Request) -> Response:
        """From a request to its answer."""
        if found := self.aside(request):
            return found
        handler = self.shop.routes.get((request.method, request.path))
        if handler is None:
            return self.no_route(request)
        account = self.account(request)
        if not account:
            return problem(401, "unauthenticated")
        request = replace(request, account=account)
        if self.forbidden(account):
            return problem(403, "forbidden")
        return await self.keyed(request, handler)

    def aside(self, request: Request) -> Response | None:
        """What is not the shop: the papers, and the switches of the laboratory."""
        if request.method == "OPTIONS":
            return Response(204)
        if request.path == "/openapi.json":
            return document(200, self.papers())
        if request.path == "/requests":
            return self.status(request)
        if request.path.startswith("/lab/"):
            return self.switch(request.path.removeprefix("/lab/"))
        return None

    def switch(self, name: str) -> Response:
        """Change the state of the laboratory."""
        match name:
            case "store-down" | "store-up":
                self.store_down = name == "store-down"
            case "revoke":
                self.revoked.add("alice")
            case "restore":
                self.revoked.clear()
        return Response(204)

    def no_route(self, request: Request) -> Response:
        """A path with a slash too many is redirected; others are not there."""
        if (request.method, request.path.rstrip("/")) in self.shop.routes:
            return Response(307, (("location", request.path.rstrip("/")),))
        return document(404, {"code": "no-route"})

    def account(self, request: Request) -> str:
        """Whose request it is; nothing if that is not known."""
        known = ACCOUNTS.get(request.value("authorization"), "")
        return known or (request.value("cookie") if request.path in _PUBLIC else "")

    def forbidden(self, account: str) -> bool:
        """Whether the account lost its permission."""
        return account in self.revoked

    async def keyed(self, request: Request, handler: Handler) -> Response:
        """Run what carries no key where none is needed; protect the rest."""
        lines = request.values("idempotency-key")
        if not self.enrolled(request):
            response = await self.safely(handler, request)
            return response.adding(("idempotency-status", "ignored")) if lines else response
        if not lines:
            return problem(400, "key-missing") if self.required(request) else await self.safely(handler, request)
        key = self.key(lines)
        if key is None:
            return problem(400, "key-invalid")
        if self.store_down:
            return problem(503, "store-unavailable", ("retry-after", "1"), retryable=True)
        return await self.once(self.identity(request, key), request, handler)

    def enrolled(self, request: Request) -> bool:
        """Whether keys count on this route."""
        return request.method in _PROTECTED and request.path != "/plain"

    def required(self, request: Request) -> bool:
        """Whether this route refuses requests without a key."""
        return request.method == "POST"

    # --- the key ----------------------------------------------------------------------------------

    def key(self, lines: list[str]) -> str | None:
        """The key in the field lines; None if there is not exactly one."""
        if len(lines) != 1:
            return None
        key = self.unquoted(lines[0].strip(" \t"))
        if key is None or not _KEY.fullmatch(key):
            return None
        return self.normal(key)

    def unquoted(self, value: str) -> str | None:
        """The characters of the key, quoted or bare."""
        if match := _QUOTED.fullmatch(value):
            return re.sub(r"\\(.)", r"\1", match[1])
        return value if _BARE.fullmatch(value) and not value.startswith(":") else None

    def normal(self, key: str) -> str:
        """A UUID in lower case."""
        try:
            return str(uuid.UUID(key)) if len(key) == 36 else key
        except ValueError:
            return key

    def identity(self, request: Request, key: str) -> Identity:
        """By what a record is found."""
        return (request.account, key)

    # --- the fingerprint --------------------------------------------------------------------------

    def fingerprint(self, request: Request) -> object:
        """What must not differ between attempts."""
        return (request.method, request.path, self.canonical_query(request), self.canonical_body(request))

    def canonical_query(self, request: Request) -> object:
        """The query without its order."""
        return sorted(parse_qsl(request.query, keep_blank_values=True), key=lambda pair: pair[0])

    def canonical_body(self, request: Request) -> object:
        """The content without what means nothing."""
        kind = request.value("content-type")
        if kind.startswith("multipart/"):
            return self.canonical_parts(request)
        return self.canonical_json(self.decoded(request))

    def decoded(self, request: Request) -> bytes:
        """The content without its coding."""
        try:
            return gzip.decompress(request.body) if request.value("content-encoding") == "gzip" else request.body
        except (OSError, EOFError, zlib.error):
            return request.body

    def canonical_parts(self, request: Request) -> object:
        """Names, file names and contents of the parts of a form."""
        head = f"Content-Type: {request.value('content-type')}\r\n\r\n".encode("latin-1")
        message = message_from_bytes(head + request.body, policy=policy.HTTP)
        return [
            (part.get("Content-Disposition"), part.get_payload(decode=True))
            for part in message.walk()
            if not part.is_multipart()
        ]

    def canonical_json(self, body: bytes) -> object:
        """JSON by its meaning, numbers exactly; as bytes what is ambiguous or no JSON."""
        try:
            return self.frozen(json.loads(body, object_pairs_hook=self.members, parse_float=Decimal))
        except ValueError:
            return body

    def members(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """The members of an object, each name once."""
        if len(dict(pairs)) != len(pairs):
            raise ValueError("a name comes twice")
        return dict(pairs)

    def frozen(self, value: Any) -> object:
        """A JSON value by its meaning."""
        if isinstance(value, Mapping):
            return ("object", tuple(sorted((name, repr(self.frozen(member))) for name, member in value.items())))
        if isinstance(value, list):
            return ("array", tuple(self.frozen(item) for item in value))
        if isinstance(value, int | Decimal) and not isinstance(value, bool):
            return ("number", str(Decimal(value).normalize()) if isinstance(value, Decimal) else str(value))
        return (type(value).__name__, value)

    # --- once -------------------------------------------------------------------------------------

    async def once(self, identity: Identity, request: Request, handler: Handler) -> Response:
        """Claim, run, record, respond; or what the record says."""
        record = await self.find(identity)
        if record is not None and (answer := self.judge(record, request)) is not None:
            return answer
        record = self.claim(identity, request)
        try:
            response = await self.safely(handler, self.plain(request))
        except Died:
            record.lease_until_s = self.now() + LEASE_S
            return problem(502, "worker-died", retryable=True)
        self.settle(identity, record, request, response)
        return response

    async def find(self, identity: Identity) -> Record | None:
        """The record of a key."""
        return self.records.get(identity)

    def claim(self, identity: Identity, request: Request) -> Record:
        """Take the key."""
        lifetime_s = LIFETIME_S if request.path == "/short" else None
        self.records[identity] = Record(self.fingerprint(request), lifetime_s)
        return self.records[identity]

    def judge(self, record: Record, request: Request) -> Response | None:
        """What the record means for a request; None lets it run."""
        if record.fingerprint != self.fingerprint(request):
            return self.mismatch(record)
        if record.released:
            return None
        if record.unrecorded:
            return problem(409, "outcome-unknown")
        if record.response is None:
            return self.unfinished(record)
        if record.lifetime_s is not None and self.now() > record.finished_s + record.lifetime_s:
            return self.expired()
        return self.replay(record.response, request)

    def mismatch(self, _record: Record) -> Response:
        """The key was used for another request."""
        return problem(422, "key-reused")

    def unfinished(self, record: Record) -> Response | None:
        """The first request is at work, or its worker is dead."""
        if record.lease_until_s is not None and self.now() > record.lease_until_s:
            return problem(409, "outcome-unknown")
        return self.in_progress()

    def in_progress(self) -> Response:
        """The first request is at work."""
        return problem(409, "in-progress", ("retry-after", "1"), retryable=True)

    def expired(self) -> Response | None:
        """The lifetime is over."""
        return problem(412, "key-expired")

    def replay(self, response: Response, _request: Request) -> Response:
        """The answer once more."""
        return response.without(*_NEVER_REPLAYED).adding(MARKER, ("cache-control", "no-store"))

    def settle(self, identity: Identity, record: Record, request: Request, response: Response) -> None:
        """Record the outcome, or let the key go where nothing happened."""
        if not self.understood(response):
            self.records.pop(identity, None)
        elif request.wish("store") == "fails":
            record.unrecorded = True
        elif self.releases(response):
            record.released = True
        else:
            record.response, record.finished_s, record.released = response, self.now(), False

    def understood(self, response: Response) -> bool:
        """Whether the request was valid, so that anything ran at all."""
        return not (response.status == 400 and b"invalid-order" in response.body)

    def releases(self, response: Response) -> bool:
        """Whether a failure left nothing behind."""
        return response.status in _RELEASED or ("idempotency-effect", "none") in response.headers

    async def safely(self, handler: Handler, request: Request) -> Response:
        """Run the handler; an exception is a 500, and says whether anything had happened."""
        try:
            return await handler(request)
        except Failed as failed:
            fields = (("idempotency-effect", "none"),) if str(failed) == "before" else ()
            return problem(500, "handler-failed", *fields)

    def plain(self, request: Request) -> Request:
        """The request as the handler wants it."""
        return replace(request, body=self.decoded(request))

    # --- around it --------------------------------------------------------------------------------

    def with_origin(self, request: Request, response: Response) -> Response:
        """What a browser wants to know, for the origin that asks now."""
        origin = request.value("origin")
        if origin not in ORIGINS:
            return response
        return response.adding(
            ("access-control-allow-origin", origin),
            ("access-control-allow-headers", "idempotency-key, content-type, authorization"),
            ("access-control-expose-headers", "Idempotent-Replayed"),
        )

    def status(self, request: Request) -> Response:
        """What became of a key."""
        key = self.key(request.values("idempotency-key"))
        record = self.records.get(self.identity(replace(request, account=self.account(request)), key or ""))
        if record is None:
            return problem(404, "no-such-key")
        state = "in_progress" if record.response is None else "completed"
        return document(200, {"state": state}, ("cache-control", "no-store"))

    def now(self) -> float:
        """Time that only goes forward."""
        return asyncio.get_running_loop().time()
