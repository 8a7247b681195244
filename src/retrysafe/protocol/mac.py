"""HMAC-SHA-256 (RFC 2104), as everything is digested that must not be guessed or forged.

It is the `hmac` of the standard library in half the time, and without one of its habits: `hmac.digest`
lets go of the interpreter for every message, however short, and a request has three of them; each would
be an invitation to the thread that commits to take over in the middle of a request.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256

_BLOCK_BYTES = 64
_INNER = bytes(byte ^ 0x36 for byte in range(256))
_OUTER = bytes(byte ^ 0x5C for byte in range(256))


def mac(secret: bytes, message: bytes) -> bytes:
    """The code of a message under a secret: 32 bytes."""
    inner, outer = _pads(secret)
    return sha256(outer + sha256(inner + message).digest()).digest()


@lru_cache(maxsize=16)
def _pads(secret: bytes) -> tuple[bytes, bytes]:
    if len(secret) > _BLOCK_BYTES:
        secret = sha256(secret).digest()
    block = secret.ljust(_BLOCK_BYTES, b"\0")
    return block.translate(_INNER), block.translate(_OUTER)
