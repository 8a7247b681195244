"""Duplicates that wait: for an owner here or elsewhere, for their turn, and for no longer than they may."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

import retrysafe.drive.waiting
from retrysafe import Policy
from retrysafe.drive.sync import Driver
from retrysafe.drive.waiting import BlockingWaiting
from retrysafe.model import Response, State
from retrysafe.observe import StoreFailed
from retrysafe.operation import operation
from retrysafe.protocol.answers import Deliver, Respond
from retrysafe.protocol.effects import Answered, Fate, Raised, Wait, WaitEnd
from retrysafe.protocol.flow import Terms, protect
from retrysafe.protocol.transitions import Read
from retrysafe.stores.memory import MemoryStore
from retrysafe.stores.sqlite import SqliteStore
from tests.doors.connections import Connection, ask, protected
from tests.doors.handlers import Shop, content_of, piece, start
from tests.drive.harness import PATIENCE_S, ManualClock, Noted, TamperedStore, eventually, failing, in_loop, states
from tests.drive.test_sync import HEAD, SECRET, Blocking, answered
from tests.stores.test_sqlite_processes import in_child

WAITING = Policy(in_flight="wait", wait="5s")


@pytest.fixture(autouse=True)
def _often(monkeypatch):
    """It is looked ten times as often."""
    monkeypatch.setattr(retrysafe.drive.waiting, "POLL_FIRST_S", 0.005)
    monkeypatch.setattr(retrysafe.drive.waiting, "POLL_MOST_S", 0.02)


@pytest.fixture
def _seldom(monkeypatch):
    """It is not looked in the time of a test: who wakes, was told."""
    monkeypatch.setattr(retrysafe.drive.waiting, "POLL_FIRST_S", 2.0 * PATIENCE_S)


def waiters(door):
    """How many wait at a door."""
    return sum(len(place.waiters) for place in door._driver.waiting._places.values())


class Case:
    """A first attempt that is held in its handler, at a door, and duplicates of it, perhaps at another.

    Args:
        elsewhere: the duplicates come to another door on the same store, as in another process.
        policy: of the route.
    """

    def __init__(self, shop=None, *, elsewhere=False, policy=WAITING, store=None):
        self.clock = ManualClock()
        self.store = store or TamperedStore(MemoryStore(self.clock))
        self.shop = shop or Shop()
        self.shop.gate.clear()
        self.noted = Noted()
        self.first = protected(self.shop, self.store, policy=policy)
        self.door = protected(self.shop, self.store, policy=policy, observer=self.noted) if elsewhere else self.first
        self.duplicates = []

    async def begin(self, count):
        self.owner = asyncio.create_task(ask(self.first))
        await self.shop.entered.wait()
        self.connections = [Connection() for _ in range(count)]
        self.duplicates = [asyncio.create_task(connection.run(self.door)) for connection in self.connections]
        await eventually(lambda: waiters(self.door) == count)

    async def end(self):
        self.shop.gate.set()
        return await self.owner, await asyncio.gather(*self.duplicates)


@in_loop
async def test_duplicates_wait_and_replay():
    """Twenty duplicates of a request in flight get its answer when it is there; one effect."""
    case = Case()
    await case.begin(20)
    first, duplicates = await case.end()
    assert not first.replayed
    assert {(answer.status, answer.body, answer.replayed) for answer in duplicates} == {(201, b"order 1", True)}
    assert case.shop.effects == 1
    assert not case.door._driver.waiting._places


@pytest.mark.usefixtures("_seldom")
def test_an_owner_here_wakes_them_at_once():
    """In one process nobody waits for a look at the record."""

    @in_loop
    async def test():
        case = Case()
        await case.begin(3)
        _, duplicates = await case.end()
        assert all(answer.replayed for answer in duplicates)
        assert "Read" not in case.store.done

    test()


@in_loop
async def test_one_look_for_all():
    """However many wait for an owner elsewhere, the record is looked at as often as for one, in growing steps."""
    case = Case(elsewhere=True)
    await case.begin(50)
    began_s = time.monotonic()
    await eventually(lambda: case.store.done.count("Read") >= 6)
    assert case.store.done.count("Read") <= 1 + (time.monotonic() - began_s + 0.1) / 0.005
    assert case.store.done.count("Read") < 50
    _, duplicates = await case.end()
    assert all(answer.replayed for answer in duplicates)


@pytest.mark.parametrize("say", ["no_effect", "not_run"])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_one_of_them_takes_the_turn(say, elsewhere):
    """The first attempt did nothing: one duplicate runs, the others wait on and get its answer."""

    class Hesitant(Shop):
        async def __call__(self, connection, receive, send):
            if not self.effects:
                getattr(operation(), say)()
            await super().__call__(connection, receive, send)

    @in_loop
    async def test():
        case = Case(Hesitant(), elsewhere=elsewhere)
        await case.begin(10)
        first, duplicates = await case.end()
        assert (first.body, first.replayed) == (b"order 1", False)
        assert sorted(answer.replayed for answer in duplicates) == [False] + [True] * 9
        assert {answer.body for answer in duplicates} == {b"order 2"}
        assert case.shop.effects == 2

    test()


@in_loop
async def test_the_end_of_patience_is_a_409():
    """Who waited as long as it may is told to come again, as if it had not waited."""
    case = Case(policy=Policy(in_flight="wait", wait="100ms"))
    began_s = time.monotonic()
    await case.begin(2)
    refused = await asyncio.gather(*case.duplicates)
    assert 0.1 <= time.monotonic() - began_s < PATIENCE_S
    assert [(answer.status, answer.code) for answer in refused] == [(409, "in-progress")] * 2
    assert [answer.values("retry-after") for answer in refused] == [["1"]] * 2
    await case.end()
    assert case.shop.effects == 1


@in_loop
async def test_patience_counts_over_all_turns():
    """A record that is claimed and released again and again holds nobody longer than one wait."""
    case = Case(Shop(429), policy=Policy(in_flight="wait", wait="150ms"))
    claims = ["ClaimIfAbsent", "ClaimIfRetryable"]

    async def attempts():
        while not case.duplicates[0].done():
            case.shop.gate.clear()
            again = asyncio.create_task(ask(case.first))
            await asyncio.sleep(0)
            case.shop.gate.set()
            await again

    await case.begin(1)
    began_s = time.monotonic()
    await asyncio.gather(case.duplicates[0], case.owner, attempts())
    assert time.monotonic() - began_s < PATIENCE_S / 2
    assert set(claims) <= set(case.store.done)


@in_loop
async def test_a_client_that_leaves_ends_its_wait():
    """Nothing is sent to it, nothing runs for it, and the others wait on."""
    case = Case()
    await case.begin(2)
    case.connections[0].leave()
    gone = await case.duplicates[0]
    assert (gone.status, case.connections[0].messages) == (0, [])
    assert waiters(case.door) == 1
    _, duplicates = await case.end()
    assert [answer.replayed for answer in duplicates] == [False, True]
    assert case.shop.effects == 1


@in_loop
async def test_a_task_that_is_cancelled_ends_its_wait():
    """As outer middleware does it; nothing is left behind."""
    case = Case()
    await case.begin(1)
    case.duplicates[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await case.duplicates[0]
    assert not case.door._driver.waiting._places
    case.duplicates.clear()
    await case.end()


@in_loop
async def test_a_server_that_stops_sends_them_away():
    """Drain waits for the owner and not for who waits; from then on nobody waits, until the door is open again."""
    case = Case()
    await case.begin(3)
    closing = asyncio.create_task(case.door.close())
    refused = await asyncio.gather(*case.duplicates)
    assert {answer.code for answer in refused} == {"in-progress"}
    assert not case.owner.done()
    assert (await ask(case.door)).code == "in-progress"
    case.shop.gate.set()
    assert (await case.owner).status == 201
    await closing
    await case.door.open()
    assert (await ask(case.door)).replayed
    assert not case.door._driver.waiting._ended


@in_loop
async def test_who_is_sent_away_asks_nothing_more(tmp_path):
    """The door closes its store at once, as its owner is elsewhere: a 409, no claim on a closed store, no task left."""
    policy, shop, noted = WAITING, Shop(), Noted()
    shop.gate.clear()
    url = f"sqlite:///{tmp_path}/records.db"
    first, door = protected(shop, url, policy=policy), protected(shop, url, policy=policy, observer=noted)
    await first.open()
    await door.open()
    owner = asyncio.create_task(ask(first))
    await shop.entered.wait()
    duplicates = [asyncio.create_task(ask(door)) for _ in range(5)]
    await eventually(lambda: waiters(door) == 5)
    await door.close()
    assert {answer.code for answer in await asyncio.gather(*duplicates)} == {"in-progress"}
    assert not noted.of(StoreFailed)
    assert not door._driver._errands
    shop.gate.set()
    assert (await owner).status == 201
    await first.close()


@pytest.mark.parametrize(("recovery", "code", "effects"), [("manual", "outcome-unknown", 1), ("rerun", None, 2)])
def test_an_owner_that_is_gone(recovery, code, effects):
    """Its lease lapses while they wait: the outcome is unknown, or, where that is allowed, one of them takes over."""

    @in_loop
    async def test():
        case = Case(elsewhere=True, policy=Policy(in_flight="wait", wait="5s", lease="10s", recovery=recovery))
        await case.begin(3)
        case.clock.now_ms += 10_000
        if recovery == "rerun":
            await eventually(lambda: case.shop.effects == 2)
            case.shop.gate.set()
        answers = await asyncio.gather(*case.duplicates)
        assert {answer.code for answer in answers} == {code}
        assert sum(answer.replayed for answer in answers) == (2 if recovery == "rerun" else 0)
        case.shop.gate.set()
        await case.owner
        assert case.shop.effects == effects

    test()


@in_loop
async def test_a_store_that_is_away_is_asked_again():
    """A look that fails is told of, and the wait goes on."""
    case = Case(elsewhere=True)
    case.store.before = failing(Read, times=3)
    await case.begin(1)
    await eventually(lambda: len(case.noted.of(StoreFailed)) == 3)
    _, (duplicate,) = await case.end()
    assert duplicate.replayed


@in_loop
async def test_a_mistake_does_not_wait():
    """Another request under the key is refused at once, whatever is in flight."""
    case = Case()
    await case.begin(0)
    assert (await ask(case.door, body=b"{}")).code == "key-reused"
    await case.end()


def test_there_is_an_end_to_how_many_wait(monkeypatch):
    """One more than may wait gets its 409 at once."""
    monkeypatch.setattr(retrysafe.drive.waiting, "WAITERS_MAX", 3)

    @in_loop
    async def test():
        case = Case()
        await case.begin(3)
        assert (await ask(case.door)).code == "in-progress"
        _, duplicates = await case.end()
        assert all(answer.replayed for answer in duplicates)

    test()


@in_loop
async def test_a_server_that_never_tells():
    """One that says something else than that the client left is not asked again and again."""

    async def handler(connection, receive, send):
        await content_of(receive)
        await shop.gate.wait()
        await send(start())
        await send(piece(b"order"))

    shop = Shop()
    shop.gate.clear()
    door = protected(handler, policy=WAITING)
    owner = asyncio.create_task(ask(door))
    await eventually(lambda: states(door._store) == [State.IN_PROGRESS])
    odd = Connection()
    odd.incoming.put_nowait({"type": "http.request", "body": b"", "more_body": False})
    waiting = asyncio.create_task(odd.run(door))
    await eventually(lambda: waiters(door) == 1 and odd.incoming.empty())
    shop.gate.set()
    assert (await waiting).replayed
    await owner


def test_loops_on_threads_wait_at_one_door():
    """One counts who waits while others come and go: nobody's request fails of it."""

    async def handler(connection, receive, send):
        await content_of(receive)
        await asyncio.sleep(0.002)
        await send(start())
        await send(piece(b"order"))

    door = protected(handler, policy=WAITING)
    asyncio.run(door.open())

    async def many(_):
        return [
            answer.status
            for turn in range(10)
            for answer in await asyncio.gather(*(ask(door, key=f"{turn}-{number % 40}") for number in range(120)))
        ]

    often = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(6) as pool:
            statuses = list(pool.map(lambda thread: asyncio.run(many(thread)), range(6)))
    finally:
        sys.setswitchinterval(often)
    assert {status for each in statuses for status in each} == {201}
    assert not door._driver.waiting._places


