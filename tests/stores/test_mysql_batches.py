"""What the MySQL store writes together: how many round trips it takes, who fails alone, and who waits for whom."""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import suppress
from dataclasses import replace

import pymysql
import pytest

from retrysafe.errors import StoreError, StoreUnavailable
from retrysafe.model import Claim, Found, State
from retrysafe.protocol.states import GUARDS, Event
from retrysafe.protocol.transitions import (
    AnswerCount,
    ClaimIfAbsent,
    CompleteIfHeld,
    CountAnswers,
    Purge,
    Purged,
    Read,
    ReadDetails,
    ReleaseIfHeld,
    RenewIfHeld,
    ReplaceResponseIfSame,
    TakeStats,
)
from retrysafe.stores.memory import MemoryStore
from retrysafe.stores.mysql import MysqlStore
from retrysafe.testing import ManualClock
from retrysafe.testing.subject import KEEP_MS, LEASE_MS, WAIT_MS, transition_of
from tests.stores.cable import Cable
from tests.stores.mariadb import ManualMysqlStore, address_of, server

MANY = 64
INSERTED = (
    "record_id, state, token, attempt, fingerprint, created_at_ms, claimed_at_ms, lease_until_ms, settled_at_ms,"
    " expires_at_ms, forget_at_ms, route"
)


@pytest.fixture
def address(tmp_path):
    return address_of(tmp_path)


@pytest.fixture
def store(address):
    store = MysqlStore(address, lock_wait_s=1)
    store.open()
    yield store
    store.close()


@pytest.fixture
def cable(address):
    cable = Cable(address.port)
    yield cable
    cable.close()


@pytest.fixture
def behind(cable, address):
    """A store behind a cable, with all its connections made."""
    store = MysqlStore(replace(address, port=cable.port), lock_wait_s=1, reply_s=2.0)
    store.open()
    yield store
    store.close()


def claiming(record_id=None):
    return ClaimIfAbsent(record_id or secrets.token_bytes(32), secrets.token_bytes(16), b"f", LEASE_MS, KEEP_MS)


def claim_of(claiming):
    return Claim(claiming.record_id, claiming.token, 1)


def completing(claiming, response=b"response"):
    return CompleteIfHeld(claim_of(claiming), response, 600_000, 600_000)


async def together(store, transitions):
    """All at once, with the outcome of each; errors are values."""
    return await asyncio.gather(*map(store.submit, transitions), return_exceptions=True)


async def until(condition):
    """Let the loop go on until it is so, with a bound."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what it asks about sets no event here
            await asyncio.sleep(0.005)


def state(store, claiming):
    found = store.perform(Read(claiming.record_id))
    return found and found.record.state


def counted(names):
    """The server's own counters."""
    rows = server().ask(f"SHOW GLOBAL STATUS WHERE Variable_name IN ({', '.join(map(repr, names))})")
    return {name: int(count) for name, count in rows}


def end_connections(address):
    """The server ends all connections to a database, which are idle."""
    idle = "SELECT CONCAT('KILL ', id) FROM information_schema.processlist WHERE db = %s AND command = 'Sleep'"
    other = server().connect()
    cursor = other.cursor()
    give_up_s = time.monotonic() + 10
    while cursor.execute(idle, [address.database]):
        assert time.monotonic() < give_up_s
        for (text,) in cursor.fetchall():
            with suppress(pymysql.OperationalError):  # it has ended by now
                cursor.execute(text)
    other.close()


def nobody_is_connected(store):
    """The store knows that its connections have ended."""
    lanes = [*store._lanes._threads, *(lane for pair in store._lanes._loops.values() for lane in pair)]
    return not any(lane._session.connected for lane in lanes)


# --- round trips --------------------------------------------------------------------------------


def test_one_round_trip_to_claim_to_replay_and_to_settle(behind, cable):
    """A claim, a replay, a renewal and a settlement go out as one question each."""
    first = claiming()
    behind.perform(claiming())
    behind.perform(completing(claiming()))
    for transition in (first, RenewIfHeld(claim_of(first), 1, 1), completing(first), claiming(first.record_id)):
        before = cable.queries
        assert behind.perform(transition)
        assert cable.queries == before + 1


