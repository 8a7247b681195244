"""The completer, the reaper and the reconciler of a door, beside whatever else happens to its records."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from retrysafe import ConfigurationError, Policy
from retrysafe.asgi import IdempotencyMiddleware
from retrysafe.encryption import key_ring
from retrysafe.errors import CallerError, StoreUnavailable
from retrysafe.model import Record, State
from retrysafe.observe import StoreFailed
from retrysafe.operation import StepCall
from retrysafe.operation.recovery import (
    AT_ONCE,
    ATTEMPTS_MAX,
    BACKOFF_FIRST_MS,
    BACKOFF_MOST_MS,
    Fared,
    Report,
    due_at_ms,
)
from retrysafe.protocol.journal import unseal_journal
from retrysafe.protocol.stored_request import STORED_REQUEST_BYTES_MAX
from retrysafe.protocol.transitions import (
    ClaimIfRetryable,
    CompleteIfUnknown,
    ForgetIfSeen,
    ListAbandoned,
    MarkUnknownIfLapsed,
    ReadDetails,
    ReleaseIfUnknown,
    RevokeIfSeen,
    TakeOverIfLapsed,
)
from retrysafe.recovery import Completed, Identity, NotDone, RecordView, StillUnknown
from retrysafe.server.recovery import Recovery, RecoveryOnALoop
from tests.doors.connections import ask
from tests.drive.harness import Noted, eventually, in_loop
from tests.operation.abandoned import KEYS, LEASE_MS, RERUN, SECRET, Case, user_of
from tests.operation.steps import Died, dying

MANUAL = Policy()


# --- the completer --------------------------------------------------------------------------------


@in_loop
async def test_an_abandoned_request_is_sent_again():
    """The same request under the same key, in the name of its account; the client's retry gets the answer."""
    case = Case()
    secret = tuple((name, b"canary") for name in (b"authorization", b"cookie", b"x-token", b"proxy-authorization"))
    case.abandon(fields=(*secret, (b"x-by", b"client"), (b"accept-language", b"de")))
    assert await case.recover() == {Fared.DRIVEN: 1}
    (run,) = case.runs
    assert (run["attempt"], run["content"], run["url"]) == (2, b'{"item": 7}', "https://shop.example/orders?q=%31")
    assert not [line for line in run["headers"].values() if "canary" in line]
    assert (run["headers"].getlist("x-by"), run["headers"]["accept-language"]) == (["alice"], "de")
    assert run["headers"]["content-length"] == "11"
    retry = await ask(case.door, "POST /orders?q=%31", body=b'{"item": 7}')
    assert (retry.status, retry.replayed, json.loads(retry.body)) == (201, True, {"attempt": 2})
    assert await case.recover() == {}


@in_loop
async def test_credentials_and_keys_are_not_in_the_store():
    """Neither of them can be found in what is stored."""
    case = Case()
    case.abandon(key="canary-key", fields=((b"authorization", b"Bearer canary"), (b"x-token", b"canary")))
    (record_id,) = case.records()
    stored = case.store.inner.perform(ReadDetails(record_id)).request
    assert stored is not None
    assert b"canary" not in stored


@in_loop
async def test_whoever_is_gone_is_left_alone():
    """Nobody can act in the name of an account that is gone: its record stays, and is told."""
    case = Case(reauthenticate=lambda account: None)
    case.abandon()
    assert await case.recover() == {Fared.GONE: 1}
    assert (case.runs, case.states()) == ([], [State.IN_PROGRESS])


@in_loop
async def test_an_identity_may_be_in_the_connection():
    """As middleware outside of the door leaves it; and it may be looked up on the loop."""

    async def reauthenticate(account: str) -> Identity:
        await asyncio.sleep(0)
        return Identity(connection={"user": account})

    case = Case(scope=user_of, reauthenticate=reauthenticate)
    case.abandon()
    assert await case.recover() == {Fared.DRIVEN: 1}
    assert case.runs[0]["connection"]["user"] == "alice"


