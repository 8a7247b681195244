"""The flow of a request, driven by hand: what it asks for, in which order, and what it answers."""

import json
from dataclasses import replace

import pytest

from retrysafe.errors import StoreUnavailable
from retrysafe.model import BytesBody, Claim, Found, Head, Record, Request, Response, State
from retrysafe.protocol import answers, effects, flow, history, transitions
from retrysafe.protocol.answers import BreakOff, Deliver, Respond
from retrysafe.protocol.effects import Answered, Fate, Settled, Unread
from retrysafe.protocol.flow import Terms, protect
from retrysafe.protocol.policy import Policy
from retrysafe.protocol.snapshot import seal, take_snapshot

SECRET, TOKEN, OTHER = b"s" * 32, b"t" * 16, b"o" * 16
KEYED = ((b"idempotency-key", b'"k-1"'), (b"content-type", b"application/json"))
ANSWER = Answered(Response(201, ((b"location", b"/orders/1"),), b"made"), whole=True, size=4, digest=b"", fate=Fate.RAN)


def terms(**options):
    return Terms(Policy(**options), "default", SECRET, TOKEN)


class Run:
    """One flow and its latest step: an effect that it asks for, or its answer."""

    def __init__(self, headers=KEYED, body=b"{}", **options):
        self.head = Head("POST", b"/orders", b"", headers)
        self.request = Request(self.head, BytesBody(body))
        self.terms = terms(**options)
        self.flow = protect(self.head, self.terms)
        self.step = next_of(self.flow, None)

    def answer(self, answer):
        self.step = next_of(self.flow, answer)
        return self

    def fail(self):
        try:
            self.step = self.flow.throw(StoreUnavailable())
        except StopIteration as end:
            self.step = end.value
        return self

    def claiming(self):
        """Up to the claim."""
        return self.answer(("acme", self.request))

    def found(self, state=State.IN_PROGRESS, token=OTHER, response=None, **changes):
        """The claim finds a record: by default another's, in progress."""
        record = {
            "fingerprint": self.step.fingerprint,
            "created_at_ms": 0,
            "claimed_at_ms": 0,
            "lease_until_ms": 60_000,
            "settled_at_ms": None,
            "expires_at_ms": 90_000,
            "forget_at_ms": 100_000,
            "attempt": 1,
            **changes,
        }
        return self.answer(Found(Record(state=state, token=token, response=response, **record), now_ms=1_000))

    def remembered(self):
        """Its past was added to the history."""
        assert isinstance(self.step, transitions.AddHistory)
        return self.answer(True)

    def executing(self):
        """Up to the handler, under the flow's own claim."""
        return self.claiming().found(token=TOKEN)


def next_of(generator, answer):
    try:
        return generator.send(answer)
    except StopIteration as end:
        return end.value


def code_of(step):
    return json.loads(step.response.body)["code"]


def test_a_first_request_asks_for_each_thing_once_and_in_order():
    """The sentence of the design: from key to fingerprint, claim, execute, record, respond."""
    run = Run()
    assert run.step == effects.Admit(16 << 20)
    run.answer(("acme", run.request))
    claim = run.step
    assert (type(claim), claim.token, claim.lease_ms) == (transitions.ClaimIfAbsent, TOKEN, 60_000)
    run.found(token=TOKEN)
    assert run.step.claim == Claim(claim.record_id, TOKEN, 1)
    assert (run.step.key.text, run.step.scope, run.step.request) == ("k-1", "acme", run.request)
    run.answer(ANSWER)
    assert isinstance(run.step, effects.Settle)
    assert isinstance(run.step.transition, transitions.CompleteIfHeld)
    assert run.answer(Settled.DONE).step == Deliver("recorded")


def test_a_replay_asks_for_nothing_after_the_claim_but_leave():
    """One round trip: the claim brings the stored answer."""
    run = Run().claiming()
    stored = seal(take_snapshot(ANSWER, run.head), run.step.record_id, SECRET)
    run.found(State.COMPLETED, response=stored)
    assert run.step == effects.Authorize()
    answer = run.answer(True).step
    assert (answer.ending, answer.response.status, answer.response.body) == ("replayed", 201, b"made")
    assert (b"idempotent-replayed", b"true") in answer.response.headers


