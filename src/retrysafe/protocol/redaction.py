"""What of a response must not be kept (contract R111).

A redacted response is its own bytes, but for the values that JSON Pointers name: `null` stands in their
place. Nothing else of it changes, no space and no digit. What cannot be redacted is not kept at all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

from retrysafe.model import Response
from retrysafe.protocol.media import media_type

NULL = b"null"
_BLANK = re.compile(r"[ \t\n\r]*")
_DECODE = json.JSONDecoder().raw_decode


def redacted(response: Response, pointers: Sequence[str]) -> bytes | None:
    """The content without these values; None if it cannot be redacted, since it is no JSON that can be read here.

    Args:
        response: with its whole content.
        pointers: JSON Pointers (RFC 6901). One that names nothing here has no effect; of members that are
            named alike, each is meant.
    """
    types = [line for name, line in response.headers if name.lower() == b"content-type"]
    if not media_type(types).is_json or response.value(b"content-encoding") is not None:
        return None
    try:
        text = response.body.decode("utf-8")
        json.loads(text)
        spans = sorted({span for pointer in pointers for span in _spans(text, _begin(text, 0), _path(pointer))})
    except (ValueError, RecursionError):
        return None
    return _without(text, spans).encode()


def _without(text: str, spans: Sequence[tuple[int, int]]) -> str:
    """Null in the place of each span; spans are in order, and one may lie within the one before it."""
    parts, at = [], 0
    for begin, end in spans:
        if begin >= at:
            parts += [text[at:begin], NULL.decode()]
            at = end
    return "".join(parts) + text[at:]


def _path(pointer: str) -> tuple[str, ...]:
    return tuple(token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:])


def _spans(text: str, at: int, path: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    """Where the values are that a path leads to, from the value that begins at `at`."""
    if not path:
        yield at, _DECODE(text, at)[1]
        return
    for name, begin in _members(text, at):
        if name == path[0]:
            yield from _spans(text, begin, path[1:])


def _members(text: str, at: int) -> Iterator[tuple[str, int]]:
    """Name, or number, and beginning of each value in an object or an array; of anything else, nothing."""
    closing = {"{": "}", "[": "]"}.get(text[at])
    if closing is None:
        return
    number, at = 0, _begin(text, at + 1)
    while text[at] != closing:
        name = str(number)
        if closing == "}":
            name, at = _DECODE(text, at)
            at = _begin(text, _begin(text, at) + 1)  # past the colon
        yield name, at
        at = _begin(text, _DECODE(text, at)[1])
        if text[at] == ",":
            at = _begin(text, at + 1)
        number += 1


def _begin(text: str, at: int) -> int:
    """Past the blanks."""
    blank = _BLANK.match(text, at)
    return at if blank is None else blank.end()
