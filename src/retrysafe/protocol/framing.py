"""Fields joined so that they can be told apart again.

Every digest of several things is made of a frame, never of things joined by a delimiter: there
`("a:b", "c")` and `("a", "b:c")` would be the same (contract R21).
"""

from __future__ import annotations

from struct import pack, unpack_from


def frame(*fields: bytes) -> bytes:
    """How many fields, how long each is, then the fields; of none, nothing. Different fields never give the same."""
    if not fields:
        return b""
    return pack(f">{len(fields) + 1}I", len(fields), *map(len, fields)) + b"".join(fields)


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
