"""What the door does when the store fails, when the owner is late, and when its claim is lost."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

import retrysafe.drive.aio
from retrysafe import Policy, operation
from retrysafe.errors import StoreUnavailable
from retrysafe.model import State
from retrysafe.observe import ClaimLost, StoreFailed, Unrecorded
from retrysafe.protocol.transitions import (
    ClaimIfAbsent,
    ClaimIfRetryable,
    CompleteIfHeld,
    DiscardIfHeld,
    MarkUnknownIfHeld,
    Read,
    ReleaseIfHeld,
    RenewIfHeld,
    TakeOverIfLapsed,
)
from retrysafe.stores.memory import MemoryStore
from tests.doors.connections import Connection, ask, protected
from tests.doors.handlers import Shop, piece, raising, sending, start
from tests.drive.harness import (
    ManualClock,
    Noted,
    TamperedStore,
    eventually,
    failing,
    in_loop,
    others,
    records,
    states,
    turn,
)

SETTLEMENTS = (CompleteIfHeld, ReleaseIfHeld, DiscardIfHeld, MarkUnknownIfHeld)


@pytest.fixture
def _hasty(monkeypatch):
    """The driver loses patience with a store that is away a hundred times sooner."""
    monkeypatch.setattr(retrysafe.drive.aio, "SETTLE_S", 0.05)
    monkeypatch.setattr(retrysafe.drive.aio, "RETRY_FIRST_S", 0.002)
    monkeypatch.setattr(retrysafe.drive.aio, "RETRY_MOST_S", 0.01)


@in_loop
async def test_a_store_that_is_away_at_first_runs_nothing():
    """503 and when to come back; without a key the application is served; later all is well."""
    shop, store, noted = Shop(), TamperedStore(MemoryStore()), Noted()
    store.away = True
    door = protected(shop, store, observer=noted)
    refused = await ask(door)
    assert (refused.status, refused.code, refused.values("retry-after")) == (503, "store-unavailable", ["1"])
    assert noted.of(StoreFailed)
    assert (shop.effects, store.done) == (0, [])
    assert (await ask(door, key=None)).status == 201
    store.away = False
    assert ((await ask(door)).status, (await ask(door)).replayed, shop.effects) == (201, True, 2)


@in_loop
async def test_a_store_that_goes_away_runs_nothing():
    """The claim fails: 503, nothing runs, no record; the same request runs when the store is back."""
    shop = Shop()
    store = TamperedStore(MemoryStore(), before=failing(ClaimIfAbsent, times=1))
    door = protected(shop, store)
    refused = await ask(door)
    assert (refused.status, refused.code, shop.effects, states(store)) == (503, "store-unavailable", 0, [])
    assert ((await ask(door)).status, shop.effects) == (201, 1)


@in_loop
async def test_a_claim_whose_reply_is_lost_is_taken_back():
    """The record was made and nobody heard of it: it is deleted, so that the retry runs."""
    shop = Shop()
    store = TamperedStore(MemoryStore(), after=failing(ClaimIfAbsent, times=1))
    door = protected(shop, store)
    assert ((await ask(door)).status, shop.effects) == (503, 0)
    await eventually(lambda: states(store) == [])
    assert ((await ask(door)).status, shop.effects) == (201, 1)


@pytest.mark.parametrize(("recovery", "kind"), [("manual", ClaimIfRetryable), ("rerun", TakeOverIfLapsed)])
@in_loop
async def test_a_second_claim_whose_reply_is_lost_keeps_the_history(recovery, kind):
    """A record with a history is released and not deleted: another request under its key is still refused."""
    clock, shop = ManualClock(), Shop(429)
    store = TamperedStore(MemoryStore(clock), after=failing(kind, times=1))
    door = protected(shop, store, policy=Policy(recovery=recovery, lease="1s"))
    if kind is TakeOverIfLapsed:
        shop.gate.clear()
        store.before = failing(*SETTLEMENTS, RenewIfHeld)
        first = asyncio.create_task(Connection().run(door))
        await shop.entered.wait()
        clock.now_ms += 2_000
        store.before = None
    else:
        await ask(door)
    assert (await ask(door)).status == 503
    await eventually(lambda: states(store) == [State.RETRYABLE])
    assert (await ask(door, body=b"other")).code == "key-reused"
    shop.gate.set()
    shop.status = 201
    assert ((await ask(door)).status, shop.effects) == (201, 2)
    assert [record.attempt for record in records(store)] == [3]
    if kind is TakeOverIfLapsed:
        await first


@pytest.mark.usefixtures("_hasty")
@in_loop
async def test_an_outcome_that_cannot_be_recorded():
    """The client gets the real answer, marked; the key is in progress for its lease and unknown after it."""
    clock, shop, noted = ManualClock(), Shop(), Noted()
    store = TamperedStore(MemoryStore(clock), before=failing(*SETTLEMENTS))
    door = protected(shop, store, policy=Policy(lease="200ms"), observer=noted)
    answer = await ask(door)
    assert (answer.status, answer.body) == (201, b"order 1")
    assert answer.values("idempotency-status") == ["unrecorded"]
    assert (await ask(door)).code == "in-progress"
    await eventually(lambda: noted.of(Unrecorded))
    clock.now_ms += 201
    assert ((await ask(door)).code, (await ask(door)).code) == ("outcome-unknown", "outcome-unknown")
    assert shop.effects == 1


@pytest.mark.usefixtures("_hasty")
@in_loop
async def test_an_outcome_that_is_recorded_late():
    """The store comes back after the answer went out: the driver has gone on trying, and retries replay."""
    shop = Shop()
    store = TamperedStore(MemoryStore(), before=failing(*SETTLEMENTS))
    door = protected(shop, store, policy=Policy(lease="10s"))
    assert (await ask(door)).values("idempotency-status") == ["unrecorded"]
    store.before = None
    await eventually(lambda: states(store) == [State.COMPLETED])
    retry = await ask(door)
    assert (retry.replayed, retry.values("idempotency-status"), shop.effects) == (True, [], 1)


@pytest.mark.usefixtures("_hasty")
@in_loop
async def test_an_exception_that_cannot_be_recorded():
    """The 500 problem goes out with the mark too."""
    store = TamperedStore(MemoryStore(), before=failing(*SETTLEMENTS))
    connection = Connection()
    answer = await connection.run(protected(raising(ZeroDivisionError()), store, policy=Policy(lease="100ms")))
    assert (answer.code, answer.values("idempotency-status")) == ("handler-failed", ["unrecorded"])
    assert isinstance(connection.error, ZeroDivisionError)


@in_loop
async def test_a_store_that_stumbles_is_not_heard_of():
    """One failure of the settlement is made good before the answer goes out."""
    store = TamperedStore(MemoryStore(), before=failing(CompleteIfHeld, times=1))
    door = protected(Shop(), store)
    answer = await ask(door)
    assert (answer.status, answer.values("idempotency-status"), states(store)) == (201, [], [State.COMPLETED])


@pytest.mark.parametrize("status", [201, 429, 307])
@in_loop
async def test_a_settlement_whose_reply_is_lost(status):
    """It is repeated and then refused, and found to be our own: the client gets its answer without a mark."""
    headers = [(b"location", b"/orders/")] if status == 307 else []
    kind = {201: CompleteIfHeld, 429: ReleaseIfHeld, 307: DiscardIfHeld}[status]
    store = TamperedStore(MemoryStore(), after=failing(kind, times=1))
    answer = await ask(protected(Shop(status, headers), store))
    assert (answer.status, answer.body, answer.values("idempotency-status")) == (status, b"order 1", [])


@in_loop
async def test_a_late_owner_settles_its_own_unknown():
    """Renewal is blocked and the lease lapses: a retry marks the record unknown, and the owner completes it."""
    clock, shop = ManualClock(), Shop()
    store = TamperedStore(MemoryStore(clock), before=failing(RenewIfHeld))
    door = protected(shop, store, policy=Policy(lease="1s"))
    shop.gate.clear()
    first = asyncio.create_task(Connection().run(door))
    await shop.entered.wait()
    clock.now_ms += 1_001
    assert ((await ask(door)).code, states(store)) == ("outcome-unknown", [State.UNKNOWN])
    shop.gate.set()
    assert ((await first).status, states(store)) == (201, [State.COMPLETED])
    assert ((await ask(door)).body, shop.effects) == (b"order 1", 1)


@in_loop
async def test_an_owner_that_keeps_pace_is_not_abandoned():
    """A handler longer than its lease is renewed: a retry is told to wait, and then replays."""
    clock, shop = ManualClock(), Shop()
    store = TamperedStore(MemoryStore(clock))
    door = protected(shop, store, policy=Policy(lease="90ms"))
    shop.gate.clear()
    first = asyncio.create_task(Connection().run(door))
    await shop.entered.wait()
    for renewals in range(1, 4):
        clock.now_ms += 60
        await eventually(lambda: store.done.count("RenewIfHeld") >= renewals)  # noqa: B023 - awaited in this turn
        assert (await ask(door)).code == "in-progress"
    shop.gate.set()
    assert (await first).status == 201
    assert "RenewIfHeld" not in store.done[store.done.index("CompleteIfHeld") :]


class _Twice:
    """The first call sends what it is told to and waits to be let go; the second answers at once."""

    def __init__(self, *early) -> None:
        self.early = early
        self.effects = 0
        self.entered, self.hold = asyncio.Event(), asyncio.Event()

    async def __call__(self, connection, receive, send):
        self.effects += 1
        if self.effects == 2:
            await sending(start(), piece(b"order 2"))(connection, receive, send)
            return
        for message in self.early:
            await send(message)
        self.entered.set()
        await self.hold.wait()
        await sending(*(() if self.early else (start(),)), piece(b"er 1"))(connection, receive, send)


async def _overtaken(shop, noted):
    """A door whose store has let the claim of a first owner lapse, and that first owner's connection."""
    clock = ManualClock()
    store = TamperedStore(MemoryStore(clock), before=failing(RenewIfHeld))
    door = protected(shop, store, policy=Policy(lease="90ms", recovery="rerun"), observer=noted)
    connection = Connection()
    first = asyncio.create_task(connection.run(door))
    await shop.entered.wait()
    clock.now_ms += 91
    assert (await ask(door)).body == b"order 2"
    store.before = None
    return door, connection, first


