"""A Flask application: the handlers of `wsgi_apps` as its views, and views that are marked."""

from __future__ import annotations

from flask import Flask, Response, abort, request
from flask.views import MethodView

from retrysafe import operation
from retrysafe.flask import Idempotency, idempotent
from retrysafe.operation import current_operation
from tests.doors.gates import LEASE, note, routes, store
from tests.doors.wsgi_apps import HANDLERS, told

application = Flask(__name__)
application.config.from_mapping(
    IDEMPOTENCY_STORE=store(),
    IDEMPOTENCY_SCOPE="header:X-Account",
    IDEMPOTENCY_LEASE=LEASE,
    IDEMPOTENCY_ROUTES={**routes(), "POST /open": None},
    IDEMPOTENCY_AUTHORIZE=lambda environ: environ.get("HTTP_X_REVOKED") != "yes",
)
Idempotency(application)


@application.before_request
def guard():
    """Refuses what says so, before any view."""
    if request.headers.get("X-Refuse"):
        abort(int(request.headers["X-Refuse"]))


def as_view(handler):
    """A handler of WSGI as a view."""

    def view(**_):
        return Response.from_app(handler, request.environ)

    return view


for path, handler in {"/told": told, "/<path:place>/told": told, **HANDLERS}.items():
    if path != "/slash":  # Flask redirects to the path with a slash by itself
        methods = ["GET"] if path in {"/ready", "/ticks"} else ["POST", "PUT", "PATCH"]
        application.add_url_rule(path, path, as_view(handler), methods=methods)


def done():
    """An effect, and an answer."""
    name = request.get_json()["name"]
    note(f"effect {name}")
    if status := request.get_json().get("abort"):
        abort(status)
    now = current_operation()
    return {"name": name, "attempt": now.attempt if now else 0}, 201


application.add_url_rule("/open", endpoint="open", view_func=done, methods=["POST"])


@application.route("/marked/<name>", methods=["POST", "PUT", "DELETE"])
@idempotent(required=True)
def marked(name):
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
