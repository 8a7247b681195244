"""The fingerprint of a request: a digest of what must not differ between attempts (contract C).

It covers the method, the concrete path, the query, the media type and the content, each in one
spelling, so that what only looks different is the same: a client library may order members anew,
choose another boundary or begin to compress. Where a spelling is in doubt, the bytes count as they
were sent. So a fingerprint errs on one side only: two requests that mean the same may be told apart
and the second refused, but two that differ are never taken for one.

It is keyed, because a plain digest of a card number is a card number (R33), and its first byte says by
which algorithm it was made, so that a later release compares old records by the old algorithm.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256

from retrysafe.model import Head, Request
from retrysafe.protocol.canonical import canonical_json
from retrysafe.protocol.coding import Undecodable, content_codings, decoded, expanded_bytes_max
from retrysafe.protocol.framing import frame
from retrysafe.protocol.mac import mac
from retrysafe.protocol.media import MediaType, media_type
from retrysafe.protocol.multipart import digest_of_parts
from retrysafe.protocol.policy import Policy
from retrysafe.protocol.target import normal_path, sorted_pairs

CANONICAL_BYTES_MAX = 65_536
"""Up to this size JSON and forms are compared by meaning, above it byte by byte and whole (contract R25, R27)."""

_ONLY_THE_KEY = 0
_VERSION = 1

_Source = Callable[[], Iterator[bytes]]


def fingerprint_of(request: Request, policy: Policy, secret: bytes) -> bytes:
    """The fingerprint of a request: one byte for the algorithm, and 32 of HMAC-SHA-256 (R22, R33).

    Args:
        request: with its whole content.
        policy: says what counts besides the default, and what does not.
        secret: the one that record ids are made with.
    """
    version = _ONLY_THE_KEY if policy.fingerprint == "none" else _VERSION
    return bytes((version,)) + _ALGORITHMS[version](request, policy, secret)


def matches(stored: bytes, request: Request, policy: Policy, secret: bytes) -> bool:
    """Whether a request is the one that a record was made for.

    Under a policy for which only the key counts, every request matches every record; so it does if the
    record was made under such a policy. A record of an unknown algorithm matches none: it was written by
    a newer release, and to refuse a retry (422) is safe, while to give it an answer that may be another
    request's is not. For the same reason a retry is refused if the policy by now looks at other headers,
    parameters or members.

    Args:
        stored: the fingerprint in the record.
        request: the one to compare.
        policy: as for `fingerprint_of`.
        secret: as for `fingerprint_of`.
    """
    if policy.fingerprint == "none":
        return True
    algorithm = _ALGORITHMS.get(stored[0]) if stored else None
    if algorithm is None:
        return False
    return hmac.compare_digest(stored[1:], algorithm(request, policy, secret))


def _only_the_key(_request: Request, _policy: Policy, secret: bytes) -> bytes:
    return mac(secret, frame(b"retrysafe fingerprint", b"\0"))


def _version_1(request: Request, policy: Policy, secret: bytes) -> bytes:
    """Frozen: records of this version exist. A change of what it gives is a new version beside it."""
    head = request.head
    covered = frame(
        b"retrysafe fingerprint",
        b"\1",
        head.method.encode(),
        normal_path(head.path),
        _query(head, policy) if head.query else b"",
        _headers(head, policy) if policy.fingerprint_headers else b"",
        *_content(request, policy),
    )
    return mac(secret, covered)


_ALGORITHMS: dict[int, Callable[[Request, Policy, bytes], bytes]] = {
    _ONLY_THE_KEY: _only_the_key,
    1: _version_1,
}


def _query(head: Head, policy: Policy) -> bytes:
    return frame(*sorted_pairs(head.query, [name.encode() for name in policy.fingerprint_query_except]))


def _headers(head: Head, policy: Policy) -> bytes:
    """Name and value of the fields that count (R31). Lines of one name are one list: proxies join them."""
    names = sorted({name.lower().encode() for name in policy.fingerprint_headers})
    lines = [(name, head.values(name)) for name in names]
    return frame(*(part for name, values in lines if values for part in (name, b",".join(map(bytes.strip, values)))))


def _content(request: Request, policy: Policy) -> tuple[bytes, ...]:
    """What the content is: its kind, then what belongs to that kind."""
    head, body = request.head, request.body
    size_bytes = body.size
    if not size_bytes:
        return (b"empty",)  # nothing has no type and no coding (R30)
    media = media_type(head.values(b"content-type"))
    coded = head.values(b"content-encoding")
    codings = content_codings(coded) if coded else []
    if not codings:
        content = body.read() if size_bytes <= CANONICAL_BYTES_MAX else None
        return _described(content, body.chunks, media, policy)
    bytes_max = expanded_bytes_max(size_bytes, policy.request_bytes_max)
    try:
        content = _whole_if_small(decoded(body.chunks(), codings, bytes_max))
        return _described(content, lambda: decoded(body.chunks(), codings, bytes_max), media, policy)
    except Undecodable:
        return (b"coded", *media, b",".join(codings), _digest(body.chunks()))


def _described(content: bytes | None, source: _Source, media: MediaType, policy: Policy) -> tuple[bytes, ...]:
    """A content without codings: whole if it is small, and as a stream that can be read again."""
    kind = b""
    canonical: bytes | None = None
    if media.boundary:
        kind, canonical = b"multipart", digest_of_parts(source(), media.boundary)
    elif content == b"":
        return (b"empty",)
    elif content is not None and media.is_json:
        kind, canonical = b"json", canonical_json(content, policy.fingerprint_json_only, policy.fingerprint_json_except)
    elif content is not None and media.is_form:
        kind, canonical = b"form", frame(*sorted_pairs(content))
    if canonical is not None:
        return (kind, media.essence, media.charset, canonical)
    return (b"raw", *media, _digest(source()))


def _whole_if_small(chunks: Iterable[bytes]) -> bytes | None:
    pieces, size = [], 0
    for chunk in chunks:
        size += len(chunk)
        if size > CANONICAL_BYTES_MAX:
            return None
        pieces.append(chunk)
    return b"".join(pieces)


def _digest(chunks: Iterable[bytes]) -> bytes:
    digest = sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.digest()
