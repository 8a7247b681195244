"""Each rule: an application that has what it looks for, and one that has not."""

from __future__ import annotations

import pytest

from retrysafe.audit.rules import RULES
from tests.audit.auditing import DOOR, Module, ids

STARLETTE = """
from starlette.applications import Starlette
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Mount, Route

from retrysafe import Policy, operation
from retrysafe.starlette import IdempotencyMiddleware, idempotent


{handlers}


app = Starlette(routes=[{routes}])
app.add_middleware(IdempotencyMiddleware, {door})
"""
PLAIN = "async def handler(request):\n    return JSONResponse({})\n"
REQUIRED = f"@idempotent(required=True)\n{PLAIN}"


def marked(options: str, body: str = "    return JSONResponse({})\n") -> str:
    """A handler with a mark."""
    return f"@idempotent({options})\nasync def handler(request):\n{body}"


STREAM = "    return StreamingResponse(iter(['a']))\n"
COMMITS = "    operation().complete_within(None, None)\n" + "    return JSONResponse({})\n"
STEPS = "    await operation().step('pay', print)\n    return JSONResponse({})\n"
BEGINS = "    operation().begin_effects()\n    return JSONResponse({})\n"
TRANSACTIONS = 'store="sqlite:///never-opened.db", scope="header:X-Account"'

# (the handler, its path, arguments of the door beside store and scope, what is found)
CASES = [
    (PLAIN, "/notes", "", []),
    (PLAIN, "/notes", 'policy=Policy(methods=("PUT",))', ["AUD-01 POST /notes"]),
    (PLAIN, "/notes", 'mode="observe"', ["AUD-01 POST /notes"]),
    (REQUIRED, "/notes", 'routes={"POST /notes": Policy(mode="observe")}', ["AUD-01 POST /notes"]),
    (PLAIN, "/notes", 'routes={"POST /notes": None}', []),
    (marked("enrolled=False"), "/notes", "", []),
    (PLAIN, "/charges", 'routes={"POST /charges": None}', ["AUD-01 POST /charges"]),
    (marked("enrolled=False"), "/charges", "", ["AUD-01 POST /charges"]),
    (PLAIN, "/charges", "", ["AUD-02 POST /charges"]),
    (REQUIRED, "/charges", "", []),
    (PLAIN, "/charges", "policy=Policy(required=True)", []),
    (marked('lifetime="1h"'), "/notes", "", ["AUD-03 POST /notes"]),
    (marked('lifetime="24h"'), "/notes", "", []),
    (marked(""), "/notes", 'policy=Policy(header="PayPal-Request-Id", lifetime="2h")', ["AUD-03 POST /notes"]),
    (marked(""), "/notes", 'policy=Policy(header="PayPal-Request-Id", lifetime="4h")', []),
    (marked("", STREAM), "/notes", "", ["AUD-05 POST /notes"]),
    (marked('on_receipt="receipt"', STREAM), "/notes", "", []),
    (marked("response_bytes_max=5", STREAM), "/notes", "", []),
    (PLAIN, "/notes", 'routes={"POST /notse": Policy()}', ["AUD-07 POST /notse"]),
    (PLAIN, "/notes", 'routes={"PUT /notes": Policy()}', ["AUD-07 PUT /notes"]),
    (PLAIN, "/notes/{id:int}", 'routes={"POST /notes/{note}": Policy(), "POST /notes/7": None}', []),
    (PLAIN, "/files/{rest:path}", 'routes={"POST /files/a/b": Policy()}', []),
    (
        PLAIN,
        "/notes/{id}",
        'routes={"POST /notes/{a}": Policy(), "POST /notes/{b}": Policy()}',
        ["AUD-07 POST /notes/{b}"],
    ),
    (marked("transactional=True"), "/notes", "", ["AUD-08 POST /notes"]),
    (marked("transactional=True", COMMITS), "/notes", "", []),
    (marked("", COMMITS), "/notes", "", ["AUD-08 POST /notes"]),
    (marked('transactional=True, recovery="manual"', COMMITS), "/notes", "", ["AUD-08 POST /notes"]),
    (marked('required=True, recovery="rerun"'), "/charges", "", ["AUD-09 POST /charges"]),
    (marked('required=True, recovery="rerun"', STEPS), "/charges", "", []),
    (marked('recovery="rerun"'), "/notes", "", []),
    (marked('effects="declared"'), "/notes", "", ["AUD-10 POST /notes"]),
    (marked('effects="declared"', BEGINS), "/notes", "", []),
    (marked('required=True, fingerprint="none"'), "/charges", "", ["AUD-11 POST /charges"]),
    (marked('fingerprint="none"'), "/notes", "", []),
]


@pytest.mark.parametrize(("handler", "path", "settings", "expected"), CASES)
def test_operations(handler, path, settings, expected, *, tmp_path, monkeypatch):
    """One handler at one path, behind the door with these settings."""
    monkeypatch.chdir(tmp_path)
    source = STARLETTE.format(
        handlers=handler, routes=f'Route("{path}", handler, methods=["POST"])', door=f"{DOOR}, {settings}"
    )
    assert ids(Module(tmp_path, source).audit()) == expected