def test_a_door_that_has_nothing_to_ask_for_leave_is_not_asked():
    """Nobody but a door that says so: to ask is what holds where nothing is said."""
    run = Run()
    run.flow = protect(run.head, replace(run.terms, authorizes=False))
    run.step = next_of(run.flow, None)
    stored = seal(take_snapshot(ANSWER, run.head), run.claiming().step.record_id, SECRET)
    assert run.found(State.COMPLETED, response=stored).step.ending == "replayed"


def test_a_replay_that_is_not_allowed_shows_nothing():
    """403, with nothing of the stored answer in it (R60)."""
    run = Run().claiming()
    stored = seal(take_snapshot(ANSWER, run.head), run.step.record_id, SECRET)
    answer = run.found(State.COMPLETED, response=stored).answer(False).step
    assert (answer.response.status, code_of(answer)) == (403, "replay-forbidden")
    assert b"made" not in answer.response.body


def test_a_record_that_was_moved_or_changed_is_not_replayed():
    """Its seal fits another record: refused, and never run again."""
    run = Run().claiming()
    stored = seal(take_snapshot(ANSWER, run.head), b"another".ljust(32), SECRET)
    assert code_of(run.found(State.COMPLETED, response=stored).answer(True).step) == "replay-unavailable"


@pytest.mark.parametrize(
    ("headers", "options", "code"),
    [
        ((), {"required": True}, "key-missing"),
        (((b"idempotency-key", b""),), {}, "key-invalid"),
        (((b"idempotency-key", b"a"), (b"idempotency-key", b"a")), {}, "key-invalid"),
        (((b"idempotency-key", b'"open'),), {}, "key-invalid"),
    ],
)
def test_a_bad_key_is_refused_before_anything_is_asked(headers, options, code):
    """No scope, no content, no claim: the first step is the answer (R5, R38)."""
    assert code_of(Run(headers=headers, **options).step) == code


def test_no_key_and_none_required_runs_unprotected():
    """With no promise, and no work."""
    assert Run(headers=()).step == answers.Bypass()


def test_no_account_is_refused():
    """There is no bucket for those who say nothing (R17)."""
    answer = Run().answer(Unread.NO_ACCOUNT).step
    assert (answer.response.status, code_of(answer)) == (401, "scope-missing")


def test_an_anonymous_key_must_be_unguessable():
    """Without an account the key itself is all that separates two strangers (R17)."""
    for key, step in ((b'"k-1"', Respond), (b"8e03978e-40d5-43dd-bc93-6894a57f9324", effects.Admit)):
        head = Head("POST", b"/orders", b"", ((b"idempotency-key", key),))
        anonymous = protect(head, Terms(Policy(), "default", SECRET, TOKEN, anonymous=True))
        assert isinstance(next_of(anonymous, None), step)


def test_a_content_that_is_too_large_is_refused_before_the_claim():
    """413, and no record (R35)."""
    assert code_of(Run().answer(Unread.TOO_LARGE).step) == "body-too-large"


def test_a_client_that_goes_while_it_sends_leaves_nothing():
    """No claim was made, and there is nobody to answer (R38)."""
    assert Run().answer(Unread.CLIENT_GONE).step == answers.Vanish()


CODED = (*KEYED, (b"content-encoding", b"gzip"))


@pytest.mark.parametrize(
    ("headers", "size", "step"),
    [
        (KEYED, flow.INLINE_BYTES_MAX, transitions.ClaimIfAbsent),
        (KEYED, flow.INLINE_BYTES_MAX + 1, effects.TakeFingerprint),
        (CODED, flow.INLINE_CODED_BYTES_MAX, transitions.ClaimIfAbsent),
        (CODED, flow.INLINE_CODED_BYTES_MAX + 1, effects.TakeFingerprint),
    ],
)
def test_a_large_content_is_fingerprinted_by_the_driver(headers, size, step):
    """So that an event loop need not stand still for it, nor for what a small one expands to."""
    run = Run(headers=headers, body=b"x" * size)
    assert isinstance(run.claiming().step, step)


def test_a_store_that_is_away_refuses_and_runs_nothing():
    """Fail closed, and say when to come back (R48)."""
    answer = Run().claiming().fail().step
    assert (answer.response.status, code_of(answer)) == (503, "store-unavailable")
    assert answer.response.value(b"retry-after") == b"1"


def test_a_lapsed_claim_becomes_unknown_and_does_not_run():
    """The default: at most once (R44)."""
    run = Run().claiming().found(lease_until_ms=1_000)
    assert isinstance(run.step, transitions.MarkUnknownIfLapsed)
    assert code_of(run.answer(True).step) == "outcome-unknown"


