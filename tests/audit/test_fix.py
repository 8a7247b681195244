"""What `--fix` prints, pasted where it says: the application is audited again, and nothing is found."""

from __future__ import annotations

import sys
from importlib import import_module

import httpx2
import pytest

from tests.audit.auditing import Module, command, ids
from tests.drive.harness import in_loop

ACCOUNT = {"X-Account-Id": "7", "X-Account": "7", "Idempotency-Key": "k-1"}

FASTAPI = """
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
{glue}
app = FastAPI()
done = []


@app.post(
    "/charges/{number}", status_code=201
)
{mark}
async def charge(number: int) -> dict[str, int]:
    done.append(number)
    return {"charges": len(done)}


@app.post("/export")
async def export() -> StreamingResponse:
    return StreamingResponse(iter(["a"]))


@app.post("/notes")
def note() -> None:
    done.append(0)
{door}
"""
STARLETTE = """
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
{glue}
done = []

{mark}
async def charge(request):
    done.append(1)
    return JSONResponse({"charges": len(done)}, 201)


app = Starlette(routes=[Route("/charges/{number}", charge, methods=["POST"])])
{door}
"""
LITESTAR = """
from litestar import Litestar, post
from litestar.params import FromPath
{glue}
done = []


@post("/charges/{number:int}")
{mark}
async def charge(number: FromPath[int]) -> dict[str, int]:
    done.append(number)
    return {"charges": len(done)}


app = Litestar([charge], {door} # door: here
)
"""
FLASK = """
from flask import Flask
{glue}
app = Flask(__name__)
done = []


@app.post("/charges/<int:number>")
{mark}
def charge(number):
    done.append(number)
    return {"charges": len(done)}, 201
{door}
"""
STORE = 'store="sqlite:///shop.db", scope="header:X-Account"'
SOURCES = {"fastapi": FASTAPI, "starlette": STARLETTE, "litestar": LITESTAR, "flask": FLASK}
GLUE = {
    "fastapi": "from retrysafe.fastapi import IdempotencyMiddleware, idempotent",
    "starlette": "from retrysafe.starlette import IdempotencyMiddleware, idempotent",
    "litestar": "from retrysafe.litestar import IdempotencyPlugin, idempotent",
    "flask": "from retrysafe.flask import Idempotency, idempotent",
}
DOORS = {
    "fastapi": f"app.add_middleware(IdempotencyMiddleware, {STORE})",
    "starlette": f"app.add_middleware(IdempotencyMiddleware, {STORE})",
    "litestar": f"plugins=[IdempotencyPlugin({STORE})],",
    "flask": f"Idempotency(app, {STORE})",
}


def source(framework, *, glue="", mark="", door=""):
    """An application, bare or with what it has already."""
    text = SOURCES[framework]
    for name, value in {"glue": glue, "mark": mark, "door": door}.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def bare(framework):
    return source(framework), ["AUD-01"]


def with_door(framework):
    return source(framework, glue=GLUE[framework], door=DOORS[framework]), ["AUD-02"]


def with_mark(framework):
    mark = '@idempotent(lifetime="1h")'
    return source(framework, glue=GLUE[framework], mark=mark, door=DOORS[framework]), ["AUD-02", "AUD-03"]


async def twice(app):
    """The same request, sent two times; the answers."""
    wsgi = type(app).__module__.startswith("flask")
    if wsgi:
        sent = [app.test_client().post("/charges/7", headers=ACCOUNT) for _ in range(2)]
        return [(answer.status_code, answer.get_json()) for answer in sent]
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://shop") as client:
        got = [await client.post("/charges/7", headers=ACCOUNT) for _ in range(2)]
        without = await client.post("/charges/7", headers={"X-Account-Id": "7", "X-Account": "7"})
        assert (without.status_code, without.json()["code"]) == (400, "key-missing")
    return [(answer.status_code, answer.json()) for answer in got]


@pytest.mark.parametrize("made", [bare, with_door, with_mark])
@pytest.mark.parametrize("framework", SOURCES)
@in_loop
async def test_pasted(framework, made, tmp_path, monkeypatch):
    """From nothing, from a door alone, and from a handler that is marked: afterwards a retry does nothing twice."""
    monkeypatch.chdir(tmp_path)
    text, expected = made(framework)
    module = Module(tmp_path, text)
    before = module.audit("--retry-window", "48h")
    assert set(expected) <= {it["id"] for it in before["findings"] if "/charges" in it["where"]}
    module.paste(before)
    assert ids(module.audit("--retry-window", "48h")) == [], module.path.read_text("utf-8")
    app = import_module(module.path.stem).app
    first, again = await twice(app)
    assert first == again == (201, {"charges": 1})
    door = getattr(app, "wsgi_app", None)
    if door is not None:
        door.close()


