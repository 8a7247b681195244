"""`complete_within` behind the WSGI door: Flask with a session of SQLAlchemy, in every end of its transaction."""

from __future__ import annotations

import uuid

import flask
import pytest
import sqlalchemy
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from retrysafe import Policy, operation
from retrysafe.wsgi import IdempotencyMiddleware
from tests.operation.kinds import INSERT, PLACES
from tests.operation.selling import OutOfStock


def shop(place, endings):
    """An application that sells; each request ends like the next of `endings`."""
    app = flask.Flask("shop")
    engine = sqlalchemy.create_engine(place.url, poolclass=NullPool)

    @app.post("/orders")
    def order():
        name, ending = flask.request.json["name"], endings.pop(0)
        with Session(engine) as session:
            session.execute(INSERT, {"name": name})
            answer = flask.jsonify(sold=name)
            operation().complete_within(session, answer)
            if ending == "commit":
                session.commit()
        if ending == "raise":
            raise OutOfStock
        return "not recorded", 200 if ending != "say so" else 409

    app.testing = True  # what a handler raises goes on to the server
    app.wsgi_app = IdempotencyMiddleware(  # type: ignore[method-assign]  # as Flask asks for it
        app.wsgi_app, store=place.store, scope="header:X-Account", policy=Policy(transactional=True)
    )
    return app.test_client()


@pytest.mark.parametrize("engine", PLACES)
def test_every_end_of_a_transaction(engine, tmp_path):
    """Rolled back: nothing happened, and a retry runs. Committed: what was recorded is the answer, and is replayed."""
    place, name = PLACES[engine](tmp_path), uuid.uuid4().hex
    endings = ["forget", "say so", "commit"]
    client = shop(place, endings)

    def ask():
        return client.post("/orders", json={"name": name}, headers={"Idempotency-Key": name, "X-Account": "7"})

    rolled_back = ask()
    assert (rolled_back.status_code, rolled_back.json["code"], place.orders(name)) == (500, "rolled-back", 0)
    assert (ask().data, place.orders(name)) == (b"not recorded", 0)
    for replayed in (None, "true"):
        answer = ask()
        assert (answer.status_code, answer.json, place.orders(name)) == (200, {"sold": name}, 1)
        assert answer.headers.get("Idempotent-Replayed") == replayed
    assert endings == []
    place.store.close()


def test_a_handler_that_raises(tmp_path):
    """Its transaction is rolled back, and the key is free."""
    place, name = PLACES["sqlite"](tmp_path), uuid.uuid4().hex
    client = shop(place, ["raise", "commit"])

    def ask():
        return client.post("/orders", json={"name": name}, headers={"Idempotency-Key": name, "X-Account": "7"})

    failed = ask()
    assert failed.status_code == 500
    with pytest.raises(OutOfStock):  # after the answer, for the server's log
        failed.get_data()
    assert place.orders(name) == 0
    assert (ask().json, place.orders(name)) == ({"sold": name}, 1)
    place.store.close()