@in_loop
async def test_another_account_does_not_get_the_operation():
    """What the application gives is not who the key belongs to: nothing runs."""
    case = Case(scope=user_of, reauthenticate=lambda account: Identity(connection={"user": "mallory"}))
    case.abandon()
    assert await case.recover() == {Fared.GONE: 1}
    assert (case.runs, case.states()) == ([], [State.IN_PROGRESS])


@in_loop
@pytest.mark.parametrize("given", ["alice", {"X-By": "alice"}, KeyError("no such account")], ids=repr)
async def test_a_reauthentication_that_fails_hurts_nobody_else(given, caplog):
    """It raises, or gives what is no identity: that record is left alone, the next is driven."""

    def reauthenticate(account: str) -> Any:
        if account != "bad":
            return Identity()
        if isinstance(given, Exception):
            raise given
        return given

    case = Case(reauthenticate=reauthenticate)
    case.abandon(account="bad")
    case.abandon(account="good")
    case.clock.now_ms += LEASE_MS
    assert await case.recover() == {Fared.FAILED: 1, Fared.DRIVEN: 1}
    assert "reauthenticate= failed" in caplog.text


@in_loop
async def test_what_is_not_ours_is_left_alone():
    """Of another namespace, of a route that is gone or does not rerun any more, or that another policy now names."""
    case = Case(routes={"POST /other": MANUAL, "POST /mounted/orders": None})
    case.abandon(namespace="sandbox", key="1")
    case.abandon("/other", route="POST /other", key="2")
    case.abandon(route="POST /gone", key="3")
    case.abandon("/other", route="*", key="4")
    case.abandon("/mounted/orders", route="*", key="5")
    case.clock.now_ms += LEASE_MS
    assert await case.recover() == {Fared.NOT_HERE: 5}
    assert (case.runs, set(case.states())) == ([], {State.IN_PROGRESS})


@in_loop
async def test_without_a_stored_request_nothing_is_driven():
    """Too large to keep, or not to be run again: it waits for its client."""
    case = Case()
    case.abandon(content=b"x" * STORED_REQUEST_BYTES_MAX, key="1")
    case.abandon(content=b"x" * (STORED_REQUEST_BYTES_MAX - 100), key="2")
    case.abandon(policy=MANUAL, key="3")
    case.abandon(content=b"x" * (STORED_REQUEST_BYTES_MAX - 1_000), key="4")
    assert await case.recover() == {Fared.DRIVEN: 1}
    assert len(case.runs[0]["content"]) == STORED_REQUEST_BYTES_MAX - 1_000


@in_loop
async def test_a_mounted_application():
    """It is found by its route in the application, and sees where it is mounted."""
    case = Case(routes={"POST /orders": RERUN, "POST /mounted/orders": None})
    case.abandon("/api/orders", root="/api", route="POST /orders")
    assert await case.recover() == {Fared.DRIVEN: 1}
    assert case.runs[0]["url"] == "https://shop.example/api/orders?q=%31"


@in_loop
async def test_what_the_lifespan_left_is_there():
    """A handler finds the application and the state that its server would have given it."""
    case = Case()
    state = {"pool": object()}
    started = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

    async def receive() -> dict[str, Any]:
        if len(started) == 1:
            case.abandon()
            assert (await case.door.recover()).counts == {Fared.DRIVEN: 1}
        return started.pop(0)

    async def send(message: Any) -> None:
        assert message["type"].endswith(".complete")

    await case.door({"type": "lifespan", "asgi": {"version": "3.0"}, "state": state}, receive, send)
    connection = case.runs[0]["connection"]
    assert connection["state"]["pool"] is state["pool"]
    assert connection["state"] is not state


