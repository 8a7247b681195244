"""Runs a server of the laboratory, and knows how a verifier gets at all of it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import uvicorn

from retrysafe.lab.mutants.correct import LEASE_S, LIFETIME_S, ORIGINS, Server
from retrysafe.verify.options import Given, build
from retrysafe.verify.probe import Run, Settings

HOST = "127.0.0.1"
Certificate = tuple[str, str]  # the files of the certificate and of its key
SETTINGS = Settings(
    width=4, flood=60, samples=15, timeout_s=10.0, patience_s=4.0, settle_s=0.0, head_start_s=0.1, effects_max=50_000
)
ORDER = '{"reference":"{{unique}}","item":"tea","quantity":1}'
OPERATIONS = {
    "slow": f"POST /orders?delay=1000 {ORDER}",
    "short-lived": f"POST /short {ORDER}",
    "read": "GET /orders?reference={{unique}}",
    "modify": "PUT /orders?reference={{unique}} {}",
    "remove": "DELETE /orders?reference={{unique}}",
    "second": f"POST /refunds {ORDER}",
    "path-1": f"POST /tickets/1 {ORDER}",
    "path-2": f"POST /tickets/2 {ORDER}",
    "patch": f"PATCH /counters {ORDER}",
    "delete": "DELETE /orders?reference={{unique}}",
    "multipart": 'POST /uploads?reference={{unique}} {"name":"{{unique}}","file":"some text"}',
    "cookie": f"POST /sessions {ORDER}",
    "accepted": f"POST /exports {ORDER}",
    "stream": f"POST /reports {ORDER}",
    "redirect": f"POST /forms {ORDER}",
    "slash": f"POST /orders/ {ORDER}",
    "secret": f"POST /tokens {ORDER}",
    "unprotected": f"POST /plain {ORDER}",
    "public": f"POST /signups {ORDER}",
    "limited": f"POST /orders?fail=limit {ORDER}",
    "decline": f"POST /orders?fail=decline {ORDER}",
    "fail-before": f"POST /orders?fail=before {ORDER}",
    "fail-after": f"POST /orders?fail=after {ORDER}",
    "unavailable": f"POST /orders?fail=unavailable {ORDER}",
    "outlasting": f"POST /short?delay=2500 {ORDER}",
    "impatient": f"POST /orders?delay=700&patience=50 {ORDER}",
    "die-before": f"POST /orders?die=before {ORDER}",
    "die-after": f"POST /orders?die=after {ORDER}",
    "unrecorded": f"POST /orders?store=fails {ORDER}",
    "status": "GET /requests",
}
HOOKS = {name: f"POST /lab/{name}" for name in ("store-down", "store-up", "revoke", "restore")}


def run_of(server: Server, base_url: str, replica: str, sandbox: str) -> Run:
    """A run that can try every case, against a server of the laboratory."""
    given = Given(
        operation=f"POST {base_url}/orders",
        json=ORDER,
        account=("Authorization: Bearer alice",),
        other_account=("Authorization: Bearer bob",),
        second_credential=("Authorization: Bearer alice-2",),
        effects="GET /orders?reference={{unique}} $.total",
        with_=OPERATIONS,
        hook=HOOKS,
        origin=ORIGINS,
        replica=replica,
        sandbox=sandbox,
        lifetime_s=LIFETIME_S,
        lease_s=LEASE_S,
        required=True,
        profile="retrysafe",
    )
    run = build(given, SETTINGS)
    run.target = replace(run.target, openapi=server.papers())
    return run


@asynccontextmanager
async def serving(*applications: Server, tls: Certificate | None = None) -> AsyncIterator[list[str]]:
    """Serve applications on free ports, in this event loop; gives their addresses."""
    servers = [await _start(config(application, tls=tls)) for application in applications]
    loops = [asyncio.create_task(server.main_loop()) for server, _ in servers]
    try:
        scheme = "https" if tls else "http"
        yield [f"{scheme}://{HOST}:{listener.getsockname()[1]}" for _, listener in servers]
    finally:
        for server, _ in servers:
            server.should_exit = True
            server.force_exit = True
        await asyncio.gather(*loops)
        for server, listener in servers:
            await server.shutdown(sockets=[listener])


async def _start(how: uvicorn.Config) -> tuple[uvicorn.Server, socket.socket]:
    listener = socket.create_server((HOST, 0), backlog=256)
    server = uvicorn.Server(how)
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)
    await server.startup(sockets=[listener])
    return server, listener


def config(application: Server, port: int = 0, tls: Certificate | None = None) -> uvicorn.Config:
    """How a server of the laboratory runs; with the files of a certificate and its key, over TLS."""
    return uvicorn.Config(
        application,
        HOST,
        port,
        http=application.parser,
        loop="asyncio",
        lifespan="off",
        access_log=False,
        log_level="critical",
        date_header=application.dates,
        ssl_certfile=tls and tls[0],
        ssl_keyfile=tls and tls[1],
    )
