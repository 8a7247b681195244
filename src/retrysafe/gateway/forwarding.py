"""Which fields go on to the upstream, which come back from it, and which stop here. Pure.

A field that is about one connection stops at its end (RFC 9110 7.6.1). Two dangers shape the rest. A
client may name any field in `Connection` and so have it taken out: a few may not be. And CGI, WSGI
and their like read `X_Account_Id` as `X-Account-Id`: a field that looks like one of those we answer
for, but for underscores, is dropped, or it would be a way round the rule for the real one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from retrysafe.model import Headers
from retrysafe.protocol.expiry import EXPIRES_FIELD
from retrysafe.value import value

VIA = b"retrysafe"
_OUR_VIA = (b"via", b"1.1 " + VIA)

# About one connection, or for the nearest proxy, which is this one.
HOP_BY_HOP = frozenset(
    {
        b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade",
        b"http2-settings", b"proxy-authorization",
    }
)  # fmt: skip

# A `Connection` field cannot have these removed: framing, routing, and who is asking for what.
PROTECTED = frozenset(
    {b"host", b"content-length", b"content-type", b"content-encoding", b"authorization", b"cookie", b"set-cookie"}
)

# Only this gateway says these to a client, and only an upstream says the last one, to this gateway.
STATUS, EFFECT = b"idempotency-status", b"idempotency-effect"

_FORWARDED_PREFIX = b"x-forwarded-"
_FORWARDED = frozenset({b"forwarded", b"x-real-ip"})


@dataclass(frozen=True, slots=True)
class Rules:
    """What an operator decides about fields. Names are in lower case.

    Attributes:
        forwarded: `replace`: what clients say of where they come from is not believed; `append`: a
            trusted proxy stands in front, and its word is kept.
        host: `preserve` the client's `Host` field, or name the `upstream`.
        keys: the fields that carry keys.
        scope: the field that carries the account; None if none does.
        markers: the response fields that mark replays.
        protected: a `Connection` field cannot have these removed.
        stopped: these go no further, in either direction.
        stopped_requests: these do not go on to the upstream, besides what has a reason of its own.
    """

    forwarded: str = "replace"
    host: str = "preserve"
    keys: frozenset[bytes] = frozenset({b"idempotency-key"})
    scope: bytes | None = None
    markers: frozenset[bytes] = frozenset({b"idempotent-replayed"})

    protected: frozenset[bytes] = field(init=False, repr=False)
    stopped: frozenset[bytes] = field(init=False, repr=False)
    stopped_requests: frozenset[bytes] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        scope = {self.scope} if self.scope else frozenset()
        object.__setattr__(self, "protected", PROTECTED | self.keys | scope)
        object.__setattr__(self, "stopped", HOP_BY_HOP | self.markers | {STATUS, EFFECT, EXPIRES_FIELD})
        # What says where the request came from is not believed, or will be written anew.
        told = {b"x-forwarded-for"} if self.forwarded == "append" else _FORWARDED
        host = {b"host"} if self.host == "upstream" else frozenset()
        object.__setattr__(self, "stopped_requests", self.stopped | {b"expect"} | told | host)


@value
class Hop:
    """Where a request came from.

    Attributes:
        client: address of the peer; None if it is not known.
        scheme: `http` or `https`.
        version: of HTTP, `1.1`.
    """

    client: str | None
    scheme: str
    version: str


def request_headers(headers: Headers, hop: Hop, rules: Rules) -> Headers:
    """The fields of a request as the upstream gets them.

    `Content-Length` is left in; it must be exact, which is checked before (`strict`).

    Args:
        headers: as received, names in lower case.
        hop: where the request came from.
        rules: the operator's.
    """
    dropped = rules.stopped_requests
    if connections := [value for name, value in headers if name == b"connection"]:
        dropped |= _named(connections) - rules.protected
    is_believed = rules.forwarded == "append"
    kept = [
        (name, value.strip(b" \t"))
        for name, value in headers
        if name not in dropped
        and (is_believed or not name.startswith(_FORWARDED_PREFIX))
        and not (b"_" in name and _is_lookalike(name, rules))
    ]
    kept += _provenance(headers, hop, rules)
    return tuple(kept)


def response_headers(headers: Headers, status: int, rules: Rules) -> Headers:
    """The fields of the upstream's answer as the client gets them.

    Args:
        headers: as received, in order.
        status: of the answer.
        rules: the operator's.
    """
    names = [name.lower() for name, _ in headers]
    dropped = rules.stopped
    if b"connection" in names:
        dropped |= (
            _named([value for name, (_, value) in zip(names, headers, strict=True) if name == b"connection"])
            - PROTECTED
        )
    if status in (204, 304) or b"transfer-encoding" in names:
        # There is no content to have a length, or the content's own framing overrides it (RFC 9112 6.3).
        dropped |= {b"content-length"}
    return (*[field for name, field in zip(names, headers, strict=True) if name not in dropped], _OUR_VIA)


def states_no_effect(headers: Headers) -> bool:
    """Whether the upstream says that the request changed nothing: `Idempotency-Effect: none`, once."""
    return [value.strip().lower() for name, value in headers if name.lower() == EFFECT] == [b"none"]


def _named(connections: list[bytes]) -> frozenset[bytes]:
    """The fields that `Connection` lines name."""
    return frozenset(name.strip().lower() for value in connections for name in value.split(b","))


def _is_lookalike(name: bytes, rules: Rules) -> bool:
    read_as = name.replace(b"_", b"-")
    guarded = read_as in rules.protected or read_as in rules.stopped or read_as in _FORWARDED
    return guarded or read_as.startswith(_FORWARDED_PREFIX)


def _provenance(headers: Headers, hop: Hop, rules: Rules) -> list[tuple[bytes, bytes]]:
    """What this gateway says of where the request came from: `X-Forwarded-*`, `Forwarded` (RFC 7239), `Via`."""
    told = [name for name, _ in headers] if rules.forwarded == "append" else []
    path = [value for name, value in headers if name == b"x-forwarded-for"] if told else []
    client, scheme = (hop.client or "unknown").encode(), hop.scheme.encode()
    node = b'"[%s]"' % client if b":" in client else client
    element = b"for=%s;proto=%s" % (node, scheme)
    fields = [(b"x-forwarded-for", b", ".join([*path, client]))]
    if b"x-forwarded-proto" not in told:
        fields.append((b"x-forwarded-proto", scheme))
    if (hosts := [value for name, value in headers if name == b"host"]) and hosts[0]:
        if b"x-forwarded-host" not in told:
            fields.append((b"x-forwarded-host", hosts[0]))
        element += b';host="%s"' % hosts[0]
    fields += [(b"forwarded", element), (b"via", b"%s %s" % (hop.version.encode(), VIA))]
    return fields
