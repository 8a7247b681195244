"""What each mode promises and, as plainly, what it does not: real processes, killed between effect and record."""

from __future__ import annotations

import asyncio
import os
import uuid

import pytest

from retrysafe import Policy
from retrysafe.operate import keys
from retrysafe.stores.memory import MemoryStore
from retrysafe.testing import ManualClock
from tests.doors.connections import ask, protected
from tests.doors.handlers import Shop
from tests.doors.servers import serving
from tests.drive.harness import in_loop
from tests.gateway.processes import Gateway, Ledger, in_thread, until
from tests.gateway.serving import keyed

LEASE = {"SHOP_LEASE": "400ms"}
MANUAL, RERUN = "POST /told", "POST /rerun/told"


def killed_at(moment, target, folder):
    """One request whose process dies at that moment, and its retries in a new process; answers and effects."""
    name = uuid.uuid4().hex
    with serving("uvicorn", folder, **LEASE) as shop:
        shop.shut(f"armed-{moment}")
        lost = shop.ask(target, key=name, name=name)
        assert (lost.status, lost.whole) == (0, False)
        assert shop.process.process.wait(10) == -9
    with serving("uvicorn", folder, **LEASE) as shop:
        answers = [shop.settled(target, key=name, name=name), shop.ask(target, key=name, name=name)]
        return answers, shop.ledger("effect", name)


# --- A: manual --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("moment", "effects"), [("before-effect", 0), ("before-record", 1)])
def test_manual_does_not_run_again_and_does_not_know(moment, effects, tmp_path):
    """Killed before the effect or after it: the same answer either way, and no retry adds an effect."""
    answers, seen = killed_at(moment, MANUAL, tmp_path)
    assert ([answer.code for answer in answers], seen) == (["outcome-unknown"] * 2, effects)


@in_loop
async def test_manual_needs_a_store_that_remembers():
    """Not promised: the records are gone with their process, and the effect happens twice."""
    shop = Shop()
    for _ in range(2):
        assert (await ask(protected(shop, MemoryStore()))).replayed is False
    assert shop.effects == 2


@in_loop
async def test_no_mode_helps_a_client_that_changes_its_key():
    """Not promised: a new key for each attempt is a new operation each time."""
    shop = Shop()
    door = protected(shop)
    for key in ("k-1", "k-2"):
        assert (await ask(door, key=key)).status == 201
    assert shop.effects == 2


@in_loop
async def test_manual_is_over_when_the_record_is():
    """Not promised: past lifetime and tombstone, a retry is a new operation."""
    clock, shop = ManualClock(), Shop()
    door = protected(shop, MemoryStore(clock), policy=Policy(lifetime="1h", tombstone="1h"))
    await ask(door)
    clock.advance(3_600_000)
    assert ((await ask(door)).code, shop.effects) == ("key-expired", 1)
    clock.advance(3_600_000)
    assert ((await ask(door)).status, shop.effects) == (201, 2)


@in_loop
async def test_a_claim_that_is_taken_from_a_living_owner_has_two_effects():
    """Not promised: `keys release` believes that the owner is dead; here it is not, and both have their effect."""
    store, shop = MemoryStore(), Shop()
    door = protected(shop, store)
    shop.gate.clear()
    running = asyncio.create_task(ask(door))
    await shop.entered.wait()
    (record_id,) = store._records
    keys.release(keys.Desk(store, bytes(32), None, lambda _: Policy()), record_id, keys.Hand("ann", "it is dead"))
    shop.gate.set()
    assert ((await ask(door)).status, shop.effects) == (201, 2)
    assert (await running).body != b"order 1"  # it gets the recorded answer or none, and never another one of its own


# --- B: rerun ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["after-claim", "before-effect"])
def test_rerun_repairs_a_crash_before_the_effect(moment, tmp_path):
    """Nothing had happened: the retry makes it happen, once, and the next one gets its answer."""
    answers, effects = killed_at(moment, RERUN, tmp_path)
    assert ([(answer.status, answer.replayed) for answer in answers], effects) == ([(201, False), (201, True)], 1)


@pytest.mark.parametrize("moment", ["after-effect", "before-record"])
def test_rerun_has_two_effects_after_a_crash_between_effect_and_record(moment, tmp_path):
    """Not promised: one effect. The first had happened, and the retry makes a second; the outcome is one."""
    answers, effects = killed_at(moment, RERUN, tmp_path)
    assert ([(answer.status, answer.replayed) for answer in answers], effects) == ([(201, False), (201, True)], 2)


@pytest.mark.parametrize("moment", ["after-record", "before-answer"])
def test_rerun_runs_nothing_that_was_recorded(moment, tmp_path):
    """The outcome is there: every retry gets it, and the effect is one."""
    answers, effects = killed_at(moment, RERUN, tmp_path)
    assert ([(answer.status, answer.replayed) for answer in answers], effects) == ([(201, True)] * 2, 1)


# --- F: the gateway ---------------------------------------------------------------------------------


@pytest.fixture
def ledger(tmp_path):
    """An upstream with a ledger."""
    upstream = Ledger(tmp_path)
    yield upstream
    upstream.kill()


def gateway_killed(ledger, folder, *options, hold="after", **headers):
    """A gateway dies while the upstream holds an order; what a retry gets from the next gateway in the end."""
    options = ("--policy", "lease=500ms", *options)
    first = Gateway(ledger.url, folder, *options)
    thread, _ = in_thread(lambda: keyed(first.port, "key-1", x_hold=hold, **headers))
    held = ledger.arrival(hold)
    first.kill()
    os.close(held)
    thread.join(10)
    until(lambda: ledger.orders == 1, "the effect, which nobody could stop")
    second = Gateway(ledger.url, folder, *options)
    try:
        answers = [keyed(second.port, "key-1", **headers)]

        def is_settled():
            answers.append(keyed(second.port, "key-1", **headers))
            return answers[-1].status != 409 or answers[-1].json["code"] != "in-progress"

        until(is_settled, "the end of the lease")
        return answers[-1]
    finally:
        second.kill()


def test_the_gateway_is_manual_unless_told_otherwise(ledger, tmp_path):
    """Killed while the upstream works: one effect, and an unknown outcome."""
    answer = gateway_killed(ledger, tmp_path)
    assert (answer.json["code"], ledger.orders) == ("outcome-unknown", 1)


def test_the_gateway_with_rerun_has_two_effects_at_an_upstream_that_ignores_keys(ledger, tmp_path):
    """Not promised: one effect. It sends the request again, and this upstream does it again."""
    answer = gateway_killed(ledger, tmp_path, "--policy", "recovery=rerun")
    assert (answer.status, ledger.orders) == (201, 2)


def test_the_gateway_with_rerun_has_one_effect_at_an_upstream_that_honours_keys(ledger, tmp_path):
    """It passes the key on, the same one again; an upstream that does a key once makes it one effect."""
    answer = gateway_killed(ledger, tmp_path, "--policy", "recovery=rerun", X_Honour="yes")
    assert (answer.status, answer.body, ledger.orders) == (201, b'{"order": 1}', 1)


def test_who_goes_past_the_gateway_is_not_protected(ledger, tmp_path):
    """Not promised: the upstream itself, asked directly, does the same order again."""
    gateway = Gateway(ledger.url, tmp_path)
    try:
        assert keyed(gateway.port, "key-1").status == 201
        assert keyed(int(ledger.url.rpartition(":")[2]), "key-1").status == 201
    finally:
        gateway.kill()
    assert ledger.orders == 2
