"""A response as stored bytes, and back as a replay (contract part F, R57-R68).

The format is data only, versioned, and sealed: a keyed digest over the bytes and the identity of the
record, so that a record moved to another key, or changed, is not replayed. With encryption at rest, the
bytes are encrypted instead of sealed. docs/reference/record-format.md describes it for people who must
read a record without this code.
"""

from __future__ import annotations

import hmac
import json
import struct
import zlib
from enum import Enum
from typing import Protocol

from retrysafe.model import Head, Headers, Response
from retrysafe.protocol.effects import Answered
from retrysafe.protocol.headers import accepts_coding, kept, without_origin_bound
from retrysafe.protocol.mac import mac
from retrysafe.protocol.policy import Policy
from retrysafe.protocol.redaction import redacted
from retrysafe.value import value

VERSION, ENCRYPTED_VERSION = 1, 2
SEAL_BYTES = 16
_FIXED = struct.Struct(">BBHQIII")  # version, kind, status, size; lengths of origin and digest, number of fields
_FIELD = struct.Struct(">II")  # lengths of name and line
_EXACT, _RECEIPT, _REDACTED = 0, 1, 2
_DECODED_BYTES_MAX = 16 << 20

# Said of a replay that is not the same bytes as the first answer.
REDACTED_STATUS = (b"idempotency-status", b"redacted")

# What a receipt keeps: where the result is and what it was.
_RECEIPT_HEADERS = frozenset(
    {b"content-type", b"content-language", b"content-location", b"location", b"etag", b"last-modified", b"link"}
)


class Unreadable(ValueError):
    """The stored bytes are not a snapshot of this record: changed, moved, of a newer release, or their key is gone."""


class Kind(Enum):
    """What stored bytes are, as their seal says it; bytes of one kind are never read as another."""

    __hash__ = object.__hash__  # each is one object; the hash of an `Enum` is made in Python, of its name

    RESPONSE = b"response"
    JOURNAL = b"journal"
    REQUEST = b"request"


_LABELS = {Kind.RESPONSE: b"snapshot", Kind.JOURNAL: b"journal", Kind.REQUEST: b"request"}


class Encryption(Protocol):
    """What encrypts stored bytes and decrypts them: `retrysafe.encryption.KeyRing`."""

    def encrypt(self, plain: bytes, record_id: bytes, kind: Kind = Kind.RESPONSE) -> bytes:
        """`SEAL_BYTES` that say how, the version `ENCRYPTED_VERSION`, and what was encrypted, bound to the record."""

    def decrypt(self, stored: bytes, record_id: bytes, kind: Kind = Kind.RESPONSE) -> bytes:
        """What `encrypt` was given.

        Raises:
            Unreadable: it cannot be decrypted.
        """


@value
class Snapshot:
    """What is kept of a response.

    Attributes:
        response: status, kept fields, and the content if it was kept.
        whole: the content was kept; else this is a receipt.
        size: length of the content in bytes.
        digest: SHA-256 of the content of a receipt; else empty.
        origin: the `Origin` that the first request came from; `Access-Control-*` is for it alone.
        redacted: values of the content were left out; `null` stands in their place.
    """

    response: Response
    whole: bool
    size: int
    digest: bytes
    origin: bytes
    redacted: bool = False


_FULL = Policy()


def take_snapshot(answered: Answered, head: Head, policy: Policy = _FULL) -> Snapshot:
    """What is kept of an answer: what the policy allows, and of an answer that was too large a receipt."""
    headers = kept(answered.response.headers)
    body = answered.response.body if answered.whole else None
    if policy.store_body != "full" and body is not None:
        body = redacted(answered.response, policy.store_body_redact) if policy.store_body == "redacted" else None
    is_less = policy.store_body != "full" and body != answered.response.body
    if body is None:
        headers = tuple((name, value) for name, value in headers if name in _RECEIPT_HEADERS)
    if is_less:  # it is of the bytes that were, and of few possible contents it tells which
        headers = tuple((name, value) for name, value in headers if name != b"etag")
    return Snapshot(
        response=Response(answered.response.status, headers, body or b""),
        whole=body is not None,
        size=answered.size,
        digest=answered.digest if policy.store_body == "full" else b"",  # as with the tag
        origin=b",".join(head.values(b"origin")),
        redacted=is_less and body is not None,
    )


def seal(snapshot: Snapshot, record_id: bytes, secret: bytes, encryption: Encryption | None = None) -> bytes:
    """The stored bytes of a snapshot, bound to its record; encrypted, if there is something to do it with."""
    response = snapshot.response
    origin, digest, headers = snapshot.origin, snapshot.digest, response.headers
    kind = (_REDACTED if snapshot.redacted else _EXACT) if snapshot.whole else _RECEIPT
    fixed = _FIXED.pack(VERSION, kind, response.status, snapshot.size, len(origin), len(digest), len(headers))
    parts = [fixed, origin, digest]
    for name, line in headers:
        parts += (_FIELD.pack(len(name), len(line)), name, line)
    parts.append(response.body)
    return sealed(b"".join(parts), record_id, secret, encryption)


