"""Lanes: what shares a batch, in which order, who fails alone, and what the end of a loop or a process means.

The sessions here are honest ones on a store in memory: they do each batch, and only note it, hold it up,
or fail as a network would.
"""

from __future__ import annotations

import asyncio
import gc
import os
import secrets
import signal
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

from retrysafe.errors import StoreError, StoreUnavailable
from retrysafe.model import Claim, State
from retrysafe.protocol.transitions import (
    ClaimIfAbsent,
    CompleteIfHeld,
    DiscardIfHeld,
    Purge,
    Purged,
    Read,
    RenewIfHeld,
)
from retrysafe.stores.lanes import BATCH_BYTES_MAX, BATCH_MAX, CONFLICTS_MAX, Lanes, Then, ThreadLane, Verdict
from retrysafe.stores.memory import MemoryStore
from retrysafe.testing import store_contract

MANY = 64
POISON = b"this row is refused"


class Poisoned(Exception):
    """The server refuses a row, and undoes the statement."""


class Conflict(Exception):
    """The server undid the statement for the sake of another."""


class Cut(Exception):
    """The connection is gone."""


class Server:
    """What the sessions of a test connect to: a store in memory, and what is to go wrong next."""

    def __init__(self, clock=lambda: 0):
        self.store = MemoryStore(clock)
        self.batches = []
        self.connections = 0
        self.sessions = []
        self.failures = []  # of the next batches, after or before they were done
        self.refuses = False
        self.gate = threading.Event()
        self.gate.set()

    def session(self):
        session = Session(self)
        self.sessions.append(session)
        return session

    def held_back(self):
        return ThreadSession(self)


class Session:
    def __init__(self, server):
        self.server = server
        self.connected = False

    async def connect(self):
        if self.server.refuses:
            raise Cut("refused")
        self.server.connections += 1
        self.connected = True

    async def run(self, transitions):
        await self.pass_gate()
        self.server.batches.append(list(transitions))
        failure = self.server.failures.pop(0) if self.server.failures else None
        if isinstance(failure, Conflict | Poisoned):
            raise failure
        if any(getattr(transition, "fingerprint", b"") == POISON for transition in transitions):
            raise Poisoned("a row")
        answers = [self.server.store.perform(transition) for transition in transitions]
        if failure:
            raise failure
        return answers

    async def pass_gate(self):
        while not self.server.gate.is_set():  # noqa: ASYNC110 - threads wait at the same gate
            await asyncio.sleep(0)

    def judge(self, error):
        then = {Poisoned: Then.EACH_ALONE, Conflict: Then.AGAIN}.get(type(error), Then.RECONNECT)
        failure = StoreError(str(error)) if then is Then.EACH_ALONE else StoreUnavailable(str(error))
        return Verdict(failure, then)

    async def close(self):
        self.connected = False

    def drop(self):
        self.connected = False


class ThreadSession(Session):
    async def pass_gate(self):
        assert self.server.gate.wait(60)


class LanedStore:
    """The least that a store with lanes is."""

    name = "laned"

    def __init__(self, server):
        self.server = server
        self.lanes = None

    def open(self, secret=None):
        if self.lanes is None:
            self.lanes = Lanes(self.name, self.server.session, self.server.held_back)
        return self.server.store.open(secret)

    def perform(self, transition):
        if self.lanes is None:
            raise StoreUnavailable("open it")
        return self.lanes.perform(transition)

    def submit(self, transition):
        loop = asyncio.get_running_loop()
        if self.lanes is None:
            future = loop.create_future()
            future.set_exception(StoreUnavailable("open it"))
            return future
        return self.lanes.submit(transition)

    def close(self):
        if self.lanes is not None:
            self.lanes.close()
        self.lanes = None


TestLanes = store_contract(lambda clock, folder: LanedStore(Server(clock)), durable=False)


@pytest.fixture
def server():
    return Server()


@pytest.fixture
def lanes(server):
    server.store.open()
    lanes = Lanes("laned", server.session, server.held_back)
    yield lanes
    lanes.close()


def claiming(record_id=None, fingerprint=b"f"):
    return ClaimIfAbsent(record_id or secrets.token_bytes(32), secrets.token_bytes(16), fingerprint, 60_000, 60_000)


def held(claim):
    return Claim(claim.record_id, claim.token, 1)


def completing(claim, response=b"response"):
    return CompleteIfHeld(held(claim), response, 60_000, 60_000)


# --- batches ------------------------------------------------------------------------------------


def test_what_arrives_during_a_batch_shares_the_next(server, lanes):
    """One batch is held up; what arrives meanwhile goes out in one more, sorted by record."""

    async def main():
        server.gate.clear()
        first = lanes.submit(claiming())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        rest = [lanes.submit(claiming()) for _ in range(MANY)]
        await asyncio.sleep(0)
        server.gate.set()
        await asyncio.gather(first, *rest)

    asyncio.run(main())
    assert [len(batch) for batch in server.batches] == [1, MANY]
    record_ids = [claim.record_id for claim in server.batches[1]]
    assert record_ids == sorted(record_ids)


