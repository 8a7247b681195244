"""Runs cases, and tells of each as it ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from retrysafe.errors import RetrysafeError
from retrysafe.verify.case import Case, Result
from retrysafe.verify.message import Sent
from retrysafe.verify.probe import Probe, Run
from retrysafe.verify.verdict import MUST, Inconclusive, Skipped, Stopped, Verdict
from retrysafe.verify.wire import Wire

CASE_S_MAX = 900.0
_REDIRECTS = frozenset({301, 302, 307, 308})
ABOUT_ACCEPTANCE = frozenset({"SYN-01", "SYN-02"})


class Unreachable(RetrysafeError):
    """The target cannot be reached."""


async def run_cases(
    run: Run, cases: Sequence[Case], tell: Callable[[Result], None] = lambda _: None, jobs: int = 1
) -> list[Result]:
    """Run cases and give their results, in the order of the cases.

    Args:
        run: the target, the profile and the settings.
        cases: what to run.
        tell: called with each result as it comes.
        jobs: how many cases run at once. A counter of totals allows one; a case that changes the target is alone.

    Raises:
        Unreachable: nothing listens at the target.
        RetrysafeError: the effects cannot be counted.
    """
    refused = await _look(run)
    counter = run.target.counter
    slots = asyncio.Semaphore(1 if counter and counter.total else jobs)

    async def one(case: Case) -> Result:
        async with slots:
            result = await try_case(run, case, refused)
        tell(result)
        return result

    together = await asyncio.gather(*(one(case) for case in cases if not case.alone))
    alone = [await one(case) for case in cases if case.alone]
    results = {result.case.id: result for result in (*together, *alone)}
    return [results[case.id] for case in cases]


async def _look(run: Run) -> str:
    """Be sure that somebody is there before anything is judged; what is wrong with a plain request, or nothing."""
    answer = await Wire(run.settings.timeout_s).exchange(Sent("OPTIONS", run.target.operation.url))
    if not answer.status:
        raise Unreachable(f"nothing answers at {run.target.base_url}: is the API running, and is the address right?")
    if run.target.counter:
        await run.target.counter.count(run.reference(), ())
    probe = Probe(run, MUST)
    answer = await probe.send(probe.intent())
    if answer.status in _REDIRECTS:
        return f"a first request is redirected to {answer.value('location')}: is the address right?"
    return "" if answer.success else f"a first request with a key is answered {answer}: is the operation right?"


async def try_case(run: Run, case: Case, refused: str = "") -> Result:
    """Run one case.

    Args:
        run: the target, the profile and the settings.
        case: the case.
        refused: why no request is accepted; then only the cases that are about that can say anything.
    """
    severity = run.profile.severity(case.id, case.severity)
    began_s = time.monotonic()
    if reason := _why_not(run, case):
        return Result(case, severity, Verdict.SKIP, reason)
    if refused and case.id not in ABOUT_ACCEPTANCE:
        return Result(case, severity, Verdict.INCONCLUSIVE, refused)
    probe = Probe(run, severity)
    verdict, reason = await _verdict(case, probe)
    if verdict is Verdict.PASS:
        verdict = judged(probe)
    return Result(
        case,
        severity,
        verdict,
        reason,
        tuple(probe.findings),
        tuple(probe.notes),
        tuple(probe.steps),
        time.monotonic() - began_s,
    )


async def _verdict(case: Case, probe: Probe) -> tuple[Verdict, str]:
    """Whether the case could be tried to its end, and why not."""
    try:
        async with asyncio.timeout(CASE_S_MAX):
            await case.run(probe)
    except Stopped:
        return Verdict.PASS, ""
    except Skipped as skipped:
        return (Verdict.PASS, "") if probe.findings else (Verdict.SKIP, str(skipped))
    except (Inconclusive, RetrysafeError) as unclear:
        return (Verdict.PASS, "") if probe.findings else (Verdict.INCONCLUSIVE, str(unclear))
    except TimeoutError:
        return Verdict.INCONCLUSIVE, f"the case did not end within {CASE_S_MAX:g} s"
    return Verdict.PASS, ""


def judged(probe: Probe) -> Verdict:
    """What the findings of a case amount to."""
    severities = {finding.severity for finding in probe.findings}
    if MUST in severities:
        return Verdict.FAIL
    return Verdict.WARN if severities else Verdict.PASS


def _why_not(run: Run, case: Case) -> str:
    """Why a case is skipped, or nothing."""
    if case.id in run.profile.excused:
        return f"profile {run.profile.name}: {run.profile.excused[case.id]}"
    lacking = [reason for need in case.needs if (reason := run.target.lacks(need))]
    return "; ".join(lacking)


def exit_code(results: Sequence[Result], *, strict: bool = False) -> int:
    """0 clean, 1 findings, 4 inconclusive: no case that binds reached a verdict, or none at all if none binds.

    Args:
        results: of the run.
        strict: what should be and is not is a finding too.
    """
    bad = {Verdict.FAIL, Verdict.WARN} if strict else {Verdict.FAIL}
    if any(result.verdict in bad for result in results):
        return 1
    reached = {Verdict.PASS, Verdict.FAIL, Verdict.WARN}
    binding = [result for result in results if result.severity is MUST] or results
    return 0 if any(result.verdict in reached for result in binding) else 4
