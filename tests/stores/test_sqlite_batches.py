"""The writer of the SQLite store: what shares a commit, who fails alone, and who waits for nothing."""

from __future__ import annotations

import asyncio
import gc
import secrets
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from typing import Any

import pytest

from retrysafe.errors import StoreError, StoreUnavailable
from retrysafe.model import Claim, Found, State
from retrysafe.protocol.transitions import ClaimIfAbsent, CompleteIfHeld, DiscardIfHeld, Purge, Purged, Read
from retrysafe.stores.sqlite import BATCH_MAX, SqliteStore
from retrysafe.stores.sqlite_file import SqliteFile, migrations
from retrysafe.stores.sqlite_session import Session
from retrysafe.testing import ManualClock
from tests.drive.harness import turn

MANY = 64


@pytest.fixture
def path(tmp_path):
    return tmp_path / "records.db"


@pytest.fixture
def store(path):
    store = SqliteStore(path)
    store.open()
    yield store
    store.close()


@contextmanager
def writing_elsewhere(path):
    """Another process is in the middle of a transaction that writes."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


def claiming(record_id=None):
    return ClaimIfAbsent(record_id or secrets.token_bytes(32), secrets.token_bytes(16), b"f", 60_000, 60_000)


def completing(claim):
    return CompleteIfHeld(Claim(claim.record_id, claim.token, 1), b"response", 60_000, 60_000)


def commits(path):
    """How many commits the log has seen: a frame that ends one says how large the database is after it."""
    log = path.with_name(f"{path.name}-wal").read_bytes()
    size = 24 + int.from_bytes(log[8:12], "big")
    return sum(log[at + 4 : at + 8] != bytes(4) for at in range(32, len(log), size))


async def has_taken(store):
    """Wait until the writer has taken what this turn of the loop brought. What follows may still join it."""
    await turn(1)
    give_up_s = time.monotonic() + 10
    while not store._writer.calls.empty():
        assert time.monotonic() < give_up_s


# --- sharing a commit ---------------------------------------------------------------------------


def test_what_arrives_during_a_commit_shares_the_next(store, path):
    """One commit is held up; of the many transitions that arrive meanwhile, all go into one more."""

    async def main():
        with writing_elsewhere(path):
            first = store.submit(claiming())
            await has_taken(store)
            rest = [store.submit(claiming()) for _ in range(MANY)]
        return await asyncio.gather(first, *rest)

    before = commits(path)
    found = asyncio.run(main())
    assert len({one.record.token for one in found}) == MANY + 1
    assert commits(path) <= before + 2


def test_what_one_turn_of_a_loop_brings_shares_a_commit(store, path):
    """The writer has nothing else to do, and yet gets all of it at once."""

    async def main():
        return await asyncio.gather(*(store.submit(claiming()) for _ in range(MANY)))

    before = commits(path)
    asyncio.run(main())
    assert commits(path) == before + 1


def test_what_a_turn_brought_before_the_store_was_closed_is_done(store, path):
    """It was submitted: that the turn was not over yet is no matter."""
    claim = claiming()

    async def main():
        answer = store.submit(claim)
        store.close()
        with pytest.raises(StoreUnavailable):
            await store.submit(claiming())
        return await answer

    assert asyncio.run(main()).record.token == claim.token
    store.open()
    assert store.perform(Read(claim.record_id)).record.token == claim.token


def test_old_and_new_keys_in_one_batch_are_told_apart(store):
    """Records are looked up together as long as nothing is written, and never taken for one that is."""
    old = [claiming() for _ in range(MANY)]
    for claim in old:
        store.perform(claim)

    async def main(claims):
        return await asyncio.gather(*map(store.submit, claims))

    again = [claiming(claim.record_id) for claim in old]
    new = [claiming() for _ in range(MANY)]
    mixed = [claim for pair in zip(again, new, strict=True) for claim in pair]
    for claims in (again, [*again, *new], mixed, mixed[::-1]):
        found = asyncio.run(main(claims))
        tokens = {claim.record_id: claim.token for claim in (*old, *new)}
        assert [one.record.token for one in found] == [tokens[claim.record_id] for claim in claims]


def test_threads_share_commits(store, path):
    """Blocking callers share commits as well."""
    claims = [claiming() for _ in range(MANY)]
    before = commits(path)
    with ThreadPoolExecutor(MANY) as pool:
        with writing_elsewhere(path):
            answers = [pool.submit(store.perform, claim) for claim in claims]
            while store._writer.calls.qsize() < MANY // 2:
                assert not any(answer.done() for answer in answers)
        assert [answer.result().record.token for answer in answers] == [claim.token for claim in claims]
    assert commits(path) <= before + MANY // 2 + 1


def test_batch_has_a_bound(store, path):
    """However much is waiting, a transaction takes so much of it."""

    async def main():
        with writing_elsewhere(path):
            first = store.submit(claiming())
            await has_taken(store)
            rest = [store.submit(claiming()) for _ in range(2 * BATCH_MAX + 1)]
        await asyncio.gather(first, *rest)

    before = commits(path)
    asyncio.run(main())
    assert commits(path) in (before + 3, before + 4)


def test_loop_is_woken_once_for_a_batch(store, path, monkeypatch):
    """However many answers a batch has for a loop, they come in one call."""
    woken = []

    async def main():
        loop = asyncio.get_running_loop()
        wake = loop.call_soon_threadsafe

        def counting(*call):
            woken.append(call)
            return wake(*call)

        with writing_elsewhere(path):
            first = store.submit(claiming())
            await has_taken(store)
            rest = [store.submit(claiming()) for _ in range(MANY)]
            monkeypatch.setattr(loop, "call_soon_threadsafe", counting)
        await asyncio.gather(first, *rest)

    asyncio.run(main())
    assert len(woken) <= 2


def test_order_is_kept(store, path):
    """What is handed over one after the other happens in that order, though nobody waits between."""
    claim = claiming()
    again = claiming(claim.record_id)

    async def main():
        with writing_elsewhere(path):
            held_up = store.submit(claiming())
            await has_taken(store)
            answers = [
                store.submit(transition)
                for transition in (
                    Read(claim.record_id),
                    claim,
                    completing(claim),
                    Read(claim.record_id),
                    again,
                    DiscardIfHeld(Claim(claim.record_id, claim.token, 1)),
                    completing(claim),
                )
            ]
        await held_up
        return await asyncio.gather(*answers)

    absent, claimed, completed, found, replayed, discarded, completed_again = asyncio.run(main())
    assert absent is None
    assert claimed.record.token == claim.token
    assert completed
    assert found.record.response == b"response"
    assert replayed.record == found.record
    assert not discarded
    assert not completed_again


# --- waiting for nothing ------------------------------------------------------------------------


def test_replays_do_not_wait_for_writers(store, path):
    """While another process writes, what is known is answered, and nothing is written for it."""
    claim = claiming()
    store.perform(claim)
    store.perform(completing(claim))
    before = commits(path)
    with writing_elsewhere(path):
        assert store.perform(claiming(claim.record_id)).record.response == b"response"
        assert store.perform(Read(claim.record_id)).record.state is State.COMPLETED
        assert store.perform(Purge()) == Purged(0, 0, more=False)
        assert store.open()
    assert commits(path) == before


def test_claim_that_is_overtaken_finds_the_winner(store, path):
    """Between the look and the right to write, another process claims the record: its claim is the answer."""
    claim = claiming()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    other.execute(
        "INSERT INTO records (record_id, state, token, attempt, fingerprint, created_at_ms, claimed_at_ms,"
        " lease_until_ms, forget_at_ms) VALUES (?, 'in_progress', ?, 1, x'', 1, 1, 1, 1)",
        (claim.record_id, b"the other token!"),
    )

    async def main():
        answer = store.submit(claim)
        await has_taken(store)
        other.execute("COMMIT")
        return await answer

    assert asyncio.run(main()).record.token == b"the other token!"
    other.close()


# --- failing alone ------------------------------------------------------------------------------

NO_TOKEN: Any = object()
BAD: dict[str, Any] = {
    "constraint": ClaimIfAbsent(b"too short", bytes(16), b"f", 1, 1),
    "overflow": ClaimIfAbsent(bytes(32), bytes(16), b"f", 1 << 70, 1),
    "sum": ClaimIfAbsent(bytes(32), bytes(16), b"f", (1 << 63) - 1, 1),
    "type": ClaimIfAbsent(bytes(32), NO_TOKEN, b"f", 1, 1),
    "unknown": NO_TOKEN,
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_one_that_fails_fails_alone(store, path, bad):
    """A transition whose values the file does not take fails; all that shared its transaction are done."""
    claims = [claiming() for _ in range(MANY)]

    async def main():
        with writing_elsewhere(path):
            held_up = store.submit(claiming())
            await has_taken(store)
            submitted = [*claims[: MANY // 2], bad, *claims[MANY // 2 :]]
            answers = [store.submit(transition) for transition in submitted]
        await held_up
        return await asyncio.gather(*answers, return_exceptions=True)

    answers = asyncio.run(main())
    error = answers.pop(MANY // 2)
    assert isinstance(error, StoreError)
    assert not isinstance(error, StoreUnavailable)
    assert [answer.record.token for answer in answers] == [claim.token for claim in claims]
    assert store.perform(Read(bytes(32))) is None
    for claim in claims:
        assert store.perform(Read(claim.record_id)).record.token == claim.token


def test_failure_of_one_undoes_what_it_did_before(store):
    """Nothing of a failed batch is counted twice: a completion that was rolled back and done again took effect."""
    claim = claiming()
    store.perform(claim)

    async def main():
        return await asyncio.gather(
            store.submit(completing(claim)), store.submit(BAD["constraint"]), return_exceptions=True
        )

    completed, error = asyncio.run(main())
    assert completed is True
    assert isinstance(error, StoreError)


def test_busy_file_is_unavailable_and_then_available(path):
    """Another process that writes for too long makes the store unavailable, for all who wait, until it ends."""
    store = SqliteStore(path, busy_ms=50)
    store.open()
    claims = [claiming() for _ in range(MANY)]

    async def main():
        return await asyncio.gather(*(store.submit(claim) for claim in claims), return_exceptions=True)

    with writing_elsewhere(path):
        errors = asyncio.run(main())
    assert {type(error) for error in errors} == {StoreUnavailable}
    assert len(set(map(id, errors))) == MANY
    assert "end its transaction" in str(errors[0])
    assert [found.record.token for found in asyncio.run(main())] == [claim.token for claim in claims]
    store.close()


def test_connection_that_failed_is_dropped(path):
    """After a failure of the file nothing of the connection is used again: it might be in the middle of something."""
    session = Session(SqliteFile(path, force=False, busy_ms=10, migrations=migrations()), ManualClock())
    (found,) = session.run([claiming()])
    assert found.record.attempt == 1
    with writing_elsewhere(path):
        (error,) = session.run([claiming()])
    assert isinstance(error, StoreUnavailable)
    assert session._connection is None
    (found,) = session.run([claiming()])
    assert found.record.attempt == 1
    session.close()


@pytest.mark.parametrize("step", ["run", "tidy"])
def test_nobody_waits_for_a_writer_that_stumbled(store, path, monkeypatch, step):
    """Whatever goes wrong around a batch: who waits hears of it, and the next one is served."""

    def stumble(*_arguments):
        monkeypatch.undo()
        raise RuntimeError("unexpected")

    async def main():
        async with asyncio.timeout(10):
            return await asyncio.gather(store.submit(claiming()), return_exceptions=True)

    monkeypatch.setattr(Session, step, stumble)
    (first,) = asyncio.run(main())
    if step == "run":
        assert isinstance(first, StoreUnavailable)
        assert "RuntimeError" in str(first)
    else:
        assert first.record.attempt == 1
    (second,) = asyncio.run(main())
    assert second.record.attempt == 1


def test_nobody_waits_for_a_writer_that_cannot_be_started(path, monkeypatch):
    """The system has no thread to give: who waits hears of it, and the next one finds a writer."""
    store = SqliteStore(path)
    store.open()
    store.close()
    store._closed = False

    def refuse(_thread):
        monkeypatch.undo()
        raise RuntimeError("can't start new thread")

    async def main():
        async with asyncio.timeout(10):
            return await asyncio.gather(*(store.submit(claiming()) for _ in "12"), return_exceptions=True)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert [type(error) for error in asyncio.run(main())] == [StoreUnavailable] * 2
    assert [found.record.attempt for found in asyncio.run(main())] == [1, 1]
    store.close()


def test_errors_reveal_nothing(store):
    """An error repeats neither keys nor responses."""
    claim = claiming()
    store.perform(claim)
    with pytest.raises(StoreError) as refused:
        store.perform(CompleteIfHeld(Claim(claim.record_id, claim.token, 1), b"canary" * 9, 1 << 70, 0))
    said = repr(refused.value) + repr(refused.value.__cause__)
    assert "canary" not in said
    assert claim.record_id.hex() not in said
    assert repr(claim.record_id) not in said


# --- coming and going ---------------------------------------------------------------------------


def test_waiters_that_left_are_left_alone(store, path):
    """Of those that share a batch, some give up waiting: the others are answered, and all of it is done."""
    claims = [claiming() for _ in range(MANY)]

    async def wait(claim):
        return await store.submit(claim)

    async def main():
        with writing_elsewhere(path):
            waiters = [asyncio.create_task(wait(claim)) for claim in claims]
            await asyncio.sleep(0)
            for waiter in waiters[::2]:
                waiter.cancel()
            await asyncio.sleep(0)
        return await asyncio.gather(*waiters, return_exceptions=True)

    answers = asyncio.run(main())
    assert {type(answer) for answer in answers[::2]} == {asyncio.CancelledError}
    assert [found.record.token for found in answers[1::2]] == [claim.token for claim in claims[1::2]]
    for claim in claims:
        assert store.perform(Read(claim.record_id)).record.token == claim.token


def test_loop_that_closed_is_left_alone(store, path):
    """A loop that closes without waiting loses its answers and nothing else."""
    claim = claiming()

    async def main():
        store.submit(claim)

    with writing_elsewhere(path):
        asyncio.run(main())
    assert store.perform(Read(claim.record_id)).record.token == claim.token


def test_loop_that_closed_in_the_same_turn_is_left_alone(store):
    """So does one that is closed before the turn is over."""
    claim = claiming()

    async def main():
        store.submit(claim)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    loop.close()
    assert store.perform(Read(claim.record_id)).record.token == claim.token


def test_close_finishes_what_was_handed_over(path):
    """Closing waits for all that was submitted before it."""
    store = SqliteStore(path)
    store.open()
    claims = [claiming() for _ in range(3 * BATCH_MAX)]

    async def main():
        for claim in claims:
            store.submit(claim)
        store.close()

    asyncio.run(main())
    store.open()
    assert all(store.perform(Read(claim.record_id)) for claim in claims)
    store.close()


def test_closing_races_with_using(path):
    """Whoever is handed over before the store closes is answered; whoever comes later is told."""
    store = SqliteStore(path)
    store.open()
    outcomes = []

    def use():
        try:
            while True:
                outcomes.append(store.perform(claiming()))
        except StoreUnavailable as error:
            outcomes.append(error)

    users = [threading.Thread(target=use) for _ in range(8)]
    for user in users:
        user.start()
    while len(outcomes) < MANY:
        assert any(user.is_alive() for user in users)
    store.close()
    for user in users:
        user.join(10)
    assert sum(isinstance(outcome, StoreUnavailable) for outcome in outcomes) == len(users)
    store.open()
    for found in outcomes:
        if not isinstance(found, StoreUnavailable):
            assert found.record.state is State.IN_PROGRESS
    store.close()


def writers():
    return [thread for thread in threading.enumerate() if thread.name.endswith(".db")]


def test_closed_store_leaves_no_thread(path):
    """Closing ends the thread; opening again starts one."""
    store = SqliteStore(path)
    for _ in range(3):
        store.open()
        assert len(writers()) == 1
        store.close()
        assert not writers()


def test_forgotten_store_leaves_no_thread(path):
    """A store that nobody refers to any more ends its thread, closed or not."""
    store = SqliteStore(path)
    store.open()
    (writer,) = writers()
    del store
    gc.collect()
    writer.join(10)
    assert not writer.is_alive()


def test_transaction_has_one_time(path):
    """All that shares a transaction happens at the time that the transaction has stored."""
    ticking = count(1_000)
    session = Session(SqliteFile(path, force=False, busy_ms=10, migrations=migrations()), lambda: next(ticking))
    claims = [claiming() for _ in range(3)]
    found = session.run([*claims, *map(completing, claims), *(Read(claim.record_id) for claim in claims)])
    session.close()
    times = {one.now_ms for one in found if isinstance(one, Found)} | {one.record.settled_at_ms for one in found[-3:]}
    assert len(times) == 1
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT clock_ms FROM meta").fetchall() == [tuple(times)]
    connection.close()


def test_time_of_a_transaction_is_kept(path):
    """Two stores on one file whose hosts' clocks differ: no transaction is dated before one that was committed."""
    early, late = ManualClock(1_000), ManualClock(9_000)
    stores = [SqliteStore(path, clock=clock) for clock in (late, early)]
    found = [store.perform(claiming()) for store in stores]
    assert [one.now_ms for one in found] == [9_000, 9_000]
    assert [one.record.created_at_ms for one in found] == [9_000, 9_000]
    early.advance(8_001)
    assert stores[1].perform(claiming()).now_ms == 9_001
    assert stores[0].perform(claiming()).now_ms == 9_001
    for store in stores:
        store.close()