@in_loop
async def test_an_owner_that_lost_its_claim_gives_the_stored_answer():
    """Two ran, as `rerun` allows; there is one outcome, and both clients get it."""
    shop, noted = _Twice(), Noted()
    _, _, first = await _overtaken(shop, noted)
    await eventually(lambda: noted.of(ClaimLost))
    shop.hold.set()
    late = await first
    assert (late.body, late.replayed, shop.effects) == (b"order 2", True, 2)


@in_loop
async def test_an_owner_that_lost_its_claim_in_the_middle_of_its_answer_breaks_off():
    """What it has sent contradicts the record: it must not look whole."""
    shop = _Twice(start(), piece(b"ord", more=True))
    door, connection, first = await _overtaken(shop, Noted())
    shop.hold.set()
    answer = await first
    assert (answer.body, answer.whole, connection.error is not None) == (b"ord", False, True)
    assert (await ask(door)).body == b"order 2"


@in_loop
async def test_an_owner_whose_record_is_gone_does_not_know():
    """The record was deleted under the handler: nobody can rely on this answer, so nobody gets it."""
    store = MemoryStore()
    shop = Shop(meanwhile=store._records.clear)
    assert (await ask(protected(shop, store))).code == "outcome-unknown"


@in_loop
async def test_an_owner_that_cannot_see_its_record_says_that_nothing_is_recorded():
    """The settlement is refused and the record cannot be read: the real answer goes out, marked."""
    store = MemoryStore()
    shop = Shop(meanwhile=store._records.clear)
    answer = await ask(protected(shop, TamperedStore(store, before=failing(Read))))
    assert (answer.body, answer.values("idempotency-status")) == (b"order 1", ["unrecorded"])


