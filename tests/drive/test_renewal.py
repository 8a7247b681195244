"""The leases of running handlers are kept by one timer for all of them."""

from __future__ import annotations

import asyncio

import pytest
import uvloop

from retrysafe import Policy
from retrysafe.drive import RENEWALS_PER_LEASE
from retrysafe.drive.renewal import Renewals
from retrysafe.model import BytesBody, Claim, Head, Request
from retrysafe.observe import ClaimLost, Overdue, StoreFailed
from retrysafe.protocol.effects import Execute
from retrysafe.protocol.key import Key
from retrysafe.protocol.transitions import ClaimIfAbsent, RenewIfHeld
from retrysafe.stores.memory import MemoryStore
from tests.doors.connections import ask, protected
from tests.doors.handlers import Shop
from tests.drive.harness import Noted, TamperedStore, eventually, failing, in_loop, records


class Handler:
    """Stands for a handler that is running."""

    def __init__(self) -> None:
        self.is_overdue = False

    def overdue(self) -> None:
        """Note that its time is over."""
        self.is_overdue = True


def claimed(store, name: bytes, lease: str, execution_max: str = "15m") -> Execute:
    """An execution whose claim the store holds."""
    policy = Policy(lease=lease, execution_max=execution_max)
    identity, token = name.ljust(32, b"-"), name.ljust(16, b"-")
    store.perform(ClaimIfAbsent(identity, token, b"\x01", policy.lease_ms, 1_000))
    request = Request(Head("POST", b"/", b"", ()), BytesBody())
    return Execute(Claim(identity, token, 1), Key("k"), "alice", request, policy)


def leases(store) -> dict[bytes, int]:
    """Until when each record is leased, by the first byte of its token."""
    return {record.token[:1]: record.lease_until_ms for record in records(store)}


@in_loop
async def test_each_is_renewed_in_its_own_time():
    """A long lease does not hold up a short one that comes later, nor the other way round."""
    store = TamperedStore(MemoryStore())
    renewals = Renewals(store, Noted())
    executions = [claimed(store, name, lease) for name, lease in ((b"a", "60s"), (b"b", "90ms"), (b"c", "150ms"))]
    first = leases(store)
    for execution in executions:
        renewals.start(execution, Handler())
    for _ in range(3):
        before = leases(store)
        await eventually(lambda: all(leases(store)[name] > before[name] for name in (b"b", b"c")))  # noqa: B023 - now
    assert leases(store)[b"a"] == first[b"a"]
    for execution in executions:
        renewals.stop(execution)
    store.done.clear()
    await asyncio.sleep(0.09 / RENEWALS_PER_LEASE * 2)
    assert store.done == []


@in_loop
async def test_one_that_is_overdue_does_not_take_the_others_with_it():
    """It is told, and renewed no longer; the other goes on."""
    store, noted, late, other = TamperedStore(MemoryStore()), Noted(), Handler(), Handler()
    renewals = Renewals(store, noted)
    renewals.start(claimed(store, b"a", "60ms", "60ms"), late)
    renewals.start(claimed(store, b"b", "60ms"), other)
    await eventually(lambda: late.is_overdue)
    before = leases(store)
    await eventually(lambda: leases(store)[b"b"] > before[b"b"])
    assert (leases(store)[b"a"], other.is_overdue, len(noted.of(Overdue))) == (before[b"a"], False, 1)


@in_loop
async def test_one_that_is_lost_is_told_once():
    """Its claim went to somebody else: that is found out, told, and not asked again."""
    store, noted = MemoryStore(), Noted()
    renewals = Renewals(store, noted)
    lost = claimed(store, b"a", "60ms")
    renewals.start(lost, Handler())
    renewals.start(claimed(store, b"b", "60ms"), Handler())
    del store._records[lost.claim.record_id]
    await eventually(lambda: noted.of(ClaimLost))
    before = leases(store)
    await eventually(lambda: leases(store)[b"b"] > before[b"b"])
    assert len(noted.of(ClaimLost)) == 1


@in_loop
async def test_a_refusal_after_the_end_is_not_told():
    """The handler ended while its renewal was under way: a claim that is settled is not lost."""
    gate, asked = asyncio.Event(), asyncio.Event()

    async def hold(transition):
        if isinstance(transition, RenewIfHeld):
            asked.set()
            await gate.wait()

    memory, noted = MemoryStore(), Noted()
    store = TamperedStore(memory, before=hold)
    renewals = Renewals(store, noted)
    execution = claimed(memory, b"a", "60ms")
    renewals.start(execution, Handler())
    await asked.wait()
    memory._records.clear()
    renewals.stop(execution)
    gate.set()
    await eventually(lambda: "RenewIfHeld" in store.done)
    assert noted.events == []


