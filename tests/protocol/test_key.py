from __future__ import annotations

import re
import uuid

import http_sf
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from retrysafe.model import Head
from retrysafe.protocol.key import Absent, Key, Malformed, as_uuid, child_key, is_128_bit, parse_key, record_id
from retrysafe.protocol.policy import Policy

SECRET = b"a secret for tests, 32 bytes long"
UUID = "6f1c2d34-9a7b-4c5d-8e6f-0123456789ab"
DEFAULT = Policy()


def parsed(*values: bytes, policy: Policy = DEFAULT) -> Key | Absent | Malformed:
    """What a request with these field lines carries."""
    lines = tuple((policy.header.lower().encode(), value) for value in values)
    return parse_key(Head("POST", b"/", b"", ((b"host", b"a"), *lines, (b"accept", b"*/*"))), policy)


ACCEPTED = [
    # spelling, key
    (b'"k"', "k"),
    (b"k", "k"),
    (b'"%s"' % UUID.encode(), UUID),
    (UUID.encode(), UUID),
    (b"0190b6d2-7a5c-7def-8123-456789abcdef", "0190b6d2-7a5c-7def-8123-456789abcdef"),  # begins with a digit
    (UUID.upper().encode(), UUID),
    (b'"%s"' % UUID.upper().encode(), UUID),
    (b'  "k" ', "k"),
    (b"\tk\t", "k"),
    (b'"k";x=1', "k"),
    (b'"k";x', "k"),
    (b'"k"; x="y"; z=:YWJj:', "k"),
    (rb'"a\"b"', 'a"b'),
    (rb'"a\\b"', "a\\b"),
    (b'"a,b;c"', "a,b;c"),
    (b'"\' OR 1=1--"'.replace(b" ", b"_"), "'_OR_1=1--"),
    (b'"*"', "*"),
    (b'"../../x"', "../../x"),
    (b'"%00"', "%00"),
    (b"a-b.c_d~e:f/g+h=", "a-b.c_d~e:f/g+h="),
    (b"12345", "12345"),
    (b":YWJj:", ":YWJj:"),
    (b"A" * 255, "A" * 255),
    (b'"' + b"A" * 255 + b'"', "A" * 255),
    (b'"' + rb"\"" * 255 + b'"', '"' * 255),
    (b"ABCDEF", "ABCDEF"),  # only a whole UUID is folded
    (b"A" * 36, "A" * 36),
    (UUID.upper().encode() + b"x", UUID.upper() + "x"),
    (UUID.upper().replace("-", "").encode(), UUID.upper().replace("-", "")),
]

REFUSED = [
    # spelling, what the reason says
    (b"", "empty"),
    (b"   ", "empty"),
    (b'""', "empty"),
    (b'"unterminated', "quoted string"),
    (b'"a" , "b"', "quoted string"),
    (b'"a", "b"', "quoted string"),
    (b'"a" b', "quoted string"),
    (b'"a"b', "quoted string"),
    (rb'"a\n"', "quoted string"),
    (b'"a\\', "quoted string"),
    (b'"a";', "quoted string"),
    (b'"a";X=1', "quoted string"),
    (b'"a\tb"', "quoted string"),
    (b'"a\x00b"', "quoted string"),
    (b'"a\x7fb"', "quoted string"),
    (b'"a\r\n b"', "quoted string"),
    ('"clé"'.encode(), "quoted string"),
    (b'"cl\xe9"', "quoted string"),
    (b'"a b"', "space"),
    (b'" "', "space"),
    (b"'k'", "neither"),
    (b"a, b", "neither"),
    (b"a,b", "neither"),
    (b"a b", "neither"),
    (b"a;b=1", "neither"),
    (b"a\tb", "neither"),
    (b"a\x00b", "neither"),
    (b"cl\xe9", "neither"),
    ("clé".encode(), "neither"),
    (b'k"', "neither"),
    (b"?1", "neither"),
    (b"*", "neither"),
    (b"a\n", "neither"),
    (b"A" * 256, "too long"),
    (b'"' + b"A" * 256 + b'"', "too long"),
    (b'"' + b"A" * 300 + b'";x=1', "too long"),
]


@pytest.mark.parametrize(("value", "text"), ACCEPTED)
def test_accepted(value, text):
    """Quoted and bare are one key, decoded, case kept but in a UUID."""
    assert parsed(value) == Key(text)


