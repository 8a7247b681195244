"""The payments example: PostgreSQL, one commit for each payment, and the money is counted."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import httpx2
import psycopg
import pytest

from tests.doors.servers import until
from tests.examples.serving import example, get, kill, post
from tests.stores import postgres_server

READY, PAY = "/openapi.json", "/v1/payments"
BOB = {"to": "bob", "cents": 500}


@pytest.fixture
def database():
    """A database of its own for each test: its URL."""
    server = postgres_server.server()
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS payments WITH (FORCE)")
        connection.execute("CREATE DATABASE payments")
    yield server.url("payments")
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute("DROP DATABASE payments WITH (FORCE)")


@pytest.fixture
def serving(database, tmp_path):
    """Starts the application, again if need be."""
    return lambda: example("payments_fastapi", tmp_path, READY, DATABASE_URL=database, LEASE="1s")


def money(database):
    """What each account has."""
    with psycopg.connect(database) as connection:
        return dict(connection.execute("SELECT name, cents FROM accounts ORDER BY name").fetchall())


def test_payments(serving, database):
    """Twenty attempts at once are one payment; refusals are outcomes, and what is not valid is none."""
    with serving() as server:
        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(lambda _: post(server, PAY, "k-1", BOB), range(20)))
        assert {answer.status_code for answer in answers} <= {201, 409}
        again = post(server, PAY, "k-1", BOB)
        assert (again.status_code, again.headers["idempotent-replayed"]) == (201, "true")
        assert again.headers["location"] == f"/v1/payments/{again.json()['payment']}"
        assert money(database) == {"ann": 9_500, "bob": 500}
        declined = [post(server, PAY, "k-2", {"to": "bob", "cents": 999_999}) for _ in range(2)]
        assert [(it.status_code, "idempotent-replayed" in it.headers) for it in declined] == [(402, False), (402, True)]
        nobody = post(server, PAY, "k-3", {"to": "carl", "cents": 1})
        assert (nobody.status_code, money(database)["ann"]) == (404, 9_500)
        assert post(server, PAY, "k-4", {"to": "bob", "cents": 0}).status_code == 422
        assert post(server, PAY, "k-4", BOB).status_code == 201
        assert post(server, PAY, None, BOB).json()["code"] == "key-missing"
        assert [it["cents"] for it in get(server, PAY)] == [500, 500]


def test_what_it_says_of_itself(serving):
    """Its OpenAPI document and its contract agree."""
    with serving() as server:
        operation = get(server, READY)["paths"][PAY]["post"]
        (route,) = get(server, "/.well-known/idempotency-contract")["routes"]
        assert {"method": "POST", "path": PAY, **operation["x-idempotency"]} == route
        assert (route["lifetime"], route["abandoned"]) == ("PT168H", "runs again")
        assert {"400", "409", "412", "422", "503"} <= set(operation["responses"])


def test_a_crash_in_the_middle_of_a_payment(serving, database):
    """The transaction is undone with the process; the next attempt pays, once."""
    with serving() as server, psycopg.connect(database) as lock:
        lock.execute("SELECT * FROM accounts WHERE name = 'bob' FOR UPDATE")
        broken = []

        def attempt():
            with pytest.raises(httpx2.TransportError):
                post(server, PAY, "k-1", BOB)
            broken.append(True)

        attempting = threading.Thread(target=attempt)
        attempting.start()
        until(lambda: _waits_for_a_lock(lock))
        kill(server)
        attempting.join()
        assert broken
    assert money(database) == {"ann": 10_000, "bob": 0}
    with serving() as server:
        answers = [post(server, PAY, "k-1", BOB)]

        def answered():
            answers.append(post(server, PAY, "k-1", BOB))
            return answers[-1].status_code != 409

        until(answered)
        assert answers[-1].status_code == 201
        assert money(database) == {"ann": 9_500, "bob": 500}
        assert len(get(server, PAY)) == 1


def _waits_for_a_lock(connection):
    return connection.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = 'payments' AND wait_event_type = 'Lock'"
    ).fetchone()[0]
