from __future__ import annotations

import gzip
import hmac
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrysafe.model import Body, BytesBody, Head, Request
from retrysafe.protocol.fingerprint import CANONICAL_BYTES_MAX, fingerprint_of, matches
from retrysafe.protocol.framing import frame
from retrysafe.protocol.policy import Policy

SECRET = b"a secret for tests, 32 bytes long"
FULL = Policy()
JSON = b"application/json"
FORM = b"application/x-www-form-urlencoded"


@dataclass(frozen=True)
class Spooled:
    """Content that comes in small pieces, and is not to be had in one piece if it is large."""

    content: bytes
    chunk_bytes: int = 1_000

    @property
    def size(self) -> int:
        """Known before."""
        return len(self.content)

    def chunks(self) -> Iterator[bytes]:
        """The only way to have what is large."""
        return (self.content[at : at + self.chunk_bytes] for at in range(0, self.size, self.chunk_bytes))

    def read(self) -> bytes:
        """All of it; fails the test if it is large."""
        assert self.size <= CANONICAL_BYTES_MAX, "a large content was read whole"
        return self.content


def request(
    content: bytes | Body = b"",
    media: bytes | None = None,
    coding: bytes | None = None,
    *,
    method: str = "POST",
    path: bytes = b"/charges",
    query: bytes = b"",
    **fields: bytes,
) -> Request:
    """A request; further field names are written with underscores."""
    headers = [(name.replace("_", "-").encode(), value) for name, value in fields.items()]
    headers += [(b"content-type", media)] if media is not None else []
    headers += [(b"content-encoding", coding)] if coding is not None else []
    return Request(
        Head(method, path, query, tuple(headers)), BytesBody(content) if isinstance(content, bytes) else content
    )


def fingerprint(*arguments, policy: Policy = FULL, **named) -> bytes:
    return fingerprint_of(request(*arguments, **named), policy, SECRET)


def multipart(boundary: bytes, content: bytes = b"1") -> tuple[bytes, bytes]:
    text = b'--%s\r\nContent-Disposition: form-data; name="a"\r\n\r\n%s\r\n--%s--\r\n' % (boundary, content, boundary)
    return text, b"multipart/form-data; boundary=" + boundary


TEXT = b'{"amount":1,"note":"x"}'
LARGE = json.dumps(["x" * 100] * 1_000).encode()

SAME = {
    "members in another order": (request(TEXT, JSON), request(b'{ "note": "x",\n"amount": 1.0 }', JSON)),
    "escapes": (request(b'"a"', JSON), request(rb'"\u0061"', JSON)),
    "numbers": (request(b"[1,0]", JSON), request(b"[10e-1,-0.0]", JSON)),
    "a structured suffix": (request(b"[1, 2]", b"a/b+json"), request(b"[1,2]", b"A/B+JSON; v=1")),
    "a charset that says nothing new": (request(b"[ ]", JSON), request(b"[]", b"application/json;charset=UTF-8")),
    "fields of a form in another order": (request(b"a=1&b=2&a=3", FORM), request(b"b=2&a=1&%61=3", FORM)),
    "parameters in another order": (request(query=b"a=1&b=x%20y"), request(query=b"b=x+y&a=1")),
    "an empty query": (request(), request(query=b"&")),
    "an escaped path": (request(path=b"/a/~b"), request(path=b"/x/../%61/%7Eb")),
    "another boundary": (request(*multipart(b"one")), request(*multipart(b"two"))),
    "gzip": (request(TEXT, JSON), request(gzip.compress(TEXT), JSON, b"gzip")),
    "gzip of another time and strength": (
        request(gzip.compress(LARGE, 1, mtime=1), JSON, b"gzip"),
        request(gzip.compress(LARGE, 9, mtime=2), JSON, b"x-gzip"),
    ),
    "gzip, in another order": (request(TEXT, JSON), request(gzip.compress(b'{"note":"x","amount":1}'), JSON, b"GZIP")),
    "deflate": (request(b"x", b"text/plain"), request(zlib.compress(b"x"), b"text/plain", b"deflate")),
    "identity": (request(b"x"), request(b"x", None, b"identity")),
    "a large content, coded": (request(LARGE, JSON), request(gzip.compress(LARGE), JSON, b"gzip")),
    "a form in gzip": (
        request(*multipart(b"one")),
        request(gzip.compress(multipart(b"x")[0]), multipart(b"x")[1], b"gzip"),
    ),
    "no content, however described": (request(), request(b"", JSON)),
    "no content, coded": (request(), request(gzip.compress(b""), JSON, b"gzip")),
    "no content, with a coding": (request(), request(b"", None, b"gzip")),
    "what each attempt has anew": (
        request(
            TEXT, JSON, authorization=b"Bearer 1", date=b"1", traceparent=b"1", idempotency_key=b"k", accept=b"*/*"
        ),
        request(TEXT, JSON, authorization=b"Bearer 2", user_agent=b"y", signature=b"z", idempotency_key=b'"k"'),
    ),
    "content in pieces": (request(LARGE, JSON), request(Spooled(LARGE), JSON)),
    "duplicate members, sent again": (request(b'{"a":1,"a":2}', JSON), request(b'{"a":1,"a":2}', JSON)),
}

