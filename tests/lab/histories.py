"""Hand-made evidence: fifty and more histories that are wrong, each in one way, and near misses that are right.

Times are in seconds. The lease is 10 s, a key lives for 100 s, an outcome for 60 s, grace is 1 s.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from retrysafe.lab.evidence import (
    Call,
    Effect,
    Event,
    Evidence,
    Execution,
    Fault,
    Gauge,
    Kind,
    Mode,
    Replayed,
    Row,
    Rules,
    StepKept,
    StoreClass,
    Stored,
    Text,
    Write,
    gathered,
)

S = 1_000_000_000
RULES: dict[str, Any] = {
    "lease_ms": 10_000,
    "life_ms": 100_000,
    "lifetime_ms": 60_000,
    "grace_ms": 1_000,
    "execution_max_ms": 30_000,
}
REDIS = {"store": StoreClass.FORGETS_ON_FAILOVER}
RERUN = {"mode": Mode.RERUN}
WITHIN = {"mode": Mode.TRANSACTIONAL}
STEPS = {"mode": Mode.STEPS}


def case(*events: Event, **rules: Any) -> Evidence:
    return gathered(Rules(**{**RULES, **rules}), events)


def ok(number: int, sent: float, got: float | None, body: str = "a", **more: Any) -> Call:
    """A call that got the handler's answer."""
    return _call(number, sent, got, **{"status": 201, "body": body, "fingerprint": "f", **more})


def again(number: int, sent: float, got: float, body: str = "a", **more: Any) -> Call:
    """A call that got a replay."""
    return ok(number, sent, got, body, replayed=True, **more)


def said(number: int, sent: float, got: float, code: str, **more: Any) -> Call:
    """A call that got a problem."""
    status = {"key-reused": 422, "store-unavailable": 503, "handler-failed": 500, "key-expired": 412}.get(code, 409)
    return _call(number, sent, got, **{"status": status, "code": code, "fingerprint": "f", **more})


def gone(number: int, sent: float, **more: Any) -> Call:
    """A call that got no answer."""
    return _call(number, sent, None, **{"fingerprint": "f", **more})


def _call(number: int, sent: float, got: float | None, **more: Any) -> Call:
    returned_ns = None if got is None else int(got * S)
    return Call(
        **{"id": number, "scope": "s", "key": "k", "invoked_ns": int(sent * S), "returned_ns": returned_ns, **more}
    )


def did(at: float, call: int | None = 1, **more: Any) -> Effect:
    return Effect(**{"at_ns": int(at * S), "scope": "s", "key": "k", "call": call, "fingerprint": "f", **more})


def sent(at: float, step: str = "charge", child_key: str = "c", call: int = 1, **more: Any) -> Effect:
    return did(at, call, step=step, child_key=child_key, **more)


def ran(token: str, began: float, ended: float | None, node: str = "n1") -> Execution:
    return Execution("s", "k", token, node, int(began * S), None if ended is None else int(ended * S))


_MOVES = {
    "CLAIM": (None, "in_progress"),
    "TAKE_OVER": ("in_progress", "in_progress"),
    "RECLAIM": ("retryable", "in_progress"),
    "RENEW": ("in_progress", "in_progress"),
    "JOURNAL": ("in_progress", "in_progress"),
    "COMPLETE": ("in_progress", "completed"),
    "RELEASE": ("in_progress", "retryable"),
    "DISCARD": ("in_progress", None),
    "GIVE_UP": ("in_progress", "unknown"),
    "ABANDON": ("in_progress", "unknown"),
    "FORGET": ("completed", None),
    "EXPIRE": ("completed", "expired"),
    "RULE_OUT": ("unknown", "retryable"),
}


def wrote(at: float, action: str, token: str, new: str = "", **more: Any) -> Write:
    before, after = _MOVES[action]
    known = {"took_effect": True, "before": before, "after": after, "new_token": new, "attempt": 1}
    return Write(**{"at_ns": int(at * S), "scope": "s", "key": "k", "action": action, "token": token, **known, **more})


def held(state: str, at: float = 50, lapses: float = 10, **more: Any) -> Stored:
    known = {"at_ns": int(at * S), "now_ms": int(at * 1_000) + 7, "lease_until_ms": int(lapses * 1_000) + 7}
    return Stored(**{**known, "scope": "s", "key": "k", "state": state, "fingerprint": "f", **more})


