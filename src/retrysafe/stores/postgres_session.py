"""What a lane does on one connection to PostgreSQL, whichever driver carries it, and what its errors mean.

Each batch is one statement, which is a transaction of its own: the server commits it before it answers,
and there is nothing to leave open. It is right at READ COMMITTED, by the unique index, the lock of the row
and the token alone; at SERIALIZABLE the server may undo it for a conflict, and then it is done again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from retrysafe.errors import StoreError, StoreUnavailable, StoreUnusable
from retrysafe.model import Found, Record, State
from retrysafe.protocol.effects import Transition
from retrysafe.protocol.states import Event
from retrysafe.protocol.transitions import (
    DAY_MS,
    AddHistory,
    ClaimIfAbsent,
    CountAnswers,
    Details,
    ListAbandoned,
    ListRecords,
    ListResponses,
    Purge,
    Purged,
    Read,
    ReadDetails,
    RecordsPage,
    ResponsesPage,
    Stats,
    TakeStats,
)
from retrysafe.stores.clock import Told
from retrysafe.stores.lanes import CONFLICTS_MAX, Then, Verdict, record_of
from retrysafe.stores.plan import (
    abandoned_page_of,
    abandoned_values,
    page_of,
    records_page_of,
    records_values,
    stats_of,
    summed,
)
from retrysafe.stores.postgres_sql import Question, Statements, parameters
from retrysafe.stores.sql import PORTION

CONNECT_S = 5.0
ANSWER_S = 30.0
COUNTED_S = 600.0  # statistics look at every record

# A plan that is kept with a prepared statement may be one that was good while the table was empty, and reads the
# whole of it when it is not; switching kinds of scans and joins off does not prevent that. So each batch is planned
# by the size that the table has by then. Behind a pooler nothing is prepared, and it is so by itself.
PLANS = "SET plan_cache_mode = force_custom_plan"

_STATES = {str(state): state for state in State}

_CONFLICTS = ("40001", "40P01")
_LOCKED = ("55P03", "57014")
_READ_ONLY = ("25006", "25P02")
_NOT_OURS = ("42P01", "42703", "42501", "3F000", "3D000", "28000", "28P01")
_ADVICE = {
    "28000": "check the user, and what pg_hba.conf allows it",
    "28P01": "check the password",
    "3D000": "create the database, or name another",
    "42501": "grant the user what docs/how-to/postgres.md lists",
    "53100": "the disk is full; make room",
    "53300": "raise max_connections, or use a pooler",
}


@dataclass
class Place:
    """Where the records are.

    Attributes:
        url: for the drivers; with the password, so it is never shown.
        name: for people.
        statements: for this place.
        migrations: how many this release knows.
        pooled: connections go through a pooler, which may give each transaction another one. Assumed until `open`
            has found out.
        told: what time it is.
    """

    url: str
    name: str
    statements: Statements
    migrations: int
    pooled: bool = True
    told: Told = field(default_factory=Told)


class InDoubt(Exception):
    """The server warned while it committed: it is applied here, and perhaps not where it has to be as well."""


class PostgresSession(ABC):
    """One connection. A driver says how it is made and how it carries a statement.

    Args:
        place: where to connect.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self.warning: str | None = None  # of the server, since the last statement began
        self.answer_s = ANSWER_S  # how long the next statement may take

    # --- by driver --------------------------------------------------------------------------------

    @property
    @abstractmethod
    def connected(self) -> bool:
        """Is there a connection, as far as can be told without asking the server?"""

    @abstractmethod
    async def dial(self) -> None:
        """Make the connection, in autocommit; have warnings noted."""

    @abstractmethod
    async def fetch(self, statement: str, *values: Any) -> Sequence[Sequence[Any]]:
        """The rows of one statement, in one round trip; prepared, unless there is a pooler."""

    @abstractmethod
    async def script(self, text: str) -> None:
        """Do statements that have no values."""

    @abstractmethod
    async def close(self) -> None:
        """Take leave of the server. Raises nothing."""

    @abstractmethod
    def drop(self) -> None:
        """Let go of the connection at once. Raises nothing."""

    # --- connecting -------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Make a connection to a server that may be written to, with a schema that this release knows."""
        self.drop()  # one that was cut
        await self.dial()
        try:
            if not self.place.pooled and not self.place.statements.portable:
                await self.script(PLANS)
            await self.refuse_standby()
            ((must_know,),) = await self.fetch(f"SELECT must_know FROM {self.place.statements.schema}.meta")  # noqa: S608 a quoted name
            refuse_newer(self.place, must_know)
        except BaseException:
            self.drop()
            raise

    async def refuse_standby(self) -> None:
        """A standby lags, and cannot be written to.

        Raises:
            StoreUnusable: the server is in recovery.
        """
        ((in_recovery,),) = await self.fetch(f"SELECT {self.place.statements.in_recovery}")
        if in_recovery:
            raise StoreUnusable(f"{self.place.name} is in recovery, a standby; name the primary in the store's URL")

    # --- batches ----------------------------------------------------------------------------------

    async def run(self, transitions: Sequence[Transition[Any]]) -> Sequence[Any]:
        """Do a batch of one kind, in one statement; see `lanes.Session`."""
        self.warning = None
        answers = await self._run(transitions)
        self.place.told.hear(answer.now_ms for answer in answers if isinstance(answer, Found))
        if self.warning is not None:
            raise InDoubt(self.warning)
        return answers

    async def _run(self, transitions: Sequence[Transition[Any]]) -> Sequence[Any]:
        statements = self.place.statements
        match transitions[0]:
            case ClaimIfAbsent():
                return await self._claim(transitions)
            case Read():
                return await self._read(transitions)
            case ReadDetails():
                return await self._read_details(transitions)
            case AddHistory():
                return await self._add_history(transitions)
            case first if type(first) in statements.changes:
                rows = await self._fetch_timed(statements.changes[type(first)], *parameters(transitions))
                changed = {row[0] for row in rows}
                return [record_of(transition) in changed for transition in transitions]
            case first:
                return [await self._run_on_many(first)]

    async def _run_on_many(self, transition: Transition[Any]) -> Any:
        match transition:
            case Purge():
                return await self._purge(transition)
            case ListRecords():
                return await self._list_records(transition)
            case ListAbandoned():
                return await self._list_abandoned(transition)
            case ListResponses():
                return await self._list_responses(transition)
            case CountAnswers():
                return await self._count_answers(transition)
            case TakeStats(days):
                return await self._take_stats(days)
            case _:
                raise AssertionError(f"no statement for {type(transition).__name__}")

    async def _fetch_timed(self, statement: str, *values: Any) -> Sequence[Sequence[Any]]:
        """The rows of a statement that asks what time it is."""
        return await self.fetch(statement, self.place.told.now_ms, *values)

    async def _ask(self, question: Question, given: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """The rows of a question."""
        return await self.fetch(question.text, *question.values(given))

    async def _now(self) -> int:
        ((now_ms,),) = await self._fetch_timed(self.place.statements.now)
        return int(now_ms)

    async def _claim(self, claims: Sequence[Transition[Any]]) -> Sequence[Found]:
        """What another connection made in the moment of a claim, the statement neither saw nor could insert."""
        found: dict[bytes, Found] = {}
        missing = claims
        for _ in range(CONFLICTS_MAX):
            for row in await self._fetch_timed(self.place.statements.claim, *parameters(missing)):
                found[row[0]] = _found(row)
            if len(found) == len(claims):
                return [found[record_of(claim)] for claim in claims]
            missing = [claim for claim in missing if record_of(claim) not in found]
        raise StoreUnavailable(f"{self.place.name}: a record came and went {CONFLICTS_MAX} times while it was claimed")

    async def _read(self, reads: Sequence[Transition[Any]]) -> Sequence[Found | None]:
        rows = await self._read_rows(self.place.statements.read, reads)
        return [_found(row) if row else None for row in rows]

    async def _read_rows(self, statement: str, reads: Sequence[Transition[Any]]) -> Sequence[Sequence[Any] | None]:
        """The row of each record that is read; None where there is none."""
        rows = await self._fetch_timed(statement, [record_of(read) for read in reads])
        if any(row[_IN_RECOVERY] for row in rows):
            raise StoreUnavailable(f"{self.place.name} is in recovery, a standby: what it says may be old")
        there = {row[0]: row for row in rows if row[1] is not None}
        return [there.get(record_of(read)) for read in reads]

    async def _read_details(self, reads: Sequence[Transition[Any]]) -> Sequence[Details]:
        rows = await self._read_rows(self.place.statements.details, reads)
        entries = await self._fetch_timed(self.place.statements.history, [record_of(read) for read in reads])
        histories: dict[bytes, list[bytes]] = {}
        for record_id, entry in entries:
            histories.setdefault(record_id, []).append(entry)
        every_history = [tuple(histories.get(record_of(read), ())) for read in reads]
        return [
            Details(_found(row), row[-2], row[-1], history) if row else Details(None, None, None, history)
            for row, history in zip(rows, every_history, strict=True)
        ]

    async def _add_history(self, additions: Sequence[Transition[Any]]) -> Sequence[bool]:
        missing = additions
        for _ in range(CONFLICTS_MAX):
            rows = await self._fetch_timed(self.place.statements.add_history, *parameters(missing))
            added = {row[0] for row in rows}
            missing = [addition for addition in missing if record_of(addition) not in added]
            if not missing:
                return [True] * len(additions)
        raise StoreUnavailable(f"{self.place.name}: too many add to one history at once; try again")

    async def _purge(self, purge: Purge) -> Purged:
        """Forget before expiring, so that what is over altogether is deleted and not first emptied."""
        statements = self.place.statements
        counts, entries = dict.fromkeys(statements.purges, 0), 0
        if await self._fetch_timed(statements.due):
            for event, statement in statements.purges.items():
                counts[event] = len(await self._fetch_timed(statement, purge.batch_max))
            entries = len(await self._fetch_timed(statements.purge_history, purge.batch_max))
        done = entries or any(counts.values())  # if not, what is due is in other hands, which will do it
        more = bool(done) and bool(await self._fetch_timed(statements.due))
        return Purged(expired=counts[Event.EXPIRE], forgotten=counts[Event.FORGET], more=more)

    async def _list_responses(self, wish: ListResponses) -> ResponsesPage:
        given = {"after": wish.after, "batch_max": wish.batch_max}
        return page_of(await self._ask(self.place.statements.responses, given), wish.batch_max)

    async def _list_records(self, wish: ListRecords) -> RecordsPage:
        now_ms = await self._now()
        ends = await self._ask(self.place.statements.portion_end, {"after": wish.after, "skipped": PORTION - 1})
        rows = await self._ask(self.place.statements.listed, records_values(wish, ends))
        return records_page_of(rows, now_ms, wish.batch_max, ends)

    async def _list_abandoned(self, wish: ListAbandoned) -> RecordsPage:
        now_ms = await self._now()
        rows = await self._ask(self.place.statements.abandoned, {**abandoned_values(wish), "now_ms": now_ms})
        return abandoned_page_of(rows, now_ms, wish.batch_max)

    async def _count_answers(self, counting: CountAnswers) -> bool:
        """Forgetting is a statement of its own: done without the other it is no harm, and engines may want it so."""
        await self._fetch_timed(self.place.statements.forget_answers)
        if counting.counts:
            await self._fetch_timed(self.place.statements.count_answers, *parameters(summed(counting.counts)))
        return True

    async def _take_stats(self, days: int) -> Stats:
        statements = self.place.statements
        now_ms = await self._now()
        self.answer_s = COUNTED_S
        try:
            records = await self.fetch(statements.record_counts)
        finally:
            self.answer_s = ANSWER_S
        since = {"last_day": now_ms // DAY_MS - days}
        return stats_of(now_ms, records, await self._ask(statements.answer_counts, since))

    # --- failures ---------------------------------------------------------------------------------

    def judge(self, error: Exception) -> Verdict:
        """What an error means, by its SQLSTATE; see `lanes.Session`."""
        verdict = self._judged(error)
        withheld = verdict.failure is error or _quotes_values(error)
        verdict.failure.__cause__ = None if withheld else error
        return verdict

    def _judged(self, error: Exception) -> Verdict:
        name = self.place.name
        state = getattr(error, "sqlstate", None) or ""
        said = f"{str(error).partition(chr(10))[0]} ({state or type(error).__name__})"
        if isinstance(error, StoreError):
            return Verdict(error, Then.RECONNECT)
        if state in _CONFLICTS:
            return Verdict(StoreUnavailable(f"{name}: undone for conflicts, again and again: {said}"), Then.AGAIN)
        if state in _LOCKED:
            failure = f"{name}: not done, since somebody has the row locked: {said}; end that transaction"
            return Verdict(StoreUnavailable(failure), Then.EACH_ALONE)
        if _quotes_values(error):
            failure = f"{name} does not take the values of this transition ({state})"
            return Verdict(StoreError(failure), Then.EACH_ALONE)
        if state in _NOT_OURS:
            advice = _ADVICE.get(state, "another application's, or changed by hand? Name another with schema=")
            return Verdict(StoreUnusable(f"{name}: {said}; {advice}"), Then.RECONNECT)
        if state in _READ_ONLY:
            failure = f"{name} cannot be written to, perhaps a standby: {said}; name the primary"
            return Verdict(StoreUnavailable(failure), Then.RECONNECT)
        if not self.connected or not state or state[:2] in ("08", "57") or state == "40003":
            advice = _ADVICE.get(state, "is the server running, and is the URL right?")
            failure = f"{name}: {said}; what was in flight may or may not have been applied; {advice}"
            return Verdict(StoreUnavailable(failure), Then.RECONNECT)
        failure = f"{name}: {said}; {_ADVICE.get(state, 'see the log of the server')}"
        return Verdict(StoreUnavailable(failure), Then.EACH_ALONE)


def refuse_newer(place: Place, must_know: int) -> None:
    """May this release work with a schema that was upgraded by another?

    Raises:
        StoreUnusable: it may not.
    """
    if must_know > place.migrations:
        raise StoreUnusable(
            f"{place.name} has gone through migration {must_know} after a deployment, and this release knows "
            f"{place.migrations}: upgrade retrysafe"
        )


def _quotes_values(error: Exception) -> bool:
    """Is it about a value, which its text repeats then: a row with a response, "Failing row contains"?"""
    return str(getattr(error, "sqlstate", None) or "").startswith(("22", "23"))


_IN_RECOVERY = 14  # its place in a row of `Statements.read`, after what `_found` takes


def _found(row: Sequence[Any]) -> Found:
    """A row of `Statements.claim` or `Statements.read`: the id, the record, the time."""
    return Found(Record(_STATES[row[1]], *row[2:13]), row[13])
