"""Middleware and a dependency for FastAPI, and what its OpenAPI document says of both."""

from __future__ import annotations

import inspect
from typing import Annotated, Any

from fastapi import FastAPI, Header, HTTPException

from retrysafe.errors import ConfigurationError
from retrysafe.operation.handle import Operation, current_operation
from retrysafe.server.marker import idempotent
from retrysafe.server.routed import RoutedMiddleware, door_of
from retrysafe.starlette import IdempotencyMiddleware

__all__ = ["IdempotencyKey", "IdempotencyMiddleware", "describe", "idempotent"]


class IdempotencyKey:
    """A dependency that gives the operation: `Depends(IdempotencyKey())`.

    It reads what the middleware has claimed, and puts the header into the OpenAPI document.

    Args:
        required: answer 400 where no key governs the request; else the dependency gives None there.
        header: the field that carries the key, as the policy names it.

    Attributes:
        requires_key: as it was told.
    """

    def __init__(self, *, required: bool = True, header: str = "Idempotency-Key") -> None:
        self.requires_key = required
        self._header = header
        field = Header(alias=header, description="The same for all attempts of one operation, and new for each.")
        parameter = inspect.Parameter(
            "key", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[str | None, field]
        )
        self.__signature__ = inspect.Signature([parameter])  # what FastAPI takes the parameters of a dependency from

    async def __call__(self, **_: str | None) -> Operation | None:
        """The operation of the request."""
        operation = current_operation()
        if operation is None and self.requires_key:
            raise HTTPException(400, f"This operation needs the header {self._header}, and a route that is protected.")
        return operation


def describe(app: FastAPI) -> None:
    """Have the OpenAPI document of an application say what its middleware does (contract R81).

    Each enrolled operation gains the header as a parameter, the refusals as responses, the mark of a replay, and
    `x-idempotency`. What the routes say themselves is kept.

    Args:
        app: with `IdempotencyMiddleware` in its list of middleware; it may be added later.
    """
    plain = app.openapi
    described: tuple[Any, dict[str, Any]] | None = None

    def openapi() -> dict[str, Any]:
        nonlocal described
        document = plain()
        if described is None or described[0] is not document:
            described = document, _door_of(app).openapi(document)
        return described[1]

    app.openapi = openapi  # type: ignore[method-assign]  # as the documentation of FastAPI has it


def _door_of(app: FastAPI) -> RoutedMiddleware:
    door = door_of(app)
    if not isinstance(door, RoutedMiddleware):
        raise ConfigurationError(
            ["describe: the application has no retrysafe.fastapi.IdempotencyMiddleware; add it with add_middleware"]
        )
    return door
