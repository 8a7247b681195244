from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from retrysafe.protocol.framing import frame

FIELDS = st.lists(st.binary(max_size=6) | st.sampled_from([b"", b"\0", b"\0\0\0\1", b"a"]), max_size=5)


@given(FIELDS, FIELDS)
def test_different_fields_give_different_frames(one, other):
    """No two lists of fields have the same frame, whatever bytes they hold and however they are cut."""
    assert (frame(*one) == frame(*other)) == (one == other)


@given(FIELDS, FIELDS)
def test_a_frame_in_a_frame_is_no_longer_list(one, other):
    """A list of fields, framed as one field, is not mistaken for those fields."""
    assert frame(frame(*one), *other) != frame(*one, *other)
