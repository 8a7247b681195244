"""What a run consists of, drawn from its seed before it begins: who asks for what and when, and what is done to them.

Each run enables some kinds of faults and leaves out others, so that one kind does not hide another.
"""

from __future__ import annotations

from enum import StrEnum
from random import Random
from typing import Any

from retrysafe.lab.evidence import Kind, Mode, Rules, StoreClass
from retrysafe.protocol.policy import Policy
from retrysafe.value import value

LEASE_S = 3.0
NODES_MAX = 3
KEYS = ("k1", "k2")
SCOPES = ("anna", "bert")
LIFE_S = 25.0  # of the routes whose keys grow old within a run
WINDOW_S = 30.0  # for which a step may be sent again
MEMORY_S = 45.0  # for which the other side of a step remembers its key
_LIFETIME_S = 10.0


class Ends(StrEnum):
    """What a handler does."""

    ANSWERS = "answers"
    RAISES_BEFORE = "raises before its effect"
    RAISES_AFTER = "raises after its effect"
    BREAKS = "breaks off its answer"
    DECLINES = "states that it did nothing"
    BUSY = "answers 429"
    UNKNOWN = "states that nobody can tell"
    LATE = "answers before it commits"


_EVERYWHERE = tuple(ends for ends in Ends if ends is not Ends.LATE)


@value
class Behaviour:
    """How a handler behaves that runs for one call, if it runs.

    Attributes:
        before_s, after_s: how long it takes to its effect, and then to its answer.
        ends: what it does.
    """

    before_s: float = 0.0
    after_s: float = 0.0
    ends: Ends = Ends.ANSWERS


@value
class CallPlan:
    """One request of a client.

    Attributes:
        at_s: when it is sent.
        node: number of the worker that it goes to.
        scope, key, content: what it is.
        leaves_s: how long the client waits; then it goes, and the worker learns of it.
        authorized: the caller may see answers.
        behaviour: of the handler.
    """

    at_s: float
    node: int
    scope: str = SCOPES[0]
    key: str = KEYS[0]
    content: str = "a"
    leaves_s: float | None = None
    authorized: bool = True
    behaviour: Behaviour = Behaviour()


@value
class FaultPlan:
    """Something that is done to a worker or the store.

    Attributes:
        at_s: when.
        kind: what.
        node: number of the worker; None is the store.
        lasts_s: how long; after a crash or a shutdown the worker starts anew.
        loses_s: a failover loses the writes of so many seconds.
    """

    at_s: float
    kind: Kind
    node: int | None = None
    lasts_s: float = 0.0
    loses_s: float = 0.0


@value
class NetworkPlan:
    """How often a message to the store goes wrong: it is lost, its answer is lost, it comes late, it is repeated."""

    lost: float = 0.0
    answer_lost: float = 0.0
    late: float = 0.0
    repeated: float = 0.0


@value
class Interruption:
    """Something that is done after so many steps of the run, whatever the time."""

    step: int
    fault: FaultPlan


@value
class Scenario:
    """One run, but for what is chosen while it goes.

    Attributes:
        policy: a key of `POLICIES`.
        clocks: of each worker: what it is ahead, and how fast it goes.
        purges_s: when the records are purged.
        quiet_s: when all faults are over and the last retries are sent; 0 is never.
        interruption: a fault at a step, for those who try every step.
    """

    mode: Mode
    policy: str
    store: StoreClass
    clocks: tuple[tuple[float, float], ...]
    calls: tuple[CallPlan, ...]
    faults: tuple[FaultPlan, ...] = ()
    network: NetworkPlan = NetworkPlan()
    purges_s: tuple[float, ...] = ()
    quiet_s: float = 60.0
    interruption: Interruption | None = None


_KNOBS: dict[str, dict[str, Any]] = {
    "plain": {},
    "waits": {"in_flight": "wait", "wait": "8s"},
    "ages": {"lifetime": f"{_LIFETIME_S:g}s", "tombstone": f"{LIFE_S - _LIFETIME_S:g}s", "unknown_retention": "30s"},
    "brief": {"execution_max": "4s"},
}
_MODES: dict[Mode, dict[str, Any]] = {
    Mode.MANUAL: {"recovery": "manual"},
    Mode.RERUN: {"recovery": "rerun"},
    Mode.TRANSACTIONAL: {"transactional": True},
    Mode.STEPS: {"recovery": "rerun"},
}
POLICIES: dict[tuple[Mode, str], Policy] = {
    (mode, name): Policy(lease=f"{LEASE_S:g}s", **options, **knobs)
    for mode, options in _MODES.items()
    for name, knobs in _KNOBS.items()
}


def rules_of(scenario: Scenario) -> Rules:
    """What a run of it has to keep."""
    ages = scenario.policy == "ages"
    policy = POLICIES[scenario.mode, scenario.policy]
    return Rules(
        mode=scenario.mode,
        store=scenario.store,
        lease_ms=policy.lease_ms,
        life_ms=int(LIFE_S * 1_000) if ages else 10**9,
        lifetime_ms=policy.lifetime_ms,
        grace_ms=5_000 if scenario.network.late else 1_500,
        execution_max_ms=policy.execution_max_ms,
        may_release=True,
    )


