"""One operation as a journal keeps it: its request, its key, and when that was first sent; as bytes and back."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import field

from retrysafe.protocol.framing import frame, unframed
from retrysafe.protocol.snapshot import Unreadable
from retrysafe.protocol.stored_request import without_credentials
from retrysafe.value import value

VERSION = 1

Fields = tuple[tuple[str, str], ...]

# What a library makes anew for each message, and what would not be true of another attempt.
_REMADE = frozenset({"host", "content-length"})
# Fields that are credentials by custom, beside those that every server knows.
_SECRETS = ("x-api-key", "api-key", "x-auth-token", "x-csrf-token", "x-xsrf-token", "x-amz-security-token")
_TELLING = ("content-type", "content-encoding")


@value
class Asked:
    """A request as it is about to be sent.

    Attributes:
        method: upper case.
        url: absolute.
        headers: names as the caller wrote them; without the key.
        content: the whole of it.
    """

    method: str
    url: str = field(repr=False)
    headers: Fields = field(repr=False)
    content: bytes = field(repr=False)

    def digest(self) -> bytes:
        """Of what must not differ between two attempts."""
        told = sorted((name.lower(), line) for name, line in self.headers if name.lower() in _TELLING)
        fields = (frame(name.encode(), line.encode("utf-8", "surrogateescape")) for name, line in told)
        parts = (self.method.encode(), self.url.encode(), frame(*fields), self.content)
        return hashlib.sha256(frame(*parts)).digest()


@value
class Entry:
    """One operation.

    Attributes:
        id: of the entry.
        name: of the intent; empty if there is none.
        key: as it is sent.
        header: the field that carries the key.
        asked: the request, without what may not be kept; empty once it is settled.
        digest: of the request as it was sent.
        created_at_s: when the key was first sent, by the wall clock.
        lifetime_s: for how long the server knows it.
    """

    id: bytes = field(repr=False)
    name: str
    key: str = field(repr=False)
    header: str
    asked: Asked
    digest: bytes = field(repr=False)
    created_at_s: float
    lifetime_s: float

    @property
    def ends_at_s(self) -> float:
        """When the server may have forgotten the key."""
        return self.created_at_s + self.lifetime_s


def kept_fields(headers: Fields, *, secrets: bool) -> Fields:
    """The fields that may be kept: with credentials only if they are going to be encrypted."""
    left = [(name, line) for name, line in headers if name.lower() not in _REMADE]
    named = () if secrets else _SECRETS
    pairs = tuple((name.lower().encode(), b"%d" % at) for at, (name, _) in enumerate(left))
    allowed = {int(at) for _, at in without_credentials(pairs, named)}
    if secrets:
        allowed |= {at for at, (name, _) in enumerate(left) if name.lower() in ("authorization", "cookie")}
    return tuple(field for at, field in enumerate(left) if at in allowed)


def written(entry: Entry) -> bytes:
    """The bytes of an entry, but for its id."""
    asked = entry.asked
    texts = (entry.name, entry.key, entry.header, asked.method, asked.url)
    fields = (frame(_bytes(name), _bytes(line)) for name, line in asked.headers)
    times = struct.pack(">dd", entry.created_at_s, entry.lifetime_s)
    return bytes([VERSION]) + frame(*map(_bytes, texts), times, entry.digest, frame(*fields), asked.content)


def read(entry_id: bytes, document: bytes) -> Entry:
    """The entry that `written` was given.

    Raises:
        Unreadable: these are not the bytes of one, or of a newer release.
    """
    try:
        if document[0] != VERSION:
            raise Unreadable("an entry of a journal that a newer release wrote")
        *texts, times, digest, framed, content = unframed(document[1:])
        name, key, header, method, url = map(_text, texts)
        created_at_s, lifetime_s = struct.unpack(">dd", times)
        headers = tuple(_pair(*map(_text, unframed(pair))) for pair in unframed(framed))
    except (IndexError, ValueError, TypeError, struct.error) as error:
        raise error if isinstance(error, Unreadable) else Unreadable("an entry of the journal is damaged") from None
    return Entry(entry_id, name, key, header, Asked(method, url, headers, content), digest, created_at_s, lifetime_s)


def _pair(name: str, line: str) -> tuple[str, str]:
    return name, line


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