DIFFERENT = {
    "a value": (request(TEXT, JSON), request(b'{"amount":2,"note":"x"}', JSON)),
    "a member more": (request(TEXT, JSON), request(b'{"amount":1,"note":"x","z":null}', JSON)),
    "the order of an array": (request(b"[1,2]", JSON), request(b"[2,1]", JSON)),
    "integers that a double cannot tell apart": (
        request(b'{"id":9007199254740992}', JSON),
        request(b'{"id":9007199254740993}', JSON),
    ),
    "a number and its digits": (request(b"[1]", JSON), request(b'["1"]', JSON)),
    "an empty array and an empty object": (request(b"[]", JSON), request(b"{}", JSON)),
    "an empty object and no content": (request(b"{}", JSON), request(b"", JSON)),
    "null and no content": (request(b"null", JSON), request(b"", JSON)),
    "a member sent twice and the one that would win": (request(b'{"a":1,"a":2}', JSON), request(b'{"a":2}', JSON)),
    "a member sent twice, in another order": (request(b'{"a":1,"a":2}', JSON), request(b'{"a":2,"a":1}', JSON)),
    "text that only looks canonical": (request(b'{"a":1,"a":1}', JSON), request(b'{"a":1}', JSON)),
    "bytes that are no text": (request(b'"\xff"', JSON), request(b'"\xfe"', JSON)),
    "a charset": (request(b'"x"', JSON), request(b'"x"', b"application/json; charset=utf-16")),
    "a charset of text": (request(b"x", b"text/plain"), request(b"x", b"text/plain; charset=latin1")),
    "a media type": (request(b"[1]", JSON), request(b"[1]", b"text/plain")),
    "JSON and what is not called so": (request(b"[1]", JSON), request(b"[ 1]", b"text/plain")),
    "JSON, by a field of two types": (request(b"[ 1]", JSON + b", a/b+json"), request(b"[1]", JSON + b", a/b+json")),
    "a field of a form": (request(b"a=1", FORM), request(b"a=2", FORM)),
    "the order of values of one field": (request(b"a=1&a=2", FORM), request(b"a=2&a=1", FORM)),
    "where a field ends": (request(b"a=1&b=2", FORM), request(b"a=1%26b=2", FORM)),
    "a method": (request(TEXT, JSON), request(TEXT, JSON, method="PATCH")),
    "an endpoint": (request(TEXT, JSON, path=b"/pay"), request(TEXT, JSON, path=b"/pay2")),
    "a path parameter": (request(path=b"/t/1"), request(path=b"/t/2")),
    "an escaped slash": (request(path=b"/t/a%2Fb"), request(path=b"/t/a/b")),
    "a parameter": (request(query=b"a=1"), request(query=b"a=2")),
    "a parameter of the query and one of the form": (request(query=b"a=1"), request(b"a=1", FORM)),
    "the path and the query": (request(path=b"/a", query=b"b"), request(path=b"/a?b")),
    "a byte of a file": (request(*multipart(b"b", b"1")), request(*multipart(b"b", b"2"))),
    "parts that are not well formed": (
        request(b"--a\n\n1\n--b\n\n2\n--a--", b"multipart/mixed; boundary=a"),
        request(b"--a\n\n1\n--b\n\n2\n--a--", b"multipart/mixed; boundary=b"),
    ),
    "the last byte of a large content": (request(b"x" * 3_000_000 + b"y"), request(b"x" * 3_000_000 + b"z")),
    "a coding that is unknown here": (request(b"x", JSON, b"br"), request(b"x", JSON, b"zstd")),
    "coded content and its bytes as they are": (request(b"x", JSON, b"br"), request(b"x", JSON)),
    "what is called gzip and is not": (request(b"[]", JSON, b"gzip"), request(b"[]", JSON)),
    "JSON too large to be compared by meaning": (request(LARGE, JSON), request(LARGE + b" ", JSON)),
}  # fmt: skip


