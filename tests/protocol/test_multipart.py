from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrysafe.protocol.multipart import digest_of_parts


@dataclass(frozen=True)
class Part:
    """One part of a form with files."""

    name: str
    content: bytes
    filename: str | None = None
    media: str | None = None

    def written(self, delimiter: bytes) -> bytes:
        """The part as it is sent, with the delimiter before it."""
        disposition = f'form-data; name="{self.name}"' + (
            f'; filename="{self.filename}"' if self.filename is not None else ""
        )
        media = f"Content-Type: {self.media}\r\n" if self.media is not None else ""
        return delimiter + f"\r\nContent-Disposition: {disposition}\r\n{media}\r\n".encode() + self.content + b"\r\n"


FORM = [Part("title", b"Holiday"), Part("photo", b"\xff\xd8\r\n--b\r\n\0", "a b.jpg", "image/jpeg"), Part("empty", b"")]


def written(parts: list[Part], boundary: bytes = b"boundary-1") -> bytes:
    return b"".join(part.written(b"--" + boundary) for part in parts) + b"--" + boundary + b"--\r\n"


def digest(content: bytes, boundary: bytes = b"boundary-1", size: int = 1 << 20) -> bytes | None:
    return digest_of_parts((content[at : at + size] for at in range(0, len(content), size)), boundary)


PARTS = st.builds(
    Part,
    name=st.sampled_from(["a", "b", "é", ""]),
    content=st.lists(st.sampled_from([b"a", b"\r", b"\n", b"\r\n", b"--", b"-", b"\0", b"\r\n--bound"])).map(b"".join),
    filename=st.none() | st.sampled_from(["", "a", "b.txt", "c;d"]),
    media=st.none() | st.sampled_from(["text/plain", "image/png", "text/plain; charset=latin1"]),
)
FORMS = st.lists(PARTS, max_size=4)


@given(FORMS, st.integers(1, 60))
def test_the_boundary_does_not_count(parts, size):
    """The same parts are the same form with any boundary, and however the content arrives."""
    once = digest(written(parts, b"XyZ"), b"XyZ", size)
    assert once == digest(written(parts, b"another one"), b"another one") is not None


@given(FORMS, FORMS)
def test_everything_else_counts(one, other):
    """Name, file name, type, content and order of parts: another form has another digest."""
    assert (digest(written(one)) == digest(written(other))) == (one == other)


@pytest.mark.parametrize("at", [0, 1])
@pytest.mark.parametrize(
    "change", [{"name": "other"}, {"content": b"Holidaz"}, {"filename": "c"}, {"filename": ""}, {"media": "text/csv"}]
)
def test_any_change_of_a_part(at, change):
    """One byte of one part is enough."""
    changed = list(FORM)
    changed[at] = replace(FORM[at], **change)
    assert digest(written(changed)) != digest(written(FORM))


@pytest.mark.parametrize("at", range(len(written(FORM))))
def test_any_flipped_bit(at):
    """Flip one bit anywhere: the form is another, or none, unless it stands where nothing counts."""
    content = bytearray(written(FORM))
    content[at] ^= 0x01
    case_of_a_field_name_or_what_follows_the_end = at >= len(content) - 2
    assert case_of_a_field_name_or_what_follows_the_end or digest(bytes(content)) != digest(written(FORM))


def test_what_does_not_count():
    """Preamble, epilogue, padding, order and case of part fields, other part fields, quotes, a plain encoding."""
    plain = written([Part("a", b"1", "f", "text/plain")])
    other = (
        b"This is a message in several parts.\r\n--boundary-1 \t\r\n"
        b"content-type:  Text/Plain;charset=utf-8\r\nX-Trace: 1\r\nContent-Length: 1\r\n"
        b"CONTENT-DISPOSITION: Form-Data ;filename=f; name=a\r\nContent-Transfer-Encoding: Binary\r\n\r\n1\r\n"
        b"--boundary-1--\r\nGood bye"
    )
    assert digest(plain) == digest(other) is not None


