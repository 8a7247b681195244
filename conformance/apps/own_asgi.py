"""retrysafe's ASGI door, as its how-to page says."""

from __future__ import annotations

import os

from fastapi import FastAPI

from conformance.apps.framework import application
from retrysafe.asgi import IdempotencyMiddleware


def app() -> FastAPI:
    """The shop behind the door, over SQLite."""
    made = application()
    made.add_middleware(IdempotencyMiddleware, store=os.environ["STORE"], scope="authorization")
    return made


def bare() -> FastAPI:
    """The shop behind nothing, for a gateway to be in front of."""
    return application()
