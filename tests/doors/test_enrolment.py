"""What the door takes in hand and what it lets pass, and under which policy."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from retrysafe import ConfigurationError, NoOperation, Policy, operation
from retrysafe.asgi import IdempotencyMiddleware
from retrysafe.errors import StoreUnusable
from retrysafe.model import Claim
from retrysafe.operation import current_operation
from retrysafe.protocol import transitions
from retrysafe.stores.memory import MemoryStore
from tests.doors.connections import Connection, ask, protected
from tests.doors.handlers import Shop, piece, sending, start
from tests.drive.harness import ManualClock, TamperedStore, in_loop, records, states


class _Witness:
    """Keeps what it was called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, object, object]] = []

    async def __call__(self, scope, receive, send):
        self.calls.append((scope, receive, send))
        with contextlib.suppress(NoOperation):
            assert operation() is None
        assert current_operation() is None
        if scope["type"] == "http":
            await sending(start(200), piece(b"ok"))(scope, receive, send)


@pytest.mark.parametrize("target", [
    "GET /orders", "HEAD /orders", "OPTIONS /orders", "TRACE /orders", "PUT /orders/1", "DELETE /orders/1",
    "POST /search", "POST /files/a/b", "PATCH /orders/7/draft",
])  # fmt: skip
@in_loop
async def test_what_is_not_enrolled_passes_untouched(target):
    """The application gets the very objects that the server gave, even with a key, and nothing is stored."""
    witness, store = _Witness(), TamperedStore(MemoryStore())
    routes = {"POST /search": None, "POST /files/{name:path}": None, "PATCH /orders/{id}/draft": None}
    door = protected(witness, store, routes=routes)
    connection = Connection(target)
    receive, send = connection.receive, connection.send
    await door(connection.scope, receive, send)
    ((scope, received, sent),) = witness.calls
    assert (scope is connection.scope, received is receive, sent is send) == (True, True, True)
    assert (store.done, connection.answer.status) == ([], 200)


@in_loop
async def test_a_request_without_a_key_passes_untouched():
    """No key is needed on this route: the application gets the server's own objects."""
    witness, store = _Witness(), TamperedStore(MemoryStore())
    door = protected(witness, store)
    connection = Connection(key=None, account=None)
    receive, send = connection.receive, connection.send
    await door(connection.scope, receive, send)
    ((scope, received, sent),) = witness.calls
    assert (scope is connection.scope, received is receive, sent is send) == (True, True, True)
    assert store.done == []


@in_loop
async def test_websockets_pass_untouched():
    """A websocket with a key in its headers is no concern of the door's."""
    witness = _Witness()
    connection = Connection("GET /orders", type="websocket")
    receive, send = connection.receive, connection.send
    await protected(witness)(connection.scope, receive, send)
    assert witness.calls == [(connection.scope, receive, send)]


@pytest.mark.parametrize(("target", "enrolled"), [
    ("POST /orders", True), ("POST /orders/", True), ("PATCH /orders/7", True),
    ("PUT /things/7", True), ("PUT /things/7/8", False), ("PUT /things", False), ("DELETE /things/7", False),
    ("PUT /tree/a", True), ("PUT /tree/a/b/c", True), ("PUT /tree/", False),
    ("PUT /exact+sign", True), ("PUT /exactXsign", False), ("POST /things/none", False),
        ("DELETE /v1.0/7", True), ("DELETE /v1x0/7", False),
])  # fmt: skip
@in_loop
async def test_the_table_decides_before_routing(target, enrolled):
    """Templates, opting in of a method, and `None`, which takes a route out; exact entries win."""
    routes = {
        "PUT /things/{id}": Policy(), "PUT /tree/{rest:path}": Policy(), "PUT /exact+sign": Policy(),
        "POST /things/{id}": Policy(), "POST /things/none": None,
        "DELETE /v1.0/{id}": Policy(),
    }  # fmt: skip
    store = MemoryStore()
    await ask(protected(Shop(), store, routes=routes), target)
    assert len(states(store)) == enrolled


@pytest.mark.parametrize(("root_path", "path"), [
    ("", "/orders/7"), ("/api", "/api/orders/7"), ("/api", "/orders/7"), ("/o", "/orders/7"),
])  # fmt: skip
@in_loop
async def test_the_table_speaks_of_paths_below_the_root(root_path, path):
    """Servers differ in whether the path has the root path before it; the entry matches all the same."""
    store = MemoryStore()
    door = protected(Shop(), store, routes={"POST /orders/{id}": None})
    await ask(door, f"POST {path}", root_path=root_path)
    assert states(store) == []