def test_a_lapsed_claim_is_taken_over_where_that_is_declared():
    """`rerun`: the next attempt, under a token of its own."""
    run = Run(recovery="rerun").claiming().found(lease_until_ms=1_000).remembered()
    takeover = run.step
    assert (type(takeover), takeover.seen_token, takeover.token) == (transitions.TakeOverIfLapsed, OTHER, TOKEN)
    assert run.answer(True).step.claim == Claim(takeover.record_id, TOKEN, 2)


def test_a_retryable_record_runs_again():
    """Its last attempt did nothing."""
    run = Run().claiming().found(State.RETRYABLE).remembered()
    assert isinstance(run.step, transitions.ClaimIfRetryable)
    assert run.answer(True).step.claim.attempt == 2


@pytest.mark.parametrize(
    ("state", "options", "end", "settled_at_ms"),
    [
        (State.IN_PROGRESS, {"recovery": "rerun"}, history.End.LAPSED, None),
        (State.RETRYABLE, {}, history.End.RELEASED, 700),
    ],
)
def test_an_attempt_is_remembered_before_the_next_one_replaces_it(state, options, end, settled_at_ms):
    """The record knows its latest claim only; the one before it is kept for as long as the record may be there."""
    run = Run(**options).claiming().found(state, lease_until_ms=1_000, attempt=3, settled_at_ms=settled_at_ms)
    added = run.step
    assert history.decode(added.entry) == history.Attempt(3, history.token_name(OTHER), 0, 1_000, end, settled_at_ms)
    assert added.keep_ms == (30 + 1 + 30) * 86_400_000


@pytest.mark.parametrize(("state", "options"), [(State.IN_PROGRESS, {"recovery": "rerun"}), (State.RETRYABLE, {})])
def test_a_past_that_cannot_be_written_down_refuses_nobody(state, options):
    """The driver tells that the store failed; the request goes on."""
    run = Run(**options).claiming().found(state, lease_until_ms=1_000).fail()
    assert isinstance(run.step, effects.Claiming)
    assert isinstance(run.answer(True).step, effects.Execute)


def test_a_client_cannot_fill_the_store_with_attempts():
    """One that is told to come later, again and again, leaves a bounded number of them; a lapsed claim always one."""
    last = {"attempt": history.RELEASED_ATTEMPTS_KEPT}
    assert isinstance(Run().claiming().found(State.RETRYABLE, **last).step, transitions.AddHistory)
    beyond = {"attempt": history.RELEASED_ATTEMPTS_KEPT + 1}
    assert isinstance(Run().claiming().found(State.RETRYABLE, **beyond).step, transitions.ClaimIfRetryable)
    lapsed = Run(recovery="rerun").claiming().found(lease_until_ms=1_000, **beyond)
    assert isinstance(lapsed.step, transitions.AddHistory)


@pytest.mark.parametrize("state", [State.RETRYABLE, State.IN_PROGRESS])
def test_a_lost_race_looks_again(state):
    """Whoever came first decides; the flow reads what they made of it."""
    run = Run().claiming().found(state, lease_until_ms=1_000)
    if state is State.RETRYABLE:
        run.remembered()
    look = transitions.Read if state is State.RETRYABLE else transitions.ClaimIfAbsent
    assert isinstance(run.answer(False).step, look)
    if state is State.RETRYABLE:
        assert isinstance(run.answer(None).step, transitions.ClaimIfAbsent)


@pytest.mark.parametrize("state", [State.RETRYABLE, State.IN_PROGRESS])
def test_a_claim_that_was_sent_twice_recognises_itself(state):
    """A library heard only the second answer. The next claim must not be the one that is taken back: it deletes."""
    run = Run(recovery="rerun").claiming().found(state, lease_until_ms=1_000).remembered().answer(False)
    assert isinstance(run.step, transitions.Read)
    record = Record(State.IN_PROGRESS, TOKEN, 2, b"\1", 0, 0, 9, None, None, 0, None)
    identity = run.step.record_id
    executing = run.answer(Found(record, now_ms=1)).step
    assert isinstance(executing, effects.Execute)
    assert executing.claim == Claim(identity, TOKEN, 2)


