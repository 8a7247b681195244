"""Stored responses, and what comes back of them."""

import gzip
import json
import zlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrysafe.model import Head, Response
from retrysafe.protocol.effects import Answered, Fate
from retrysafe.protocol.policy import Policy
from retrysafe.protocol.snapshot import SEAL_BYTES, Snapshot, Unreadable, receipt, replay, seal, take_snapshot, unseal

SECRET, RECORD_ID = b"s" * 32, b"r" * 32


def head(*headers):
    return Head("POST", b"/orders", b"", headers)


def answered(*headers, status=201, body=b"made", whole=True):
    return Answered(Response(status, headers, body), whole=whole, size=len(body), digest=b"d" * 32, fate=Fate.RAN)


def replayed(answer, first=(), second=(), **options):
    """What a second request gets of the first one's answer, through the stored bytes."""
    policy = Policy(**options)
    stored = seal(take_snapshot(answer, head(*first)), RECORD_ID, SECRET)
    return replay(unseal(stored, RECORD_ID, SECRET), head(*second), policy)


names = st.binary(min_size=1, max_size=20)
snapshots = st.builds(
    Snapshot,
    st.builds(
        Response,
        st.integers(100, 599),
        st.lists(st.tuples(names, st.binary(max_size=50)), max_size=8).map(tuple),
        st.binary(max_size=300),
    ),
    st.booleans(),
    st.integers(0, 2**63),
    st.binary(max_size=32),
    st.binary(max_size=30),
).flatmap(lambda made: st.sampled_from([made, replace(made, redacted=made.whole)]))


@given(snapshots)
def test_what_is_sealed_is_unsealed(snapshot):
    """Every status, field, repetition and byte."""
    assert unseal(seal(snapshot, RECORD_ID, SECRET), RECORD_ID, SECRET) == snapshot


@given(snapshots, st.data())
def test_a_changed_byte_is_noticed(snapshot, data):
    """Wherever it is, in the seal or behind it."""
    stored = bytearray(seal(snapshot, RECORD_ID, SECRET))
    stored[data.draw(st.integers(0, len(stored) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Unreadable):
        unseal(bytes(stored), RECORD_ID, SECRET)


@pytest.mark.parametrize(("record_id", "secret"), [(b"q" * 32, SECRET), (RECORD_ID, b"t" * 32)])
def test_a_snapshot_belongs_to_its_record(record_id, secret):
    """Copied to another key, or read under another secret, it is refused."""
    stored = seal(take_snapshot(answered(), head()), RECORD_ID, SECRET)
    with pytest.raises(Unreadable):
        unseal(stored, record_id, secret)


@pytest.mark.parametrize("stored", [b"", b"x", b"x" * SEAL_BYTES])
def test_what_is_too_short_is_unreadable(stored):
    """It fails closed, and as this error."""
    with pytest.raises(Unreadable):
        unseal(stored, RECORD_ID, SECRET)


def test_the_format_is_versioned():
    """A version that this release does not know is refused, though its seal is right."""
    stored = seal(take_snapshot(answered(), head()), RECORD_ID, SECRET)
    payload = bytes([3]) + stored[SEAL_BYTES + 1 :]
    from retrysafe.protocol.mac import mac  # noqa: PLC0415 - what `seal` does, for a version that it does not write

    resealed = mac(SECRET, b"snapshot" + RECORD_ID + payload)[:SEAL_BYTES] + payload
    with pytest.raises(Unreadable, match="version 3"):
        unseal(resealed, RECORD_ID, SECRET)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 303, 400, 404, 409, 500])
def test_a_replay_has_the_same_status(status):
    """201 stays 201 (R57)."""
    assert replayed(answered(status=status, body=b"")).status == status


KEPT = [
    (b"content-type", b"text/plain"),
    (b"location", b"/orders/1"),
    (b"etag", b'"a"'),
    (b"link", b"<a>; rel=next"),
    (b"link", b"<b>; rel=prev"),
    (b"x-shop", b"yes"),
    (b"content-disposition", b"inline"),
    (b"vary", b"accept"),
    (b"strict-transport-security", b"max-age=1"),
]


