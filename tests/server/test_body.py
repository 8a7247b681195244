"""Contents in memory and on disk."""

import pytest

from retrysafe.model import BytesBody
from retrysafe.server.body import CHUNK_BYTES, MEMORY_BYTES_MAX, Spool, SpooledBody


def spooled(*pieces, bytes_max=16 << 20):
    spool = Spool(bytes_max)
    for piece in pieces:
        spool.add(piece)
    return spool


@pytest.mark.parametrize("pieces", [[], [b""], [b"abc"], [b"a", b"", b"bc"], [b"x" * MEMORY_BYTES_MAX]])
def test_a_small_content_stays_in_memory(pieces):
    """Up to the limit itself."""
    body = spooled(*pieces).body()
    assert isinstance(body, BytesBody)
    assert body.read() == b"".join(pieces)


def test_a_large_content_goes_to_disk_and_reads_the_same():
    """Twice, and by two readers at once."""
    pieces = [bytes([n]) * 300_000 for n in range(5)]
    body = spooled(*pieces).body()
    assert isinstance(body, SpooledBody)
    assert (body.size, body.read()) == (1_500_000, b"".join(pieces))
    one, two = body.chunks(), body.chunks()
    assert next(one) == next(two) == pieces[0][:CHUNK_BYTES]


def test_it_says_when_a_piece_would_be_written():
    """So that an event loop hands it to a thread."""
    spool = spooled(b"x" * (MEMORY_BYTES_MAX - 1))
    assert not spool.writes(b"x")
    assert spool.writes(b"xx")


def test_more_than_is_allowed_is_let_go():
    """The spool is full and holds nothing."""
    spool = spooled(b"x" * 10, b"y", bytes_max=10)
    assert spool.full
    assert spooled(b"x" * 10, bytes_max=10).full is False
