"""The blocking driver: the same flow with the same ends, renewed on a thread of its own."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

import retrysafe.drive.sync
from retrysafe import Policy
from retrysafe.drive.sync import Driver
from retrysafe.errors import StoreUnavailable
from retrysafe.model import BytesBody, Head, Request, Response, State
from retrysafe.observe import ClaimLost, Handled, Overdue, StoreFailed, Unrecorded
from retrysafe.protocol.answers import Answer, BreakOff, Bypass, Deliver, Respond, Vanish
from retrysafe.protocol.effects import (
    Answered,
    Broken,
    Cancelled,
    CompletedWithin,
    Execute,
    Fate,
    Outcome,
    Raised,
    Unread,
)
from retrysafe.protocol.flow import Terms, protect
from retrysafe.protocol.transitions import ClaimIfAbsent, CompleteIfHeld, Read, RenewIfHeld, TakeOverIfLapsed
from retrysafe.stores.memory import MemoryStore
from retrysafe.stores.sqlite import SqliteStore
from tests.drive.harness import PATIENCE_S, ManualClock, Noted, TamperedStore, failing, records, states

SECRET = b"0123456789abcdef0123456789abcdef"


def answered(status: int = 201, body: bytes = b"order 1", fate: Fate = Fate.RAN) -> Answered:
    """What a handler answered, whole."""
    return Answered(Response(status, (), body), whole=True, size=len(body), digest=b"", fate=fate)


class Blocking:
    """An exchange with one outcome, which does something first if it is told to."""

    route = "*"

    def __init__(self, outcome: Outcome, meanwhile: Callable[[Execute], object] | None = None) -> None:
        self.outcome = outcome
        self.meanwhile = meanwhile
        self.account: str | None = "alice"
        self.content: Request | Unread | None = None
        self.may_see = True
        self.executed: list[Execute] = []

    def scope(self) -> str | None:
        """The account."""
        return self.account

    def request(self, body_bytes_max: int) -> Request | Unread:
        """The content."""
        assert body_bytes_max == Policy().request_bytes_max
        return self.content or Request(HEAD, BytesBody(b"{}"))

    def authorize(self) -> bool:
        """May it be replayed?"""
        return self.may_see

    def execute(self, effect: Execute) -> Outcome:
        """Have the outcome."""
        self.executed.append(effect)
        if self.meanwhile is not None:
            self.meanwhile(effect)
        return self.outcome


HEAD = Head("POST", b"/orders", b"", ((b"idempotency-key", b"k-1"),))


def drive(store, exchange, head=HEAD, policy=None, noted=None) -> Answer:
    """One request by a new driver."""
    store.open(SECRET)
    terms = Terms(policy or Policy(), "default", SECRET, os.urandom(16))
    return Driver(store, noted or Noted()).run(protect(head, terms), exchange)


def code_of(answer: Answer) -> str:
    """The code of the problem that a request was refused with."""
    assert isinstance(answer, Respond)
    return answer.ending


@pytest.fixture
def _hasty(monkeypatch):
    """The driver loses patience with a store that is away a hundred times sooner."""
    monkeypatch.setattr(retrysafe.drive.sync, "SETTLE_S", 0.05)
    monkeypatch.setattr(retrysafe.drive.sync, "RETRY_FIRST_S", 0.002)
    monkeypatch.setattr(retrysafe.drive.sync, "RETRY_MOST_S", 0.01)


def until(condition: Callable[[], object]) -> None:
    """Wait for other threads, in short steps and not for ever."""
    pause = threading.Event()
    for _ in range(PATIENCE_S * 500):
        if condition():
            return
        pause.wait(0.002)
    raise AssertionError("it did not happen")


def lease_of(store, effect: Execute) -> int:
    """Until when the record of a running handler is leased."""
    found = store.perform(Read(effect.claim.record_id))
    assert found is not None
    return int(found.record.lease_until_ms)


@pytest.mark.parametrize(("outcome", "first", "state", "second"), [
    (answered(), Deliver("recorded"), State.COMPLETED, "replayed"),
    (answered(429), Deliver("released"), State.RETRYABLE, Deliver("released")),
    (answered(fate=Fate.NO_EFFECT), Deliver("released"), State.RETRYABLE, Deliver("released")),
    (answered(fate=Fate.NOT_RUN), Deliver("discarded"), None, Deliver("discarded")),
    (answered(fate=Fate.UNKNOWN), Deliver("unknown"), State.UNKNOWN, "outcome-unknown"),
    (Raised(Fate.RAN), "recorded", State.COMPLETED, "replayed"),
    (Raised(Fate.NO_EFFECT), "released", State.RETRYABLE, "released"),
    (Cancelled(Fate.RAN), "unknown", State.UNKNOWN, "outcome-unknown"),
    (Broken(), BreakOff(), State.UNKNOWN, "outcome-unknown"),
])  # fmt: skip
def test_each_outcome_and_its_retry(outcome, first, state, second):
    """What the client gets, what the record becomes, and what a retry gets."""
    store, noted = MemoryStore(), Noted()
    for expected in (first, second):
        answer = drive(store, Blocking(outcome), noted=noted)
        assert (answer if isinstance(expected, Deliver | BreakOff) else code_of(answer)) == expected
    assert states(store) == ([state] if state else [])
    assert len(noted.of(Handled)) == 2


@pytest.mark.parametrize("later", [
    answered(fate=Fate.NOT_RUN),
    Answered(Response(308, ((b"location", b"/orders/"),)), whole=True, size=0, digest=b"", fate=Fate.RAN),
])  # fmt: skip
def test_an_earlier_attempt_is_not_forgotten(later):
    """What was refused before any handling takes no record of an earlier attempt along."""
    store = MemoryStore()
    drive(store, Blocking(answered(fate=Fate.NO_EFFECT)))
    assert drive(store, Blocking(later)) == Deliver("released")
    exchange = Blocking(answered())
    assert drive(store, exchange) == Deliver("recorded")
    assert exchange.executed[0].claim.attempt == 3


def test_a_handler_that_completes_its_own_record():
    """Not committed: nothing is sent as done, and a retry runs. Committed: what was recorded is the answer."""
    store, within = MemoryStore(), CompletedWithin(Response(201, (), b"order 1"), b"sealed elsewhere", answered(200))
    assert code_of(drive(store, Blocking(within))) == "rolled-back"

    def commit(effect):
        policy = effect.policy
        completion = CompleteIfHeld(effect.claim, within.stored, policy.keep_ms, policy.tombstone_ms)
        assert store.perform(completion)

    assert drive(store, Blocking(within, commit)) == Respond(within.response, "recorded")
    assert states(store) == [State.COMPLETED]


def test_renewal_may_be_stopped_from_anywhere():
    """A handler that has its row locked is not renewed any further, and is not told of a lost claim."""
    store, noted = TamperedStore(MemoryStore()), Noted()
    store.open(SECRET)
    driver = Driver(store, noted)

    def work(effect):
        driver.renewals.stop(effect)
        driver.renewals.stop(effect)
        assert driver.renewals._running == {}

    driver.run(protect(HEAD, Terms(Policy(), "default", SECRET, os.urandom(16))), Blocking(answered(), work))
    assert noted.of(ClaimLost) == []


def test_what_never_comes_to_a_claim():
    """No key, a bad one, no account, too much content, a client that left: nothing runs, nothing is stored."""
    store = MemoryStore()
    exchange = Blocking(answered())
    assert drive(store, exchange, replace(HEAD, headers=())) == Bypass()
    assert code_of(drive(store, exchange, replace(HEAD, headers=((b"idempotency-key", b"a,b"),)))) == "key-invalid"
    exchange.content = Unread.TOO_LARGE
    assert code_of(drive(store, exchange)) == "body-too-large"
    exchange.content = Unread.CLIENT_GONE
    assert drive(store, exchange) == Vanish()
    exchange.account = None
    assert code_of(drive(store, exchange)) == "scope-missing"
    assert (exchange.executed, states(store)) == ([], [])


def test_a_replay_may_be_refused():
    """The caller may not see the stored answer."""
    store, exchange = MemoryStore(), Blocking(answered())
    drive(store, exchange)
    exchange.may_see = False
    assert code_of(drive(store, exchange)) == "replay-forbidden"


def test_a_duplicate_in_flight():
    """A handler that is still running: its duplicate is told to wait, and does not run."""
    store, seen = MemoryStore(), []

    def duplicate(_):
        seen.append(code_of(drive(store, Blocking(answered()))))

    drive(store, Blocking(answered(), duplicate))
    assert seen == ["in-progress"]


def test_a_long_handler_is_renewed():
    """Its claim is renewed at a third of its lease for as long as it runs, and no longer."""
    clock = ManualClock()
    store = TamperedStore(MemoryStore(clock))

    def outlive(_):
        for renewals in range(1, 4):
            clock.now_ms += 50
            until(lambda: store.done.count("RenewIfHeld") >= renewals)  # noqa: B023 - awaited in this turn

    answer = drive(store, Blocking(answered(), outlive), policy=Policy(lease="60ms"))
    assert (answer, states(store)) == (Deliver("recorded"), [State.COMPLETED])
    renewals = store.done.count("RenewIfHeld")
    threading.Event().wait(0.1)
    assert store.done.count("RenewIfHeld") <= renewals + 1  # one may have been under way


def test_a_thread_that_cannot_be_started_is_started_for_the_next_handler(monkeypatch):
    """The machine had none left: that request fails before its handler, and the next ones are renewed."""
    store = MemoryStore()
    store.open(SECRET)
    driver = Driver(store, Noted())
    start = threading.Thread.start

    def fail(thread):
        monkeypatch.setattr(threading.Thread, "start", start)
        raise RuntimeError("can't start new thread")

    def request(key, exchange, policy):
        head = replace(HEAD, headers=((b"idempotency-key", key),))
        return driver.run(protect(head, Terms(policy, "default", SECRET, os.urandom(16))), exchange)

    unlucky = Blocking(answered())
    monkeypatch.setattr(threading.Thread, "start", fail)
    with pytest.raises(RuntimeError):
        request(b"k-1", unlucky, Policy())
    assert unlucky.executed == []

    def outlive(effect):
        first = lease_of(store, effect)
        until(lambda: lease_of(store, effect) > first)

    assert request(b"k-2", Blocking(answered(), outlive), Policy(lease="150ms")) == Deliver("recorded")


def test_several_handlers_are_renewed_by_one_thread():
    """Claims with different leases, on several threads, each in its own time."""
    store = TamperedStore(MemoryStore())
    driver = Driver(store, Noted())
    store.open(SECRET)
    both = threading.Barrier(3)
    renewed: list[str] = []

    def run(name: str, lease: str) -> None:
        def outlive(effect: Execute) -> None:
            both.wait(PATIENCE_S)
            first_ms = lease_of(store, effect)
            until(lambda: lease_of(store, effect) > first_ms)
            renewed.append(name)

        head = replace(HEAD, headers=((b"idempotency-key", name.encode()),))
        terms = Terms(Policy(lease=lease), "default", SECRET, os.urandom(16))
        driver.run(protect(head, terms), Blocking(answered(), outlive))

    threads = [threading.Thread(target=run, args=(f"k-{lease}", lease)) for lease in ("60ms", "90ms", "400ms")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert len(renewed) == 3
    assert driver.renewals._running == {}


def test_a_handler_that_runs_too_long_is_not_renewed_for_ever():
    """Past `execution_max` the observer is told and the lease is let go."""
    store, noted = TamperedStore(MemoryStore()), Noted()

    def outlive(_):
        until(lambda: noted.of(Overdue))

    drive(store, Blocking(answered(), outlive), policy=Policy(lease="60ms", execution_max="60ms"), noted=noted)
    assert states(store) == [State.COMPLETED]


def test_a_claim_that_is_lost_is_told():
    """The record went to somebody else: renewal finds out, and the outcome is not recorded over theirs."""
    store, noted = MemoryStore(), Noted()

    def lose(effect):
        records_by_id = store._records
        records_by_id[effect.claim.record_id] = replace(records_by_id[effect.claim.record_id], token=b"x" * 16)
        until(lambda: noted.of(ClaimLost))

    answer = drive(store, Blocking(answered(), lose), policy=Policy(lease="60ms"), noted=noted)
    assert (code_of(answer), records(store)[0].token) == ("claim-lost", b"x" * 16)


def test_a_refusal_after_the_end_is_not_told():
    """The handler ended while its renewal was under way: a claim that is settled is not lost."""
    asked, ended = threading.Event(), threading.Event()

    def hold(transition):
        if isinstance(transition, RenewIfHeld):
            asked.set()
            ended.wait(PATIENCE_S)

    store, noted = TamperedStore(MemoryStore(), before=hold), Noted()
    driver = Driver(store, noted)
    store.open(SECRET)
    for key in (b"first", b"second"):  # by the second renewal, the one thread is through with the first
        asked.clear()
        head = replace(HEAD, headers=((b"idempotency-key", key),))
        terms = Terms(Policy(lease="60ms"), "default", SECRET, os.urandom(16))
        driver.run(protect(head, terms), Blocking(answered(), lambda _: asked.wait(PATIENCE_S)))
        ended.set()
    assert "RenewIfHeld" in store.done
    assert noted.of(ClaimLost) == []


def test_a_store_that_stumbles_at_renewal():
    """One failed renewal is told, and the next one succeeds."""
    store, noted = TamperedStore(MemoryStore(), before=failing(RenewIfHeld, times=1)), Noted()

    def outlive(_):
        until(lambda: "RenewIfHeld" in store.done)

    drive(store, Blocking(answered(), outlive), policy=Policy(lease="60ms"), noted=noted)
    assert [event.operation for event in noted.events if isinstance(event, StoreFailed)] == ["RenewIfHeld"]


@pytest.mark.usefixtures("_hasty")
def test_a_settlement_is_tried_again():
    """The store fails a few times and then takes the outcome: nobody hears of it."""
    store = TamperedStore(MemoryStore(), before=failing(CompleteIfHeld, times=3))
    assert (drive(store, Blocking(answered())), states(store)) == (Deliver("recorded"), [State.COMPLETED])


@pytest.mark.usefixtures("_hasty")
def test_an_outcome_that_is_recorded_late():
    """The store stays away: the client is told that nothing is recorded, and the driver goes on."""
    store = TamperedStore(MemoryStore(), before=failing(CompleteIfHeld))
    answer = drive(store, Blocking(answered()), policy=Policy(lease="10s"))
    assert answer == Deliver("unrecorded", recorded=False)
    store.before = None
    until(lambda: states(store) == [State.COMPLETED])


@pytest.mark.usefixtures("_hasty")
def test_an_outcome_that_is_never_recorded():
    """The lease ends first: the observer is told that the record will be unknown."""
    store, noted = TamperedStore(MemoryStore(), before=failing(CompleteIfHeld)), Noted()
    drive(store, Blocking(answered()), policy=Policy(lease="100ms"), noted=noted)
    until(lambda: noted.of(Unrecorded))


def test_a_claim_that_fails_runs_nothing():
    """The claim was made and its reply lost: 503, and the claim is taken back."""
    store, exchange = TamperedStore(MemoryStore(), after=failing(ClaimIfAbsent, times=1)), Blocking(answered())
    assert code_of(drive(store, exchange)) == "store-unavailable"
    until(lambda: states(store) == [])
    assert exchange.executed == []
    assert drive(store, exchange) == Deliver("recorded")


@pytest.mark.parametrize("stroke", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_a_claim_that_is_interrupted_is_taken_back(stroke):
    """The thread is interrupted while it waits for the claim: nothing ran, so nothing stays."""

    def interrupt(transition):
        if isinstance(transition, ClaimIfAbsent):
            raise stroke

    store = TamperedStore(MemoryStore(), after=interrupt)
    exchange = Blocking(answered())
    with pytest.raises(stroke):
        drive(store, exchange)
    until(lambda: states(store) == [])
    assert exchange.executed == []


def test_a_handler_that_is_interrupted_leaves_its_claim():
    """Nobody can tell how far it came: its record stands until its lease ends, and is unknown then."""
    clock = ManualClock()
    store = TamperedStore(MemoryStore(clock))

    def interrupt(_):
        raise KeyboardInterrupt

    policy = Policy(lease="60ms")
    with pytest.raises(KeyboardInterrupt):
        drive(store, Blocking(answered(), interrupt), policy=policy)
    assert states(store) == [State.IN_PROGRESS]
    clock.now_ms += 61
    exchange = Blocking(answered())
    assert (code_of(drive(store, exchange, policy=policy)), exchange.executed) == ("outcome-unknown", [])


@pytest.mark.parametrize(("outcome", "answer"), [
    (answered(), Deliver("unrecorded", recorded=False)),
    (Raised(Fate.RAN), BreakOff()),
])  # fmt: skip
def test_a_defect_after_the_handler_lets_nothing_run_again(outcome, answer, caplog):
    """A store fails as no store may: the answer goes out, and no other attempt takes this one for dead."""
    clock = ManualClock()

    def break_down(transition):
        if isinstance(transition, CompleteIfHeld):
            raise ZeroDivisionError

    store, policy = TamperedStore(MemoryStore(clock), before=break_down), Policy(recovery="rerun")
    assert drive(store, Blocking(outcome), policy=policy) == answer
    assert states(store) == [State.UNKNOWN]
    clock.now_ms += policy.lease_ms + 1
    retry = Blocking(answered())
    assert (code_of(drive(store, retry, policy=policy)), retry.executed) == ("outcome-unknown", [])
    assert "ZeroDivisionError" in caplog.text


def test_an_authorization_that_fails_shows_nothing(caplog):
    """The claim was lost to another attempt, whose answer this caller may not be shown: nor is its own sent."""
    clock = ManualClock()
    store = MemoryStore(clock)

    class Unauthorized(Blocking):
        def authorize(self):
            raise ZeroDivisionError

    def overtake(effect):
        clock.now_ms += effect.policy.lease_ms + 1
        claim = replace(effect.claim, token=b"another token, 16"[:16])
        ends = effect.policy.lease_ms, effect.policy.unknown_retention_ms
        assert store.perform(TakeOverIfLapsed(claim.record_id, effect.claim.token, claim.token, *ends))
        assert store.perform(CompleteIfHeld(claim, b"sealed", *ends))

    assert code_of(drive(store, Unauthorized(answered(), overtake))) == "claim-lost"
    assert "ZeroDivisionError" in caplog.text


def test_the_thread_ends_when_there_is_nothing_to_renew(monkeypatch):
    """It is not kept for a driver that is at rest, and comes back with the next handler."""
    monkeypatch.setattr(retrysafe.drive.sync, "IDLE_S", 0.02)
    store = TamperedStore(MemoryStore())
    driver = Driver(store, Noted())
    store.open(SECRET)
    for key in (b"first", b"second"):
        store.done.clear()
        head = replace(HEAD, headers=((b"idempotency-key", key),))
        terms = Terms(Policy(lease="60ms"), "default", SECRET, os.urandom(16))
        driver.run(protect(head, terms), Blocking(answered(), lambda _: until(lambda: "RenewIfHeld" in store.done)))
        until(lambda: not driver.renewals._works)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_renewals_go_on_in_a_child_of_a_fork(tmp_path):
    """Threads do not follow into a child, and what they had locked stays locked: its first handler starts anew."""
    store = SqliteStore(tmp_path / "records.db")
    store.open(SECRET)
    driver = Driver(store, Noted())
    policy = Policy(lease="90ms")

    def run(key: bytes) -> bool:
        def outlive(effect: Execute) -> None:
            first_ms = lease_of(store, effect)
            until(lambda: lease_of(store, effect) > first_ms)

        head = replace(HEAD, headers=((b"idempotency-key", key),))
        terms = Terms(policy, "default", SECRET, os.urandom(16))
        return driver.run(protect(head, terms), Blocking(answered(), outlive)) == Deliver("recorded")

    assert run(b"in-the-parent")
    with driver.renewals._change:
        child = os.fork()
        if child == 0:  # nothing may unwind the child's stack into the test runner
            signal.alarm(PATIENCE_S)
            os._exit(0 if run(b"in-the-child") else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert run(b"in-the-parent-again")
    store.close()


def test_a_store_that_is_away_is_told():
    """A transition before the claim fails too: 503, and the observer knows why."""
    store, noted = TamperedStore(MemoryStore(), before=failing(ClaimIfAbsent)), Noted()
    assert code_of(drive(store, Blocking(answered()), noted=noted)) == "store-unavailable"
    assert noted.of(StoreFailed) == [StoreFailed("ClaimIfAbsent", str(StoreUnavailable()))]