def test_what_the_application_set_comes_back_in_order():
    """Repeated fields too: a dict would lose one of them."""
    assert list(replayed(answered(*KEPT)).headers[: len(KEPT)]) == KEPT


NEVER = [
    "Set-Cookie", "Date", "Age", "Cache-Control", "Expires", "Pragma", "Retry-After", "Connection", "Keep-Alive",
    "Transfer-Encoding", "Trailer", "Upgrade", "TE", "Proxy-Connection", "WWW-Authenticate", "Authentication-Info",
    "Clear-Site-Data", "X-Request-Id", "Server-Timing", "Via", "Server", "RateLimit-Remaining", "X-RateLimit-Limit",
    "Digest", "Repr-Digest", "Content-Digest", "Signature", "Signature-Input", "Alt-Svc", "Idempotent-Replayed",
    "Idempotency-Status", "Idempotency-Effect", "CF-Ray",
]  # fmt: skip


@pytest.mark.parametrize("name", NEVER)
def test_what_belongs_to_one_exchange_does_not_come_back(name):
    """Sessions, dates, limits, framing: a stored one would be wrong or dangerous (R57)."""
    values = [line for field, line in replayed(answered((name.encode(), b"stored"))).headers if b"stored" in line]
    assert values == []


def test_what_connection_names_does_not_come_back():
    """It was for the first hop (RFC 9110 7.6.1)."""
    answer = answered((b"Connection", b"close, X-Hop"), (b"X-Hop", b"1"), (b"X-Stay", b"2"))
    assert replayed(answer).value(b"x-hop") is None
    assert replayed(answer).value(b"x-stay") == b"2"


def test_a_replay_is_marked_and_not_cached():
    """The marker, `no-store`, and a length that fits (R58, R65)."""
    response = replayed(answered((b"content-length", b"999")), replay_marker="Was-Replayed")
    assert response.value(b"was-replayed") == b"true"
    assert response.value(b"cache-control") == b"no-store"
    assert [line for name, line in response.headers if name == b"content-length"] == [b"4"]


def test_a_replay_without_content_claims_no_length():
    """RFC 9110 8.6: none with 204."""
    assert replayed(answered(status=204, body=b"")).value(b"content-length") is None


@pytest.mark.parametrize(
    ("first", "second", "comes_back"),
    [
        (b"https://a.example", b"https://a.example", True),
        (b"https://a.example", b"https://b.example", False),
        (b"https://a.example", None, False),
        (None, b"https://b.example", False),
        (None, None, True),
    ],
)
def test_cors_fields_are_for_the_first_origin_alone(first, second, comes_back):
    """Another origin must not be shown that the first was allowed."""
    bound = (b"access-control-allow-origin", b"timing-allow-origin")
    answer = answered(*((name, first or b"*") for name in bound), (b"x-other", b"1"))
    origins = [() if origin is None else ((b"origin", origin),) for origin in (first, second)]
    response = replayed(answer, first=origins[0], second=origins[1])
    assert [response.value(name) is not None for name in bound] == [comes_back, comes_back]
    assert response.value(b"x-other") == b"1"


CODED = {b"gzip": gzip.compress(b"plain"), b"deflate": zlib.compress(b"plain")}


@pytest.mark.parametrize("coding", CODED)
@pytest.mark.parametrize(
    ("accept", "decoded"),
    [(None, False), (b"gzip, deflate", False), (b"*", False), (b"", True), (b"identity", True), (b"br;q=1", True),
     (b"gzip;q=0, deflate;q=0", True), (b"*;q=0", True)],
)  # fmt: skip
def test_a_stored_coding_is_removed_for_who_cannot_read_it(coding, accept, decoded):
    """And its validator is weakened, because the bytes are others (R62)."""
    answer = answered((b"content-encoding", coding), (b"etag", b'"a"'), body=CODED[coding])
    response = replayed(answer, second=() if accept is None else ((b"accept-encoding", accept),))
    assert response.body == (b"plain" if decoded else CODED[coding])
    assert response.value(b"content-encoding") == (None if decoded else coding)
    assert response.value(b"etag") == (b'W/"a"' if decoded else b'"a"')
    assert response.value(b"content-length") == b"%d" % len(response.body)


