"""Content codings removed, so that a request sent with gzip and then without is one request (contract R29).

Both sides of every limit are safe: content that is not decoded is compared as it was sent.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence

WINDOW_BYTES = 65_536
EXPANSION_MAX = 100
EXPANDED_BYTES_FREE = 1 << 20
_CODINGS_MAX = 2
_WBITS = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}


class Undecodable(ValueError):
    """The content cannot be decoded, or only into more than it may become."""


def content_codings(lines: Sequence[bytes]) -> list[bytes]:
    """The codings in `Content-Encoding` field lines, in lower case, in the order in which they were applied."""
    if not lines:
        return []
    names = [name.strip().lower() for name in b",".join(lines).split(b",")]
    return [name for name in names if name not in (b"", b"identity")]


def expanded_bytes_max(coded_bytes: int, bytes_max: int) -> int:
    """How large coded content may become.

    Up to `EXPANDED_BYTES_FREE` any content, beyond it `EXPANSION_MAX` times its size, so that a small request
    cannot cause much work; and never more than `bytes_max`, which is what may be sent without a coding.
    """
    return min(bytes_max, max(EXPANDED_BYTES_FREE, EXPANSION_MAX * coded_bytes))


def decoded(chunks: Iterable[bytes], codings: list[bytes], bytes_max: int) -> Iterator[bytes]:
    """The content without its codings, in pieces of at most `WINDOW_BYTES`.

    Args:
        chunks: the coded content.
        codings: as from `content_codings`.
        bytes_max: of what any one decoding may give.

    Raises:
        Undecodable: unknown or too many codings, broken or cut or followed by more, or too large.
    """
    if len(codings) > _CODINGS_MAX:
        raise Undecodable
    decoding = windows(chunks)
    for name in reversed(codings):
        if name not in _WBITS:
            raise Undecodable
        decoding = _inflated(decoding, _WBITS[name], bytes_max)
    yield from decoding


def windows(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The same content in pieces of at most `WINDOW_BYTES`, so that working on a piece never copies the whole."""
    for chunk in chunks:
        if len(chunk) <= WINDOW_BYTES:
            yield chunk
        else:
            yield from (chunk[at : at + WINDOW_BYTES] for at in range(0, len(chunk), WINDOW_BYTES))


def _inflated(chunks: Iterable[bytes], wbits: int, bytes_max: int) -> Iterator[bytes]:
    try:
        size = 0
        for piece in _pieces(chunks, zlib.decompressobj(wbits)):
            size += len(piece)
            if size > bytes_max:
                raise Undecodable
            yield piece
    except zlib.error as error:
        raise Undecodable from error


def _pieces(chunks: Iterable[bytes], inflater: zlib._Decompress) -> Iterator[bytes]:
    for chunk in chunks:
        rest = chunk
        while rest:
            if inflater.eof:
                # A second member is legal in gzip, and thousands of empty ones a cheap way to make us work.
                raise Undecodable
            yield inflater.decompress(rest, WINDOW_BYTES)
            rest = inflater.unconsumed_tail or inflater.unused_data
    yield inflater.flush()  # all input is taken, so this is no more than the end of a match
    if not inflater.eof:
        raise Undecodable
