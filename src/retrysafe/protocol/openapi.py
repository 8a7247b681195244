"""What an OpenAPI document says of idempotency keys: the header, the refusals, the marks of a replay (contract R81)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from retrysafe.protocol.duration import in_words
from retrysafe.protocol.expiry import EXPIRES_NAME
from retrysafe.protocol.policy import Policy
from retrysafe.protocol.problem import KINDS
from retrysafe.protocol.published import Published, key_pattern

PolicyAt = Callable[[str, str], Policy | None]

_METHODS = ("post", "patch", "put", "delete")
_PROBLEM = "application/problem+json"
_SCHEMA_NAME = "IdempotencyProblem"
_PARAMETER_NAME = "IdempotencyKey"
_SCHEMA: dict[str, Any] = {
    "type": "object",
    "title": "A request that was refused for its idempotency key",
    "description": "As RFC 9457 has it.",
    "properties": {
        "type": {"type": "string", "format": "uri", "description": "Where the kind of problem is explained."},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What was seen, and what to do."},
        "instance": {"type": "string", "format": "uri", "description": "New for each occurrence."},
        "code": {"type": "string", "enum": sorted(KINDS)},
        "retryable": {"type": "boolean", "description": "The same key may be sent again."},
        "retry_after": {"type": "integer", "description": "In seconds."},
    },
    "required": ["type", "title", "status", "detail", "instance", "code", "retryable"],
}
_RETRY_AFTER = {"description": "When to send the same request again, in seconds.", "schema": {"type": "integer"}}
_EXPIRES = {
    "description": "Until when this answer is sure to be sent again, as an HTTP date; on answers that are recorded.",
    "schema": {"type": "string"},
}
_CODES = {
    400: ("key-missing", "key-invalid"),
    409: ("in-progress", "outcome-unknown", "replay-unavailable"),
    412: ("key-expired",),
    422: ("key-reused",),
    503: ("store-unavailable",),
}


def enriched(document: Mapping[str, Any], published: Published, policy_at: PolicyAt) -> dict[str, Any]:
    """An OpenAPI document with what holds for keys on each operation that is enrolled.

    Args:
        document: of version 3, as JSON data; it is not changed.
        published: what the door promises.
        policy_at: from a method and a path, as the document has them, to what holds there; None: it is not enrolled.
    """
    made: dict[str, Any] = copy.deepcopy(dict(document))
    for path, item in made.get("paths", {}).items():
        for method in _METHODS:
            policy = policy_at(method.upper(), path) if method in item else None
            if policy is not None:
                _describe(item[method], policy, made)
                item[method]["x-idempotency"] = published.of(policy)
    return made


def _describe(operation: dict[str, Any], policy: Policy, document: dict[str, Any]) -> None:
    components = document.setdefault("components", {})
    components.setdefault("schemas", {})[_SCHEMA_NAME] = _SCHEMA
    parameters = [it for it in operation.get("parameters", ()) if not _is_key(it, policy)]
    operation["parameters"] = [*parameters, _reference(parameter(policy), components.setdefault("parameters", {}))]
    responses = operation.setdefault("responses", {})
    for response in responses.values():
        if "$ref" not in response:
            response.setdefault("headers", {})[policy.replay_marker] = _marker()
            if policy.expires_header:
                response["headers"][EXPIRES_NAME] = _EXPIRES
    for status, codes in _CODES.items():
        if status != 412 or policy.tombstone_ms:
            _refuse(responses, status, codes)


def _is_key(parameter: Mapping[str, Any], policy: Policy) -> bool:
    return parameter.get("in") == "header" and parameter.get("name", "").lower() == policy.header.lower()


def _reference(made: dict[str, Any], parameters: dict[str, Any]) -> dict[str, str]:
    """The parameter as one that operations share; those whose policies differ in it have one of their own."""
    names = (f"{_PARAMETER_NAME}{number or ''}" for number in range(len(parameters) + 1))
    name = next(name for name in names if parameters.get(name, made) == made)
    parameters[name] = made
    return {"$ref": f"#/components/parameters/{name}"}


def parameter(policy: Policy) -> dict[str, Any]:
    """The header that carries the key, as a parameter of OpenAPI."""
    spelling = 0 if policy.key_syntax == "bare" else 2  # quotes
    after = "then 412" if policy.tombstone_ms else "then it is a new operation"
    return {
        "name": policy.header,
        "in": "header",
        "required": policy.required,
        "description": (
            "The same for all attempts of one operation, and new for each operation: a UUID, say. "
            f"A finished operation is answered again for {in_words(policy.lifetime_ms)}, {after}."
        ),
        "schema": {
            "type": "string",
            "pattern": key_pattern(policy),
            "minLength": policy.key_length_min,
            "maxLength": policy.key_length_max + spelling,
        },
    }


def _marker() -> dict[str, Any]:
    return {
        "description": "There, and `true`, if this is the answer to an earlier attempt, sent again.",
        "schema": {"type": "string", "enum": ["true"]},
    }


def _refuse(responses: dict[str, Any], status: int, codes: tuple[str, ...]) -> None:
    """Add our refusals of a status to what the application answers with it."""
    response = responses.get(str(status), {})
    if "$ref" in response:  # it is shared with operations that may not be enrolled
        return
    said = "; ".join(f"`{code}`: {KINDS[code].title.lower()}" for code in codes)
    before = response.get("description")
    response["description"] = f"{before}. Or {said}" if before else said
    response.setdefault("content", {})[_PROBLEM] = {"schema": {"$ref": f"#/components/schemas/{_SCHEMA_NAME}"}}
    if status in {409, 503}:
        response.setdefault("headers", {})["Retry-After"] = _RETRY_AFTER
    responses[str(status)] = response