def sealed(
    document: bytes, record_id: bytes, secret: bytes, encryption: Encryption | None, kind: Kind = Kind.RESPONSE
) -> bytes:
    """The stored bytes of a document, whose first byte is the version of its format."""
    if encryption is not None:
        return encryption.encrypt(document, record_id, kind)
    return mac(secret, _LABELS[kind] + record_id + document)[:SEAL_BYTES] + document


def is_encrypted(head: bytes) -> bool:
    """Whether stored bytes that begin like this are encrypted."""
    return head[SEAL_BYTES : SEAL_BYTES + 1] == bytes([ENCRYPTED_VERSION])


def unsealed(
    stored: bytes, record_id: bytes, secret: bytes, encryption: Encryption | None, kind: Kind = Kind.RESPONSE
) -> bytes:
    """The document that `sealed` was given.

    Raises:
        Unreadable: the bytes are not one of this record's, or cannot be decrypted.
    """
    if is_encrypted(stored):
        if encryption is None:
            raise Unreadable("it is encrypted, and there are no encryption_keys")
        document = encryption.decrypt(stored, record_id, kind)
    else:
        document = stored[SEAL_BYTES:]
        seal = mac(secret, _LABELS[kind] + record_id + document)[:SEAL_BYTES]
        if not hmac.compare_digest(stored[:SEAL_BYTES], seal):
            raise Unreadable("the seal does not fit the record")
    if not document or document[0] != VERSION:
        raise Unreadable(f"version {document[0] if document else 0} of the record format; this release reads {VERSION}")
    return document


def unseal(stored: bytes, record_id: bytes, secret: bytes, encryption: Encryption | None = None) -> Snapshot:
    """The snapshot that `seal` made.

    Raises:
        Unreadable: the bytes are not one of this record's, or cannot be decrypted.
    """
    payload = unsealed(stored, record_id, secret, encryption)
    _, kind, status, size, origin_bytes, digest_bytes, count = _FIXED.unpack_from(payload)
    digest_at = _FIXED.size + origin_bytes
    at = digest_at + digest_bytes
    origin, digest = payload[_FIXED.size : digest_at], payload[digest_at:at]
    headers = []
    for _ in range(count):
        name_bytes, line_bytes = _FIELD.unpack_from(payload, at)
        line_at = at + _FIELD.size + name_bytes
        headers.append((payload[at + _FIELD.size : line_at], payload[line_at : line_at + line_bytes]))
        at = line_at + line_bytes
    response = Response(status, tuple(headers), payload[at:])
    return Snapshot(response, kind != _RECEIPT, size, digest, origin, kind == _REDACTED)


def replay(snapshot: Snapshot, head: Head, policy: Policy) -> Response:
    """The stored answer for this request: same status, same content, the kept fields, and the marker.

    Stored codings are removed for a client that does not accept them (R62). `Access-Control-*` is left
    out for another origin than the first, because it would name the wrong one.
    """
    response = snapshot.response
    headers, body = response.headers, response.body
    if b",".join(head.values(b"origin")) != snapshot.origin:
        headers = without_origin_bound(headers)
    headers, body = _decoded(headers, body, head)
    if response.status not in (204, 304):
        headers += ((b"content-length", b"%d" % len(body)),)
    headers += ((b"cache-control", b"no-store"), (policy.replay_field, b"true"))
    if snapshot.redacted:
        headers += (REDACTED_STATUS,)
    return Response(response.status, headers, body)


def _decoded(headers: Headers, body: bytes, head: Head) -> tuple[Headers, bytes]:
    codings = [value.strip().lower() for name, value in headers if name == b"content-encoding"]
    if len(codings) != 1 or accepts_coding(head.values(b"accept-encoding"), codings[0]):
        return headers, body
    if codings[0] not in (b"gzip", b"x-gzip", b"deflate"):
        return headers, body  # another coding cannot be removed here; RFC 9110 12.5.3 allows sending it
    plain = _inflate(body, zlib.MAX_WBITS | (0 if codings[0] == b"deflate" else 16))
    if plain is None:
        return headers, body
    decoded = tuple(
        (name, _weak(value) if name == b"etag" else value) for name, value in headers if name != b"content-encoding"
    )
    return decoded, plain


def _inflate(body: bytes, wbits: int) -> bytes | None:
    """The decoded content; None if it is no such coding, or grows beyond what a replay may hold."""
    decoder = zlib.decompressobj(wbits)
    try:
        plain = decoder.decompress(body, _DECODED_BYTES_MAX)
    except zlib.error:
        return None
    return plain if decoder.eof and not decoder.unused_data else None


def _weak(etag: bytes) -> bytes:
    return etag if etag.startswith(b"W/") else b"W/" + etag


def receipt(snapshot: Snapshot, policy: Policy) -> Response:
    """A small JSON document in place of content that was not kept, for routes that want it (R66)."""
    document: dict[str, object] = {"receipt": True, "status": snapshot.response.status, "content_bytes": snapshot.size}
    if snapshot.digest:
        document["content_sha256"] = snapshot.digest.hex()
    body = json.dumps(document, separators=(",", ":")).encode()
    headers = tuple((name, value) for name, value in snapshot.response.headers if name != b"content-type")
    headers += (
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        (policy.replay_field, b"true"),
    )
    return Response(snapshot.response.status, headers, body)
