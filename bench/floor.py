"""The floor: only the work that the contract demands for a request of this benchmark, in straight lines.

Over a dictionary, one function before the handler and one at its answer: parse the key, a keyed record
id, canonical JSON and a keyed fingerprint, a random token, one look-up, an owner task that no leaving
client can cancel, the last message held until the outcome is recorded, fields filtered, the response
sealed. It has none of the structure of the product: no policy, no other store, no lease that is renewed,
takeover, stream, big content, other carrier or other media type, no errors of a store, no observer.
So what lies between the bare application and this is the price of the contract in Python, and what lies
between this and the product is the price of ours. It is no example of how to do it.
"""

from __future__ import annotations

import asyncio
import os
import re
from hmac import compare_digest
from struct import Struct
from threading import Lock
from typing import NamedTuple

from bench.bare import App, Bare, Message, Receive, Send
from retrysafe.protocol.canonical import canonical_json
from retrysafe.protocol.headers import NEVER_KEPT
from retrysafe.protocol.mac import mac
from retrysafe.stores.clock import host_clock

_KEY = re.compile(rb'"([!#-\[\]-~]+)"|([A-Za-z0-9\-._~:/+=]+)')  # quoted or bare is the same key (contract R1)
_NEVER_KEPT_PREFIXES = (b"ratelimit", b"x-ratelimit", b"x-rate-limit")
_SEAL_BYTES = 16
_HEAD = Struct(">HI")  # status, number of fields
_FIELD = Struct(">II")  # lengths of name and line
_LENGTHS = Struct(">5I")
_LEASE_MS, _LIFETIME_MS, _TOMBSTONE_MS = 60_000, 86_400_000, 30 * 86_400_000


class Row(NamedTuple):
    """What the dictionary holds for a key: what a store's row holds."""

    token: bytes
    attempt: int
    fingerprint: bytes
    created_at_ms: int
    lease_until_ms: int
    settled_at_ms: int
    expires_at_ms: int
    forget_at_ms: int
    sealed: bytes | None


class Floor:
    """The application `Bare` behind it. For one event loop."""

    def __init__(self) -> None:
        self._app = Bare()
        self._secret = os.urandom(32)
        self._rows: dict[bytes, Row] = {}
        self._lock = Lock()
        self._owners: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One request from its key to the owner task, or to the replay."""
        if scope["type"] != "http" or scope["method"] == "GET":
            await self._app(scope, receive, send)
            return
        line = account = media = b""
        for name, value in scope["headers"]:
            if name == b"idempotency-key":
                line = value
            elif name == b"x-account-id":
                account = value
            elif name == b"content-type":
                media = value
        if (parsed := _KEY.fullmatch(line)) is None or not account or len(line) > 255:
            await _refuse(send, 400)
            return
        key = parsed[1] or parsed[2]
        pieces, more = [], True
        while more:
            message = await receive()
            pieces.append(message.get("body", b""))
            more = message.get("more_body", False)
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        path, query = scope["raw_path"], scope["query_string"]
        lengths = _LENGTHS.pack(len(scope["method"]), len(path), len(query), len(media), len(body))
        request = b"".join((lengths, scope["method"].encode(), path, query, media, canonical_json(body) or body))
        fingerprint = mac(self._secret, b"fingerprint" + request)
        record_id = mac(self._secret, b"record" + len(account).to_bytes(4, "big") + account + key)
        token = os.urandom(16)
        now_ms = host_clock()
        with self._lock:
            row = self._rows.get(record_id)
            if row is None:
                lease_ms, forget_ms = now_ms + _LEASE_MS, now_ms + _TOMBSTONE_MS
                self._rows[record_id] = Row(token, 1, fingerprint, now_ms, lease_ms, 0, 0, forget_ms, None)
        if row is None:
            ended = asyncio.get_running_loop().create_future()
            owner = asyncio.create_task(self._own(scope, send, body, record_id, token, ended))
            self._owners.add(owner)
            owner.add_done_callback(self._owners.discard)
            await ended
        elif not compare_digest(row.fingerprint, fingerprint):
            await _refuse(send, 422)
        elif row.sealed is None:
            await _refuse(send, 409)
        else:
            await self._replay(send, record_id, row.sealed)

    async def _own(  # noqa: PLR0913, PLR0917 - straight lines: what one function knows, the other is handed
        self,
        scope: Message,
        send: Send,
        body: bytes,
        record_id: bytes,
        token: bytes,
        ended: asyncio.Future[None],
    ) -> None:
        """Run the handler; its last message waits until the outcome is recorded."""
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        start: Message = {}
        content = b""

        async def receive() -> Message:
            return messages.pop()

        async def capture(message: Message) -> None:
            nonlocal start, content
            if message["type"] == "http.response.start":
                start = message
                return
            content += message.get("body", b"")
            if message.get("more_body", False):
                return
            sealed = self._seal(record_id, start, content)
            now_ms = host_clock()
            with self._lock:
                row = self._rows[record_id]
                if row.token != token:
                    raise RuntimeError("the claim is lost")
                self._rows[record_id] = row._replace(
                    settled_at_ms=now_ms, expires_at_ms=now_ms + _LIFETIME_MS, sealed=sealed
                )
            await send(start)
            await send({"type": "http.response.body", "body": content})

        try:
            await self._app({**scope}, receive, capture)
        finally:
            ended.set_result(None)

    def _seal(self, record_id: bytes, start: Message, content: bytes) -> bytes:
        fields = []
        for field, line in start["headers"]:
            name = field.lower()
            if name not in NEVER_KEPT and not name.startswith(_NEVER_KEPT_PREFIXES):
                fields.append((name, line))
        parts = [_HEAD.pack(start["status"], len(fields))]
        for name, line in fields:
            parts += (_FIELD.pack(len(name), len(line)), name, line)
        parts.append(content)
        payload = b"".join(parts)
        return mac(self._secret, b"response" + record_id + payload)[:_SEAL_BYTES] + payload

    async def _replay(self, send: Send, record_id: bytes, sealed: bytes) -> None:
        payload = sealed[_SEAL_BYTES:]
        seal = mac(self._secret, b"response" + record_id + payload)[:_SEAL_BYTES]
        if not compare_digest(seal, sealed[:_SEAL_BYTES]):
            raise RuntimeError("the record was changed")
        status, count = _HEAD.unpack_from(payload)
        at, headers = _HEAD.size, []
        for _ in range(count):
            name_bytes, line_bytes = _FIELD.unpack_from(payload, at)
            at += _FIELD.size
            headers.append((payload[at : at + name_bytes], payload[at + name_bytes : at + name_bytes + line_bytes]))
            at += name_bytes + line_bytes
        content = payload[at:]
        headers += [(b"content-length", b"%d" % len(content)), (b"cache-control", b"no-store")]
        headers.append((b"idempotent-replayed", b"true"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})


async def _refuse(send: Send, status: int) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


def floor() -> App:
    """The floor, for `uvicorn --factory`."""
    return Floor()
