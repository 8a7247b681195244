"""pyidempotent, as its README says: a decorator on what FastAPI calls, and its handler of conflicts. No scope."""

from __future__ import annotations

from fastapi import FastAPI, HTTPException, Request
from pyidempotent import IdempotencyConflict, idempotent
from pyidempotent.backends.memory import MemoryBackend

from conformance.apps.framework import application, returning


async def conflict(_request: Request, _error: Exception) -> None:
    """Its README raises this."""
    raise HTTPException(422, "Idempotency-Key already used with different payload")


def app() -> FastAPI:
    """The shop with decorated handlers."""
    protect = idempotent(backend=MemoryBackend(), key_header="Idempotency-Key")
    made = application(lambda shop: protect(returning(shop)))
    made.exception_handler(IdempotencyConflict)(conflict)
    return made
