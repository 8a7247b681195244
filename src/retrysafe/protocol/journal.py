"""What the steps of an operation came to, as stored bytes and back (contract R102).

An entry is written before the call, as an intent, and again after it, with the result. So a later attempt knows
of every call that may have gone out, and has the very bytes that went out with it. The format is data only,
versioned, and sealed or encrypted as a stored response is, bound to its record.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable
from typing import Any

from retrysafe.protocol.framing import frame, unframed
from retrysafe.protocol.snapshot import Encryption, Kind, Unreadable, sealed, unsealed
from retrysafe.value import value

VERSION = 1

# A journal is written as a whole, twice for each step, and must fit into one row or item of every store.
JOURNAL_BYTES_MAX = 256 << 10

_FIXED = struct.Struct(">QI")  # since_ms, sends
_JSON, _BYTES = b"j", b"b"

StepId = tuple[str, str]


class NotData(ValueError):
    """Neither bytes nor JSON data: it would not come back from a record as what it was."""


@value
class Entry:
    """One step.

    Attributes:
        name: of the step.
        target: whom it calls, where one step calls several.
        since_ms: the claim of the attempt that recorded the intent, by the store's clock; 0: of the first attempt.
        sends: how often the call was about to be made.
        input: what it is made with, as `encoded`; empty if there is none.
        result: what it came to, as `encoded`; empty while nobody knows.
    """

    name: str
    target: str
    since_ms: int
    sends: int
    input: bytes = b""
    result: bytes = b""

    @property
    def id(self) -> StepId:
        """What tells the steps of an operation apart."""
        return self.name, self.target


def encoded(data: Any) -> bytes:
    """Bytes, or JSON data in one spelling, as an entry keeps them.

    Raises:
        NotData: it is neither, or would come back as something else: a tuple, a number that is none, an enumeration.
    """
    if isinstance(data, bytes):
        return _BYTES + data
    try:
        text = json.dumps(data, separators=(",", ":"), sort_keys=True, allow_nan=False)
        same = _is_same(json.loads(text), data)
    except (TypeError, ValueError, RecursionError) as error:
        raise NotData(str(error)) from None
    if not same:
        raise NotData(f"a {type(data).__name__} that has something in it which JSON would change")
    return _JSON + text.encode()


def _is_same(read: Any, data: Any) -> bool:
    """Whether JSON data was read back as it was, in its types too: to Python `1` equals `True`."""
    if type(read) is not type(data):
        return False
    if isinstance(read, dict):
        return read.keys() == data.keys() and all(_is_same(read[name], data[name]) for name in read)
    if isinstance(read, list):
        return len(read) == len(data) and all(map(_is_same, read, data))
    return bool(read == data)


def decoded(kept: bytes) -> Any:
    """The data that `encoded` was given."""
    return kept[1:] if kept[:1] == _BYTES else json.loads(kept[1:])


def content(kept: bytes) -> bytes | None:
    """What was encoded as the bytes that go out: JSON data as its text; None if there is nothing."""
    return kept[1:] if kept else None


def size(entries: Iterable[Entry]) -> int:
    """How large the journal of these entries is, in bytes."""
    return len(_document(entries))


def seal_journal(
    entries: Iterable[Entry], record_id: bytes, secret: bytes, encryption: Encryption | None = None
) -> bytes:
    """The stored bytes of a journal, bound to its record; encrypted, if there is something to do it with."""
    return sealed(_document(entries), record_id, secret, encryption, Kind.JOURNAL)


def _document(entries: Iterable[Entry]) -> bytes:
    return bytes([VERSION]) + frame(*(_framed(entry) for entry in entries))


def _framed(entry: Entry) -> bytes:
    fixed = _FIXED.pack(entry.since_ms, entry.sends)
    return frame(_bytes(entry.name), _bytes(entry.target), fixed, entry.input, entry.result)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def unseal_journal(
    stored: bytes, record_id: bytes, secret: bytes, encryption: Encryption | None = None
) -> tuple[Entry, ...]:
    """The entries that `seal_journal` was given.

    Raises:
        Unreadable: the bytes are not a journal of this record, or cannot be decrypted.
    """
    document = unsealed(stored, record_id, secret, encryption, Kind.JOURNAL)
    try:
        return tuple(_entry(*unframed(framed)) for framed in unframed(document[1:]))
    except (ValueError, TypeError, struct.error):
        raise Unreadable("the journal of steps is not well-formed") from None


def _entry(name: bytes, target: bytes, fixed: bytes, given: bytes, result: bytes) -> Entry:
    since_ms, sends = _FIXED.unpack(fixed)
    return Entry(_text(name), _text(target), since_ms, sends, given, result)


def _text(text: bytes) -> str:
    return text.decode("utf-8", "surrogatepass")
