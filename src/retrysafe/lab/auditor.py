"""The one auditor: is what was seen of a run what was promised?

It believes nothing that the system under test says of itself but its answers: it compares what the clients got, what
the other side counted, what the store holds, and what was done to all of them. Simulated runs and killed processes
are judged by the same lines.

    python -m retrysafe.lab.auditor EVIDENCE.jsonl ...

What it cannot judge: messages of queues (there are no consumers yet), and anything that no evidence was given of.
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from retrysafe.errors import CallerError
from retrysafe.lab import linear
from retrysafe.lab.evidence import (
    Call,
    Effect,
    Evidence,
    Execution,
    Fault,
    Kind,
    Mode,
    StepKept,
    Stored,
    Write,
    read_lines,
)
from retrysafe.lab.linear import NS, is_outcome, losses
from retrysafe.lab.verdict import Violation, named

Place = tuple[str, str]


class _Keyed(Protocol):
    @property
    def scope(self) -> str: ...
    @property
    def key(self) -> str: ...


class _Timed(Protocol):
    @property
    def at_ns(self) -> int | None: ...


K = TypeVar("K", bound=_Keyed)
T = TypeVar("T", bound=_Timed)


def audit(evidence: Evidence) -> tuple[Violation, ...]:
    """Every invariant that the evidence shows to be broken, each as often as it is broken; empty if none is."""
    checks = (
        _effects, _acknowledged, _outcomes, _other_requests, _canaries, _stuck, _writes, _taken_over, _revived,
        _atomic, _steps, _forbidden, _gauges, _texts, _replays,
    )  # fmt: skip
    return tuple(violation for check in checks for violation in check(evidence))


def _by_key(events: Iterable[K]) -> dict[Place, list[K]]:
    places: dict[Place, list[K]] = defaultdict(list)
    for event in events:
        places[event.scope, event.key].append(event)
    return places


class Views:
    """The evidence by key."""

    def __init__(self, evidence: Evidence) -> None:
        self.calls = _by_key(evidence.calls)
        self.effects = _by_key(evidence.effects)
        self.executions = _by_key(evidence.executions)
        self.writes = _by_key(write for write in evidence.writes if write.took_effect)


# --- effects and outcomes -------------------------------------------------------------------------


def _effects(evidence: Evidence) -> Iterator[Violation]:
    """I1."""
    if evidence.rules.mode is Mode.RERUN:
        return
    calls = _by_key(evidence.calls)
    for place, effects in _by_key(effect for effect in evidence.effects if effect.applied).items():
        begin_ns = min((call.invoked_ns for call in calls[place]), default=effects[0].at_ns)
        excused = sum(begin_ns <= fault.at_ns <= effects[-1].at_ns for fault in losses(evidence))
        for step in dict.fromkeys(effect.step for effect in effects):
            of_step = [effect for effect in effects if effect.step == step]
            for life in _lives(of_step, evidence):
                if len(life) > 1 + excused:
                    what = f"step {step!r} of {named(life[0])}" if step else named(life[0])
                    yield Violation("I1", f"{what} had {len(life)} effects", tuple(life))
    views = Views(evidence)
    for place, of_key in _by_key(evidence.rows or ()).items():
        births = _row_births_ns(place, evidence, views)
        for rows in _by_life(of_key, births).values():
            if len(rows) > 1:
                yield Violation("I1", f"{len(rows)} transactions of {named(rows[0])} were committed", tuple(rows))


def _lives(effects: Sequence[Effect], evidence: Evidence) -> list[list[Effect]]:
    """The effects of one key, apart where the key was old enough to be forgotten; or was forgotten by hand."""
    lives: list[list[Effect]] = [[effect] for effect in effects[:1]]
    for effect in effects[1:]:
        began_ns = lives[-1][0].at_ns
        by_hand = any(
            fault.kind is Kind.BY_HAND and (fault.scope, fault.key) == (effect.scope, effect.key)
            and began_ns <= fault.at_ns <= effect.at_ns
            for fault in evidence.faults
        )  # fmt: skip
        if by_hand or effect.at_ns - began_ns >= evidence.rules.life_ms * NS:
            lives.append([effect])
        else:
            lives[-1].append(effect)
    return lives


def births_ns(place: Place, evidence: Evidence, views: Views) -> list[int]:
    """When a key that was old enough to be forgotten ran again, or was claimed, or had an outcome of its own."""
    lives = _lives(views.effects[place], evidence)
    signs = {
        *(life[0].at_ns for life in lives),
        *(call.invoked_ns for call in views.calls[place] if is_outcome(call) and not call.replayed),
        *(execution.began_ns for execution in views.executions[place]),
        *(write.at_ns for write in views.writes[place] if write.action == "CLAIM" and write.before is None),
    }
    by_hand = {life[0].at_ns for life in lives[1:]}
    births: list[int] = []
    for sign_ns in sorted(signs):
        if not births or sign_ns - births[-1] >= evidence.rules.life_ms * NS or sign_ns in by_hand:
            births.append(sign_ns)
    return births[1:]


def _row_births_ns(place: Place, evidence: Evidence, views: Views) -> list[int]:
    """When a new life began for the rows of a key: after a failover another clock says how old a record is."""
    lost_ns = min((fault.at_ns for fault in losses(evidence)), default=None)
    forgotten = {
        write.at_ns for write in views.writes[place]
        if write.action == "FORGET" and lost_ns is not None and lost_ns <= write.at_ns
    }  # fmt: skip
    return sorted({*births_ns(place, evidence, views), *forgotten})


def _by_life(events: Iterable[T], births: Sequence[int]) -> dict[int, list[T]]:
    """What happened under one key, by the number of the life in which it did; what has no time is of the last."""
    lives: dict[int, list[T]] = defaultdict(list)
    for event in events:
        lives[len(births) if event.at_ns is None else bisect_right(births, event.at_ns)].append(event)
    return lives


def _acknowledged(evidence: Evidence) -> Iterator[Violation]:
    """I1b."""
    effects = _by_key(evidence.effects)
    rows = _by_key(evidence.rows or ())
    for call in evidence.calls:
        if is_outcome(call) and call.code == "" and 200 <= (call.status or 0) < 300 and call.returned_ns is not None:
            place = call.scope, call.key
            before = any(effect.at_ns <= call.returned_ns for effect in effects[place])
            if not before and not rows[place] and not (evidence.rows is not None and losses(evidence)):
                yield Violation(
                    "I1b", f"a success was acknowledged for {named(call)}, and nothing had happened", (call,)
                )


def _outcomes(evidence: Evidence) -> Iterator[Violation]:
    """I2, I3, I4, I6 and I9, as far as the clients can tell."""
    views = Views(evidence)
    for place in list(views.calls):
        births = births_ns(place, evidence, views)
        yield from linear.check(evidence, views.calls[place], births)
        ran = {effect.fingerprint: effect for effect in views.effects[place]}
        for call in views.calls[place]:
            is_one_life = ran and not births and not losses(evidence)
            if is_one_life and call.fingerprint and is_outcome(call) and call.fingerprint not in ran:
                sentence = f"a request that did not run got an answer under {named(call)}"
                yield Violation("I4", sentence, (call, *ran.values()))


def _other_requests(evidence: Evidence) -> Iterator[Violation]:
    """I4: what ran."""
    for effects in _by_key(evidence.effects).values():
        for life in _lives(effects, evidence):
            firsts = {effect.fingerprint: effect for effect in life}
            if len(firsts) > 1 + len(losses(evidence)):
                yield Violation("I4", f"different requests ran under {named(life[0])}", tuple(firsts.values()))


def _canaries(evidence: Evidence) -> Iterator[Violation]:
    """I5."""
    for call in evidence.calls:
        if foreign := [canary for canary in call.canaries if canary != call.scope]:
            yield Violation("I5", f"the answer to {named(call)} has data of {', '.join(foreign)} in it", (call,))


def _forbidden(evidence: Evidence) -> Iterator[Violation]:
    """I12."""
    for call in evidence.calls:
        if call.replayed and not call.authorized and is_outcome(call):
            yield Violation("I12", f"the answer of {named(call)} was replayed to a caller that may not see it", (call,))


# --- ownership ------------------------------------------------------------------------------------


def _stuck(evidence: Evidence) -> Iterator[Violation]:
    """I6: a record that is in progress at the end though somebody asked for it after its lease."""
    calls = _by_key(evidence.calls)
    lost_ns = max((fault.at_ns for fault in losses(evidence)), default=0)
    for stored in evidence.stored:
        if stored.state != "in_progress":
            continue
        lapsed_ns = max(lost_ns, stored.at_ns - (stored.now_ms - stored.lease_until_ms) * NS)
        late = [call for call in calls[stored.scope, stored.key] if _would_move(call, stored, lapsed_ns, evidence)]
        if late:
            yield Violation("I6", f"the record of {named(stored)} stayed in progress after its lease", (stored, *late))


def _would_move(call: Call, stored: Stored, lapsed_ns: int, evidence: Evidence) -> bool:
    """Whether the answer to this call means that the record was looked at, after its lease, and left as it was."""
    answered = call.returned_ns is not None and call.code not in ("store-unavailable", "key-reused", "scope-missing")
    same = not call.fingerprint or not stored.fingerprint or call.fingerprint == stored.fingerprint
    return answered and same and call.invoked_ns > lapsed_ns + evidence.rules.grace_ms * NS


_OWN = frozenset({"RENEW", "JOURNAL", "COMPLETE", "RELEASE", "DISCARD", "GIVE_UP"})
_CLAIMS = frozenset({"CLAIM", "TAKE_OVER", "RECLAIM"})


def _writes(evidence: Evidence) -> Iterator[Violation]:
    """I7, and I9 as far as the store's own log shows it."""
    lost_ns = [fault.at_ns for fault in losses(evidence)]
    for writes in _by_key(write for write in evidence.writes if write.took_effect).values():
        holder: Write | None = None
        held: set[str] = set()
        entered_ns: int | None = None  # since when it is unknown: given up, or its lease over
        lapses_ns = 0
        seen_ns = writes[0].at_ns
        for write in writes:
            if any(seen_ns <= at_ns <= write.at_ns for at_ns in lost_ns):
                holder, held, entered_ns = None, set(), None
            seen_ns = write.at_ns
            if write.action in _CLAIMS:
                yield from _claimed(write, holder, held)
                holder = write
                held.add(_token(write))
            elif write.action in _OWN and holder is not None and write.token != _token(holder):
                yield Violation("I7", f"{write.action} by an owner before changed {named(write)}", (holder, write))
            yield from _unknown(write, entered_ns, evidence)
            if write.action in _CLAIMS or write.action == "RENEW":
                lapses_ns = write.at_ns + _lease_ms(write, evidence) * NS
            if write.after == "unknown" and write.before != "unknown":
                entered_ns = lapses_ns if write.action == "ABANDON" else write.at_ns
            if write.after is None:
                holder, held = None, set()  # a claim that was taken back may still arrive once more


