"""The glue of Starlette, FastAPI and Litestar: what is enrolled, what leaves no record, and what is said of it."""

from __future__ import annotations

import functools
import json
from typing import Annotated, Any

import litestar
import pytest
from fastapi import Depends, FastAPI
from litestar.params import FromPath
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Host, Route, Router

import retrysafe.fastapi
from retrysafe import ConfigurationError, Operation, Policy
from retrysafe.fastapi import IdempotencyKey, describe, idempotent
from retrysafe.litestar import IdempotencyPlugin
from retrysafe.server.marker import tells
from retrysafe.server.routed import door_of
from retrysafe.starlette import IdempotencyMiddleware
from retrysafe.stores.memory import MemoryStore
from tests.doors.connections import ask
from tests.doors.frameworks import SHOPS, Effects
from tests.doors.handlers import sending
from tests.drive.harness import in_loop

CHARGE, CONTRACT = "POST /v1/charges/7", "/.well-known/idempotency-contract"
GOOD, BAD = b'{"cents": 500}', b'{"dollars": 5}'


@pytest.fixture(params=SHOPS)
def framework(request):
    """The name of a framework."""
    return request.param


class Shop:
    """The shop of a framework."""

    def __init__(self, framework: str, **settings: Any) -> None:
        self.effects = Effects()
        self.app = SHOPS[framework](self.effects, **settings)

    async def ask(self, target: str = CHARGE, body: bytes = GOOD, **request: Any) -> Any:
        """Serve one request."""
        return await ask(self.app, target, body=body, **request)


@in_loop
async def test_first_and_again(framework):
    """A marked handler runs once, in a router in a router too."""
    shop = Shop(framework)
    first, again = await shop.ask(), await shop.ask()
    assert (first.status, first.replayed, again.status, again.replayed) == (201, False, 201, True)
    assert (again.body, shop.effects) == (first.body, ["charge 7"])


@in_loop
async def test_what_a_handler_is_marked_with_is_known_before_it_runs(framework):
    """A key that it needs, in an application that is mounted too; none where it is not marked."""
    shop = Shop(framework)
    for target in (CHARGE, "POST /sub/charges"):
        assert (await shop.ask(target, key=None)).code == "key-missing"
        assert not shop.effects
    assert [(await shop.ask("POST /plain", key=None)).status for _ in range(2)] == [201, 201]
    assert [(await shop.ask("POST /plain")).replayed for _ in range(2)] == [False, True]
    assert [(await shop.ask("POST /sub/charges", key="k-2")).replayed for _ in range(2)] == [False, True]
    assert [(await shop.ask("POST /out", key="k-3")).replayed for _ in range(2)] == [False, False]
    assert shop.effects == ["plain"] * 3 + ["elsewhere"] + ["out"] * 2


@in_loop
async def test_the_table_goes_before_the_marker(framework):
    """It may take a handler out, or hold instead of what it is marked with."""
    shop = Shop(framework, routes={CHARGE.replace("7", "{n}"): None, "POST /sub/charges": Policy()})
    assert [(await shop.ask()).replayed for _ in range(2)] == [False, False]
    assert (await shop.ask("POST /sub/charges", key=None)).status == 201


@in_loop
async def test_entries_of_the_table_that_name_one_handler():
    """Each holds for its own paths."""
    routes = {"POST /orders/a": Policy(required=True), "POST /orders/b": Policy(), "POST /orders/c": None}
    app = protected([Route("/orders/{name}", _answer, methods=["POST"])], routes=routes)
    for _ in range(2):
        assert (await ask(app, "POST /orders/a", key=None)).code == "key-missing"
        assert (await ask(app, "POST /orders/b", key=None)).status == 201
    assert [(await ask(app, "POST /orders/c")).replayed for _ in range(2)] == [False, False]


@pytest.mark.parametrize("status", [402, 403, 409, 503])
@in_loop
async def test_what_refuses_before_the_handler_leaves_no_record(framework, status):
    """Not even the fingerprint: the key is free for a request that is mended."""
    shop = Shop(framework)
    refused = await shop.ask(headers=[(b"x-refuse", str(status).encode())])
    assert (refused.status, refused.code, shop.effects) == (status, None, [])
    mended = await shop.ask(body=b'{"cents": 501}')
    assert (mended.status, mended.replayed, shop.effects) == (201, False, ["charge 7"])