def test_a_record_that_is_fought_over_is_given_up_in_the_end():
    """Every loop has an end: the client asks again."""
    run = Run().claiming()
    for _ in range(flow.CLAIM_ROUNDS_MAX):
        run.found(State.RETRYABLE).remembered().answer(False).answer(None)
    assert code_of(run.step) == "in-progress"


def test_a_forgotten_record_makes_room_for_a_new_operation():
    """Past its time it is deleted, under a condition, and claimed anew (R73)."""
    run = Run().claiming().found(State.EXPIRED, forget_at_ms=1_000)
    assert isinstance(run.step, transitions.ForgetIfOver)
    assert isinstance(run.answer(True).step, transitions.ClaimIfAbsent)


def test_an_exception_is_answered_and_recorded_as_the_same_500():
    """So that a retry gets what the first client got, and runs nothing."""
    run = Run().executing().answer(effects.Raised(Fate.RAN))
    stored = run.step.transition.response
    answer = run.answer(Settled.DONE).step
    assert (answer.response.status, code_of(answer)) == (500, "handler-failed")
    assert answer.response.body in stored


@pytest.mark.parametrize(
    ("outcome", "transition"),
    [
        (effects.Raised(Fate.NO_EFFECT), transitions.ReleaseIfHeld),
        (effects.Raised(Fate.NOT_RUN), transitions.DiscardIfHeld),
        (effects.Cancelled(Fate.RAN), transitions.MarkUnknownIfHeld),
        (effects.Broken(), transitions.MarkUnknownIfHeld),
    ],
)
def test_each_outcome_has_its_settlement(outcome, transition):
    """What is not recorded is released, discarded, or known to be unknown."""
    assert isinstance(Run().executing().answer(outcome).step.transition, transition)


def test_a_release_after_an_earlier_attempt_keeps_the_key_for_as_long_as_an_outcome_would():
    """That attempt may have had an effect after all: another request does not get its key meanwhile."""
    policy = Policy(recovery="rerun")
    first = Run(recovery="rerun").executing().answer(effects.Raised(Fate.NO_EFFECT)).step.transition
    run = Run(recovery="rerun").claiming().found(State.IN_PROGRESS, lease_until_ms=1_000)
    while not isinstance(run.step, effects.Execute):
        run.answer(True)
    second = run.answer(effects.Raised(Fate.NO_EFFECT)).step.transition
    assert (first.claim.attempt, first.forget_after_ms) == (1, policy.lifetime_ms)
    assert (second.claim.attempt, second.forget_after_ms) == (2, policy.keep_ms + policy.tombstone_ms)


def test_a_broken_response_is_broken_off():
    """Bytes are out: nothing whole can follow."""
    assert Run().executing().answer(effects.Broken()).answer(Settled.DONE).step == answers.BreakOff()


def test_an_outcome_that_could_not_be_recorded_is_delivered_and_says_so():
    """The effect happened; hiding its answer would help nobody (R49)."""
    assert Run().executing().answer(ANSWER).answer(Settled.OPEN).step == Deliver("unrecorded", recorded=False)


def test_a_failure_that_could_not_be_recorded_says_so_too():
    """The 500 of an exception carries the same mark."""
    answer = Run().executing().answer(effects.Raised(Fate.RAN)).answer(Settled.OPEN).step
    assert (answer.ending, answer.response.value(b"idempotency-status")) == ("unrecorded", b"unrecorded")


def lost(run, outcome=ANSWER):
    """The store refuses the settlement, and the flow looks why."""
    run.executing().answer(outcome).answer(Settled.REFUSED)
    assert isinstance(run.step, transitions.Read)
    return run


def reread(run, state, token, response=None):
    record = Record(state, token, 2, b"\1", 0, 0, 0, None, None, 0, response)
    return run.answer(Found(record, now_ms=1)).step


def test_a_settlement_that_was_applied_and_whose_reply_was_lost_is_recognised():
    """It stands under the owner's own token, as it was sent."""
    run = Run().executing().answer(ANSWER)
    sent = run.step.transition.response
    run.answer(Settled.REFUSED)
    assert reread(run, State.COMPLETED, TOKEN, sent) == Deliver("recorded")


