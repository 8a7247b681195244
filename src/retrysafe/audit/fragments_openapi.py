"""What `--fix` prints for an OpenAPI document: what it has to say, and what a gateway has to be told."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from retrysafe.audit.fragment import Fragment, Put, said_of, without_implied
from retrysafe.audit.surface import Operation, Place, Surface
from retrysafe.formats.openapi import resolve
from retrysafe.protocol.openapi import enriched
from retrysafe.protocol.policy import Policy
from retrysafe.protocol.published import Published

_SCOPE = "header:X-Account-Id"
_REFUSALS = {
    "400": "The key is missing, or it is none.",
    "409": "A request with this key is still running.",
    "422": "This key was used for another request.",
}
Change = tuple[Operation, Mapping[str, Any], tuple[str, ...]]


def document_fragments(surface: Surface, changes: Sequence[Change]) -> Iterator[Fragment]:
    """The pieces of text.

    Args:
        surface: of a document.
        changes: operations, the options that they need, and the findings that this mends.
    """
    if not changes:
        return
    of = tuple(name for _, _, names in changes for name in names)
    told = [it for it in changes if it[0].policy is None or (surface.door and it[1])]
    if told:
        names = tuple(name for _, _, each in told for name in each)
        yield Fragment(Put.FILE, None, "\n".join(_entry(it, surface.base) for it in told), names)
    place = None if "://" in surface.target else Place(surface.target)
    yield Fragment(Put.MERGE, place, _dumped(_part(surface, changes), surface.target), of)


def _entry(change: Change, base: str) -> str:
    operation, options, _ = change
    said = without_implied({**said_of(operation.policy), **options})
    lines = [f"{name} = {json.dumps(value)}" for name, value in said.items()]
    return "\n".join([f'[routes."{operation.method} {base}{operation.path}"]', *lines, ""])


def _part(surface: Surface, changes: Sequence[Change]) -> dict[str, Any]:
    """The operations as they have to be, and what they refer to."""
    document: dict[str, Any] = json.loads(json.dumps(surface.document, default=str))
    told = {it.route: _policy(it, options) for it, options, _ in changes if it.is_policy_known}
    scope = surface.door.scope if surface.door else _SCOPE
    published = Published(scope, {"*": Policy()}, gateway=True)
    made = enriched(document, published, lambda method, path: told.get(f"{method} {path}"))
    paths: dict[str, Any] = {}
    for operation, options, _ in changes:
        before = document["paths"][operation.path][operation.method.lower()]
        after = made["paths"][operation.path][operation.method.lower()]
        if not operation.is_policy_known:
            after = _completed(before, {**said_of(operation.policy), **options}, surface)
        elif scope_before := (before.get("x-idempotency") or {}).get("scope"):
            after["x-idempotency"]["scope"] = scope_before
        paths.setdefault(operation.path, {})[operation.method.lower()] = after
    return {"paths": paths, "components": _new(made.get("components", {}), document.get("components", {}))}


def _new(after: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """The components that the document has not got."""
    new = {
        kind: {name: value for name, value in after.get(kind, {}).items() if name not in before.get(kind, {})}
        for kind in ("parameters", "schemas")
    }
    return {kind: items for kind, items in new.items() if items}


def _completed(before: Mapping[str, Any], options: Mapping[str, Any], surface: Surface) -> dict[str, Any]:
    """An operation of an API of which is only known that it takes keys: nothing else is claimed of it."""
    header = options.get("header", Policy().header)
    required = bool(options.get("required", False))
    parameter = {"name": header, "in": "header", "required": required, "schema": {"type": "string"}}
    others = [it for it in before.get("parameters", ()) if _name_of(surface, it) != header.lower()]
    responses = {status: {"description": text} for status, text in _REFUSALS.items()}
    return {**before, "parameters": [*others, parameter], "responses": {**responses, **before.get("responses", {})}}


def _name_of(surface: Surface, parameter: Any) -> str:
    return str(resolve(surface.document or {}, parameter).get("name", "")).lower()


def _policy(operation: Operation, options: Mapping[str, Any]) -> Policy:
    return replace(operation.policy or Policy(), **options)


def _dumped(part: Mapping[str, Any], source: str) -> str:
    plain = json.loads(json.dumps(part))  # what is shared within it is written out each time
    if source.endswith(".json") or "://" in source:
        return json.dumps(plain, indent=2)
    import yaml  # noqa: PLC0415 - needs an extra; the document was read with it

    dumped: str = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=120)
    return dumped.rstrip()
