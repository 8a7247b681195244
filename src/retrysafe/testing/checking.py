"""A check of retries: from what was asked for to a run of cases, and from their results to a report."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from queue import SimpleQueue
from typing import Any
from urllib.parse import urlsplit

from anyio.from_thread import start_blocking_portal

from retrysafe.errors import ConfigurationError
from retrysafe.lab.interruptions import Kind, interruptible
from retrysafe.testing.applications import Behind, behind
from retrysafe.testing.asked import Asked, Count
from retrysafe.testing.retry_report import CaseOutcome, NotSafeToRetry, RetryReport
from retrysafe.testing.served import HOST, LEASE_S, MARK, Marks, served, served_here
from retrysafe.verify.case import Case, Result
from retrysafe.verify.content import form_text
from retrysafe.verify.effects import Counter, parse_counter
from retrysafe.verify.message import Answer, Fields
from retrysafe.verify.probe import Probe, Run, Settings
from retrysafe.verify.profile import load
from retrysafe.verify.report import text
from retrysafe.verify.runner import exit_code, run_cases
from retrysafe.verify.selection import select
from retrysafe.verify.target import NEEDS, OPERATIONS, Operation, Target, parse_operation
from retrysafe.verify.template import UNIQUE
from retrysafe.verify.verdict import MUST

_SETTINGS = Settings(width=10, timeout_s=30.0, patience_s=20.0, settle_s=0.5, head_start_s=0.3)
_JOBS = 4
_NOTHING_SHOWN = 4
_ENGINE = (Kind.SLOW, Kind.DIES_BEFORE, Kind.DIES_AFTER)
_PAST_LEASE_S = 0.25
_WSGI_LACKS = {"SYN-15": "the server that has WSGI applications here takes no content in chunks, nor trailers"}


Call = Callable[[Callable[[], Any]], Awaitable[Any]]


def check(asked: Asked) -> RetryReport:
    """Run the check: cases and application on threads of their own, the counting of effects on this one.

    Raises:
        NotSafeToRetry: a case that must hold does not, or none reached a verdict.
        RetrysafeError: it cannot be run.
    """
    inner, marks, desk = behind(asked.client), Marks(), _Desk()
    with interruptible(), served(inner, marks) as port, start_blocking_portal() as portal:
        return desk.until(portal.start_task_soon(_check, asked, inner, marks, port, desk.call))


async def check_here(asked: Asked) -> RetryReport:
    """The same with everything in this event loop; raises what `check` does."""
    inner, marks = behind(asked.client), Marks()
    with interruptible():
        async with served_here(inner, marks) as port:
            return await _check(asked, inner, marks, port, _call_here)


async def _call_here(function: Callable[[], Any]) -> Any:
    return function()


class _Desk:
    """Where the thread of a test is asked to call something: its connections to a database are for no other thread."""

    def __init__(self) -> None:
        self._wanted: SimpleQueue[Callable[[], None] | None] = SimpleQueue()

    async def call(self, function: Callable[[], Any]) -> Any:
        """Have it called there; what it returned or raised."""
        answer: Future[Any] = Future()

        def calling() -> None:
            try:
                answer.set_result(function())
            except BaseException as error:  # noqa: BLE001 - it is raised where it was asked for
                answer.set_exception(error)

        self._wanted.put(calling)
        return await asyncio.wrap_future(answer)

    def until(self, done: Future[RetryReport]) -> RetryReport:
        """On the thread of the test: call what is wanted, until this is done."""
        done.add_done_callback(lambda _: self._wanted.put(None))
        while (calling := self._wanted.get()) is not None:
            calling()
        return done.result()


async def _check(asked: Asked, inner: Behind, marks: Marks, port: int, call: Call) -> RetryReport:
    cases = select(() if asked.cases == "all" else _listed(asked.cases), everything=asked.cases == "all")
    ignored = {**(_WSGI_LACKS if inner.protocol == "wsgi" else {}), **_ignored(asked.ignore)}
    run = Run(_target(asked, inner, f"http://{HOST}:{port}", call), load(asked.profile), _SETTINGS)
    await _look(run)
    if marks.reached:
        run.target = _with_engine(run.target)
    tried = [case for case in cases if case.id not in ignored]
    results = {result.case.id: result for result in await run_cases(run, tried, jobs=_JOBS)}
    report = RetryReport(
        tuple(_outcome(case, results, ignored, run) for case in cases), is_protected=marks.reached, requests=run.sent
    )
    code = exit_code(list(results.values()), strict=asked.strict)
    if code:
        raise NotSafeToRetry("\n".join(_why(asked, run, report, code)), report)
    return report


async def _look(run: Run) -> None:
    """One request whose mark tells whether retrysafe's engine had it."""
    probe = Probe(run, MUST)
    await probe.send(probe.intent_of(_marked(run.target.operation, Kind.SEEN), run.reference(), probe.new_key()))


# --- what was asked for ---------------------------------------------------------------------------