def test_many_are_one_round_trip(behind, cable):
    """However many arrive together, their claims go out as one question, and so do their settlements."""
    claims = [claiming() for _ in range(MANY)]

    async def main():
        await together(behind, [claiming()])
        await together(behind, [completing(claiming())])
        before = cable.queries
        found = await together(behind, claims)
        assert [one.record.token for one in found] == [claim.token for claim in claims]
        assert cable.queries == before + 1
        assert await together(behind, map(completing, claims)) == [True] * MANY
        assert cable.queries == before + 2

    asyncio.run(main())


def test_many_are_one_statement_and_one_commit(store):
    """By the server's own count: one insert and one read for many claims, one transaction for many settlements."""
    claims = [claiming() for _ in range(MANY)]
    names = ("Com_insert_select", "Com_select", "Com_update_multi", "Com_begin", "Com_commit")

    async def main():
        await together(store, [claiming()])
        await together(store, [completing(claiming())])
        counts = [counted(names)]
        await together(store, claims)
        counts.append(counted(names))
        await together(store, map(completing, claims))
        counts.append(counted(names))
        return [{name: after[name] - before[name] for name in names} for before, after in zip(counts, counts[1:])]  # noqa: B905, RUF007 - two of three

    claimed, settled = asyncio.run(main())
    assert claimed == {"Com_insert_select": 1, "Com_select": 1, "Com_update_multi": 0, "Com_begin": 0, "Com_commit": 0}
    assert settled == {"Com_insert_select": 0, "Com_select": 1, "Com_update_multi": 1, "Com_begin": 1, "Com_commit": 1}


# --- many at once, each in its own state --------------------------------------------------------

BY_TOKEN = [event for event in Event if event not in (Event.CLAIM, Event.EXPIRE)]


@pytest.mark.parametrize("event", BY_TOKEN)
def test_a_batch_agrees_with_memory(event, tmp_path):
    """The same event on many records, in every state, by owners and by strangers: each as in memory."""
    clock = ManualClock()
    memory, mysql = MemoryStore(clock), ManualMysqlStore(clock, tmp_path)
    for store in (memory, mysql):
        store.open()
    claims = [(claiming(), before, stranger) for before in (*State, None) for stranger in (False, True)]
    paths = {
        State.COMPLETED: Event.COMPLETE,
        State.EXPIRED: Event.COMPLETE,
        State.RETRYABLE: Event.RELEASE,
        State.UNKNOWN: Event.GIVE_UP,
    }
    for expired in (True, False):
        for claim, before, _ in claims:
            if before is not None and (before is State.EXPIRED) is expired:
                moves = [claim] + ([transition_of(paths[before], claim_of(claim), None)] if before in paths else [])
                for move in moves:
                    assert [bool(store.perform(move)) for store in (memory, mysql)] == [True, True]
        if expired:
            clock.advance(WAIT_MS[GUARDS[Event.EXPIRE]])
            assert memory.perform(Purge()) == mysql.perform(Purge()) == Purged(2, 0, more=False)
    clock.advance(WAIT_MS[GUARDS[event]])
    tries = [
        transition_of(
            event, Claim(claim.record_id, secrets.token_bytes(16), 1) if stranger else claim_of(claim), before
        )
        for claim, before, stranger in claims
    ]
    answers = asyncio.run(together(mysql, tries))
    assert answers == [memory.perform(attempt) for attempt in tries]
    assert True in answers
    reads = [Read(claim.record_id) for claim, _, _ in claims]
    assert asyncio.run(together(mysql, reads)) == [memory.perform(read) for read in reads]
    looks = [ReadDetails(claim.record_id) for claim, _, _ in claims]
    assert asyncio.run(together(mysql, looks)) == [memory.perform(look) for look in looks]
    mysql.close()


def test_responses_of_every_size_share_a_batch(store):
    """Nothing, one byte, the end of a block, a megabyte: each is kept to the byte, whatever it is written with."""
    sizes = [5_000, 19_000, 20_000, 21_000, 32_767, 65_535, 65_536, 66_000, 1 << 20]
    responses = [b"", b"\0", b"'\\\x00\n%s;" * 9, *map(secrets.token_bytes, sizes)]
    claims = [claiming() for _ in responses]

    async def main():
        await together(store, claims)
        pairs = zip(claims, responses, strict=True)
        assert await together(store, [completing(claim, response) for claim, response in pairs]) == [True] * 12
        found = await together(store, [Read(claim.record_id) for claim in claims])
        assert [one.record.response for one in found] == responses

    asyncio.run(main())


