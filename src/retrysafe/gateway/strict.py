"""What is refused before anything else happens: requests that two servers could read differently.

The server's parser (llhttp, strict) stops most of them: a bare line feed, a folded line, a space before
the colon, a length that is not digits, a length together with chunks. This is what it lets through,
and what must hold in any case before a request is written out again for another server (RFC 9112
sections 3, 6 and 11.2). Pure.
"""

from __future__ import annotations

import re
import string
from dataclasses import dataclass

from retrysafe.model import Headers
from retrysafe.server.scope import Connection

VERSIONS = ("1.0", "1.1")

TARGET = "retrysafe.target"
"""The entry of an ASGI connection scope that holds the target as received: ASGI itself loses an empty query."""

_NAME_BYTES = b"!#$%&'*+.^_`|~-" + string.digits.encode() + string.ascii_letters.encode()
_VALUE_BYTES_BAD = bytes({*range(0x20), 0x7F} - {0x09})
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
    return _field_fault(headers) or _framing_fault(version, headers)


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
    if not _all(headers, b"upgrade"):
        return False
    options = {option.strip().lower() for value in _all(headers, b"connection") for option in value.split(b",")}
    return b"upgrade" in options


def answer_fault(status: int, headers: Headers) -> str | None:
    """What makes an upstream's answer unusable; None if nothing does.

    Args:
        status: of the answer.
        headers: as received, names in any case.
    """
    if not 200 <= status <= 599:
        return f"the upstream answered with status {status}"
    if _malformed(headers):
        return "a header field of the upstream's answer has a character that HTTP does not allow"
    lengths: set[bytes] = set()
    codings: list[bytes] = []
    for field, value in headers:
        name = field.lower()
        if name == b"content-length":
            lengths.add(value.strip())
        elif name == b"transfer-encoding":
            codings.append(value.strip().lower())
    if len(lengths) > 1 or (lengths and not _LENGTH.fullmatch(lengths.pop())):
        return "the upstream's answer has no usable Content-Length"
    if codings not in ([], [b"chunked"], [b"identity"]):
        # It was not asked for another one, which would be taken off unseen (RFC 9112 6.1).
        return "the upstream's answer has a Transfer-Encoding other than chunked"
    return None


def _all(headers: Headers, name: bytes) -> list[bytes]:
    return [value for field, value in headers if field == name]


def _malformed(headers: Headers) -> bool:
    """Whether a name or a value has a byte that it must not have; all of them at once, since this is asked often."""
    names = [name for name, _ in headers]
    if b"" in names or b"".join(names).translate(None, _NAME_BYTES):
        return True
    values = b"".join([value for _, value in headers])
    return len(values.translate(None, _VALUE_BYTES_BAD)) != len(values)


def _field_fault(headers: Headers) -> Fault | None:
    if _malformed(headers):
        return Fault(400, "A header field has a character that HTTP does not allow.")
    try:
        b" ".join([value for _, value in headers]).decode()  # a space, so that no value ends what another began
    except UnicodeDecodeError:
        # An upstream may read it as it likes, and so may whatever stands between; UTF-8 has one reading.
        return Fault(400, "A header field is neither ASCII nor UTF-8.")
    return None


def _framing_fault(version: str, headers: Headers) -> Fault | None:
    hosts: list[bytes] = []
    lengths: list[bytes] = []
    codings: list[bytes] = []
    told = {b"host": hosts, b"content-length": lengths, b"transfer-encoding": codings}
    for name, value in headers:
        if name in told:
            told[name].append(value.strip())
    return _host_fault(version, hosts) or _length_fault(version, lengths, codings)


def _host_fault(version: str, hosts: list[bytes]) -> Fault | None:
    if len(hosts) > 1 or (not hosts and version == "1.1"):
        return Fault(400, "A request has exactly one Host field.")
    if hosts and not _HOST.fullmatch(hosts[0]):
        return Fault(400, "The Host field must be a host name or address, with or without a port.")
    return None


def _length_fault(version: str, lengths: list[bytes], codings: list[bytes]) -> Fault | None:
    if lengths and codings:
        return Fault(400, "Transfer-Encoding and Content-Length exclude each other.")
    if codings and (version != "1.1" or [coding.lower() for coding in codings] != [b"chunked"]):
        return Fault(400, "The only Transfer-Encoding is chunked, once, in HTTP/1.1.")
    if lengths and (len(lengths) > 1 or not _LENGTH.fullmatch(lengths[0])):
        return Fault(400, "Content-Length must be one number, in digits.")
    return None
