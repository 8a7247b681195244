"""`status_path`: clients ask at the door what became of a key."""

from __future__ import annotations

import asyncio
import json

import pytest

from retrysafe import ConfigurationError, Policy
from retrysafe.errors import StoreUnavailable
from retrysafe.stores.memory import MemoryStore
from retrysafe.testing import ManualClock
from tests.doors.connections import ask, protected
from tests.doors.handlers import Shop, piece, start
from tests.drive.harness import eventually, in_loop

PATH = "/idempotency/requests"
GET = f"GET {PATH}"


@in_loop
async def test_before_during_and_after():
    """Unknown, in flight, done: as it goes."""
    shop = Shop(headers=[(b"location", b"/orders/1")])
    door = protected(shop, status_path=PATH)
    assert (await ask(door, GET)).code == "key-unknown"
    shop.gate.clear()
    running = asyncio.create_task(ask(door))
    await shop.entered.wait()
    in_flight = await ask(door, GET)
    assert (json.loads(in_flight.body)["state"], in_flight.values("retry-after")) == ("in_progress", ["1"])
    shop.gate.set()
    await running
    done = await ask(door, GET)
    assert (done.status, done.values("cache-control")) == (200, ["no-store"])
    said = json.loads(done.body)
    assert (said["state"], said["original_status"], said["resource"]) == ("completed", 201, "/orders/1")
    assert shop.effects == 1


@in_loop
async def test_another_account_learns_nothing():
    """Its 404 is the same, to the byte, as for a key that nobody ever sent; but for the number of the occurrence."""
    door = protected(Shop(), status_path=PATH)
    await ask(door, account="alice")
    answers = [await ask(door, GET, account="bob"), await ask(door, GET, account="alice", key="never-sent")]
    for answer in answers:
        assert (answer.status, answer.code) == (404, "key-unknown")
    bodies = [{**json.loads(answer.body), "instance": ""} for answer in answers]
    assert bodies[0] == bodies[1]
    assert answers[0].headers == answers[1].headers


@in_loop
async def test_asking_changes_nothing():
    """No record is made, none lives longer, and none is marked, whatever state it is in (R100)."""
    clock, shop = ManualClock(), Shop()
    store = MemoryStore(clock)
    door = protected(shop, store, status_path=PATH, policy=Policy(lease="1s", lifetime="1h"))
    await ask(door, GET, key="never-sent")
    assert store._records == {}
    await ask(door, key="done")
    store_before = dict(store._records)
    for passed_ms in (0, 2_000, 3_600_000, 86_400_000):
        clock.advance(passed_ms)
        await ask(door, GET, key="done")
        assert store._records == store_before
    assert json.loads((await ask(door, GET, key="done")).body)["state"] == "expired"


@in_loop
async def test_the_path_is_the_doors():
    """GET and HEAD are answered, other methods refused; the application sees none of it, and everything else."""
    seen = []

    async def application(connection, receive, send):
        seen.append((connection["method"], connection["path"]))
        await send(start(200))
        await send(piece(b"application"))

    door = protected(application, status_path=PATH)
    assert (await ask(door, GET)).status == (await ask(door, f"HEAD {PATH}")).status == 404
    for method in ("POST", "DELETE", "PUT"):
        answer = await ask(door, f"{method} {PATH}")
        assert (answer.status, answer.values("allow")) == (405, ["GET, HEAD"])
    assert seen == []
    for path in (f"{PATH}/", "/idempotency", "/"):
        assert (await ask(door, f"GET {path}")).body == b"application"
    assert (await ask(protected(application), GET)).body == b"application"


@in_loop
async def test_where_the_application_is_mounted():
    """The path is under where it is mounted, as the routes are."""
    door = protected(Shop(), status_path=PATH)
    assert (await ask(door, f"GET /shop{PATH}", root_path="/shop")).code == "key-unknown"


@in_loop
async def test_authorize_is_asked_first():
    """Who may not see a replay learns nothing, of a key that is there and of one that is not."""
    allowed = True
    door = protected(Shop(), status_path=PATH, authorize=lambda _: allowed)
    await ask(door)
    assert (await ask(door, GET)).status == 200
    allowed = False
    assert (await ask(door, GET)).code == (await ask(door, GET, key="never-sent")).code == "replay-forbidden"


@in_loop
async def test_the_store_is_away():
    """503, at once or from the start."""

    class Away(MemoryStore):
        def perform(self, transition):
            raise StoreUnavailable

    class Closed(MemoryStore):
        def open(self, secret=None):
            raise StoreUnavailable

    for store in (Away(), Closed()):
        assert (await ask(protected(Shop(), store, status_path=PATH), GET)).code == "store-unavailable"


@in_loop
async def test_what_a_route_says_of_its_own():
    """A record is judged by the policy of its route: a lapsed claim that may be taken over is not unknown."""
    clock, shop = ManualClock(), Shop()
    routes = {"POST /safe": Policy(recovery="rerun", lease="1s"), "POST /orders": Policy(lease="1s")}
    door = protected(shop, MemoryStore(clock), status_path=PATH, routes=routes)
    shop.gate.clear()
    running = [asyncio.create_task(ask(door, f"POST {path}", key=path)) for path in ("/safe", "/orders")]
    await eventually(lambda: shop.effects == 2)
    clock.advance(1_000)
    states = [json.loads((await ask(door, GET, key=path)).body)["state"] for path in ("/safe", "/orders")]
    assert states == ["in_progress", "unknown"]
    shop.gate.set()
    await asyncio.gather(*running)


@pytest.mark.parametrize("path", ["requests", "", "/", "/a b", "/a?b", "/a%20b", 7])
def test_what_is_no_path(path):
    """Refused when the door is made."""
    with pytest.raises(ConfigurationError, match="status_path"):
        protected(Shop(), status_path=path)
