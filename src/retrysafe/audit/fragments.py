"""`--fix`: what to add, so that what was found is found no more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, assert_never

from retrysafe.audit.code import function_of, line_with, marker_lines
from retrysafe.audit.fragment import Fragment, Put, arguments, dictionary, said_of, table, without_implied
from retrysafe.audit.fragments_openapi import document_fragments
from retrysafe.audit.overlap import in_braces
from retrysafe.audit.rule import Behind, Describe, Drop, Finding, Glue, Reset, SetOptions
from retrysafe.audit.surface import Kind, Operation, Place, Surface

STORE, SCOPE = "sqlite:///retrysafe.db", "header:X-Account-Id"
_OURS = "retrysafe.django.IdempotencyMiddleware"
_MARKED = (Kind.FASTAPI, Kind.STARLETTE, Kind.LITESTAR, Kind.FLASK, Kind.DJANGO)


@dataclass(slots=True)
class Change:
    """What one operation needs.

    Attributes:
        operation: it.
        options: of the policy.
        of: the findings that this mends.
    """

    operation: Operation
    options: dict[str, Any] = field(default_factory=dict)
    of: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Plan:
    """All that is to be changed.

    Attributes:
        changes: of operations.
        described: operations of which the document has to say more, and the findings.
        others: what else was found.
    """

    changes: dict[str, Change] = field(default_factory=dict)
    described: dict[str, Change] = field(default_factory=dict)
    others: list[Finding] = field(default_factory=list)


def fragments(surface: Surface, findings: Sequence[Finding]) -> list[Fragment]:
    """The pieces of text that mend what was found.

    Args:
        surface: that was audited.
        findings: that are to be mended.
    """
    plan = _plan(findings)
    if surface.kind is Kind.OPENAPI:
        changes = [(it.operation, it.options, tuple(it.of)) for it in (plan.changes | plan.described).values()]
        return [*document_fragments(surface, changes), *_others(surface, plan)]
    return list(_of_application(surface, plan))


def _plan(findings: Sequence[Finding]) -> Plan:
    plan = Plan()
    for finding in findings:
        match finding.found.remedy:
            case SetOptions(operation, options):
                change = plan.changes.setdefault(operation.route, Change(operation))
                change.options.update({name: value for name, value in options.items() if name not in change.options})
                change.of.append(_name(finding))
            case Describe(operation):
                plan.described.setdefault(operation.route, Change(operation)).of.append(_name(finding))
            case Reset() | Drop() | Behind() | Glue():
                plan.others.append(finding)
            case _ as unreachable:
                assert_never(unreachable)
    for route in plan.described.keys() & plan.changes.keys():
        plan.changes[route].of += plan.described[route].of
    return plan


def _name(finding: Finding) -> str:
    return f"{finding.rule.id} {finding.found.where}"


# --- applications ---------------------------------------------------------------------------------


def _of_application(surface: Surface, plan: Plan) -> Iterator[Fragment]:
    dropped = {it.found.where for it in plan.others if isinstance(it.found.remedy, Drop)}
    changes = [it for it in plan.changes.values() if it.operation.entry not in dropped]
    needing = [it for it in changes if it.options or surface.door is not None]
    marked = [it for it in needing if _is_marked(surface, it.operation, plan)]
    in_table = [it for it in needing if it not in marked]
    if surface.door is None and changes:
        yield _new_door(surface, in_table, tuple(name for it in changes for name in it.of))
    elif in_table:
        yield _table(surface, in_table)
    for change in marked:
        yield _marker(surface.kind, change)
    yield from _others(surface, plan)
    yield from _glue(surface, plan)


def _is_marked(surface: Surface, operation: Operation, plan: Plan) -> bool:
    """Whether a mark on the handler is what says what holds: the framework reads it, and no table goes before it."""
    function = function_of(operation.handler, operation.method)
    if surface.kind not in _MARKED or function is None or marker_lines(function) is None:
        return False
    if surface.kind is Kind.DJANGO:
        return operation.options is not None
    if surface.door is None:
        return True
    is_named = operation.entry or (operation.declined and operation.options is None)
    return (surface.door.is_routed or bool(_of_glue(plan))) and not is_named


def _marker(kind: Kind, change: Change) -> Fragment:
    operation = change.operation
    function = function_of(operation.handler, operation.method)
    lines = None if function is None else marker_lines(function)
    if lines is None:
        raise AssertionError("whether a handler has source was asked before")
    definition, mark = lines
    options = without_implied({**(operation.options or {}), **change.options})
    text = f"@idempotent({arguments(options)})"
    put, place = (Put.BEFORE, definition) if mark is None else (Put.INSTEAD, mark)
    return Fragment(put, place, text, tuple(change.of), (f"from retrysafe.{kind.value} import idempotent",))


def _table(surface: Surface, changes: list[Change]) -> Fragment:
    of = tuple(name for it in changes for name in it.of)
    place = surface.door.place if surface.door else None
    entries = _entries(changes)
    if surface.kind is Kind.DJANGO:
        return Fragment(Put.END, place, _django_routes(entries), of)
    imports = ("from retrysafe import Policy",)
    if surface.door is not None and not surface.door.table:
        return Fragment(Put.ARGUMENT, place, f"{_routes(entries)},", of, imports)
    return Fragment(Put.TABLE, place, table(entries), of, imports)


def _routes(entries: dict[str, dict[str, Any]]) -> str:
    lines = "\n".join(f"    {line}" for line in table(entries).splitlines())
    return f"routes={{\n{lines}\n}}"


def _entries(changes: list[Change]) -> dict[str, dict[str, Any]]:
    """The entry of each operation, with all that holds for it."""
    return {
        it.operation.entry or f"{it.operation.method} {in_braces(it.operation.path)}": without_implied(
            {**said_of(it.operation.policy), **it.options}
        )
        for it in changes
    }


def _django_routes(entries: dict[str, dict[str, Any]]) -> str:
    lines = [f'    "{entry}": {dictionary(options)},' for entry, options in entries.items()]
    return "\n".join(['IDEMPOTENCY["ROUTES"] = {', '    **IDEMPOTENCY.get("ROUTES", {}),', *lines, "}"])


def _new_door(surface: Surface, changes: list[Change], of: tuple[str, ...]) -> Fragment:
    """The door that the application has not got, with what is not marked in its table."""
    name = _variable(surface)
    settings = f'store="{STORE}", scope="{SCOPE}"'
    imports = ["from retrysafe import Policy"] if changes else []
    if changes:
        settings += f", {_routes(_entries(changes))}"
    place = surface.file
    match surface.kind:
        case Kind.FASTAPI:
            imports.append("from retrysafe.fastapi import IdempotencyMiddleware, describe")
            text = f"{name}.add_middleware(IdempotencyMiddleware, {settings})\ndescribe({name})"
        case Kind.STARLETTE:
            imports.append("from retrysafe.starlette import IdempotencyMiddleware")
            text = f"{name}.add_middleware(IdempotencyMiddleware, {settings})"
        case Kind.LITESTAR:
            imports.append("from retrysafe.litestar import IdempotencyPlugin")
            return Fragment(Put.ARGUMENT, place, f"plugins=[IdempotencyPlugin({settings})],", of, tuple(imports))
        case Kind.FLASK:
            imports.append("from retrysafe.flask import Idempotency")
            text = f"Idempotency({name}, {settings})"
        case Kind.DJANGO:
            return Fragment(Put.END, place, _django_door(changes), of)
        case Kind.ASGI | Kind.WSGI | Kind.OPENAPI:
            raise AssertionError("without a door, of these nothing is known that could be changed")
        case _ as unreachable:
            assert_never(unreachable)
    return Fragment(Put.END, place, text, of, tuple(imports))


def _django_door(changes: list[Change]) -> str:
    lines = [
        'INSTALLED_APPS = [*INSTALLED_APPS, "retrysafe.django"]',
        f'MIDDLEWARE = [*MIDDLEWARE, "{_OURS}"]',
        'IDEMPOTENCY = {"STORE": "database:default", "SCOPE": "user"}',
    ]
    return "\n".join([*lines, *([_django_routes(_entries(changes))] if changes else [])])


def _glue(surface: Surface, plan: Plan) -> Iterator[Fragment]:
    """The framework's own door in place of one that reads no marks and describes nothing; and FastAPI told to do so."""
    door = surface.door
    described = tuple(name for it in plan.described.values() for name in it.of)
    if door is not None and not door.is_routed and (of := _of_glue(plan)):
        yield _framework_door(surface, of)
    if door is not None and described and surface.kind is Kind.FASTAPI:
        text = f"describe({_variable(surface)})"
        yield Fragment(Put.END, surface.file, text, described, ("from retrysafe.fastapi import describe",))


