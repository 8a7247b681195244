"""The store as a worker has it: behind a network that loses, delays and repeats.

The real memory store stands behind it. What it did is written down as it did it, so that neither the worker nor the
auditor has to be believed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, TypeVar

from retrysafe.errors import StoreUnavailable
from retrysafe.lab.evidence import Fault, Kind, Row, Write
from retrysafe.lab.simulate.loop import Actor, Choices, SimulatedLoop
from retrysafe.lab.simulate.scenario import NetworkPlan
from retrysafe.model import Record, State
from retrysafe.protocol import transitions
from retrysafe.protocol.effects import Transition
from retrysafe.protocol.states import Event
from retrysafe.protocol.transitions import Purge
from retrysafe.stores.contract import Pending
from retrysafe.stores.memory import MemoryStore, allowed
from retrysafe.value import value

T = TypeVar("T")

PATIENCE_S = 0.4  # of a worker, with an answer that does not come
LATE_S = 3.5  # how much later than that a message may still arrive
START_MS = 1_700_000_000_000

EVENTS: dict[type[Transition[Any]], Event] = {
    transitions.ClaimIfAbsent: Event.CLAIM,
    transitions.TakeOverIfLapsed: Event.TAKE_OVER,
    transitions.ClaimIfRetryable: Event.RECLAIM,
    transitions.RenewIfHeld: Event.RENEW,
    transitions.KeepJournalIfHeld: Event.JOURNAL,
    transitions.CompleteIfHeld: Event.COMPLETE,
    transitions.ReleaseIfHeld: Event.RELEASE,
    transitions.DiscardIfHeld: Event.DISCARD,
    transitions.MarkUnknownIfHeld: Event.GIVE_UP,
    transitions.MarkUnknownIfLapsed: Event.ABANDON,
    transitions.ForgetIfOver: Event.FORGET,
}


@dataclass(eq=False)
class Transaction:
    """A transaction of a handler: a row of its own, and the completion of its record.

    Attributes:
        completing: the record, in it.
        place: scope and key of the row.
        attempt: of the handler.
        is_open: neither committed nor rolled back.
    """

    completing: transitions.CompleteIfHeld
    place: tuple[str, str]
    attempt: int
    is_open: bool = True


class Server:
    """The store's server: the records, their clock, what it loses in a failover, and its log.

    Args:
        loop: whose time it goes by.
        store: makes the store, from a clock.
        names: scope and key of each record id.
        remembers: keep copies of the past, because there will be a failover.
    """

    def __init__(
        self,
        loop: SimulatedLoop,
        store: Callable[[Callable[[], int]], MemoryStore],
        names: dict[bytes, tuple[str, str]],
        *,
        remembers: bool,
    ) -> None:
        self._loop = loop
        self._names = names
        self._remembers = remembers
        self._past: list[_Past] = [_Past(float("-inf"), {}, {}, {}, ())]
        self.offset_ms = 0
        self.store = store(self.now_ms)
        self.is_away = False
        self.writes: list[Write] = []
        self.rows: tuple[Row, ...] = ()
        self._locks: dict[bytes, Transaction] = {}

    def now_ms(self) -> int:
        """The store's clock."""
        return START_MS + self.offset_ms + int(self._loop.now_s * 1_000)

    @property
    def records(self) -> dict[bytes, Record]:
        """What it holds."""
        return self.store._records  # noqa: SLF001 - the auditor looks into the store, not through it

    @property
    def is_locked(self) -> bool:
        """A transaction of a handler is open, and holds its record."""
        return bool(self._locks)

    def apply(self, transition: Transition[T], node: str) -> T:
        """Do one transition and write it down."""
        if self.is_away:
            raise StoreUnavailable("the store is away")
        record_id: bytes | None = getattr(transition, "record_id", None)
        if record_id is None and (claim := getattr(transition, "claim", None)) is not None:
            record_id = claim.record_id
        if record_id is None:
            return self._apply_to_many(transition, node)
        before = self.records.get(record_id)
        event = EVENTS.get(type(transition))
        if record_id in self._locks and event is not None and event is not Event.CLAIM:
            raise StoreUnavailable("the record is locked")
        answer = self.store.perform(transition)
        if event is not None:
            after = self.records.get(record_id)
            self._note(event, record_id, before, after, _asked_by(transition), node)
            if self._remembers and before is not after:
                self._remember()
        return answer

    def _apply_to_many(self, transition: Transition[T], node: str) -> T:
        before = dict(self.records)
        answer = self.store.perform(transition)
        for record_id, record in before.items():
            after = self.records.get(record_id)
            if after is not record:
                event = Event.FORGET if after is None else Event.EXPIRE if after.expires_at_ms else Event.ABANDON
                self._note(event, record_id, record, after, record.token, node)
        self._remember()
        return answer

    def _note(  # noqa: PLR0913, PLR0917 - what a write consists of
        self, event: Event, record_id: bytes, before: Record | None, after: Record | None, token: bytes, node: str
    ) -> None:
        scope, key = self._names[record_id]
        held = after is not None and before is not after and after.state is State.IN_PROGRESS
        is_claim = after is not None and (before is None or after.token != before.token)
        self.writes.append(
            Write(
                at_ns=self._loop.stamp_ns(),
                scope=scope,
                key=key,
                action=event.name,
                token=token.hex(),
                took_effect=before is not after,
                before=None if before is None else before.state.value,
                after=None if after is None else after.state.value,
                node=node,
                new_token=after.token.hex() if is_claim and after is not None else "",
                attempt=0 if after is None else after.attempt,
                lease_ms=after.lease_until_ms - self.store._now_ms if held and after is not None else None,  # noqa: SLF001 - the store's clock
            )
        )

    # --- transactions of handlers -----------------------------------------------------------------

    def complete(self, transaction: Transaction) -> bool:
        """The statement in a transaction: whether the claim holds; then the record is locked until its end."""
        if self.is_away:
            raise StoreUnavailable("the store is away")
        claim = transaction.completing.claim
        record = self.records.get(claim.record_id)
        if claim.record_id in self._locks:
            raise StoreUnavailable("the record is locked")
        if record is None or not self.may_complete(record, transaction):
            return False
        self._locks[claim.record_id] = transaction
        return True

    def may_complete(self, record: Record, transaction: Transaction) -> bool:
        """The condition of that statement."""
        return allowed(record, Event.COMPLETE, transaction.completing.claim.token, self.now_ms())

    def commit(self, transaction: Transaction, node: str) -> None:
        """The row is there, and the record completed."""
        record_id = transaction.completing.claim.record_id
        if self.is_away or self._locks.get(record_id) is not transaction or not transaction.is_open:
            raise StoreUnavailable("the transaction is gone")
        del self._locks[record_id]
        transaction.is_open = False
        self.insert(*transaction.place, transaction.attempt)
        self.apply(transaction.completing, node)

    def insert(self, scope: str, key: str, attempt: int) -> None:
        """A row of the handler's own."""
        self.rows += (Row(scope, key, attempt, self._loop.stamp_ns()),)

    def roll_back(self, transaction: Transaction) -> None:
        """As if it had never been."""
        record_id = transaction.completing.claim.record_id
        transaction.is_open = False
        if self._locks.get(record_id) is transaction:
            del self._locks[record_id]

    # --- what becomes of it -----------------------------------------------------------------------

    def _remember(self) -> None:
        store = self.store
        self._past.append(
            _Past(self._loop.now_s, dict(self.records), dict(store._requests), dict(store._journals), self.rows)  # noqa: SLF001 - as above
        )

    def restart(self) -> None:
        """It was away and comes back, with what it had."""
        self._locks.clear()
        self.store.close()
        self.store.open()
        self.is_away = False

    def fail_over(self, loses_s: float, offset_ms: int) -> None:
        """Another server takes its place, which has not heard of the latest writes, and has a clock of its own."""
        heard_s = self._loop.now_s - loses_s
        past = [past for past in self._past if past.at_s <= heard_s][-1]
        self.offset_ms = offset_ms
        self.store._records = dict(past.records)  # noqa: SLF001 - what was lost is lost
        self.store._requests = dict(past.requests)  # noqa: SLF001 - as above
        self.store._journals = dict(past.journals)  # noqa: SLF001 - as above
        self.store._now_ms = 0  # noqa: SLF001 - another server's clock
        self.rows = past.rows
        self._locks.clear()
        self._remember()


