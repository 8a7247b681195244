"""Recovery through the doors of frameworks: a stored request finds the handler that is marked, by the router."""

from __future__ import annotations

import pytest

from retrysafe.operate.recover import started
from retrysafe.operation.recovery import Fared
from retrysafe.recovery import Identity
from retrysafe.stores.memory import MemoryStore
from tests.doors.connections import ask
from tests.doors.frameworks import SHOPS, Effects
from tests.drive.harness import ManualClock, in_loop
from tests.operation.abandoned import KEYS, LEASE_MS, RERUN, SECRET, leave

CHARGE, GOOD = "POST /v1/charges/{number}", b'{"cents": 500}'


@pytest.mark.parametrize("framework", SHOPS)
@in_loop
async def test_an_abandoned_request_finds_its_handler(framework):
    """It runs once, and the client's retry gets its answer; of a route that is gone nothing is run."""
    clock, effects = ManualClock(), Effects()
    store = MemoryStore(clock)
    store.open(SECRET)
    leave(store, "/v1/charges/7", route=CHARGE, content=GOOD)
    leave(store, "/v1/gone/7", route="POST /v1/gone/{number}", content=GOOD, key="k-2")
    clock.now_ms += LEASE_MS + 1_000
    app = SHOPS[framework](
        effects, store=store, policy=RERUN, secret=SECRET, encryption_keys=KEYS,
        reauthenticate=lambda account: Identity(headers={"X-Account": account}),
    )  # fmt: skip
    async with started(app, framework) as (door,):
        report = await door.recover(lambda _: None)
        counts = {fared: count for fared, count in report.counts.items() if count}
        assert counts == {Fared.DRIVEN: 1, Fared.NOT_HERE: 1}
        assert effects == ["charge 7"]
        retry = await ask(app, "POST /v1/charges/7?q=%31", body=GOOD)
        assert (retry.status, retry.replayed, effects) == (201, True, ["charge 7"])
