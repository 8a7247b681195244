"""A provider of machines, as providers are: slow. `PROVIDER_SLOW_S` says how slow."""

from __future__ import annotations

import asyncio
import os

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

SLOW_S = float(os.environ.get("PROVIDER_SLOW_S", "2"))
machines: dict[str, dict[str, str]] = {}
names: dict[str, str] = {}


async def make(request: Request) -> Response:
    """Make a machine; a key that it has seen gets the machine that was made for it, at once."""
    key, wish = request.headers["idempotency-key"], await request.json()
    if key not in machines:
        machines[key] = {"machine": f"m-{len(machines) + 1}", "size": wish["size"], "label": wish["label"]}
        await asyncio.sleep(SLOW_S)
    return JSONResponse(machines[key], 201)


async def name(request: Request) -> Response:
    """Give a name to a machine. There are no keys here: it refuses a name that is taken."""
    wish = await request.json()
    if wish["name"] in names:
        return JSONResponse({"error": "taken"}, 409)
    names[wish["name"]] = wish["machine"]
    await asyncio.sleep(SLOW_S)
    return JSONResponse(wish, 201)


async def named(request: Request) -> Response:
    """Which machine has a name."""
    machine = names.get(request.path_params["name"])
    return JSONResponse({"machine": machine}, 200 if machine else 404)


async def counted(request: Request) -> Response:
    """How many machines were made with a label, named or not."""
    label = request.query_params["label"]
    return JSONResponse({"total": sum(machine["label"] == label for machine in machines.values())})


async def all_of_it(_: Request) -> Response:
    """What there is."""
    return JSONResponse({"machines": list(machines.values()), "names": names})


app = Starlette(
    routes=[
        Route("/machines", make, methods=["POST"]),
        Route("/machines", counted),
        Route("/names", name, methods=["POST"]),
        Route("/names/{name:path}", named),
        Route("/", all_of_it),
    ]
)
