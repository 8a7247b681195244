"""Records settled by hand on the stores behind a network, with their real servers: from the door, and back to it."""

from __future__ import annotations

import asyncio
import json
import secrets

import pytest

from retrysafe import Policy, operation
from retrysafe.model import State
from retrysafe.protocol.transitions import Read
from retrysafe.stores.location import open_store
from tests.doors.connections import ask, protected
from tests.doors.handlers import Shop, content_of, piece, start
from tests.operate.shops import claimed, command
from tests.stores import mariadb, postgres_server, redis_stores
from tests.stores.dynamodb_service import running
from tests.stores.redis_servers import until
from tests.stores.redis_stores import clustered, single

servers_end = redis_stores.servers_end
WHY = ("--note", "asked the bank", "--actor", "ann")


def _in_postgres(folder):
    return f"{postgres_server.server().url()}?schema={postgres_server.schema_of(folder)}"


def _in_mysql(folder):
    address = mariadb.address_of(folder)
    user = f"{mariadb.USER}:{mariadb.PASSWORD.replace(' ', '%20')}"
    return f"mysql://{user}@{address.host}:{address.port}/{address.database}"


def _in_redis(_folder):
    return f"{single()}?prefix=t{secrets.token_hex(6)}"


def _in_redis_cluster(_folder):
    return f"{clustered()}?prefix=t{secrets.token_hex(6)}"


def _in_dynamodb(_folder):
    return f"dynamodb://t{secrets.token_hex(6)}?region=eu-central-1&endpoint_url="


KINDS = {
    "postgresql": _in_postgres,
    "mysql": _in_mysql,
    "redis": _in_redis,
    "redis+cluster": _in_redis_cluster,
    "dynamodb": _in_dynamodb,
}


@pytest.fixture(scope="module")
def service():
    with running() as service:
        yield service


@pytest.fixture(params=KINDS)
def url(request, tmp_path, service, monkeypatch):
    """A store of one kind that nobody has used yet."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    place = KINDS[request.param](tmp_path)
    return place + service.url if request.param == "dynamodb" else place


async def lost(_connection, receive, send):
    """An application that does not know whether it had its effect."""
    await content_of(receive)
    operation().outcome_unknown()
    await send(start(500))
    await send(piece(b"?"))


def requests(url, keys, application, **settings):
    """Requests with these keys to a door on the store, in a process that starts and stops; their answers."""

    async def serve():
        store = open_store(url)
        door = protected(application, store, **settings)
        await door.open()
        answers = [await ask(door, key=key) for key in keys]
        await door.close()
        await asyncio.to_thread(store.close)
        return answers

    return asyncio.run(serve())


def keys(url, *arguments):
    result = command("keys", *arguments, "--store", url)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def test_from_the_door_to_the_command_line_and_back(url, tmp_path):
    """Two outcomes are unknown: one turns out to have happened, the other not; what retries get says which."""
    answers = requests(url, ["k-1", "k-2", "k-3"], lost, routes={"POST /orders": Policy()})
    assert [(answer.status, answer.body) for answer in answers] == [(500, b"?")] * 3
    listed = json.loads(keys(url, "list", "--json", "--state", "unknown", "--route", "POST /orders"))["records"]
    assert len(listed) == 3
    (tmp_path / "answer").write_bytes(b'{"id": 7}')
    named = {}
    for key in ("k-1", "k-2"):
        (tmp_path / key).write_text(key)
        which = ("--key-file", f"{tmp_path}/{key}", "--account", "alice")
        named[key] = json.loads(keys(url, "show", "--json", *which))["id"]
    assert {*named.values()} < {record["id"] for record in listed}
    answer = ("--status", "201", "--body", f"{tmp_path}/answer")
    keys(url, "resolve", named["k-1"][:16], "--completed", *answer, *WHY)
    keys(url, "resolve", named["k-2"], "--not-done", *WHY)

    shop = Shop()
    first, second, third = requests(url, ["k-1", "k-2", "k-3"], shop, routes={"POST /orders": Policy()})
    assert (first.status, first.body, first.replayed) == (201, b'{"id": 7}', True)
    assert (second.status, second.body, second.replayed, shop.effects) == (201, b"order 1", False, 1)
    assert third.code == "outcome-unknown"
    said = json.loads(keys(url, "show", "--json", named["k-2"]))
    assert (said["state"], said["attempt"]) == ("completed", 2)
    assert [entry.get("action", entry.get("end")) for entry in said["history"]] == ["resolve --not-done", "released"]


def test_what_is_stuck(url):
    """A claim whose lease is over is found, and resolved; one that is alive is released, or left alone."""
    store = open_store(url)
    store.open()
    dead, alive = claimed(store, lease_ms=1), claimed(store)

    def stuck():  # a service that tells whole seconds may be one behind
        return [record["id"] for record in json.loads(keys(url, "list", "--json", "--state", "stuck"))["records"]]

    until(lambda: stuck() == [dead.record_id.hex()], "the lease is over")
    keys(url, "resolve", dead.record_id.hex(), "--not-done", *WHY)
    refused = command("keys", "resolve", alive.record_id.hex(), "--not-done", *WHY, "--store", url)
    assert (refused.exit_code, "its owner holds it" in refused.stderr) == (1, True)
    keys(url, "release", alive.record_id.hex(), "--yes", *WHY)
    both = [store.perform(Read(claim.record_id)) for claim in (dead, alive)]
    assert [found and found.record.state for found in both] == [State.RETRYABLE] * 2
    keys(url, "forget", dead.record_id.hex(), "--yes", *WHY)
    assert store.perform(Read(dead.record_id)) is None
    said = json.loads(keys(url, "show", "--json", dead.record_id.hex()))
    assert [entry["action"] for entry in said["history"]] == ["resolve --not-done", "forget"]
    store.close()


def test_a_long_list(url):
    """Each record once, over as many pages as it takes; a limit ends it early."""
    store = open_store(url)
    store.open()
    ids = {claimed(store).record_id.hex() for _ in range(230)}
    listed = json.loads(keys(url, "list", "--json", "--limit", "1000"))["records"]
    assert sorted(record["id"] for record in listed) == sorted(ids)
    few = json.loads(keys(url, "list", "--json", "--limit", "7"))
    assert (len(few["records"]), few["more"]) == (7, True)
    store.close()