@pytest.mark.parametrize(("name", "status"), [("fastapi", 422), ("litestar", 400)])
@pytest.mark.parametrize("body", [BAD, b"{", b'{"cents": "many"}'])
@in_loop
async def test_validation_leaves_no_record(name, status, body):
    """Its answer is the framework's own, and not one of our problems."""
    shop = Shop(name)
    refused = await shop.ask(body=body)
    assert (refused.status, refused.code, shop.effects) == (status, None, [])
    assert (await shop.ask()).status == 201


@in_loop
async def test_a_refusal_of_the_handler_is_recorded():
    """It was reached, and may have done something."""
    shop = Shop("starlette")
    answers = [await shop.ask(body=BAD) for _ in range(2)]
    assert [(answer.status, answer.replayed) for answer in answers] == [(422, False), (422, True)]


@in_loop
async def test_what_is_not_routed_is_not_protected(framework):
    """A path that is not there, a method that is not served: no record, and the framework's own answer."""
    store = MemoryStore()
    shop = Shop(framework, store=store)
    for target, status in (("POST /nowhere", 404), ("PATCH /v1/charges/7", 405), ("POST /v1/charges/x", 404)):
        answer = await shop.ask(target)
        assert answer.code is None
        assert answer.status in {status, 405, 422}
    assert not store._records
    assert (await shop.ask()).status == 201


@in_loop
async def test_the_contract(framework):
    """At its path, with every marked handler; each problem links to it."""
    shop = Shop(framework, contract_path=CONTRACT, status_path="/idempotency/requests")
    answer = await shop.ask(f"GET {CONTRACT}", key=None)
    said = json.loads(answer.body)
    assert (answer.status, answer.values("content-type")) == (200, ["application/json"])
    routes = {f"{it['method']} {it['path']}": it for it in said["routes"]}
    assert routes["POST /v1/charges/{number}"]["lifetime"] == "PT168H"
    assert routes["POST /sub/charges"]["required"]
    assert not routes["POST /out"]["supported"]
    assert said["status"] == "/idempotency/requests"
    problem = await shop.ask(key=None)
    assert f'<{CONTRACT}>; rel="service-meta"' in problem.values("link")
    assert (await shop.ask(f"POST {CONTRACT}")).status == 405
    assert (await shop.ask("GET /idempotency/requests")).code == "key-unknown"


@pytest.mark.parametrize("name", ["fastapi", "litestar"])
@in_loop
async def test_the_openapi_document(name):
    """Each enrolled operation says what it takes and what it may answer; others say nothing."""
    shop = Shop(name)
    answer = await shop.ask("GET /openapi.json" if name == "fastapi" else "GET /schema/openapi.json", key=None)
    document = json.loads(answer.body)
    charge = document["paths"]["/v1/charges/{number}"]["post"]
    assert {"$ref": "#/components/parameters/IdempotencyKey"} in charge["parameters"]
    assert document["components"]["parameters"]["IdempotencyKey"]["required"]
    assert {"400", "409", "412", "422", "503"} <= set(charge["responses"])
    assert "Idempotent-Replayed" in charge["responses"]["201"]["headers"]
    assert charge["x-idempotency"]["lifetime"] == "PT168H"
    assert "x-idempotency" not in document["paths"]["/out"]["post"]
    assert "x-idempotency" in document["paths"]["/plain"]["post"]


@in_loop
async def test_litestar_excludes():
    """By a pattern of paths, and by what a handler has in its `opt`."""
    for exclusion in ({"exclude": "^/v1"}, {"exclude_opt_key": "mine"}):

        @litestar.post("/v1/charges/{number:int}", opt={"mine": True})
        async def charge(number: FromPath[int]) -> int:
            return number

        plugin = IdempotencyPlugin(store=MemoryStore(), scope="header:X-Account", **exclusion)
        app: Any = litestar.Litestar([charge], plugins=[plugin], logging_config=None)
        assert [(await ask(app, CHARGE)).replayed for _ in range(2)] == [False, False]


@pytest.mark.parametrize("said", [7, "yes", {"lifetime": "long"}, {"life": "7d"}])
@in_loop
async def test_litestar_refuses_an_opt_that_it_does_not_understand(said):
    """When the application starts."""

    @litestar.post("/orders", opt={"idempotency": said})
    async def order() -> None:
        """Do nothing."""

    plugin = IdempotencyPlugin(store="memory://", scope="anonymous")
    app: Any = litestar.Litestar([order], plugins=[plugin], logging_config=None)
    with pytest.raises(ConfigurationError, match=r"opt|lifetime"):
        plugin.door.learn_from(app)


# --- Starlette ------------------------------------------------------------------------------------


