"""The parts of a media type, and of other fields with parameters (contract R30)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_JSON = re.compile(rb"application/json|" + _TOKEN + rb"/" + _TOKEN + rb"\+json")
_PARAMETER = re.compile(
    rb"[ \t]*(?:;[ \t]*(?:(" + _TOKEN + rb')=(?:"([^"\\]*(?:\\.[^"\\]*)*)"|([^\s";,]*)))?|\Z)', re.DOTALL
)


# Short ones are remembered: an API sees few, but for the boundaries of multipart content, which are longer.
_FAMILIAR_BYTES_MAX = 40


class MediaType(NamedTuple):
    """What of a `Content-Type` decides how the content is read.

    Attributes:
        essence: `type/subtype` in lower case; empty without the field; the whole field if it cannot be read.
        charset: lower case; empty for UTF-8 and for none.
        boundary: of multipart content; empty for any other, or if there is none.
    """

    essence: bytes
    charset: bytes
    boundary: bytes

    @property
    def is_json(self) -> bool:
        """Whether the content is JSON in UTF-8: `application/json`, or a subtype that ends in `+json`."""
        return not self.charset and (self.essence == b"application/json" or _JSON.fullmatch(self.essence) is not None)

    @property
    def is_form(self) -> bool:
        """Whether the content is the fields of a form, in UTF-8."""
        return not self.charset and self.essence == b"application/x-www-form-urlencoded"


def media_type(lines: Sequence[bytes]) -> MediaType:
    """The media type that `Content-Type` field lines declare.

    Two lines, or a field that breaks the grammar, may mean one thing to one reader and another to the
    next; such a field is not interpreted: all of it becomes the essence, which is no known type.
    """
    if len(lines) == 1 and len(lines[0]) <= _FAMILIAR_BYTES_MAX:
        return _familiar_type(lines[0])
    return _read_type(lines)


@lru_cache(maxsize=256)
def _familiar_type(line: bytes) -> MediaType:
    return _read_type((line,))


def _read_type(lines: Sequence[bytes]) -> MediaType:
    value = b", ".join(lines)
    essence, semicolon, _ = value.partition(b";")
    named = parameters(value[len(essence) :]) if semicolon else {}
    if named is None or len(lines) > 1:
        return MediaType(value, b"", b"")
    essence = essence.strip().lower()
    charset = named.get(b"charset", b"").lower()
    boundary = named.get(b"boundary", b"") if essence.startswith(b"multipart/") else b""
    return MediaType(essence, b"" if charset in (b"utf-8", b"utf8") else charset, boundary)


def parameters(text: bytes) -> dict[bytes, bytes] | None:
    """Parameters by lower-case name: `; name=value; name="value"`, escapes in quotes left as they are.

    Returns:
        None if the text is anything else, or names one twice.
    """
    named: dict[bytes, bytes] = {}
    at = 0
    while at < len(text):
        found = _PARAMETER.match(text, at)
        if not found:
            return None
        at = found.end()
        name, quoted, token = found.groups()
        if name is None:
            continue
        if name.lower() in named:
            return None
        named[name.lower()] = token if quoted is None else quoted
    return named