@value
class _Past:
    at_s: float
    records: dict[bytes, Record]
    requests: dict[bytes, bytes]
    journals: dict[bytes, bytes]
    rows: tuple[Row, ...]


def _asked_by(transition: Any) -> bytes:
    """The token of whoever asked, or that it saw."""
    claim = getattr(transition, "claim", None)
    token: bytes = claim.token if claim is not None else getattr(transition, "seen_token", None) or transition.token
    return token


class Connection:
    """A worker's connection to the store: a `Store` for its driver.

    Args:
        loop: that all of them live in.
        server: the store's.
        node: the worker.
        wire: on which messages are under way; it does not stop when the worker does.
        plan: how often it goes wrong.
        random: what goes wrong.
        choices: how long messages take.
    """

    name = "simulated"

    def __init__(  # noqa: PLR0913, PLR0917 - what a connection consists of
        self,
        loop: SimulatedLoop,
        server: Server,
        node: Actor,
        wire: Actor,
        plan: NetworkPlan,
        random: Random,
        choices: Choices,
    ) -> None:
        self._loop = loop
        self._server = server
        self._node = node
        self._wire = wire
        self._plan = plan
        self._is_bad = plan != NetworkPlan()
        self._random = random.random
        self._choices = choices
        self.is_cut = False
        self.faults: list[Fault] = []
        self._open: list[Transaction] = []

    def open(self, secret: bytes | None = None) -> bytes:
        """Agree on the secret."""
        return self._server.store.open(secret)

    def close(self) -> None:
        """Nothing is held."""

    def perform(self, transition: Transition[T]) -> T:
        """There are no threads in a simulation."""
        raise AssertionError(f"{type(transition).__name__} was to block the only thread there is")

    def submit(self, transition: Transition[T]) -> asyncio.Future[T]:
        """Send a transition; the answer comes when it comes, or an error does."""
        loop = self._loop
        future: Pending[T] = Pending(loop=loop.as_loop())
        loop.keep(self._node, future)
        there_s = self._choices.latency_s(self._wire)
        if self.is_cut:
            self._gives_up(future)
        elif self._is_bad and (mishap := self._mishap()) is not None:
            mishap(transition, future, there_s)
        else:
            loop.post(self._wire, there_s, self._arrive, transition, future)
        return future

    def _arrive(self, transition: Transition[T], future: Pending[T]) -> None:
        """It is at the server; its answer sets out."""
        back_s = self._choices.latency_s(self._wire)
        try:
            answer = self._server.apply(transition, self._node.name)
        except StoreUnavailable as error:
            self._loop.post(self._wire, back_s, self._fail, future, error)
        else:
            if self.is_cut:
                self._gives_up(future)
            else:
                self._loop.post(self._wire, back_s, self._answer, future, answer)

    # --- transactions of handlers -----------------------------------------------------------------

    async def complete(self, transaction: Transaction) -> bool:
        """Complete the record in a transaction; whether the claim holds."""
        self._open.append(transaction)
        return await self._ask(lambda: self._server.complete(transaction))

    async def commit(self, transaction: Transaction) -> None:
        """Commit it.

        Raises:
            StoreUnavailable: it may or may not have been committed.
        """
        await self._ask(lambda: self._server.commit(transaction, self._node.name))

    def commit_later(self, transaction: Transaction, delay_s: float) -> None:
        """Commit it after the handler has answered; nobody hears of it."""
        self._loop.post(self._wire, delay_s, self._try, lambda: self._server.commit(transaction, self._node.name))

    def roll_back(self, transaction: Transaction) -> None:
        """Let it go; the server learns of it in time."""
        latency_s = self._choices.latency_s(self._wire)
        self._loop.post(self._wire, latency_s, self._server.roll_back, transaction)

    def end(self) -> None:
        """The worker is gone: the server rolls back what was open."""
        for transaction in self._open:
            if transaction.is_open:
                self._server.roll_back(transaction)

    def _ask(self, statement: Callable[[], T]) -> asyncio.Future[T]:
        """Send a statement; its answer may get lost, but it is never sent twice."""
        future: Pending[T] = Pending(loop=self._loop.as_loop())
        self._loop.keep(self._node, future)
        if self.is_cut or (self._is_bad and self._random() < self._plan.lost):
            self._gives_up(future)
        elif self._is_bad and self._random() < self._plan.answer_lost:
            self._loop.post(self._wire, self._choices.latency_s(self._wire), self._try, statement)
            self._gives_up(future)
        else:
            self._loop.post(self._wire, self._choices.latency_s(self._wire), self._state, statement, future)
        return future

    def _state(self, statement: Callable[[], T], future: Pending[T]) -> None:
        back_s = self._choices.latency_s(self._wire)
        try:
            answer = statement()
        except StoreUnavailable as error:
            self._loop.post(self._wire, back_s, self._fail, future, error)
        else:
            self._loop.post(self._wire, back_s, self._answer, future, answer)

    def _try(self, statement: Callable[[], Any]) -> None:
        try:
            statement()
        except StoreUnavailable:
            return

    # --- what goes wrong --------------------------------------------------------------------------

    def _mishap(self) -> Callable[[Transition[Any], Pending[Any], float], None] | None:
        drawn = self._random()
        plan = self._plan
        for chance, mishap in (
            (plan.lost, self._lost),
            (plan.answer_lost, self._answer_lost),
            (plan.late, self._late),
            (plan.repeated, self._repeated),
        ):
            if drawn < chance:
                return mishap
            drawn -= chance
        return None

    def _lost(self, transition: Transition[T], future: Pending[T], there_s: float) -> None:  # noqa: ARG002 - as the others
        self._gives_up(future)

    def _answer_lost(self, transition: Transition[T], future: Pending[T], there_s: float) -> None:
        self._loop.post(self._wire, there_s, self._unheard, transition)
        self._gives_up(future)

    def _late(self, transition: Transition[T], future: Pending[T], there_s: float) -> None:
        """The worker has long given it up when it arrives."""
        self._loop.post(self._wire, there_s + self._random() * LATE_S, self._unheard, transition)
        self._gives_up(future)

    def _repeated(self, transition: Transition[T], future: Pending[T], there_s: float) -> None:
        """A client library sends it again, and hears the second answer."""
        self._loop.post(self._wire, there_s, self._unheard, transition)
        self._loop.post(self._wire, there_s + self._choices.latency_s(self._wire), self._arrive, transition, future)

    def _unheard(self, transition: Transition[Any]) -> None:
        try:
            self._server.apply(transition, self._node.name)
        except StoreUnavailable:
            return

    def _gives_up(self, future: Pending[Any]) -> None:
        loop = self._loop
        at_ns = loop.stamp_ns()
        until_ns = at_ns + int((PATIENCE_S + LATE_S) * 1_000_000_000)
        self.faults.append(Fault(at_ns, Kind.PARTITION, self._node.name, until_ns))
        loop.post(self._wire, PATIENCE_S, self._fail, future, StoreUnavailable("no answer came"))

    def _answer(self, future: Pending[T], answer: T) -> None:
        if self._node.alive and not future.done():
            future.set_result(answer)

    def _fail(self, future: Pending[Any], error: StoreUnavailable) -> None:
        if self._node.alive and not future.done():
            future.set_exception(error)


def purge(server: Server) -> None:
    """What the reaper does, in one batch. It leaves alone what is locked; here, as on SQLite, until nothing is."""
    if not server.is_away and not server.is_locked:
        server.apply(Purge(), "reaper")