def _listed(cases: str | Sequence[str]) -> Sequence[str]:
    return (cases,) if isinstance(cases, str) else cases


def _ignored(ignore: Mapping[str, str]) -> dict[str, str]:
    """The reasons by the ids; every one has to be known, and every one needs a reason."""
    for id_, reason in ignore.items():
        if not reason.strip():
            raise ConfigurationError([f"ignore= has no reason for {id_}: say why the case does not matter here"])
    return {case.id: f"ignored: {ignore[id_]}" for id_ in ignore for case in select((id_,))}


def _target(asked: Asked, inner: Behind, base: str, call: Call) -> Target:
    if unknown := sorted(set(asked.operations) - OPERATIONS):
        raise ConfigurationError([f"operations= has {', '.join(unknown)}; known are {', '.join(sorted(OPERATIONS))}"])
    headers = (*inner.fields, *asked.headers.items())
    accounts = [tuple(account.items()) for account in asked.accounts] or [inner.account]
    path = asked.path if asked.path.startswith("/") else f"/{asked.path}"
    operation = Operation(asked.method.upper(), base + path, _body(asked), headers)
    target = Target(
        operation,
        {name: parse_operation(each, base, headers) for name, each in asked.operations.items()},
        account=accounts[0],
        other_account=accounts[1] if len(accounts) > 1 else (),
        counter=_counter(asked.effects, base, (*headers, *accounts[0]), call),
        required=asked.required,
    )
    if target.counter and target.counter.by_reference and not operation.has_reference():
        raise ConfigurationError(
            ["effects= counts by the reference, and no request has it: put {{unique}} into json=, form= or the path"]
        )
    return target


def _body(asked: Asked) -> str | None:
    if asked.json is not None and asked.form:
        raise ConfigurationError(["json= and form= are two contents of one request: give one of them"])
    if asked.form:
        return form_text(asked.form)
    return None if asked.json is None else json.dumps(asked.json)


def _counter(effects: str | Count | None, base: str, fields: Fields, call: Call) -> Counter | None:
    if effects is None or isinstance(effects, str):
        return parse_counter(effects, base, fields) if effects else None
    function, by_reference = effects, bool(inspect.signature(effects).parameters)

    async def count(reference: str, _: Sequence[Answer]) -> int:
        number = await call(partial(function, reference) if by_reference else function)
        return int(await number if inspect.isawaitable(number) else number)

    return Counter(getattr(effects, "__name__", "effects"), not by_reference, by_reference, count)


def _marked(operation: Operation, kind: Kind) -> Operation:
    return replace(operation, headers=(*operation.headers, (MARK, f"{kind.value} {UNIQUE}")))


def _with_engine(target: Target) -> Target:
    """What can be tried besides, because it can be made to happen inside the engine."""
    made = {kind.value: _marked(target.operation, kind) for kind in _ENGINE}
    return replace(target, operations={**made, **target.operations}, lease_s=LEASE_S + _PAST_LEASE_S)


# --- what came of it ------------------------------------------------------------------------------


def _outcome(case: Case, results: Mapping[str, Result], ignored: Mapping[str, str], run: Run) -> CaseOutcome:
    severity = run.profile.severity(case.id, case.severity).value
    if case.id in ignored:
        return CaseOutcome(case.id, case.sentence, severity, "skip", ignored[case.id])
    result = results[case.id]
    found = "\n".join(text.finding(result)) if result.findings else ""
    verdict = result.verdict.value.lower()
    return CaseOutcome(case.id, case.sentence, severity, verdict, _reason(result, run.target), result.notes, found)


def _reason(result: Result, target: Target) -> str:
    """Why it was not tried: in the words of this function's options, and not of the command line's."""
    lacking = [need for need in result.case.needs if not target.offers(need)]
    if not (result.reason.startswith("needs ") and lacking):
        return result.reason.replace("--required", "required=True")
    return "; ".join(f"needs {NEEDS[need][0]}{_HOW.get(need) or _how(need)}" for need in lacking)


_HOW = {
    "effects": ": effects=",
    "account": ": accounts=",
    "other-account": ": a second one in accounts=",
    "fields": ": json= or form=",
    "json": ": json=",
}


def _how(need: str) -> str:
    return f": operations={{{need!r}: ...}}" if need in OPERATIONS else ": `retrysafe verify` can be given one"


def _why(asked: Asked, run: Run, report: RetryReport, code: int) -> Iterator[str]:
    """The text of a failure."""
    name = f"{asked.method.upper()} {urlsplit(run.target.operation.url).path}"
    if code == _NOTHING_SHOWN:
        yield f"nothing was shown of {name}: no case that binds reached a verdict"
        yield str(report)
        return
    yield f"{name} is not safe to retry, by the profile {run.profile.name!r}"
    for outcome in report.outcomes:
        if outcome.verdict == "fail" or (asked.strict and outcome.verdict == "warn"):
            yield f"\n{outcome.found}"
    yield ""
    for id_, reason in report.inconclusive.items():
        yield f"inconclusive  {id_}  {reason}"
    yield report.total
