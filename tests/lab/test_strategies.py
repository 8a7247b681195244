"""`retrysafe lab strategies`: each server does what it says to a retry, and the whole of it tells them apart."""

from __future__ import annotations

import asyncio
import json
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
import redis.asyncio as redis_client
import uvloop
from click.testing import CliRunner

from retrysafe.cli import main
from retrysafe.errors import ConfigurationError
from retrysafe.lab.judged import End, Operation, judge
from retrysafe.lab.strategies import places, report
from retrysafe.lab.strategies.catalogue import STRATEGIES
from retrysafe.lab.strategies.charges import count_postgres, count_sqlite
from retrysafe.lab.strategies.load import Orders, request_of
from retrysafe.lab.strategies.measure import Figures
from retrysafe.lab.strategies.places import Postgres, Redis
from retrysafe.lab.strategies.run import choose
from retrysafe.lab.strategies.shop import Where
from tests.stores import postgres_server, redis_servers

PATIENCE_S = 20
NONE = frozenset({"no-guard", "no-guard-sqlite"})
KEYS = ("5e8c0f1a-9d3b-4f0e-8a57-0c2f6d1b7e33", "b3a7d2c4-1f6e-4a89-9c05-7e4d8f2a6b11")


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """A PostgreSQL and a Redis."""
    with redis_servers.server(tmp_path_factory.mktemp("redis")) as redis:
        yield Postgres(postgres_server.server().url()), Redis(f"redis://{redis.address}/0")


@asynccontextmanager
async def client_of(application):
    """A client of an application that has started."""
    receives: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    sent: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    living = asyncio.create_task(application({"type": "lifespan", "asgi": {}, "state": {}}, receives.get, sent.put))
    try:
        for begins in (True, False):
            await receives.put({"type": "lifespan.startup" if begins else "lifespan.shutdown"})
            async with asyncio.timeout(PATIENCE_S):
                assert (await sent.get())["type"].endswith(".complete")
            if begins:
                async with httpx2.AsyncClient(
                    transport=httpx2.ASGITransport(application), base_url="http://lab"
                ) as client:
                    yield client
    finally:
        living.cancel()
        await asyncio.gather(living, return_exceptions=True)


async def place_twice(strategy, where):
    """One order twice with its key, and the same once more on purpose; what was answered, and the rows."""
    order = {"reference": "first", "customer": "c", "item": "tea", "quantity": 2}
    async with client_of(strategy.build(where)) as client:
        answers = [
            await client.post("/orders", json=content, headers={"Idempotency-Key": f'"{key}"'})
            for content, key in [(order, KEYS[0]), (order, KEYS[0]), (order | {"reference": "second"}, KEYS[1])]
        ]
    if strategy.charges:
        return answers, count_sqlite(where.folder / strategy.charges)
    return answers, await count_postgres(where.postgres)


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_retry(name, servers, tmp_path):
    """Without a guard it is done again; a constraint refuses; a signature takes another order for the same; the others
    give the first answer again.
    """
    strategy, (postgres, redis) = STRATEGIES[name], servers

    async def scene():
        async with postgres.database() as postgres_url, redis.database() as redis_url:
            return await place_twice(strategy, Where(postgres_url, redis_url, tmp_path))

    (first, again, other), rows = asyncio.run(scene())
    assert first.status_code == 201
    assert rows == {"first": 2 if name in NONE else 1} | ({} if name == "business-signature" else {"second": 1})
    assert again.status_code == (409 if name == "unique-constraint" else 201)
    assert (again.content == first.content) is (name not in NONE | {"unique-constraint"})
    assert (other.content == first.content) is (name == "business-signature")
    assert ("idempotent-replayed" in again.headers) is strategy.is_ours


