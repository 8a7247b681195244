"""What is in a store, and how much of it was replayed, as the command line tells it."""

from __future__ import annotations

import asyncio
import json
import os

import pytest

import retrysafe.drive.tally
from retrysafe import Policy
from retrysafe.drive.tally import BlockingTally, Tally
from retrysafe.model import State
from retrysafe.observe import CutOff, Handled
from retrysafe.operate.stats import document, lines
from retrysafe.protocol.transitions import AnswerCount, CountAnswers, RecordCount, Stats, TakeStats
from retrysafe.stores.memory import MemoryStore
from tests.doors.connections import ask, protected
from tests.doors.handlers import Shop
from tests.drive.harness import Noted, TamperedStore, eventually, failing, in_loop
from tests.operate.shops import command, requests, store_of, url_of
from tests.stores.test_sqlite_processes import in_child

NOW_MS = 1_700_000_000_000
STATS = Stats(
    NOW_MS,
    (
        RecordCount("", State.EXPIRED, 2, 0, NOW_MS - 90_000_000),
        RecordCount("*", State.COMPLETED, 10, 5_000, NOW_MS - 70_000),
        RecordCount("*", State.IN_PROGRESS, 1, 0, NOW_MS - 65_999),
        RecordCount("POST /charges", State.IN_PROGRESS, 2, 0, NOW_MS - 1_000),
        RecordCount("POST /charges", State.UNKNOWN, 1, 0, NOW_MS - 3_600_000),
    ),
    (AnswerCount("*", 9, 3), AnswerCount("POST /gone", 1, 0)),
)


def test_numbers_as_json():
    """Sums, rates and ages, over all and of each route; none where there is nothing to say."""
    found = document(STATS)
    assert {name: found[name] for name in found if name != "routes"} == {
        "now_ms": NOW_MS, "records": 16, "response_bytes": 5_000, "replay_rate": round(3 / 13, 4),
        "oldest_in_progress_s": 65, "oldest_unknown_s": 3_600,
    }  # fmt: skip
    assert [route["route"] for route in found["routes"]] == ["", "*", "POST /charges", "POST /gone"]
    assert found["routes"][1] == {
        "route": "*",
        "states": {
            "completed": {"records": 10, "response_bytes": 5_000},
            "in_progress": {"records": 1, "response_bytes": 0},
        },
        "recorded": 9,
        "replayed": 3,
        "replay_rate": 0.25,
    }
    assert found["routes"][2]["replay_rate"] is None
    nothing = document(Stats(NOW_MS, (), ()))
    assert (nothing["oldest_unknown_s"], nothing["replay_rate"], nothing["routes"]) == (None, None, [])


def test_numbers_for_people():
    """The same, one thing a line; a record of a release that kept no route says so."""
    told = list(lines(STATS, 7))
    assert told[:5] == [
        "16 records, 5000 bytes of responses",
        "answers of 7 days: 23.08% replayed",
        "oldest in progress: 65 s",
        "oldest unknown: 3600 s",
        "(not kept): none counted",
    ]
    assert "  in_progress: 1 record, 0 bytes" in told
    assert "oldest unknown: none" in list(lines(Stats(NOW_MS, (), ()), 7))


def test_from_the_door_to_the_command_line(tmp_path):
    """Real requests, over two processes that start and stop: what they left, by route."""
    routes = {"POST /orders": Policy()}
    requests(tmp_path, ["k-1", "k-2", "k-1"], routes=routes)
    requests(tmp_path, ["k-1", "k-1", "k-3"], routes=routes, shop=Shop(429))
    found = json.loads(command("stats", "--json", "--store", url_of(tmp_path)).output)
    assert (found["records"], found["replay_rate"]) == (3, 0.6)
    (route,) = found["routes"]
    assert (route["route"], route["recorded"], route["replayed"]) == ("POST /orders", 2, 3)
    assert {state: sums["records"] for state, sums in route["states"].items()} == {"completed": 2, "retryable": 1}
    told = command("stats", "--days", "1", "--store", url_of(tmp_path))
    assert told.exit_code == 0
    assert "answers of 1 days: 60.00% replayed" in told.output
    assert "POST /orders: 60.00% replayed" in told.output