# --- threads --------------------------------------------------------------------------------------


class Held(Blocking):
    """A handler that is held until it may go on."""

    def __init__(self, outcome=None):
        super().__init__(outcome or answered(), self.hold)
        self.entered, self.gate = threading.Event(), threading.Event()

    def hold(self, _):
        self.entered.set()
        assert self.gate.wait(PATIENCE_S)


@contextmanager
def threads(policy=WAITING, *, elsewhere=False, owner=None, count=5):
    """An owner on one thread, and duplicates on others, once they all wait."""
    clock = ManualClock()
    store = TamperedStore(MemoryStore(clock))
    store.open(SECRET)
    first = Driver(store, Noted())
    driver = Driver(store, Noted()) if elsewhere else first
    owner = owner or Held()
    ran = []

    def run(by, exchange):
        answer = by.run(protect(HEAD, Terms(policy, "default", SECRET, threading.get_ident().to_bytes(16))), exchange)
        ran.append((exchange, answer))
        return answer

    with ThreadPoolExecutor(count + 1) as pool:
        owning = pool.submit(run, first, owner)
        assert owner.entered.wait(PATIENCE_S)
        duplicates = [pool.submit(run, driver, Blocking(answered(body=b"order 2"))) for _ in range(count)]
        give_up_s = time.monotonic() + PATIENCE_S
        while sum(room.waiters for room in list(driver.waiting._rooms.values())) < count:
            assert time.monotonic() < give_up_s
            threading.Event().wait(0.001)
        try:
            yield clock, store, driver, owner, owning, duplicates
        finally:
            owner.gate.set()
    assert not driver.waiting._rooms