def _of_glue(plan: Plan) -> tuple[str, ...]:
    """What only the door of the framework mends."""
    unread = tuple(_name(it) for it in plan.others if isinstance(it.found.remedy, Glue))
    return unread + tuple(name for it in plan.described.values() for name in it.of)


def _framework_door(surface: Surface, of: tuple[str, ...]) -> Fragment:
    if surface.kind in (Kind.LITESTAR, Kind.FLASK):
        return _new_door(surface, [], of)
    place = surface.file and Place(surface.file.file, line_with(surface.file.file, "import IdempotencyMiddleware"))
    return Fragment(Put.INSTEAD, place, f"from retrysafe.{surface.kind.value} import IdempotencyMiddleware", of)


def _variable(surface: Surface) -> str:
    """What the application is called in its module."""
    return surface.target.partition(":")[2].partition(".")[0] or "app"


# --- the door -------------------------------------------------------------------------------------


def _others(surface: Surface, plan: Plan) -> Iterator[Fragment]:
    for finding in plan.others:
        of, place = (_name(finding),), finding.found.place
        match finding.found.remedy:
            case Reset(setting, value):
                yield _setting(surface.kind, setting, value, place, of)
            case Drop(entry):
                yield Fragment(Put.REMOVE, place, f'"{entry}"', of)
            case Behind():
                text = f'MIDDLEWARE = [*(it for it in MIDDLEWARE if not it.startswith("retrysafe.")), "{_OURS}"]'
                yield Fragment(Put.END, place, text, of)
            case SetOptions() | Describe() | Glue():
                pass  # of all operations together
            case _ as unreachable:
                assert_never(unreachable)


def _setting(kind: Kind, setting: str, value: str, place: Place | None, of: tuple[str, ...]) -> Fragment:
    match kind:
        case Kind.DJANGO:
            said = "user" if setting == "scope" else "database:default"
            return Fragment(Put.END, place, f'IDEMPOTENCY["{setting.upper()}"] = "{said}"', of)
        case Kind.OPENAPI:
            return Fragment(Put.FILE, place, f'{setting} = "{value}"', of)
        case Kind.FASTAPI | Kind.STARLETTE | Kind.LITESTAR | Kind.FLASK | Kind.ASGI | Kind.WSGI:
            return Fragment(Put.ARGUMENT, place, f'{setting}="{value}",', of)
        case _ as unreachable:
            assert_never(unreachable)
