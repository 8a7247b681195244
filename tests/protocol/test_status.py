"""What a client is told of its key: the flow that looks, and what it says of every record."""

from __future__ import annotations

import json

import pytest

from retrysafe.model import Found, Head, Record, Response, State
from retrysafe.protocol import effects, transitions
from retrysafe.protocol.effects import Answered, Fate
from retrysafe.protocol.key import Key, record_id
from retrysafe.protocol.policy import Policy
from retrysafe.protocol.snapshot import seal, take_snapshot
from retrysafe.protocol.status import inquire
from tests.protocol.test_flow import KEYED, SECRET, code_of, next_of, terms

RERUN = Policy(recovery="rerun")
LOCATED = Response(201, ((b"location", b"/orders/1"),), b"made")
HEAD = Head("GET", b"/requests", b"", KEYED)


def record(state, **changes):
    fields = {
        "token": b"t" * 16, "attempt": 2, "fingerprint": b"f" * 33, "created_at_ms": 1_000, "claimed_at_ms": 2_000,
        "lease_until_ms": 62_000, "settled_at_ms": None, "expires_at_ms": None, "forget_at_ms": 900_000,
        "response": None, "route": "POST /orders", **changes,
    }  # fmt: skip
    return Record(state=state, **fields)


class Inquiry:
    """One inquiry, up to its look at the record."""

    def __init__(self, headers=KEYED, policy=None, scope="acme", *, allowed=True, **options):
        self.terms = terms(**options)
        self.flow = inquire(Head("GET", b"/requests", b"", headers), self.terms, lambda _: policy or Policy())
        self.step = next_of(self.flow, None)
        for answer in (scope, allowed):
            if isinstance(self.step, effects.Effect):
                self.step = next_of(self.flow, answer)

    def found(self, record, now_ms=5_000):
        self.step = next_of(self.flow, None if record is None else Found(record, now_ms))
        return self

    @property
    def said(self):
        assert self.step.response.status == 200
        return json.loads(self.step.response.body)


def stored(response=LOCATED, *, whole=True, policy=None):
    answered = Answered(response if whole else Response(201, response.headers), whole, 4, b"", Fate.RAN)
    identity = record_id(SECRET, "default", "acme", Key("k-1"))
    return seal(take_snapshot(answered, HEAD, policy or Policy()), identity, SECRET)


def completed(response, expires_at_ms=90_000):
    return record(State.COMPLETED, settled_at_ms=3_000, expires_at_ms=expires_at_ms, response=response)


def test_it_asks_for_one_look_and_nothing_else():
    """Whose key, whether the caller may see, and the record as it stands: nothing that could change it (R100)."""
    inquiry = Inquiry()
    assert inquiry.step == transitions.Read(record_id(SECRET, "default", "acme", Key("k-1")))
    assert inquiry.found(completed(stored())).step.ending == "inquired"


def test_a_completed_request():
    """When, what, where the result is, and for how long a retry gets it; the content is not among it."""
    inquiry = Inquiry().found(completed(stored()))
    assert inquiry.said == {
        "state": "completed", "attempts": 2, "first_seen": "1970-01-01T00:00:01.000Z",
        "completed_at": "1970-01-01T00:00:03.000Z", "expires_at": "1970-01-01T00:01:30.000Z",
        "original_status": 201, "replay": "exact", "resource": "/orders/1", "retry_after": None,
    }  # fmt: skip
    assert inquiry.step.response.value(b"cache-control") == b"no-store"
    assert b"made" not in inquiry.step.response.body


@pytest.mark.parametrize(
    ("response", "policy", "replay"),
    [
        (stored(), Policy(), "exact"),
        (stored(whole=False), Policy(), "none"),
        (stored(whole=False), Policy(on_receipt="receipt"), "receipt"),
        (stored(LOCATED, policy=Policy(store_body="none")), Policy(on_receipt="receipt"), "receipt"),
        (
            stored(
                Response(200, ((b"content-type", b"application/json"),), b'{"a": 1}'),
                policy=Policy(store_body="redacted", store_body_redact=("/a",)),
            ),
            Policy(),
            "redacted",
        ),
        (b"moved here from another record", Policy(), "none"),
    ],
)
def test_how_much_a_retry_gets(response, policy, replay):
    """As the policy of the record's route has it; of what cannot be read, nothing."""
    assert Inquiry(policy=policy).found(completed(response)).said["replay"] == replay


@pytest.mark.parametrize(
    ("seen", "policy", "now_ms", "state", "retry_after"),
    [
        (record(State.IN_PROGRESS), Policy(), 5_000, "in_progress", 3),
        (record(State.IN_PROGRESS), Policy(), 62_000, "unknown", None),
        (record(State.IN_PROGRESS), RERUN, 62_000, "in_progress", 1),
        (record(State.RETRYABLE, settled_at_ms=3_000), Policy(), 5_000, "retryable", None),
        (record(State.UNKNOWN, settled_at_ms=3_000), Policy(), 5_000, "unknown", None),
        (record(State.EXPIRED, settled_at_ms=3_000, expires_at_ms=4_000), Policy(), 5_000, "expired", None),
        (completed(stored(), expires_at_ms=5_000), Policy(), 5_000, "expired", None),
    ],
)
def test_the_state_is_what_a_retry_would_meet(seen, policy, now_ms, state, retry_after):
    """A lease that is over, a lifetime that is over: whether or not somebody has noticed that yet."""
    inquiry = Inquiry(policy=policy).found(seen, now_ms)
    assert (inquiry.said["state"], inquiry.said["retry_after"]) == (state, retry_after)
    assert (inquiry.said["replay"], inquiry.said["resource"]) == ("none", None)
    field = inquiry.step.response.value(b"retry-after")
    assert field == (None if retry_after is None else b"%d" % retry_after)


@pytest.mark.parametrize("seen", [None, completed(stored()), record(State.UNKNOWN), record(State.EXPIRED)])
def test_what_is_not_known(seen):
    """No record, or one whose time is over, which a claim would treat as none: 404, each time the same."""
    inquiry = Inquiry().found(seen, now_ms=900_000)
    absent = Inquiry().found(None)
    assert (inquiry.step.response.status, code_of(inquiry.step)) == (404, "key-unknown")
    assert inquiry.step == absent.step


@pytest.mark.parametrize(
    ("inquiry", "status", "code"),
    [
        (Inquiry(headers=()), 400, "key-missing"),
        (Inquiry(headers=((b"idempotency-key", b'"open'),)), 400, "key-invalid"),
        (Inquiry(scope=None), 401, "scope-missing"),
        (Inquiry(allowed=False), 403, "replay-forbidden"),
    ],
)
def test_who_is_told_nothing(inquiry, status, code):
    """Refused before the store is asked, so that the refusal says nothing of what is there."""
    assert (inquiry.step.response.status, code_of(inquiry.step)) == (status, code)