def protected(routes: list[Any], /, **settings: Any) -> Starlette:
    """An application with these routes."""
    settings = {"store": MemoryStore(), "scope": "header:X-Account", **settings}
    return Starlette(routes=routes, middleware=[Middleware(IdempotencyMiddleware, **settings)])


async def _answer(_: Request) -> Response:
    return JSONResponse({}, 201)


@in_loop
async def test_classes_are_marked_by_method():
    """Each function of an endpoint; what an endpoint does not have is not enrolled."""

    class Orders(HTTPEndpoint):
        @idempotent(required=True)
        async def post(self, request: Request) -> Response:
            return await _answer(request)

        @idempotent()
        async def put(self, request: Request) -> Response:
            return await _answer(request)

    store = MemoryStore()
    app = protected([Route("/orders", Orders)], store=store)
    assert (await ask(app, "PATCH /orders")).status == 405
    assert not store._records
    assert (await ask(app, "POST /orders", key=None)).code == "key-missing"
    assert [(await ask(app, "PUT /orders")).replayed for _ in range(2)] == [False, True]


@in_loop
async def test_hosts_have_routes_of_their_own():
    """The same path of two hosts is two handlers; none is remembered for the other."""
    needing = Router([Route("/orders", idempotent(required=True)(_answer), methods=["POST"])])
    app = protected(
        [Host("a.example", needing), Host("b.example", Router([Route("/orders", _answer, methods=["POST"])]))]
    )
    for _ in range(2):
        assert (await ask(app, "POST /orders", key=None, headers=[(b"host", b"a.example")])).code == "key-missing"
        assert (await ask(app, "POST /orders", key=None, headers=[(b"host", b"b.example")])).status == 201


@pytest.mark.parametrize("around", ["application", "router", "route"])
@in_loop
async def test_wherever_the_layer_stands(around):
    """Around the application, in its router, or around one route."""
    settings: dict[str, Any] = {"store": MemoryStore(), "scope": "header:X-Account"}
    layer = [Middleware(IdempotencyMiddleware, **settings)]
    marked = idempotent(required=True)(_answer)
    app: Any
    match around:
        case "application":
            app = IdempotencyMiddleware(Starlette(routes=[Route("/orders", marked, methods=["POST"])]), **settings)
        case "router":
            app = Router([Route("/orders", marked, methods=["POST"])], middleware=layer)
        case _:
            app = Starlette(routes=[Route("/orders", marked, methods=["POST"], middleware=layer)])
    assert (await ask(app, "POST /orders", key=None)).code == "key-missing"
    assert [(await ask(app)).replayed for _ in range(2)] == [False, True]


@in_loop
async def test_routes_that_are_added_later():
    """They are found, and what was not there is not remembered as absent."""
    app = protected([])
    assert (await ask(app)).status == 404
    app.router.routes.append(Route("/orders", idempotent(required=True)(_answer), methods=["POST"]))
    assert (await ask(app, key=None)).code == "key-missing"
    assert [(await ask(app)).replayed for _ in range(2)] == [False, True]


@in_loop
async def test_made_up_paths_are_not_kept_for_ever():
    """What was routed once is remembered within bounds."""
    app = protected([Route("/orders/{name:path}", _answer, methods=["POST"])])
    for number in range(1_030):
        await ask(app, f"POST /orders/{number}", key=None)
    await ask(app, f"POST /orders/{'x' * 300}", key=None)
    door: Any = app.middleware_stack
    while not isinstance(door, IdempotencyMiddleware):
        door = door.app
    router: Any = door._router
    assert 0 < len(router._routed) < 1_024
    assert max(len(path) for _, _, path in router._routed) < 256


class Badge(AuthenticationBackend):
    """Believes the field `X-Badge`."""

    async def authenticate(self, conn: Any) -> Any:
        """The user of a connection."""
        name = conn.headers.get("x-badge")
        return None if name is None else (AuthCredentials(), SimpleUser(name))


@in_loop
async def test_the_user_of_the_framework():
    """Whom authentication has found; a request without one is refused and runs nothing."""
    app = protected([Route("/orders", idempotent(required=True)(_answer), methods=["POST"])], scope="user")
    app.add_middleware(AuthenticationMiddleware, backend=Badge())
    for name in (b"ann", b"bob"):
        answers = [await ask(app, headers=[(b"x-badge", name)]) for _ in range(2)]
        assert [answer.replayed for answer in answers] == [False, True]
    assert (await ask(app)).code == "scope-missing"