@pytest.mark.parametrize(("one", "other"), SAME.values(), ids=SAME)
def test_the_same_request(one, other):
    """What only looks different is the same request, so that a good retry is never refused."""
    assert fingerprint_of(one, FULL, SECRET) == fingerprint_of(other, FULL, SECRET)
    assert matches(fingerprint_of(one, FULL, SECRET), other, FULL, SECRET)


@pytest.mark.parametrize(("one", "other"), DIFFERENT.values(), ids=DIFFERENT)
def test_another_request(one, other):
    """What differs is another request, so that it never gets this one's answer."""
    assert fingerprint_of(one, FULL, SECRET) != fingerprint_of(other, FULL, SECRET)
    assert not matches(fingerprint_of(one, FULL, SECRET), other, FULL, SECRET)


def test_a_large_content_is_never_held_whole():
    """Raw, coded and in parts: everything large goes through in pieces."""
    noise = b"".join(b"%d," % (at * 7_919) for at in range(60_000))
    for content, media, coding in (
        (noise, b"text/plain", None),
        (noise, JSON, None),
        (gzip.compress(noise), JSON, b"gzip"),
        (*multipart(b"b", noise), None),
    ):
        assert len(content) > CANONICAL_BYTES_MAX
        assert fingerprint(Spooled(content), media, coding) == fingerprint(content, media, coding)


def test_where_meaning_ends():
    """Up to 64 KiB of content JSON is compared by meaning; stored fingerprints depend on that limit."""
    small, large = (b'["' + b"x" * size + b'"]' for size in (65_536 - 5, 65_536 - 4))
    assert fingerprint(small, JSON) == fingerprint(small[:-1] + b" ]", JSON)
    assert fingerprint(large, JSON) == fingerprint(Spooled(large), JSON)
    assert fingerprint(large, JSON) != fingerprint(large[:-1] + b" ]", JSON)


def test_a_bomb_is_compared_as_it_was_sent():
    """Content that expands beyond bounds is one request with itself, and with nothing else."""
    bomb = gzip.compress(b"\0" * (32 << 20))
    assert fingerprint(bomb, JSON, b"gzip") == fingerprint(bomb, JSON, b"gzip")
    assert fingerprint(bomb, JSON, b"gzip") != fingerprint(gzip.compress(b"\0" * (33 << 20)), JSON, b"gzip")
    assert fingerprint(bomb, JSON, b"gzip") != fingerprint(b"\0" * (32 << 20), JSON)


def test_coded_content_may_not_become_larger_than_plain_content_may_be():
    """What is larger than the route takes plainly is not decoded."""
    content = b"x" * 2_000
    policy = Policy(request_bytes_max=1_000)
    assert fingerprint(gzip.compress(content), None, b"gzip", policy=policy) != fingerprint(content, policy=policy)
    assert fingerprint(gzip.compress(content), None, b"gzip") == fingerprint(content)


@pytest.mark.parametrize("content", [b"[" * 60_000, b'{"a":' * 10_000, b"[" * 5_000 + b"]" * 5_000])
def test_deep_nesting_is_compared_as_it_was_sent(content):
    """Nesting that no reader should follow costs nothing and matches itself."""
    assert fingerprint(content, JSON) == fingerprint(content, JSON)
    assert fingerprint(content, JSON) != fingerprint(content + b" ", JSON)


# --- what a policy adds and leaves out ------------------------------------------------------------


