"""The commands for operators on the stores behind a network, with their real servers: the whole way, from the door."""

from __future__ import annotations

import asyncio
import json
import secrets

import psycopg
import pytest

from retrysafe import Policy
from retrysafe.model import Claim
from retrysafe.protocol.transitions import ClaimIfAbsent, CompleteIfHeld
from retrysafe.stores.contract import HasSchema
from retrysafe.stores.location import open_store
from tests.doors.connections import ask, protected
from tests.doors.handlers import Shop
from tests.operate.shops import NEW, OLD, command
from tests.stores import mariadb, postgres_server


def _in_postgres(folder):
    return f"{postgres_server.server().url()}?schema={postgres_server.schema_of(folder)}"


def _in_mariadb(folder):
    address = mariadb.address_of(folder)
    user = f"{mariadb.USER}:{mariadb.PASSWORD.replace(' ', '%20')}"
    return f"mysql://{user}@{address.host}:{address.port}/{address.database}"


@pytest.fixture(params=[_in_postgres, _in_mariadb], ids=["postgresql", "mysql"])
def url(request, tmp_path):
    return request.param(tmp_path)


@pytest.fixture
def execute(url):
    """Goes through a script as an operator would, past the store."""

    def in_postgres(script):
        with psycopg.connect(url.partition("?")[0], autocommit=True) as connection:
            connection.execute(script)

    def in_mariadb(script):
        connection = mariadb.server().connect(url.rpartition("/")[2])
        for statement in script.split(";\n"):
            if statement.strip():
                connection.cursor().execute(statement)
        connection.close()

    return in_postgres if url.startswith("postgresql") else in_mariadb


def _requests(url, keys, **settings):
    """Requests with these keys to a door on the store, in a process that starts and stops; their answers."""

    async def serve():
        door = protected(Shop(), open_store(url), **settings)
        await door.open()
        answers = [await ask(door, key=key) for key in keys]
        await door.close()
        await asyncio.to_thread(door._store.close)
        return answers

    return asyncio.run(serve())


def test_what_was_observed(url):
    """Counts of two processes, added; nobody has to look at such records, and they are forgotten like others."""
    for keys in (["k-1", "k-1", "k-2"], ["k-1", "k-3"]):
        assert not any(answer.replayed for answer in _requests(url, keys, mode="observe"))
    result = command("stats", "--observed", "--json", "--store", url)
    assert result.exit_code == 0, result.stderr
    (route,) = json.loads(result.stdout)["routes"]
    assert (route["first_attempts"], route["duplicates_replayed"], route["requests"]) == (3, 2, 5)
    assert json.loads(command("stats", "--json", "--store", url).stdout)["records"] == 0
    assert json.loads(command("keys", "list", "--json", "--store", url).stdout)["records"] == []


@pytest.mark.parametrize("name", [("purge",), ("stats",), ("keys", "rotate")])
def test_a_store_that_is_not_there_is_not_made(name, url):
    """A mistyped URL is no success: exit code 3, and no tables."""
    result = command(*name, "--store", url, RETRYSAFE_ENCRYPTION_KEYS=NEW)
    assert (result.exit_code, result.stdout) == (3, "")
    assert "is not there, and was not made" in result.stderr
    assert command("migrate", "--print", "--store", url).output.startswith("-- 0001 before the deployment: records\n")


def test_migrate_makes_the_schema(url):
    """Once; then there is nothing to do, and nothing to print."""
    store = open_store(url)
    assert isinstance(store, HasSchema)
    told = [f"gone through {missing}" for missing in store.missing_migrations()]
    result = command("migrate", "--store", url)
    assert (result.exit_code, result.output.splitlines()) == (0, told)
    assert told[0] == "gone through 0001 before the deployment: records"
    assert command("migrate", "--store", url).output == "the schema is up to date\n"
    assert command("migrate", "--print", "--store", url).output == ""
    assert command("stats", "--store", url).exit_code == 0


def test_what_is_printed_is_the_schema(url, execute):
    """Whoever goes through it by hand has a store that the door can use, and that needs nothing more."""
    execute(command("migrate", "--print", "--store", url).output)
    assert command("migrate", "--store", url).output == "the schema is up to date\n"
    first, replay = _requests(url, ["k-1", "k-1"])
    assert (first.status, replay.replayed) == (201, True)


def test_from_the_door_to_the_command_line(url):
    """Real requests; what they left, by route; then a new key for the stored answers, which are replayed with it."""
    routes = {"POST /orders": Policy()}
    _requests(url, ["k-1", "k-2", "k-1"], routes=routes, encryption_keys=[OLD])
    found = json.loads(command("stats", "--json", "--store", url).output)
    (route,) = found["routes"]
    assert (found["records"], found["replay_rate"]) == (2, 0.3333)
    assert (route["route"], route["recorded"], route["replayed"]) == ("POST /orders", 2, 1)
    assert route["states"]["completed"]["records"] == 2

    rotated = command("keys", "rotate", "--store", url, RETRYSAFE_ENCRYPTION_KEYS=f"{NEW} {OLD}")
    assert (rotated.exit_code, rotated.output) == (0, "encrypted 2, current 0, overtaken 0, unreadable 0, waiting 0\n")
    again = command("keys", "rotate", "--store", url, RETRYSAFE_ENCRYPTION_KEYS=NEW)
    assert (again.exit_code, again.output) == (0, "encrypted 0, current 2, overtaken 0, unreadable 0, waiting 0\n")
    replays = _requests(url, ["k-1", "k-2"], routes=routes, encryption_keys=[NEW])
    assert [(replay.body, replay.replayed) for replay in replays] == [(b"order 1", True), (b"order 2", True)]


def test_purge_goes_on_until_nothing_is_due(url):
    """What is over is forgotten or expired, over as many batches as it takes; what is not, stays."""
    store = open_store(url)
    store.open()

    async def finish(count, lifetime_ms, forget_after_ms):
        claims = [Claim(secrets.token_bytes(32), bytes(16), 1) for _ in range(count)]
        await asyncio.gather(*(store.submit(ClaimIfAbsent(c.record_id, c.token, b"f", 60_000, 60_000)) for c in claims))
        ends = (store.submit(CompleteIfHeld(claim, b"x", lifetime_ms, forget_after_ms)) for claim in claims)
        assert all(await asyncio.gather(*ends))

    async def main():
        await finish(450, 0, 0)
        await finish(20, 0, 600_000)
        await finish(3, 600_000, 600_000)

    asyncio.run(main())
    store.close()
    purged = command("purge", "--json", "--store", url)
    assert (purged.exit_code, json.loads(purged.output)) == (0, {"expired": 20, "forgotten": 450})
    (route,) = json.loads(command("stats", "--json", "--store", url).output)["routes"]
    assert {state: sums["records"] for state, sums in route["states"].items()} == {"completed": 3, "expired": 20}