def _lease_ms(write: Write, evidence: Evidence) -> int:
    return evidence.rules.lease_ms if write.lease_ms is None else write.lease_ms


def _token(write: Write) -> str:
    return write.new_token or write.token


def _claimed(write: Write, holder: Write | None, held: set[str]) -> Iterator[Violation]:
    if _token(write) in held:
        yield Violation("I7", f"a token of {named(write)} was used again", (write,))
    if holder is not None and write.attempt <= holder.attempt:
        yield Violation("I7", f"the attempts of {named(write)} do not increase", (holder, write))


def _unknown(write: Write, entered_ns: int | None, evidence: Evidence) -> Iterator[Violation]:
    if write.after == "unknown" and write.before in ("completed", "expired"):
        yield Violation("I9", f"the record of {named(write)} was completed and became unknown", (write,))
    if write.before != "unknown" or write.after == "unknown":
        return
    early = entered_ns is not None and not losses(evidence) and write.at_ns - entered_ns < evidence.rules.life_ms * NS
    if write.action in _CLAIMS or (write.action == "FORGET" and early):
        yield Violation(
            "I9", f"the record of {named(write)} was unknown and became {write.after or 'absent'}", (write,)
        )


_EXCUSES = frozenset({Kind.CRASH, Kind.PAUSE, Kind.PARTITION, Kind.STORE_AWAY, Kind.FAILOVER, Kind.SHUTDOWN})