def test_a_late_owner_whose_unknown_record_was_resolved_sends_what_it_was_resolved_with():
    """Resolving leaves the owner's token as it is: all clients get the record's answer all the same."""
    run = lost(Run())
    resolved = Answered(Response(200, (), b"found out"), whole=True, size=9, digest=b"", fate=Fate.RAN)
    stored = seal(take_snapshot(resolved, run.head), run.step.record_id, SECRET)
    assert reread(run, State.COMPLETED, TOKEN, stored) == effects.Authorize()
    answer = run.answer(True).step
    assert (answer.ending, answer.response.body) == ("claim-lost", b"found out")


def test_an_owner_whose_claim_was_lost_sends_the_stored_outcome():
    """All clients of a key get one answer (I2)."""
    run = lost(Run())
    other = Answered(Response(200, (), b"theirs"), whole=True, size=6, digest=b"", fate=Fate.RAN)
    stored = seal(take_snapshot(other, run.head), run.step.record_id, SECRET)
    assert reread(run, State.COMPLETED, OTHER, stored) == effects.Authorize()
    answer = run.answer(True).step
    assert (answer.ending, answer.response.body) == ("claim-lost", b"theirs")


def test_an_owner_whose_claim_was_lost_may_not_see_what_its_caller_may_not():
    """The outcome of another attempt is a replay (contract R60)."""
    reread(lost(run := Run()), State.COMPLETED, OTHER, b"theirs")
    answer = run.answer(False).step
    assert (answer.ending, code_of(answer)) == ("claim-lost", "replay-forbidden")


@pytest.mark.parametrize("state", [State.IN_PROGRESS, State.RETRYABLE, State.UNKNOWN])
def test_an_owner_whose_claim_was_lost_without_an_outcome_says_unknown(state):
    """It must not send what the record may yet contradict."""
    assert code_of(reread(lost(Run()), state, OTHER)) == "outcome-unknown"


def test_an_owner_whose_record_is_gone_says_unknown():
    """Nothing holds its answer any more."""
    assert code_of(lost(Run()).answer(None).step) == "outcome-unknown"


def test_a_discard_that_finds_no_record_was_done():
    """Its reply was lost, not its effect."""
    nothing_ran = Answered(Response(503, ()), whole=True, size=0, digest=b"", fate=Fate.NOT_RUN)
    assert lost(Run(), nothing_ran).answer(None).step == Deliver("discarded")


def test_an_owner_who_cannot_look_delivers_and_says_unrecorded():
    """What it holds is the handler's own answer."""
    assert lost(Run()).fail().step == Deliver("unrecorded", recorded=False)


def test_refusals_are_told_apart_and_say_nothing_of_the_token():
    """Each occurrence has an instance of its own, from which no token can be read (R76)."""
    one, two = Run().answer(Unread.NO_ACCOUNT).step, Run().answer(Unread.NO_ACCOUNT).step
    assert json.loads(one.response.body)["instance"] == json.loads(two.response.body)["instance"]  # the same token
    assert TOKEN.hex() not in one.response.body.decode()


def test_while_the_store_cannot_be_opened_nothing_runs_under_a_key():
    """And what has no key is none of its business."""
    for headers, step in ((KEYED, Respond), ((), answers.Bypass)):
        head = Head("POST", b"/orders", b"", headers)
        assert isinstance(next_of(flow.refuse_unready(head, terms()), None), step)


# --- waiting --------------------------------------------------------------------------------------


def waited(end, began_s=5.0):
    return effects.Waited(end, began_s)


def test_a_duplicate_waits_and_looks_again():
    """It waits under its policy, and repeats its claim when the record may have changed."""
    run = Run(in_flight="wait", wait="3s").claiming()
    claim = run.step
    run.found()
    assert run.step == effects.Wait(claim.record_id, 3_000, None)
    run.answer(waited(effects.WaitEnd.CHANGED))
    assert run.step == claim
    run.found()
    assert run.step == effects.Wait(claim.record_id, 3_000, 5.0)
    run.answer(waited(effects.WaitEnd.CHANGED))
    stored = seal(take_snapshot(ANSWER, run.head), claim.record_id, SECRET)
    run.found(State.COMPLETED, response=stored)
    assert run.answer(True).step.ending == "replayed"


def test_a_waiting_request_takes_its_turn():
    """The first attempt did nothing: the next claim is this request's, by whichever way."""
    run = Run(in_flight="wait").claiming().found().answer(waited(effects.WaitEnd.CHANGED))
    run.found(State.RETRYABLE).remembered()
    assert isinstance(run.step, transitions.ClaimIfRetryable)
    assert isinstance(run.answer(True).step, effects.Execute)
    run = Run(in_flight="wait").claiming().found().answer(waited(effects.WaitEnd.CHANGED))
    assert isinstance(run.found(token=TOKEN).step, effects.Execute)