@pytest.mark.usefixtures("_seldom")
def test_threads_wait_and_replay():
    """The blocking driver: duplicates on threads get the answer when it is there, told by its owner."""
    with threads() as (_, store, _, owner, owning, duplicates):
        owner.gate.set()
        assert isinstance(owning.result(PATIENCE_S), Deliver)
        assert [waiting.result(PATIENCE_S).ending for waiting in duplicates] == ["replayed"] * 5
    assert "Read" not in store.done


def test_threads_share_one_look():
    """For an owner elsewhere: one of the threads looks for all."""
    with threads(elsewhere=True, count=12) as (_, store, _, owner, _, duplicates):
        began_s = time.monotonic()
        while store.done.count("Read") < 6:
            assert time.monotonic() - began_s < PATIENCE_S
            threading.Event().wait(0.001)
        assert store.done.count("Read") <= 2 + (time.monotonic() - began_s + 0.1) / 0.005
        owner.gate.set()
        assert [waiting.result(PATIENCE_S).ending for waiting in duplicates] == ["replayed"] * 12


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("fate", [Fate.NO_EFFECT, Fate.NOT_RUN])
def test_one_thread_takes_the_turn(fate, elsewhere):
    """The first attempt did nothing: one of the waiting requests runs, the others replay its answer."""
    with threads(owner=Held(Raised(fate)), elsewhere=elsewhere) as (_, _, _, owner, owning, duplicates):
        owner.gate.set()
        owning.result(PATIENCE_S)
        answers = [waiting.result(PATIENCE_S) for waiting in duplicates]
    assert sorted(answer.ending for answer in answers) == ["recorded"] + ["replayed"] * 4
    assert {answer.response.body for answer in answers if isinstance(answer, Respond)} == {b"order 2"}