def fault(at: float, kind: Kind, node: str = "", until: float | None = None, **more: Any) -> Fault:
    return Fault(int(at * S), kind, node, None if until is None else int(until * S), **more)


FIRST = (ok(1, 0, 2), did(1))
CRASHED = (gone(1, 0, node="n1"), fault(2, Kind.CRASH, "n1"))

BAD: Sequence[tuple[str, str, Evidence]] = [
    # --- I1
    ("I1", "two effects of one key", case(*FIRST, did(3, 2))),
    ("I1", "two effects, nobody was answered", case(gone(1, 0), gone(2, 1), did(1), did(3, 2))),
    ("I1", "the second when the key had nearly lived its life", case(gone(1, 0), did(1), did(100.9, 2))),
    ("I1", "a durable store has no excuse in a failover", case(gone(1, 0), did(1), fault(2, Kind.FAILOVER), did(3, 2))),
    ("I1", "one failover, three effects", case(gone(1, 0), did(1), fault(2, Kind.FAILOVER), did(3), did(4), **REDIS)),
    ("I1", "the failover came afterwards", case(gone(1, 0), did(1), did(3, 2), fault(4, Kind.FAILOVER), **REDIS)),
    ("I1", "the failover was before it", case(fault(1, Kind.FAILOVER), gone(1, 2), did(3), did(4), **REDIS)),
    ("I1", "a step had two effects", case(gone(1, 0), sent(1), sent(2), **STEPS)),
    ("I1", "two transactions were committed", case(Row("s", "k"), Row("s", "k", 2), held("completed"), **WITHIN)),
    ("I1", "two transactions were committed in one life", case(
        *FIRST, Row("s", "k", 1, 1 * S), Row("s", "k", 2, 99 * S), held("completed"), **WITHIN)),
    ("I1", "an owner that was paused did it after the one that took over", case(
        gone(1, 0, node="n1"), fault(1, Kind.PAUSE, "n1", 15), did(12, 2), did(15, 1))),
    # --- I1b
    ("I1b", "a success and no effect", case(ok(1, 0, 2))),
    ("I1b", "the effect came after the success", case(ok(1, 0, 2), did(3))),
    ("I1b", "the effect is another key's", case(ok(1, 0, 2), did(1, key="other"))),
    ("I1b", "the effect is the same key's of another account", case(ok(1, 0, 2), did(1, scope="other"))),
    ("I1b", "a success and no transaction", case(ok(1, 0, 2), **WITHIN)),
    ("I1b", "a replay of nothing", case(again(1, 0, 2))),
    ("I1b", "a handler that may run again did not run at all", case(ok(1, 0, 2), **RERUN)),
    # --- I2
    ("I2", "two contents", case(*FIRST, again(2, 3, 4, "b"))),
    ("I2", "two statuses", case(*FIRST, again(2, 3, 4, status=200))),
    ("I2", "two sets of fields", case(*FIRST, again(2, 3, 4, headers="other"))),
    ("I2", "two outcomes at the same time", case(ok(1, 0, 5), did(1), again(2, 0, 5, "b"))),
    ("I2", "a failure is an outcome too", case(*FIRST, said(2, 3, 4, "handler-failed", replayed=True))),
    ("I2", "a replay that is not marked", case(*FIRST, ok(2, 3, 4))),
    ("I2", "two owners, two answers, where it may run again", case(*FIRST, did(3, 2), ok(2, 3, 4, "b"), **RERUN)),
    ("I2", "an answer that was not recorded is still the only one", case(
        ok(1, 0, 2, unrecorded=True), did(1), again(2, 3, 4, "b"))),
    ("I2", "three outcomes with one failover", case(
        *FIRST, fault(3, Kind.FAILOVER), ok(2, 4, 5, "b"), ok(3, 6, 7, "c"), **REDIS)),
    # --- I3
    ("I3", "given, then said to be in progress", case(
        *FIRST, ok(2, 2, 5, replayed=True), said(3, 3, 4, "in-progress"))),
    ("I3", "given, then too old while it was young", case(*FIRST, said(2, 58, 59.5, "key-expired"))),
    ("I3", "given, then withheld from somebody who may see it", case(*FIRST, said(2, 3, 4, "replay-forbidden"))),
    ("I3", "given, then released", case(*FIRST, _call(2, 3, 4, status=429, fingerprint="f"))),
    ("I3", "given, then lost in a failover of a durable store", case(
        *FIRST, fault(3, Kind.FAILOVER), said(2, 4, 5, "scope-missing"))),
    # --- I4
    ("I4", "a different request got the answer", case(*FIRST, again(2, 3, 4, fingerprint="g"))),
    ("I4", "a different request ran", case(gone(1, 0), did(1), did(3, 2, fingerprint="g"), **RERUN)),
    ("I4", "a different request was told in progress", case(
        *FIRST, ok(3, 2, 5, replayed=True), said(2, 3, 4, "in-progress", fingerprint="g"))),
    ("I4", "a different request was told unknown", case(*FIRST, said(2, 3, 4, "outcome-unknown", fingerprint="g"))),
    ("I4", "the same request was told that it is different", case(*FIRST, said(2, 3, 4, "key-reused"))),
    ("I4", "told that it is different, before another was sent", case(
        said(1, 0, 1, "key-reused"), gone(2, 3, fingerprint="g"))),
    ("I4", "it was told that it is different, and had the answer besides", case(
        *FIRST, gone(3, 0, fingerprint="g"), said(2, 3, 4, "key-reused"))),
    # --- I5
    ("I5", "data of another account", case(*FIRST, again(2, 3, 4, canaries=("s", "t")))),
    ("I5", "a problem with data of another account", case(said(1, 0, 1, "store-unavailable", canaries=("t",)))),
    # --- I6
    ("I6", "in progress long after the owner died", case(*CRASHED, said(2, 13.5, 14, "in-progress"))),
    ("I6", "in progress, and nobody was there before", case(said(1, 0, 1, "in-progress"))),
    ("I6", "in progress, and who was there before was refused", case(
        said(1, 0, 1, "scope-missing"), said(2, 3, 4, "in-progress"))),
    ("I6", "in progress longer than a handler may take", case(gone(1, 0), said(2, 42, 43, "in-progress"))),
    ("I6", "the record stayed in progress though it was asked for", case(
        *CRASHED, held("in_progress"), said(2, 20, 21, "outcome-unknown"))),
    ("I6", "in progress when the one that was paused has had its time", case(
        gone(1, 1, node="n1"), fault(0, Kind.PAUSE, "n1", 20), said(2, 62, 62.9, "in-progress"))),
    # --- I7
    ("I7", "an owner before completed", case(
        wrote(0, "CLAIM", "t1"), wrote(11, "TAKE_OVER", "t1", "t2", attempt=2), wrote(12, "COMPLETE", "t1"), **RERUN)),
    ("I7", "an owner before released", case(
        wrote(0, "CLAIM", "t1"), wrote(11, "TAKE_OVER", "t1", "t2", attempt=2), wrote(12, "RELEASE", "t1"), **RERUN)),
    ("I7", "an owner before renewed", case(
        wrote(0, "CLAIM", "t1"), wrote(11, "TAKE_OVER", "t1", "t2", attempt=2), wrote(12, "RENEW", "t1"), **RERUN)),
    ("I7", "an owner before kept a journal", case(
        wrote(0, "CLAIM", "t1"), wrote(11, "TAKE_OVER", "t1", "t2", attempt=2), wrote(12, "JOURNAL", "t1"), **STEPS)),
    ("I7", "a token came back", case(
        wrote(0, "CLAIM", "t1"), wrote(1, "RELEASE", "t1"), wrote(2, "RECLAIM", "t1", "t1", attempt=2))),
    ("I7", "the attempts stood still", case(wrote(0, "CLAIM", "t1"), wrote(11, "TAKE_OVER", "t1", "t2"), **RERUN)),
    # --- I8
    ("I8", "taken over before the lease was over", case(
        wrote(0, "CLAIM", "t1"), wrote(9, "TAKE_OVER", "t1", "t2", attempt=2), **RERUN)),
    ("I8", "taken over though it had been renewed", case(
        wrote(0, "CLAIM", "t1"), wrote(3, "RENEW", "t1"), wrote(11, "TAKE_OVER", "t1", "t2", attempt=2), **RERUN)),
    ("I8", "given up as unknown before the lease was over", case(wrote(0, "CLAIM", "t1"), wrote(9, "ABANDON", "t1"))),
    ("I8", "taken from an owner that was alive and did not renew", case(
        wrote(0, "CLAIM", "t1"), ran("t1", 0, 15), wrote(11, "TAKE_OVER", "t1", "t2", attempt=2), **RERUN)),
    ("I8", "the pause was another node's", case(
        wrote(0, "CLAIM", "t1"), ran("t1", 0, 15), fault(1, Kind.PAUSE, "n2", 12), wrote(11, "ABANDON", "t1"))),
    # --- I9
    ("I9", "given, then called unknown", case(*FIRST, said(2, 3, 4, "outcome-unknown"))),
    ("I9", "completed, then unknown", case(
        wrote(0, "CLAIM", "t1"), wrote(1, "COMPLETE", "t1"), wrote(12, "ABANDON", "t1", before="completed"))),
    ("I9", "unknown, then claimed", case(
        wrote(0, "CLAIM", "t1"), wrote(11, "ABANDON", "t1"), wrote(12, "CLAIM", "t2", before="unknown", attempt=2))),
    ("I9", "unknown, then forgotten too early", case(
        wrote(0, "CLAIM", "t1"), wrote(11, "ABANDON", "t1"), wrote(109, "FORGET", "t1", before="unknown"))),
    ("I9", "called unknown, then run for a later request", case(
        *CRASHED, said(2, 14, 15, "outcome-unknown"), did(17, 3), ok(3, 16, 18))),
    # --- I10
    ("I10", "a transaction without its record", case(Row("s", "k"), held("in_progress", lapses=60), **WITHIN)),
    ("I10", "a transaction and no record at all", case(Row("s", "k"), **WITHIN)),
    ("I10", "a transaction whose record may run again", case(Row("s", "k"), held("retryable"), **WITHIN)),
    ("I10", "a record without its transaction", case(held("completed", status=201), **WITHIN)),
    ("I10", "a record of a second life, and a transaction of the first only", case(
        *FIRST, Row("s", "k", 1, 1 * S), ok(2, 101, 102, "b"), did(101.5, 2), held("completed", status=201), **WITHIN)),
    # --- I11
    ("I11", "another key in another attempt", case(sent(1), sent(2, child_key="d", applied=False), **STEPS)),
    ("I11", "one key for two steps", case(sent(1), sent(2, "mail"), **STEPS)),
    ("I11", "one key for two operations", case(sent(1), sent(2, key="other"), **STEPS)),
    ("I11", "another content in another attempt", case(sent(1, input="x"), sent(2, input="y", applied=False), **STEPS)),
    ("I11", "done again after its result was kept", case(
        sent(1), StepKept(2 * S, "s", "k", "charge"), sent(3, applied=False), **STEPS)),
    # --- the rest
    ("I12", "a replay to a caller that may not see it", case(*FIRST, again(2, 3, 4, authorized=False))),
    ("I13", "tasks were left", case(Gauge("tasks", 3, 4))),
    ("I13", "more connections than a pool keeps", case(Gauge("connections", 1, 12, allowed=10))),
    ("I15", "a key in a log", case(Text("server.log", "POST with hunter2"), secrets=("hunter2",))),
    ("I15", "a body in a dump", case(Text("retrysafe.db", "...card 4242..."), secrets=("hunter2", "card 4242"))),
    ("I16", "two runs from one seed", case(Replayed("7", "aa"), Replayed("8", "bb"), Replayed("7", "cc"))),
]  # fmt: skip

