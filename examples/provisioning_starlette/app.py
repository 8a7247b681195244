"""Machines for customers, from a slow provider: Starlette, and one step for each call to the outside."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from retrysafe import Policy, operation
from retrysafe.operation import NOT_DONE, StepCall
from retrysafe.starlette import IdempotencyMiddleware, idempotent


@asynccontextmanager
async def prepared(app: Starlette) -> AsyncIterator[None]:
    """A client of the provider."""
    async with httpx2.AsyncClient(base_url=os.environ["PROVIDER_URL"], timeout=30) as provider:
        app.state.provider = provider
        yield


@idempotent(required=True, recovery="rerun", in_flight="wait", wait="30s")
async def provision(request: Request) -> Response:
    """Make a machine and give it a name. An attempt that follows a crash goes on where that one was."""
    provider: httpx2.AsyncClient = request.app.state.provider
    wish = await request.json()

    async def make(call: StepCall) -> Any:
        """The provider remembers keys: the same call may be sent again."""
        headers = {"Idempotency-Key": call.key, "Content-Type": "application/json"}
        return (await provider.post("/machines", content=call.input, headers=headers)).raise_for_status().json()

    made = await operation().step(
        "make-machine",
        make,
        input={"size": wish["size"], "label": wish["name"]},
        if_interrupted="resend",
        downstream_window="23h",
    )

    name = f"{request.headers['X-Account']}/{wish['name']}"  # names are a customer's own

    async def give_name(_: StepCall) -> Any:
        """Here it does not, so that nobody sends this again without having looked."""
        given = await provider.post("/names", json={"name": name, "machine": made["machine"]})
        return None if given.status_code == 409 else given.raise_for_status().json()

    async def look(_: StepCall) -> Any:
        """What became of an attempt to give the name."""
        found = await provider.get(f"/names/{name}")
        return NOT_DONE if found.status_code == 404 else found.raise_for_status().json()

    named = await operation().step("give-name", give_name, verify=look)
    machine = {"machine": made["machine"], "size": wish["size"]}
    if named is None:
        return JSONResponse({"error": "another machine of yours has this name", **machine}, 409)
    return JSONResponse({**machine, "name": wish["name"]}, 201, {"Location": f"/machines/{machine['machine']}"})


def ready(_: Request) -> Response:
    """For whoever waits for the start."""
    return Response("ready")


app = Starlette(
    routes=[Route("/machines", provision, methods=["POST"]), Route("/ready", ready)],
    lifespan=prepared,
)
app.add_middleware(
    IdempotencyMiddleware,
    store=os.environ.get("STORE", "sqlite:///provisioning.db"),
    scope="header:X-Account",
    policy=Policy(lease=os.environ.get("LEASE", "30s")),
    contract_path="/.well-known/idempotency-contract",
)
