"""Every judgement on a record and on an outcome, as tables."""

from dataclasses import replace

import pytest

from retrysafe.model import BytesBody, Found, Head, Record, Request, Response, State
from retrysafe.protocol import decision
from retrysafe.protocol.decision import Verdict, decide, judge, retry_after_s
from retrysafe.protocol.effects import Answered, Broken, Cancelled, Fate, Raised
from retrysafe.protocol.policy import Policy

MINE, THEIRS = b"mine".ljust(16), b"theirs".ljust(16)
NOW_MS = 1_000_000
LATER_MS, EARLIER_MS = NOW_MS + 1, NOW_MS


def a_record(**changes):
    """A record in progress under another's live claim, but for the changes."""
    record = Record(
        state=State.IN_PROGRESS,
        token=THEIRS,
        attempt=1,
        fingerprint=b"\1",
        created_at_ms=0,
        claimed_at_ms=NOW_MS - 10_000,
        lease_until_ms=LATER_MS,
        settled_at_ms=None,
        expires_at_ms=None,
        forget_at_ms=NOW_MS + 1_000_000,
        response=None,
    )
    return replace(record, **changes)


def judged(record, *, same_request=True, **options):
    return decide(Found(record, NOW_MS), MINE, Policy(**options), same_request=same_request)


def refused_as(found):
    return found.problem.code if isinstance(found, decision.Refuse) else type(found)


COMPLETED = {"state": State.COMPLETED, "response": b"x"}


@pytest.mark.parametrize(
    ("changes", "options", "expected"),
    [
        ({"token": MINE}, {}, decision.Run),
        ({}, {}, "in-progress"),
        ({"lease_until_ms": EARLIER_MS}, {}, decision.Abandon),
        ({"lease_until_ms": EARLIER_MS}, {"recovery": "rerun"}, decision.TakeOver),
        ({"lease_until_ms": LATER_MS}, {"recovery": "rerun"}, "in-progress"),
        ({**COMPLETED, "expires_at_ms": LATER_MS}, {}, decision.Replay),
        ({**COMPLETED, "expires_at_ms": EARLIER_MS}, {}, "key-expired"),
        ({"state": State.EXPIRED, "expires_at_ms": EARLIER_MS}, {}, "key-expired"),
        ({"state": State.RETRYABLE}, {}, decision.Reclaim),
        ({"state": State.UNKNOWN}, {}, "outcome-unknown"),
        ({"state": State.UNKNOWN}, {"recovery": "rerun"}, "outcome-unknown"),
    ],
)
def test_what_a_record_means(changes, options, expected):
    """Contract part D, row by row; a lease or lifetime that ends now has ended."""
    assert refused_as(judged(a_record(**changes), **options)) == expected


@pytest.mark.parametrize("state", State)
def test_another_request_is_refused_in_every_state(state):
    """Before anything else is said of the record: also while it is in progress (R34)."""
    found = judged(a_record(state=state, expires_at_ms=LATER_MS, response=b"x"), same_request=False)
    assert refused_as(found) == "key-reused"


@pytest.mark.parametrize("state", [state for state in State if state is not State.IN_PROGRESS])
def test_a_record_whose_time_is_over_is_forgotten_even_by_another_request(state):
    """It is as if there were no record, so it binds no fingerprint either."""
    assert isinstance(judged(a_record(state=state, forget_at_ms=NOW_MS), same_request=False), decision.Forget)


def test_a_record_in_progress_is_never_forgotten_by_a_request():
    """Not even long after its lease: somebody may still be running it (R71)."""
    found = judged(a_record(lease_until_ms=EARLIER_MS, forget_at_ms=EARLIER_MS))
    assert isinstance(found, decision.Abandon)


@pytest.mark.parametrize(
    ("age_ms", "left_ms", "expected_s"),
    [(0, 60_000, 1), (100, 60_000, 1), (4_001, 60_000, 5), (50_000, 10_000, 10), (59_999, 1, 1), (30_000, 30_000, 30)],
)
def test_when_to_ask_again(age_ms, left_ms, expected_s):
    """max(1, min(lease left, age of the claim)), in whole seconds rounded up (R46)."""
    record = a_record(claimed_at_ms=NOW_MS - age_ms, lease_until_ms=NOW_MS + left_ms)
    assert retry_after_s(record, NOW_MS) == expected_s


def test_in_progress_says_when_to_ask_again():
    """In the field that clients read and in the document."""
    problem = judged(a_record(claimed_at_ms=NOW_MS - 3_000, lease_until_ms=NOW_MS + 60_000)).problem
    assert (b"retry-after", b"3") in problem.headers
    assert ("retry_after", 3) in problem.members


REQUEST = Request(Head("POST", b"/orders", b"", ()), BytesBody())


