"""retrysafe's WSGI door around the shop as a Flask application."""

from __future__ import annotations

import os
import time
from typing import Any

from flask import Flask, Response, jsonify, request

from conformance.shop import PATHS, Answer, Shop
from retrysafe.flask import Idempotency


def respond(answer: Answer) -> Response:
    """The answer of the shop as a response."""
    response = jsonify(answer.document)
    response.status_code = answer.status
    for name, value in answer.headers:
        response.headers.add(name, value)
    return response


def app() -> Flask:
    """The shop behind the door, over SQLite."""
    made, shop = Flask(__name__), Shop()
    made.config.from_mapping(IDEMPOTENCY_STORE=os.environ["STORE"], IDEMPOTENCY_SCOPE="authorization")

    def order() -> Any:
        body = request.get_data()
        time.sleep(shop.delay_s(request.args))  # noqa: TID251 - the work of a blocking handler
        return respond(shop.place(request.path, request.args, body))

    for path in PATHS:
        made.add_url_rule(path, endpoint=path, view_func=order, methods=["POST"])
    made.add_url_rule("/orders", endpoint="count", view_func=lambda: respond(shop.count(request.args)), methods=["GET"])
    Idempotency(made)
    return made