@in_loop
async def test_a_mounted_application():
    """Inside of a mount the table speaks of the mounted application's paths."""
    shop, store = Shop(), MemoryStore()
    door = protected(shop, store, policy=Policy(methods=("PATCH",)), routes={"POST /orders": Policy(required=True)})
    app = Starlette(routes=[Mount("/api", app=door)])
    assert (await ask(app, "POST /api/orders", key=None)).code == "key-missing"
    assert (await ask(app, "POST /api/orders")).status == 201
    assert (await ask(app, "POST /api/orders")).replayed
    assert (await ask(app, "POST /api/other", key=None)).status == 201
    assert shop.effects == 2


@in_loop
async def test_each_route_has_its_own_policy():
    """The header, the marker and the limits of one route are not those of another."""
    routes = {
        "POST /odd": Policy(header="X-Request-Key", replay_marker="X-Again", request_bytes_max=4),
        "POST /even": Policy(required=True),
    }
    shop = Shop()
    door = protected(shop, routes=routes)
    odd: dict[str, Any] = {"key": None, "headers": [(b"x-request-key", b"k")], "body": b"1234"}
    assert (await ask(door, "POST /odd", **odd)).values("x-again") == []
    assert (await ask(door, "POST /odd", **odd)).values("x-again") == ["true"]
    assert (await ask(door, "POST /odd", **{**odd, "body": b"12345"})).code == "body-too-large"
    assert (await ask(door, "POST /even", key=None)).code == "key-missing"
    assert (await ask(door, "POST /even", body=b"12345")).status == 201
    assert shop.effects == 2


@in_loop
async def test_as_middleware_of_an_application():
    """Added as the framework adds middleware: an answer, a missing page, a wrong method, and a handler that raises."""
    effects = []

    async def order(request):
        effects.append(operation().key)
        if request.query_params:
            raise ZeroDivisionError
        raise HTTPException(402, "no money")

    app = Starlette(routes=[Route("/orders", order, methods=["POST"])])
    app.add_middleware(IdempotencyMiddleware, store=MemoryStore(), scope="header:X-Account")
    for target, key, status, replayed in [
        ("POST /orders", "k-1", 402, True), ("POST /nowhere", "k-2", 404, True), ("PATCH /orders", "k-3", 405, False),
    ]:  # fmt: skip
        assert [(await ask(app, target, key=key)).status for _ in range(2)] == [status] * 2
        assert (await ask(app, target, key=key)).replayed is replayed
    first, again = Connection("POST /orders?x", key="k-4"), Connection("POST /orders?x", key="k-4")
    assert ((await first.run(app)).code, isinstance(first.error, ZeroDivisionError)) == ("handler-failed", True)
    assert ((await again.run(app)).replayed, again.error) == (True, None)
    assert effects == ["k-1", "k-4"]


# --- whose key it is ------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [
    [], [(b"x-account", b"")], [(b"x-account", b" ")], [(b"x-account", b"alice"), (b"x-account", b"mallory")],
])  # fmt: skip
@in_loop
async def test_no_account_no_execution(headers):
    """None, an empty one, or two: 401, nothing runs, nothing is stored; there is no shared bucket."""
    shop, store = Shop(), MemoryStore()
    refused = await ask(protected(shop, store), account=None, headers=headers)
    assert (refused.status, refused.code, shop.effects, states(store)) == (401, "scope-missing", 0, [])
    assert refused.values("www-authenticate")


@in_loop
async def test_accounts_do_not_see_each_other():
    """The same key and the same request under another account is another operation, and no other one's conflict."""
    shop = Shop()
    door = protected(shop)
    assert ((await ask(door)).body, (await ask(door, account="bob")).body) == (b"order 1", b"order 2")
    assert (await ask(door, account="bob", body=b"other")).code == "key-reused"
    assert (await ask(door, account="carol", body=b"other")).body == b"order 3"


@in_loop
async def test_namespaces_do_not_see_each_other():
    """Two environments on one store: the same key runs in each."""
    shop, store = Shop(), MemoryStore()
    for namespace in ("live", "sandbox"):
        assert not (await ask(protected(shop, store, namespace=namespace))).replayed
    assert shop.effects == 2


class _User:
    def __init__(self, **attributes):
        self.__dict__.update(attributes)


async def _later(connection):
    return "alice"


_BEARER = [(b"authorization", b"Bearer x")]


