"""What is wrong with a trial: what the auditor finds, and what a death at a known point must not lead to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prove.kill.orders import Action
from prove.kill.rig import Trial
from retrysafe.lab.auditor import audit
from retrysafe.lab.evidence import Call, Mode

_RECORDED = frozenset({"after CompleteIfHeld", "after the commit"})
_CLAIMED = ("after ClaimIfAbsent", "after TakeOverIfLapsed", "after ClaimIfRetryable")


def faults(trial: Trial) -> Iterator[str]:
    """Each in a sentence."""
    evidence = trial.evidence
    assert evidence is not None, "the trial is not over"
    yield from map(str, audit(evidence))
    if all(shot.action in (Action.KILL, Action.NONE) for shot in trial.case.shots) and not trial.case.lines:
        yield from _of_retries(trial, evidence.rules.mode)


def _of_retries(trial: Trial, mode: Mode) -> Iterator[str]:
    """A process that died at a point did all before it and nothing after: so it is known what a retry must get."""
    assert trial.evidence is not None, "the trial is not over"
    *_, first, second = trial.evidence.calls
    expected = _expected(trial, mode)
    seen = _kind(first)
    if seen == "is replayed" and any(map(_was_settling, trial.traces)):
        expected = seen
    if seen != expected:
        yield f"the first retry {seen}; after {trial.traces[-1][-1:]} it had to be one that {expected}"
    then = "is told that the outcome is unknown" if expected == "is told that the outcome is unknown" else "is replayed"
    if _kind(second) != then:
        yield f"the second retry {_kind(second)}; it had to be one that {then}"
    effects = len(trial.evidence.effects) + len(trial.evidence.rows or ())
    least = 0 if then != "is replayed" else 1
    if effects < least:
        yield f"there were {effects} effects, and an answer that says that there was one"


def _expected(trial: Trial, mode: Mode) -> str:
    passed = [point.partition(" #")[0] for trace in trial.traces for point in trace]
    if not _RECORDED.isdisjoint(passed):
        return "is replayed"
    if mode is Mode.MANUAL and any(claimed in passed for claimed in _CLAIMED):
        return "is told that the outcome is unknown"
    return "runs"


def _was_settling(trace: Sequence[str]) -> bool:
    """Whether it died at a point of a renewal while its outcome was on the way to the store: that may have arrived."""
    begun = [point.partition(" #")[0] for point in trace[:-1]]
    return any(
        begun.count(f"before {what}") > begun.count(f"after {what}") for what in ("CompleteIfHeld", "the commit")
    )


def _kind(call: Call) -> str:
    if call.code == "outcome-unknown":
        return "is told that the outcome is unknown"
    if call.status == 201:
        return "is replayed" if call.replayed else "runs"
    return f"is answered {call.status} {call.code}"
