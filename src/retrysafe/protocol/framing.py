"""Fields joined so that they can be told apart again.

Every digest of several things is made of a frame, never of things joined by a delimiter: there
`("a:b", "c")` and `("a", "b:c")` would be the same (contract R21).
"""

from __future__ import annotations

from struct import pack


def frame(*fields: bytes) -> bytes:
    """How many fields, how long each is, then the fields; of none, nothing. Different fields never give the same."""
    if not fields:
        return b""
    return pack(f">{len(fields) + 1}I", len(fields), *map(len, fields)) + b"".join(fields)
