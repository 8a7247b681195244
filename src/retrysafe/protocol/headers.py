"""Which response fields are kept in a record, and which come back on a replay (contract part F)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from retrysafe.model import Headers

# Each belongs to one exchange and not to the outcome.
NEVER_KEPT = frozenset(
    {
        # the connection and the framing of the message (RFC 9110 7.6.1); recomputed by the server
        b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade",
        b"content-length",
        # when, and for how long: a stored value with a new Date would extend freshness
        b"date", b"age", b"cache-control", b"expires", b"pragma",
        # credentials and sessions: a replay must not plant them
        b"set-cookie", b"set-cookie2", b"clear-site-data", b"www-authenticate", b"proxy-authenticate",
        b"authentication-info", b"proxy-authentication-info", b"authorization",
        # said of the first moment
        b"retry-after", b"x-request-id", b"request-id", b"x-correlation-id", b"x-amzn-requestid", b"x-amz-request-id",
        b"cf-ray", b"traceresponse", b"server-timing",
        b"via", b"server", b"alt-svc",
        # over bytes or fields that a replay changes
        b"digest", b"repr-digest", b"content-digest", b"signature", b"signature-input",
        # ours; a door withholds whatever name the replay marker was given
        b"idempotency-status", b"idempotent-replayed", b"idempotency-effect", b"idempotency-expires",
    }
)  # fmt: skip
_NEVER_KEPT_PREFIXES = (b"ratelimit", b"x-ratelimit", b"x-rate-limit")

ORIGIN_BOUND = (b"access-control-", b"timing-allow-origin")


def kept(headers: Headers) -> Headers:
    """The fields of a first answer that its record keeps, names in lower case, order and repetition kept."""
    lines = []
    dropped: set[bytes] = set()
    for field, line in headers:
        name = field.lower()
        if name not in NEVER_KEPT and not name.startswith(_NEVER_KEPT_PREFIXES):
            lines.append((bytes(name), bytes(line)))
        elif name == b"connection":
            dropped.update(named.strip().lower() for named in line.split(b","))
    return tuple((name, line) for name, line in lines if name not in dropped) if dropped else tuple(lines)


def without_origin_bound(headers: Headers) -> Headers:
    """The fields without `Access-Control-*` and their like: they answer one origin and no other."""
    return tuple((name, value) for name, value in headers if not name.startswith(ORIGIN_BOUND))


_CODING = re.compile(rb"\s*([!#$%&'*+.^_`|~0-9A-Za-z-]+)\s*(?:;\s*[qQ]\s*=\s*([01](?:\.[0-9]{0,3})?)\s*)?$")


def accepts_coding(accept_encoding: Sequence[bytes], coding: bytes) -> bool:
    """Whether a client that sent these `Accept-Encoding` lines can read `coding` (RFC 9110 12.5.3).

    No field at all accepts any coding; an empty one accepts none.
    """
    if not accept_encoding:
        return True
    weights: dict[bytes, float] = {}
    for item in b",".join(accept_encoding).split(b","):
        if parsed := _CODING.match(item):
            weights[parsed[1].lower()] = float(parsed[2] or 1)
    coding = coding.removeprefix(b"x-")
    return weights.get(coding, weights.get(b"x-" + coding, weights.get(b"*", 0.0))) > 0
