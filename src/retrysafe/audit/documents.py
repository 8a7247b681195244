"""An OpenAPI document as a surface, and what a document says of the operations of an application."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from retrysafe.audit.code import shown_file
from retrysafe.audit.overlap import overlap
from retrysafe.audit.surface import UNSAFE, Documented, Door, Evidence, Kind, Operation, Place, Surface
from retrysafe.errors import ConfigurationError
from retrysafe.formats.openapi import lines_of, operations, parse, read, resolve
from retrysafe.protocol.policy import Policy
from retrysafe.protocol.published import Published
from retrysafe.server.routes import ANY, Routes

_KEY = re.compile(r"(?i)(?:x-)?(?:[a-z]+-)*idempot(?:ency|ence)(?:-[a-z]+)*|paypal-request-id|repeatability-request-id")
_STREAMS = re.compile(
    r"(?i)text/event-stream|application/(?:x-)?(?:nd|stream\+)?json(?:l|-lines|-seq)?|multipart/x-mixed-replace"
)
_JSON = "application/json"
_DEPTH_MAX = 4
_PLAIN = Policy()
Document = Mapping[str, Any]


def surface_of_document(source: str, gateway: Published | None = None) -> Surface:
    """What an OpenAPI document has.

    Args:
        source: a file or a URL; JSON or YAML.
        gateway: what a gateway in front of the API promises; None: what is protected is what the document says.

    Raises:
        ConfigurationError: it is none.
        RetrysafeError: the URL does not answer.
    """
    text = read(source)
    document = parse(source, text)
    file = "" if "://" in source else shown_file(source)
    lines = lines_of(text) if file else {}
    made = tuple(_operations(document, file, lines, gateway))
    door = None if gateway is None else _gateway(gateway)
    base = _base(document)
    paths = [(method, base + path) for method, path, _ in operations(document)]

    def reaches(method: str, path: str) -> bool:
        return any(method == its_method and overlap(path, its_path) for its_method, its_path in paths)

    return Surface(source, Kind.OPENAPI, made, door, reaches, document=document, base=base)


def _base(document: Document) -> str:
    """The path of the first server, under which the paths of the document are."""
    servers = document.get("servers") or [{}]
    return urlsplit(str(servers[0].get("url", ""))).path.rstrip("/")


def _gateway(published: Published) -> Door:
    table = {entry: policy for entry, policy in published.routes.items() if entry != ANY}
    return Door(published.scope, "", published.routes[ANY] or _PLAIN, table)


def _operations(
    document: Document, file: str, lines: Mapping[tuple[str, str], int], gateway: Published | None
) -> Iterator[Operation]:
    routes = _routes(gateway)
    for method, path, described in operations(document):
        if method not in UNSAFE:
            continue
        policy, is_known = _promised(described, document)
        is_declined = _is_declined(described)
        if routes is not None:
            route = routes.find(method, _base(document) + path)
            policy, is_known = (None if route is None or route.policy.mode == "observe" else route.policy), True
            is_declined = routes.entry_for(method, _base(document) + path) is None
        yield Operation(
            method,
            path,
            policy,
            is_declined,
            is_policy_known=is_known,
            evidence=_evidence(document, described, Place(file, lines.get((method, path), 0)) if file else None),
            documented=_documented(document, described, policy),
        )


def _routes(gateway: Published | None) -> Routes | None:
    if gateway is None:
        return None
    return Routes(gateway.routes[ANY] or _PLAIN, {it: policy for it, policy in gateway.routes.items() if it != ANY})


# --- what a document says -------------------------------------------------------------------------


def documented_in(document: Document | None, method: str, path: str, policy: Policy | None) -> Documented | None:
    """What a document says of an operation; None if it has none there.

    Args:
        document: of the application.
        method: upper case.
        path: as the document has it.
        policy: what holds there.
    """
    described = _described(document, method, path)
    return None if document is None or described is None else _documented(document, described, policy)


def words_in(document: Document | None, method: str, path: str) -> frozenset[str]:
    """The names of the members that the content of an operation may have."""
    described = _described(document, method, path)
    return frozenset() if document is None or described is None else frozenset(_words(document, described))


def _described(document: Document | None, method: str, path: str) -> dict[str, Any] | None:
    for its_method, its_path, described in operations(document or {}):
        if (its_method, its_path) == (method, path):
            return described
    return None


def _documented(document: Document, described: Document, policy: Policy | None) -> Documented:
    wanted = None if policy is None else policy.header.lower()
    names = [name.lower() for name in _headers(document, described)]
    has_header = wanted in names or any(_KEY.fullmatch(name) for name in names)
    return Documented(has_header, frozenset(str(status) for status in described.get("responses", {})))


def _headers(document: Document, described: Document) -> Iterator[str]:
    for parameter in described["parameters"]:
        found = resolve(document, parameter)
        if found.get("in") == "header":
            yield str(found.get("name", ""))


def _evidence(document: Document, described: Document, place: Place | None) -> Evidence:
    silenced = described.get("x-retrysafe-ignore", ())
    return Evidence(
        place,
        str(described.get("operationId", "")),
        frozenset(_words(document, described)),
        streams=_stream(document, described),
        silenced=frozenset(map(str, silenced if isinstance(silenced, list) else [silenced])),
        retried_ms=_retried_ms(described.get("x-speakeasy-retries", document.get("x-speakeasy-retries"))),
    )


def _retried_ms(retries: Any) -> int | None:
    """How long clients made by Speakeasy go on trying; that is in milliseconds there."""
    backoff = retries.get("backoff") if isinstance(retries, Mapping) else None
    elapsed = backoff.get("maxElapsedTime") if isinstance(backoff, Mapping) else None
    return elapsed if isinstance(elapsed, int) and elapsed > 0 else None


def _stream(document: Document, described: Document) -> str:
    for response in described.get("responses", {}).values():
        for media in resolve(document, response).get("content", {}):
            name = media.partition(";")[0].strip()
            if _STREAMS.fullmatch(name) and name.lower() != _JSON:
                return f"its answer is {name}"
    return ""


def _words(document: Document, described: Document) -> Iterator[str]:
    for media in resolve(document, described.get("requestBody")).get("content", {}).values():
        yield from _members(document, media.get("schema"), 0)


def _members(document: Document, schema: Any, depth: int) -> Iterator[str]:
    found = resolve(document, schema)
    yield from found.get("properties", {})
    if depth < _DEPTH_MAX:
        for choice in ("allOf", "oneOf", "anyOf"):
            for each in found.get(choice, ()):
                yield from _members(document, each, depth + 1)


# --- what it promises -----------------------------------------------------------------------------


def _is_declined(described: Document) -> bool:
    said = described.get("x-idempotency")
    return isinstance(said, Mapping) and said.get("supported") is False


def _promised(described: Document, document: Document) -> tuple[Policy | None, bool]:
    """What a document says that holds for an operation, and whether that is more than that keys are taken."""
    said = described.get("x-idempotency")
    if isinstance(said, Mapping):
        return (_policy_of(said), True) if said.get("supported") else (None, True)
    for parameter in described["parameters"]:
        found = resolve(document, parameter)
        if found.get("in") == "header" and _KEY.fullmatch(str(found.get("name", ""))):
            return _policy(required=found.get("required") is True, header=found["name"]), False
    if described.get("x-fern-idempotent") is True:
        names = document.get("x-fern-idempotency-headers") or [{}]
        header = names[0].get("header", _PLAIN.header) if isinstance(names[0], Mapping) else _PLAIN.header
        return _policy(header=header), False
    return None, True


def _policy_of(said: Document) -> Policy | None:
    """The policy that `x-idempotency` tells of (contract R82)."""
    replay, after = said.get("replay", {}), said.get("afterExpiry", {})
    options: dict[str, Any] = {"required": said.get("required") is True}
    options |= {"header": said["header"]} if "header" in said else {}
    options |= {"lifetime": said["lifetime"]} if "lifetime" in said else {}
    options |= {"tombstone": after.get("for", "0s")} if isinstance(after, Mapping) and after else {}
    if isinstance(replay, Mapping):
        options |= {"response_bytes_max": replay["bytesMax"]} if "bytesMax" in replay else {}
        options |= {"on_receipt": "receipt"} if replay.get("beyond") == "a receipt" else {}
    options |= {"fingerprint": "none"} if said.get("fingerprint", {}) is None else {}
    options |= {"recovery": "rerun"} if said.get("abandoned") == "runs again" else {}
    return _policy(**options)


def _policy(**options: Any) -> Policy:
    try:
        return Policy(**options)
    except ConfigurationError as error:
        faults = [f"the document says what no policy can be: {fault}" for fault in error.faults]
        raise ConfigurationError(faults) from None


def is_document(target: str) -> bool:
    """Whether a target is named as a document is, and not as an application."""
    return target.startswith(("http://", "https://")) or Path(target).suffix.lower() in {".json", ".yaml", ".yml"}
