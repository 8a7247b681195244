"""What a gateway promises to clients: at its own path, and printed from its settings."""

from __future__ import annotations

import json

from click.testing import CliRunner

from retrysafe import Policy
from retrysafe.cli import main
from tests.gateway.origin import OK, answering
from tests.gateway.serving import before, call, keyed

PATH = "/.well-known/idempotency-contract"
FILE = """
scope = "header:X-Account-Id"

[policy]
lifetime = "7d"

[routes."POST /orders"]
required = true

[routes."POST /search"]
enrolled = false
"""
APPLICATION = """
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from retrysafe.starlette import IdempotencyMiddleware, idempotent

@idempotent(required=True, lifetime="2d")
async def pay(request):
    return JSONResponse({})

app = Starlette(routes=[Route("/pay", pay, methods=["POST"])])
plain = Starlette()
app.add_middleware(IdempotencyMiddleware, store="sqlite:////nowhere/at/all.db", scope="authorization")
"""


FLASK = """
from flask import Flask

from retrysafe.flask import Idempotency, idempotent

app = Flask("shop")
Idempotency(app, store="sqlite:////nowhere/at/all.db", scope="user", contract_path="/contract")

@app.post("/pay/<int:number>")
@idempotent(lifetime="3d")
def pay(number):
    return {}

@app.post("/find")
@idempotent(enrolled=False)
def find():
    return {}
"""


def cli(*arguments):
    """Run a command."""
    return CliRunner().invoke(main, ["contract", *arguments], prog_name="retrysafe")


def test_the_gateway_answers_by_itself():
    """It has the problems of a gateway too, and the upstream hears nothing."""
    with before(answering(OK), contract_path=PATH) as (server, port):
        answer = call(port, "GET", PATH)
        assert (answer.status, answer.value("content-type")) == (200, "application/json")
        assert "upstream-unreachable" in {problem["code"] for problem in answer.json["problems"]}
        assert server.heads == []


def test_a_page_from_the_settings_file(tmp_path):
    """Neither an upstream nor a store is needed for it."""
    (tmp_path / "retrysafe.toml").write_text(FILE)
    done = cli("--config", str(tmp_path / "retrysafe.toml"))
    assert done.exit_code == 0
    assert "| `POST /orders` | required | 7 days |" in done.output
    assert "| `POST /search` | has no meaning |" in done.output
    assert done.output.endswith("|\n")


def test_as_json_from_options():
    """For programs; what is wrong is told."""
    done = cli("--scope", "anonymous", "--policy", "required=true", "--status-path", "/status", "--json")
    said = json.loads(done.output)
    assert (said["default"]["required"], said["default"]["scope"], said["status"]) == (True, "anonymous", "/status")
    assert cli("--policy", "required=true").exit_code == 2
    assert cli("--scope", "anonymous", "--policy", "life=7d").exit_code == 2


def test_a_page_of_an_application(tmp_path, monkeypatch):
    """Its store is not opened, and its marked handlers are there; what has no door is refused."""
    (tmp_path / "pay_shop.py").write_text(APPLICATION)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    done = cli("pay_shop:app")
    assert done.exit_code == 0
    assert "| `POST /pay` | required | 2 days |" in done.output
    assert "the credential in `Authorization`" in done.output
    (tmp_path / "flask_shop.py").write_text(FLASK)
    said = cli("flask_shop:app").output
    assert "| `POST /pay/<int:number>` | if you want it | 3 days |" in said
    assert "| `POST /find` | has no meaning |" in said
    assert (cli("pay_shop:plain").exit_code, "no door" in cli("pay_shop:plain").output) == (2, True)


def test_answers_say_until_when_they_are_replayed():
    """Where the policy asks for it; what the upstream says of that is its own, and goes no further."""
    upstream = OK.replace(b"\r\n\r\n", b"\r\nIdempotency-Expires: never\r\n\r\n")
    with before(answering(upstream), policy=Policy(expires_header=True)) as (_, port):
        first, again = [keyed(port, "k-1").all("idempotency-expires") for _ in range(2)]
        assert (len(first), first) == (1, again)
        assert first[0].endswith(" GMT")
        assert call(port, "POST", "/orders", b"order").all("idempotency-expires") == []
