"""Flask, with views."""

from __future__ import annotations

from flask import Flask, Response, request

from bench.doors.handler import JSON, PATHS, Handler, settings
from retrysafe.flask import Idempotency


def bare() -> Flask:
    """The application alone."""
    handler, app = Handler(), Flask(__name__)

    def charge() -> Response:
        request.get_data()
        return Response(handler.charge(request.path), 201, mimetype=JSON)

    for path in PATHS:
        app.add_url_rule(path, path, charge, methods=["POST"])
    app.add_url_rule("/runs", "runs", lambda: handler.runs)
    return app


def protected() -> Flask:
    """With its extension."""
    app = bare()
    Idempotency(app, **settings())
    return app
