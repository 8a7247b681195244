"""What was seen of a run: the four inputs of the auditor, and what was promised.

A run is watched from outside. The clients write down what they sent and got, the other side of the handler keeps a
ledger of its own, the store is dumped at the end, and whoever kills, pauses and fails over says when. Everything is
a frozen value with one line of JSON, so that processes on one host can append to files of their own.

Instants are nanoseconds of one monotonic clock that all writers share; instants of the store, in milliseconds, stand
only beside the store's own `now_ms`. Two events of one instant are in no order, and nothing is concluded from them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, asdict, fields
from enum import StrEnum
from typing import Any

from retrysafe.errors import CallerError
from retrysafe.value import value


class Mode(StrEnum):
    """What a route promises of the effect of one key."""

    MANUAL = "manual"
    RERUN = "rerun"
    TRANSACTIONAL = "transactional"
    STEPS = "steps"


class StoreClass(StrEnum):
    """What a store promises of what it has answered."""

    DURABLE = "durable"
    FORGETS_ON_FAILOVER = "forgets on failover"
    DIES_WITH_PROCESS = "dies with its process"


@value
class Rules:
    """What was promised.

    Attributes:
        mode: of the route.
        store: class of the store.
        lease_ms: how long a claim holds without renewal.
        life_ms: how long a key lives at least, from its effect; later it may run again.
        lifetime_ms: how long an outcome replays at least.
        grace_ms: what is added to a lease before progress is overdue: a heartbeat, a poll, and the slowness of the run.
        execution_max_ms: how long a handler is renewed.
        may_release: handlers may state that they did nothing.
        secrets: what must stand in no text.
    """

    mode: Mode = Mode.MANUAL
    store: StoreClass = StoreClass.DURABLE
    lease_ms: int = 60_000
    life_ms: int = 86_400_000
    lifetime_ms: int = 86_400_000
    grace_ms: int = 1_000
    execution_max_ms: int = 900_000
    may_release: bool = False
    secrets: tuple[str, ...] = ()


@value
class Call:
    """One request of one client, and the answer that it got.

    Attributes:
        id: its number; the handler knows it too, so that the ledger can name it.
        scope, key: of the operation, as the client means them.
        invoked_ns: when it was sent.
        fingerprint: tells contents apart.
        node: where it was sent, if the client knows.
        returned_ns: when its answer was whole; None if none came.
        status: of the answer; None if none came.
        code: of the problem document, if retrysafe answered with one; empty for an answer of the handler. A failure
            that is not final, because it says `retryable`, is `handler-failed-retryable`.
        body, headers: digests of the answer: its content, and the stored fields.
        replayed: the answer was marked as a replay.
        unrecorded: the answer said that it could not be recorded.
        canaries: the scopes whose data stood in the answer.
        authorized: its caller was allowed to see the answer.
    """

    id: int
    scope: str
    key: str
    invoked_ns: int
    fingerprint: str = ""
    node: str = ""
    returned_ns: int | None = None
    status: int | None = None
    code: str = ""
    body: str = ""
    headers: str = ""
    replayed: bool = False
    unrecorded: bool = False
    canaries: tuple[str, ...] = ()
    authorized: bool = True


@value
class Effect:
    """One line of the ledger that the other side of the handler keeps.

    Attributes:
        at_ns: when it came.
        scope, key: of the operation.
        call: number of the request whose handler did it; None if it was re-driven.
        node: where that handler ran.
        fingerprint: of the request that the handler had.
        attempt: of the claim.
        step: its name, if it was one of several.
        child_key: that it was sent with.
        input: digest of what was sent.
        applied: False: the other side recognised the key and did nothing again.
    """

    at_ns: int
    scope: str
    key: str
    call: int | None = None
    node: str = ""
    fingerprint: str = ""
    attempt: int = 1
    step: str = ""
    child_key: str = ""
    input: str = ""
    applied: bool = True


@value
class StepKept:
    """A handler learnt that the result of a step is durable, in this attempt."""

    at_ns: int
    scope: str
    key: str
    step: str
    attempt: int = 1


@value
class Execution:
    """One run of a handler; `ended_ns` is None if it never came to its end."""

    scope: str
    key: str
    token: str
    node: str
    began_ns: int
    ended_ns: int | None = None


@value
class Write:
    """One transition as the store did it, or refused it.

    Attributes:
        at_ns: when.
        scope, key: of the record.
        action: name of a `protocol.states.Event`: `CLAIM`, `TAKE_OVER` and so on.
        token: of the claimant or owner that asked, or as it was seen.
        took_effect: whether it changed anything.
        before, after: states; None is absence.
        node: that asked.
        new_token: of the claim that it makes, where `token` is the one that was seen.
        attempt: of the record afterwards.
        lease_ms: how long the record is held from then on, where that is not the lease of the rules.
    """

    at_ns: int
    scope: str
    key: str
    action: str
    token: str
    took_effect: bool
    before: str | None
    after: str | None
    node: str = ""
    new_token: str = ""
    attempt: int = 0
    lease_ms: int | None = None


@value
class Stored:
    """One record of the dump at the end.

    Attributes:
        at_ns: when the dump was made.
        now_ms: the same instant by the store's clock.
        scope, key: of the record.
        state: as the store calls it.
        token, attempt: of the latest claim.
        lease_until_ms: by the store's clock.
        fingerprint, status, body: of what is kept, digests as in `Call`.
    """

    at_ns: int
    now_ms: int
    scope: str
    key: str
    state: str
    token: str = ""
    attempt: int = 1
    lease_until_ms: int = 0
    fingerprint: str = ""
    status: int | None = None
    body: str = ""


@value
class Row:
    """What the handler's own transaction wrote beside the record, found at the end.

    Attributes:
        scope, key, attempt: of the operation.
        at_ns: when it was committed; None if nobody knows.
    """

    scope: str
    key: str
    attempt: int = 1
    at_ns: int | None = None


class Kind(StrEnum):
    """What was done to the system on purpose."""

    CRASH = "crash"
    PAUSE = "pause"
    PARTITION = "partition"
    FAILOVER = "failover"
    STORE_AWAY = "store away"
    SHUTDOWN = "shutdown"
    BY_HAND = "settled by hand"


@value
class Fault:
    """Something that was done to the system.

    Attributes:
        at_ns: when it began.
        kind: what it was.
        node: to whom; empty is all of them, or the store.
        until_ns: when it was over; None if it has no end or no length.
        scope, key: which key was settled by hand.
    """

    at_ns: int
    kind: Kind
    node: str = ""
    until_ns: int | None = None
    scope: str = ""
    key: str = ""


@value
class Gauge:
    """How much of something there was before the load and after it: tasks, connections, rows."""

    name: str
    before: int
    after: int
    allowed: int = 0


@value
class Text:
    """Something written that secrets must not stand in: a dump, a log."""

    where: str
    content: str


@value
class Replayed:
    """The digest of the event log of one run from a seed."""

    seed: str
    digest: str


Event = Call | Effect | StepKept | Execution | Write | Stored | Row | Fault | Gauge | Text | Replayed

_KINDS: dict[str, type[Any]] = {
    "rules": Rules,
    "call": Call,
    "effect": Effect,
    "step kept": StepKept,
    "execution": Execution,
    "write": Write,
    "stored": Stored,
    "row": Row,
    "fault": Fault,
    "gauge": Gauge,
    "text": Text,
    "replayed": Replayed,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}
_ENUMS: dict[str, type[StrEnum]] = {"Mode": Mode, "StoreClass": StoreClass, "Kind": Kind}


@value
class Evidence:
    """Everything that was seen of one run."""

    rules: Rules
    calls: tuple[Call, ...] = ()
    effects: tuple[Effect, ...] = ()
    kept: tuple[StepKept, ...] = ()
    executions: tuple[Execution, ...] = ()
    writes: tuple[Write, ...] = ()
    stored: tuple[Stored, ...] = ()
    rows: tuple[Row, ...] | None = None
    faults: tuple[Fault, ...] = ()
    gauges: tuple[Gauge, ...] = ()
    texts: tuple[Text, ...] = ()
    replayed: tuple[Replayed, ...] = ()


def gathered(rules: Rules, events: Iterable[Event]) -> Evidence:
    """Evidence from events in any order. Rows count as looked for in transactional mode, also if there are none."""
    sorts: dict[type, list[Any]] = {kind: [] for kind in _NAMES}
    for event in events:
        sorts[type(event)].append(event)
    rows = tuple(sorts[Row])
    return Evidence(
        rules,
        calls=tuple(sorts[Call]),
        effects=tuple(sorted(sorts[Effect], key=lambda effect: effect.at_ns)),
        kept=tuple(sorts[StepKept]),
        executions=tuple(sorts[Execution]),
        writes=tuple(sorted(sorts[Write], key=lambda write: write.at_ns)),
        stored=tuple(sorts[Stored]),
        rows=rows if rows or rules.mode is Mode.TRANSACTIONAL else None,
        faults=tuple(sorted(sorts[Fault], key=lambda fault: fault.at_ns)),
        gauges=tuple(sorts[Gauge]),
        texts=tuple(sorts[Text]),
        replayed=tuple(sorts[Replayed]),
    )


def as_line(item: Event | Rules) -> str:
    """One line of JSON, without its end; what stands at its default is left out."""
    known = {field.name: field.default for field in fields(item)}
    said = {name: seen for name, seen in asdict(item).items() if known[name] is MISSING or seen != known[name]}
    return json.dumps({"event": _NAMES[type(item)], **said}, separators=(",", ":"))


def read_lines(lines: Iterable[str]) -> Evidence:
    """Evidence from lines of JSON, of one file or of many.

    Raises:
        CallerError: a line is none of these, or no line, or more than one, says what was promised. A last line that
            has no end is a writer's that was killed, and is left out.
    """
    items = list(_items(lines))
    rules = [item for item in items if isinstance(item, Rules)]
    if len(set(rules)) != 1:
        raise CallerError(f"there are {len(set(rules))} lines of the event rules in the evidence; there must be one")
    return gathered(rules[0], (item for item in items if not isinstance(item, Rules)))


def _items(lines: Iterable[str]) -> Iterator[Any]:
    for number, line in enumerate(lines, start=1):
        if not line.strip() or not line.endswith("\n"):
            continue
        try:
            said = json.loads(line)
            kind = _KINDS[said.pop("event")]
            yield kind(**{name: _typed(kind, name, seen) for name, seen in said.items()})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CallerError(f"line {number} of the evidence cannot be read: {error!r}") from error


def _typed(kind: type[Any], name: str, seen: Any) -> Any:
    """JSON has no tuples and no enumerations."""
    if isinstance(seen, list):
        return tuple(seen)
    enum = _ENUMS.get(kind.__annotations__.get(name, ""))
    return seen if enum is None else enum(seen)