@in_loop
async def test_a_client_that_was_quicker():
    """Its retry took over after the record was listed: nothing runs a second time."""
    case = Case()
    case.abandon()

    async def retry(transition: Any) -> None:
        if isinstance(transition, ReadDetails):
            case.store.before = None
            assert (await ask(other, "POST /orders?q=%31", body=b'{"item": 7}')).status == 201

    other = case.make_door()
    await other.open()
    case.store.before = retry
    assert await case.recover() == {Fared.OVERTAKEN: 1}
    assert len(case.runs) == 1


@in_loop
async def test_a_record_that_vanished_is_not_begun_anew():
    """It was forgotten between the look and the claim: the stored request is no reason to do it once more."""
    case = Case()
    case.abandon()

    def forget(transition: Any) -> None:
        if isinstance(transition, TakeOverIfLapsed):
            (record_id,) = case.records()
            record = case.records()[record_id]
            assert case.store.inner.perform(RevokeIfSeen(record_id, record.token, LEASE_MS))
            assert case.store.inner.perform(ForgetIfSeen(record_id, record.token, State.RETRYABLE))

    case.store.before = forget
    assert await case.recover() == {Fared.OVERTAKEN: 1}
    assert (case.runs, case.records()) == ([], {})


@in_loop
async def test_a_handler_that_raises_is_over(caplog):
    """Its 500 is recorded, as for a client; the exception is logged, since no server does."""
    case = Case()
    case.abandon()
    case.raises = ZeroDivisionError("in the handler")
    assert await case.recover() == {Fared.DRIVEN: 1}
    assert "in the handler" in caplog.text
    assert case.states() == [State.COMPLETED]


@in_loop
async def test_a_request_that_kills_is_given_up():
    """It is sent again later each time; after some attempts its outcome is unknown, and nothing runs any more."""
    case = Case()
    case.abandon()
    (record_id,) = case.records()
    for attempt in range(2, ATTEMPTS_MAX + 1):
        record = case.records()[record_id]
        taking = TakeOverIfLapsed(record_id, record.token, os.urandom(16), LEASE_MS, LEASE_MS)
        assert case.store.inner.perform(taking)  # by a process that is killed, in its turn
        record = case.records()[record_id]
        assert record.attempt == attempt
        case.clock.now_ms = due_at_ms(record) - 1
        assert await case.recover() == {Fared.EARLY: 1}
        case.clock.now_ms += 1
    assert await case.recover() == {Fared.GIVEN_UP: 1}
    assert (case.runs, case.states()) == ([], [State.UNKNOWN])


def test_the_pause_grows_up_to_a_bound():
    """It doubles with each attempt, and has a bound, whatever the attempt."""
    pauses = [due_at_ms(_record(attempt)) for attempt in (1, 2, 3, 20, 4_000)]
    assert pauses == [BACKOFF_FIRST_MS, 2 * BACKOFF_FIRST_MS, 4 * BACKOFF_FIRST_MS, BACKOFF_MOST_MS, BACKOFF_MOST_MS]


def _record(attempt: int) -> Record:
    return Record(State.IN_PROGRESS, b"", attempt, b"", 0, 0, 0, None, None, 0, None)


@in_loop
async def test_a_request_that_cannot_be_read():
    """Its key is gone from the ring: it is told and left as it is."""
    case = Case()
    case.abandon()
    assert await case.recover(case.make_door(encryption_keys="cd" * 32)) == {Fared.UNREADABLE: 1}
    assert (case.runs, case.states()) == ([], [State.IN_PROGRESS])


@in_loop
async def test_many_are_driven_a_few_at_a_time():
    """Pages of them, by two doors at once: each runs once."""
    case = Case()
    for number in range(150):
        case.abandon(key=f"k-{number}")
    case.clock.now_ms += LEASE_MS
    counts = await asyncio.gather(*(case.recover(case.make_door()) for _ in range(2)))
    assert sum(count.get(Fared.DRIVEN, 0) for count in counts) == len(case.runs) == 150
    assert set(case.states()) == {State.COMPLETED}


