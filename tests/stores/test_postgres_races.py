"""Two connections, step by step, and many processes at once: of what excludes each other, one happens."""

from __future__ import annotations

import secrets
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from retrysafe.model import Claim, State
from retrysafe.protocol.transitions import (
    ClaimIfAbsent,
    CompleteIfHeld,
    DiscardIfHeld,
    MarkUnknownIfLapsed,
    Read,
    RenewIfHeld,
    TakeOverIfLapsed,
)
from retrysafe.stores.lanes import finished
from retrysafe.stores.postgres import PostgresStore
from retrysafe.stores.postgres_psycopg import ThreadSession
from tests.stores.postgres_server import PATIENCE_S, server
from tests.stores.test_sqlite_processes import together

LEVELS = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]


@pytest.fixture
def store():
    store = PostgresStore(server().url(), schema=f"t{secrets.token_hex(8)}")
    store.open()
    yield store
    store.close()


@pytest.fixture
def pair(store):
    """Two connections, as two processes have them."""
    sessions = [ThreadSession(store._place) for _ in range(2)]
    for session in sessions:
        finished(session.connect())
    yield sessions
    for session in sessions:
        finished(session.close())


def claiming(record_id=None, lease_ms=600_000):
    return ClaimIfAbsent(record_id or secrets.token_bytes(32), secrets.token_bytes(16), b"f", lease_ms, 600_000)


def interleaved(pair, level, first, second, end):
    """The second waits for the first, which has done its work in a transaction that is still open. Then that ends.

    What each comes to; a serialization failure as None.
    """
    one, other = pair
    finished(one.script(f"BEGIN ISOLATION LEVEL {level}"))
    finished(other.script(f"BEGIN ISOLATION LEVEL {level}"))
    finished(other.fetch("SELECT 1 FROM pg_class LIMIT 1"))  # takes its snapshot, where the level has one
    (answer,) = finished(one.run([first]))
    with ThreadPoolExecutor(1) as pool, server().connect() as observer:
        waiting = pool.submit(lambda: finished(other.run([second])))
        process = other._connection.info.backend_pid
        give_up_s = time.monotonic() + PATIENCE_S
        while not observer.execute(
            "SELECT FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'", [process]
        ).fetchall():
            assert time.monotonic() < give_up_s
            assert not waiting.done()
        finished(one.script(end))
        try:
            (late,) = waiting.result(PATIENCE_S)
        except psycopg.errors.SerializationFailure:
            late = None
            finished(other.script("ROLLBACK"))
        else:
            finished(other.script("COMMIT"))
    return answer, late


@pytest.mark.parametrize("level", LEVELS)
def test_two_claims(store, pair, level):
    """Of two first claims one inserts; the other sees it, or is undone for it and sees it when it is repeated."""
    first = claiming()
    second = claiming(first.record_id)
    if level == "READ COMMITTED":
        answer, late = interleaved(pair, level, first, second, "COMMIT")
        assert late.record.token == first.token
    else:
        answer, late = interleaved(pair, level, first, second, "COMMIT")
        assert late is None
    assert answer.record.token == first.token
    assert store.perform(second).record.token == first.token


@pytest.mark.parametrize("level", LEVELS)
def test_a_claim_that_is_rolled_back_leaves_room(store, pair, level):
    """If the first comes to nothing, the second is the first."""
    first = claiming()
    second = claiming(first.record_id)
    _, late = interleaved(pair, level, first, second, "ROLLBACK")
    assert late.record.token == second.token
    assert store.perform(first).record.token == second.token


MOVES = {
    "take over": lambda claim: TakeOverIfLapsed(claim.record_id, claim.token, secrets.token_bytes(16), 1, 1),
    "complete": lambda claim: CompleteIfHeld(Claim(claim.record_id, claim.token, 1), b"response", 600_000, 600_000),
    "discard": lambda claim: DiscardIfHeld(Claim(claim.record_id, claim.token, 1)),
    "abandon": lambda claim: MarkUnknownIfLapsed(claim.record_id, claim.token, 600_000),
}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
@pytest.mark.parametrize(
    "moves",
    [
        ("take over", "complete"),
        ("complete", "take over"),
        ("take over", "take over"),
        ("complete", "abandon"),
        ("complete", "complete"),
        ("discard", "take over"),
    ],
)
def test_two_that_exclude_each_other(store, pair, level, moves, end):
    """The second finds, after the wait, that the record is no longer what it was; unless the first came to nothing."""
    claim = claiming(lease_ms=0)
    first, second = (MOVES[move](claim) for move in moves)
    store.perform(claim)
    answer, late = interleaved(pair, level, first, second, end)
    assert answer is True
    if end == "ROLLBACK":
        assert late is True
    else:
        assert late is (False if level == "READ COMMITTED" else None)
        assert store.perform(second) is False


def test_a_renewal_that_waits_is_judged_by_what_it_finds(store, pair):
    """A take-over that waits for a renewal finds, when the renewal is there, that the lease has not lapsed."""
    claim = claiming(lease_ms=0)
    store.perform(claim)
    renewal = RenewIfHeld(Claim(claim.record_id, claim.token, 1), 600_000, 600_000)
    assert interleaved(pair, "READ COMMITTED", renewal, MOVES["take over"](claim), "COMMIT") == (True, False)
    assert store.perform(Read(claim.record_id)).record.state is State.IN_PROGRESS


@pytest.mark.parametrize("options", ["", "&portable=true"])
def test_one_process_wins_each_record(store, options):
    """Four processes claim the same 300 records, all at once: each is won by one of them, exactly."""
    schema = store._place.statements.schema.strip('"')
    (said,) = together(4, "race", f"{server().url()}?schema={schema}{options}", 300)
    assert sorted(int(number) for numbers in said for number in numbers) == list(range(300))