def answered(status, headers=(), fate=Fate.RAN):
    return Answered(Response(status, tuple(headers)), whole=True, size=0, digest=b"", fate=fate)


RELEASED = {401, 403, 405, 407, 408, 415, 421, 423, 425, 429}


@pytest.mark.parametrize("status", [*range(200, 227), *range(300, 305), *range(400, 452), *range(500, 512)])
def test_what_becomes_of_a_status(status):
    """What says that it did nothing yet is released; the rest is recorded, 5xx too (part E, R52)."""
    assert judge(answered(status), REQUEST, Policy()) is (Verdict.RELEASE if status in RELEASED else Verdict.RECORD)


@pytest.mark.parametrize(
    ("fate", "verdict"),
    [(Fate.NO_EFFECT, Verdict.RELEASE), (Fate.NOT_RUN, Verdict.DISCARD), (Fate.UNKNOWN, Verdict.UNKNOWN)],
)
def test_the_handler_is_believed(fate, verdict):
    """Whether it answers, raises or is stopped, what it said of its operation counts."""
    assert judge(answered(200, fate=fate), REQUEST, Policy()) is verdict
    assert judge(Raised(fate), REQUEST, Policy()) is verdict
    assert judge(Cancelled(fate), REQUEST, Policy()) is verdict


@pytest.mark.parametrize(
    ("outcome", "verdict"),
    [(Raised(Fate.RAN), Verdict.RECORD), (Cancelled(Fate.RAN), Verdict.UNKNOWN), (Broken(), Verdict.UNKNOWN)],
)
def test_a_handler_that_fails(outcome, verdict):
    """An exception is recorded as a 500; a broken or stopped one leaves nothing known (R52)."""
    assert judge(outcome, REQUEST, Policy()) is verdict


@pytest.mark.parametrize(
    ("outcome", "verdict"),
    [
        (Raised(Fate.RAN), Verdict.RELEASE),
        (Cancelled(Fate.RAN), Verdict.RELEASE),
        (Broken(), Verdict.RELEASE),
        (answered(500), Verdict.RELEASE),
        (answered(503), Verdict.RELEASE),
        (answered(200), Verdict.RECORD),
        (answered(404), Verdict.RECORD),
        (answered(500, fate=Fate.UNKNOWN), Verdict.UNKNOWN),
        (Raised(Fate.UNKNOWN), Verdict.UNKNOWN),
    ],
)
def test_a_transactional_handler_that_completed_no_record(outcome, verdict):
    """What fails has had no effect, unless the handler says otherwise; what succeeds or refuses is recorded (R42)."""
    assert judge(outcome, REQUEST, Policy(transactional=True)) is verdict


@pytest.mark.parametrize(
    ("status", "location", "verdict"),
    [
        (307, b"/orders/", Verdict.DISCARD),
        (308, b"http://shop.example/orders/", Verdict.DISCARD),
        (307, b"/orders/?page=1", Verdict.DISCARD),
        (307, b"/orders", Verdict.RECORD),
        (307, b"/elsewhere", Verdict.RECORD),
        (303, b"/orders/", Verdict.RECORD),
        (307, None, Verdict.RECORD),
    ],
)
def test_a_routers_redirect_leaves_no_record(status, location, verdict):
    """Only the slash at the end differs: no handler saw the request yet."""
    headers = () if location is None else ((b"Location", location),)
    assert judge(answered(status, headers), REQUEST, Policy()) is verdict


def test_the_policy_may_classify():
    """Its word goes before the table; None leaves the table's (R51)."""
    policy = Policy(classify=lambda response: {409: "release", 504: "unknown", 401: "record"}.get(response.status))
    verdicts = [judge(answered(status), REQUEST, policy) for status in (409, 504, 401, 429, 200)]
    assert verdicts == [Verdict.RELEASE, Verdict.UNKNOWN, Verdict.RECORD, Verdict.RELEASE, Verdict.RECORD]


@pytest.mark.parametrize(
    ("outcome", "verdict"),
    [
        (answered(422, fate=Fate.NOT_REACHED), Verdict.DISCARD),
        (answered(403, fate=Fate.NOT_REACHED), Verdict.DISCARD),
        (answered(503, fate=Fate.NOT_REACHED), Verdict.DISCARD),
        (Raised(Fate.NOT_REACHED), Verdict.DISCARD),
        (Cancelled(Fate.NOT_REACHED), Verdict.DISCARD),
        (answered(201, fate=Fate.NOT_REACHED), Verdict.RECORD),
        (answered(303, fate=Fate.NOT_REACHED), Verdict.DISCARD),
    ],
)
def test_a_handler_that_was_not_reached(outcome, verdict):
    """What refuses before it has run nothing; a success in its place is an outcome all the same."""
    assert judge(outcome, REQUEST, Policy()) is verdict
