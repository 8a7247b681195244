"""Which fields go on, which come back, and which stop."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrysafe.gateway.forwarding import (
    HOP_BY_HOP,
    PROTECTED,
    Hop,
    Rules,
    request_headers,
    response_headers,
    states_no_effect,
)

HOP = Hop("192.0.2.7", "http", "1.1")
RULES = Rules(scope=b"x-account-id")
HOST = (b"host", b"api.example")


def sent_on(*headers, rules=RULES, hop=HOP):
    """The fields that the upstream gets, without those that the gateway adds."""
    added = {b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"forwarded", b"via"}
    return [pair for pair in request_headers((HOST, *headers), hop, rules) if pair[0] not in added | {b"host"}]


@pytest.mark.parametrize("name", sorted(HOP_BY_HOP | {b"expect"}))
def test_fields_of_the_connection_stop(name):
    """A field about this connection is not for the next one."""
    assert sent_on((name, b"x")) == []


@pytest.mark.parametrize(
    "field",
    [
        (b"idempotency-key", b"k"),
        (b"x-account-id", b"me"),
        (b"authorization", b"Bearer t"),
        (b"cookie", b"a=1"),
        (b"content-length", b"3"),
        (b"content-type", b"text/plain"),
    ],
)
def test_connection_cannot_remove_what_is_protected(field):
    """Naming the key, the account, credentials or framing in Connection does not take them out."""
    assert field in sent_on(field, (b"connection", b"close, " + field[0].title()))


def test_connection_removes_what_it_names():
    """A field that Connection names goes no further, in whatever case it is named."""
    assert sent_on((b"x-debug", b"1"), (b"x-other", b"2"), (b"connection", b"X-Debug , close")) == [(b"x-other", b"2")]


@pytest.mark.parametrize(
    "name",
    [
        b"idempotency_key",
        b"x_account_id",
        b"x-account_id",
        b"content_length",
        b"transfer_encoding",
        b"x_forwarded_for",
        b"x_forwarded-proto",
        b"x_real_ip",
    ],
)
def test_lookalikes_stop(name):
    """An underscore does not make another field of it for an upstream that reads both alike."""
    assert sent_on((name, b"x")) == []


def test_other_underscores_pass():
    """Fields that nobody guards keep their underscores."""
    assert sent_on((b"my_field", b"x")) == [(b"my_field", b"x")]


def test_order_and_repetition_are_kept():
    """Two lines of one name stay two lines, in their order, with their bytes."""
    fields = [(b"accept", b"a"), (b"x-tag", b"1"), (b"accept", b"b"), (b"x-tag", "ü".encode())]
    assert sent_on(*fields) == fields


@pytest.mark.parametrize(
    "field",
    [
        (b"x-forwarded-for", b"6.6.6.6"),
        (b"x-forwarded-proto", b"https"),
        (b"x-forwarded-host", b"evil.example"),
        (b"x-forwarded-prefix", b"/evil"),
        (b"x-forwarded-uri", b"/evil"),
        (b"x-real-ip", b"6.6.6.6"),
        (b"forwarded", b"for=6.6.6.6"),
    ],
)
def test_clients_are_not_believed_about_where_they_come_from(field):
    """What a client says of its own origin is replaced."""
    result = request_headers((HOST, field), HOP, RULES)
    assert field not in result
    assert (b"x-forwarded-for", b"192.0.2.7") in result
    assert (b"x-forwarded-proto", b"http") in result
    assert (b"x-forwarded-host", b"api.example") in result
    assert (b"forwarded", b'for=192.0.2.7;proto=http;host="api.example"') in result


def test_a_trusted_proxy_is_added_to():
    """With `append`, the path grows, and what the proxy in front said of scheme and host stands."""
    told = (
        (b"x-forwarded-for", b"6.6.6.6"),
        (b"x-forwarded-for", b"7.7.7.7"),
        (b"x-forwarded-proto", b"https"),
        (b"forwarded", b"for=6.6.6.6"),
    )
    result = request_headers((HOST, *told), HOP, Rules(forwarded="append"))
    assert [value for name, value in result if name == b"x-forwarded-for"] == [b"6.6.6.6, 7.7.7.7, 192.0.2.7"]
    assert [value for name, value in result if name == b"x-forwarded-proto"] == [b"https"]
    assert [value for name, value in result if name == b"x-forwarded-host"] == [b"api.example"]
    assert [value for name, value in result if name == b"forwarded"] == [
        b"for=6.6.6.6",
        b'for=192.0.2.7;proto=http;host="api.example"',
    ]


def test_an_address_of_version_6_is_quoted():
    """RFC 7239 wants brackets and quotes around it."""
    result = request_headers((HOST,), Hop("2001:db8::1", "https", "1.1"), RULES)
    assert (b"forwarded", b'for="[2001:db8::1]";proto=https;host="api.example"') in result


def test_an_unknown_peer_is_said_to_be_unknown():
    """A listener that has no address of its peer says so."""
    assert (b"x-forwarded-for", b"unknown") in request_headers((HOST,), Hop(None, "http", "1.1"), RULES)


def test_via_grows():
    """Each hop adds itself, with the version that it received."""
    result = request_headers((HOST, (b"via", b"1.1 front")), Hop("::1", "http", "1.0"), RULES)
    assert [value for name, value in result if name == b"via"] == [b"1.1 front", b"1.0 retrysafe"]


def test_host_is_preserved_or_the_upstreams():
    """The operator decides whose name the upstream sees."""
    assert HOST in request_headers((HOST,), HOP, RULES)
    assert HOST not in request_headers((HOST,), HOP, Rules(host="upstream"))


@pytest.mark.parametrize(
    "name", [b"idempotent-replayed", b"idempotency-status", b"idempotency-effect", b"idempotency-expires"]
)
def test_our_own_words_cannot_be_put_in_our_mouth(name):
    """Neither a client nor an upstream can say what only the gateway says."""
    assert sent_on((name, b"true")) == []
    assert [pair[0] for pair in response_headers(((name.title(), b"true"),), 200, RULES)] == [b"via"]


def test_answers_keep_everything_else():
    """Two cookies are two lines; links, dates and servers pass."""
    fields = ((b"Set-Cookie", b"a=1"), (b"Link", b"<a>"), (b"Set-Cookie", b"b=2"), (b"Link", b"<b>"), (b"Date", b"x"))
    assert response_headers(fields, 200, RULES) == (*fields, (b"via", b"1.1 retrysafe"))


@pytest.mark.parametrize(
    ("headers", "status", "kept"),
    [
        (((b"Content-Length", b"2"),), 200, [b"content-length"]),
        (((b"Content-Length", b"2"),), 304, []),
        (((b"Content-Length", b"0"),), 204, []),
        (((b"Content-Length", b"2"), (b"Transfer-Encoding", b"chunked")), 200, []),
        (((b"Content-Length", b"2"), (b"Connection", b"content-length")), 200, [b"content-length"]),
        (((b"Set-Cookie", b"a"), (b"Connection", b"set-cookie, x-a"), (b"X-A", b"1")), 200, [b"set-cookie"]),
    ],
)
def test_framing_of_answers(headers, status, kept):
    """A length goes on where it means something; Connection removes only what may be removed."""
    assert [name.lower() for name, _ in response_headers(headers, status, RULES)] == [*kept, b"via"]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (((b"Idempotency-Effect", b"none"),), True),
        (((b"idempotency-effect", b" NONE "),), True),
        (((b"Idempotency-Effect", b"some"),), False),
        (((b"Idempotency-Effect", b"none"), (b"Idempotency-Effect", b"some")), False),
        ((), False),
    ],
)
def test_the_word_that_frees_a_key(headers, expected):
    """Only a clear `none` says that nothing happened."""
    assert states_no_effect(headers) is expected


names = st.sampled_from(sorted(PROTECTED | {b"x-account-id", b"idempotency-key"}))
tokens = st.lists(st.one_of(names, st.sampled_from([b"close", b"keep-alive", b"x-a", b""])), max_size=5)


@given(names, st.lists(tokens, max_size=3))
def test_no_connection_field_whatever_removes_what_is_protected(name, connections):
    """For every way to write Connection, what is protected arrives."""
    lines = [(b"connection", b" ,".join(token.upper() for token in line)) for line in connections]
    assert (name, b"v") in request_headers(((name, b"v"), *lines), HOP, RULES)


@given(st.lists(st.tuples(st.sampled_from([b"a", b"b", b"x-c", b"te", b"connection"]), st.binary(max_size=4))))
def test_answers_are_idempotently_filtered(headers):
    """What came through once comes through again, but for one more Via."""
    once = response_headers(tuple(headers), 200, RULES)
    assert response_headers(once, 200, RULES)[:-1] == once
