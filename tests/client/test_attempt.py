"""What is tried again, when, and what is known afterwards: the flow of a client's attempts, without a network."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrysafe.client.attempt import (
    Afford,
    Answer,
    Certainty,
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
from retrysafe.client.profile import PROFILES
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


CASES = json.loads(Path(__file__).with_name("attempt_cases.json").read_text("utf-8"))
"""Those that hold for every client: the module for browsers goes through the same file."""


def reply_of(case: dict[str, Any]) -> Answer | Failure:
    """A reply as the file has it."""
    return Answer(**case) if "status" in case else Failure(**case)


# What only some profiles have.
MEANINGS = [
    (STRIPE, Answer(409, code="idempotency_key_in_use"), LATER),
    (ADYEN, Answer(422, code="704"), LATER),
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


@pytest.mark.parametrize("case", CASES["meanings"], ids=json.dumps)
def test_what_a_reply_means(case):
    """What is tried again and what is not (R91), and what the problem documents of this project say."""
    profile, reply = PROFILES[case["profile"]], reply_of(case["reply"])
    assert meaning_of(reply, profile, doubtful=case.get("doubtful", False)) is Meaning[case["meaning"].upper()]


@pytest.mark.parametrize(("profile", "reply", "meaning"), MEANINGS, ids=str)
def test_meaning(profile, reply, meaning):
    """What a reply to the first attempt means."""
    assert meaning_of(reply, profile, doubtful=False) is meaning


@pytest.mark.parametrize("case", CASES["effects"], ids=json.dumps)
def test_effect(case):
    """A reply leaves doubt unless it is known that nothing was done."""
    assert may_have_effect(reply_of(case["reply"])) is case["possible"]


@pytest.mark.parametrize("case", CASES["endings"], ids=json.dumps)
def test_ending(case):
    """What is known when no further attempt is made, and how many there were: of a key that may have been sent before
    too, and of one that is too old to be sent (R89, R91, R94).
    """
    driver = Driver([(reply_of(reply), 0.0) for reply in case["replies"]])
    created_at_s = driver.now_s - case["age_s"] if "age_s" in case else None
    doubtful = case.get("doubtful", False)
    ended = driver.run(attempts(OURS, Schedule(), created_at_s=created_at_s, doubtful=doubtful))
    assert (ended.certainty, ended.attempts) == (Certainty(case["certainty"]), case["attempts"])
    assert len(driver.sent_s) == case["attempts"]


def test_a_short_lifetime_leaves_time_for_attempts():
    """The margin never takes the whole lifetime."""
    ended, _ = told(Answer(201), profile=replace(OURS, lifetime_s=60.0))
    assert ended.attempts == 1


@pytest.mark.parametrize("case", CASES["pauses"], ids=json.dumps)
def test_pauses(case):
    """Half a second, doubled each time up to a cap, full jitter, five attempts; `Retry-After` is a minimum, with jitter
    on top so that not all come back at once; what could only be sent too late is not waited for (R90).
    """
    _, driver = told(*map(reply_of, case["replies"]), schedule=Schedule(**case["schedule"]))
    assert [[sleep.least_s, sleep.most_s] for sleep in driver.sleeps] == case["pauses_s"]


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
