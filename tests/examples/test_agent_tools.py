"""The refund desk: the agent's server is gone in the middle of a call, and the books have one refund."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

from mcp import Client, StdioServerParameters, stdio_client

from tests.examples.serving import EXAMPLES

PLACE = EXAMPLES / "agent_tools_mcp"
PATIENCE_S = 60


def environment(place, **more):
    """Of a process that finds this package, and keeps its books here."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "DESK_FILE": str(place / "desk.db"), **more}


def test_an_agent_whose_call_is_lost(tmp_path):
    """It prints what its page says."""
    done = subprocess.run(
        [sys.executable, PLACE / "agent.py"], cwd=tmp_path, env=environment(tmp_path), text=True, capture_output=True,
        check=False, timeout=PATIENCE_S,
    )  # fmt: skip
    page = (PLACE / "README.md").read_text("utf-8")
    assert done.returncode == 0, done.stderr
    assert done.stdout in page


def test_the_desk(tmp_path):
    """A refund that is too much is refused, each time anew; a smaller one needs a key of its own."""

    async def calls():
        server = StdioServerParameters(
            command=sys.executable, args=[str(PLACE / "desk.py")], env=environment(tmp_path), cwd=tmp_path
        )
        async with asyncio.timeout(PATIENCE_S), Client(stdio_client(server)) as client:
            wish = {"order": "o-2", "idempotency_key": "k-1"}
            much, again = [await client.call_tool("refund", {**wish, "cents": 9_999}) for _ in range(2)]
            other = await client.call_tool("refund", {**wish, "cents": 1_200})
            done = await client.call_tool("refund", {**wish, "cents": 1_200, "idempotency_key": "k-2"})
            books = await client.call_tool("refunds", {"order": "o-2"})
        assert much.is_error
        assert much.content == again.content
        assert ((again.meta or {}).get("idempotent-replayed"), other.is_error) == (None, True)
        assert (done.structured_content["cents"], books.structured_content) == (1_200, {"result": [1_200]})

    asyncio.run(calls())