@in_loop
async def test_a_replay_that_was_tampered_with_is_not_given():
    """The stored bytes were changed: 409, and nothing runs."""
    shop, store = Shop(), MemoryStore()
    door = protected(shop, store)
    await ask(door)
    ((identity, record),) = store._records.items()
    stored = record.response or b""
    store._records[identity] = replace(record, response=stored[:-1] + bytes([stored[-1] ^ 1]))
    assert ((await ask(door)).code, shop.effects) == ("replay-unavailable", 1)


@pytest.mark.parametrize("fails", [False, True])
@in_loop
async def test_a_claim_that_is_answered_after_its_client_left(fails):
    """It is waited for and then taken back, or was never made; nothing runs, and nothing goes unretrieved."""
    gate, shop = asyncio.Event(), Shop()

    async def hold(transition):
        if isinstance(transition, ClaimIfAbsent):
            await gate.wait()
            if fails:
                raise StoreUnavailable

    store = TamperedStore(MemoryStore(), before=hold)
    door = protected(shop, store)
    await door.open()
    request = asyncio.create_task(Connection().run(door))
    await turn(10)
    request.cancel()
    await turn(10)
    gate.set()
    await asyncio.wait([request])
    await eventually(lambda: not others())
    assert request.cancelled()
    assert (shop.effects, states(store), store.done[-1]) == (0, [], "DiscardIfHeld")


