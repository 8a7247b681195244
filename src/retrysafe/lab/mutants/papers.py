"""What the servers publish of themselves."""

from __future__ import annotations

from typing import Any

_PROBLEM = {
    "description": "A problem document",
    "content": {"application/problem+json": {"schema": {"type": "object"}}},
}


def openapi(short_lifetime_s: float) -> dict[str, Any]:
    """The OpenAPI document."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "The shop of the laboratory", "version": "1"},
        "servers": [{"url": "/"}],
        "paths": {
            "/orders": {"post": _operation("placeOrder", "PT24H")},
            "/short": {"post": _operation("placeShortOrder", f"PT{short_lifetime_s:g}S")},
        },
    }


def _operation(operation_id: str, lifetime: str) -> dict[str, Any]:
    schema = {
        "type": "object",
        "required": ["reference", "item", "quantity"],
        "properties": {"reference": {"type": "string"}, "item": {"enum": ["tea"]}, "quantity": {"type": "integer"}},
    }
    return {
        "operationId": operation_id,
        "x-idempotency": {"supported": True, "required": True, "lifetime": lifetime},
        "parameters": [
            {
                "name": "Idempotency-Key",
                "in": "header",
                "required": True,
                "schema": {"type": "string", "maxLength": 255},
            }
        ],
        "requestBody": {"content": {"application/json": {"schema": schema}}},
        "responses": {
            "201": {"description": "Placed", "headers": {"Idempotent-Replayed": {"schema": {"type": "string"}}}},
            "400": _PROBLEM,
            "409": _PROBLEM,
            "422": _PROBLEM,
        },
    }