@pytest.mark.parametrize(("value", "reason"), REFUSED)
def test_refused(value, reason):
    """Anything else is malformed, and the reason says why: it is never taken for absent, or for another key."""
    key = parsed(value)
    assert isinstance(key, Malformed)
    assert reason in key.reason


def test_absent():
    """Without the field there is no key; a field of a similar name does not count."""
    assert parsed() == Absent()
    assert parse_key(Head("POST", b"/", b"", ((b"x-idempotency-key", b"k"),)), DEFAULT) == Absent()


@pytest.mark.parametrize("values", [(b"a", b"b"), (b"a", b"a"), (b"", b"a"), (b'"a"', b'"a"', b'"a"')])
def test_more_than_one_line_is_refused(values):
    """Two lines are refused even if they are equal: whoever joined or added one did not mean one key."""
    key = parsed(*values)
    assert isinstance(key, Malformed)
    assert "more than one" in key.reason


@pytest.mark.parametrize("value", [b'"' + b"a" * 100_000 + b'"', b"a" * 100_000, b'"' * 100_000, b"\xff" * 100_000])
def test_the_length_is_judged_before_the_grammar(value):
    """A field of 100 kB is too long, whether or not it is well formed: nobody looked."""
    key = parsed(value)
    assert isinstance(key, Malformed)
    assert "too long" in key.reason


@pytest.mark.parametrize(
    ("syntax", "value", "accepted"),
    [("sf", b'"k"', True), ("sf", b"k", False), ("bare", b"k", True), ("bare", b'"k"', False), ("sf", b'"k";x', True)],
)
def test_only_one_spelling(syntax, value, accepted):
    """A route may insist on one of the two spellings."""
    assert (parsed(value, policy=Policy(key_syntax=syntax)) == Key("k")) is accepted


def test_lengths_are_the_policy():
    """Length counts characters of the decoded key."""
    policy = Policy(key_length_min=3, key_length_max=4)
    assert parsed(rb'"ab\""', policy=policy) == Key('ab"')
    assert isinstance(parsed(b"ab", policy=policy), Malformed)
    assert isinstance(parsed(b"abcde", policy=policy), Malformed)
    assert parsed(b"a" * 1_024, policy=Policy(key_length_max=1_024)) == Key("a" * 1_024)


def test_parameters_may_be_long_but_not_endless():
    """The longest key, every character escaped, leaves room for 1024 bytes of parameters."""
    longest = b'"' + rb"\"" * 255 + b'"'
    assert parsed(longest + b";" + b"x" * 1_023) == Key('"' * 255)
    assert isinstance(parsed(longest + b";" + b"x" * 1_024), Malformed)


def test_another_field():
    """The policy names the field, in any case, and then no other is looked at."""
    policy = Policy(header="X-Request-Id")
    assert parsed(b"k", policy=policy) == Key("k")
    assert parse_key(Head("POST", b"/", b"", ((b"idempotency-key", b"k"),)), policy) == Absent()
    assert "X-Request-Id" in str(parsed(b"", policy=policy))


def test_a_key_is_not_printed():
    """What ends in a log or a traceback does not show the key."""
    assert UUID not in repr(Key(UUID))


ALPHABET = st.sampled_from(list(b"\"\\ \t;,=:aZ09-_.~/+*?%'x\x00\x7f\x80\xff\n"))
FIELD = (
    st.lists(ALPHABET, max_size=12).map(bytes)
    | st.binary(max_size=20)
    | st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=270).map(
        lambda text: http_sf.ser(text).encode()
    )
    | st.lists(ALPHABET, max_size=8).map(lambda inner: b'"' + bytes(inner) + b'"')
)


def by_the_rules(value: bytes, policy: Policy) -> str | None:
    """R2 to R9 word for word, and slowly; None is malformed."""
    value = value.strip(b" \t")
    text = None
    if policy.key_syntax != "bare" and value.startswith(b'"'):
        try:
            text = http_sf.parse(value, tltype="item")[0]  # type: ignore[index]  # an item is a pair
        except http_sf.StructuredFieldError:
            return None
    elif policy.key_syntax != "sf" and re.fullmatch(rb"[A-Za-z0-9._~:/+=-]+", value):
        text = value.decode()
    if not isinstance(text, str) or not 1 <= len(text) <= policy.key_length_max or not text.isascii() or " " in text:
        return None
    try:
        return str(uuid.UUID(text)) if re.fullmatch(r".{8}-.{4}-.{4}-.{4}-.{12}", text) else text
    except ValueError:
        return text