@in_loop
async def test_beside_the_application():
    """A door looks by itself, goes on after the store was away, and stops when it is closed."""
    away = [True]

    def fail(transition: Any) -> None:
        if isinstance(transition, ListAbandoned) and away:
            away.pop()
            raise StoreUnavailable

    case = Case(before=fail, complete_abandoned="50ms")
    case.abandon()
    await case.door.open()
    await eventually(lambda: State.COMPLETED in case.states())
    await case.door.close()
    assert case.noted.of(StoreFailed)[0] == StoreFailed("recovery", str(StoreUnavailable()))


@pytest.mark.parametrize(("settings", "words"), [
    ({"encryption_keys": None}, "never stand in"),
    ({"scope": "authorization"}, "makes a credential"),
    ({"reauthenticate": None, "complete_abandoned": "30s"}, "nothing to do"),
    ({"complete_abandoned": "1ms"}, "at least"),
    ({"complete_abandoned": "often"}, "not a duration"),
])  # fmt: skip
def test_what_cannot_be_is_refused_at_the_start(settings, words):
    """With what to do about it."""
    with pytest.raises(ConfigurationError, match=words):
        Case(**settings)


@in_loop
async def test_a_door_that_is_not_open():
    """It has no store to ask."""
    with pytest.raises(CallerError, match="not open"):
        await Case().door.recover()


# --- the reaper and the reconciler ----------------------------------------------------------------


def found(answer: Any) -> Any:
    """A function of the application's that has found out this, and what it was asked."""
    asked: list[RecordView] = []

    def reconcile(view: RecordView) -> Any:
        asked.append(view)
        if isinstance(answer, Exception):
            raise answer
        return answer

    reconcile.asked = asked  # type: ignore[attr-defined]  # for the test
    return reconcile


@in_loop
async def test_lapsed_records_are_marked_unknown_and_asked_about():
    """A record that nobody may run again need not wait for a retry; one that may is left to the completer."""
    reconcile = found(Completed({"order": 7}, 201, {"Location": "/orders/7"}))
    case = Case(policy=MANUAL, reauthenticate=None, reconcile=reconcile, routes={"POST /other": RERUN})
    case.abandon(policy=MANUAL)
    case.abandon("/other", route="POST /other", key="k-2")
    case.clock.now_ms += LEASE_MS
    assert await case.recover() == {Fared.ABANDONED: 1, Fared.NOT_HERE: 1, Fared.COMPLETED: 1}
    retry = await ask(case.door, "POST /orders?q=%31", body=b'{"item": 7}')
    assert (retry.status, retry.replayed, retry.body) == (201, True, b'{"order":7}')
    assert (retry.values("location"), retry.values("content-type")) == (["/orders/7"], ["application/json"])
    assert (case.runs, len(reconcile.asked)) == ([], 1)


@in_loop
async def test_a_live_record_is_left_alone():
    """Its lease has not lapsed."""
    case = Case(policy=MANUAL, reconcile=found(NotDone()))
    case.abandon(policy=MANUAL)
    case.clock.now_ms -= 2_000
    assert await case.recover() == {}
    assert case.states() == [State.IN_PROGRESS]


@in_loop
async def test_what_the_application_is_shown():
    """The steps with their keys, inputs and results, and the request that was stored."""
    reconcile = found(StillUnknown())
    case = Case(reconcile=reconcile)
    left = case.abandon()
    await left.step("reserve", giving({"reserved": 1}))
    with dying():
        await left.step("charge", _die, input={"cents": 5})
    (record_id,) = case.records()
    record = case.records()[record_id]
    assert case.store.inner.perform(MarkUnknownIfLapsed(record_id, record.token, LEASE_MS))
    assert await case.recover() == {Fared.STILL_UNKNOWN: 1}
    (view,) = reconcile.asked
    reserve, charge = view.steps
    assert (reserve.name, reserve.is_done, reserve.result) == ("reserve", True, {"reserved": 1})
    assert (charge.name, charge.is_done, charge.result) == ("charge", False, None)
    assert (charge.key, charge.input, charge.sends) == (left.child_key("charge"), b'{"cents":5}', 1)
    assert (view.record_id, view.attempt, view.request.key) == (record_id.hex(), 1, "k-1")
    assert (view.request.scope, view.request.body) == ("alice", b'{"item": 7}')
    assert not {"k-1", "alice", "cents", "item", left.child_key("charge")} & set(repr(view).split("'"))


