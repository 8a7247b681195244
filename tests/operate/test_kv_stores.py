"""What operators do with a store, on those without tables of SQL: Redis, and DynamoDB's protocol."""

from __future__ import annotations

import asyncio
import json
import secrets
import shlex

import boto3
import pytest

from retrysafe.model import Claim
from retrysafe.protocol.transitions import ClaimIfAbsent, CompleteIfHeld
from retrysafe.stores.contract import HasSchema
from retrysafe.stores.location import open_store
from tests.doors.connections import ask, protected
from tests.doors.handlers import Shop
from tests.operate.shops import NEW, OLD, command
from tests.stores import redis_stores
from tests.stores.dynamodb_service import running
from tests.stores.redis_servers import until
from tests.stores.redis_stores import clustered, single

servers_end = redis_stores.servers_end
KINDS = ("redis", "redis+cluster", "dynamodb")


@pytest.fixture(scope="module")
def service():
    with running() as service:
        yield service


@pytest.fixture
def url(request, service, monkeypatch):
    """A store of one kind that nobody has used yet."""
    name = f"t{secrets.token_hex(6)}"
    if request.param.startswith("redis"):
        return f"{single() if request.param == 'redis' else clustered()}?prefix={name}"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    return f"dynamodb://{name}?region=eu-central-1&endpoint_url={service.url}"


every = pytest.mark.parametrize("url", KINDS, indirect=True)


def requests(url, keys, shop, **settings):
    """Requests with these keys to a door on the store, in a process that starts and stops; their answers."""

    async def serve():
        store = open_store(url)
        door = protected(shop, store, **settings)
        await door.open()
        answers = [await ask(door, key=key) for key in keys]
        await door.close()
        await asyncio.to_thread(store.close)
        return answers

    return asyncio.run(serve())


@every
@pytest.mark.parametrize("name", [("purge",), ("stats",), ("keys", "rotate")])
def test_a_store_that_is_not_there_is_not_made(name, url):
    """A mistyped URL is no success, however often it is tried: exit code 3, and nothing is made."""
    for _ in range(2):
        result = command(*name, "--store", url, RETRYSAFE_ENCRYPTION_KEYS=NEW)
        assert (result.exit_code, result.stdout) == (3, "")
        assert "is not there, and was not made" in result.stderr


@every
def test_stats(url):
    """Records by route and state, and how many answers were replays."""
    requests(url, ["k-1", "k-2", "k-2", "k-3", "k-1"], Shop())
    result = command("stats", "--json", "--store", url)
    assert result.exit_code == 0, result.stderr
    said = json.loads(result.stdout)
    assert (said["records"], said["replay_rate"]) == (3, 0.4)
    (route,) = said["routes"]
    assert (route["recorded"], route["replayed"]) == (3, 2)
    assert route["states"]["completed"]["records"] == 3
    assert route["states"]["completed"]["response_bytes"] == said["response_bytes"] > 0


@every
def test_what_was_observed(url):
    """Counts of two processes, added; nobody has to look at such records."""
    for keys in (["k-1", "k-1", "k-2"], ["k-1", "k-3"]):
        assert not any(answer.replayed for answer in requests(url, keys, Shop(), mode="observe"))
    result = command("stats", "--observed", "--json", "--store", url)
    assert result.exit_code == 0, result.stderr
    (route,) = json.loads(result.stdout)["routes"]
    assert (route["first_attempts"], route["duplicates_replayed"], route["requests"]) == (3, 2, 5)
    assert json.loads(command("stats", "--json", "--store", url).stdout)["records"] == 0
    assert json.loads(command("keys", "list", "--json", "--store", url).stdout)["records"] == []