def test_side_by_side(tmp_path):
    """The same orders and faults for both: one has duplicates, and retrysafe has none, and loses none."""
    page = tmp_path / "strategies.md"
    page.write_text("before\n<!-- results: begin -->\nold\n<!-- results: end -->\nafter\n")
    words = "lab strategies --orders 200 --calm-orders 100 --seed 5 --only retrysafe-sqlite --json --timeout 400ms"
    done = CliRunner().invoke(main, [*words.split(), "--write-docs", str(page)])
    assert done.exit_code == 0, done.output
    found = json.loads(done.output)
    bare, ours = found["strategies"]
    assert (bare["name"], ours["name"]) == ("no-guard-sqlite", "retrysafe-sqlite")
    assert bare["duplicates"] > 20
    assert bare["wrong"] > 0
    assert (ours["duplicates"], ours["lost"], ours["wrong"]) == (0, 0, 0)
    assert sum(ours["clients"].values()) == ours["orders"] == 200
    assert ours["kills"] == bare["kills"] == 1
    assert {"silence", "black-hole", "lose-response", "deliver-twice"} <= set(ours["met"])
    assert ours["p50_ms"] > 0
    assert ours["bytes_per_order"] > bare["bytes_per_order"] > 0
    written = page.read_text()
    assert "| retrysafe, SQLite | 0 | 0 | 0 |" in written
    assert "old" not in written
    assert (tmp_path / "strategies" / "duplicates.svg").exists()


def test_usage(tmp_path):
    """What cannot be is said before anything runs."""
    run = CliRunner().invoke
    listed = run(main, ["lab", "strategies", "--list"])
    assert (listed.exit_code, [line.split()[0] for line in listed.output.splitlines()]) == (0, list(STRATEGIES))
    unknown = run(main, ["lab", "strategies", "--only", "luck"])
    assert (unknown.exit_code, "no strategy 'luck'; there are no-guard, " in unknown.output) == (2, True)
    nobody = ["--only", "no-guard", "--postgres", "postgresql://nobody@127.0.0.1:1/x"]
    away = run(main, ["lab", "strategies", *nobody])
    assert (away.exit_code, "PostgreSQL cannot be used" in away.output) == (3, True)
    page = ["--only", "no-guard-sqlite", "--write-docs", str(tmp_path / "nothing.md")]
    assert run(main, ["lab", "strategies", *page]).exit_code == 2


def test_a_redis_with_something_in_it_is_left_alone(servers):
    """It would be emptied."""
    _, redis = servers

    async def scene():
        async with redis_client.Redis.from_url(redis.url) as client:
            await client.set("theirs", "1")
            try:
                with pytest.raises(ConfigurationError, match="not empty"):
                    async with redis.database():
                        raise AssertionError("it was taken")
                return await client.get("theirs")
            finally:
                await client.flushdb()

    assert asyncio.run(scene()) == b"1"


@pytest.mark.parametrize(("start", "scheme"), [(places.postgres, "postgresql"), (places.redis_server, "redis")])
def test_servers_of_our_own(start, scheme):
    """They start, say their version, give a database, and are gone afterwards; on the loop that the command has."""

    async def scene(folder):
        async with start(folder, None) as server, server.database() as url:
            assert url.startswith(scheme)
            return await server.version()

    with tempfile.TemporaryDirectory() as name, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL is another user, where we are root
        assert runner.run(scene(folder)).lower().startswith(scheme[:5])


def test_orders():
    """The same seed gives the same orders; about one in a hundred says what an earlier one said, and is another."""
    made = [Orders(3).order(number) for number in range(5_000)]
    assert made[:99] == [Orders(3).order(number) for number in range(99)]
    assert len({order.reference for order in made}) == 5_000
    assert 25 < 5_000 - len({order.signature for order in made}) < 80
    assert len({request_of(order) for order in made}) == 5_000


def figures(name, *, twice=0, lost=0):
    """What a strategy of that name would have found."""
    operations = [Operation(str(number), End.DONE, ["a"], 1) for number in range(10)]
    effects = {str(number): 1 + (number < twice) for number in range(10 - lost)}
    return Figures(STRATEGIES[name], judge(operations, effects), {}, 1, 1, 2, 1, 2, 3, 4, 500, 1, 100)  # type: ignore[arg-type] # no faults


def test_verdict():
    """Retrysafe has to be clean, and the shop without a guard must not be, or nothing was shown."""
    bare, safe = figures("no-guard", twice=3), figures("retrysafe-postgres")
    assert not report.findings({"no-guard": bare, "retrysafe-postgres": safe})
    assert "so that this run shows nothing" in report.findings({"no-guard": figures("no-guard")})[0]
    (finding,) = report.findings({"no-guard": bare, "retrysafe-postgres": figures("retrysafe-postgres", lost=2)})
    assert "0 duplicates, 2 lost, 0 wrong answers: a defect of retrysafe (lost: 8, 9)" in finding
    assert [one.name for one in choose(["retrysafe-redis"])] == ["no-guard", "retrysafe-redis"]
