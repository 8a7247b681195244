"""What `--fix` prints for an OpenAPI document: what it has to say, and what a gateway has to be told."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from retrysafe.audit.fragment import Fragment, Put, said_of, without_implied
from retrysafe.audit.surface import Operation, Place, Surface
from retrysafe.protocol.openapi import enriched
from retrysafe.protocol.policy import Policy
from retrysafe.protocol.published import Published

_SCOPE = "header:X-Account-Id"
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
    told = [change for change in changes if change[1] or change[0].policy is None]
    if told:
        names = tuple(name for _, _, each in told for name in each)
        yield Fragment(Put.FILE, None, "\n".join(map(_entry, told)), names)
    place = None if "://" in surface.target else Place(surface.target)
    yield Fragment(Put.MERGE, place, _dumped(_part(surface, changes), surface.target), of)


def _entry(change: Change) -> str:
    operation, options, _ = change
    said = without_implied({**said_of(operation.policy), **options})
    lines = [f"{name} = {json.dumps(value)}" for name, value in said.items()]
    return "\n".join([f'[routes."{operation.route}"]', *lines, ""])


def _part(surface: Surface, changes: Sequence[Change]) -> dict[str, Any]:
    """The operations as they have to be, and what they refer to."""
    document: dict[str, Any] = json.loads(json.dumps(surface.document, default=str))
    policies = {operation.route: _policy(operation, options) for operation, options, _ in changes}
    scope = surface.door.scope if surface.door else _SCOPE
    made = enriched(
        document, Published(scope, {"*": Policy()}, gateway=True), lambda method, path: policies.get(f"{method} {path}")
    )
    paths: dict[str, Any] = {}
    for operation, _, _ in changes:
        method = operation.method.lower()
        paths.setdefault(operation.path, {})[method] = made["paths"][operation.path][method]
    before = document.get("components", {})
    components = {
        kind: {name: value for name, value in made["components"][kind].items() if name not in before.get(kind, {})}
        for kind in ("parameters", "schemas")
    }
    return {"paths": paths, "components": {kind: items for kind, items in components.items() if items}}


def _policy(operation: Operation, options: Mapping[str, Any]) -> Policy:
    return replace(operation.policy or Policy(), **options)


def _dumped(part: Mapping[str, Any], source: str) -> str:
    plain = json.loads(json.dumps(part))  # what is shared within it is written out each time
    if source.endswith(".json") or "://" in source:
        return json.dumps(plain, indent=2)
    import yaml  # noqa: PLC0415 - needs an extra; the document was read with it

    dumped: str = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=120)
    return dumped.rstrip()
