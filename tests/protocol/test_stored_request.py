"""A request as stored bytes: what is kept of it, and for which record."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrysafe.encryption import KeyRing
from retrysafe.model import Head
from retrysafe.protocol.framing import frame
from retrysafe.protocol.snapshot import Kind, Unreadable, sealed
from retrysafe.protocol.stored_request import (
    STORED_REQUEST_BYTES_MAX,
    StoredRequest,
    seal_request,
    unseal_request,
    without_credentials,
)

SECRET = b"0123456789abcdef0123456789abcdef"
RECORD_ID = bytes(range(32))
RING = KeyRing([b"k" * 32])
TEXT = st.text(st.characters(codec=None), max_size=20)
BYTES = st.binary(max_size=20)
HEADERS = st.lists(st.tuples(BYTES, BYTES), max_size=5).map(tuple)
HEADS = st.builds(Head, method=TEXT, path=BYTES, query=BYTES, headers=HEADERS)
REQUESTS = st.builds(
    StoredRequest, key=TEXT, scope=TEXT, scheme=TEXT, root=TEXT, head=HEADS, body=st.binary(max_size=100)
)


def stored(body: bytes = b"") -> StoredRequest:
    """A request with this content."""
    return StoredRequest("key", "alice", "http", "", Head("POST", b"/", b"", ((b"a", b"1"), (b"a", b"2"))), body)


@given(REQUESTS)
def test_what_is_sealed_is_unsealed(request):
    """Every request comes back as it was; the order of its fields and their repetition too."""
    sealed_request = seal_request(request, RECORD_ID, SECRET, RING)
    assert sealed_request is not None
    assert unseal_request(sealed_request, RECORD_ID, SECRET, RING) == request


@given(st.integers(0), st.integers(1, 255))
def test_what_was_changed_is_not_read(at, change):
    """One changed byte anywhere, and it is refused."""
    changed = bytearray(seal_request(stored(b"content"), RECORD_ID, SECRET, RING) or b"")
    changed[at % len(changed)] ^= change
    with pytest.raises(Unreadable):
        unseal_request(bytes(changed), RECORD_ID, SECRET, RING)


def test_a_request_belongs_to_its_record():
    """Moved to another record, or put in the place of something else, it is not read."""
    sealed_request = seal_request(stored(), RECORD_ID, SECRET, RING) or b""
    with pytest.raises(Unreadable):
        unseal_request(sealed_request, bytes(32), SECRET, RING)
    for kind in (Kind.RESPONSE, Kind.JOURNAL):
        with pytest.raises(Unreadable):
            RING.decrypt(sealed_request, RECORD_ID, kind)


@pytest.mark.parametrize("document", [b"\x01", b"\x01" + frame(b"x"), b"\x01" + frame(*[b"x"] * 9), b"\x01xyz"])
def test_a_request_of_other_making_is_refused(document):
    """Whoever has the keys may write nonsense: it is refused as that."""
    with pytest.raises(Unreadable):
        unseal_request(sealed(document, RECORD_ID, SECRET, RING, Kind.REQUEST), RECORD_ID, SECRET, RING)


def test_what_is_too_large_is_not_kept():
    """To the byte."""
    fixed = STORED_REQUEST_BYTES_MAX
    while seal_request(stored(bytes(fixed)), RECORD_ID, SECRET, RING) is None:
        fixed -= 1
    assert STORED_REQUEST_BYTES_MAX - 200 < fixed < STORED_REQUEST_BYTES_MAX
    kept = seal_request(stored(bytes(fixed)), RECORD_ID, SECRET, RING)
    assert len(kept or b"") == STORED_REQUEST_BYTES_MAX + 17 + 16  # its seal and version; the tag of the cipher


def test_credentials_and_framing_are_left_out():
    """Whatever names them: the list, or the policy, in any case."""
    names = (b"authorization", b"cookie", b"proxy-authorization", b"x-api-key", b"transfer-encoding", b"connection")
    fields = tuple((name, b"x") for name in (*names, b"content-type", b"x-api-key-id", b"idempotency-key"))
    kept = without_credentials(fields, ("X-API-Key",))
    assert [name for name, _ in kept] == [b"content-type", b"x-api-key-id", b"idempotency-key"]
