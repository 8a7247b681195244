"""A storm: many clients that retry, at any API, through a network that fails them; and a count of what it did.

Which fault an attempt meets depends on the seed, the number of the operation and the number of the attempt, and on
nothing else.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from retrysafe.errors import ConfigurationError
from retrysafe.faults import Chance, ChaosProxy, Fault, Nothing, Plan
from retrysafe.lab.judged import End, Judged, Operation, judge
from retrysafe.lab.retrying import Patience, Told, retry
from retrysafe.verify.message import Answer
from retrysafe.verify.probe import Probe, Run
from retrysafe.verify.runner import Unreachable
from retrysafe.verify.verdict import MUST

FAULTS = (
    "lose-response@10% cut-request@4% cut-response@4% leave@4% reset@4% "
    "deliver-twice@5% delay@5% black-hole@2% silence@2%"
)
_PAUSE_S = (0.02, 0.2)
_WAIT_S_MAX = 2.0
_QUIET_S = 0.3
_LOOKS_MAX = 10
_COUNTED_AT_ONCE = 8


class Inconclusive(Exception):
    """The storm says nothing; the message says why."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a user asked for.

    Attributes:
        run: the API, how its effects are counted, and what is expected of its keys.
        operations: how many.
        clients: how many are at work at once.
        attempts_max: after how many requests a client gives an operation up.
        chances: the faults.
        seed: of them.
    """

    run: Run
    operations: int
    clients: int
    attempts_max: int
    chances: Sequence[Chance]
    seed: int


@dataclass(frozen=True, slots=True)
class Stormed:
    """What came of it.

    Attributes:
        judged: what is wrong.
        met: how many attempts met which kind of fault.
        answers: how often each answer came.
    """

    judged: Judged
    met: Counter[str]
    answers: Counter[str]


def check(wanted: Wanted) -> None:
    """Before anything is sent: can this storm say anything, and is it allowed to have so many effects?

    Raises:
        ConfigurationError: it cannot, or may not.
    """
    faults = []
    counter = wanted.run.target.counter
    if counter is None or not counter.by_reference:
        faults.append("a storm counts the effects of each operation: give --effects with {{unique}} in it, no total")
    most = 2 * wanted.operations * wanted.attempts_max + 1  # each may be delivered twice
    if most > wanted.run.settings.effects_max:
        bound = wanted.run.settings.effects_max
        faults.append(
            f"{wanted.operations} operations of {wanted.attempts_max} attempts, each perhaps delivered twice, "
            f"are up to {most} requests, and --effects-max is {bound}: raise it, or lower --operations or --attempts"
        )
    if not any(chance.kind != "nothing" for chance in wanted.chances):
        faults.append("a storm without a fault shows nothing: give --fault")
    if faults:
        raise ConfigurationError(faults)


async def storm(wanted: Wanted, advance: Callable[[], None]) -> Stormed:
    """Send everything, wait until nothing moves any more, and count.

    Args:
        wanted: checked.
        advance: called when an operation is over.

    Raises:
        Unreachable: nothing listens at the target.
        Inconclusive: the target takes no request, even without a fault; or no operation met a fault, or succeeded.
        RetrysafeError: the effects cannot be counted.
    """
    probe = Probe(wanted.run, MUST)
    await _look(probe)
    clients = [_Client(wanted, probe) for _ in range(min(wanted.clients, wanted.operations))]
    numbers = iter(range(wanted.operations))
    parts = await asyncio.gather(*(client.work(numbers, advance) for client in clients))
    operations = [operation for part in parts for operation in part]
    effects = await _effects(wanted.run, [operation.name for operation in operations])
    judged = judge(operations, effects)
    if not judged.faulty or not judged.ends[End.DONE]:
        what = "met a fault" if not judged.faulty else "succeeded"
        raise Inconclusive(f"no operation of {judged.operations} {what}")
    met = Counter(fault for operation in operations for fault in operation.faults)
    return Stormed(judged, met, sum((client.answers for client in clients), Counter()))


async def _look(probe: Probe) -> None:
    """Be sure that the API takes an operation when nothing is wrong."""
    answer = await probe.send(probe.intent())
    if not answer.status:
        raise Unreachable(f"nothing answers at {probe.target.base_url}: is the API running, and is the address right?")
    if not answer.success:
        raise Inconclusive(f"an operation without any fault is answered {answer}: is the operation right?")


@dataclass(slots=True)
class _Client:
    """A client with a network of its own, whose next fault it knows."""

    wanted: Wanted
    probe: Probe
    fault: Fault = field(default_factory=Nothing)
    answers: Counter[str] = field(default_factory=Counter)

    async def work(self, numbers: Iterator[int], advance: Callable[[], None]) -> list[Operation]:
        """Take operations until none is left."""
        done = []
        async with ChaosProxy(self.probe.target.operation.url, lambda _: self.fault) as proxy:
            for number in numbers:
                done.append(await self._operate(number, proxy.port))
                advance()
        return done

    async def _operate(self, number: int, port: int) -> Operation:
        intent = self.probe.intent()

        async def ask(fault: Fault) -> Told:
            self.fault = fault
            answer = await self.probe.send(intent, via=port)
            self.answers[str(answer)] += 1
            return Told(self._end(answer), self._compared(answer), answer.value("retry-after") or "")

        plan = Plan(self.wanted.seed, self.wanted.chances)
        patience = Patience(self.wanted.attempts_max, _PAUSE_S, _WAIT_S_MAX)
        return await retry(intent.reference, number, plan, patience, ask)

    def _end(self, answer: Answer) -> End:
        """What a client knows after this answer; OPEN if it has to ask again."""
        if not answer.whole or self.probe.is_later(answer):
            return End.OPEN
        if self.probe.is_unknown(answer):
            return End.UNKNOWN
        if answer.success:
            return End.DONE
        return End.OPEN if answer.status >= 500 else End.REFUSED

    def _compared(self, answer: Answer) -> object:
        """As much of an answer as has to be the same in each success of an operation."""
        return (answer.status, answer.body) if self.probe.profile.replay == "exact" else answer.status


async def _effects(run: Run, names: Sequence[str]) -> dict[str, int]:
    """The effects of each operation, when two looks found the same: what was cut off may still be at work."""
    seen: dict[str, int] = {}
    for _ in range(_LOOKS_MAX):
        before, seen = seen, await _look_at_effects(run, names)
        if seen == before:
            break
        await asyncio.sleep(_QUIET_S)
    return seen


async def _look_at_effects(run: Run, names: Sequence[str]) -> dict[str, int]:
    counter = run.target.counter
    assert counter is not None, "checked before"
    slots = asyncio.Semaphore(_COUNTED_AT_ONCE)

    async def one(name: str) -> int:
        async with slots:
            return await counter.count(name, ())

    return dict(zip(names, await asyncio.gather(*map(one, names)), strict=True))