@in_loop
async def test_a_store_that_stumbles_is_asked_again():
    """Each failure is told, and the next renewal comes in its time."""
    store, noted = TamperedStore(MemoryStore(), before=failing(RenewIfHeld, times=2)), Noted()
    execution = claimed(store, b"a", "60ms")
    renewals = Renewals(store, noted)
    renewals.start(execution, Handler())
    before = leases(store)
    await eventually(lambda: leases(store)[b"a"] > before[b"a"])
    renewals.stop(execution)
    assert len(noted.of(StoreFailed)) == 2


@pytest.mark.parametrize("lease_of_first", ["60s", "60ms"])
def test_every_loop_has_its_timer(lease_of_first):
    """A door that serves one loop after another renews in each, whatever the last one has left behind."""
    store = TamperedStore(MemoryStore())
    renewals = Renewals(store, Noted())

    async def serve(name: bytes, lease: str, *, to_the_end: bool) -> None:
        execution = claimed(store, name, lease)
        renewals.start(execution, Handler())
        before = leases(store)
        if to_the_end:
            await eventually(lambda: leases(store)[name] > before[name])
        renewals.stop(execution)

    asyncio.run(serve(b"a", lease_of_first, to_the_end=False))
    asyncio.run(serve(b"b", "90ms", to_the_end=True))


def test_a_renewal_that_is_late():
    """A loop may give another kind of handle for what is due at once, as uvloop does: the next handler begins."""
    store = TamperedStore(MemoryStore())
    renewals = Renewals(store, Noted())

    async def scene() -> None:
        execution, loop = claimed(store, b"a", "90ms"), asyncio.get_running_loop()
        renewals._wake_at(loop.time() - 1, loop)  # as on a machine that was busy with something else
        renewals.start(execution, Handler())
        before = leases(store)
        await eventually(lambda: leases(store)[b"a"] > before[b"a"])
        renewals.stop(execution)

    uvloop.run(scene())


@in_loop
async def test_an_owner_that_cannot_begin_lets_nobody_wait(monkeypatch):
    """A defect before the handler runs is for who waits, and nothing goes on in its name."""
    door = protected(Shop(), MemoryStore())
    renewals = door._driver.renewals

    def broken(*_: object) -> None:
        raise AttributeError("a defect of ours")

    monkeypatch.setattr(renewals, "start", broken)
    with pytest.raises(AttributeError, match="of ours"):
        await ask(door, key="k-1")
    assert (door._driver._owners, renewals._running) == ({}, {})
    await door.close()


@in_loop
async def test_another_loop_takes_nothing_with_it():
    """A door on two loops: the handler of one is renewed while the other, on its thread, comes and goes."""
    store = TamperedStore(MemoryStore())
    renewals = Renewals(store, Noted())
    mine = claimed(store, b"a", "90ms")
    renewals.start(mine, Handler())

    async def elsewhere():
        execution = claimed(store, b"b", "60ms")
        renewals.start(execution, Handler())
        renewals.stop(execution)

    await asyncio.to_thread(lambda: asyncio.run(elsewhere()))
    for _ in range(2):
        before = leases(store)
        await eventually(lambda: leases(store)[b"a"] > before[b"a"])  # noqa: B023 - now
    assert leases(store)[b"b"] == before[b"b"]
    assert list(renewals._timers) == [asyncio.get_running_loop()]
    renewals.stop(mine)


@in_loop
async def test_what_one_raises_costs_no_other_its_claim():
    """Whatever it is; and the one that it was about is renewed the next time."""
    failed: list[object] = []

    class Store(MemoryStore):
        def submit(self, transition):
            if isinstance(transition, RenewIfHeld) and not failed:
                failed.append(transition)
                raise RuntimeError("no more threads")
            return super().submit(transition)

    store = Store()
    renewals = Renewals(store, Noted())
    executions = [claimed(store, name, "60ms") for name in (b"a", b"b")]
    first = leases(store)
    for execution in executions:
        renewals.start(execution, Handler())
    await eventually(lambda: all(leases(store)[name] > first[name] for name in (b"a", b"b")))
    assert len(failed) == 1
    for execution in executions:
        renewals.stop(execution)


@in_loop
async def test_a_claim_that_fails_unexpectedly_is_taken_back():
    """A store that does the work and fails then leaves no claim behind that nobody holds."""

    class Store(MemoryStore):
        def submit(self, transition):
            done = super().submit(transition)
            if type(transition) is ClaimIfAbsent:
                raise RuntimeError("no more threads")
            return done

    store = Store()
    with pytest.raises(RuntimeError, match="no more threads"):
        await ask(protected(Shop(), store))
    await eventually(lambda: not records(store))
