"""mobius-idempotence-library, as its README says: a decorator on what FastAPI calls. It has no scope."""

from __future__ import annotations

from fastapi import FastAPI
from mobius_idempotence import IdempotencyConfig, IdempotencyManager, idempotent
from mobius_idempotence.backends.memory import MemoryBackend

from conformance.apps.framework import application, returning


def app() -> FastAPI:
    """The shop with decorated handlers."""
    manager = IdempotencyManager(MemoryBackend(), IdempotencyConfig(fail_open=False))
    return application(lambda shop: idempotent(manager, status_code=201)(returning(shop)))
