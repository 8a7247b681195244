"""What is tried again, when, and what is known afterwards: the flow of a client's attempts, without a network."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrysafe.client.attempt import (
    Afford,
    Answer,
    Certainty,
    Ended,
    Failure,
    Meaning,
    Now,
    Schedule,
    Send,
    Sleep,
    attempts,
    may_have_effect,
    meaning_of,
)
from retrysafe.client.profile import DAY_S, IETF, PROFILES
from retrysafe.errors import ConfigurationError

OURS, STRIPE, ADYEN = PROFILES["retrysafe"], PROFILES["stripe-v1"], PROFILES["adyen"]
LOST, UNSENT = Failure(sent=True), Failure(sent=False)
SETTLED, REFUSED, LATER, UNKNOWN = Meaning.SETTLED, Meaning.REFUSED, Meaning.LATER, Meaning.UNKNOWN


class Driver:
    """Runs the flow by a clock of its own: each reply takes as long as it says."""

    def __init__(self, replies, *, draw=0.5, affordable=10**6, start_s=1_000_000.0):
        self.replies, self.draw, self.affordable, self.now_s = list(replies), draw, affordable, start_s
        self.sent_s: list[float] = []
        self.sleeps: list[Sleep] = []

    def run(self, flow) -> Any:
        """To the end of the flow."""
        answer = None
        try:
            while True:
                answer = self.perform(flow.send(answer))
        except StopIteration as end:
            return end.value

    def perform(self, step):
        """One step."""
        match step:
            case Send(number):
                self.sent_s.append(self.now_s)
                assert number == len(self.sent_s)
                reply, took_s = self.replies[min(number, len(self.replies)) - 1]
                self.now_s += took_s
                return reply
            case Sleep(least_s, most_s):
                assert 0 <= least_s <= most_s
                self.sleeps.append(step)
                self.now_s += least_s + self.draw * (most_s - least_s)
                return None
            case Now():
                return self.now_s
            case Afford():
                self.affordable -= 1
                return self.affordable >= 0


def told(*replies, profile=OURS, schedule=None, **options) -> tuple[Any, Driver]:
    """How an operation with these replies ends; each comes at once, and the last one again and again."""
    driver = Driver([(reply, 0.0) for reply in replies])
    return driver.run(attempts(profile, schedule or Schedule(), **options)), driver


MEANINGS = [
    # R91: what is tried again
    *((OURS, Answer(status), LATER) for status in (408, 425, 429, 500, 502, 503, 504)),
    (OURS, LOST, LATER),
    (OURS, UNSENT, LATER),
    (OURS, Answer(409, code="in-progress"), LATER),
    (STRIPE, Answer(409, code="idempotency_key_in_use"), LATER),
    (ADYEN, Answer(422, code="704"), LATER),
    (IETF, Answer(409, retry_after_s=1.0), LATER),
    # R91: what is not
    *((OURS, Answer(status), SETTLED) for status in (200, 201, 202, 204, 303, 400, 402, 404, 410, 422)),
    *((OURS, Answer(status), REFUSED) for status in (401, 403, 405, 407, 412, 413, 415, 421, 501)),
    *((OURS, Answer(status), REFUSED) for status in (307, 308)),
    (OURS, Answer(409), SETTLED),
    (OURS, Answer(409, code="out-of-stock", retry_after_s=1.0), SETTLED),
    (IETF, Answer(409), SETTLED),
    *((OURS, Answer(status, replayed=True), SETTLED) for status in (201, 401, 409, 429, 500, 503)),
    # what the problem documents of this project say
    (OURS, Answer(409, code="outcome-unknown"), UNKNOWN),
    (OURS, Answer(412, code="key-expired"), UNKNOWN),
    (OURS, Answer(409, code="replay-unavailable"), SETTLED),
    (OURS, Answer(422, code="key-reused"), REFUSED),
    (OURS, Answer(400, code="key-missing"), REFUSED),
    (OURS, Answer(400, code="key-invalid"), REFUSED),
    (OURS, Answer(403, code="replay-forbidden"), REFUSED),
    (OURS, Answer(401, code="scope-missing"), REFUSED),
    (OURS, Answer(500, code="handler-failed"), LATER),
    (OURS, Answer(500, code="rolled-back"), LATER),
    (OURS, Answer(500, code="commit-pending"), LATER),
    (OURS, Answer(503, code="store-unavailable"), LATER),
    # and what they do not say, because another status stands there
    (IETF, Answer(401, code="key-expired"), REFUSED),
    # hints win, and say nothing of what was done
    (STRIPE, Answer(400, hint=True), LATER),
    (STRIPE, Answer(409, code="lock_timeout", hint=True), LATER),
    (STRIPE, Answer(500, replayed=True, hint=True), LATER),
    (STRIPE, Answer(500, hint=False), UNKNOWN),
    (STRIPE, Answer(429, hint=False), REFUSED),
    (STRIPE, Answer(409, code="idempotency_key_in_use", hint=False), UNKNOWN),
    (STRIPE, Answer(402, hint=False), SETTLED),
    (STRIPE, Answer(401, hint=False), REFUSED),
    (STRIPE, Answer(200, hint=True), SETTLED),
]


@pytest.mark.parametrize(("profile", "reply", "meaning"), MEANINGS, ids=str)
def test_meaning(profile, reply, meaning):
    """What a reply to the first attempt means."""
    assert meaning_of(reply, profile, doubtful=False) is meaning


def test_a_conflict_after_doubt_may_be_our_own_attempt():
    """Where nobody said how to tell them apart, a 409 after an attempt without an answer is asked about again."""
    assert meaning_of(Answer(409), IETF, doubtful=True) is LATER
    assert meaning_of(Answer(409), OURS, doubtful=True) is SETTLED


@pytest.mark.parametrize(
    ("reply", "possible"),
    [
        (LOST, True),
        (UNSENT, False),
        (Answer(500), True),
        (Answer(504), True),
        (Answer(408), True),
        (Answer(409, code="in-progress"), True),
        (Answer(429), False),
        (Answer(425), False),
        (Answer(503), True),
        (Answer(503, code="store-unavailable"), False),
        (Answer(502, code="upstream-unreachable"), False),
        (Answer(500, code="rolled-back"), False),
        (Answer(500, code="store-unavailable"), True),
    ],
    ids=str,
)
def test_effect(reply, possible):
    """A reply leaves doubt unless it is known that nothing was done."""
    assert may_have_effect(reply) is possible


ENDINGS = [
    ([Answer(201)], Certainty.SETTLED, 1),
    ([LOST, Answer(201, replayed=True)], Certainty.SETTLED, 2),
    ([UNSENT], Certainty.NOT_DONE, 5),
    ([Answer(429)], Certainty.NOT_DONE, 5),
    ([LOST], Certainty.UNKNOWN, 5),
    ([Answer(503)], Certainty.UNKNOWN, 5),
    ([LOST, UNSENT], Certainty.UNKNOWN, 5),
    ([Answer(401)], Certainty.NOT_DONE, 1),
    ([LOST, Answer(401)], Certainty.UNKNOWN, 2),
    ([LOST, Answer(412)], Certainty.UNKNOWN, 2),
    ([LOST, Answer(307)], Certainty.UNKNOWN, 2),
    ([LOST, Answer(422, code="key-reused")], Certainty.UNKNOWN, 2),
    ([LOST, Answer(422)], Certainty.SETTLED, 2),
    ([Answer(409, code="outcome-unknown")], Certainty.UNKNOWN, 1),
    ([Answer(503), Answer(503, replayed=True)], Certainty.SETTLED, 2),
    ([Answer(409, code="in-progress"), Answer(201, replayed=True)], Certainty.SETTLED, 2),
]


@pytest.mark.parametrize(("replies", "certainty", "count"), ENDINGS, ids=str)
def test_ending(replies, certainty, count):
    """What is known when no further attempt is made, and how many there were (R89, R91)."""
    ended, _ = told(*replies)
    assert (ended.certainty, ended.attempts) == (certainty, count)


@pytest.mark.parametrize("reply", [UNSENT, Answer(401), Answer(429)], ids=str)
def test_a_key_that_may_have_been_sent_before_leaves_doubt(reply):
    """Of a key that another process may have used, an attempt that did nothing says nothing."""
    assert told(reply)[0].certainty is Certainty.NOT_DONE
    assert told(reply, doubtful=True)[0].certainty is Certainty.UNKNOWN


def test_nothing_is_sent_when_the_lifetime_is_over():
    """An old key is not sent again: its record may be forgotten, and it would be done a second time (R94)."""
    ended, driver = told(Answer(201), created_at_s=1_000_000.0 - DAY_S, doubtful=True)
    assert ended == Ended(None, Certainty.UNKNOWN, 0)
    assert not driver.sent_s


def test_a_short_lifetime_leaves_time_for_attempts():
    """The margin never takes the whole lifetime."""
    ended, _ = told(Answer(201), profile=replace(OURS, lifetime_s=60.0))
    assert ended.attempts == 1


def test_the_schedule_of_the_contract():
    """Half a second, doubled each time, full jitter, five attempts (R90)."""
    _, driver = told(LOST)
    assert [(sleep.least_s, sleep.most_s) for sleep in driver.sleeps] == [(0, 0.5), (0, 1), (0, 2), (0, 4)]


def test_the_cap():
    """Our own choice never exceeds 30 seconds (R90)."""
    _, driver = told(LOST, schedule=Schedule(attempts_max=40, deadline_s=10_000.0))
    assert max(sleep.most_s for sleep in driver.sleeps) == 30.0


def test_retry_after_is_a_minimum():
    """The server's wish is the least; jitter comes on top, so that not all come back at once (R90)."""
    _, driver = told(Answer(503, retry_after_s=7.0), Answer(201))
    assert driver.sleeps == [Sleep(7.0, 7.5)]