def test_the_last_look_is_the_answer():
    """When the time is over it looks once more, and then never waits again."""
    run = Run(in_flight="wait").claiming().found().answer(waited(effects.WaitEnd.OVER))
    assert isinstance(run.step, transitions.ClaimIfAbsent)
    assert code_of(run.found().step) == "in-progress"


def test_nobody_is_answered_whose_client_left():
    """There is nothing to send, and nothing to take back."""
    run = Run(in_flight="wait").claiming().found().answer(waited(effects.WaitEnd.CLIENT_GONE))
    assert run.step == answers.Vanish()


def test_waiting_does_not_use_up_the_rounds():
    """A record that is fought over by many who wait is not given up early."""
    run = Run(in_flight="wait").claiming()
    for _ in range(3 * flow.CLAIM_ROUNDS_MAX):
        run.found(State.RETRYABLE).remembered().answer(False).answer(None)  # somebody else was quicker
        assert isinstance(run.step, transitions.ClaimIfAbsent)
        run.found().answer(waited(effects.WaitEnd.CHANGED))
    assert isinstance(run.step, transitions.ClaimIfAbsent)


def test_only_who_may_waits():
    """By default a duplicate is refused at once."""
    assert code_of(Run().claiming().found().step) == "in-progress"
    assert code_of(Run(in_flight="wait").claiming().found(fingerprint=bytes(33)).step) == "key-reused"


# --- what is kept ----------------------------------------------------------------------------------


def completed(run, outcome):
    """What a run writes of an outcome."""
    return run.executing().answer(outcome).step.transition.response


@pytest.mark.parametrize("options", [{"store_body": "none"}, {"store_body": "redacted", "store_body_redact": ("/a",)}])
def test_an_answer_of_ours_is_kept_whole(options):
    """A problem document has no secret of the application's in it; the retry gets the same."""
    run = Run(**options)
    stored = completed(run, effects.Raised(Fate.RAN))
    again = Run(**options).claiming()
    again.found(State.COMPLETED, response=stored).answer(True)
    assert (again.step.ending, code_of(again.step)) == ("replayed", "handler-failed")


def test_the_policy_says_what_is_kept():
    """The first client gets all of the answer, the record what it may have of it."""
    run = Run(store_body="none")
    assert b"made" not in completed(run, ANSWER)
    assert run.answer(Settled.DONE).step == Deliver("recorded")


# --- a handler that completes its own record ------------------------------------------------------

RECORDED = Response(201, ((b"location", b"/orders/1"),), b"recorded")
SEALED = b"as it was sealed in the transaction"
FAILED = Answered(Response(409, (), b"no"), whole=True, size=2, digest=b"", fate=Fate.RAN)


def within(ended=ANSWER, **options):
    """Up to the look at the record, after a handler that completed it itself and ended like this."""
    run = Run(transactional=True, **options).executing()
    claim = run.step.claim
    run.answer(effects.CompletedWithin(RECORDED, SEALED, ended))
    assert run.step == transitions.Read(claim.record_id)
    return run


def a_record(state=State.IN_PROGRESS, token=TOKEN, response=None):
    record = Record(state, token, 1, b"f", 0, 0, 60_000, None, 90_000, 100_000, response)
    return Found(record, now_ms=1_000)


@pytest.mark.parametrize("ended", [ANSWER, FAILED, effects.Raised(Fate.RAN), effects.Cancelled(Fate.RAN)])
def test_what_was_committed_is_sent(ended):
    """One look and no other effect; whatever the handler did after its commit (R42)."""
    assert within(ended).answer(a_record(State.COMPLETED, response=SEALED)).step == Respond(RECORDED, "recorded")


@pytest.mark.parametrize(
    ("ended", "code"),
    [
        (ANSWER, "rolled-back"),
        (effects.Raised(Fate.RAN), "handler-failed"),
        (effects.Cancelled(Fate.RAN), "handler-failed"),
    ],
)
@pytest.mark.parametrize("state", [State.IN_PROGRESS, State.UNKNOWN])
def test_what_was_rolled_back_is_released(ended, code, state):
    """In progress, or given up on by somebody else: to release it is possible, so nothing was committed."""
    run = within(ended).answer(a_record(state))
    assert isinstance(run.step, transitions.ReleaseIfHeld)
    answer = run.answer(True).step
    assert (answer.response.status, code_of(answer), json.loads(answer.response.body)["retryable"]) == (500, code, True)


