"""Each example application, started by the command of its README, passes the core cases of the verifier."""

from __future__ import annotations

import re
import uuid
from contextlib import contextmanager

import psycopg
import pytest

from retrysafe.demo.processes import free_port
from tests.examples.serving import EXAMPLES, ROOT, node, started, suite
from tests.stores import postgres_server
from tests.verify.serving import verify

# Examples that are tried in another way, and where.
ELSEWHERE = {
    "agent_tools_mcp": "tests/examples/test_agent_tools.py",  # it speaks no HTTP
}
READY = {
    "payments_fastapi": "/openapi.json",
    "shop_django": "/ready",
    "bookings_flask": "/rooms/1/bookings",
    "provisioning_starlette": "/ready",
    "parcels_node": "/parcels",
    "checkout_browser": "/openapi.json",
}
# In which cases need room: beds, places, money, a provider that is quick.
ROOM = {"BOOKINGS_BEDS": "100000", "VAN_PLACES": "100000", "PROVIDER_SLOW_S": "0", "TICKETS_MAX": "100000"}
# Without these two, nothing was shown.
SHOWN = ("REP-01", "CON-01")


@contextmanager
def database(name):
    """A database with money in it, for the payments; nothing for the others."""
    if name != "payments_fastapi":
        yield {}
        return
    server, place = postgres_server.server(), f"payments_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {place}")
        yield {"DATABASE_URL": server.url(place)}
        connection.execute(f"DROP DATABASE {place} WITH (FORCE)")


@pytest.mark.parametrize("name", READY)
def test_the_core_cases_pass(name, tmp_path):
    """None fails, none is inconclusive, and those that show most are among those that pass."""
    if name == "parcels_node":
        node()
    provider_port = free_port()
    ports = {"PROVIDER_PORT": str(provider_port)}
    with database(name) as data, started(name, tmp_path, READY[name], **data, **ports, **ROOM) as server:
        done = verify("--suite", str(suite(name, tmp_path, p8000=server.port, p9000=provider_port)), "--jobs", "4")
    assert done.exit_code == 0, done.output
    passed = set(re.findall(r"^pass +([A-Z]+-[0-9]+)", done.output, re.MULTILINE))
    assert set(SHOWN) <= passed


def test_every_example_is_in_the_list_and_tried():
    """Each has a page, and is verified with the command of the list or tried elsewhere."""
    listed = (EXAMPLES / "README.md").read_text("utf-8")
    folders = {path.name for path in EXAMPLES.iterdir() if path.is_dir() and not path.name.startswith("_")}
    assert folders == set(READY) | set(ELSEWHERE)
    for name in folders:
        assert f"]({name}/README.md)" in listed
        assert (EXAMPLES / name / "README.md").exists()
    for name in READY:
        assert f"sh examples/{name}/start.sh" in listed
    assert all((ROOT / place).exists() for place in ELSEWHERE.values())