def test_a_retry_after_beyond_the_deadline_ends_it():
    """What could only be sent too late is not waited for."""
    ended, driver = told(Answer(503, retry_after_s=3_600.0))
    assert (ended.attempts, driver.sleeps) == (1, [])


def test_a_budget_that_is_spent_ends_it():
    """In an outage a process stops to multiply its calls."""
    driver = Driver([(LOST, 0.0)], affordable=1)
    assert driver.run(attempts(OURS, Schedule())).attempts == 2


def test_a_schedule_that_cannot_be():
    """Every fault of a schedule is named."""
    with pytest.raises(ConfigurationError, match=r"attempts_max is 0.*deadline_s is -1"):
        Schedule(attempts_max=0, deadline_s=-1)


ANSWERS = st.builds(
    Answer,
    st.sampled_from([200, 201, 303, 307, 400, 401, 404, 408, 409, 412, 422, 425, 429, 500, 502, 503, 504]),
    st.booleans(),
    st.sampled_from(["", "in-progress", "outcome-unknown", "key-expired", "store-unavailable", "key-reused", "x"]),
    st.none() | st.floats(0, 500),
    st.none() | st.booleans(),
)
REPLIES = st.lists(st.tuples(ANSWERS | st.builds(Failure, st.booleans()), st.floats(0, 200)), min_size=1, max_size=12)
SCHEDULES = st.builds(
    Schedule,
    st.integers(1, 12),
    st.floats(0, 5),
    st.floats(0, 60),
    st.floats(0, 600),
    st.floats(0, 600),
)