@in_loop
async def test_a_malformed_key_is_refused_while_the_store_is_away():
    """What is wrong with the request is said whether the store is there or not: sending it again would not help."""
    store = TamperedStore(MemoryStore())
    store.away = True
    refused = await ask(protected(Shop(), store), key='"not closed')
    assert (refused.status, refused.code) == (400, "key-invalid")


@in_loop
async def test_a_handler_that_raised_and_cannot_see_its_record():
    """The same of a handler that raised: the 500 problem goes out, marked."""
    store = MemoryStore()

    async def application(*_):
        store._records.clear()
        raise ZeroDivisionError

    connection = Connection()
    answer = await connection.run(protected(application, TamperedStore(store, before=failing(Read))))
    assert (answer.code, answer.values("idempotency-status")) == ("handler-failed", ["unrecorded"])


@pytest.mark.parametrize("ends", ["raises", "is cancelled"])
@in_loop
async def test_a_released_failure_does_not_say_that_it_is_over(ends):
    """`no_effect()` and then an exception, or a shutdown: a retry runs again, so the problem must not deny it."""
    entered = asyncio.Event()

    async def application(*_):
        operation().no_effect()
        entered.set()
        if ends == "raises":
            raise ConnectionError
        await asyncio.Event().wait()

    store = MemoryStore()
    door = protected(application, store, drain="10ms")
    connection = Connection()
    request = asyncio.create_task(connection.run(door))
    await entered.wait()
    if ends != "raises":
        await door.close()
    await asyncio.wait([request])
    assert states(store) == [State.RETRYABLE]
    problem = json.loads(connection.answer.body)
    assert problem["retryable"] is True
    assert "not run again" not in problem["detail"]


@pytest.mark.usefixtures("_hasty")
@in_loop
async def test_a_claim_whose_reply_was_lost_is_taken_back_until_its_lease_ends():
    """Nothing ran under it: a store that is away for long must not make the outcome of nothing unknown."""
    store, shop = MemoryStore(), Shop()
    tampered = TamperedStore(
        store, before=failing(DiscardIfHeld, times=40), after=failing(ClaimIfAbsent, times=1)
    )  # forty tries take many times the patience with a settlement
    door = protected(shop, tampered)
    assert (await ask(door)).code == "store-unavailable"
    assert states(store) == [State.IN_PROGRESS]
    await eventually(lambda: not states(store))
    assert ((await ask(door)).status, shop.effects) == (201, 1)