async def _die(_: StepCall) -> None:
    raise Died


def giving(result: Any) -> Callable[[StepCall], Awaitable[Any]]:
    """A call that gives this."""

    async def call(_: StepCall) -> Any:
        return result

    return call


@in_loop
async def test_what_was_not_done_runs_again():
    """The next retry runs, and a step that stood open is taken, though it must not be sent again by itself."""
    case = Case(reconcile=found(NotDone()), reauthenticate=None)
    left = case.abandon()
    await left.step("reserve", giving("reserved"))
    with dying():
        await left.step("charge", _die)
    (record_id,) = case.records()
    assert case.store.inner.perform(MarkUnknownIfLapsed(record_id, case.records()[record_id].token, LEASE_MS))
    assert await case.recover() == {Fared.NOT_DONE: 1}
    assert case.states() == [State.RETRYABLE]
    later = case.abandon_again()
    assert later.attempt == 3  # one was the reconciler's, to write the journal
    assert await later.step("reserve", giving("again")) == "reserved"
    assert await later.step("charge", giving("charged")) == "charged"


@in_loop
async def test_a_retry_that_comes_between_finds_the_step_open():
    """The record is released, and claimed before its journal is written: the retry does not take the open step."""
    case = Case(reconcile=found(NotDone()), reauthenticate=None)
    left = case.abandon()
    with dying():
        await left.step("charge", _die)
    (record_id,) = case.records()
    assert case.store.inner.perform(MarkUnknownIfLapsed(record_id, case.records()[record_id].token, LEASE_MS))

    def retry(transition: Any) -> None:
        if isinstance(transition, ClaimIfRetryable):
            case.store.before = None
            case.abandon_again()

    case.store.before = retry
    assert await case.recover() == {Fared.NOT_DONE: 1}
    journal = case.store.inner.perform(ReadDetails(record_id)).journal
    assert journal is not None
    entries = unseal_journal(journal, record_id, SECRET, key_ring(KEYS))
    assert [(entry.name, entry.result) for entry in entries] == [("charge", b"")]


@in_loop
@pytest.mark.parametrize(
    "answer",
    [None, "done", Completed(object()), Completed(status=99), KeyError("no order")],
    ids=["nothing", "a text", "no data", "no status", "an error"],
)
async def test_an_application_that_cannot_say(answer, caplog):
    """It fails, or gives what is no answer: logged, and the record stays unknown."""
    case = Case(policy=MANUAL, reconcile=found(answer))
    case.abandon(policy=MANUAL)
    assert await case.recover() == {Fared.ABANDONED: 1, Fared.FAILED: 1}
    assert case.states() == [State.UNKNOWN]
    assert "reconcile= failed" in caplog.text


@in_loop
@pytest.mark.parametrize(("answer", "settling"), [(Completed(), CompleteIfUnknown), (NotDone(), ReleaseIfUnknown)])
async def test_somebody_who_settled_it_first(answer, settling):
    """The late owner, or a person: what they said stands."""
    case = Case(policy=MANUAL, reconcile=found(answer))
    case.abandon(policy=MANUAL)
    (record_id,) = case.records()

    def settle(transition: Any) -> None:
        if isinstance(transition, settling):
            case.store.before = None
            case.store.inner.perform(CompleteIfUnknown(record_id, transition.seen_token, b"theirs", 1_000, 1_000))

    case.store.before = settle
    assert await case.recover() == {Fared.ABANDONED: 1, Fared.OVERTAKEN: 1}
    assert case.states() == [State.COMPLETED]


