"""A request that is sent again and not let in: that is no outcome of its operation."""

from __future__ import annotations

import pytest
from flask import Flask
from flask_login.utils import login_url  # type: ignore[import-untyped]  # it has none
from starlette.applications import Starlette
from starlette.authentication import AuthenticationBackend, requires
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient

from retrysafe import Policy, model, operation
from retrysafe.model import State
from retrysafe.operation.recovery import Fared
from retrysafe.protocol.detour import comes_back
from tests.drive.harness import in_loop
from tests.operation.abandoned import Case, leave


def of_flask():
    """Where Flask-Login does."""
    with Flask("shop").test_request_context("http://shop.example/orders"):
        return login_url("/login", next_url="http://shop.example/orders?q=1")


def of_starlette():
    """Where `requires` does."""

    class Nobody(AuthenticationBackend):
        async def authenticate(self, connection):
            return None

    @requires("authenticated", redirect="sign_in")
    async def order(request):
        raise AssertionError

    app = Starlette(routes=[Route("/orders", order, methods=["POST"]), Route("/sign-in", order, name="sign_in")])
    app.add_middleware(AuthenticationMiddleware, backend=Nobody())
    return TestClient(app).post("/orders", follow_redirects=False).headers["location"]


def answering(status, location=None):
    """A case whose handler answers so."""
    case = Case()
    headers = {} if location is None else {"Location": location}

    async def handle(request):
        case.runs.append({})
        return Response(status_code=status, headers=headers)

    case.handle = handle  # type: ignore[method-assign]  # the handler of this test
    return case


@pytest.mark.parametrize("answer", [
    lambda: (401, None), lambda: (403, None), lambda: (302, "/accounts/login/?next=/orders"), lambda: (302, of_flask()),
    lambda: (303, of_starlette()),
])  # fmt: skip
@in_loop
async def test_who_is_not_let_in(answer):
    """By a status, or by a redirect to where one signs in, of each framework: it is released, and somebody is told."""
    case = answering(*answer())
    case.abandon()
    assert await case.recover(case.make_door()) == {Fared.TURNED_AWAY: 1}
    assert (case.states(), len(case.runs)) == ([State.RETRYABLE], 1)
    assert await case.recover(case.make_door()) == {}


@pytest.mark.parametrize("location", [
    "/orders/7", "/orders", "/done?next=/orders/7", "/login?next=%2Forders%2F", "/login", "http://[", "/login?next=http://[",
    "",
])  # fmt: skip
@in_loop
async def test_a_redirect_to_what_was_made(location):
    """That is an outcome, and whatever cannot be told from it."""
    case = answering(303, location)
    case.abandon()
    assert await case.recover(case.make_door()) == {Fared.DRIVEN: 1}
    assert case.states() == [State.COMPLETED]


@in_loop
async def test_an_application_that_says_what_its_answers_mean():
    """Its `classify` is believed."""
    policy = Policy(recovery="rerun", classify=lambda response: None)
    case = answering(302, "/login?next=/orders")
    leave(case.store.inner, "/orders", policy=policy)
    case.clock.now_ms += 61_000
    assert await case.recover(case.make_door(policy=policy)) == {Fared.DRIVEN: 1}
    assert case.states() == [State.COMPLETED]


@pytest.mark.parametrize("begins", [False, True])
@in_loop
async def test_where_effects_are_declared(begins):
    """A handler that has said that they begin was let in; one that has not said so, and redirects, was not."""
    policy = Policy(recovery="rerun", effects="declared")
    case = Case()

    async def handle(request):
        case.runs.append({})
        if begins:
            operation().begin_effects()
        return Response(status_code=303, headers={"Location": "/pay?return_to=/orders"})

    case.handle = handle  # type: ignore[method-assign]  # the handler of this test
    leave(case.store.inner, "/orders", policy=policy)
    case.clock.now_ms += 61_000
    fared, state = (Fared.DRIVEN, State.COMPLETED) if begins else (Fared.TURNED_AWAY, State.RETRYABLE)
    assert await case.recover(case.make_door(policy=policy)) == {fared: 1}
    assert (case.states(), len(case.runs)) == ([state], 1)


def test_a_client_is_answered_as_ever():
    """A redirect to sign in that a client itself has got is not looked into: it may have been made after an effect."""
    case = answering(302, "/login?next=/orders")
    app = TestClient(case.make_door())
    first, again = (
        app.post("/orders", headers={"Idempotency-Key": "k-1", "X-Account": "a"}, follow_redirects=False) for _ in "12"
    )
    assert (first.status_code, again.headers["idempotent-replayed"]) == (302, "true")


def test_paths_that_are_escaped():
    """They are compared as they are meant."""
    head = leave(Case().store.inner, "/caf%C3%A9%20x")._execute.request.head
    location = b"/login?next=/caf%C3%A9%20x"
    answer = model.Response(302, ((b"Location", location),))
    assert comes_back(answer, head)