def test_empty_responses_share_a_batch(store):
    """Many that say nothing, and nothing else."""
    claims = [claiming() for _ in range(5)]

    async def main():
        await together(store, claims)
        assert await together(store, [completing(claim, b"") for claim in claims]) == [True] * 5
        return await together(store, [Read(claim.record_id) for claim in claims])

    assert [one.record.response for one in asyncio.run(main())] == [b""] * 5


def test_one_that_is_too_large_fails_alone(store):
    """More than the server takes at once is refused with advice, and what arrived with it is done."""
    claims = [claiming() for _ in range(3)]
    ((limit,),) = server().ask("SELECT @@max_allowed_packet")

    async def main():
        await together(store, claims)
        sizes = [1, limit // 2, 1]
        settled = [completing(claim, bytes(size)) for claim, size in zip(claims, sizes, strict=True)]
        return await together(store, settled)

    one, two, three = asyncio.run(main())
    assert (one, three) == (True, True)
    assert isinstance(two, StoreError)
    assert "max_allowed_packet" in str(two)
    assert state(store, claims[1]) is State.IN_PROGRESS


def test_one_that_the_server_refuses_fails_alone(store):
    """A value that does not fit fails by itself, says nothing of its content, and the rest of its batch is done."""
    good, bad = claiming(), ClaimIfAbsent(secrets.token_bytes(32), secrets.token_bytes(16), b"secret" * 99, 1, 1)
    found, failure = asyncio.run(together(store, [good, bad]))
    assert isinstance(found, Found)
    assert isinstance(failure, StoreError)
    assert not isinstance(failure, StoreUnavailable)
    assert b"secret".hex() not in str(failure)
    assert "secret" not in str(failure)
    assert state(store, good) is State.IN_PROGRESS


def test_renewing_twice_in_one_millisecond_counts(tmp_path):
    """A statement that changes nothing because all is as it says has matched all the same."""
    store = ManualMysqlStore(ManualClock(), tmp_path)
    store.open()
    claims = [claiming(), claiming()]
    for claim in claims:
        store.perform(claim)
    renewals = [RenewIfHeld(claim_of(claim), LEASE_MS, KEEP_MS) for claim in claims]
    assert [store.perform(renewals[0]) for _ in range(3)] == [True] * 3
    assert [asyncio.run(together(store, renewals)) for _ in range(3)] == [[True, True]] * 3
    store.close()


# --- rows that others hold ----------------------------------------------------------------------


@pytest.fixture
def holding(address):
    """Holds the row of a record in a transaction of somebody else."""
    others = []

    def hold(record_id):
        other = server().connect(address.database, autocommit=False)
        others.append(other)
        other.cursor().execute("SELECT * FROM retrysafe_records WHERE record_id = %s FOR UPDATE", [record_id])
        return other

    yield hold
    for other in others:
        other.close()


def test_a_row_that_is_held_makes_its_settlement_wait_and_no_more(store, holding):
    """A settlement waits for the row, then says that nothing was applied; it is done when the row is free."""
    claim = claiming()
    store.perform(claim)
    other = holding(claim.record_id)
    with pytest.raises(StoreUnavailable, match=r"1205.*nothing was applied"):
        store.perform(completing(claim))
    other.rollback()
    assert state(store, claim) is State.IN_PROGRESS
    assert store.perform(completing(claim))


def test_a_row_that_is_held_fails_alone(store, holding):
    """Of a batch in which one row is held, the others are done."""
    claims = [claiming() for _ in range(4)]

    async def main():
        await together(store, claims)
        holding(claims[2].record_id)
        return await together(store, map(completing, claims))

    one, two, held, four = asyncio.run(main())
    states = [str(state(store, claim)) for claim in claims]
    assert states == [State.COMPLETED, State.COMPLETED, State.IN_PROGRESS, State.COMPLETED]
    assert (one, two, four) == (True, True, True)
    assert isinstance(held, StoreUnavailable)


def test_a_row_that_is_held_keeps_no_claim_waiting(store, holding):
    """Who claims a record that somebody holds reads it at once, and so does who claims anything else."""
    claim = claiming()
    store.perform(claim)
    holding(claim.record_id)
    waits = counted(["Innodb_row_lock_waits"])

    async def main():
        return await together(store, [claiming(claim.record_id), claiming()])

    found, _ = asyncio.run(main())
    assert found.record.token == claim.token
    assert counted(["Innodb_row_lock_waits"]) == waits


def test_a_claim_waits_for_a_claim_that_is_not_committed(store, address):
    """The record of a claim that may still be undone is neither there nor absent: who claims it waits for that."""
    claim = claiming()
    other = server().connect(address.database, autocommit=False)
    insert = (
        f"INSERT INTO retrysafe_records ({INSERTED}) VALUES (%s, 'in_progress', %s, 1, '', 0, 0, 0, NULL, NULL, 0, '')"
    )
    other.cursor().execute(insert, [claim.record_id, bytes(16)])
    with pytest.raises(StoreUnavailable, match="1205"):
        store.perform(claim)
    other.commit()
    other.close()
    found = store.perform(claim)
    assert found.record.token == bytes(16)


def test_a_purge_leaves_out_what_is_held(tmp_path, holding):
    """A row that somebody holds is not waited for, and does not count as more to do."""
    clock = ManualClock()
    store = ManualMysqlStore(clock, tmp_path)
    store.open()
    claims = [claiming(), claiming()]
    for claim in claims:
        store.perform(claim)
        store.perform(ReleaseIfHeld(claim_of(claim), 0))
    other = holding(claims[0].record_id)
    assert store.perform(Purge()) == Purged(expired=0, forgotten=1, more=False)
    other.rollback()
    assert store.perform(Purge()) == Purged(expired=0, forgotten=1, more=False)
    store.close()


def test_a_deadlock_is_tried_again(store, holding, address):
    """A batch that the server ends because two wait for each other is done once the other is through."""
    claims = sorted((claiming() for _ in range(2)), key=lambda claim: claim.record_id)
    waiting = ["Innodb_row_lock_current_waits"]
    counts = counted(waiting)

    async def main():
        await together(store, claims)
        other = holding(claims[1].record_id)
        insert = f"INSERT INTO retrysafe_records ({INSERTED}) VALUES (%s, '', '', 1, '', 0, 0, 0, NULL, NULL, 0, '')"
        other.cursor().executemany(insert, [(secrets.token_bytes(32),) for _ in range(50)])
        settling = asyncio.ensure_future(together(store, map(completing, claims)))  # noqa: TID251 - held on to
        await until(lambda: counted(waiting) != counts)
        other.cursor().execute("SELECT * FROM retrysafe_records WHERE record_id = %s FOR UPDATE", [claims[0].record_id])
        other.rollback()
        return await settling

    before = counted(["Innodb_deadlocks"])
    assert asyncio.run(main()) == [True, True]
    assert counted(["Innodb_deadlocks"])["Innodb_deadlocks"] == before["Innodb_deadlocks"] + 1


# --- connections that break ---------------------------------------------------------------------


def test_a_lost_reply_leaves_what_was_written(behind, cable):
    """The answer is lost after the commit: unavailable, which may mean done; a second look finds that it was."""
    claim = claiming()
    behind.perform(claiming())
    behind.perform(completing(claiming()))
    cable.lose_reply()
    with pytest.raises(StoreUnavailable):
        behind.perform(claim)
    assert behind.perform(claim).record.token == claim.token
    cable.lose_reply()
    with pytest.raises(StoreUnavailable):
        behind.perform(completing(claim))
    assert state(behind, claim) is State.COMPLETED
    assert not behind.perform(completing(claim))


def test_a_lost_reply_leaves_a_whole_batch(behind, cable):
    """The same for many: all of them hear that it is in doubt, and all of them were written."""
    claims = [claiming() for _ in range(MANY)]

    async def main():
        await together(behind, claims)
        await together(behind, [completing(claiming())])
        cable.lose_reply()
        outcomes = await together(behind, map(completing, claims))
        assert {type(outcome) for outcome in outcomes} == {StoreUnavailable}
        return await together(behind, [Read(claim.record_id) for claim in claims])

    assert {found.record.state for found in asyncio.run(main())} == {State.COMPLETED}


@pytest.mark.parametrize("many", [1, MANY])
def test_a_lost_request_leaves_nothing(behind, cable, many):
    """The question is lost: unavailable, and nothing was written, neither one nor a part of many."""
    claims = [claiming() for _ in range(many)]

    async def main():
        await together(behind, claims)
        await together(behind, [completing(claiming())])
        cable.lose_request()
        outcomes = await together(behind, map(completing, claims))
        assert {type(outcome) for outcome in outcomes} == {StoreUnavailable}
        found = await together(behind, [Read(claim.record_id) for claim in claims])
        assert {one.record.state for one in found} == {State.IN_PROGRESS}
        return await together(behind, map(completing, claims))

    assert asyncio.run(main()) == [True] * many


def test_a_connection_that_ended_between_is_made_anew(store, address):
    """What the server ended while nothing was asked disturbs nobody."""
    claim = claiming()

    async def main():
        await together(store, [claim])
        end_connections(address)
        await until(lambda: nobody_is_connected(store))
        return await together(store, [claiming(claim.record_id)])

    (found,) = asyncio.run(main())
    assert found.record.token == claim.token
    store.perform(claim)
    end_connections(address)
    asyncio.run(until(lambda: nobody_is_connected(store)))
    assert store.perform(completing(claim))


# --- many records -------------------------------------------------------------------------------


@pytest.mark.parametrize("size_bytes", [10, 100_000])
def test_responses_are_exchanged_together(store, size_bytes):
    """In one batch, of any size: each whose bytes are as they were seen, down to the last, and no other."""
    claims = [claiming() for _ in range(8)]
    seen = {claim.record_id: secrets.token_bytes(size_bytes) for claim in claims}
    exchanges = [
        ReplaceResponseIfSame(
            claim.record_id,
            claim.token,
            seen[claim.record_id][:-1] + bytes([seen[claim.record_id][-1] ^ number % 2]),
            b"new" * size_bytes,
        )
        for number, claim in enumerate(claims)
    ]

    async def main():
        await together(store, claims)
        assert await together(store, [completing(claim, seen[claim.record_id]) for claim in claims]) == [True] * 8
        return await together(store, exchanges)

    assert asyncio.run(main()) == [True, False] * 4
    for number, claim in enumerate(claims):
        found = store.perform(Read(claim.record_id))
        assert found.record.response == (seen[claim.record_id] if number % 2 else b"new" * size_bytes)


@pytest.mark.parametrize("at_once", [1, 3, 1_000])
def test_portions_add_up(store, monkeypatch, at_once):
    """However many records are counted at once, each is counted once, and the oldest is the oldest of all."""
    monkeypatch.setattr("retrysafe.stores.mysql_sql.COUNTED_AT_ONCE", at_once)
    claims = [replace(claiming(), route=f"POST /{number % 2}") for number in range(7)]
    found = [store.perform(claim) for claim in claims]
    assert store.perform(completing(claims[0]))
    counts = {(count.route, count.state): count for count in store.perform(TakeStats()).records}
    assert {group: count.records for group, count in counts.items()} == {
        ("POST /0", State.COMPLETED): 1,
        ("POST /0", State.IN_PROGRESS): 3,
        ("POST /1", State.IN_PROGRESS): 3,
    }
    assert counts["POST /0", State.COMPLETED].response_bytes == len(b"response")
    assert counts["POST /1", State.IN_PROGRESS].oldest_claim_ms == found[1].now_ms


def test_routes_are_told_apart(store):
    """No collation makes two routes one: neither in case, nor in accents, nor in blanks at the end."""
    routes = ["POST /a", "POST /A", "POST /\xe4", "POST /\xc4", "POST /a ", ""]
    for route in routes:
        store.perform(replace(claiming(), route=route))
    assert store.perform(CountAnswers(tuple(AnswerCount(route, 1, 0) for route in routes)))
    stats = store.perform(TakeStats())
    assert [(count.route, count.records) for count in stats.records] == [(route, 1) for route in sorted(routes)]
    assert stats.answers == tuple(AnswerCount(route, 1, 0) for route in sorted(routes))
