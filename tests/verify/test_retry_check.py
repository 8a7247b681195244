"""`retry_check` in every framework: what is protected passes, what is not fails by the right cases, and says why."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing, contextmanager

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from retrysafe import Policy, operation
from retrysafe.asgi import IdempotencyMiddleware
from retrysafe.drive import aio, sync
from retrysafe.errors import CallerError, ConfigurationError
from retrysafe.lab.interruptions import interruptible
from retrysafe.lab.mutants.catalogue import FOUND_BY
from retrysafe.lab.mutants.correct import Server
from retrysafe.lab.mutants.privacy import KeysAreNotScoped
from retrysafe.lab.mutants.reuse import ReuseRuns
from retrysafe.lab.mutants.serving import OPERATIONS
from retrysafe.testing import NotSafeToRetry, retry_check
from retrysafe.testing.asked import Options
from tests.verify.checked_apps import ACCOUNTS, MAKERS, SCOPE, Orders, asgi, checked

# For the last four the engine is needed: a request that takes its time, a client that leaves, a worker that dies.
ENGINE = ("CON-04", "CON-08", "OUT-08", "OUT-09")
CASES = ("REP-01", "SEC-01", *ENGINE)


@contextmanager
def shop(name, store):
    """A client of a shop, and its orders."""
    orders = Orders()
    yield from ((client, orders) for client in MAKERS[name](orders, store))


@pytest.mark.parametrize("name", MAKERS)
def test_what_is_protected_passes(name, tmp_path):
    """Also while its client leaves, and when its worker dies: then nobody knows the outcome, and nothing runs again."""
    with shop(name, f"sqlite:///{tmp_path / 'records.db'}") as (client, orders):
        report = checked(name, client, effects=orders.count, cases=CASES)
    assert report.is_protected
    assert set(report.passed) == set(CASES)
    for dead in ("OUT-08", "OUT-09"):
        assert "409" in report[dead].notes[0]
        assert "outcome-unknown" in report[dead].notes[0]


@pytest.mark.parametrize("store", ["memory://", None])
def test_a_form(store):
    """Of an application that takes forms, the cases about other content are tried too."""
    orders = Orders()

    async def order(request):
        form = await request.form()
        return JSONResponse({**orders.place(form["reference"]), "quantity": int(form["quantity"])})

    app = Starlette(routes=[Route("/orders", order, methods=["POST"])])
    if store:
        app.add_middleware(IdempotencyMiddleware, store=store, scope=SCOPE)
    cases = ("REP-01", "FPR-01", "FPR-02", "FPR-03", "CON-09")
    asked: Options = {
        "form": {"quantity": 1, "reference": "{{unique}}"},
        "accounts": ACCOUNTS,
        "cases": cases,
        "effects": orders.count,
    }
    if store:
        report = retry_check(TestClient(app), "POST", "/orders", **asked)
        assert set(report.passed) == set(cases) - {"FPR-03"}
        assert report["FPR-03"].verdict == "skip"
        return
    with pytest.raises(NotSafeToRetry) as raised:
        retry_check(TestClient(app), "POST", "/orders", **asked)
    assert {"REP-01", "FPR-01", "CON-09"} <= set(raised.value.report.failed)


@pytest.mark.parametrize("name", MAKERS)
def test_what_is_not_protected_fails(name):
    """By the cases about retries; what only the engine could bring about is not tried, and says so."""
    with shop(name, None) as (client, orders), pytest.raises(NotSafeToRetry) as raised:
        checked(name, client, effects=orders.count, cases=CASES)
    report = raised.value.report
    assert not report.is_protected
    assert report.failed == ["REP-01"]
    assert report.passed == ["SEC-01"]
    assert set(report.skipped) == set(ENGINE)
    assert report.skipped["CON-04"] == "needs an operation that takes its time: operations={'slow': ...}"
    assert orders.effects


def test_a_failure_tells_all():
    """What was sent and came, what was expected and seen, why it matters, and the source."""
    with shop("asgi", None) as (client, orders), pytest.raises(AssertionError) as raised:
        checked("asgi", client, effects=orders.count, cases="REP-01")
    text = str(raised.value)
    for part in (
        "POST /orders is not safe to retry, by the profile 'ietf'", "Every retry is a second charge.",
        "source          draft", "expected        1 effect", "seen            2 effects, after 2 x 201",
        "1. sent         curl", "came         201", "1 fail, 4 requests",
    ):  # fmt: skip
        assert part in text
    assert ACCOUNTS[0]["X-Account-Id"] not in text.split("X-Account-Id")[1][:20]


@pytest.mark.parametrize("kind", [Server, KeysAreNotScoped, ReuseRuns])
def test_mutants_are_found_by_the_same_cases(kind):
    """A server of the laboratory is found by those of its cases that are tried here, and by no others."""
    server = kind()
    try:
        report = retry_check(
            server, "POST", "/orders", json={"reference": "{{unique}}", "item": "tea", "quantity": 1},
            effects=lambda reference: server.shop.effects[reference], profile="retrysafe", required=True, strict=True,
            accounts=({"Authorization": "Bearer alice"}, {"Authorization": "Bearer bob"}),
            operations={name: OPERATIONS[name] for name in ("read", "second", "decline", "fail-after", "modify")},
            cases=("SYN", "REP", "FPR", "OUT", "MTH", "SEC-01", "SEC-02", "DOC"),
        )  # fmt: skip
    except NotSafeToRetry as unsafe:
        report = unsafe.report
    tried = {outcome.id for outcome in report.outcomes} - set(report.skipped) - set(report.inconclusive)
    found = {*report.failed, *report.warned}
    assert found == FOUND_BY.get(kind.__name__, set()) & tried
    assert bool(found) is (kind is not Server)
    assert len(tried) > 30


class Ledger:
    """Orders in the database of the records, placed in one commit with their record where the route says so."""

    def __init__(self, place):
        self.place = place

    async def order(self, request):
        """Place an order."""
        reference = (await request.json())["reference"]
        response = JSONResponse({"reference": reference}, status_code=201)
        with closing(sqlite3.connect(self.place, timeout=10)) as connection, connection:
            connection.execute("INSERT INTO orders VALUES (?)", (reference,))
            if request.url.path == "/within":
                operation().complete_within(connection, response)
        return response

    def execute(self, *statement):
        """On the thread of the test."""
        with closing(sqlite3.connect(self.place, timeout=10)) as connection, connection:
            return connection.execute(*statement).fetchall()

    def count(self, reference):
        """How many orders there are."""
        return self.execute("SELECT count(*) FROM orders WHERE reference = ?", (reference,))[0][0]


@pytest.mark.parametrize(("path", "failed"), [("/within", []), ("/again", ["OUT-09"])])
def test_what_runs_again(path, failed, tmp_path):
    """After a death, what commits with its record is done once; what may run again is done twice, and found."""
    place = tmp_path / "shop.db"
    ledger = Ledger(place)
    app = Starlette(routes=[Route(path, ledger.order, methods=["POST"])])
    routes = {"POST /within": Policy(transactional=True), "POST /again": Policy(recovery="rerun")}
    app.add_middleware(IdempotencyMiddleware, store=f"sqlite:///{place}", scope=SCOPE, routes=routes)
    with TestClient(app) as client:
        ledger.execute("CREATE TABLE orders (reference TEXT)")
        try:
            report = retry_check(
                client, "POST", path, json={"reference": "{{unique}}"}, effects=ledger.count, accounts=ACCOUNTS,
                cases=("OUT-08", "OUT-09"),
            )  # fmt: skip
        except NotSafeToRetry as unsafe:
            report = unsafe.report
    assert report.failed == failed
    assert report["OUT-08"].notes == ("past the lease a retry is answered 201",)
    assert report["OUT-09"].notes == ("past the lease a retry is answered 201",)


def test_who_the_client_is():
    """What a client sends of itself is the account: without it the application refuses, and the case is tried."""

    async def order(request):
        if request.headers.get("authorization") != "Bearer a" or request.headers["host"] != "testserver":
            return JSONResponse({"code": "unauthenticated"}, status_code=401)
        return JSONResponse({"number": 1, "language": request.headers["x-language"]}, status_code=201)

    app = Starlette(routes=[Route("/orders", order, methods=["POST"])])
    app.add_middleware(IdempotencyMiddleware, store="memory://", scope="authorization")
    client = TestClient(app, headers={"Authorization": "Bearer a", "X-Language": "en"})
    report = retry_check(client, "POST", "/orders", json={"a": 1}, cases=("OUT-02", "SEC-05"))
    assert set(report.passed) == {"OUT-02", "SEC-05"}


def test_ignored_cases_are_not_tried():
    """Each with its reason; without one the check does not begin."""
    with shop("asgi", None) as (client, orders):
        reason = {"FPR": "they are judged elsewhere"}
        report = checked("asgi", client, effects=orders.count, cases=("FPR-01", "SEC-01"), ignore=reason)
        assert report.skipped == {"FPR-01": "ignored: they are judged elsewhere"}
        with pytest.raises(ConfigurationError, match="no reason for FPR-01"):
            checked("asgi", client, cases="FPR-01", ignore={"FPR-01": " "})


def test_nothing_shown_is_a_failure():
    """Where no case that binds reached a verdict, the check fails, and every reason is told."""
    with shop("asgi", None) as (client, _), pytest.raises(NotSafeToRetry, match="nothing was shown") as raised:
        checked("asgi", client, cases=("CON-04", "SYN-04"))
    assert "takes its time" in str(raised.value)


async def _in_a_loop(client):
    return retry_check(client, "POST", "/orders", json={"a": 1})


def test_mistakes_are_told():
    """Who calls it wrongly is told how it is done."""
    with pytest.raises(CallerError, match="no client that has an application"):
        retry_check(object(), "POST", "/orders")
    with httpx.Client() as client, pytest.raises(CallerError, match="goes over a network"):
        retry_check(client, "POST", "/orders")
    for app in asgi(Orders(), None):
        with pytest.raises(CallerError, match="await retry_check_async"):
            asyncio.run(_in_a_loop(app))
        with pytest.raises(ConfigurationError, match="no request has it"):
            retry_check(app, "POST", "/orders", json={"a": 1}, effects=lambda reference: 0)
        with pytest.raises(ConfigurationError, match="operations= has sloow"):
            retry_check(app, "POST", "/orders", json={"a": 1}, operations={"sloow": "POST /slow"})


def test_checks_may_overlap():
    """Whichever ends first, requests of the other are interrupted still; afterwards the drivers are as they were."""
    drivers = ((aio.Driver, "run"), (sync.Driver, "start"), (sync.Held, "conclude"))
    before = [getattr(*driver) for driver in drivers]
    with interruptible():
        first, second = interruptible(), interruptible()
        wrapped = [getattr(*driver) for driver in drivers]
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert [getattr(*driver) for driver in drivers] == wrapped != before
    assert [getattr(*driver) for driver in drivers] == wrapped
    second.__exit__(None, None, None)
    assert [getattr(*driver) for driver in drivers] == before


def test_an_application_that_does_not_start():
    """Its lifespan failed: nothing is judged."""

    async def broken(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    with pytest.raises(CallerError, match="did not start"):
        retry_check(broken, "POST", "/orders", json={"a": 1})
