from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrysafe.protocol.coding import (
    WINDOW_BYTES,
    Undecodable,
    content_codings,
    decoded,
    expanded_bytes_max,
    windows,
)

MIB = 1 << 20


def in_pieces(content: bytes, size: int) -> Iterator[bytes]:
    return (content[at : at + size] for at in range(0, len(content), size))


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        ([], []),
        ([b""], []),
        ([b"identity"], []),
        ([b"GZip"], [b"gzip"]),
        ([b"deflate, identity ,\tgzip"], [b"deflate", b"gzip"]),
        ([b"gzip", b"br"], [b"gzip", b"br"]),
    ],
)
def test_names(lines, names):
    """Codings are a list in the order of application, in any case; identity is none."""
    assert content_codings(lines) == names


@given(st.binary(max_size=200_000), st.integers(1, 70_000), st.sampled_from([b"gzip", b"x-gzip", b"deflate"]))
def test_decoding_gives_the_content_back(content, size, name):
    """However the coded content is cut into pieces."""
    coded = zlib.compress(content) if name == b"deflate" else gzip.compress(content)
    assert b"".join(decoded(in_pieces(coded, size), [name], MIB)) == content


@pytest.mark.parametrize("name", [b"gzip", b"x-gzip", b"deflate"])
def test_decoding_reaches_far_back(name):
    """The whole window of the format is understood: a repetition from 32 000 bytes before."""
    far = b"".join(b"%d," % (at * at) for at in range(5_000))[:32_000] * 2
    coded = zlib.compress(far) if name == b"deflate" else gzip.compress(far)
    assert b"".join(decoded([coded], [name], MIB)) == far


def test_codings_are_undone_last_first():
    """What was applied last is removed first."""
    coded = gzip.compress(zlib.compress(b"content"))
    assert b"".join(decoded([coded], [b"deflate", b"gzip"], MIB)) == b"content"


GZIP = gzip.compress(b"content" * 100, mtime=0)


@pytest.mark.parametrize(
    ("coded", "names"),
    [
        (b"", [b"gzip"]),
        (b"plain", [b"gzip"]),
        (GZIP[:-1], [b"gzip"]),
        (GZIP[:12], [b"gzip"]),
        (GZIP[:-8] + b"\0" * 8, [b"gzip"]),
        (GZIP + b"x", [b"gzip"]),
        (GZIP + GZIP, [b"gzip"]),
        (GZIP, [b"deflate"]),
        (zlib.compress(b"x"), [b"gzip"]),
        (zlib.compress(b"x"), [b"x-gzip"]),
        (GZIP, [b"br"]),
        (GZIP, [b"gzip", b"gzip"]),
        (gzip.compress(gzip.compress(GZIP, mtime=0), mtime=0), [b"gzip", b"gzip", b"gzip"]),
    ],
)
@pytest.mark.parametrize("size", [1, 1_000])
def test_undecodable(coded, names, size):
    """Unknown, stacked too high, broken, cut short, or followed by more: not decoded, and not half decoded."""
    with pytest.raises(Undecodable):
        b"".join(decoded(in_pieces(coded, size), names, MIB))


def test_an_expansion_is_cut_short():
    """A bomb is given up at the limit: no more than that, and a window, is ever made of it."""
    pieces = decoded([gzip.compress(b"\0" * (64 * MIB))], [b"gzip"], MIB)
    made: list[int] = []
    with pytest.raises(Undecodable):
        made.extend(map(len, pieces))
    assert sum(made) <= MIB
    assert max(made) <= WINDOW_BYTES


def test_an_expansion_within_an_expansion_is_cut_short():
    """The limit holds for every layer."""
    bomb = gzip.compress(gzip.compress(b"\0" * (64 * MIB)))
    assert len(bomb) < 1_000
    with pytest.raises(Undecodable):
        b"".join(decoded([bomb], [b"gzip", b"gzip"], MIB))


def test_the_limit_is_exact():
    """Content of exactly the limit is decoded; one byte more is not."""
    coded = gzip.compress(b"x" * 1_000)
    assert len(b"".join(decoded([coded], [b"gzip"], 1_000))) == 1_000
    with pytest.raises(Undecodable):
        b"".join(decoded([coded], [b"gzip"], 999))


@pytest.mark.parametrize(
    ("coded_bytes", "bytes_max", "limit"),
    [(10, 9 * MIB, MIB), (10, 1_000, 1_000), (20_000, 9 * MIB, 2_000_000), (100_000, 9 * MIB, 9 * MIB)],
)
def test_how_large_content_may_become(coded_bytes, bytes_max, limit):
    """Small content may expand freely, larger a hundredfold, and none beyond what may be sent plainly."""
    assert expanded_bytes_max(coded_bytes, bytes_max) == limit


@given(st.lists(st.binary(max_size=10) | st.just(b"x" * 150_000), max_size=4))
def test_windows(chunks):
    """The same content, in pieces that are never large."""
    pieces = list(windows(chunks))
    assert b"".join(pieces) == b"".join(chunks)
    assert all(len(piece) <= WINDOW_BYTES for piece in pieces)