@in_loop
async def test_many_reconcilers_at_once():
    """Each record is settled once; whoever comes later finds it settled."""
    case = Case(policy=MANUAL, reconcile=found(Completed(b"done")))
    for number in range(50):
        case.abandon(policy=MANUAL, key=f"k-{number}")
    case.clock.now_ms += LEASE_MS
    counts = await asyncio.gather(*(case.recover(case.make_door()) for _ in range(3)))
    assert sum(count.get(Fared.ABANDONED, 0) for count in counts) == 50
    assert sum(count.get(Fared.COMPLETED, 0) for count in counts) == 50
    assert set(case.states()) == {State.COMPLETED}


@in_loop
async def test_what_is_over_is_expired_and_forgotten():
    """The reaper purges too, batch after batch."""
    case = Case(policy=Policy(lifetime="1s", tombstone="1s"), reconcile=found(StillUnknown()))
    for number in range(250):
        await ask(case.door, key=f"k-{number}")
    case.clock.now_ms += 1_500
    assert await case.recover() == {Fared.EXPIRED: 250}
    case.clock.now_ms += 1_000
    assert await case.recover() == {Fared.FORGOTTEN: 250}


@in_loop
async def test_a_pass_may_be_cancelled_at_any_moment(recwarn):
    """A door that closes begins nothing more, and leaves nothing behind that Python has to complain of."""
    driven = 0
    for turns in range(100):
        case = Case()
        for number in range(AT_ONCE + 1):
            case.abandon(key=f"k-{number}")
        recovering = asyncio.create_task(case.recover())
        for _ in range(turns):
            await asyncio.sleep(0)
        recovering.cancel()
        await asyncio.wait({recovering})
        driven += not recovering.cancelled()
        assert [str(warned.message) for warned in recwarn] == []
    assert 0 < driven < 100


@in_loop
async def test_one_record_that_fails_keeps_no_other_from_its_turn(monkeypatch):
    """By a router that fails, say: it is counted, and the others are dealt with."""
    case = Case()
    case.abandon("/orders")
    case.abandon("/other", key="k-2")
    find = IdempotencyMiddleware._find

    def broken(door, method, path, connection):
        if path == "/other":
            raise RuntimeError
        return find(door, method, path, connection)

    monkeypatch.setattr(IdempotencyMiddleware, "_find", broken)
    assert await case.recover() == {Fared.DRIVEN: 1, Fared.FAILED: 1}


class Passing(Recovery):
    """Notes its passes; the first fails."""

    def __init__(self):
        super().__init__(None, None, None, Noted())  # type: ignore[arg-type] # a pass does nothing
        self.passes: list[object] = []

    async def once(self, told):
        self.passes.append(told)
        if len(self.passes) == 1:
            raise RuntimeError
        return Report({})


@in_loop
async def test_a_pass_that_fails_is_not_the_last():
    """Whatever it fails of."""
    recovery, looking = Passing(), RecoveryOnALoop(0.001)
    looking.ensure(lambda: recovery)
    await eventually(lambda: len(recovery.passes) > 2)
    await looking.end()


def test_passes_go_on_when_a_loop_has_ended():
    """On the next loop; and whoever ends them on another loop does not wait for that one."""
    recovery, looking = Passing(), RecoveryOnALoop(0.001)

    async def looks():
        looking.ensure(lambda: recovery)
        before = len(recovery.passes)
        await eventually(lambda: len(recovery.passes) > before + 1)

    asyncio.run(looks())
    elsewhere = asyncio.new_event_loop()
    thread = threading.Thread(target=elsewhere.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(looks(), elsewhere).result(10)
    asyncio.run(looking.end())

    async def others():
        return asyncio.all_tasks() - {asyncio.current_task()}

    assert asyncio.run_coroutine_threadsafe(others(), elsewhere).result(10) == set()
    elsewhere.call_soon_threadsafe(elsewhere.stop)
    thread.join(10)
    elsewhere.close()
