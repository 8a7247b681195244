"""Runs cases: each attempt in a process of its own, and what was seen of it as evidence."""

from __future__ import annotations

import json
import signal
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self

from prove.kill import tables
from prove.kill.client import Asked
from prove.kill.forks import Forks
from prove.kill.handlers import LEASE_MS, digest
from prove.kill.modes import Mode
from prove.kill.nodes import PATIENCE_S, Node, until
from prove.kill.orders import SCOPE, SECRET, Action, Case, Order, Shot
from prove.kill.places import Place
from retrysafe.errors import StoreError
from retrysafe.lab.evidence import (
    Call,
    Event,
    Evidence,
    Fault,
    Kind,
    Row,
    Rules,
    Stored,
    as_line,
    gathered,
    read_lines,
)
from retrysafe.lab.ledger import Ledger
from retrysafe.model import Found, State
from retrysafe.protocol.key import Key, record_id
from retrysafe.protocol.snapshot import unseal
from retrysafe.protocol.transitions import Read
from retrysafe.stores.location import open_store

_IN_PROGRESS = frozenset({"in-progress"})
_UNSETTLED = _IN_PROGRESS | {"store-unavailable"}
_RETRIES = 2
_RETRY_S = 0.02


@dataclass(slots=True)
class Trial:
    """One case under a key of its own, and what was seen of it.

    Attributes:
        case: what is done.
        key: of its operation.
        content: of each of its requests.
        seen: the calls and faults, in order.
        traces: the points that each attempt passed, with what happened at the last.
        retried: the first request that nobody disturbed was sent then, and settled then, in nanoseconds.
        evidence: all of it, in the end.
    """

    case: Case
    key: str
    content: bytes
    seen: list[Event] = field(default_factory=list)
    traces: list[list[str]] = field(default_factory=list)
    retried: tuple[int, int] = (0, 0)
    evidence: Evidence | None = None


class StuckError(Exception):
    """Something did not come about, however long one waited.

    Args:
        case: in which.
        what: it was.
    """

    def __init__(self, case: Case, what: str) -> None:
        super().__init__(what)
        self.case = case


@contextmanager
def _waiting_for(trial: Trial) -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise StuckError(trial.case, str(error)) from error


