"""Tools over the protocol's own transports, on servers that are killed between the effect and the answer."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import httpx2
import pytest
from mcp import Client, MCPError, StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client

from retrysafe.demo.processes import await_ready, free_port
from tests.forked import child

PATIENCE_S = 30
MODULE = "tests.tools.served"
PATHS = os.pathsep.join(str(Path(path).resolve()) for path in sys.path)


class Stdio:
    """A server that each client starts for itself."""

    def __init__(self, place):
        self.place = place

    @contextmanager
    def served(self):
        yield self

    @asynccontextmanager
    async def client(self):
        server = StdioServerParameters(
            command=sys.executable, args=["-m", MODULE], cwd=self.place,
            env={"PYTHONPATH": PATHS, "SHOP_PLACE": str(self.place)},
        )  # fmt: skip
        with (self.place / "stdio.log").open("a") as log:
            async with Client(stdio_client(server, log)) as opened:
                yield opened


class Http:
    """A server that clients find at a port, with users."""

    def __init__(self, place):
        self.place = place
        self.port = 0

    @contextmanager
    def served(self):
        self.port = free_port()
        environment = {"SHOP_PLACE": str(self.place), "SHOP_PORT": str(self.port)}
        line = ("uvicorn", f"{MODULE}:app", "--port", str(self.port))
        with child("served", line, self.port, self.place, environment) as process:
            await_ready(process, "/ready")
            yield self

    @asynccontextmanager
    async def client(self, token="ann-1"):
        async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=PATIENCE_S) as http:
            transport = streamable_http_client(f"http://127.0.0.1:{self.port}/mcp", http_client=http)
            async with Client(transport) as opened:
                yield opened


def calls(shop, *wanted, **who):
    """Calls of one client, each until it is not in flight any more; without those after the server was gone."""
    results = []

    async def one(client, tool, key):
        while True:
            result = await client.call_tool(tool, {"order": "o-1", "idempotency_key": key})
            if code(result) != "in-progress":
                break
            await asyncio.sleep(0.05)  # the lease is in the hands of the server
        results.append(result)

    async def each():
        async with asyncio.timeout(PATIENCE_S), shop.client(**who) as client:
            for tool, key in wanted:
                await one(client, tool, key)

    with suppress(MCPError, httpx2.HTTPError, ExceptionGroup):  # what is raised within a client comes out in a group
        asyncio.run(each())
    return results


def code(result):
    """Of a refusal."""
    return (result.meta or {}).get("idempotency-problem", {}).get("code")


@pytest.fixture(params=[Stdio, Http])
def shop(request, tmp_path):
    """A server over one of the transports."""
    return request.param(tmp_path)


def ledger(shop):
    """What took effect."""
    return (shop.place / "ledger").read_text().splitlines()


def test_the_server_dies_between_the_effect_and_the_answer(shop):
    """What nobody may repeat is unknown, and says so; what goes on step by step is done, and its step once."""
    with shop.served():
        (first,) = calls(shop, ("refund", "whole"))
        (shop.place / "armed-after-effect").touch()
        assert calls(shop, ("refund", "dies")) == []
    with shop.served():
        (shop.place / "armed-after-step").touch()
        assert calls(shop, ("ship", "dies, too")) == []
    with shop.served():
        again, unknown, done = calls(shop, ("refund", "whole"), ("refund", "dies"), ("ship", "dies, too"))
    assert (again.content, first.structured_content) == (first.content, {"refunded": "o-1"})
    assert again.meta["idempotent-replayed"]
    assert (code(unknown), unknown.is_error) == ("outcome-unknown", True)
    assert done.structured_content == {"attempt": 2}
    assert ledger(shop) == ["refund o-1", "refund o-1", "pack o-1"]


def test_keys_of_users(tmp_path):
    """A new token, a new client and a new session of a user are the same user; another user has other keys."""
    shop = Http(tmp_path)
    with shop.served():
        results = [calls(shop, ("refund", "k-1"), token=token) for token in ("ann-1", "ann-2", "bob-1", "nobody")]
    replayed = [[(it.meta or {}).get("idempotent-replayed", False) for it in each] for each in results]
    assert (replayed, len(ledger(shop))) == ([[False], [True], [False], []], 2)
