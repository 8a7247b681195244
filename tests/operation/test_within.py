"""`complete_within`: every kind of connection, every end of its transaction, and a retry afterwards."""

from __future__ import annotations

import json
import sqlite3
import uuid
from contextlib import closing
from typing import Any

import pytest

from retrysafe import ClaimLost, Policy
from retrysafe.observe import Handled, LogObserver
from tests.doors.connections import Connection, ask, protected
from tests.drive.harness import ManualClock, in_loop
from tests.operation.kinds import KINDS, PLACES
from tests.operation.selling import OutOfStock, Shop
from tests.stores import postgres_server

TRANSACTIONAL = Policy(transactional=True)


class Counter:
    """A shop behind its door, at which the same order is placed again and again."""

    def __init__(self, folder, kind, policy=TRANSACTIONAL, **options):
        self.name = uuid.uuid4().hex
        self.place = PLACES[KINDS[kind][0]](folder, **options)
        self.shop = Shop(self.place, kind)
        self.door = protected(self.shop, self.place.store, policy=policy)

    async def order(self, ending="commit"):
        """The answer, and what the application raised."""
        self.shop.ending = ending
        connection = Connection(key=self.name, body=json.dumps({"name": self.name}).encode())
        answer = await connection.run(self.door)
        return answer, connection.error

    @property
    def orders(self):
        return self.place.orders(self.name)

    def sold(self, answer, *, replayed):
        expected = (201, json.dumps({"sold": self.name}, separators=(",", ":")).encode(), replayed)
        assert (answer.status, answer.body, answer.replayed) == expected
        assert answer.values("content-type") == ["application/json"]
        assert answer.values("content-length") == [str(len(answer.body))]

    async def close(self):
        await self.door.close()
        self.place.store.close()


@pytest.mark.parametrize("kind", KINDS)
@in_loop
async def test_every_end_of_a_transaction(kind, tmp_path):
    """Committed: what was recorded is the answer, and is replayed. Rolled back: nothing happened, and a retry runs."""
    counter = Counter(tmp_path, kind)
    answer, error = await counter.order("raise before the commit")
    assert (answer.status, answer.code, counter.orders) == (500, "handler-failed", 0)
    assert isinstance(error, OutOfStock)
    assert json.loads(answer.body)["retryable"] is True
    answer, error = await counter.order("roll back")
    assert (answer.status, answer.code, error, counter.orders) == (500, "rolled-back", None, 0)
    answer, error = await counter.order("roll back and say so")
    assert (answer.status, answer.body, error, counter.orders) == (409, b"not recorded", None, 0)
    answer, error = await counter.order("raise after the commit")
    counter.sold(answer, replayed=False)
    assert isinstance(error, OutOfStock)
    assert (counter.orders, counter.shop.calls) == (1, 4)
    answer, error = await counter.order()
    counter.sold(answer, replayed=True)
    assert (counter.orders, counter.shop.calls) == (1, 4)
    await counter.close()


@pytest.mark.parametrize("response_bytes_max", [1, 100])
@in_loop
async def test_until_when_it_is_replayed(response_bytes_max, tmp_path):
    """It is said of what was recorded in a transaction too, and only if retries get it."""
    policy = Policy(transactional=True, expires_header=True, response_bytes_max=response_bytes_max)
    counter = Counter(tmp_path, "sqlite-driver", policy)
    (first, _), (again, _) = await counter.order(), await counter.order()
    assert (bool(first.values("idempotency-expires")), again.replayed) == (response_bytes_max > 1,) * 2
    assert first.values("idempotency-expires") == again.values("idempotency-expires")
    await counter.close()


@pytest.mark.parametrize("kind", KINDS)
@in_loop
async def test_a_commit(kind, tmp_path):
    """Whatever the handler answers after its commit, the client gets what was recorded; also under a plain policy."""
    counter = Counter(tmp_path, kind, Policy())
    for replayed in (False, True):
        answer, error = await counter.order()
        counter.sold(answer, replayed=replayed)
        assert (error, counter.orders, counter.shop.calls) == (None, 1, 1)
    await counter.close()