def test_threads_have_no_more_patience_than_they_may():
    """The end of the wait is the 409."""
    with threads(Policy(in_flight="wait", wait="100ms")) as (_, _, _, _, _, duplicates):
        assert [waiting.result(PATIENCE_S).ending for waiting in duplicates] == ["in-progress"] * 5


def test_threads_are_sent_away():
    """When the server stops, at once; and then nobody waits until it starts again."""
    with threads() as (_, _, driver, _, _, duplicates):
        driver.waiting.end()
        assert [waiting.result(PATIENCE_S).ending for waiting in duplicates] == ["in-progress"] * 5
        assert driver.waiting.wait(Wait(bytes(32), 10_000, None)).end is WaitEnd.STOPPED
        driver.waiting.resume()
        assert driver.waiting.wait(Wait(bytes(32), 10_000, None)).end is WaitEnd.CHANGED


def test_threads_notice_an_owner_that_is_gone():
    """Its lease lapses: the outcome is unknown, for all of them."""
    with threads(elsewhere=True) as (clock, _, _, _, _, duplicates):
        clock.now_ms += WAITING.lease_ms
        assert [waiting.result(PATIENCE_S).ending for waiting in duplicates] == ["outcome-unknown"] * 5


def test_threads_have_an_end_too(monkeypatch):
    """One more than may wait is refused at once; and a look that fails is no end."""
    monkeypatch.setattr(retrysafe.drive.waiting, "WAITERS_MAX", 5)
    with threads(elsewhere=True) as (_, store, driver, owner, _, duplicates):
        store.before = failing(Read, times=2)
        late = protect(HEAD, Terms(WAITING, "default", SECRET, b"l" * 16))
        assert driver.run(late, Blocking(answered())).ending == "in-progress"
        owner.gate.set()
        assert [waiting.result(PATIENCE_S).ending for waiting in duplicates] == ["replayed"] * 5


def test_a_child_waits_for_itself(tmp_path):
    """A fork in the middle of a wait, while a thread holds the lock: in the child nobody waits, and a request may."""
    store = SqliteStore(tmp_path / "records.db")
    store.open()
    waiting = BlockingWaiting(store, Noted())
    waiting._rooms[bytes(32)] = retrysafe.drive.waiting._Room()
    with waiting._change:

        def work():
            assert not waiting._rooms
            ended = waiting.wait(Wait(bytes(32), 10_000, None))
            store.close()
            return ended.end.name

        assert in_child(os.fork, work) == "CHANGED"
    store.close()


def test_a_blocking_answer_keeps_its_status():
    """What a waiting thread replays is what the owner answered."""
    outcome = Answered(Response(202, (), b"taken"), whole=True, size=5, digest=b"", fate=Fate.RAN)
    with threads(owner=Held(outcome), count=1) as (_, _, _, owner, _, (waiting,)):
        owner.gate.set()
        answer = waiting.result(PATIENCE_S)
    assert (answer.response.status, answer.response.body) == (202, b"taken")