DOORS = [
    ('store="sqlite:///x.db", scope="authorization"', ["AUD-06 scope"]),
    ('store="sqlite:///x.db", scope="header: X-Api-Key"', ["AUD-06 scope"]),
    ('store="sqlite:///x.db", scope="user"', []),
    ('store="sqlite:///x.db", scope="anonymous"', ["AUD-12 scope"]),
    ('store="memory://", scope=lambda _: "one"', ["AUD-13 store"]),
]


@pytest.mark.parametrize(("door", "expected"), DOORS)
def test_doors(door, expected, tmp_path, monkeypatch):
    """Whose key it is, and where the records are."""
    monkeypatch.chdir(tmp_path)
    routes = 'Route("/charges", handler, methods=["POST"])'
    made = Module(tmp_path, STARLETTE.format(handlers=REQUIRED, routes=routes, door=door)).audit()
    assert ids(made) == expected
    assert all(it["line"] == 17 for it in made["findings"])


def test_nobody_owns_what_is_no_money(tmp_path, monkeypatch):
    """Keys of anybody are a choice, where nothing is paid."""
    monkeypatch.chdir(tmp_path)
    door = 'store="sqlite:///x.db", scope="anonymous"'
    routes = 'Route("/notes", handler, methods=["POST"])'
    assert not ids(Module(tmp_path, STARLETTE.format(handlers=PLAIN, routes=routes, door=door)).audit())


@pytest.mark.parametrize(("glue", "expected"), [("asgi", ["AUD-15 POST /notes"]), ("starlette", [])])
def test_marks(glue, expected, tmp_path, monkeypatch):
    """The door around any application reads no marks; that of the framework does."""
    monkeypatch.chdir(tmp_path)
    source = STARLETTE.format(
        handlers=marked("required=True"), routes='Route("/notes", handler, methods=["POST"])', door=DOOR
    )
    source = source.replace(
        "from retrysafe.starlette import IdempotencyMiddleware, idempotent",
        f"from retrysafe.{glue} import IdempotencyMiddleware\nfrom retrysafe.starlette import idempotent",
    )
    assert ids(Module(tmp_path, source).audit()) == expected


def test_windows(tmp_path, monkeypatch):
    """How long clients go on trying is said, or known by the profiles that they use; by the longest it is judged."""
    monkeypatch.chdir(tmp_path)
    module = Module(
        tmp_path, STARLETTE.format(handlers=PLAIN, routes='Route("/notes", handler, methods=["POST"])', door=DOOR)
    )
    assert not ids(module.audit("--retry-window", "24h"))
    (found,) = module.audit("--retry-window", "48h", "--client", "toss")["findings"]
    assert (found["id"], found["severity"]) == ("AUD-03", "warning")
    assert 'clients with the profile "toss" retry for 15 days' in found["seen"]
    module.write(
        STARLETTE.format(
            handlers=marked('tombstone="0s"'), routes='Route("/notes", handler, methods=["POST"])', door=DOOR
        )
    )
    (found,) = module.audit("--retry-window", "48h")["findings"]
    assert (found["severity"], "runs again as a new operation" in found["seen"]) == ("error", True)


def test_other_methods(tmp_path, monkeypatch):
    """PUT and DELETE are repeatable by their definition; here somebody says that they are not."""
    monkeypatch.chdir(tmp_path)
    routes = 'Route("/notes", handler, methods=["PUT", "GET", "POST"])'
    module = Module(tmp_path, STARLETTE.format(handlers=PLAIN, routes=routes, door=DOOR))
    assert not ids(module.audit())
    assert ids(module.audit("--method", "put")) == ["AUD-01 PUT /notes"]


def test_where_it_is(tmp_path, monkeypatch):
    """The file and the line of the handler, in a mounted application too; what cannot be looked into is told."""
    monkeypatch.chdir(tmp_path)
    routes = (
        'Mount("/v1", routes=[Route("/charges", handler, methods=["POST"])]), Mount("/old", app=lambda s, r, t: None)'
    )
    made = Module(tmp_path, STARLETTE.format(handlers=PLAIN, routes=routes, door=DOOR)).audit()
    (found,) = made["findings"]
    assert (found["where"], found["line"]) == ("POST /v1/charges", 10)
    assert found["file"].startswith("shop_")
    assert made["unseen"] == ["/old: an application is mounted there whose routes cannot be read"]


