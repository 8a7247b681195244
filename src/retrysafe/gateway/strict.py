"""What is refused before anything else happens: requests that two servers could read differently.

The server's parser (llhttp, strict) stops most of them: a bare line feed, a folded line, a space before
the colon, a length that is not digits, a length together with chunks. This is what it lets through,
and what must hold in any case before a request is written out again for another server (RFC 9112
sections 3, 6 and 11.2). Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from retrysafe.model import Headers
from retrysafe.server.scope import Connection

VERSIONS = ("1.0", "1.1")

TARGET = "retrysafe.target"
"""The entry of an ASGI connection scope that holds the target as received: ASGI itself loses an empty query."""

_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE_BAD = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_TARGET = re.compile(rb"/[!\"$-~]*")
_ABSOLUTE = re.compile(rb"https?://([^/?#@]+)((?:[/?].*)?)", re.IGNORECASE | re.DOTALL)
_LENGTH = re.compile(rb"[0-9]{1,18}")
_HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a request goes no further.

    Attributes:
        status: to answer with.
        detail: what was seen and what to do, for a person; nothing of the request's content.
    """

    status: int
    detail: str


def fault(method: str, version: str, target: bytes, headers: Headers) -> Fault | None:
    """What is wrong with a request's head; None if nothing is.

    Args:
        method: as received.
        version: of HTTP.
        target: in origin form (see `origin_form`).
        headers: as received, names in lower case.
    """
    if version not in VERSIONS:
        return Fault(505, f"HTTP/{version} is not spoken here; send HTTP/1.1.")
    if method == "CONNECT":
        return Fault(501, "CONNECT asks for a tunnel, and this gateway serves one upstream.")
    if not _TARGET.fullmatch(target):
        return Fault(400, "The request target must be a path, with no fragment and nothing that needs an escape.")
    return _field_fault(headers) or _host_fault(version, headers) or _length_fault(version, headers)


def target_of(connection: Connection) -> bytes:
    """The request target of an ASGI connection, byte for byte where the server tells it."""
    if TARGET in connection:
        target: bytes = connection[TARGET]
        return target
    query: bytes = connection["query_string"]
    path: bytes = connection["raw_path"]
    return path + b"?" + query if query else path


def origin_form(target: bytes, headers: Headers) -> bytes | None:
    """The path and query of a target, byte for byte; None if the target is for somebody else.

    A target in absolute form is accepted if it names the host that the `Host` field names (RFC 9112
    3.2.2); only the configured upstream is ever reached, whatever it names.
    """
    if target.startswith(b"/"):
        return target
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None or absolute[1].lower() not in [value.strip().lower() for value in _all(headers, b"host")]:
        return None
    rest = absolute[2]
    return rest if rest.startswith(b"/") else b"/" + rest


def asks_for_upgrade(headers: Headers) -> bool:
    """Whether a request wants to leave HTTP: a WebSocket, h2c and the like."""
    options = {option.strip().lower() for value in _all(headers, b"connection") for option in value.split(b",")}
    return b"upgrade" in options and bool(_all(headers, b"upgrade"))


def answer_fault(status: int, headers: Headers) -> str | None:
    """What makes an upstream's answer unusable; None if nothing does.

    Args:
        status: of the answer.
        headers: as received, names in any case.
    """
    if not 200 <= status <= 599:
        return f"the upstream answered with status {status}"
    if any(not _NAME.fullmatch(name) or _VALUE_BAD.search(value) for name, value in headers):
        return "a header field of the upstream's answer has a character that HTTP does not allow"
    lengths = {value.strip() for name, value in headers if name.lower() == b"content-length"}
    if len(lengths) > 1 or any(not _LENGTH.fullmatch(length) for length in lengths):
        return "the upstream's answer has no usable Content-Length"
    return None


def _all(headers: Headers, name: bytes) -> list[bytes]:
    return [value for field, value in headers if field == name]


def _field_fault(headers: Headers) -> Fault | None:
    for name, value in headers:
        if not _NAME.fullmatch(name) or _VALUE_BAD.search(value):
            return Fault(400, "A header field has a character that HTTP does not allow.")
        try:
            value.decode()
        except UnicodeDecodeError:
            # It would have to be changed to be sent on, and a changed field is worse than none.
            return Fault(400, "A header field is neither ASCII nor UTF-8.")
    return None


def _host_fault(version: str, headers: Headers) -> Fault | None:
    hosts = _all(headers, b"host")
    if len(hosts) > 1 or (not hosts and version == "1.1"):
        return Fault(400, "A request has exactly one Host field.")
    if hosts and not _HOST.fullmatch(hosts[0].strip()):
        return Fault(400, "The Host field must be a host name or address, with or without a port.")
    return None


def _length_fault(version: str, headers: Headers) -> Fault | None:
    lengths, codings = _all(headers, b"content-length"), _all(headers, b"transfer-encoding")
    if lengths and codings:
        return Fault(400, "Transfer-Encoding and Content-Length exclude each other.")
    if codings and (version != "1.1" or [coding.strip().lower() for coding in codings] != [b"chunked"]):
        return Fault(400, "The only Transfer-Encoding is chunked, once, in HTTP/1.1.")
    if lengths and (len(lengths) > 1 or not _LENGTH.fullmatch(lengths[0].strip())):
        return Fault(400, "Content-Length must be one number, in digits.")
    return None
