"""Fields joined so that they can be told apart again.

Every digest of several things is made of a frame, never of things joined by a delimiter: there
`("a:b", "c")` and `("a", "b:c")` would be the same (contract R21).
"""

from __future__ import annotations

from struct import Struct, pack, unpack_from

# The counts of fields that every request has; prepared, because a format that is a text is looked up each time.
_LENGTHS = tuple(Struct(f">{count + 1}I") for count in range(16))


def frame(*fields: bytes) -> bytes:
    """How many fields, how long each is, then the fields; of none, nothing. Different fields never give the same."""
    if not fields:
        return b""
    count = len(fields)
    if count < len(_LENGTHS):
        return _LENGTHS[count].pack(count, *map(len, fields)) + b"".join(fields)
    return pack(f">{count + 1}I", count, *map(len, fields)) + b"".join(fields)


def unframed(framed: bytes) -> tuple[bytes, ...]:
    """The fields that `frame` was given.

    Raises:
        ValueError: these bytes are no frame.
    """
    if not framed:
        return ()
    count = int.from_bytes(framed[:4])
    at = 4 * (count + 1)
    if count == 0 or len(framed) < at:
        raise ValueError("no frame")
    fields = []
    for length in unpack_from(f">{count}I", framed, 4):
        fields.append(framed[at : at + length])
        at += length
    if at != len(framed):
        raise ValueError("no frame")
    return tuple(fields)
