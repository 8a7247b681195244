"""Is what the clients of one key saw one outcome, in an order that time allows?

A key is a register that is written once, so no search is needed: everything follows from the first outcome that
somebody was given. After it, every later request gets the same (I2, I3), or is told that it is another request (I4).
Before it, "in progress" is true only while somebody may be in progress (I6).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from retrysafe.lab.evidence import Call, Evidence, Fault, Kind, Mode, StoreClass
from retrysafe.lab.verdict import Violation, named

NS = 1_000_000
RETRYABLE = frozenset({401, 403, 405, 407, 408, 415, 421, 423, 425, 429})
_SAYS_NOTHING = frozenset({"store-unavailable", "replay-unavailable"})
_LEAVES_IT_OPEN = frozenset({"store-unavailable", "commit-pending", "handler-failed-retryable"})


def is_outcome(call: Call) -> bool:
    """Whether the client was given the outcome of its operation: by its handler or from the record."""
    answered = call.returned_ns is not None and call.status not in RETRYABLE
    return answered and call.code in ("", "handler-failed")


def losses(evidence: Evidence) -> list[Fault]:
    """The faults after which the store may have forgotten what it answered, by its own class."""
    kinds = {
        StoreClass.DURABLE: (),
        StoreClass.FORGETS_ON_FAILOVER: (Kind.FAILOVER,),
        StoreClass.DIES_WITH_PROCESS: (Kind.FAILOVER, Kind.CRASH),
    }[evidence.rules.store]
    return [fault for fault in evidence.faults if fault.kind in kinds]


def check(evidence: Evidence, calls: Sequence[Call], births_ns: Sequence[int]) -> Iterator[Violation]:
    """What is wrong with the calls of one key.

    Args:
        evidence: of the whole run.
        calls: all that were made with this key.
        births_ns: when the key was born again, by its effects; it may have another outcome from then on.
    """
    bounds_ns = [-(1 << 63), *births_ns, 1 << 63]
    for begin_ns, end_ns in pairwise(bounds_ns):
        life = [call for call in calls if begin_ns <= call.invoked_ns and (call.returned_ns or end_ns) <= end_ns]
        yield from _one_life(evidence, life)
    yield from _mismatches(calls, evidence)
    yield from _in_progress(evidence, calls)


def _one_life(evidence: Evidence, calls: Sequence[Call]) -> Iterator[Violation]:
    outcomes = [call for call in calls if is_outcome(call)]
    if (
        evidence.rules.mode is not Mode.MANUAL
    ):  # it may run again, and an answer that could not be recorded binds nobody
        outcomes = [call for call in outcomes if not call.unrecorded]
    allowed = 1 + _losses_within(evidence, calls)
    values = {(call.status, call.body, call.headers): call for call in outcomes}
    if len(values) > allowed:
        yield Violation(
            "I2", f"{len(values)} different outcomes were given for {named(calls[0])}", tuple(values.values())
        )
    firsts = {call.fingerprint: call for call in outcomes}
    if len(firsts) > allowed:
        yield Violation("I4", f"different requests got an outcome under {named(calls[0])}", tuple(firsts.values()))
    unmarked = [call for call in outcomes if not call.replayed and not call.unrecorded]
    if len(values) <= allowed < len(unmarked):
        yield Violation("I2", f"a replay for {named(calls[0])} was not marked as one", tuple(unmarked))
    known = [call for call in outcomes if not call.unrecorded]
    if known and allowed == 1:
        first = min(known, key=lambda call: call.returned_ns or 0)
        for call in calls:
            yield from _after(first, call, evidence, min(call.invoked_ns for call in calls))


def _losses_within(evidence: Evidence, calls: Sequence[Call]) -> int:
    begin_ns = min((call.invoked_ns for call in calls), default=0)
    return sum(fault.at_ns >= begin_ns for fault in losses(evidence))


def _after(first: Call, call: Call, evidence: Evidence, begin_ns: int) -> Iterator[Violation]:
    """What a call may have been answered that was made when the outcome was known; the key is as old as `begin_ns`."""
    first_ns = first.returned_ns or 0
    if call.returned_ns is None or call.invoked_ns <= first_ns or is_outcome(call) or call.code in _SAYS_NOTHING:
        return
    if call.code == "key-reused":  # whether that is true is judged with the fingerprints
        return
    if call.code == "replay-forbidden" and not call.authorized:
        return
    age_ms = (call.returned_ns - begin_ns) // NS
    if age_ms >= evidence.rules.life_ms or (age_ms >= evidence.rules.lifetime_ms and call.code == "key-expired"):
        return
    if call.fingerprint != first.fingerprint:
        yield Violation("I4", f"a different request under {named(call)} was not told so", (first, call))
    elif call.code == "outcome-unknown":
        yield Violation("I9", f"the outcome of {named(call)} was known and then called unknown", (first, call))
    else:
        yield Violation("I3", f"the outcome of {named(call)} was given and then withheld", (first, call))


def _mismatches(calls: Sequence[Call], evidence: Evidence) -> Iterator[Violation]:
    """Who was told that its request differs from the first must differ from one that was made before."""
    for call in calls:
        if call.code != "key-reused" or call.returned_ns is None:
            continue
        others = [other for other in calls if other.invoked_ns <= call.returned_ns and other is not call]
        same = [other for other in others if other.fingerprint == call.fingerprint and is_outcome(other)]
        known = [other for other in same if (other.returned_ns or 0) < call.invoked_ns]
        ages_ns = [call.returned_ns - other.invoked_ns for other in others]
        if losses(evidence) or max(ages_ns, default=0) >= evidence.rules.life_ms * NS:
            known = []  # it may have been forgotten, and the key taken by the other request
        if known or all(other.fingerprint == call.fingerprint for other in others):
            yield Violation(
                "I4", f"the request under {named(call)} was told that it differs from itself", (call, *known)
            )


def _in_progress(evidence: Evidence, calls: Sequence[Call]) -> Iterator[Violation]:
    for call in calls:
        if call.code == "in-progress" and call.returned_ns is not None and not losses(evidence):
            others = [other for other in calls if other is not call and other.invoked_ns <= call.returned_ns]
            if not any(call.invoked_ns <= _busy_until_ns(evidence, other) for other in others):
                sentence = f"{named(call)} was said to be in progress when nobody could be at work on it"
                yield Violation("I6", sentence, (call, *others))


def _paused_ns(evidence: Evidence, call: Call) -> int:
    """For how long whoever has the call could not go on with it, nor learn that its time was over."""
    pauses = [
        (fault.at_ns, fault.until_ns)
        for fault in evidence.faults
        if fault.kind is Kind.PAUSE and fault.node in ("", call.node) and fault.until_ns is not None
    ]
    return sum(max(0, until_ns - max(at_ns, call.invoked_ns)) for at_ns, until_ns in pauses)


def _busy_until_ns(evidence: Evidence, call: Call) -> int:
    """Until when the record may be in progress because of this call, at most."""
    rules = evidence.rules
    patience_ns = (rules.lease_ms + rules.grace_ms) * NS
    for fault in evidence.faults:
        if fault.kind is Kind.CRASH and fault.node in ("", call.node) and fault.at_ns >= call.invoked_ns:
            if call.returned_ns is None or call.returned_ns >= fault.at_ns:
                return fault.at_ns + patience_ns
            break
    if call.returned_ns is None:
        return call.invoked_ns + rules.execution_max_ms * NS + patience_ns + _paused_ns(evidence, call)
    if call.unrecorded or call.code in _LEAVES_IT_OPEN:
        return call.returned_ns + patience_ns
    return call.returned_ns
