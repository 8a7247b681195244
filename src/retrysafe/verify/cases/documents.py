"""Are errors and rules written so that programs can read them?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from retrysafe.formats.openapi import resolve
from retrysafe.verify.case import Group
from retrysafe.verify.cases.reuse import other
from retrysafe.verify.message import Answer
from retrysafe.verify.openapi import operation_at
from retrysafe.verify.probe import Probe
from retrysafe.verify.verdict import MAY, SHOULD, Skipped

group = Group()
case = group.case


async def _errors(t: Probe) -> dict[str, Answer]:
    """The errors of keys that can be had here, by name."""
    errors: dict[str, Answer] = {"invalid": await t.send(t.intent(), lines=[f'"{t.new_key()}'])}
    if t.target.required:
        errors["missing"] = await t.send(t.intent(), lines=[])
    if t.target.content is not None:
        intent = t.intent()
        await t.done(intent)
        with suppress(Skipped):  # nothing in the content can be changed
            errors["mismatch"] = await t.send(other(t, intent))
    if "slow" in t.target.operations:
        slow = t.intent("slow")
        async with t.running(slow):
            errors["in flight"] = await t.send(slow)
    return {name: answer for name, answer in errors.items() if answer.refused}


@case("DOC-01", SHOULD, "contract R81", "Generated clients send no keys.", needs=["openapi"], core=True)
async def header_documented(t: Probe) -> None:
    """The OpenAPI document lists the key's field on the operation, and says whether it is required."""
    parameters = [found for found in _parameters(t) if found.get("name", "").lower() == t.profile.header.lower()]
    t.expect(bool(parameters), f"a parameter {t.profile.header}", "none")
    if t.target.required and parameters:
        t.expect(bool(parameters[0].get("required")), "required: true", f"{parameters[0].get('required')}")


@case("DOC-02", SHOULD, "contract R81", "Generated clients do not know the errors of keys.", needs=["openapi"])
async def errors_documented(t: Probe) -> None:
    """The OpenAPI document lists the errors of keys, and the marker."""
    responses = _operation(t).get("responses", {})
    wanted = {t.profile.invalid[0], *t.profile.in_flight[:1], *t.profile.mismatch[:1]}
    missing = sorted(str(status) for status in wanted if str(status) not in responses)
    t.expect(not missing, f"responses {', '.join(map(str, sorted(wanted)))}", f"none for {', '.join(missing)}")
    if t.profile.marker and not t.profile.marker_on_every:
        fields = [name.lower() for response in responses.values() for name in _headers(t, response)]
        t.expect(t.profile.marker.lower() in fields, f"a response header {t.profile.marker}", "none")


def _operation(t: Probe) -> dict[str, Any]:
    found = operation_at(t.target.openapi or {}, t.target.operation.method, t.target.operation.url)
    if found is None:
        t.skip("the OpenAPI document does not have the operation")
    return found


def _parameters(t: Probe) -> Iterator[dict[str, Any]]:
    for parameter in _operation(t).get("parameters", ()):
        yield resolve(t.target.openapi or {}, parameter)


def _headers(t: Probe, response: dict[str, Any]) -> list[str]:
    return list(resolve(t.target.openapi or {}, response).get("headers", {}))


@case("DOC-03", SHOULD, "draft 2.7; RFC 9457", "A program sees a number and has to guess.", core=True)
async def problem_documents(t: Probe) -> None:
    """Each error of keys is a problem document, or links to documentation."""
    errors = await _errors(t)
    if not errors:
        t.skip("no error of keys could be had")
    for name, answer in errors.items():
        linked = "describedby" in (answer.value("link") or "")
        t.expect(
            linked or answer.media_type == "application/problem+json",
            "problem+json, or a link",
            f"{name}: {answer.media_type}",
        )
        if answer.media_type == "application/problem+json":
            document = answer.json()
            t.expect(isinstance(document, dict), "valid JSON", f"{name}: something else")
            t.expect(bool(answer.kind), "a type or a code", f"{name}: none")
            status = document.get("status", answer.status)
            t.expect(status == answer.status, f"status {answer.status} inside", f"{name}: {status}")


@case(
    "DOC-04", SHOULD, "contract R76", "'Key used before', 'still at work' and 'invalid field' look the same.", core=True
)
async def distinct_errors(t: Probe) -> None:
    """The errors of keys can be told from each other, and from those of validation."""
    errors = await _errors(t)
    if t.target.content is not None:
        answer = await t.send(t.intent().holding({}))
        errors |= {"validation": answer} if answer.refused else {}
    kinds = {name: f"{answer.status} {answer.kind}" for name, answer in errors.items()}
    if len(kinds) < 2:
        t.skip("fewer than two errors could be had")
    t.expect(len(set(kinds.values())) == len(kinds), "a type or a code for each", json.dumps(kinds))


@case("DOC-05", MAY, "contract R98", "Nobody can find out what became of a request.", needs=["status"])
async def status_endpoint(t: Probe) -> None:
    """The status endpoint knows what was completed, and tells unknown keys and other accounts' keys the same."""
    intent = t.intent()
    await t.done(intent)
    operation = t.target.operations["status"]
    known = await t.send(t.intent_of(operation, intent.reference, intent.key))
    t.expect(known.status == 200, "200", known)
    t.expect("no-store" in (known.value("cache-control") or ""), "no-store", known.value("cache-control"))
    unknown = await t.send(t.intent_of(operation, intent.reference, t.new_key()))
    t.expect(unknown.status == 404, "404 for a key that was never used", unknown)
    if t.target.other_account:
        stranger = t.intent_of(operation, intent.reference, intent.key).by(t.target.other_account)
        theirs = await t.send(stranger)
        t.expect(theirs.status == unknown.status, f"{unknown.status} for another account", theirs)