@in_loop
async def test_what_is_wrong_with_markers_stops_the_start():
    """All of it at once: options that do not go together with the default, and a method that has no keys."""
    routes = [
        Route("/a", idempotent(execution_max="1s")(_answer), methods=["POST"]),
        Route("/b", idempotent()(_answer), methods=["GET"]),
    ]
    with pytest.raises(ConfigurationError) as refused:
        door_of(protected(routes))
    assert [fault.partition(":")[0] for fault in refused.value.faults] == ["POST /a", "/b"]
    lifespan: Any = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    said: list[Any] = []

    async def receive() -> Any:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        said.append(message)

    await protected(routes)(lifespan, receive, send)
    assert [message["type"] for message in said] == ["lifespan.startup.failed"]
    assert "/b" in said[0]["message"]


@pytest.mark.parametrize("options", [{"life": "7d"}, {"lifetime": "long"}, {"enrolled": False, "required": True}])
def test_a_marker_is_checked_where_it_stands(options):
    """An option that is none, one without a meaning, and options of what is taken out."""
    with pytest.raises(ConfigurationError):
        idempotent(**options)


@in_loop
async def test_a_decorator_around_the_marker_is_not_believed():
    """It copies the marker and may call something else: what holds is known, whether it was reached is not."""
    marked = idempotent(required=True)(_answer)

    @functools.wraps(marked)
    async def refusing(_: Request) -> Response:
        return JSONResponse({}, 409)

    assert tells(marked, "POST")
    assert not tells(refusing, "POST")
    app = protected([Route("/orders", refusing, methods=["POST"])])
    assert (await ask(app, key=None)).code == "key-missing"
    assert [(await ask(app)).replayed for _ in range(2)] == [False, True]


@in_loop
async def test_a_transaction_that_is_not_declared_does_not_run_again():
    """A marker that takes `transactional` back takes back what that implied."""
    assert Policy(transactional=True).recovery == "rerun"
    marked: Any = idempotent(transactional=False)(_answer)
    policy = marked.retrysafe_options.policy(Policy(transactional=True))
    assert (policy.transactional, policy.recovery) == (False, "manual")


def test_no_router():
    """Around something that is no application of Starlette the middleware says so."""
    with pytest.raises(ConfigurationError, match="no router"):
        door_of(IdempotencyMiddleware(sending(), store="memory://", scope="anonymous"))


# --- FastAPI --------------------------------------------------------------------------------------


@in_loop
async def test_the_dependency():
    """It gives the operation; without a key it refuses or gives None; and the document has its header once."""
    app = FastAPI()

    @app.post("/needing")
    def needing(operation: Annotated[Operation, Depends(IdempotencyKey())]) -> str:
        return f"{operation.key} {operation.attempt}"

    @app.post("/asking")
    def asking(operation: Annotated[Operation | None, Depends(IdempotencyKey(required=False))]) -> bool:
        return operation is None

    app.add_middleware(retrysafe.fastapi.IdempotencyMiddleware, store=MemoryStore(), scope="header:X-Account")
    assert [header["name"] for header in app.openapi()["paths"]["/asking"]["post"]["parameters"]] == ["Idempotency-Key"]
    describe(app)
    document = app.openapi()
    assert document["paths"]["/asking"]["post"]["parameters"] == [{"$ref": "#/components/parameters/IdempotencyKey"}]
    assert app.openapi() is document
    assert (await ask(app, "POST /needing")).body == b'"k-1 1"'
    assert (await ask(app, "POST /needing", key=None)).status == 400
    assert (await ask(app, "POST /asking", key=None)).body == b"true"
    assert (await ask(app, "POST /asking", key="k-2")).body == b"false"


def test_a_document_without_a_door():
    """It would promise what nothing holds."""
    app = FastAPI()
    describe(app)
    with pytest.raises(ConfigurationError, match="add_middleware"):
        app.openapi()


@in_loop
async def test_the_redirect_for_a_slash_leaves_no_record():
    """The request that follows it may have the key."""
    app = protected([Route("/orders/", idempotent(required=True)(_answer), methods=["POST"])])
    assert (await ask(app, "POST /orders")).status == 307
    assert (await ask(app, "POST /orders/")).status == 201


@in_loop
async def test_what_a_marker_says_is_laid_over_the_default():
    """Options that go together with the default alone."""
    shop = protected(
        [Route("/orders", idempotent(execution_max="1s")(_answer), methods=["POST"])], policy=Policy(lease="500ms")
    )
    door = door_of(shop)
    assert door is not None
    policy = door.published().routes["POST /orders"]
    assert policy is not None
    assert (policy.lease_ms, policy.execution_max_ms) == (500, 1_000)
