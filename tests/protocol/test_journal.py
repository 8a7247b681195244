"""The journal of an operation's steps as stored bytes, and what may stand in it."""

from __future__ import annotations

import enum
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from retrysafe.encryption import KeyRing
from retrysafe.protocol.framing import frame, unframed
from retrysafe.protocol.journal import Entry, NotData, content, decoded, encoded, seal_journal, unseal_journal
from retrysafe.protocol.snapshot import Kind, Unreadable, sealed

SECRET = b"0123456789abcdef0123456789abcdef"
RECORD_ID = bytes(range(32))
RING = KeyRing([b"k" * 32])
TEXT = st.text(st.characters(codec=None), max_size=20)  # half surrogate pairs too
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=10,
)
KEPT = st.just(b"") | st.one_of(JSON, st.binary(max_size=50)).map(encoded)
ENTRIES = st.lists(
    st.builds(
        Entry, name=TEXT, target=TEXT, since_ms=st.integers(0, 2**63), sends=st.integers(0, 2**32 - 1),
        input=KEPT, result=KEPT,
    ),
    max_size=5,
)  # fmt: skip


@given(entries=ENTRIES, encryption=st.sampled_from([None, RING]))
def test_what_is_sealed_is_unsealed(entries, encryption):
    """Every journal comes back as it was, plain and encrypted."""
    stored = seal_journal(entries, RECORD_ID, SECRET, encryption)
    assert unseal_journal(stored, RECORD_ID, SECRET, encryption) == tuple(entries)


@given(entries=ENTRIES, at=st.integers(0), change=st.integers(1, 255), encryption=st.sampled_from([None, RING]))
def test_what_was_changed_is_not_read(entries, at, change, encryption):
    """One changed byte anywhere, and the journal is refused."""
    stored = bytearray(seal_journal(entries, RECORD_ID, SECRET, encryption))
    stored[at % len(stored)] ^= change
    with pytest.raises(Unreadable):
        unseal_journal(bytes(stored), RECORD_ID, SECRET, encryption)


@pytest.mark.parametrize("encryption", [None, RING])
def test_a_journal_belongs_to_its_record(encryption):
    """It is not read for another record, nor are bytes of another kind read as a journal."""
    entry = Entry("charge", "", 0, 1)
    stored = seal_journal([entry], RECORD_ID, SECRET, encryption)
    with pytest.raises(Unreadable):
        unseal_journal(stored, bytes(32), SECRET, encryption)
    document = b"\x01" + frame()
    assert (
        unseal_journal(sealed(document, RECORD_ID, SECRET, encryption, Kind.JOURNAL), RECORD_ID, SECRET, encryption)
        == ()
    )
    for kind in (Kind.RESPONSE, Kind.REQUEST):
        with pytest.raises(Unreadable):
            unseal_journal(sealed(document, RECORD_ID, SECRET, encryption, kind), RECORD_ID, SECRET, encryption)


@pytest.mark.parametrize("document", [b"\x01\x00", b"\x01" + frame(b"", b""), b"\x01" + frame(frame(*[b"x"] * 5))])
def test_a_journal_of_other_making_is_refused(document):
    """Whoever has the secret may write nonsense: it is refused as that, and not with an error of its own."""
    with pytest.raises(Unreadable):
        unseal_journal(sealed(document, RECORD_ID, SECRET, None, Kind.JOURNAL), RECORD_ID, SECRET)


@given(JSON | st.binary(max_size=50))
@example(0)
@example("")
@example([])
@example({})
@example(None)
@example(False)
@example(b"")
@example(-0.0)
def test_data_comes_back_as_itself(data):
    """In its types too: to Python 0, 0.0 and False are equal."""
    again = decoded(encoded(data))
    assert repr(again) == repr(data if isinstance(data, bytes) else json.loads(json.dumps(data, sort_keys=True)))
    assert again == data


class Colour(enum.IntEnum):
    """A number that would come back as a plain one."""

    RED = 1


@pytest.mark.parametrize(
    "data",
    [(1, 2), {1: 2}, [(1,)], {"a": (1,)}, {1, 2}, object(), float("nan"), [float("inf")], Colour.RED, bytearray(b"x")],
    ids=lambda data: type(data).__name__,
)
def test_what_would_change_is_no_data(data):
    """What JSON would change, or cannot hold, is refused."""
    with pytest.raises(NotData):
        encoded(data)


def test_data_that_never_ends_is_no_data():
    """A list that contains itself."""
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(NotData):
        encoded(endless)


def test_json_has_one_spelling():
    """The order of members does not matter; what goes out is the text."""
    assert encoded({"b": 1, "a": [2]}) == encoded({"a": [2], "b": 1})
    assert content(encoded({"b": 1, "a": "é"})) == b'{"a":"\\u00e9","b":1}'
    assert content(encoded(b"\x00{")) == b"\x00{"
    assert content(b"") is None


@given(st.lists(st.binary(max_size=20), max_size=5))
def test_frames_come_apart_again(fields):
    """As they were put together."""
    assert unframed(frame(*fields)) == tuple(fields)


@given(st.binary(min_size=1, max_size=40))
def test_no_frame_is_told(framed):
    """Any other bytes are refused, or are the frame of what they give."""
    try:
        fields = unframed(framed)
    except ValueError:
        return
    assert frame(*fields) == framed
