"""`complete_within`: every kind of connection, every end of its transaction, and a retry afterwards."""

from __future__ import annotations

import json
import uuid

import pytest

from retrysafe import ClaimLost, Policy
from tests.doors.connections import Connection, protected
from tests.drive.harness import ManualClock, in_loop
from tests.operation.kinds import KINDS, PLACES
from tests.operation.selling import OutOfStock, Shop

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