def test_headers_count_if_the_policy_says_so():
    """An API version, say. Two lines of one name are one list, and an absent field is not an empty one."""
    policy = Policy(fingerprint_headers=("API-Version", "X-Mode"))
    first = fingerprint(api_version=b"1", policy=policy)
    assert first == fingerprint(api_version=b" 1", x_other=b"2", policy=policy)
    assert first != fingerprint(api_version=b"2", policy=policy)
    assert first != fingerprint(policy=policy)
    assert fingerprint(api_version=b"", policy=policy) != fingerprint(policy=policy)
    assert first != fingerprint(x_mode=b"1", policy=policy)
    reversed_names = Policy(fingerprint_headers=("x-mode", "api-version", "API-VERSION"))
    assert first == fingerprint(api_version=b"1", policy=reversed_names)
    lines = Head("POST", b"/charges", b"", ((b"x-mode", b"a"), (b"x-mode", b"b")))
    assert fingerprint_of(Request(lines, BytesBody()), policy, SECRET) == fingerprint(x_mode=b"a,b", policy=policy)


def test_parameters_may_be_left_out():
    """Signatures and time stamps in a query change from attempt to attempt."""
    policy = Policy(fingerprint_query_except=("sig", "té"))
    assert fingerprint(query=b"a=1&sig=x&t%C3%A9=1", policy=policy) == fingerprint(query=b"sig=y&a=1", policy=policy)
    assert fingerprint(query=b"sig=x", policy=policy) == fingerprint(policy=policy)
    assert fingerprint(query=b"a=1&sig=x", policy=policy) != fingerprint(query=b"a=2&sig=x", policy=policy)
    assert fingerprint(b"sig=1", FORM, policy=policy) != fingerprint(b"sig=2", FORM, policy=policy)


def test_members_may_be_left_out():
    """The client's clock, say."""
    policy = Policy(fingerprint_json_except=("/meta/sent_at",))
    one, other, third = (b'{"a":%d,"meta":{"sent_at":%d}}' % numbers for numbers in ((1, 5), (1, 6), (2, 5)))
    assert fingerprint(one, JSON, policy=policy) == fingerprint(other, JSON, policy=policy)
    assert fingerprint(one, JSON, policy=policy) != fingerprint(third, JSON, policy=policy)
    assert fingerprint(one, b"text/plain", policy=policy) != fingerprint(other, b"text/plain", policy=policy)


def test_members_may_be_chosen():
    """Or only some members count; path and method still do."""
    policy = Policy(fingerprint_json_only=("/a",))
    one, other, third = (b'{"a":%d,"b":%d}' % numbers for numbers in ((1, 5), (1, 6), (2, 5)))
    assert fingerprint(one, JSON, policy=policy) == fingerprint(other, JSON, policy=policy)
    assert fingerprint(one, JSON, policy=policy) != fingerprint(third, JSON, policy=policy)
    assert fingerprint(one, JSON, policy=policy) != fingerprint(one, JSON, path=b"/other", policy=policy)


def test_only_the_key_counts():
    """With `none` every request matches, the content is not even read, and a change of the policy refuses nobody."""
    none = Policy(fingerprint="none")
    unread = request(Spooled(b"x"), method="PUT")
    stored = fingerprint_of(unread, none, SECRET)
    assert stored == fingerprint(TEXT, JSON, policy=none)
    assert stored == b"\0" + hmac.digest(SECRET, frame(b"retrysafe fingerprint", b"\0"), "sha256")
    assert matches(stored, request(TEXT, JSON), none, SECRET)
    assert matches(stored, request(TEXT, JSON), FULL, SECRET)
    assert matches(fingerprint(TEXT, JSON), request(b"other"), none, SECRET)


# --- what is stored -------------------------------------------------------------------------------


def test_a_fingerprint_is_a_version_and_a_keyed_digest():
    """33 bytes, the first says how it was made; without the secret it says nothing."""
    made = fingerprint(TEXT, JSON)
    assert (len(made), made[0]) == (33, 1)
    assert made != fingerprint_of(request(TEXT, JSON), FULL, SECRET + b"!")


@pytest.mark.parametrize("version", [2, 3, 255])
def test_an_unknown_version_matches_nothing(version):
    """A record of a newer release is never replayed on a guess."""
    made = fingerprint(TEXT, JSON)
    assert not matches(bytes((version,)) + made[1:], request(TEXT, JSON), FULL, SECRET)


@pytest.mark.parametrize("stored", [b"", b"\1", b"\0", bytes(33), b"\1" + bytes(32), b"\1" + bytes(64)])
def test_a_damaged_fingerprint_matches_nothing(stored):
    """Nor is one that was cut or wiped."""
    assert not matches(stored, request(TEXT, JSON), FULL, SECRET)