def test_silenced_beside_the_handler(tmp_path, monkeypatch):
    """By a comment on its head; one that names another rule, or that stands in its body, silences nothing."""
    monkeypatch.chdir(tmp_path)
    routes = 'Route("/charges", handler, methods=["POST"])'
    for comment, expected in [("AUD-02", []), ("AUD-01, AUD-02", []), ("AUD-01", ["AUD-02 POST /charges"])]:
        head = f"async def handler(request):  # retrysafe: ignore {comment}\n    return JSONResponse({{}})\n"
        made = Module(tmp_path, STARLETTE.format(handlers=head, routes=routes, door=DOOR)).audit()
        assert ids(made) == expected
        assert made["summary"]["silenced"] == 1 - len(expected)
    body = "async def handler(request):\n    return JSONResponse({})  # retrysafe: ignore AUD-02\n"
    assert ids(Module(tmp_path, STARLETTE.format(handlers=body, routes=routes, door=DOOR)).audit())


def test_each_rule_is_tried():
    """Here, or where documents and Django are."""
    tried = {text.partition(" ")[0] for *_, expected in [*CASES, *DOORS] for text in expected}
    assert tried | {"AUD-04", "AUD-14", "AUD-15"} == {rule.id for rule in RULES}


MOUNTED = """
from fastapi import Depends, FastAPI

from retrysafe.fastapi import IdempotencyKey, IdempotencyMiddleware, describe

inner = FastAPI()


@inner.post("/charges")
def charge({parameters}) -> None:
    pass


inner.add_middleware(IdempotencyMiddleware, {door})
describe(inner)
app = FastAPI()
app.mount("/v1", inner)


@app.post("/notes")
def note() -> None:
    pass
"""


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ("", ["AUD-02 POST /v1/charges"]),
        ("operation=Depends(IdempotencyKey())", []),
        ("operation=Depends(IdempotencyKey(required=False))", ["AUD-02 POST /v1/charges"]),
    ],
)
def test_mounted(parameters, expected, tmp_path, monkeypatch):
    """A mounted application's own door counts for it, and for nothing else; a dependency may require the key."""
    monkeypatch.chdir(tmp_path)
    made = Module(tmp_path, MOUNTED.format(parameters=parameters, door=DOOR)).audit()
    assert sorted(ids(made)) == sorted(["AUD-01 POST /notes", *expected])


LITESTAR = """
from litestar import Litestar, post

from retrysafe.litestar import IdempotencyPlugin


@post("/notes/{at}", opt={opt})
async def note() -> None:
    pass


app = Litestar([note], plugins=[IdempotencyPlugin({door}, exclude="internal", exclude_opt_key="plain")])
"""


@pytest.mark.parametrize(
    ("at", "opt", "protected"),
    [
        ("open", "{}", True),
        ("internal", "{}", False),
        ("open", '{"plain": True}', False),
        ("open", '{"idempotency": False}', False),
        ("open", '{"idempotency": {"lifetime": "7d"}}', True),
    ],
)
def test_litestar_exclusions(at, opt, protected, *, tmp_path, monkeypatch):
    """What the plugin is told to leave alone is taken out, and not protected; the document does not say that it is."""
    monkeypatch.chdir(tmp_path)
    source = LITESTAR.replace("{at}", at).replace("{opt}", opt).replace("{door}", DOOR)
    made = Module(tmp_path, source).audit()
    assert (ids(made), [it["protected"] for it in made["operations"]]) == ([], [protected])


FLASK = """
from flask import Flask
from flask.views import MethodView

from retrysafe import Policy
from retrysafe.flask import Idempotency, idempotent

app = Flask(__name__)


class Notes(MethodView):
    @idempotent(required=True, lifetime="1h")
    def post(self):
        pass

    @idempotent(enrolled=False)
    def patch(self):
        pass

    def delete(self):
        pass


app.add_url_rule("/notes/<int:number>", view_func=Notes.as_view("notes"))
Idempotency(app, {door}, routes={{"PATCH /notes/{{n}}": Policy(), "POST /notes/{{n}}": None, "POST /x/y": Policy()}})
"""


def test_views_of_methods(tmp_path, monkeypatch):
    """In Flask marks go before the table, and stand at the methods of a class."""
    monkeypatch.chdir(tmp_path)
    made = Module(tmp_path, FLASK.format(door=DOOR)).audit()
    assert ids(made) == ["AUD-03 POST /notes/<int:number>", "AUD-07 POST /x/y"]
    fragments = {(it["put"], it["line"], it["text"]) for it in made["fragments"]}
    assert fragments == {("instead", 12, '@idempotent(required=True, lifetime="1d")'), ("remove", 25, '"POST /x/y"')}
    assert ids(Module(tmp_path, FLASK.format(door=DOOR)).audit("--method", "DELETE"))[0] == (
        "AUD-01 DELETE /notes/<int:number>"
    )


def test_a_document_that_cannot_be_made(tmp_path, monkeypatch):
    """What is wrong with somebody's models hides no route."""
    monkeypatch.chdir(tmp_path)
    broken = "\n\ndef fail():\n    raise ZeroDivisionError\n\n\napp.openapi = fail\n"
    made = Module(tmp_path, MOUNTED.format(parameters="", door=DOOR) + broken).audit()
    assert made["unseen"] == ["its OpenAPI document, which cannot be made: ZeroDivisionError"]
    assert ids(made) == ["AUD-02 POST /v1/charges", "AUD-01 POST /notes"]
