"""The target of a request in one spelling: two spellings of one target are one request (contract R23, R24)."""

from __future__ import annotations

import re
from collections.abc import Collection

_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


def normal_path(path: bytes) -> bytes:
    """The concrete path with its needless escapes undone, the others in upper case, and no dot segments.

    Escapes of reserved characters stay: `/a%2Fb` and `/a/b` are different paths. So do doubled slashes.

    Args:
        path: raw, percent-escapes as sent.
    """
    if b"%" in path:
        path = _ESCAPE.sub(_normal_escape, path)
    if b"/." in path:
        path = _without_dot_segments(path)
    return path or b"/"


def sorted_pairs(text: bytes, excluded: Collection[bytes] = ()) -> list[bytes]:
    """The parameters of a query, or the fields of a form: name, value, name, value, decoded.

    They are sorted by name; the values of one name keep their order. A name without a value has an empty one.

    Args:
        text: raw, without the question mark.
        excluded: decoded names to leave out.
    """
    if not text:
        return []
    pieces = [piece.partition(b"=") for piece in text.split(b"&") if piece]
    pairs = [(_decoded(name), _decoded(value)) for name, _, value in pieces]
    pairs.sort(key=lambda pair: pair[0])
    return [part for pair in pairs if pair[0] not in excluded for part in pair]


def _normal_escape(escape: re.Match[bytes]) -> bytes:
    octet = int(escape[1], 16)
    return bytes((octet,)) if octet in _UNRESERVED else escape[0].upper()


def _without_dot_segments(path: bytes) -> bytes:
    """RFC 3986, 5.2.4, for a path that begins with a slash."""
    first, *segments = path.split(b"/")
    kept = [first]
    for segment in segments:
        if segment == b"..":
            del kept[max(1, len(kept) - 1) :]
        elif segment != b".":
            kept.append(segment)
    if segments[-1] in (b".", b".."):
        kept.append(b"")
    return b"/".join(kept)


def _decoded(text: bytes) -> bytes:
    text = text.replace(b"+", b" ")
    return _ESCAPE.sub(lambda escape: bytes((int(escape[1], 16),)), text) if b"%" in text else text