@given(
    REPLIES, SCHEDULES, st.sampled_from(sorted(PROFILES)), st.floats(0, 1),
    st.tuples(st.none() | st.floats(0, 90_000), st.booleans()),
)  # fmt: skip
def test_bounds(replies, schedule, name, draw, before):
    """Never too many attempts, none too late, no wait shorter than asked, no certainty that nobody gave."""
    age_s, doubtful = before
    profile, driver = PROFILES[name], Driver(replies, draw=draw)
    created_s = None if age_s is None else driver.now_s - age_s
    began_s = driver.now_s
    ended = driver.run(attempts(profile, schedule, created_at_s=created_s, doubtful=doubtful))
    assert ended.attempts == len(driver.sent_s) <= schedule.attempts_max
    latest_s = min(
        began_s + schedule.deadline_s,
        (began_s if created_s is None else created_s) + profile.lifetime_s - min(schedule.margin_s, profile.lifetime_s),
    )
    slack_s = max(0.0, schedule.margin_s - profile.lifetime_s / 2) + 1e-6
    assert all(sent_s <= latest_s + slack_s for sent_s in driver.sent_s)
    got = [replies[min(at, len(replies) - 1)][0] for at in range(ended.attempts)]
    for number, sleep in enumerate(driver.sleeps):
        asked_s = (got[number].retry_after_s or 0.0) if isinstance(got[number], Answer) else 0.0
        assert sleep.least_s == asked_s
        assert sleep.most_s <= asked_s + min(schedule.delay_s_max, schedule.first_delay_s * 2**number)
    doubt = doubtful or any(may_have_effect(reply) for reply in got[:-1])
    if ended.certainty is Certainty.NOT_DONE:
        assert not doubt
    if ended.certainty is Certainty.SETTLED:
        assert isinstance(got[-1], Answer)
        assert got[-1].status < 400 or meaning_of(got[-1], profile, doubtful=doubt) is SETTLED