def _taken_over(evidence: Evidence) -> Iterator[Violation]:
    """I8."""
    executions = {execution.token: execution for execution in evidence.executions}
    for writes in _by_key(write for write in evidence.writes if write.took_effect).values():
        sign: Write | None = None  # the last that the store heard of the owner
        for write in writes:
            if write.action in _CLAIMS | {"RENEW"}:
                if write.action == "TAKE_OVER" and sign is not None:
                    yield from _judge_takeover(sign, write, executions.get(_token(sign)), evidence)
                sign = write
            elif write.action == "ABANDON" and sign is not None:
                yield from _judge_takeover(sign, write, executions.get(_token(sign)), evidence)


def _judge_takeover(sign: Write, write: Write, running: Execution | None, evidence: Evidence) -> Iterator[Violation]:
    rules = evidence.rules
    window = [fault for fault in evidence.faults if _touches(fault, sign.at_ns, write.at_ns)]
    if any(fault.kind is Kind.FAILOVER for fault in window):
        return
    if write.at_ns - sign.at_ns < (_lease_ms(sign, evidence) - 1) * NS:  # the store counts whole milliseconds
        yield Violation("I8", f"{named(write)} was taken from its owner before its lease was over", (sign, write))
        return
    if rules.mode is Mode.TRANSACTIONAL:  # whose owner does not renew while its transaction is open
        return
    if running is None or not running.began_ns <= write.at_ns - rules.lease_ms * NS:
        return
    is_over = running.ended_ns is not None and running.ended_ns <= write.at_ns
    overdue = write.at_ns - running.began_ns >= rules.execution_max_ms * NS
    hindered = any(fault.kind in _EXCUSES and fault.node in ("", running.node) for fault in window)
    if not (is_over or overdue or hindered):
        yield Violation("I8", f"{named(write)} was taken from an owner that is alive", (running, sign, write))


