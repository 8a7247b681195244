"""Faults in the protocols of databases: real servers, real drivers, and a cut at the worst moment."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import asyncpg  # type: ignore[import-untyped]  # it has no types
import pytest
import redis.asyncio as redis

from retrysafe.errors import ConfigurationError
from retrysafe.faults import BlackHole, ChaosProxy, CutResponse, Delay, LoseResponse, Nothing, Silence
from tests.stores import postgres_server, redis_servers

PATIENCE_S = 10


@pytest.fixture(scope="module")
def postgres():
    """The address of a server with an empty table."""
    server = postgres_server.server()
    with server.connect() as connection:
        connection.execute("DROP TABLE IF EXISTS faults_met; CREATE TABLE faults_met (number int)")
    return server


@pytest.fixture(scope="module")
def valkey(tmp_path_factory):
    """A server."""
    with redis_servers.server(tmp_path_factory.mktemp("redis")) as server:
        yield server


def faulty_when(fault, armed):
    """This fault for the next exchange after somebody armed it, and none before and after."""

    def choose(_):
        return fault if armed and armed.pop() else Nothing()

    return choose


@pytest.mark.parametrize(
    ("fault", "rows"), [(LoseResponse(), 1), (CutResponse(3), 1), (Silence(), 1), (BlackHole(), 0), (Delay(5), 1)]
)
def test_postgres(postgres, fault, rows):
    """The commit is done, or was never asked for; and the driver does not know."""
    armed: list[int] = []

    async def scene():
        url = f"postgresql://127.0.0.1:{postgres.port}"
        async with ChaosProxy(url, faulty_when(fault, armed)) as proxy:
            connection = await asyncpg.connect(postgres.url(port=proxy.port))
            try:
                assert await connection.fetchval("SELECT $1::int", 5) == 5
                await connection.copy_records_to_table("faults_met", records=[(0,)] * 1_000)
                await connection.execute("TRUNCATE faults_met")
                armed.append(1)
                told = False
                with suppress(asyncpg.PostgresError, OSError, TimeoutError):
                    await connection.execute("INSERT INTO faults_met VALUES (1)", timeout=0.5)
                    told = True
            finally:
                connection.terminate()
            return told

    assert asyncio.run(scene()) is isinstance(fault, Delay)
    with postgres.connect() as connection:
        assert connection.execute("SELECT count(*) FROM faults_met").fetchone() == (rows,)


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize(("fault", "counted"), [(LoseResponse(), 1), (CutResponse(2), 1), (BlackHole(), 0)])
def test_redis(valkey, fault, counted, protocol):
    """The command is done, or never came; and the driver does not know."""
    armed: list[int] = []

    async def scene():
        async with ChaosProxy(f"redis://{valkey.address}", faulty_when(fault, armed)) as proxy:
            options = {"protocol": protocol, "retry": None, "socket_timeout": 0.5}
            async with redis.Redis(port=proxy.port, single_connection_client=True, **options) as client:
                await client.flushall()
                await client.hset("table", mapping={"a": "1", "b": "two lines\r\nof text"})
                assert len(await client.hgetall("table")) == 2
                armed.append(1)
                with pytest.raises(redis.RedisError):
                    await client.incr("counter")

    asyncio.run(scene())
    assert int(valkey.ask("GET", "counter") or 0) == counted


def test_what_cannot_be_carried():
    """Another protocol is refused, and what there is is said."""
    with pytest.raises(ConfigurationError, match="is no address that can be carried"):
        ChaosProxy("amqp://127.0.0.1:1", Nothing())