class Rig:
    """One mode over one store; a context manager.

    Args:
        mode: of the route.
        where: its records are.
        forks: makes the processes that serve, over that store.
        folder: for everything that is written.
    """

    def __init__(self, mode: Mode, where: Place, forks: Forks, folder: Path) -> None:
        self.mode = mode
        self._place = where
        self._forks = forks
        self._folder = folder
        self._numbers = count(1)
        self._beside = 0
        self._points: dict[tuple[bool, tuple[Case, ...]], list[list[str]]] = {}
        self._nodes: set[Node] = set()  # those that may be running
        self._ends = ExitStack()
        self._ledger = Ledger(folder / "ledger.jsonl")
        self.rules = Rules(mode.promise, lease_ms=LEASE_MS)

    def __enter__(self) -> Self:
        with ExitStack() as opening:
            opening.callback(self._kill_all)
            self._records = open_store(self._place.url)
            opening.callback(self._records.close)
            self._secret = self._records.open(SECRET.encode())
            if self.mode.stores:
                tables.prepare(self._place.url)
            if self.mode.beside is not None:
                self._beside = self._undisturbed().port
            self._ends = opening.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._ends.close()

    # --- cases ------------------------------------------------------------------------------------

    def points(self, before: Sequence[Case], *, lines: bool = False) -> list[list[str]]:
        """For each of these cases, the points that one more attempt passes after it, in the order of this run."""
        asked = lines, tuple(before)
        if asked not in self._points:  # they are the same whatever is then done at them
            trials = [self._trial(Case((*case.shots, Shot()), case.slow)) for case in before]
            self._attempt(trials, lines=lines)
            self._ledger.news()
            self._points[asked] = [trial.traces[-1] for trial in trials]
        return self._points[asked]

    def run(self, cases: Sequence[Case]) -> list[Trial]:
        """All of these, side by side; then a new process, two retries of each, and the evidence.

        Raises:
            StuckError: one of them does not come to its end.
        """
        trials = [self._trial(case) for case in cases]
        self._attempt(trials)
        self._retry(trials)
        entries = self._entries()
        for trial in trials:
            found = [*trial.seen, *entries[trial.key], *self._rows(trial), *self._stored(trial)]
            trial.evidence = gathered(self.rules, found)
        return trials

    def _trial(self, case: Case) -> Trial:
        key = uuid.uuid4().hex
        return Trial(case, key, json.dumps({"scope": SCOPE, "key": key, "slow": case.slow}).encode())

    # --- one attempt of each ----------------------------------------------------------------------

    def _attempt(self, trials: Sequence[Trial], *, lines: bool = False) -> None:
        """The first attempt of each case, then the second of each that has one, and so on."""
        for number in range(max(len(trial.case.shots) for trial in trials)):
            self._stage([trial for trial in trials if number < len(trial.case.shots)], number, lines=lines)

    def _stage(self, trials: Sequence[Trial], number: int, *, lines: bool) -> None:
        """The attempt of that number of each case, to its end."""
        if number:
            self._wait_for_leases(trials)
        nodes = [self._fork(self._order(trial.case.shots[number], lines=lines or trial.case.lines)) for trial in trials]
        for trial, node in zip(trials, nodes, strict=True):
            self._ask(node, trial)
        standing: list[tuple[Trial, Node]] = []
        for trial, node in zip(trials, nodes, strict=True):
            if self._stands(trial, node):
                standing.append((trial, node))
            else:
                self._over(trial, node)
        if held := [one for one in standing if one[1].order.action is Action.STORE]:
            self._kill_store(held)
        if stopped := [one for one in standing if one[1].order.action is Action.STOP]:
            self._outlast(stopped)

    def _over(self, trial: Trial, node: Node) -> None:
        """The process of an attempt is gone, by itself or not."""
        assert node.asked is not None, "nothing was asked"
        trial.seen.append(node.asked.call())
        trial.traces.append(node.trace())
        self._nodes.discard(node)
        if node.status == -signal.SIGKILL:
            trial.seen.append(Fault(time.monotonic_ns(), Kind.CRASH, node.name))
        Path(node.order.trace).unlink(missing_ok=True)

    def _kill_store(self, held: Sequence[tuple[Trial, Node]]) -> None:
        """The store dies while they stand at their points, and comes back while they go on."""
        began_ns = time.monotonic_ns()
        self._place.kill()
        for _, node in held:
            node.go_on()
        self._place.start()
        for trial, node in held:
            trial.seen.append(Fault(began_ns, Kind.STORE_AWAY, until_ns=time.monotonic_ns()))
            self._to_end(trial, node)

    def _outlast(self, stopped: Sequence[tuple[Trial, Node]]) -> None:
        """They stand still past their leases; somebody else asks for each; then they go on."""
        began_ns = time.monotonic_ns()
        self._wait_for_leases([trial for trial, _ in stopped])
        other = self._undisturbed()
        for trial, _ in stopped:
            self._settle(other, trial, _IN_PROGRESS)  # the store may be locked by one that stopped in a transaction
        self._kill(other)
        for trial, node in stopped:
            trial.seen.append(Fault(began_ns, Kind.PAUSE, node.name, until_ns=time.monotonic_ns()))
            node.go_on()
            self._to_end(trial, node)

    def _stands(self, trial: Trial, node: Node) -> bool:
        with _waiting_for(trial):
            return node.run()

    def _wait_for_leases(self, trials: Sequence[Trial]) -> None:
        for trial in trials:
            with _waiting_for(trial):
                until(partial(self._may_move, trial), "the end of its lease")

    def _to_end(self, trial: Trial, node: Node) -> None:
        while self._stands(trial, node):
            node.go_on()
        self._over(trial, node)

    # --- retries ----------------------------------------------------------------------------------

    def _retry(self, trials: Sequence[Trial]) -> None:
        node = self._undisturbed()
        for trial in trials:
            began_ns = time.monotonic_ns()
            for number in range(_RETRIES):
                self._settle(node, trial)
                if not number:
                    trial.retried = began_ns, time.monotonic_ns()
        self._kill(node)

    def _undisturbed(self) -> Node:
        return self._fork(self._order(Shot()))

    def _fork(self, order: Order) -> Node:
        node = Node(self._forks, order)
        self._nodes.add(node)
        return node

    def _kill(self, node: Node) -> None:
        node.kill()
        self._nodes.discard(node)

    def _kill_all(self) -> None:
        for node in list(self._nodes):
            self._kill(node)

    def _settle(self, node: Node, trial: Trial, unsettled: frozenset[str] = _UNSETTLED) -> None:
        """Ask until the answer is more than a request to come again."""

        def settled() -> bool:
            call = self._ask(node, trial).answered(PATIENCE_S)
            trial.seen.append(call)
            return call.returned_ns is not None and call.code not in unsettled

        with _waiting_for(trial):
            until(settled, "a settled answer to a retry", every_s=_RETRY_S)

    def _ask(self, node: Node, trial: Trial) -> Asked:
        return node.ask(Call(next(self._numbers), SCOPE, trial.key, 0, node=node.name), trial.content)

    def _order(self, shot: Shot, *, lines: bool = False) -> Order:
        number = next(self._numbers)
        return Order(
            mode=self.mode.name,
            store=self._place.url,
            ledger=str(self._folder / "ledger.jsonl"),
            trace=str(self._folder / f"{number}.trace"),
            point=shot.point,
            action=shot.action,
            beside=self._beside,
            lines=lines,
        )

    # --- looking at the store and the ledger ------------------------------------------------------

    def _found(self, trial: Trial) -> Found | None:
        identity = record_id(self._secret, "default", SCOPE, Key(trial.key))
        deadline_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline_s:
            with suppress(StoreError):  # it was killed, and the connection does not know yet
                return self._records.perform(Read(identity))
        raise TimeoutError(f"the store did not answer in {PATIENCE_S} s")

    def _may_move(self, trial: Trial) -> bool:
        """Whether nobody holds the record any more, by the store's own clock."""
        found = self._found(trial)
        held = found is not None and found.record.state is State.IN_PROGRESS
        return found is None or not held or found.record.lease_until_ms < found.now_ms

    def _stored(self, trial: Trial) -> Iterator[Stored]:
        found = self._found(trial)
        if found is None:
            return
        record = found.record
        status, body = None, ""
        if record.response is not None:
            identity = record_id(self._secret, "default", SCOPE, Key(trial.key))
            response = unseal(record.response, identity, self._secret, None).response
            status, body = response.status, digest(response.body)
        yield Stored(
            time.monotonic_ns(),
            found.now_ms,
            SCOPE,
            trial.key,
            str(record.state),
            record.token.hex(),
            record.attempt,
            record.lease_until_ms,
            status=status,
            body=body,
        )

    def _rows(self, trial: Trial) -> list[Row]:
        if not self.mode.stores:
            return []
        with closing(tables.connect(self._place.url)) as database:
            return tables.rows(database, trial.key)

    def _entries(self) -> dict[str, list[Event]]:
        """What was entered into the ledger since the last look, by key."""
        news = read_lines([as_line(self.rules) + "\n", *self._ledger.news()])
        entries: dict[str, list[Event]] = defaultdict(list)
        for effect in news.effects:
            entries[effect.key].append(effect)
        for kept in news.kept:
            entries[kept.key].append(kept)
        return entries