def test_what_the_digest_covers():
    """The algorithm spelled out: a frame of all that counts, under HMAC-SHA-256."""
    made = request(b'{"b": 1.5e0, "a": "x"}', JSON, path=b"/%7Eme/charges", query=b"z=1&y=2")
    covered = frame(
        b"retrysafe fingerprint", b"\1", b"POST", b"/~me/charges", frame(b"y", b"2", b"z", b"1"), b"",
        b"json", b"application/json", b"", b"(('a', 'x'), ('b', (nan, '15e-1')))",
    )  # fmt: skip
    assert fingerprint_of(made, FULL, SECRET) == b"\1" + hmac.digest(SECRET, covered, "sha256")


STORED = {
    "017e3bc84ece8580": request(),
    "0161700d6ae32982": request(
        '{"b":[1,2.50,1e99,true,null],"a":"\\u00e9\\n\\u007f😀"}'.encode(), JSON, query=b"b=2&a=1", path=b"/a%7e"
    ),
    "015d42ddfac6f60c": request(LARGE, JSON),
    "0115f1e91aacc6fc": request(b"b=1&a=2", FORM),
    "013226c1e4a2dfdf": request(*multipart(b"one")),
    "01461467a4db92fc": request(b"?", JSON, b"br"),
    "01e3a115db59ec57": request(b"\0\1", b"text/plain; charset=latin1", method="PATCH"),
}


@pytest.mark.parametrize(("stored", "made"), STORED.items(), ids=STORED)
def test_what_stores_hold_stays_what_it_is(stored, made):
    """Fingerprints are in records: another release must make the same, or refuse good retries."""
    assert fingerprint_of(made, FULL, SECRET).hex().startswith(stored)


# --- any request ----------------------------------------------------------------------------------

BYTES = st.sampled_from(
    [b"", b"a", b"b", b"ab", b"a=1", b"[1]", b"[2]", b'{"a":1}', b"\0", b"application/json", b"POST"]
)
REQUESTS = st.builds(
    lambda method, path, query, version, media, content: request(
        content, media, method=method, path=b"/" + path, query=query, api_version=version
    ),
    st.sampled_from(["POST", "PATCH", "PUT"]), BYTES, BYTES, BYTES,
    st.sampled_from([JSON, b"text/plain", b"text/plain; charset=x", b"application/a+json"]), BYTES,
)  # fmt: skip


def covered(made: Request) -> tuple[object, ...]:
    """What of these requests counts; they are all written in one spelling already."""
    head, content = made.head, made.body.read()
    version, media = head.values(b"api-version"), head.values(b"content-type")
    query = head.query.removesuffix(b"=") + b"=" if head.query and b"=" not in head.query else head.query
    return head.method, head.path, query, version, content and media, content


@given(REQUESTS, REQUESTS)
def test_any_difference_of_what_counts_is_a_difference(one, other):
    """Two requests have one fingerprint if and only if all that counts is equal."""
    policy = Policy(fingerprint_headers=("api-version",))
    same = fingerprint_of(one, policy, SECRET) == fingerprint_of(other, policy, SECRET)
    assert same == (covered(one) == covered(other))
    assert same == matches(fingerprint_of(one, policy, SECRET), other, policy, SECRET)


@given(
    st.binary(min_size=1, max_size=300),
    st.data(),
    st.sampled_from([None, b"text/plain", b"image/png", b"a/b; charset=x"]),
)
def test_any_flipped_bit_of_raw_content(content, data, media):
    """One bit of content that is compared byte by byte."""
    at = data.draw(st.integers(0, len(content) - 1))
    flipped = bytearray(content)
    flipped[at] ^= 1 << data.draw(st.integers(0, 7))
    assert fingerprint(content, media) != fingerprint(bytes(flipped), media)


MEDIA = st.sampled_from(
    [JSON, FORM, b"multipart/form-data; boundary=b", b"text/plain", b"a/b; charset=\xff", b";;", b""]
)


@given(
    st.binary(max_size=200), MEDIA, st.sampled_from([None, b"gzip", b"deflate", b"br", b"gzip,gzip", b"\xff"]), BYTES
)
def test_whatever_is_sent_has_a_fingerprint(content, media, coding, path):
    """Nothing raises, and what is sent twice is one request."""
    made = request(content, media, coding, path=path, query=content)
    again = replace(made, body=Spooled(content, 7))
    assert matches(fingerprint_of(made, FULL, SECRET), again, FULL, SECRET)
