"""One run: workers, a store behind a network, clients, and what is done to them; from a scenario and choices."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from random import Random

from retrysafe.lab.auditor import audit
from retrysafe.lab.evidence import Effect, Evidence, Execution, Fault, Gauge, Kind, Rules, StepKept, Stored, gathered
from retrysafe.lab.simulate.handlers import EXCHANGES
from retrysafe.lab.simulate.loop import Actor, Choices, SimulatedLoop, StuckError
from retrysafe.lab.simulate.network import Connection, Server, purge
from retrysafe.lab.simulate.scenario import KEYS, MEMORY_S, POLICIES, SCOPES, CallPlan, FaultPlan, Scenario, rules_of
from retrysafe.lab.simulate.worker import PRODUCT, Exchange, HandlerError, Parts, Sent, Worker
from retrysafe.lab.verdict import Violation
from retrysafe.model import Response
from retrysafe.protocol.effects import Execute
from retrysafe.protocol.flow import Terms
from retrysafe.protocol.key import Key, record_id
from retrysafe.protocol.snapshot import unseal
from retrysafe.value import value

SECRET = b"the secret of all simulations"
NAMESPACE = "simulated"
NAMES: dict[bytes, tuple[str, str]] = {
    record_id(SECRET, NAMESPACE, scope, Key(key)): (scope, key) for scope in (*SCOPES, "everybody") for key in KEYS
}


@value
class Run:
    """What came of a run.

    Attributes:
        evidence: all that was seen.
        violations: what the auditor says of it.
        steps: how many callbacks ran.
    """

    evidence: Evidence
    violations: tuple[Violation, ...]
    steps: int


class World:
    """Everything in one run.

    Args:
        scenario: what happens.
        choices: decide what the scenario leaves open.
        random: what goes wrong on the network.
        parts: what is simulated.
    """

    def __init__(self, scenario: Scenario, choices: Choices, random: Random, parts: Parts = PRODUCT) -> None:
        self.scenario = scenario
        self.choices = choices
        self.parts = parts
        self.loop = SimulatedLoop(choices)
        self.policy = POLICIES[scenario.mode, scenario.policy]
        forgets = any(fault.kind is Kind.FAILOVER for fault in scenario.faults)
        self.server = Server(self.loop, parts.store, NAMES, remembers=forgets)
        self.secret = SECRET
        self.effects: list[Effect] = []
        self.kept: list[StepKept] = []
        self._known: dict[str, tuple[float, int]] = {}  # by the other side of steps: since when, and its number
        self.sent: list[Sent] = []
        self.executions: list[Execution] = []
        self.faults: list[Fault] = []
        self._random = random
        self._numbers = 0
        self._connections: list[Connection] = []
        self._workers = [self._start(number) for number in range(len(scenario.clocks))]

    def run(self) -> Run:
        """From its first event to its last, and the verdict."""
        loop, scenario = self.loop, self.scenario
        for number, plan in enumerate(scenario.calls, 1):
            loop.post(loop.world, plan.at_s, self._invoke, number, plan)
        for fault in scenario.faults:
            loop.post(loop.world, fault.at_s, self._fault, fault)
        for at_s in scenario.purges_s:
            loop.post(loop.world, at_s, purge, self.server)
        if (interruption := scenario.interruption) is not None:
            loop.interrupt(interruption.step, lambda: self._fault(interruption.fault))
        if scenario.quiet_s:
            loop.post(loop.world, scenario.quiet_s - 1.0, self._calm)
        try:
            loop.run()
            stuck: tuple[Violation, ...] = ()
        except StuckError as error:
            stuck = (Violation("I6", str(error)),)
        evidence = self._evidence(rules_of(scenario))
        complaints = tuple(
            Violation("I13", f"nobody asked what had failed: {error!r}")
            for worker in self._workers
            for error in loop.unretrieved(worker.actor)
            if not isinstance(error, HandlerError)
        )
        steps = loop.steps
        loop.close()
        return Run(evidence, (*stuck, *audit(evidence), *complaints), steps)

    # --- for workers ------------------------------------------------------------------------------

    def number(self) -> int:
        """A number that was not given before."""
        self._numbers += 1
        return self._numbers

    def terms(self) -> Terms:
        """Of a new request."""
        return Terms(self.policy, NAMESPACE, SECRET, self.number().to_bytes(16, "big"), route="*")

    def happen(self, effect: Effect, done: asyncio.Future[None]) -> None:
        """On the other side: an effect."""
        effect = _at(effect, self.loop.stamp_ns())
        self.effects.append(effect)
        self.loop.post(self.loop.world, self.choices.latency_s(self.loop.world), _set, done)

    def exchange(self, worker: Worker, sent: Sent) -> Exchange:
        """A request at the door."""
        return (self.parts.exchange or EXCHANGES[self.scenario.mode])(worker, sent)

    def happen_once(self, effect: Effect, answer: asyncio.Future[int]) -> None:
        """On the other side of a step: an effect, unless it remembers the key."""
        since_s, number = self._known.get(effect.child_key, (-MEMORY_S, 0))
        is_known = self.loop.now_s - since_s < MEMORY_S
        if not is_known:
            number = self.number()
            self._known[effect.child_key] = self.loop.now_s, number
        self.effects.append(_at(effect, self.loop.stamp_ns(), applied=not is_known))
        self.loop.post(self.loop.world, self.choices.latency_s(self.loop.world), _set_number, answer, number)

    def keeps(self, plan: CallPlan, step: str, attempt: int) -> None:
        """A handler learnt that the result of a step is durable."""
        self.kept.append(StepKept(self.loop.stamp_ns(), plan.scope, plan.key, step, attempt))

    def runs(self, effect: Execute, plan: CallPlan, node: str) -> int:
        """A handler begins; the number to end it with."""
        token = effect.claim.token.hex()
        self.executions.append(Execution(plan.scope, plan.key, token, node, self.loop.stamp_ns()))
        return len(self.executions) - 1

    def ran(self, place: int) -> None:
        """A handler is over."""
        ran = self.executions[place]
        self.executions[place] = Execution(ran.scope, ran.key, ran.token, ran.node, ran.began_ns, self.loop.stamp_ns())

    def answer(self, worker: Worker, sent: Sent, answered: tuple[Response, str, bool]) -> None:
        """An answer sets out for its client."""
        self.loop.post(self.loop.world, self.choices.latency_s(worker.actor), self._receive, sent, answered)

    # --- clients ----------------------------------------------------------------------------------

    def _invoke(self, number: int, plan: CallPlan) -> None:
        sent = Sent(number, plan, self.loop.stamp_ns())
        self.sent.append(sent)
        worker = self._workers[plan.node]
        self.loop.post(self.loop.world, self.choices.latency_s(worker.actor), self._deliver, sent)
        if plan.leaves_s is not None:
            self.loop.post(self.loop.world, plan.leaves_s, self._leave, sent)

    def _deliver(self, sent: Sent) -> None:
        self._workers[sent.plan.node].accept(sent)

    def _receive(self, sent: Sent, answered: tuple[Response, str, bool]) -> None:
        if not sent.left and sent.answered is None:
            sent.answered = answered
            sent.returned_ns = self.loop.stamp_ns()

    def _leave(self, sent: Sent) -> None:
        """The client goes. Some servers say so to who waits for it, some cancel the task of its request."""
        if sent.answered is not None:
            return
        sent.left = True
        if sent.waiting is not None and not sent.waiting.done():
            sent.waiting.set_result(None)
        elif sent.number % 2 and sent.task is not None:
            sent.task.cancel()

    # --- what is done to them ---------------------------------------------------------------------

    def _start(self, number: int) -> Worker:
        offset_s, rate = self.scenario.clocks[number]
        name = f"n{number}"
        actor, wire = Actor(name, offset_s, rate), Actor(f"{name} wire")
        connection = Connection(self.loop, self.server, actor, wire, self.scenario.network, self._random, self.choices)
        self._connections.append(connection)
        return Worker(self, number, actor, connection)

    def _restart(self, number: int) -> None:
        self._workers[number] = self._start(number)

    def _fault(self, plan: FaultPlan) -> None:
        loop = self.loop
        at_ns = loop.stamp_ns()
        until_ns = at_ns + int(plan.lasts_s * 1e9)
        worker = None if plan.node is None else self._workers[plan.node]
        name = "" if worker is None else worker.name
        if worker is not None and not worker.actor.alive:
            return
        match plan.kind:
            case Kind.CRASH if worker is not None:
                loop.kill(worker.actor)
                loop.post(loop.world, 0.05, worker.connection.end)
                loop.post(loop.world, plan.lasts_s, self._restart, worker.number)
            case Kind.PAUSE if worker is not None:
                loop.pause(worker.actor)
                loop.post(loop.world, plan.lasts_s, loop.resume, worker.actor)
            case Kind.PARTITION if worker is not None:
                worker.connection.is_cut = True
                loop.post(loop.world, plan.lasts_s, self._mend, worker.connection)
            case Kind.SHUTDOWN if worker is not None:
                stopping = loop.spawn(worker.actor, worker.stop())
                stopping.add_done_callback(lambda _: self._stopped(worker, plan.lasts_s))
            case Kind.STORE_AWAY:
                self.server.is_away = True
                loop.post(loop.world, plan.lasts_s, self._back)
            case Kind.FAILOVER:
                self.server.fail_over(plan.loses_s, self._random.choice((0, 0, -2_000, 2_000, 60_000)))
            case _:
                return
        self.faults.append(Fault(at_ns, plan.kind, name, until_ns))

    def _mend(self, connection: Connection) -> None:
        connection.is_cut = False

    def _stopped(self, worker: Worker, lasts_s: float) -> None:
        if worker.actor.alive:
            self.loop.kill(worker.actor)
            worker.connection.end()
            self.loop.post(self.loop.world, lasts_s, self._restart, worker.number)

    def _back(self) -> None:
        self.server.restart()

    def _calm(self) -> None:
        """From here on nothing goes wrong."""
        for number, worker in enumerate(self._workers):
            self.loop.resume(worker.actor)
            worker.connection.is_cut = False
            if not worker.actor.alive or not worker.accepts:
                self.loop.kill(worker.actor)
                worker.connection.end()
                self._restart(number)
        for connection in self._connections:
            connection._is_bad = False  # noqa: SLF001 - one object of this package
        if self.server.is_away:
            self.server.restart()

    # --- what is seen -----------------------------------------------------------------------------

    def _evidence(self, rules: Rules) -> Evidence:
        at_ns, now_ms = self.loop.stamp_ns(), self.server.now_ms()
        stored = []
        for identity, record in self.server.records.items():
            scope, key = NAMES[identity]
            status = None if record.response is None else unseal(record.response, identity, SECRET).response.status
            stored.append(
                Stored(
                    at_ns,
                    now_ms,
                    scope,
                    key,
                    record.state.value,
                    record.token.hex(),
                    record.attempt,
                    record.lease_until_ms,
                    status=status,
                )
            )
        left = sum(len(self.loop.pending(worker.actor)) for worker in self._workers)
        lost = [fault for connection in self._connections for fault in connection.faults]
        return gathered(
            rules,
            [
                *(sent.evidence() for sent in self.sent),
                *self.effects,
                *self.kept,
                *self.server.rows,
                *self.executions,
                *self.server.writes,
                *stored,
                *self.faults,
                *lost,
                Gauge("tasks", 0, left),
            ],
        )


def _set(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)


def _set_number(answer: asyncio.Future[int], number: int) -> None:
    if not answer.done():
        answer.set_result(number)


def _at(effect: Effect, at_ns: int, *, applied: bool = True) -> Effect:
    return replace(effect, at_ns=at_ns, applied=applied)
