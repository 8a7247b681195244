"""The extension for Flask, and the mark for its views."""

from retrysafe.server.flask_door import FlaskMiddleware, FlaskRouter, Idempotency
from retrysafe.server.marker import idempotent

__all__ = ["FlaskMiddleware", "FlaskRouter", "Idempotency", "idempotent"]
