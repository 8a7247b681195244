"""An agent whose call is lost: it loses patience, its server is gone in the middle, and it calls again."""

from __future__ import annotations

import asyncio
import os
import sys
import uuid
from pathlib import Path
from typing import Any

from mcp import Client, MCPError, StdioServerParameters, stdio_client
from mcp_types import CallToolResult

DESK = Path(__file__).with_name("desk.py")
PATIENCE_S = float(os.environ.get("AGENT_PATIENCE_S", "3"))


def desk(receipt_s: float) -> Client:
    """A client of a desk of its own, which is started, and ends with it."""
    environment = {**os.environ, "DESK_RECEIPT_S": str(receipt_s)}
    return Client(stdio_client(StdioServerParameters(command=sys.executable, args=[str(DESK)], env=environment)))


async def call(tool: str, arguments: dict[str, Any], receipt_s: float = 0) -> CallToolResult | None:
    """What a tool answers; None if that takes too long, and then its server is not waited for either."""
    async with desk(receipt_s) as client:
        try:
            return await client.call_tool(tool, arguments, read_timeout_seconds=PATIENCE_S if receipt_s else None)
        except MCPError:
            return None


async def settled(tool: str, arguments: dict[str, Any]) -> CallToolResult:
    """What it comes to: the same call is made again for as long as the desk says that this is of use."""
    while True:
        result = await call(tool, arguments)
        problem = (result.meta or {}).get("idempotency-problem", {}) if result else {"retryable": True}
        if result is not None and not problem.get("retryable"):
            return result
        await asyncio.sleep(problem.get("retry_after", 1))


async def main() -> None:
    """Refund an order; the answer to the first attempt is lost."""
    wish = {"order": "o-1", "cents": 500, "idempotency_key": str(uuid.uuid4())}
    lost = await call("refund", wish, receipt_s=600)
    print("first attempt: ", "no answer in time" if lost is None else lost.structured_content)
    again = await settled("refund", wish)
    print("second attempt:", again.structured_content)
    books = await settled("refunds", {"order": "o-1"})
    print("in the books:  ", books.structured_content)


asyncio.run(main())
