"""An operation out of an OpenAPI document: its address, and content that its schema allows."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import urljoin, urlsplit

from retrysafe.errors import ConfigurationError
from retrysafe.formats.openapi import Document, operations, resolve
from retrysafe.verify import content
from retrysafe.verify.target import Operation
from retrysafe.verify.template import UNIQUE

_DEPTH_MAX = 8


def operation_at(document: Document, method: str, url: str) -> dict[str, Any] | None:
    """What the document says of the operation at an address; None if it has none there."""
    target = urlsplit(url).path
    for its_method, path, described in operations(document):
        pattern = "".join(
            "[^/]+" if part.startswith("{") else re.escape(part) for part in re.split(r"(\{[^}]+\})", path)
        )
        if its_method == method and re.search(rf"{pattern}$", target):
            return described
    return None


def operation_of(document: Document, operation_id: str, source: str) -> tuple[Operation, bool]:
    """The operation with this id, or `METHOD /path`; and whether it says that it requires a key.

    Raises:
        ConfigurationError: there is none.
    """
    for method, path, described in operations(document):
        if operation_id in {described.get("operationId"), f"{method} {path}"}:
            url = _base(document, source).rstrip("/") + re.sub(r"\{[^}]+\}", UNIQUE, path)
            required = any(
                parameter.get("required") and "idempotency" in parameter.get("name", "").lower()
                for parameter in (resolve(document, parameter) for parameter in described["parameters"])
            )
            return Operation(method, url, _content(document, described)), bool(required)
    known = ", ".join(
        described.get("operationId", f"{method} {path}") for method, path, described in operations(document)
    )
    raise ConfigurationError([f"the OpenAPI document has no operation {operation_id!r}; it has {known}"])


def _base(document: Document, source: str) -> str:
    servers = document.get("servers") or [{}]
    base: str = urljoin(source if "://" in source else "", servers[0].get("url", "/"))
    if not base.startswith(("http://", "https://")):
        raise ConfigurationError(["the OpenAPI document names no server: --server URL says where the API is"])
    return base


def _content(document: Document, described: Document) -> str | None:
    body = resolve(document, described.get("requestBody"))
    form = content.JSON not in (kinds := body.get("content", {}))
    media = kinds.get(content.FORM if form else content.JSON)
    if media is None:
        return None
    example = media.get("example", next((each.get("value") for each in media.get("examples", {}).values()), None))
    made = example if example is not None else sample(document, media.get("schema", {}))
    if form and isinstance(made, str):
        return made
    made = _with_reference(made)
    if not form:
        return json.dumps(made)
    return content.form_text(made) if isinstance(made, dict) and made else None


def _with_reference(made: Any) -> Any:
    """The reference in place of the first text, if nothing else has it; effects are counted by it."""
    if not isinstance(made, dict) or UNIQUE in json.dumps(made):
        return made
    free = next((name for name, value in made.items() if value == "text"), None)
    return {**made, free: UNIQUE} if free else made


def sample(document: Document, schema: Any, depth: int = 0) -> Any:
    """A small value that a schema allows."""
    schema = resolve(document, schema)
    for known in ("example", "default", "const"):
        if known in schema:
            return schema[known]
    if schema.get("enum"):
        return schema["enum"][0]
    for choice in ("allOf", "oneOf", "anyOf"):
        if schema.get(choice) and depth < _DEPTH_MAX:
            return _of_choice(document, choice, schema, depth)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    return _of_kind(document, kind[0] if isinstance(kind, list) else kind, schema, depth)


def _of_choice(document: Document, choice: str, schema: Document, depth: int) -> Any:
    made = [sample(document, each, depth + 1) for each in schema[choice]]
    if choice == "allOf":
        return {name: value for each in made if isinstance(each, dict) for name, value in each.items()}
    return made[0]


def _of_kind(document: Document, kind: str, schema: Document, depth: int) -> Any:
    match kind:
        case "object":
            required = schema.get("required", ())
            properties = schema.get("properties", {})
            return {
                name: sample(document, properties.get(name, {}), depth + 1) for name in required if depth < _DEPTH_MAX
            }
        case "array":
            return [sample(document, schema.get("items", {}), depth + 1)] if depth < _DEPTH_MAX else []
        case "integer" | "number":
            return max(1, schema.get("minimum", 1))
        case "boolean":
            return True
        case "null":
            return None
    formats = {"uuid": "3f2b8c1e-7d4a-4f0e-9b53-0c6a1d2e9f47", "date": "2030-01-31", "email": "verify@example.com"}
    formats |= {"date-time": "2030-01-31T12:00:00Z", "uri": "https://example.com/"}
    return formats.get(schema.get("format", ""), "text")