def test_exclusions_are_undone_where_they_stand(tmp_path, monkeypatch):
    """In the table, and at the handler."""
    monkeypatch.chdir(tmp_path)
    in_table = DOORS["starlette"].replace(")", ', routes={\n    "POST /charges/{id}": None,\n})')
    module = Module(tmp_path, source("starlette", glue=GLUE["starlette"], door=in_table))
    found = module.audit()
    assert (ids(found), [it["put"] for it in found["fragments"]]) == (["AUD-01 POST /charges/{number}"], ["table"])
    at_handler = source(
        "starlette", glue=GLUE["starlette"], door=DOORS["starlette"], mark="@idempotent(enrolled=False)"
    )
    module = Module(tmp_path, at_handler)
    found = module.audit()
    assert [it["put"] for it in found["fragments"]] == ["instead"]
    module.paste(found)
    assert not ids(module.audit())


GENERIC = """
from retrysafe import Policy
from retrysafe.{kind} import IdempotencyMiddleware


def inner(*_):
    raise AssertionError


app = IdempotencyMiddleware(
    inner,
    store="memory://",
    scope="authorization",
    routes={{
        "POST /charges": Policy(lifetime="48h"),
        "POST /refunds": None,
        "PATCH /notes/{{id}}": Policy(lease="30s"),
        "PATCH /notes/{{other}}": Policy(),
    }},
)
"""


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_any_application(kind, tmp_path, monkeypatch):
    """Behind the door around anything, what the table names is known: its entries are mended, and so is the door."""
    monkeypatch.chdir(tmp_path)
    module = Module(tmp_path, GENERIC.format(kind=kind))
    before = module.audit("--retry-window", "48h")
    assert before["kind"] == kind
    assert ids(before) == [
        "AUD-01 POST /refunds",
        "AUD-02 POST /charges",
        "AUD-03 PATCH /notes/{id}",
        "AUD-03 PATCH /notes/{other}",
        "AUD-06 scope",
        "AUD-07 PATCH /notes/{other}",
        "AUD-13 store",
    ]
    lines = module.path.read_text("utf-8").splitlines()
    assert [lines[it["line"] - 1].strip() for it in before["findings"][-3:]] == [
        'scope="authorization",',
        '"PATCH /notes/{other}": Policy(),',
        'store="memory://",',
    ]
    module.paste(before)
    assert not ids(module.audit("--retry-window", "48h")), module.path.read_text("utf-8")


@pytest.mark.parametrize("framework", ["fastapi", "starlette", "flask"])
def test_a_door_that_reads_no_marks(framework, tmp_path, monkeypatch):
    """The framework's own takes its place."""
    monkeypatch.chdir(tmp_path)
    protocol = "wsgi" if framework == "flask" else "asgi"
    glue = f"from retrysafe.{protocol} import IdempotencyMiddleware\nfrom retrysafe.{framework} import idempotent"
    door = f"app.wsgi_app = IdempotencyMiddleware(app.wsgi_app, {STORE})" if framework == "flask" else DOORS[framework]
    module = Module(tmp_path, source(framework, glue=glue, door=door, mark="@idempotent(required=True)"))
    before = module.audit()
    assert "AUD-15" in {it["id"] for it in before["findings"]}
    if framework == "flask":  # where the old door has to go, which no fragment can do
        assert [it["text"].partition("(")[0] for it in before["fragments"] if it["put"] == "end"] == ["Idempotency"]
        return
    module.paste(before)
    assert not ids(module.audit()), module.path.read_text("utf-8")


def test_for_people(tmp_path, monkeypatch):
    """Each piece says what it is for, and where it goes."""
    monkeypatch.chdir(tmp_path)
    module = Module(tmp_path, source("flask", glue=GLUE["flask"], door=DOORS["flask"]))
    done = command(f"{module.path.stem}:app", "--fix")
    assert done.exit_code == 1
    assert done.stdout == (
        f"# AUD-02 POST /charges/<int:number>\n# {module.path.name}:10: put this before the line\n"
        "from retrysafe.flask import idempotent\n@idempotent(required=True)\n\n"
    )
    assert module.path.stem in sys.modules