def test_an_encoding_counts():
    """The same characters in another encoding are another content."""
    encoded = b'--b\r\nContent-Disposition: form-data; name="a"\r\nContent-Transfer-Encoding: %s\r\n\r\nMQ==\r\n--b--'
    assert digest(encoded % b"base64", b"b") != digest(encoded % b"7bit", b"b") == digest(encoded % b"8bit", b"b")


def test_inner_multiparts_keep_their_boundary():
    """What is nested is not taken apart, so what delimits it belongs to it."""
    inner = Part("a", b"--x\r\n\r\n1\r\n--y\r\n\r\n2\r\n", media="multipart/mixed; boundary=x")
    assert digest(written([inner])) != digest(written([replace(inner, media="multipart/mixed; boundary=y")]))


ONE = b'Content-Disposition: form-data; name="a"\r\n'


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no delimiter",
        b"--b",
        b"--b\r\n",
        b"--b\r\n" + ONE + b"\r\n1\r\n",  # cut before the end
        b"--b\r\n" + ONE + b"\r\n1\r\n--b",
        b"--b\r\n" + ONE + b"\r\n1\r\n--b-",
        b"--b\n" + ONE + b"\r\n1\r\n--b--",  # a bare line feed
        b"--b\r\nContent-Disposition: form-data\nx: y\r\n\r\n1\r\n--b--",
        b"--b\r\nContent-Disposition: form-data\rx: y\r\n\r\n1\r\n--b--",
        b"--bb\r\n" + ONE + b"\r\n1\r\n--b--",  # a longer boundary
        b"--b\r\n" + ONE + b"\r\n1\r\n--b\r\n--b--",  # a delimiter in the place of a part
        b"--b\r\n" + ONE + ONE + b"\r\n1\r\n--b--",  # which of the two?
        b"--b\r\nContent-Type: a/b\r\ncontent-type: c/d\r\n\r\n1\r\n--b--",
        b'--b\r\nContent-Disposition: form-data; name="a"; name="b"\r\n\r\n1\r\n--b--',
        b'--b\r\nContent-Disposition: form-data; name="a\r\n\r\n1\r\n--b--',
        b"--b\r\nContent-Disposition : form-data\r\n\r\n1\r\n--b--",
        b"--b\r\nContent-Disposition: form-data;\r\n name=a\r\n\r\n1\r\n--b--",  # folded
        b"--b\r\nno colon\r\n\r\n1\r\n--b--",
        b"--b\r\n: v\r\n\r\n1\r\n--b--",
        b"--b\r\nX: " + b"x" * 8_190 + b"\r\n\r\n1\r\n--b--",
        b"--b\r\nX: " + b"x" * 200_000,
        b"--b\r\n" + b"".join(b"X-%d: y\r\n" % at for at in range(33)) + b"\r\n1\r\n--b--",
    ],
)
def test_malformed(content):
    """What readers could understand differently is not understood at all."""
    assert digest(content, b"b") is None
    assert digest(content, b"b", 1) is None


def test_limits_of_a_part():
    """32 fields in lines of 8192 bytes are read."""
    lines = b"X: " + b"x" * 8_189 + b"\r\n" + b"".join(b"X-%d: y\r\n" % at for at in range(31))
    for size in (1 << 20, 8_200, 100):
        assert digest(b"--b\r\n" + lines + b"\r\n1\r\n--b--", b"b", size) is not None


def test_a_line_without_end_is_not_waited_for():
    """Reading stops soon after the limit: the rest of the content is not even asked for."""
    chunks = iter([b"--b\r\nX: ", *[b"x" * 1_000] * 1_000])
    assert digest_of_parts(chunks, b"b") is None
    assert len(list(chunks)) > 980


def test_a_boundary_has_a_length():
    """No boundary, or one beyond RFC 2046, is none."""
    assert digest(written(FORM, b"x" * 70), b"x" * 70)
    assert digest(written(FORM, b"x" * 71), b"x" * 71) is None
    assert digest(written(FORM, b""), b"") is None


def test_the_number_of_parts_is_limited():
    """More parts than any form has are not read one by one."""
    assert digest(written([Part("a", b"")] * 1_000))
    assert digest(written([Part("a", b"")] * 1_001)) is None
    assert digest(b"--boundary-1--") == digest(b"preamble\r\n--boundary-1--") is not None