@pytest.mark.parametrize(
    "body", [b"not gzip", gzip.compress(bytes(64 << 20)), CODED[b"gzip"][:-3]], ids=["none", "a bomb", "cut off"]
)
def test_a_coding_that_cannot_be_removed_is_sent_as_it_is(body):
    """Broken, cut, or a bomb: the client gets what the first one got."""
    response = replayed(answered((b"content-encoding", b"gzip"), body=body), second=((b"accept-encoding", b""),))
    assert (response.body, response.value(b"content-encoding")) == (body, b"gzip")


def test_a_receipt_keeps_where_the_result_is_and_not_the_content():
    """Too large to keep: status, place and digest remain (R66)."""
    answer = answered((b"location", b"/orders/1"), (b"x-shop", b"yes"), body=b"", whole=False)
    snapshot = take_snapshot(answer, head())
    assert snapshot.response.headers == ((b"location", b"/orders/1"),)
    assert (snapshot.whole, snapshot.digest) == (False, b"d" * 32)


def test_a_receipt_can_be_sent():
    """The original status, and a document that says what was there."""
    snapshot = Snapshot(Response(201, ((b"location", b"/orders/1"),)), whole=False, size=9, digest=b"\1", origin=b"")
    response = receipt(snapshot, Policy())
    assert (response.status, response.value(b"location")) == (201, b"/orders/1")
    assert json.loads(response.body) == {"receipt": True, "status": 201, "content_bytes": 9, "content_sha256": "01"}
    assert response.value(b"idempotent-replayed") == b"true"


JSON = (b"content-type", b"application/json")
TOLD = ((b"location", b"/7"), (b"etag", b'"digest of the content"'))
REDACTED: dict[str, Any] = {"store_body": "redacted", "store_body_redact": ("/token",)}


def test_a_redacted_answer_says_so():
    """It has null where the value was, its own length, no validator of the bytes that it is not, and a mark."""
    answer = answered(JSON, (b"etag", b'"1"'), body=b'{"id": 7, "token": "s3cret"}')
    stored = seal(take_snapshot(answer, head(), Policy(**REDACTED)), RECORD_ID, SECRET)
    assert b"s3cret" not in stored
    replay_ = replay(unseal(stored, RECORD_ID, SECRET), head(), Policy(**REDACTED))
    assert replay_.body == b'{"id": 7, "token": null}'
    assert replay_.value(b"idempotency-status") == b"redacted"
    assert replay_.value(b"content-length") == b"%d" % len(replay_.body)
    assert replay_.value(b"etag") is None


def test_an_answer_without_what_is_redacted_is_whole():
    """Nothing was left out of it, and nothing says that there was."""
    answer = answered(JSON, (b"etag", b'"1"'), body=b'{"id": 7}')
    snapshot = take_snapshot(answer, head(), Policy(**REDACTED))
    assert snapshot.response == take_snapshot(answer, head()).response
    replay_ = replay(snapshot, head(), Policy(**REDACTED))
    assert (replay_.value(b"idempotency-status"), replay_.value(b"etag")) == (None, b'"1"')


@pytest.mark.parametrize(
    ("answer", "options"),
    [
        (answered(JSON, *TOLD, body=b'{"token": "s3cret"}'), {"store_body": "none"}),
        (answered((b"content-type", b"text/plain"), *TOLD, body=b"s3cret"), REDACTED),
        (answered(JSON, *TOLD, body=b"s3cret", whole=False), {"store_body": "none"}),
        (answered(JSON, *TOLD, body=b"s3cret", whole=False), REDACTED),
    ],
)
def test_what_is_not_kept_is_a_receipt(answer, options):
    """None of the content, and no digest of it, as a tag often is, by which few possible ones could be tried."""
    snapshot = take_snapshot(answer, head(), Policy(**options))
    assert not snapshot.whole
    assert (snapshot.digest, snapshot.size) == (b"", len(answer.response.body))
    assert b"s3cret" not in seal(snapshot, RECORD_ID, SECRET)
    assert (snapshot.response.value(b"location"), snapshot.response.value(b"etag")) == (b"/7", None)
    assert "content_sha256" not in json.loads(receipt(snapshot, Policy()).body)