def drawn(mode: Mode, random: Random) -> Scenario:
    """The scenario of a seed."""
    nodes = random.choice((1, 2, 2, 2, 3))
    policy = random.choice(("plain", "plain", "waits", "brief", "ages"))
    failovers = random.random() < 0.15
    span_s = random.choice((1.0, 4.0, 12.0))
    quiet_s = 60.0
    late_ends = (Ends.LATE, Ends.RAISES_AFTER) if mode is Mode.TRANSACTIONAL else ()
    calls = _calls(random, nodes, span_s, (*_EVERYWHERE, *late_ends))
    faults = _faults(random, nodes, span_s, failovers=failovers)
    late_s = (12.0, 20.0, 31.0, 31.0, 33.0) if policy == "ages" else ()
    late = tuple(
        CallPlan(at_s + random.choice((0.0, 0.0, random.random())), random.randrange(nodes)) for at_s in late_s
    )
    last = _last(calls, quiet_s, nodes)
    skewed = random.random() < 0.3 and policy != "brief"
    return Scenario(
        mode=mode,
        policy=policy,
        store=StoreClass.FORGETS_ON_FAILOVER if failovers else StoreClass.DURABLE,
        clocks=tuple(_clock(random, skewed=skewed) for _ in range(nodes)),
        calls=(*calls, *late, *last),
        faults=faults,
        network=_network(random, mode),
        purges_s=tuple(random.uniform(0, 40) for _ in range(6)) if policy == "ages" or random.random() < 0.2 else (),
        quiet_s=quiet_s,
    )


def _clock(random: Random, *, skewed: bool) -> tuple[float, float]:
    if not skewed:
        return 1_000.0, 1.0
    return random.choice((0.0, 3_600.0, 100_000.0)), random.choice((0.7, 1.0, 1.0, 1.6))


def _calls(random: Random, nodes: int, span_s: float, all_ends: tuple[Ends, ...]) -> tuple[CallPlan, ...]:
    keys = KEYS[: random.choice((1, 1, 2))]
    scopes = SCOPES[: random.choice((1, 1, 2))]
    other = random.random() < 0.25
    closed = random.random() < 0.1
    ends = random.choice((all_ends, (Ends.ANSWERS,), (Ends.ANSWERS,), (Ends.ANSWERS, Ends.DECLINES, Ends.BUSY)))
    slow = random.choice((0.05, 0.5, 2.0 * LEASE_S))
    return tuple(
        CallPlan(
            at_s=random.random() * span_s,
            node=random.randrange(nodes),
            scope=random.choice(scopes),
            key=random.choice(keys),
            content="b" if other and random.random() < 0.4 else "a",
            leaves_s=random.random() * 2 if random.random() < 0.2 else None,
            authorized=not (closed and random.random() < 0.5),
            behaviour=Behaviour(random.random() * slow, random.random() * slow, random.choice(ends)),
        )
        for _ in range(random.choice((2, 3, 4, 5)))
    )


def _faults(random: Random, nodes: int, span_s: float, *, failovers: bool) -> tuple[FaultPlan, ...]:
    kinds = [kind for kind in (Kind.CRASH, Kind.PAUSE, Kind.PARTITION, Kind.SHUTDOWN) if random.random() < 0.3]
    faults = [
        FaultPlan(
            at_s=random.random() * (span_s + 1),
            kind=kind,
            node=random.randrange(nodes),
            lasts_s=random.choice((0.5, LEASE_S * 0.9, LEASE_S * 1.5, LEASE_S * 3)),
        )
        for kind in kinds
        for _ in range(random.choice((1, 1, 2)))
    ]
    if random.random() < 0.15:
        faults.append(FaultPlan(random.random() * span_s, Kind.STORE_AWAY, None, random.choice((0.4, 2.0, 9.0))))
    if failovers:
        faults.append(
            FaultPlan(random.random() * (span_s + 1), Kind.FAILOVER, None, loses_s=random.choice((0.2, 1.0, 5.0)))
        )
    return tuple(faults)


def _network(random: Random, mode: Mode) -> NetworkPlan:
    if random.random() < 0.5:
        return NetworkPlan()
    lost, answer_lost, late, repeated = (random.choice((0.0, 0.0, 0.05, 0.15)) for _ in range(4))
    return NetworkPlan(lost, answer_lost, 0.3 if mode is Mode.STEPS and late else late, repeated)


def _last(calls: tuple[CallPlan, ...], quiet_s: float, nodes: int) -> tuple[CallPlan, ...]:
    """When all is quiet, each key is asked for twice by the request that it was first sent with."""
    firsts: dict[tuple[str, str], CallPlan] = {}
    for call in sorted(calls, key=lambda call: call.at_s):
        firsts.setdefault((call.scope, call.key), call)
    return tuple(
        CallPlan(quiet_s + 4.0 * turn, turn % nodes, call.scope, call.key, call.content)
        for turn in range(2)
        for call in firsts.values()
    )


def duel(mode: Mode, interruption: Interruption | None = None) -> Scenario:
    """Two workers that are asked for one key at once: small enough for every schedule."""
    handler = Behaviour(before_s=LEASE_S / 2, after_s=LEASE_S / 2)
    return Scenario(
        mode=mode,
        policy="plain",
        store=StoreClass.DURABLE,
        clocks=((0.0, 1.0), (0.0, 1.0)),
        calls=(
            CallPlan(0.0, 0, behaviour=handler),
            CallPlan(0.0, 1, behaviour=handler),
            CallPlan(LEASE_S, 1),
            CallPlan(LEASE_S, 0),
            CallPlan(4 * LEASE_S, 1),
            CallPlan(8 * LEASE_S, 0),
        ),
        interruption=interruption,
        quiet_s=0.0,
    )