@pytest.mark.parametrize(
    ("arguments", "exit_code"), [((), 3), (("--days", "0"), 2), (("--days", "32"), 2), (("--store", "x://"), 2)]
)
def test_exit_codes(arguments, exit_code, tmp_path):
    """An unreachable store is 3, what cannot be meant is 2."""
    result = command("stats", "--store", url_of(tmp_path / "nowhere"), *arguments)
    assert result.exit_code == exit_code
    assert result.stderr


# --- counting ---------------------------------------------------------------------------------------


def _answers(store):
    return {count.route: (count.recorded, count.replayed) for count in store.perform(TakeStats()).answers}


ENDINGS = ["recorded", "replayed", "replayed", "in-progress", "classify-failed", "released", "replayed"]


@in_loop
async def test_counts_are_written_in_batches():
    """One write for all that was answered since the last; refusals and releases are no answers."""
    store = TamperedStore(MemoryStore())
    store.open()
    noted = Noted()
    tally = Tally(noted, store, every_s=0.02)
    for ending in ENDINGS:
        tally.notice(Handled(ending, "*"))
    tally.notice(CutOff(1))
    assert len(noted.events) == 8
    assert store.done == []
    await eventually(lambda: store.done == ["CountAnswers"])
    assert _answers(store) == {"*": (2, 3)}
    tally.notice(Handled("recorded", "POST /a"))
    await eventually(lambda: _answers(store) == {"*": (2, 3), "POST /a": (1, 0)})
    await tally.flush()
    assert store.done.count("CountAnswers") == 2


@in_loop
async def test_a_store_that_is_away_loses_a_batch_and_no_request():
    """Counts may be lost, and nobody is disturbed by it."""
    store = TamperedStore(MemoryStore(), before=failing(CountAnswers, times=2))
    shop = Shop()
    door = protected(shop, store)
    await door.open()
    door._observer._every_s = 0.01
    await ask(door)
    await eventually(lambda: door._observer._timer is None)
    await ask(door)
    await door.close()
    assert _answers(store) == {}
    await door.open()
    await ask(door)
    await door.close()
    assert _answers(store) == {"*": (0, 1)}


def test_a_door_outlives_its_loop():
    """A timer of a loop that is closed is no timer."""
    store = MemoryStore()
    store.open()
    tally = Tally(Noted(), store, every_s=0.01)

    async def one():
        tally.notice(Handled("replayed", "*"))

    asyncio.run(one())

    @in_loop
    async def two():
        tally.notice(Handled("recorded", "*"))
        await eventually(lambda: _answers(store) == {"*": (1, 1)})

    two()


@in_loop
async def test_loops_share_a_timer():
    """A door on two loops at once: one timer, not one for each answer that comes to the other loop."""
    store = MemoryStore()
    store.open()
    tally = Tally(Noted(), store, every_s=60)

    async def count():
        tally.notice(Handled("recorded", "*"))

    await count()
    timer = tally._timer
    await asyncio.to_thread(lambda: asyncio.run(count()))
    await count()
    assert tally._timer is timer
    await tally.flush()
    assert _answers(store) == {"*": (3, 0)}


def test_threads_count_too():
    """On a timer of its own, and at the end."""
    store = MemoryStore()
    store.open()
    tally = BlockingTally(Noted(), store, every_s=0.01)
    tally.notice(CutOff(1))
    assert tally._timer is None
    for ending in ENDINGS:
        tally.notice(Handled(ending, "*"))
    assert tally._timer is not None
    tally._timer.join(10)
    assert _answers(store) == {"*": (2, 3)}
    slow = BlockingTally(Noted(), store, every_s=600)
    slow.notice(Handled("replayed", "*"))
    slow.flush()
    slow.flush()
    assert _answers(store) == {"*": (2, 4)}


def test_a_child_does_not_write_what_its_parent_counted(tmp_path):
    """After a fork each writes its own."""
    store = store_of(tmp_path)
    store.open()
    tally = BlockingTally(Noted(), store, every_s=600)
    tally.notice(Handled("recorded", "*"))

    def work():
        tally.notice(Handled("replayed", "*"))
        tally.flush()
        store.close()
        return "done"

    assert in_child(os.fork, work) == "done"
    assert _answers(store) == {"*": (0, 1)}
    tally.flush()
    assert _answers(store) == {"*": (1, 1)}
    store.close()


def test_the_interval_is_short_enough_to_watch():
    """Whoever looks sees numbers that are seconds old."""
    assert retrysafe.drive.tally.EVERY_S <= 10