def _touches(fault: Fault, begin_ns: int, end_ns: int) -> bool:
    until_ns = fault.at_ns if fault.until_ns is None else fault.until_ns
    lasting = fault.kind in (Kind.CRASH, Kind.SHUTDOWN)
    return fault.at_ns <= end_ns and (lasting or until_ns >= begin_ns)


def _revived(evidence: Evidence) -> Iterator[Violation]:
    """I9, where no log of the store says more: what was called unknown ran for a request that came later."""
    if evidence.writes or evidence.rules.may_release or losses(evidence):
        return
    by_hand = {(fault.scope, fault.key) for fault in evidence.faults if fault.kind is Kind.BY_HAND}
    crashed = {fault.node for fault in evidence.faults if fault.kind is Kind.CRASH}
    effects = _by_key(evidence.effects)
    for place, calls in _by_key(evidence.calls).items():
        unknown = min((call.returned_ns or 0 for call in calls if call.code == "outcome-unknown"), default=None)
        open_ended = any(
            call.code == "store-unavailable" or (call.returned_ns is None and call.node not in crashed)
            for call in calls
        )
        if unknown is None or open_ended or place in by_hand:
            continue
        invoked_ns = {call.id: call.invoked_ns for call in calls}
        for effect in effects[place]:
            young = effect.at_ns - unknown < evidence.rules.life_ms * NS
            if effect.call is not None and invoked_ns.get(effect.call, 0) > unknown and young:
                yield Violation("I9", f"{named(effect)} was called unknown, and ran for a later request", (effect,))


# --- transactions and steps -----------------------------------------------------------------------


def _atomic(evidence: Evidence) -> Iterator[Violation]:
    """I10."""
    if evidence.rules.mode is not Mode.TRANSACTIONAL or evidence.rows is None:
        return
    views = Views(evidence)
    stored = {(record.scope, record.key): record for record in evidence.stored}
    over_ns = max((record.at_ns for record in evidence.stored), default=0)
    rows = _by_key(evidence.rows)
    for place in {**rows, **stored}:
        births = _row_births_ns(place, evidence, views)
        record = stored.get(place)
        of_life = _by_life(rows[place], births)[len(births)]
        for row in of_life:
            is_old = row.at_ns is not None and over_ns - row.at_ns >= evidence.rules.life_ms * NS
            if not (is_old or (record is not None and record.state in ("completed", "expired"))):
                shown = (row,) if record is None else (row, record)
                yield Violation("I10", f"the transaction of {named(row)} was committed without its record", shown)
        if record is not None and record.state == "completed" and 200 <= (record.status or 0) < 300 and not of_life:
            yield Violation("I10", f"the record of {named(record)} is there without its transaction", (record,))