@pytest.mark.parametrize(("scope", "extra", "found"), [
    ("authorization", {"headers": _BEARER}, True),
    ("authorization", {}, False),
    ("user", {"user": _User(is_authenticated=True, identity="alice")}, True),
    ("user", {"user": _User(is_authenticated=True, display_name="alice")}, True),
    ("user", {"user": _User(is_authenticated=False, identity="alice")}, False),
    ("user", {"user": _User(identity="alice")}, False),
    ("user", {"user": _User(is_authenticated=True)}, False),
    ("user", {"user": None}, False),
    ("user", {}, False),
    (lambda connection: connection.get("tenant"), {"tenant": "alice"}, True),
    (lambda connection: connection.get("tenant"), {}, False),
    (lambda _: "", {}, False),
    (_later, {}, True),
])  # fmt: skip
@in_loop
async def test_the_kinds_of_scope(scope, extra, found):
    """Each finds its account where it says, and none where there is none."""
    door = IdempotencyMiddleware(Shop(), store=MemoryStore(), scope=scope)
    assert (await ask(door, **extra)).status == (201 if found else 401)


@in_loop
async def test_without_an_account_keys_must_be_unguessable():
    """An anonymous scope takes keys of 128 bits and refuses others."""
    shop = Shop()
    door = IdempotencyMiddleware(shop, store=MemoryStore(), scope="anonymous")
    assert ((await ask(door, key="order-7")).code, shop.effects) == ("key-invalid", 0)
    key = "0d9a1c52-6c3e-4a55-9a0e-2f3b7f9f2c11"
    assert ((await ask(door, key=key)).status, (await ask(door, key=key)).replayed) == (201, True)


@in_loop
async def test_a_scope_that_cannot_be_resolved_fails_the_request():
    """The resolver raises: so does the request, before anything is claimed."""

    def fail(_):
        raise LookupError

    shop, store = Shop(), MemoryStore()
    with pytest.raises(LookupError):
        await ask(IdempotencyMiddleware(shop, store=store, scope=fail))
    assert (shop.effects, states(store)) == (0, [])


async def _never(_):
    return False


@pytest.mark.parametrize("authorize", [lambda _: False, lambda _: None, _never], ids=["false", "none", "coroutine"])
@in_loop
async def test_a_replay_may_be_refused(authorize):
    """Who lost the permission gets 403 and not the stored answer; a first request is the application's to judge."""
    shop = Shop()
    door = protected(shop, authorize=authorize)
    assert (await ask(door)).status == 201
    refused = await ask(door)
    assert (refused.status, refused.code, shop.effects) == (403, "replay-forbidden", 1)
    assert b"order" not in refused.body


@in_loop
async def test_a_replay_may_be_allowed():
    """`authorize` sees the connection of the one who asks."""
    seen = []

    def allow(connection):
        seen.append(connection["path"])
        return True

    door = protected(Shop(), authorize=allow)
    await ask(door)
    assert ((await ask(door)).replayed, seen) == (True, ["/orders"])


def _raise(_):
    raise ZeroDivisionError


@pytest.mark.parametrize("authorize", [lambda _: False, _never, _raise], ids=["false", "coroutine", "raises"])
@in_loop
async def test_a_late_owner_may_be_refused_what_another_did(authorize):
    """Its claim was taken over, and the outcome is another attempt's: it gets that only as a replay is got."""
    clock = ManualClock()
    inner = MemoryStore(clock)

    def outrun(transition):
        if isinstance(transition, transitions.CompleteIfHeld):
            clock.now_ms += 60_001
            late, other = transition.claim, Claim(transition.claim.record_id, b"o" * 16, 2)
            assert inner.perform(transitions.TakeOverIfLapsed(late.record_id, late.token, other.token, 60_000, 1_000))
            assert inner.perform(transitions.CompleteIfHeld(other, transition.response, 60_000, 60_000))

    connection = Connection()
    door = protected(Shop(), store=TamperedStore(inner, before=outrun), authorize=authorize)
    with contextlib.suppress(ZeroDivisionError):  # it goes on to the server, after the answer
        await connection.run(door)
    assert (connection.answer.status, connection.answer.code) == (403, "replay-forbidden")
    assert b"order" not in connection.answer.body


# --- what cannot be used --------------------------------------------------------------------------


def test_every_fault_of_the_configuration_is_told_at_once():
    """One error names them all, and what to do."""
    with pytest.raises(ConfigurationError) as caught:
        IdempotencyMiddleware(
            Shop(), store="mongodb://localhost", scope="cookie", drain="soon",
            routes={"GET /orders": Policy(), "orders": None},
        )  # fmt: skip
    faults = "\n".join(caught.value.faults)
    assert len(caught.value.faults) == 5
    for told in ("mongodb", "'cookie'", "drain", '"GET /orders"', '"orders"'):
        assert told in faults