@every
def test_rotation(url):
    """What was stored before there were keys is encrypted, and is replayed as it was."""
    shop, keys = Shop(), [f"k-{number}" for number in range(30)]
    requests(url, keys, shop, encryption_keys=[OLD])
    result = command("keys", "rotate", "--store", url, RETRYSAFE_ENCRYPTION_KEYS=f"{NEW} {OLD}")
    assert (result.exit_code, result.output) == (0, "encrypted 30, current 0, overtaken 0, unreadable 0, waiting 0\n")
    again = command("keys", "rotate", "--store", url, RETRYSAFE_ENCRYPTION_KEYS=NEW)
    assert (again.exit_code, again.output) == (0, "encrypted 0, current 30, overtaken 0, unreadable 0, waiting 0\n")
    replays = requests(url, keys, shop, encryption_keys=[NEW])
    assert [answer.body for answer in replays] == [b"order %d" % number for number in range(1, 31)]
    assert all(answer.replayed for answer in replays)


@every
def test_purge(url):
    """What is over is forgotten, and what is not stays."""
    store = open_store(url)
    store.open()
    for lifetime_ms in (0, 0, 0, 600_000):
        claim = Claim(secrets.token_bytes(32), secrets.token_bytes(16), 1)
        store.perform(ClaimIfAbsent(claim.record_id, claim.token, b"f", 60_000, 60_000))
        assert store.perform(CompleteIfHeld(claim, b"x", lifetime_ms, 0))
    store.close()
    forgotten = 0

    def all_gone():  # a service that tells whole seconds may be one behind for the next process
        nonlocal forgotten
        result = command("purge", "--json", "--store", url)
        assert (result.exit_code, result.stderr) == (0, "")
        forgotten += json.loads(result.stdout)["forgotten"]
        return forgotten == 3

    until(all_gone, "three records are forgotten")
    assert json.loads(command("stats", "--json", "--store", url).stdout)["records"] == 1


@pytest.mark.parametrize("url", ["redis", "redis+cluster"], indirect=True)
def test_redis_has_no_schema(url):
    """There is nothing to migrate, and nothing is made."""
    assert command("migrate", "--store", url).output == "the schema is up to date\n"
    assert command("migrate", "--print", "--store", url).output == ""
    assert command("stats", "--store", url).exit_code == 3


@pytest.mark.parametrize("url", ["dynamodb"], indirect=True)
def test_migrate_makes_the_table(url):
    """The table is the one migration of a store in DynamoDB; a store that may not make it says so."""
    refused = command("migrate", "--store", f"{url}&create=false")
    assert refused.exit_code == 3
    assert "create=false" in refused.stderr
    result = command("migrate", "--store", url)
    assert (result.exit_code, result.output) == (0, "gone through 0001 before the deployment: table\n")
    again = command("migrate", "--store", f"{url}&create=false")
    assert (again.exit_code, again.output) == (0, "the schema is up to date\n")
    assert command("migrate", "--print", "--store", url).output == ""


@pytest.mark.parametrize("url", ["dynamodb"], indirect=True)
def test_what_is_printed_makes_the_table(url, service):
    """Who gives the printed requests to the service has the table that a store is content with."""
    printed = command("migrate", "--print", "--store", url)
    comment, *lines = printed.output.splitlines()
    assert comment == "-- 0001 before the deployment: table"
    client = boto3.client("dynamodb", region_name="eu-central-1", endpoint_url=service.url)
    for line in lines:
        aws, dynamodb, *step, option, given = shlex.split(line)
        assert (aws, dynamodb, option) == ("aws", "dynamodb", "--cli-input-json")
        if step == ["wait", "table-exists"]:
            client.get_waiter("table_exists").wait(**json.loads(given))
        else:
            getattr(client, step[0].replace("-", "_"))(**json.loads(given))
    client.close()
    store = open_store(f"{url}&create=false")
    assert isinstance(store, HasSchema)
    assert store.missing_migrations() == ()
    store.open()
    table = boto3.client("dynamodb", region_name="eu-central-1", endpoint_url=service.url)
    said = table.describe_time_to_live(TableName=json.loads(given)["TableName"])
    assert said["TimeToLiveDescription"]["AttributeName"] == "forget_at_s"
    table.close()
    store.close()
