"""The key of a request: what a client sends so that all its attempts are one operation (contract A).

There are two spellings. The draft standard wants a Structured Field string, `"k"`; every large API
in use takes the bare `k`. Here both are the same key, and anything else is refused: a malformed
key that was taken as absent would run a request unprotected whose sender believes otherwise.
"""

from __future__ import annotations

import re
from dataclasses import field
from typing import cast

import http_sf

from retrysafe.model import Head
from retrysafe.protocol.framing import frame
from retrysafe.protocol.mac import mac
from retrysafe.protocol.policy import Policy
from retrysafe.value import value

_PARAMETERS_BYTES_MAX = 1_024
_BARE = re.compile(rb"[A-Za-z0-9\-._~:/+=]+")
_QUOTED_OR_BARE = re.compile(rb'"([!#-\[\]-~]+)"|(' + _BARE.pattern + rb")")  # quoted: without escapes
_UUID = re.compile(r"[0-9A-Fa-f]{8}-(?:[0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}")
_HEX = re.compile(r"[0-9A-Fa-f]+")
_BASE64URL = re.compile(r"[A-Za-z0-9_-]{22,}={0,2}")


@value
class Key:
    """A well-formed key.

    Attributes:
        text: decoded, 0x21 to 0x7E; its identity (R4, R8). Not in the `repr`: keys are never logged.
    """

    text: str = field(repr=False)


@value
class Absent:
    """The request carries no key."""


@value
class Malformed:
    """The request carries something that is no key; it must not run.

    Attributes:
        reason: one sentence on what is wrong, for the client. Never contains what was sent.
    """

    reason: str


def parse_key(head: Head, policy: Policy) -> Key | Absent | Malformed:
    """The key in the header section (R1-R9).

    Args:
        head: of the request.
        policy: says which field, which spellings and which lengths.
    """
    lines = head.values(policy.header_field)
    if not lines:
        return Absent()
    if len(lines) > 1:
        return Malformed(f"The request has more than one {policy.header} field; send exactly one.")
    spelling = lines[0].strip(b" \t")
    if not spelling:
        return Malformed(f"The {policy.header} field is empty.")
    # Before anything whose cost grows with the length: no valid key is spelled with more bytes than this (R7).
    if len(spelling) > 2 * policy.key_length_max + 2 + _PARAMETERS_BYTES_MAX:
        return _too_long(policy)
    # The two spellings that nearly every client uses, in one look.
    plain = _QUOTED_OR_BARE.fullmatch(spelling) if policy.key_syntax == "both" else None
    text = (plain[1] or plain[2]).decode("ascii") if plain else _decoded(spelling, policy)
    if isinstance(text, Malformed):
        return text
    if not policy.key_length_min <= len(text) <= policy.key_length_max:
        return _bad_length(text, policy)
    if " " in text:
        return Malformed(f"The key in the {policy.header} field contains a space, which no key may.")
    # The one spelling that clients are known to change between attempts (R9).
    return Key(text.lower() if len(text) == 36 and _UUID.fullmatch(text) else text)


def is_128_bit(key: Key) -> bool:
    """Whether a key has the form of 128 random bits: a UUID, 32 hexadecimal digits, or 22 of base64url (R17).

    It judges the form only: a client that writes a small number in 32 digits deceives itself.
    """
    digits = key.text.replace("-", "")
    if _HEX.fullmatch(digits):
        return len(digits) >= 32
    return _BASE64URL.fullmatch(key.text) is not None


def record_id(secret: bytes, namespace: str, scope: str, key: Key) -> bytes:
    """Under which a store keeps the record of a key: 32 bytes that reveal none of the three (R15, R21).

    Args:
        secret: the one that the store and this process agreed on.
        namespace: deployment or environment; test and live are never the same (R20).
        scope: the account that the key belongs to.
        key: as parsed.
    """
    # "surrogatepass" because a scope may come from undecodable bytes, and still must be one scope only.
    named = namespace.encode("utf-8", "surrogatepass"), scope.encode("utf-8", "surrogatepass")
    return mac(secret, frame(b"retrysafe record", *named, key.text.encode("utf-8", "surrogatepass")))


def child_key(secret: bytes, record_id: bytes, name: str, target: str = "") -> str:
    """The key for one call that a handler makes: the same in every attempt, another for every step (R101).

    Args:
        secret: the one that record ids are made with.
        record_id: of the operation whose handler makes the call.
        name: of the step.
        target: whom it calls, where one step calls several.

    Returns:
        A UUID of version 8, 36 characters: it fits wherever a downstream API limits its keys.
    """
    said = name.encode("utf-8", "surrogatepass"), target.encode("utf-8", "surrogatepass")
    digest = mac(secret, frame(b"retrysafe child", record_id, *said))
    return as_uuid(digest)


def as_uuid(digest: bytes) -> str:
    """The first 16 bytes of a digest in the form of a UUID of version 8 (RFC 9562 5.8)."""
    octets = bytearray(digest[:16])
    octets[6] = octets[6] & 0x0F | 0x80
    octets[8] = octets[8] & 0x3F | 0x80
    digits = octets.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _decoded(spelling: bytes, policy: Policy) -> str | Malformed:
    quoted = spelling.startswith(b'"')
    if quoted and policy.key_syntax == "bare":
        return Malformed(f"The {policy.header} field is quoted; this API takes the key without quotes.")
    if not quoted and policy.key_syntax == "sf":
        return Malformed(f"The {policy.header} field is not quoted; this API takes the key as a quoted string.")
    if not quoted:
        if _BARE.fullmatch(spelling):
            return spelling.decode("ascii")
        return Malformed(
            f"The {policy.header} field is neither a quoted string nor a bare key "
            "of letters, digits and - . _ ~ : / + = alone."
        )
    try:
        item = http_sf.parse(spelling, tltype="item")
    except ValueError:
        return Malformed(
            f"The {policy.header} field is not one well-formed quoted string: printable ASCII between "
            "two double quotes, in which only a double quote and a backslash are escaped."
        )
    text, _ = cast(tuple[str, object], item)  # a string, since it begins with a quote; parameters do not count (R2)
    return text


def _bad_length(text: str, policy: Policy) -> Malformed:
    if not text:
        return Malformed(f"The key in the {policy.header} field is empty.")
    if len(text) > policy.key_length_max:
        return _too_long(policy)
    return Malformed(
        f"The key in the {policy.header} field is too short; it must have {policy.key_length_min} characters at least."
    )


def _too_long(policy: Policy) -> Malformed:
    return Malformed(
        f"The key in the {policy.header} field is too long; it may have at most {policy.key_length_max} characters."
    )