def test_threads_share_batches(server, lanes):
    """Whoever finds the lane idle leads; the rest go out together."""
    server.gate.clear()
    claims = [claiming() for _ in range(MANY)]
    with ThreadPoolExecutor(MANY) as pool:
        answers = [pool.submit(lanes.perform, claim) for claim in claims]
        while len(lanes._threads[0]._waiting) < MANY - 1:
            assert not any(answer.done() for answer in answers)
        server.gate.set()
        assert [answer.result().record.token for answer in answers] == [claim.token for claim in claims]
    assert [len(batch) for batch in server.batches] == [1, MANY - 1]


def test_batch_has_a_bound(server, lanes):
    """However much is waiting, a batch has so many rows."""

    async def main():
        await asyncio.gather(*(lanes.submit(claiming()) for _ in range(2 * BATCH_MAX + 1)))

    asyncio.run(main())
    assert [len(batch) for batch in server.batches] == [BATCH_MAX, BATCH_MAX, 1]


def test_batch_has_a_bound_in_bytes(server, lanes):
    """Large responses go out in batches of so many bytes, and the largest alone."""
    large = bytes(BATCH_BYTES_MAX // 2)

    async def main():
        claims = [claiming() for _ in range(5)]
        await asyncio.gather(*map(lanes.submit, claims))
        server.batches.clear()
        await asyncio.gather(*(lanes.submit(completing(claim, large)) for claim in claims[:4]))
        assert await lanes.submit(completing(claims[4], bytes(2 * BATCH_BYTES_MAX)))

    asyncio.run(main())
    assert [len(batch) for batch in server.batches] == [2, 2, 1]


def test_claims_on_one_record_are_one_row(server, lanes):
    """Of claims on one record that meet, one is sent; it wins, and the rest see it."""

    async def main():
        record_id = secrets.token_bytes(32)
        claims = [claiming(record_id) for _ in range(MANY)]
        found = await asyncio.gather(*map(lanes.submit, claims))
        assert {one.record.token for one in found} == {claims[0].token}

    asyncio.run(main())
    assert [len(batch) for batch in server.batches] == [1]


def test_nothing_overtakes_on_one_record(server, lanes):
    """What is submitted one after the other on one record happens in that order, in batches of its own."""

    async def main():
        claim = claiming()
        await lanes.submit(claim)
        server.batches.clear()
        renewed = lanes.submit(RenewIfHeld(held(claim), 1, 1))
        completed = lanes.submit(completing(claim))
        renewed_late = lanes.submit(RenewIfHeld(held(claim), 1, 1))
        other = lanes.submit(RenewIfHeld(held(claiming()), 1, 1))
        return await asyncio.gather(renewed, completed, renewed_late, other)

    assert asyncio.run(main()) == [True, True, False, False]
    assert [[type(one) for one in batch] for batch in server.batches] == [
        [RenewIfHeld, RenewIfHeld],
        [CompleteIfHeld],
        [RenewIfHeld],
    ]


def test_a_read_does_not_join_what_a_claim_came_between(server, lanes):
    """A read, a claim, a read of one record: the second read sees the claim."""

    async def main():
        claim = claiming()
        read = Read(claim.record_id)
        return await asyncio.gather(lanes.submit(read), lanes.submit(claim), lanes.submit(read))

    before, claimed, after = asyncio.run(main())
    assert before is None
    assert after == claimed


def test_purges_do_not_meet(server, lanes):
    """Each purge is a batch of its own."""

    async def main():
        return await asyncio.gather(*(lanes.submit(Purge()) for _ in range(3)))

    assert asyncio.run(main()) == [Purged(0, 0, more=False)] * 3
    assert [len(batch) for batch in server.batches] == [1, 1, 1]


def test_a_row_that_waits_keeps_no_claim_waiting(server, lanes):
    """While a settlement waits for a row, claims go on: they have a lane of their own."""

    async def main():
        claim = claiming()
        await lanes.submit(claim)
        held_up = asyncio.Event()
        server.sessions[1].pass_gate = held_up.wait
        settled = lanes.submit(DiscardIfHeld(held(claim)))
        await asyncio.gather(*(lanes.submit(claiming()) for _ in range(MANY)))
        assert not settled.done()
        held_up.set()
        assert await settled

    asyncio.run(main())


# --- failures -----------------------------------------------------------------------------------


@pytest.mark.parametrize("colour", ["asyncio", "threads"])
def test_a_row_that_is_refused_fails_alone(server, lanes, colour):
    """One row that the server refuses costs the batch its company, and nobody else the answer."""
    claims = [claiming() for _ in range(9)] + [claiming(fingerprint=POISON)]
    outcomes = run(lanes, server, claims, colour)
    assert [isinstance(outcome, StoreError) for outcome in outcomes] == [False] * 9 + [True]
    assert [outcome.record.token for outcome in outcomes[:9]] == [claim.token for claim in claims[:9]]
    assert server.connections == 1


@pytest.mark.parametrize("colour", ["asyncio", "threads"])
def test_a_conflict_is_tried_again(server, lanes, colour):
    """What the server undid for the sake of others is done again, and nobody hears of it."""
    server.failures += [Conflict("others")] * (CONFLICTS_MAX - 1)
    (found,) = run(lanes, server, [claim := claiming()], colour)
    assert found.record.token == claim.token
    assert len(server.batches) == CONFLICTS_MAX


def test_conflicts_without_end_are_given_up(server, lanes):
    """There is a bound."""
    server.failures += [Conflict("others")] * CONFLICTS_MAX
    (outcome,) = run(lanes, server, [claiming()], "asyncio")
    assert isinstance(outcome, StoreUnavailable)


@pytest.mark.parametrize("colour", ["asyncio", "threads"])
def test_a_lost_connection_leaves_its_batch_in_doubt(server, lanes, colour):
    """What was in flight hears that nobody knows, each from an error of its own; the next connects again."""
    server.failures.append(Cut("reset"))
    claims = [claiming() for _ in range(3)]
    outcomes = run(lanes, server, claims, colour)
    in_doubt = [outcome for outcome in outcomes if isinstance(outcome, StoreUnavailable)]
    assert len(set(map(id, in_doubt))) == len(in_doubt) >= 1
    found = run(lanes, server, claims, colour)
    assert [one.record.token for one in found] == [claim.token for claim in claims]
    assert server.connections == 2


def test_a_server_that_is_away_is_not_asked_for_each(server, lanes):
    """When a batch falls apart and the connection goes, the rest does not wait for one each."""
    server.failures += [Poisoned("a row"), Cut("reset")]
    server.refuses = False
    outcomes = run(lanes, server, [claiming() for _ in range(MANY)], "asyncio")
    assert all(isinstance(outcome, StoreUnavailable) for outcome in outcomes)
    assert server.connections == 1


@pytest.mark.parametrize("colour", ["asyncio", "threads"])
def test_a_server_that_leaves_after_an_answer_has_answered_nobody_else(server, colour):
    """When a batch falls apart and the server hangs up after each answer, nobody is given what another was told."""

    def leaving(session):
        async def run(transitions, run=session.run):
            answers = await run(transitions)
            session.connected = False
            return answers

        session.run = run
        return session

    server.store.open()
    lanes = Lanes("leaving", lambda: leaving(server.session()), lambda: leaving(server.held_back()))
    server.failures += [None, Poisoned("a row")] if colour == "threads" else [Poisoned("a row")]
    claims = [claiming() for _ in range(4)]
    found = run(lanes, server, claims, colour)
    assert [one.record.token for one in found] == [claim.token for claim in claims]
    assert [server.store.perform(Read(claim.record_id)) for claim in claims] == found
    lanes.close()


def run(lanes, server, transitions, colour):
    """All at once; the outcomes, errors among them."""
    if colour == "asyncio":

        async def main():
            return await asyncio.gather(*map(lanes.submit, transitions), return_exceptions=True)

        return asyncio.run(main())
    server.gate.clear()
    with ThreadPoolExecutor(len(transitions)) as pool:
        answers = [pool.submit(lanes.perform, transition) for transition in transitions]
        while len(lanes._threads[0]._waiting) < len(transitions) - 1:
            assert not any(answer.done() for answer in answers)
        server.gate.set()
        return [answer.exception() or answer.result() for answer in answers]


# --- ends ---------------------------------------------------------------------------------------


def test_the_end_of_a_loop_closes_its_connections(server, lanes):
    """Nobody has to close anything in a loop: when it ends, its lanes are gone."""

    async def main():
        await lanes.submit(claim := claiming())
        await lanes.submit(completing(claim))
        assert [session.connected for session in server.sessions] == [True, True]

    asyncio.run(main())
    assert [session.connected for session in server.sessions] == [False, False]
    assert not lanes._loops


def test_a_loop_that_is_ended_leaves_nobody_waiting(server, lanes):
    """What was submitted and not waited for, when the loop is ended, comes to an error and not to nothing."""
    futures = []

    async def main():
        server.gate.clear()
        futures.append(lanes.submit(claiming()))
        await asyncio.sleep(0)
        futures.append(lanes.submit(claiming()))

    asyncio.run(main())
    assert [type(future.exception()) for future in futures] == [StoreUnavailable] * 2


@pytest.mark.parametrize("turns", range(5))
def test_a_loop_may_end_in_the_turn_of_a_submission(server, lanes, turns):
    """Whichever turn is the last, the task that waits comes to an end, and so does the loop."""

    async def use():
        for _ in range(turns):
            await asyncio.sleep(0)
        await lanes.submit(claiming())

    async def main():
        tasks.append(asyncio.create_task(use()))
        for _ in range(2):
            await asyncio.sleep(0)

    tasks: list[asyncio.Task[None]] = []
    ending = threading.Thread(target=asyncio.run, args=(main(),), daemon=True)
    ending.start()
    ending.join(30)
    assert not ending.is_alive()
    assert tasks[0].done()


def test_a_loop_that_was_only_closed_is_forgotten(server, lanes):
    """Who closes a loop without ending its generators gets no goodbye, and keeps no connection for ever."""

    async def use():
        await lanes.submit(claiming())

    for _ in range(3):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(use())
        loop.close()
    assert list(lanes._loops) == [loop]


def test_a_thread_that_is_interrupted_while_it_waits_keeps_nobody_waiting(server, lanes):
    """A signal ends the wait of a thread: it takes its transition back, and whoever comes next is served."""

    class Interrupted(BaseException):
        pass

    def interrupt(*_):
        raise Interrupted

    def interrupt_who_waits():
        while not lanes._threads[0]._waiting:
            threading.Event().wait(0.001)
        signal.pthread_kill(waiting, signal.SIGUSR1)

    waiting = threading.get_ident()
    server.gate.clear()
    before = signal.signal(signal.SIGUSR1, interrupt)
    with ThreadPoolExecutor(2) as pool:
        try:
            first = pool.submit(lanes.perform, claiming())
            while not lanes._threads[0]._led or lanes._threads[0]._waiting:
                threading.Event().wait(0.001)
            pool.submit(interrupt_who_waits)
            with pytest.raises(Interrupted):
                lanes.perform(claiming())
        finally:
            signal.signal(signal.SIGUSR1, before)
            server.gate.set()
        assert first.result(30)
        last = threading.Thread(target=lanes.perform, args=(claiming(),), daemon=True)
        last.start()
        last.join(30)
        assert not last.is_alive()
    assert len(server.batches) == 2


def test_a_signal_handler_that_raises_leaves_a_lane_that_is_led(server):
    """As a function begins, and as one of Python's own is over: that is when handlers run. Who comes next is served."""

    class Interrupted(Exception):
        pass

    def profile(frame, event, _):
        at = (
            frame if frame.f_code.co_filename != threading.__file__ else frame.f_back
        )  # a lock's methods are the lane's
        if event in ("call", "c_return") and at.f_code.co_filename.endswith("stores/lanes.py"):
            left.pop()
            if not left:
                raise Interrupted

    warnings.simplefilter("ignore", RuntimeWarning)  # of a coroutine that is interrupted before it begins
    moments: int = 0
    left: list[None] = []
    while not left:
        moments += 1
        left, lane = [None] * moments, ThreadLane(server.held_back())
        sys.setprofile(profile)
        try:
            lane.perform(Read(bytes(32)))
        except (Interrupted, StoreError):
            pass
        finally:
            sys.setprofile(None)
        last = threading.Thread(target=lane.perform, args=(Read(bytes(32)),), daemon=True)
        last.start()
        last.join(10)
        assert not last.is_alive(), f"after {moments} moments"
    assert moments > 20
    gc.collect()  # before pytest complains of such again


def test_closing_finishes_what_was_submitted(server, lanes):
    """Closing, from another thread, waits for what is in flight, and lets go of every connection."""

    async def main():
        future = lanes.submit(claim := claiming())
        await asyncio.to_thread(lanes.close)
        assert future.done()
        assert future.result().record.token == claim.token
        with pytest.raises(StoreUnavailable):
            await lanes.submit(claiming())

    asyncio.run(main())
    assert not any(session.connected for session in server.sessions)


def test_a_child_makes_connections_of_its_own(server, lanes):
    """After a fork the child connects anew, and leaves the connection of its parent alone."""
    lanes.perform(claiming())
    inherited = lanes._threads
    child = os.fork()
    if not child:
        connected_before = server.connections
        lanes.perform(claiming())
        os._exit(0 if lanes._threads is not inherited and server.connections == connected_before + 1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    lanes.perform(claiming())
    assert server.connections == 1


def test_records_are_as_in_the_store(server, lanes):
    """Both colours reach the same records."""
    claim = claiming()
    lanes.perform(claim)

    async def main():
        assert await lanes.submit(completing(claim))

    asyncio.run(main())
    assert lanes.perform(Read(claim.record_id)).record.state is State.COMPLETED