@pytest.mark.parametrize(
    "scope", ["header:", "header: ", "headers:X", "", "header:Fußnote", "header:a b", "header:a:b"]
)
def test_a_scope_must_be_one_of_those_there_are(scope):
    """The message says which there are."""
    with pytest.raises(ConfigurationError, match='must be "header:NAME", "authorization", "user", "anonymous"'):
        IdempotencyMiddleware(Shop(), store="memory://", scope=scope)


@in_loop
async def test_another_secret_is_refused():
    """A process whose secret is not the store's must not run: every key would look new."""
    store, shop = MemoryStore(), Shop()
    await ask(protected(shop, store, secret="0123456789abcdef-one"))
    with pytest.raises(StoreUnusable, match="differs"):
        await protected(shop, store, secret="0123456789abcdef-two").open()
    assert (await ask(protected(shop, store, secret="0123456789abcdef-two"))).code == "store-unavailable"
    assert (await ask(protected(shop, store, secret=b"0123456789abcdef-one"))).replayed


@in_loop
async def test_malformed_requests_leave_nothing():
    """Bad keys in every shape: 400, nothing runs, nothing is stored."""
    shop, store = Shop(), MemoryStore()
    door = protected(shop, store)
    twice: dict[str, Any] = {"headers": [(b"idempotency-key", b"a")], "key": "a"}
    keys = ["", " ", "a,b", '"a", "b"', '"a', 'a"', '""', "k" * 256, '"' + "k" * 256 + '"', "\xe9", '"\xe9"', "a b",
            '"a b"', "a\x01", '"a\x7f"', "a;b", '"a";=', "'a'", "<a>", "a\\"]  # fmt: skip
    for request in [twice, *({"key": key} for key in keys)]:
        refused = await ask(door, **request)
        assert (refused.status, refused.code) == (400, "key-invalid"), request
        assert refused.values("cache-control") == ["no-store"]
    assert (shop.effects, states(store)) == (0, [])


# --- the handle on the operation ------------------------------------------------------------------


@in_loop
async def test_what_a_handler_may_say_of_its_operation():
    """Nothing happened: it runs again. Not even begun: another request may have the key. Not known: never again."""
    said, attempts, children = ["no_effect", "no_effect", None], [], []

    async def order(_):
        now = operation()
        attempts.append(now.attempt)
        children.append(now.child_key("charge"))
        if said and (word := said.pop(0)):
            getattr(now, word)()
        return PlainTextResponse(f"{now.key} of {now.scope}")

    store = MemoryStore()
    door = protected(Starlette(routes=[Route("/orders", order, methods=["POST"])]), store)
    for replayed in (False, False, False, True):
        assert (await ask(door)).replayed is replayed
    assert (attempts, len(set(children))) == ([1, 2, 3], 1)
    assert [record.attempt for record in records(store)] == [3]
    assert (await ask(door, body=b"other")).code == "key-reused"

    said[:] = ["not_run", None]
    assert (await ask(door, key="k-2")).body == b"k-2 of alice"
    assert (await ask(door, key="k-2", body=b"other")).status == 200
    said[:] = ["outcome_unknown"]
    assert (await ask(door, key="k-3")).status == 200
    assert (await ask(door, key="k-3")).code == "outcome-unknown"
    assert len(set(children)) == 3


@in_loop
async def test_an_answer_without_an_effect_that_raises_runs_again():
    """`no_effect()` and then an exception: believed, and the retry runs."""
    attempts = []

    async def application(*_):
        attempts.append(operation().attempt)
        operation().no_effect()
        raise ConnectionError

    door = protected(application)
    for _ in range(2):
        connection = Connection()
        assert (await connection.run(door)).status == 500
        assert isinstance(connection.error, ConnectionError)
    assert attempts == [1, 2]


@in_loop
async def test_operations_do_not_leak_from_one_request_to_another():
    """Two handlers at once, each with its own operation; outside there is none."""
    seen, both = {}, asyncio.Barrier(2)

    async def order(_):
        await both.wait()
        seen[operation().key] = operation().child_key("x")
        return PlainTextResponse("ok")

    door = protected(Starlette(routes=[Route("/orders", order, methods=["POST"])]))
    await asyncio.gather(ask(door, key="a"), ask(door, key="b"))
    assert (set(seen), len(set(seen.values())), current_operation()) == ({"a", "b"}, 2, None)
    with pytest.raises(NoOperation):
        operation()