@given(FIELD, st.sampled_from(["both", "sf", "bare"]))
def test_the_quick_way_and_the_rules_agree(value, syntax):
    """The parser accepts what the rules accept, as the same key, and never says what it was given."""
    policy = Policy(key_syntax=syntax)
    key = parsed(value, policy=policy)
    expected = by_the_rules(value, policy)
    assert key == Key(expected) if expected is not None else isinstance(key, Malformed)


@given(FIELD)
def test_a_reason_never_echoes(value):
    """The reason depends on the kind of fault alone: it is one of a handful of sentences of ours."""
    key = parsed(value)
    assume(isinstance(key, Malformed))
    assert key in {parsed(spelling) for spelling, _ in REFUSED}


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        (UUID, True),
        (UUID.upper(), True),
        ("0123456789abcdef" * 2, True),
        ("0123456789abcdef" * 2 + "0", True),
        ("0123456789abcdef0123456789abcde", False),
        ("507f1f77bcf86cd799439011", False),  # 96 bits in hexadecimal
        ("507f1f77-bcf86cd7-99439011", False),
        ("AbCdEfGhIjKlMnOpQrStUv", True),
        ("AbCdEfGhIjKlMnOpQrStUv==", True),
        ("AbCdEfGhIjKlMnOpQrStU", False),
        ("-_" * 11, True),
        ("AbCdEfGhIjKlMnOpQrSt/+", False),
        ("1", False),
        ("test", False),
        ("order:4711", False),
    ],
)
def test_128_bits(text, is_one):
    """Where nobody is known, only keys are taken that have the form of 128 random bits."""
    assert is_128_bit(Key(text)) is is_one


PIECES = st.lists(st.sampled_from(["a", "b", ":", "\0", "|", "é", "\udcff", ""]), max_size=4).map("".join)
TUPLES = st.tuples(PIECES, PIECES, PIECES)


@given(TUPLES, TUPLES)
def test_a_record_belongs_to_one_namespace_scope_and_key(one, other):
    """No two of them share a record id, wherever the delimiters stand that somebody put in."""
    ids = [record_id(SECRET, namespace, scope, Key(key)) for namespace, scope, key in (one, other)]
    assert (ids[0] == ids[1]) == (one == other)
    assert [len(identity) for identity in ids] == [32, 32]


def test_neighbours_do_not_share_a_record():
    """The account "a:b" with the key "c" is not the account "a" with the key "b:c"."""
    assert record_id(SECRET, "", "a:b", Key("c")) != record_id(SECRET, "", "a", Key("b:c"))


def test_a_record_id_needs_the_secret():
    """Without the secret nobody can tell which key a record is for."""
    assert record_id(SECRET, "live", "acct_1", Key("k")) != record_id(SECRET + b"!", "live", "acct_1", Key("k"))


@given(TUPLES, TUPLES)
def test_a_child_key_belongs_to_one_step_of_one_operation(one, other):
    """It differs with the record, the step and the target, and it is always the same for these."""
    keys = [child_key(SECRET, record.encode("utf-8", "surrogatepass"), *step) for record, *step in (one, other)]
    assert (keys[0] == keys[1]) == (one == other)


@given(st.binary(min_size=16, max_size=32))
def test_a_child_key_is_a_uuid(digest):
    """36 characters, of the version that RFC 9562 leaves to us."""
    made = uuid.UUID(as_uuid(digest))
    assert (str(made), made.version, made.variant) == (as_uuid(digest), 8, uuid.RFC_4122)
    not_version_or_variant = 0xFFFFFFFF_FFFF_0FFF_3FFF_FFFFFFFFFFFF
    assert made.int & not_version_or_variant == int.from_bytes(digest[:16], "big") & not_version_or_variant


def test_what_stores_and_providers_hold_stays_what_it_is():
    """Record ids and child keys are kept by others: another release must make the same."""
    identity = record_id(SECRET, "live", "acct_1", Key("order-4711"))
    assert identity.hex() == "d8eaabba05d9a0a1fd0614712dfd5bc1586d7542a5fcbc38f491922a31159ca7"
    assert child_key(SECRET, identity, "charge", "https://psp.example") == "edf34e8c-8f2f-8635-89de-aec119109ffc"
