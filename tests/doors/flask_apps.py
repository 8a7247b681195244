"""A Flask application: what a request tells it to do, as `wsgi_apps` does it, and views that are marked."""

from __future__ import annotations

import os

from flask import Flask, abort, request
from flask.views import MethodView

from retrysafe import operation
from retrysafe.flask import Idempotency, idempotent
from retrysafe.operation import current_operation
from tests.doors.apps import _place, failpoint, note
from tests.doors.wsgi_apps import gate

application = Flask(__name__)
application.config.from_mapping(
    IDEMPOTENCY_STORE=f"sqlite:///{_place / 'records.db'}",
    IDEMPOTENCY_SCOPE="header:X-Account",
    IDEMPOTENCY_LEASE=os.environ.get("SHOP_LEASE", "10s"),
    IDEMPOTENCY_ROUTES={"POST /open": None},
)
Idempotency(application)


@application.before_request
def guard():
    """Refuses what says so, before any view."""
    if request.headers.get("X-Refuse"):
        abort(int(request.headers["X-Refuse"]))


@application.get("/ready")
def ready():
    return "ready"


def done():
    """An effect, and an answer."""
    name = request.get_json()["name"]
    note(f"effect {name}")
    failpoint("after-effect")
    gate(f"{name}-effect")
    if status := request.get_json().get("abort"):
        abort(status)
    now = current_operation()
    return {"name": name, "attempt": now.attempt if now else 0}, 201


application.add_url_rule("/told", view_func=done, methods=["POST"])
application.add_url_rule("/open", endpoint="open", view_func=done, methods=["POST"])


@application.route("/marked/<name>", methods=["POST", "PUT", "DELETE"])
@idempotent(required=True)
def marked(name):
    return done()


@application.post("/slash/")
@idempotent(required=True)
def slash():
    return done()


@application.post("/broken")
@idempotent(required=True)
def broken():
    note(f"effect {operation().key}")
    raise ZeroDivisionError


class Item(MethodView):
    """A view of methods, one of them marked."""

    @idempotent(required=True, lifetime="7d")
    def put(self):
        return done()

    def patch(self):
        return done()


application.add_url_rule("/item", view_func=Item.as_view("item"))