GOOD: Sequence[tuple[str, Evidence]] = [
    ("nothing at all", case()),
    ("first and replay", case(*FIRST, again(2, 3, 4), held("completed"))),
    ("a duplicate in flight, then the replay", case(*FIRST, said(2, 0.5, 1.5, "in-progress"), again(3, 3, 4))),
    ("two accounts with one key", case(*FIRST, ok(2, 0, 2, "b", scope="t", canaries=("t",)), did(1, 2, scope="t"))),
    ("a different request is told so", case(*FIRST, said(2, 3, 4, "key-reused", fingerprint="g"))),
    ("told that it is different before the other had its answer", case(
        gone(1, 0, fingerprint="g"), said(2, 0.5, 1, "key-reused"), did(2, 1, fingerprint="g"))),
    ("a second life after the first", case(
        *FIRST, ok(2, 101, 102, "b"), did(101.5, 2), again(3, 103, 104, "b"))),
    ("too old after its lifetime", case(*FIRST, said(2, 62, 63, "key-expired"))),
    ("forgotten by hand, then run again", case(
        *FIRST, fault(3, Kind.BY_HAND, scope="s", key="k"), ok(2, 4, 6, "b"), did(5, 2))),
    ("a failover of a store that forgets", case(*FIRST, fault(3, Kind.FAILOVER), ok(2, 4, 6, "b"), did(5, 2), **REDIS)),
    ("the process died with its records", case(
        *FIRST, fault(3, Kind.CRASH), ok(2, 4, 6, "b"), did(5, 2), store=StoreClass.DIES_WITH_PROCESS)),
    ("two effects of a handler that may run again", case(
        *CRASHED, did(1), ok(2, 14, 16), did(15, 2), again(3, 17, 18), **RERUN)),
    ("an answer that was not recorded, then a run that was", case(
        ok(1, 0, 2, unrecorded=True), did(1), ok(2, 14, 16, "b"), did(15, 2), **RERUN)),
    ("an answer that was not recorded, then unknown", case(
        ok(1, 0, 2, unrecorded=True), did(1), said(2, 14, 15, "outcome-unknown"))),
    ("crashed before the effect, then unknown", case(*CRASHED, said(2, 14, 15, "outcome-unknown"), held("unknown"))),
    ("in progress within a lease of the crash", case(*CRASHED, said(2, 12.5, 12.9, "in-progress"))),
    ("in progress: the client left, the handler runs on", case(gone(1, 0), said(2, 29, 30, "in-progress"))),
    ("in progress: who has it was paused before it began", case(
        gone(1, 1, node="n1"), fault(0, Kind.PAUSE, "n1", 20), said(2, 60, 60.9, "in-progress"))),
    ("in progress: the claim may have been applied", case(
        said(1, 0, 1, "store-unavailable"), said(2, 5, 6, "in-progress"))),
    ("in progress: not recorded, and still being settled", case(
        ok(1, 0, 2, unrecorded=True), did(1), said(2, 5, 6, "in-progress"))),
    ("the store was away after it was known", case(*FIRST, said(2, 3, 4, "store-unavailable"), again(3, 5, 6))),
    ("sent before the outcome was known, refused afterwards", case(*FIRST, said(2, 1.5, 3, "in-progress"))),
    ("withheld from a caller that may not see it", case(*FIRST, said(2, 3, 4, "replay-forbidden", authorized=False))),
    ("a failure, and its replay", case(
        said(1, 0, 2, "handler-failed"), did(1), said(2, 3, 4, "handler-failed", replayed=True))),
    ("released twice, then done", case(
        _call(1, 0, 1, status=429, fingerprint="f"), _call(2, 2, 3, status=503, code="no-effect", fingerprint="f"),
        ok(3, 4, 6), did(5, 3))),
    ("in progress at the end, and nobody asked", case(*CRASHED, held("in_progress"))),
    ("in progress at the end under a new lease", case(
        *CRASHED, said(2, 20, 21, "in-progress"), gone(3, 15), held("in_progress", lapses=40), **RERUN)),
    ("in progress at the end, and a different request asked", case(
        *CRASHED, held("in_progress"), said(2, 20, 21, "key-reused", fingerprint="g"))),
    ("taken over after the lease, the owner before refused", case(
        wrote(0, "CLAIM", "t1"), wrote(11, "TAKE_OVER", "t1", "t2", attempt=2),
        wrote(12, "COMPLETE", "t1", took_effect=False), wrote(13, "COMPLETE", "t2"), **RERUN)),
    ("taken over at the end of the lease to the millisecond", case(
        wrote(0, "CLAIM", "t1"), wrote(9.9995, "TAKE_OVER", "t1", "t2", attempt=2), **RERUN)),
    ("taken over from an owner that was paused", case(
        wrote(0, "CLAIM", "t1"), ran("t1", 0, 15), fault(1, Kind.PAUSE, "n1", 12), wrote(11, "ABANDON", "t1"))),
    ("taken over from an owner that has long been over", case(
        wrote(0, "CLAIM", "t1"), ran("t1", 0, 5), wrote(11, "ABANDON", "t1"))),
    ("taken over from an owner that has had its time", case(
        wrote(0, "CLAIM", "t1"), wrote(29, "RENEW", "t1"), ran("t1", 0, None), wrote(40, "ABANDON", "t1"))),
    ("discarded, then claimed anew: attempt 1 again", case(
        wrote(0, "CLAIM", "t1"), wrote(1, "DISCARD", "t1"), wrote(2, "CLAIM", "t2"))),
    ("the late owner settles its own unknown", case(
        wrote(0, "CLAIM", "t1"), wrote(11, "ABANDON", "t1"), wrote(12, "COMPLETE", "t1", before="unknown"))),
    ("unknown, ruled out by somebody, run again", case(
        wrote(0, "CLAIM", "t1"), wrote(11, "ABANDON", "t1"), wrote(12, "RULE_OUT", "t1"),
        wrote(13, "RECLAIM", "t1", "t2", attempt=2))),
    ("unknown, forgotten after its retention", case(
        wrote(0, "CLAIM", "t1"), wrote(11, "ABANDON", "t1"), wrote(111.5, "FORGET", "t1", before="unknown"))),
    ("a token comes back after a failover that lost it", case(
        wrote(0, "CLAIM", "t1"), fault(1, Kind.FAILOVER), wrote(2, "CLAIM", "t1"), **REDIS)),
    ("called unknown, and the late owner did it after all", case(
        gone(1, 0, node="n1"), fault(1, Kind.PAUSE, "n1", 20), said(2, 14, 15, "outcome-unknown"), did(21, 1))),
    ("a transaction and its record", case(ok(1, 0, 2), Row("s", "k"), held("completed", status=201), **WITHIN)),
    ("a transaction whose record has expired", case(Row("s", "k"), held("expired"), **WITHIN)),
    ("a transaction in each of two lives", case(
        *FIRST, Row("s", "k", 1, 1 * S), ok(2, 101, 102, "b"), did(101.5, 2), Row("s", "k", 1, 102 * S),
        held("completed", status=201), **WITHIN)),
    ("a transaction in each of two lives, the first of which a failover's clock ended", case(
        *FIRST, Row("s", "k", 1, 1 * S), fault(3, Kind.FAILOVER), wrote(4, "FORGET", "t1"), ok(2, 5, 7, "b"), did(6, 2),
        Row("s", "k", 1, 6 * S), held("completed", status=201), **WITHIN, **REDIS)),
    ("a transaction so old that its record was forgotten", case(
        *FIRST, Row("s", "k", 1, 1 * S), held("completed", key="other", status=422, at=102), **WITHIN)),
    ("a refusal of the handler has no transaction", case(held("completed", status=422), **WITHIN)),
    ("rolled back: no row, the record may run again", case(held("retryable"), **WITHIN)),
    ("a step was sent again and recognised", case(gone(1, 0), sent(1), sent(14, call=2, applied=False), **STEPS)),
    ("a step is done anew in a second life", case(
        ok(1, 0, 3), sent(1), StepKept(2 * S, "s", "k", "charge"), ok(2, 102, 104, "b"),
        sent(103, call=2, input="z"), StepKept(104 * S, "s", "k", "charge"), **STEPS)),
    ("two steps with keys of their own", case(sent(1), sent(2, "mail", "d"), **STEPS)),
    ("sent again at the very moment in which the result was kept", case(
        sent(1), StepKept(2 * S, "s", "k", "charge"), sent(2, applied=False), **STEPS)),
    ("everything was given back", case(Gauge("tasks", 3, 3), Gauge("connections", 0, 10, allowed=10))),
    ("no secret", case(Text("log", "POST with a key"), secrets=("hunter2",))),
    ("the same seed gave the same run", case(Replayed("7", "aa"), Replayed("7", "aa"), Replayed("8", "bb"))),
]  # fmt: skip
