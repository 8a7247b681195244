"""What a transport is told: intents and their keys, profiles, origins, budgets; and what is read of an answer."""

from __future__ import annotations

import re
import ssl
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrysafe.client.answers import CODE_BYTES_MAX, RETRY_AFTER_S_MAX, answer_of, retry_after_s
from retrysafe.client.budget import RetryBudget
from retrysafe.client.entry import kept_fields
from retrysafe.client.intent import current_intent, intent, key_for, spelled
from retrysafe.client.profile import IETF, PROFILES, Profile, profile_of
from retrysafe.client.protection import Protection, is_hopeless, is_read_whole, origin_of
from retrysafe.errors import CallerError, ConfigurationError
from retrysafe.urllib3 import IdempotencyPoolManager

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "profiles.md"
URL = "https://api.example.com/charges"
STRIPE, ADYEN, OURS = PROFILES["stripe-v1"], PROFILES["adyen"], PROFILES["retrysafe"]


def test_the_key_of_an_intent():
    """A UUID that is the same each time, and another for each name, method and URL; it does not show the name."""
    key = key_for("order-1", "POST", URL)
    assert key == key_for("order-1", "POST", URL)
    assert uuid.UUID(key).version == 8
    assert uuid.UUID(key).variant == uuid.RFC_4122
    others = {key_for("order-2", "POST", URL), key_for("order-1", "PATCH", URL), key_for("order-1", "POST", URL + "/7")}
    assert len({key, *others}) == 4


@pytest.mark.parametrize("name", ["", "x" * 513])
def test_a_name_that_cannot_be(name):
    """A name is needed, and not a whole document."""
    with pytest.raises(CallerError, match="1 to 512"), intent(name):
        pass


def test_intents_are_nested():
    """The inner one is the one that counts; after it the outer one again."""
    with intent("outer"):
        with intent("inner"):
            assert current_intent() == "inner"
        assert current_intent() == "outer"
    assert current_intent() is None


def test_spelling():
    """As the profile says (R95)."""
    assert (spelled("k", IETF), spelled("k", STRIPE)) == ('"k"', "k")


def test_an_unknown_profile():
    """The names that there are, are named."""
    with pytest.raises(ConfigurationError, match=r"must be a Profile, or one of .*stripe-v1"):
        profile_of("strip")


def test_the_page_of_profiles():
    """It has the profiles that there are, as they are."""
    rows = [line.split("|")[1:-1] for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| `")]
    shown = [[cell.strip(" `") for cell in row] for row in rows]
    assert shown == [_row(profile) for _, profile in sorted(PROFILES.items())]


def _row(profile: Profile) -> list[str]:
    hours = profile.lifetime_s / 3600
    lifetime = f"{hours:.0f} h" if hours <= 24 else f"{hours / 24:.0f} d"
    cells = [profile.name, profile.header, profile.spelling.value, ", ".join(profile.methods), lifetime]
    return [*cells, ", ".join(profile.in_progress), profile.replay_marker, profile.retry_hint]


@pytest.mark.parametrize("origin", ["api.example.com", "ftp://x", "https://x/path", "https://x?y"])
def test_an_origin_that_is_none(origin):
    """A setting that would match nothing is refused."""
    with pytest.raises(ConfigurationError, match="must be as"):
        Protection("ietf", origins=[origin])


def test_origins():
    """A port that goes without saying is the same origin; another scheme, host or port is not."""
    assert origin_of(URL) == origin_of("https://API.example.com:443/x")
    assert len({origin_of(url) for url in (URL, "http://api.example.com", "https://api.example.com:444")}) == 3


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD"])
def test_methods_that_take_no_key(method):
    """They are sent as they are."""
    assert Protection("stripe-v1").call_of(method, URL, {}) is None


def test_budget():
    """One retry for so many operations, and a reserve."""
    budget = RetryBudget(share=0.5, reserve=2)
    assert [budget.spend() for _ in range(3)] == [True, True, False]
    budget.earn()
    assert not budget.spend()
    budget.earn()
    assert [budget.spend() for _ in range(2)] == [True, False]
    with pytest.raises(ConfigurationError, match="neither may be negative"):
        RetryBudget(share=-1)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("", None), ("7", 7), (" 7 ", 7), ("-1", None), ("1.5", None), ("soon", None), ("\u0667", None),
        ("9" * 30, RETRY_AFTER_S_MAX), ("Thu, 01 Jan 1970 00:00:10 GMT", 3), ("Thu, 01 Jan 1970 00:00:01 GMT", 0),
    ],
)  # fmt: skip
def test_retry_after(value, seconds):
    """A number or a date, and nothing else."""
    assert retry_after_s(value, now_s=7.0) == seconds


