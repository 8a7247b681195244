"""What is stored, encrypted at rest: AES-256-GCM under a ring of keys (contract R110). Needs the extra `crypto`.

Responses are, and with them the journals of steps and the requests that are kept to be sent again.
The first key of the ring encrypts, every key decrypts; so a new key is put in front, stored responses are
encrypted anew (`retrysafe keys rotate`), and the old key is taken out. Stored bytes name their key by an id
that says nothing of it.

Each record has a key of its own, derived from the ring's and the record's id (RFC 5869, one block, as the
ring's keys are random): so a nonce, which is random, is drawn under a derived key only as often as one record
is written, and there is no number of records after which a key must be changed. The record's id is also the
associated data: bytes that were moved to another record do not decrypt.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Sequence

from retrysafe.errors import ConfigurationError
from retrysafe.protocol.framing import frame
from retrysafe.protocol.mac import mac
from retrysafe.protocol.snapshot import ENCRYPTED_VERSION, SEAL_BYTES, Kind, Unreadable

try:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
except ModuleNotFoundError as missing:
    raise ConfigurationError([f'encryption needs {missing.name}: pip install "retrysafe[crypto]"']) from missing

KEY_BYTES = 32
ID_BYTES = 4
NONCE_BYTES = SEAL_BYTES - ID_BYTES  # both together stand where a plain response has its seal
_HEX = re.compile(r"[0-9A-Fa-f]{64}")
_VERSION = bytes([ENCRYPTED_VERSION])


class KeyRing:
    """Encrypts and decrypts stored responses.

    Args:
        keys: 32 bytes each. The first encrypts, all decrypt.

    Raises:
        ConfigurationError: there is none, or two are the same. No key is part of the message.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not keys:
            raise ConfigurationError(["encryption_keys names no key; give at least one, or leave the setting out"])
        if any(len(key) != KEY_BYTES for key in keys):
            raise ConfigurationError([f"encryption_keys: each key has exactly {KEY_BYTES} bytes"])
        self._keys = {mac(key, b"retrysafe encryption key id")[:ID_BYTES]: key for key in keys}
        if len(self._keys) != len(keys):
            raise ConfigurationError(["encryption_keys names a key twice, or two with the same id; make a new one"])
        self._first = next(iter(self._keys))

    def encrypt(self, plain: bytes, record_id: bytes, kind: Kind = Kind.RESPONSE) -> bytes:
        """The bytes to store: key id, nonce, version, and what only the ring can read."""
        nonce = os.urandom(NONCE_BYTES)
        associated = _associated(kind, self._first, record_id)
        sealed = _cipher(self._keys[self._first], record_id).encrypt(nonce, plain, associated)
        return self._first + nonce + _VERSION + sealed

    def decrypt(self, stored: bytes, record_id: bytes, kind: Kind = Kind.RESPONSE) -> bytes:
        """What was encrypted.

        Raises:
            Unreadable: its key is not on the ring, or the bytes were changed or are another record's.
        """
        key_id, nonce = stored[:ID_BYTES], stored[ID_BYTES:SEAL_BYTES]
        key = self._keys.get(key_id)
        if key is None:
            raise Unreadable(f"encrypted with the key {key_id.hex()}, which is not among encryption_keys")
        try:
            associated = _associated(kind, key_id, record_id)
            return _cipher(key, record_id).decrypt(nonce, stored[SEAL_BYTES + 1 :], associated)
        except InvalidTag:
            raise Unreadable("what was encrypted was changed, or belongs to another record") from None

    def is_current(self, head: bytes) -> bool:
        """Whether stored bytes that begin like this are encrypted with the first key."""
        return head[:ID_BYTES] == self._first and head[SEAL_BYTES : SEAL_BYTES + 1] == _VERSION


def _cipher(key: bytes, record_id: bytes) -> AESGCM:
    return AESGCM(mac(key, frame(b"retrysafe encryption key of a record", record_id) + b"\x01"))


def _associated(kind: Kind, key_id: bytes, record_id: bytes) -> bytes:
    return frame(b"retrysafe " + kind.value, _VERSION, key_id, record_id)


def key_ring(keys: str | bytes | Sequence[str | bytes]) -> KeyRing:
    """A ring of keys as people write them.

    Args:
        keys: each 32 random bytes, or these as 64 hexadecimal digits or in base64. One text may hold several,
            with commas or blanks between them; bytes alone are one key.

    Raises:
        ConfigurationError: one is neither. The message says which by its place, and nothing of it.
    """
    if isinstance(keys, bytes):
        keys = [keys]
    keys = keys.replace(",", " ").split() if isinstance(keys, str) else keys
    read = [key if isinstance(key, bytes) else _decoded(key) for key in keys]
    faults = [
        f"encryption_keys: key number {number} is not {KEY_BYTES} bytes, as 64 hexadecimal digits or in base64"
        for number, key in enumerate(read, 1)
        if key is None or len(key) != KEY_BYTES
    ]
    if faults:
        raise ConfigurationError(faults)
    return KeyRing([key for key in read if key is not None])


def _decoded(text: str) -> bytes | None:
    text = text.strip()
    if _HEX.fullmatch(text):
        return bytes.fromhex(text)
    alphabet = text.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(alphabet + "=" * (-len(alphabet) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None