@pytest.mark.parametrize("kind", KINDS)
@in_loop
async def test_a_claim_that_was_lost(kind, tmp_path):
    """Another attempt took it over meanwhile: it raises, the work is rolled back, and the other's claim stands."""
    counter = Counter(tmp_path, kind, clock=ManualClock())
    answer, error = await counter.order("lose the claim")
    assert isinstance(error, ClaimLost)
    assert (answer.status, answer.code, counter.orders) == (409, "outcome-unknown", 0)
    answer, _ = await counter.order()
    assert (answer.status, answer.code, counter.orders) == (409, "in-progress", 0)
    await counter.close()


@in_loop
async def test_what_is_kept_is_what_the_policy_says(tmp_path):
    """Encrypted, or too large to keep, or not to be kept: the first answer is whole, and the record as by the door."""
    answers = {}
    kept: dict[str, dict[str, Any]] = {
        "encrypted": {"encryption_keys": b"k" * 32},
        "large": {"policy": Policy(response_bytes_max=5)},
        "not-kept": {"policy": Policy(store_body="none")},
    }
    for path, options in kept.items():
        place = PLACES["sqlite"](tmp_path)
        shop = Shop(place, "sqlite-driver")
        door = protected(shop, place.store, **options)
        first, retry = [await ask(door, key=path, body=json.dumps({"name": path}).encode()) for _ in range(2)]
        assert (first.status, first.body) == (201, b'{"sold":"%s"}' % path.encode())
        assert (shop.calls, place.orders(path)) == (1, 1)
        answers[path] = retry
        await door.close()
        place.store.close()
    assert answers["encrypted"].replayed
    assert answers["large"].code == answers["not-kept"].code == "replay-unavailable"
    with closing(sqlite3.connect(tmp_path / "shop.db")) as database:
        stored = [response for (response,) in database.execute("SELECT response FROM records")]
    assert len(stored) == 3
    assert not any(b"sold" in response for response in stored)


def test_an_unmindful_route_is_told_once(caplog):
    """For each route; and a transaction that was rolled back, or open still, each time."""
    observer = LogObserver()
    for route in ("POST /a", "POST /b", "POST /a"):
        observer.notice(Handled("recorded-outside", route))
    assert [record.args for record in caplog.records] == [("POST /a",), ("POST /b",)]
    for ending in ("rolled-back", "rolled-back", "commit-pending"):
        observer.notice(Handled(ending, "POST /c"))
    assert [record.args for record in caplog.records[2:]] == [("POST /c",)] * 3


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.startswith("postgresql-")])
@in_loop
async def test_an_error_of_the_database_is_the_handlers_to_see(kind, tmp_path):
    """A conflict with others, and nothing of the answer in its words: it is rolled back, and a retry runs."""
    counter = Counter(tmp_path, kind)
    with postgres_server.server().connect() as owner:
        schema = counter.place.words["schema"]
        owner.execute("CREATE OR REPLACE FUNCTION conflict() RETURNS trigger LANGUAGE plpgsql AS"
                      " $$ BEGIN RAISE 'a conflict' USING ERRCODE = '40001'; END $$")  # fmt: skip
        owner.execute(f"CREATE TRIGGER conflict BEFORE UPDATE ON {schema}.records FOR EACH ROW"
                      " WHEN (NEW.state = 'completed') EXECUTE FUNCTION conflict()")  # fmt: skip
        answer, error = await counter.order()
        owner.execute(f"DROP TRIGGER conflict ON {schema}.records")
    assert "a conflict" in str(error)
    assert "sold" not in str(error)
    assert (answer.code, counter.orders) == ("handler-failed", 0)
    counter.sold((await counter.order())[0], replayed=False)
    assert counter.orders == 1
    await counter.close()
