"""A server of tools in a process of its own, over either transport; it notes its effects, and dies where it is told.

Over HTTP its users come with tokens: of `ann-2`, the user is `ann`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mcp.server import MCPServer
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from retrysafe import Policy, operation
from retrysafe.mcp import Idempotency
from tests.doors.gates import failpoint, note

PORT = os.environ.get("SHOP_PORT")


class Tokens:
    """Knows every token that names a user."""

    async def verify_token(self, token: str) -> AccessToken | None:
        """Whose it is."""
        user, _, number = token.partition("-")
        return AccessToken(token=token, client_id=f"client-{number}", scopes=[], subject=user) if number else None


def made() -> MCPServer[Any]:
    """The server; over HTTP with users."""
    if PORT is None:
        return MCPServer("served")
    url: Any = f"http://127.0.0.1:{PORT}"
    auth = AuthSettings(issuer_url=url, resource_server_url=url, required_scopes=[])
    return MCPServer("served", token_verifier=Tokens(), auth=auth)


server = made()
idempotency = Idempotency(
    store=f"sqlite:///{Path(os.environ['SHOP_PLACE']) / 'records.db'}",
    scope="account:me" if PORT is None else "user",
    policy=Policy(lease="500ms"),
)


@idempotency.tool(server)
async def refund(order: str) -> dict[str, str]:
    """Refund an order."""
    note(f"refund {order}")
    failpoint("after-effect")
    return {"refunded": order}


@idempotency.tool(server, policy=Policy(lease="500ms", recovery="rerun"))
async def ship(order: str) -> dict[str, int]:
    """Ship an order, in two steps."""

    async def pack(_: Any) -> None:
        note(f"pack {order}")

    await operation().step("pack", pack)
    failpoint("after-step")
    return {"attempt": operation().attempt}


if PORT is not None:

    @server.custom_route("/ready", ["GET"])  # type: ignore[untyped-decorator]  # the library gives it no type
    async def ready(_: Request) -> Response:
        """For whoever waits for the start."""
        return PlainTextResponse("ready")

    app = server.streamable_http_app()
elif __name__ == "__main__":
    server.run()
