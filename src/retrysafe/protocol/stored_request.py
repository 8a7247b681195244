"""A request as stored bytes, for whoever sends it again when its owner is gone (contract R45).

Credentials are never part of it: whoever sends it again does so in the name that the application gives for its
account then. It is encrypted, always, because the key stands in it as the client sent it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import field

from retrysafe.model import Head, Headers, Request
from retrysafe.protocol.framing import frame, unframed
from retrysafe.protocol.snapshot import Encryption, Kind, Unreadable, sealed, unsealed
from retrysafe.value import value

VERSION = 1

# One row or item of every store has room for it. What is larger is not kept, and waits for its client.
STORED_REQUEST_BYTES_MAX = 256 << 10

CREDENTIALS = frozenset({b"authorization", b"proxy-authorization", b"cookie", b"cookie2"})

# Of the connection that it came on, and of the way its content came (RFC 9110 7.6.1, 10.1.1).
_FRAMING = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"expect"}
)


@value
class StoredRequest:
    """A request without its credentials, and whose it was.

    Attributes:
        key: as the client means it.
        scope: the account.
        scheme: `http` or `https`, as the application was told.
        root: the path that the application was mounted at; it is a part of the path.
        head: method, path, query and the remaining fields.
        body: the content.
    """

    key: str = field(repr=False)
    scope: str = field(repr=False)
    scheme: str
    root: str
    head: Head = field(repr=False)
    body: bytes = field(repr=False)


def without_credentials(headers: Headers, named: Iterable[str]) -> Headers:
    """The fields that may be stored.

    Args:
        headers: of the request, names in lower case.
        named: further names of fields that hold credentials, in any case.
    """
    dropped = CREDENTIALS | _FRAMING | {name.lower().encode() for name in named}
    return tuple((name, line) for name, line in headers if name not in dropped)


def seal_request(stored: StoredRequest, record_id: bytes, secret: bytes, encryption: Encryption) -> bytes | None:
    """The stored bytes of a request, encrypted and bound to its record; None if it is too large to be kept."""
    head = stored.head
    texts = (stored.key, stored.scope, stored.scheme, stored.root, head.method)
    fields = (frame(name, line) for name, line in head.headers)
    parts = (*(text.encode("utf-8", "surrogatepass") for text in texts), head.path, head.query, frame(*fields))
    document = bytes([VERSION]) + frame(*parts, stored.body)
    if len(document) > STORED_REQUEST_BYTES_MAX:
        return None
    return sealed(document, record_id, secret, encryption, Kind.REQUEST)


def unseal_request(stored: bytes, record_id: bytes, secret: bytes, encryption: Encryption) -> StoredRequest:
    """The request that `seal_request` was given.

    Raises:
        Unreadable: the bytes are not a request of this record, or cannot be decrypted.
    """
    document = unsealed(stored, record_id, secret, encryption, Kind.REQUEST)
    try:
        *texts, path, query, framed, body = unframed(document[1:])
        key, scope, scheme, root, method = (text.decode("utf-8", "surrogatepass") for text in texts)
        headers = tuple(_pair(*unframed(pair)) for pair in unframed(framed))
    except (ValueError, TypeError, struct.error):
        raise Unreadable("the stored request is not well-formed") from None
    return StoredRequest(key, scope, scheme, root, Head(method, path, query, headers), body)


def _pair(name: bytes, line: bytes) -> tuple[bytes, bytes]:
    return name, line


def fits(request: Request) -> bool:
    """Whether a request may be small enough to be kept, by its content alone."""
    return request.body.size < STORED_REQUEST_BYTES_MAX
