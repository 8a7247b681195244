"""Responses at rest: what is encrypted says nothing, belongs to its record, and outlives the change of keys."""

from __future__ import annotations

import base64
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrysafe.encryption import KeyRing, key_ring
from retrysafe.errors import ConfigurationError
from retrysafe.model import Response
from retrysafe.protocol.snapshot import SEAL_BYTES, Snapshot, Unreadable, seal, unseal

OLD, NEW = os.urandom(32), os.urandom(32)
SECRET, RECORD_ID, OTHER_ID = b"s" * 32, b"r" * 32, b"q" * 32
CANARY = b"canary-4242-4242"
SNAPSHOT = Snapshot(
    Response(201, ((b"location", b"/" + CANARY),), CANARY), whole=True, size=16, digest=b"", origin=b"https://" + CANARY
)
RING = KeyRing([OLD])


@given(st.binary(max_size=2_000), st.binary(min_size=32, max_size=32))
def test_what_is_encrypted_is_decrypted(plain, record_id):
    """Every byte, for every record."""
    assert RING.decrypt(RING.encrypt(plain, record_id), record_id) == plain


def test_nothing_of_a_response_can_be_seen():
    """Neither its content nor its fields nor where the client came from; and twice the same is not the same."""
    stored = {seal(SNAPSHOT, RECORD_ID, SECRET, RING) for _ in range(50)}
    assert len(stored) == 50
    assert not [one for one in stored if CANARY in one or b"location" in one or b"https" in one]
    assert {unseal(one, RECORD_ID, SECRET, RING) for one in stored} == {SNAPSHOT}


@given(st.data())
def test_a_changed_byte_is_noticed(data):
    """Wherever it is: in the key's id, the nonce, the version or behind."""
    stored = bytearray(seal(SNAPSHOT, RECORD_ID, SECRET, RING))
    stored[data.draw(st.integers(0, len(stored) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Unreadable):
        unseal(bytes(stored), RECORD_ID, SECRET, RING)


@pytest.mark.parametrize("size", [0, 1, SEAL_BYTES, SEAL_BYTES + 1, SEAL_BYTES + 8])
def test_what_is_cut_off_is_unreadable(size):
    """However little of it is left."""
    with pytest.raises(Unreadable):
        unseal(seal(SNAPSHOT, RECORD_ID, SECRET, RING)[:size], RECORD_ID, SECRET, RING)


def test_a_response_belongs_to_its_record():
    """Moved to another record it does not decrypt, with the same keys and the same secret."""
    stored = seal(SNAPSHOT, RECORD_ID, SECRET, RING)
    with pytest.raises(Unreadable, match="another record"):
        unseal(stored, OTHER_ID, SECRET, RING)


def test_keys_change():
    """The new key encrypts, the old one still decrypts; without it what it encrypted cannot be read, and says why."""
    stored = seal(SNAPSHOT, RECORD_ID, SECRET, RING)
    both = KeyRing([NEW, OLD])
    assert unseal(stored, RECORD_ID, SECRET, both) == SNAPSHOT
    anew = seal(SNAPSHOT, RECORD_ID, SECRET, both)
    assert (both.is_current(stored[:32]), both.is_current(anew[:32])) == (False, True)
    assert unseal(anew, RECORD_ID, SECRET, KeyRing([NEW])) == SNAPSHOT
    for ring, why in ((KeyRing([NEW]), "not among encryption_keys"), (None, "there are no encryption_keys")):
        with pytest.raises(Unreadable, match=why):
            unseal(stored, RECORD_ID, SECRET, ring)


def test_what_was_stored_before_there_were_keys_is_read():
    """A response that is not encrypted is one whose key is not current, whatever it begins with."""
    plain = seal(SNAPSHOT, RECORD_ID, SECRET)
    assert unseal(plain, RECORD_ID, SECRET, RING) == SNAPSHOT
    assert not RING.is_current(plain[:32])
    assert not RING.is_current(seal(SNAPSHOT, RECORD_ID, SECRET, RING)[:4] + plain[4:32])


def test_who_has_the_secret_can_put_an_answer_in_place():
    """Not guaranteed: what is not encrypted is believed by its seal, beside what is. The secret alone keeps that."""
    forged = Snapshot(Response(200, (), b"forged"), whole=True, size=6, digest=b"", origin=b"")
    assert unseal(seal(forged, RECORD_ID, SECRET), RECORD_ID, SECRET, RING) == forged
    with pytest.raises(Unreadable):
        unseal(seal(forged, RECORD_ID, b"t" * 32), RECORD_ID, SECRET, RING)


@pytest.mark.parametrize("spelling", [
    lambda key: key,
    lambda key: key.hex(),
    lambda key: key.hex().upper(),
    lambda key: f" {key.hex()}\n",
    lambda key: base64.b64encode(key).decode(),
    lambda key: base64.urlsafe_b64encode(key).decode().rstrip("="),
])  # fmt: skip
def test_keys_as_people_write_them(spelling):
    """Raw, in hexadecimal, in either base64, with and without padding: the same key."""
    for key in (OLD, NEW, b"\xfb\xff" * 16):
        stored = KeyRing([key]).encrypt(CANARY, RECORD_ID)
        assert key_ring([spelling(key)]).decrypt(stored, RECORD_ID) == CANARY
        assert key_ring(spelling(key)).decrypt(stored, RECORD_ID) == CANARY  # without a list around it
    assert key_ring(f"{NEW.hex()}, {OLD.hex()}").is_current(KeyRing([NEW]).encrypt(CANARY, RECORD_ID))


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        ([], "names no key"),
        (" , ", "names no key"),
        (["swordfish"], "key number 1"),
        ([OLD, "swordfish" * 7], "key number 2"),
        ([OLD[:31]], "key number 1"),
        ([OLD.hex() + "00"], "key number 1"),
        ([OLD, NEW, OLD.hex()], "twice"),
    ],
)
def test_keys_that_cannot_be_used(keys, fault):
    """None, too short, too long, no key at all, or the same again: told by its place, never by what it is."""
    with pytest.raises(ConfigurationError, match=fault) as raised:
        key_ring(keys)
    assert "swordfish" not in str(raised.value)
    assert OLD.hex() not in str(raised.value)


def test_raw_keys_have_their_length():
    """A ring is made of whole keys."""
    with pytest.raises(ConfigurationError, match="exactly 32 bytes"):
        KeyRing([b"short"])


def test_a_ring_shows_no_key():
    """However it is printed."""
    assert OLD.hex() not in repr(RING)
    assert repr(OLD) not in repr(RING)