def _steps(evidence: Evidence) -> Iterator[Violation]:
    """I11."""
    calls: dict[tuple[str, str, str], list[Effect]] = defaultdict(list)
    owners: dict[str, Effect] = {}
    for effect in evidence.effects:
        if not effect.step:
            continue
        calls[effect.scope, effect.key, effect.step].append(effect)
        owner = owners.setdefault(effect.child_key, effect)
        if (owner.scope, owner.key, owner.step) != (effect.scope, effect.key, effect.step):
            yield Violation("I11", "two different steps were sent with one key", (owner, effect))
    views = Views(evidence)
    for (scope, key, step), all_sent in calls.items():
        births = births_ns((scope, key), evidence, views)
        done = _by_life(
            (kept for kept in evidence.kept if (kept.scope, kept.key, kept.step) == (scope, key, step)), births
        )
        for life, sent in _by_life(all_sent, births).items():
            yield from _step(sent, done[life], evidence)


def _step(sent: Sequence[Effect], done: Sequence[StepKept], evidence: Evidence) -> Iterator[Violation]:
    """One step of one key, in one life of it."""
    for what in ("child_key",) if losses(evidence) else ("child_key", "input"):
        if len({getattr(effect, what) for effect in sent}) > 1:
            yield Violation("I11", f"step {sent[0].step!r} of {named(sent[0])} changed its {what}", tuple(sent))
    for kept in () if losses(evidence) else done:
        # An earlier attempt may have been stopped with the call on its lips; the other side knows it by its key.
        again = [effect for effect in sent if effect.at_ns > kept.at_ns and effect.attempt >= kept.attempt]
        if again:
            yield Violation("I11", f"step {kept.step!r} of {named(kept)} was done again", (kept, *again))


# --- the run as a whole ---------------------------------------------------------------------------


def _gauges(evidence: Evidence) -> Iterator[Violation]:
    """I13."""
    for gauge in evidence.gauges:
        if gauge.after > gauge.before + gauge.allowed:
            yield Violation("I13", f"{gauge.name}: {gauge.before} before the load and {gauge.after} after it", (gauge,))


def _texts(evidence: Evidence) -> Iterator[Violation]:
    """I15. The secret itself is not said again."""
    for text in evidence.texts:
        for number, secret in enumerate(evidence.rules.secrets):
            if secret in text.content:
                yield Violation("I15", f"secret number {number} stands in {text.where}")


def _replays(evidence: Evidence) -> Iterator[Violation]:
    """I16."""
    firsts: dict[str, str] = {}
    for run in evidence.replayed:
        if firsts.setdefault(run.seed, run.digest) != run.digest:
            yield Violation("I16", f"seed {run.seed} did not give the same run again", (run,))


def report(evidence: Evidence) -> str:
    """What was looked at, and what was found, for people."""
    found = audit(evidence)
    looked = (
        f"{len(evidence.calls)} calls, {len(evidence.effects)} effects, {len(evidence.writes)} writes, "
        f"{len(evidence.stored)} records, {len(evidence.faults)} faults; "
        f"mode {evidence.rules.mode}, store {evidence.rules.store}"
    )
    verdict = f"{len(found)} violations" if found else "no violations"
    return "\n".join([looked, *(str(violation) for violation in found), verdict])


def main(paths: Sequence[str]) -> int:
    """Judge files of evidence together.

    Returns:
        0: clean; 1: violations; 2: no evidence, or it cannot be read; 4: nothing was seen, so nothing is shown.
    """
    try:
        lines = [line for path in paths for line in Path(path).read_text("utf-8").splitlines(keepends=True)]
        evidence = read_lines(lines)
    except (CallerError, OSError) as error:
        sys.stderr.write(f"retrysafe: {error}\n")
        return 2
    sys.stdout.write(report(evidence) + "\n")
    if not evidence.calls:
        sys.stderr.write("retrysafe: there is no call in the evidence: nothing is shown by it\n")
        return 4
    return 1 if audit(evidence) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