def test_an_error_that_was_rolled_back_goes_out_as_it_is():
    """The handler says itself that it did nothing."""
    assert within(FAILED).answer(a_record()).answer(True).step == Deliver("released")


def test_a_transaction_that_was_rolled_back_and_resolved_by_somebody():
    """The record stands completed under the owner's token, with an answer that is not the owner's."""
    run = within()
    other = Answered(Response(200, (), b"found out"), whole=True, size=9, digest=b"", fate=Fate.RAN)
    stored = seal(take_snapshot(other, run.head), run.step.record_id, SECRET)
    answer = run.answer(a_record(State.COMPLETED, response=stored)).answer(True).step
    assert (answer.ending, answer.response.body) == ("claim-lost", b"found out")


@pytest.mark.parametrize("fate", [Fate.UNKNOWN, Fate.OPEN])
@pytest.mark.parametrize("answers", [True, False])
def test_what_was_rolled_back_and_is_unknown_all_the_same(fate, answers):
    """The handler knows of something outside of its transaction that nobody can tell: it is not run again."""
    run = within(replace(ANSWER, fate=fate) if answers else effects.Raised(fate)).answer(a_record())
    assert isinstance(run.step, transitions.MarkUnknownIfHeld)
    answer = run.answer(True).step
    assert (answer.ending, answer.response.status, code_of(answer)) == ("unknown", 409, "outcome-unknown")


def test_a_commit_that_came_while_it_was_released():
    """The release waited for the row, and was refused: the second look finds the record completed."""
    run = within().answer(a_record()).answer(False)
    assert isinstance(run.step, transitions.Read)
    assert run.answer(a_record(State.COMPLETED, response=SEALED)).step == Respond(RECORDED, "recorded")


def test_a_transaction_that_is_open_still():
    """The row is locked for longer than the store waits: nothing is settled, and nothing sent as done."""
    answer = within().answer(a_record()).fail().step
    assert (answer.response.status, code_of(answer)) == (500, "commit-pending")


def test_a_store_that_cannot_be_asked():
    """One look more, on a connection that may have to be made anew; then it is open."""
    run = within().fail()
    assert isinstance(run.step, transitions.Read)
    assert run.answer(a_record(State.COMPLETED, response=SEALED)).step == Respond(RECORDED, "recorded")
    assert code_of(within().fail().fail().step) == "commit-pending"


@pytest.mark.parametrize(
    ("found", "ending"),
    [
        (None, "claim-lost"),
        (a_record(token=OTHER), "claim-lost"),
        (a_record(State.RETRYABLE), "claim-lost"),
        (a_record(State.COMPLETED, OTHER, b"x" * 40), "claim-lost"),
    ],
)
def test_a_claim_that_was_lost_before_the_commit(found, ending):
    """It was rolled back, and another has the record by now: the client gets the other's answer, or none."""
    run = within().answer(found)
    if isinstance(run.step, effects.Authorize):
        run.answer(True)
    assert (run.step.ending, run.step.response.status) == (ending, 409)


@pytest.mark.parametrize(
    ("found", "released", "ending"),
    [
        (a_record(State.COMPLETED, response=SEALED), None, "recorded"),
        (a_record(), True, "released"),
        (a_record(), None, "commit-pending"),
    ],
)
def test_a_response_that_was_begun_before_it_was_recorded(found, released, ending):
    """What was sent cannot be taken back, and what is missing would not be what was recorded: it is broken off."""
    run = within(effects.Broken()).answer(found)
    if isinstance(run.step, transitions.ReleaseIfHeld):
        run = run.answer(True) if released else run.fail()
    assert run.step == BreakOff(ending)


@pytest.mark.parametrize(("status", "ending"), [(201, "recorded-outside"), (404, "recorded")])
def test_a_transactional_handler_that_completes_nothing(status, ending):
    """Its success is recorded as any other, and told."""
    ended = Answered(Response(status, (), b""), whole=True, size=0, digest=b"", fate=Fate.RAN)
    run = Run(transactional=True).executing().answer(ended)
    assert isinstance(run.step.transition, transitions.CompleteIfHeld)
    assert run.answer(Settled.DONE).step == Deliver(ending)
