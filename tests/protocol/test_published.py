"""What an API promises, made from its policies: as data, as a page, and true to what the engine does."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrysafe import Policy
from retrysafe.model import Head
from retrysafe.protocol.key import Key, parse_key
from retrysafe.protocol.published import Published, key_pattern, promise
from retrysafe.protocol.published_page import page

SYNTAXES = ("both", "sf", "bare")
KEYS = st.text(st.sampled_from('aZ09-._~:/+=!#$"\\ é'), max_size=12) | st.builds(
    '"{}"'.format, st.text(st.sampled_from('aZ09-._~:/+=!#$"\\ '), max_size=12)
)


@given(text=KEYS, syntax=st.sampled_from(SYNTAXES), least=st.integers(1, 4), more=st.integers(0, 4))
def test_the_pattern_is_what_is_accepted(text, syntax, least, more):
    """Whatever matches is taken for a key, and whatever is taken matches."""
    policy = Policy(key_syntax=syntax, key_length_min=least, key_length_max=least + more)
    head = Head("POST", b"/", b"", ((b"idempotency-key", text.encode("latin-1")),))
    if text == text.strip():
        taken = isinstance(parse_key(head, policy), Key)
        assert (re.search(key_pattern(policy), text) is not None) is taken


def test_durations_are_iso_8601_and_absence_is_said():
    """What machines read of a route, and of one that is taken out."""
    said = promise(Policy(lifetime="7d", tombstone="0s", required=True, in_flight="wait", wait="5s"), "user")
    assert (said["lifetime"], said["required"], said["scope"]) == ("PT168H", True, "user")
    assert said["afterExpiry"] == {"answer": "new operation"}
    assert said["inFlight"] == {"answer": "in-progress", "waits": "PT5S"}
    assert Published("user", {}).of(None) == {"supported": False}


@pytest.mark.parametrize(
    ("options", "name", "wanted"),
    [
        ({"fingerprint": "none"}, "fingerprint", None),
        ({"transactional": True}, "recorded", ["2xx", "3xx", "4xx"]),
        ({"transactional": True}, "abandoned", "runs again"),
        ({"classify": lambda _: None}, "recorded", ["as the application decides"]),
        ({}, "recorded", ["2xx", "3xx", "4xx", "5xx"]),
        ({}, "abandoned", "outcome-unknown"),
    ],
)
def test_options_that_clients_notice(options, name, wanted):
    """Each is said as it is set."""
    assert promise(Policy(**options), "authorization")[name] == wanted


def test_until_when_an_answer_is_replayed():
    """Told to programs and to people where answers say it."""
    said = promise(Policy(expires_header=True), "user")
    assert said["replay"]["expires"] == "Idempotency-Expires"
    assert "expires" not in promise(Policy(), "user")["replay"]
    assert "in `Idempotency-Expires` until when" in page(
        Published("user", {"*": Policy(expires_header=True)}).document()
    )


def test_the_parts_of_the_fingerprint():
    """What must not differ, and what may."""
    policy = Policy(fingerprint_headers=("X-Version",), fingerprint_json_except=("/sent_at",))
    said = promise(policy, "user")["fingerprint"]
    assert (said["headers"], said["jsonExcept"]) == (["X-Version"], ["/sent_at"])
    assert "queryExcept" not in said


def test_only_problems_that_can_occur():
    """Those of a gateway, of transactions and of the status path are there where these are."""
    plain = {it["code"] for it in Published("user", {"*": Policy()}).document()["problems"]}
    routes = {"*": Policy(), "POST /pay": Policy(transactional=True)}
    full = {it["code"] for it in Published("user", routes, "/status", gateway=True).document()["problems"]}
    assert full - plain == {
        "key-unknown", "rolled-back", "commit-pending", "upgrade-unsupported", "upstream-unreachable",
        "upstream-failed", "upstream-timeout",
    }  # fmt: skip


def test_the_page():
    """It has a row for each route, a list of rules for each set of them, and where to ask."""
    routes = {"*": Policy(), "POST /pay": Policy(required=True, lifetime="7d", fingerprint="none"), "POST /find": None}
    text = page(Published("header: X-Account-Id", routes, "/status").document())
    assert "| `POST /pay` | required | 7 days | 412 for 30 days, then a new operation |" in text
    assert "| `POST /find` | has no meaning | | |" in text
    assert "## What holds for `POST /pay`" in text
    assert "## What holds for every other operation" in text
    assert "Only the key counts" in text
    assert "the account in `X-Account-Id`" in text
    assert "`GET /status`" in text
