"""Multipart content, part by part: the boundary is made anew for each attempt and must not count (contract R28).

The content is read in a stream and only digests are kept, so an upload of any size costs the memory of
one window. The grammar is read strictly (CRLF, a closing delimiter, fields that name nothing twice),
because what readers could disagree about must not be compared by one reading of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from hashlib import sha256

from retrysafe.protocol.coding import windows
from retrysafe.protocol.framing import frame
from retrysafe.protocol.media import media_type, parameters

PARTS_MAX = 1_000
_BOUNDARY_BYTES_MAX = 70
_FIELDS_MAX = 32
_LINE_BYTES_MAX = 8_192
_PLAIN_ENCODINGS = (b"7bit", b"8bit", b"binary")


class _Malformed(ValueError):
    pass


def digest_of_parts(chunks: Iterable[bytes], boundary: bytes) -> bytes | None:
    """A digest of the parts in order: disposition with name and filename, media type, content; 32 bytes.

    Left out: the boundary, preamble and epilogue, other part fields, and order and case of part fields.

    Args:
        chunks: the content.
        boundary: from the media type; 1 to 70 bytes.

    Returns:
        None if the content is malformed or has more than `PARTS_MAX` parts.
    """
    if not 1 <= len(boundary) <= _BOUNDARY_BYTES_MAX:
        return None
    delimiter = b"\r\n--" + boundary
    scanner = _Scanner(chunks)
    digest = sha256()
    try:
        scanner.pass_over(delimiter, _ignore)
        for _ in range(PARTS_MAX + 1):
            if scanner.starts_with(b"--"):
                return digest.digest()
            if scanner.line().strip(b" \t"):
                return None
            digest.update(_description(scanner))
            content = sha256()
            scanner.pass_over(delimiter, content.update)
            digest.update(content.digest())
    except _Malformed:
        pass
    return None


def _description(scanner: _Scanner) -> bytes:
    fields: dict[bytes, bytes] = {}
    while line := scanner.line():
        name, colon, value = line.partition(b":")
        name = name.lower()
        if not colon or not name or name != name.strip() or name in fields or len(fields) == _FIELDS_MAX:
            raise _Malformed
        fields[name] = value.strip(b" \t")
    disposition, _, _ = fields.get(b"content-disposition", b"").partition(b";")
    named = parameters(fields.get(b"content-disposition", b"")[len(disposition) :])
    if named is None:
        raise _Malformed
    media = media_type([fields[b"content-type"]] if b"content-type" in fields else [])
    # Inner multiparts are not taken apart: what delimits them belongs to what they say.
    encoding = fields.get(b"content-transfer-encoding", b"").lower()
    return frame(
        frame(disposition.strip().lower(), *(part for pair in sorted(named.items()) for part in pair)),
        frame(*media),
        b"" if encoding in _PLAIN_ENCODINGS else encoding,
    )


def _ignore(_: bytes) -> None:
    pass


class _Scanner:
    """Reads a stream of chunks by delimiters, holding one window and at most one line."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = windows(chunks)
        self._buffer = b"\r\n"  # the delimiter begins with a line break, and the content may begin with the delimiter
        self._at = 0

    def pass_over(self, mark: bytes, sink: Callable[[bytes], None]) -> None:
        """Go behind the next `mark` and give what stands before it to `sink`."""
        while (found := self._buffer.find(mark, self._at)) < 0:
            safe = max(self._at, len(self._buffer) - len(mark) + 1)
            sink(self._buffer[self._at : safe])
            self._at = safe
            self._more()
        sink(self._buffer[self._at : found])
        self._at = found + len(mark)

    def line(self) -> bytes:
        """The rest of the line, and go behind its end."""
        while (end := self._buffer.find(b"\r\n", self._at)) < 0:
            if len(self._buffer) - self._at > _LINE_BYTES_MAX:
                raise _Malformed
            self._more()
        line = self._buffer[self._at : end]
        if len(line) > _LINE_BYTES_MAX or b"\r" in line or b"\n" in line:
            raise _Malformed
        self._at = end + 2
        return line

    def starts_with(self, mark: bytes) -> bool:
        """Whether `mark` comes next."""
        while len(self._buffer) - self._at < len(mark):
            self._more()
        return self._buffer.startswith(mark, self._at)

    def _more(self) -> None:
        chunk = next(self._chunks, None)
        if chunk is None:
            raise _Malformed
        self._buffer = self._buffer[self._at :] + chunk
        self._at = 0