@pytest.mark.parametrize(
    ("profile", "content", "code"),
    [
        (OURS, b'{"type": "https://x/problems/in-progress", "title": "t"}', "in-progress"),
        (STRIPE, b'{"error": {"type": "invalid_request_error", "code": "idempotency_key_in_use"}}',
         "idempotency_key_in_use"),
        (ADYEN, b'{"status": 422, "errorCode": "704"}', "704"),
        (OURS, b"", ""), (OURS, b"<html>", ""), (OURS, b"[1]", ""), (OURS, b"[" * 100_000, ""),
        (OURS, b'{"code": "in-progress", "x": "' + b"x" * CODE_BYTES_MAX + b'"}', ""),
    ],
    ids=range(8),
)  # fmt: skip
def test_code(profile, content, code):
    """The code of an error, where the usual servers have it."""
    assert answer_of(409, {}, content, profile, 0.0).code == code


def test_fields_of_an_answer():
    """The marker and the hint are those of the profile."""
    headers = {"idempotent-replayed": "true", "stripe-should-retry": "false", "retry-after": "3"}
    answer = answer_of(409, headers, b"", STRIPE, 0.0)
    assert (answer.replayed, answer.hint, answer.retry_after_s) == (True, False, 3.0)
    other = answer_of(409, headers, b"", IETF, 0.0)
    assert (other.replayed, other.hint) == (False, None)


@given(st.binary(max_size=200), st.sampled_from(sorted(PROFILES)))
def test_any_content(content, name):
    """No content of an answer makes it unreadable."""
    answer_of(500, {}, content, PROFILES[name], 0.0)


@pytest.mark.parametrize(
    ("status", "headers", "whole"),
    [
        (201, {}, True),
        (201, {"content-type": "application/json"}, True),
        (201, {"content-type": "text/event-stream; charset=utf-8"}, False),
        (201, {"content-length": str(9 << 20)}, False),
        (500, {"content-type": "text/event-stream"}, True),
    ],
)
def test_what_is_read_whole(status, headers, whole):
    """Everything but a stream; an error always."""
    assert is_read_whole(status, headers) is whole


def test_a_wrong_certificate_is_not_tried_again():
    """It is wrong in a minute too, however deep the libraries have wrapped it."""
    wrapped = ConnectionError(OSError("x"))
    wrapped.__cause__ = ssl.SSLCertVerificationError("bad")
    assert is_hopeless(ConnectionError(wrapped))
    assert not is_hopeless(ConnectionError(OSError("x")))


@pytest.mark.parametrize("secrets", [False, True])
def test_fields_that_are_kept(secrets):
    """What belongs to one message never; credentials only if they will be encrypted; the order stays."""
    headers = (
        ("Host", "h"), ("Accept", "a"), ("Authorization", "s"), ("X-Api-Key", "s"), ("Cookie", "s"),
        ("Content-Length", "3"), ("Connection", "close"), ("accept", "b"),
    )  # fmt: skip
    names = [name for name, _ in kept_fields(headers, secrets=secrets)]
    credentials = ["Authorization", "X-Api-Key", "Cookie"] if secrets else []
    assert names == ["Accept", *credentials, "accept"]


def test_a_second_layer_is_refused():
    """One layer tries again (R93)."""
    with IdempotencyPoolManager("ietf") as pool, pytest.raises(CallerError, match=re.escape("retries= is not for")):
        pool.request("POST", "http://127.0.0.1:9/", retries=3)
