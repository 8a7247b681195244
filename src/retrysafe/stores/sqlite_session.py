"""Transitions on one SQLite file, many in one transaction.

A session lives in one thread, its writer's, and so does its connection: nothing else can reach it. It
never raises: what a transition comes to is a value, the answer or the error.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from retrysafe.errors import StoreError, StoreUnavailable, StoreUnusable
from retrysafe.protocol.effects import Transition
from retrysafe.protocol.transitions import ClaimIfAbsent
from retrysafe.stores import sql
from retrysafe.stores.clock import Clock
from retrysafe.stores.plan import Change, Look, Now, Plan, Row, plan_of
from retrysafe.stores.sqlite_file import CHECKPOINT_BYTES, CHECKPOINTS_SAFE_SINCE, SqliteFile

_LOG = logging.getLogger("retrysafe.stores.sqlite")

AHEAD_MS_MAX = 60_000

# To look how long the log is costs three system calls, so it is done once for so much of it, and not at each commit.
LOOK_EVERY_BYTES = CHECKPOINT_BYTES // 16
_PAGES_BYTES = 5 * 4_096  # the row, both indexes and the clock; a page more where one is split

_ADVICE = {
    sqlite3.SQLITE_BUSY: "another process has been writing to it for too long; end its transaction",
    sqlite3.SQLITE_FULL: "the disk is full; make room",
    sqlite3.SQLITE_READONLY: "it is read-only for this process; change its permissions",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; change its permissions or its folder's",
    sqlite3.SQLITE_CORRUPT: "it is damaged; restore it from a backup",
}


class Session:
    """A connection that is made when it is needed, dropped when it fails, and made again.

    Args:
        file: where the records are.
        clock: this host's, in milliseconds.
    """

    def __init__(self, file: SqliteFile, clock: Clock) -> None:
        self._file = file
        self._clock = clock
        self._now_ms = 0  # the latest time that this session has seen
        self._warned = False
        self._connection: sqlite3.Connection | None = None
        self._written_bytes = LOOK_EVERY_BYTES  # since the log was last looked at; at first, nobody knows

    def run(self, transitions: Sequence[Transition[Any]]) -> list[Any]:
        """What each transition comes to, in order: its answer, or a `StoreError`.

        All of them share one transaction. If one cannot be done, each is done in its own, so that it
        fails alone.
        """
        try:
            return self._together(transitions)
        except Exception as error:  # noqa: BLE001 - whatever it is, the callers are to hear it
            failure = self._recover(error)
        if len(transitions) == 1 or self._connection is None:
            return [_again(failure) for _ in transitions]
        return self._one_by_one(transitions)

    def tidy(self) -> None:
        """Do what may be done after the answers have gone out: bring the log back if it is long."""
        if self._written_bytes < LOOK_EVERY_BYTES or self._connection is None:
            return
        self._written_bytes = 0
        if sqlite3.sqlite_version_info >= CHECKPOINTS_SAFE_SINCE:
            return
        try:
            self._file.checkpoint_if_due(self._connection)
        except (sqlite3.Error, OSError) as error:
            _LOG.warning("%s: its write-ahead log could not be brought back: %s", self._file.path, error)
            self.close()

    def close(self) -> None:
        """Let go of the file; the next transition opens it again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    # --- executing plans --------------------------------------------------------------------------

    def _together(self, transitions: Sequence[Transition[Any]]) -> list[Any]:
        connection = self._connected()
        answers: list[Any] = []
        seen: dict[bytes, Row] = {}
        for transition in transitions:
            writing = connection.in_transaction
            if len(answers) == 1 and not writing:
                seen = _look_ahead(connection, transitions[1:])
            row = seen.get(transition.record_id) if isinstance(transition, ClaimIfAbsent) else None
            answers.append(self._drive(connection, plan_of(transition, writing=writing, seen=row)))
        if connection.in_transaction:
            connection.execute("COMMIT")
            self._written_bytes += sum(map(_log_bytes_most, transitions))
        return answers

    def _one_by_one(self, transitions: Sequence[Transition[Any]]) -> list[Any]:
        outcomes: list[Any] = []
        for transition in transitions:
            outcomes += self.run([transition])
            if self._connection is None:  # the rest would fail in the same way, and wait as long for it
                return outcomes + [_again(outcomes[-1]) for _ in transitions[len(outcomes) :]]
        return outcomes

    def _drive(self, connection: sqlite3.Connection, plan: Plan[Any]) -> Any:
        answer: Any = None
        try:
            while True:
                step = plan.send(answer)
                if isinstance(step, Look):
                    answer = connection.execute(step.statement, step.values).fetchall()
                elif isinstance(step, Change):
                    answer = connection.execute(step.statement, step.values).rowcount
                elif connection.in_transaction:
                    answer = self._now_ms
                else:
                    answer = self._begin(connection) if step is Now.TO_WRITE else self._tick()
        except StopIteration as end:
            return end.value

    # --- time -------------------------------------------------------------------------------------

    def _tick(self) -> int:
        self._now_ms = max(self._now_ms, self._clock())
        return self._now_ms

    def _begin(self, connection: sqlite3.Connection) -> int:
        """Begin to write. The time of the transaction is kept, so that no later one is dated before it."""
        connection.execute("BEGIN IMMEDIATE")
        ((self._now_ms,),) = connection.execute(sql.TICK, {"now_ms": self._tick()}).fetchall()
        return self._now_ms

    # --- the connection ---------------------------------------------------------------------------

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = self._file.connect()
            self._notice_clock(self._connection)
            return self._connection
        try:
            self._file.identity.check(self._file.path)
        except StoreUnusable:
            self.close()
            raise
        return self._connection

    def _notice_clock(self, connection: sqlite3.Connection) -> None:
        ((floor_ms,),) = connection.execute(sql.CLOCK).fetchall()
        self._now_ms = max(self._now_ms, floor_ms)
        ahead_ms = floor_ms - self._clock()
        if ahead_ms > AHEAD_MS_MAX and not self._warned:
            self._warned = True
            _LOG.warning(
                "%s was last written at a time %d s ahead of this host's clock: its clock stands still until then, "
                "and no lease lapses. Correct the host's clock",
                self._file.path,
                ahead_ms // 1_000,
            )

    # --- failures ---------------------------------------------------------------------------------

    def _recover(self, error: Exception) -> StoreError:
        """Undo what was begun; drop the connection if it is to blame. Say what the callers are to hear."""
        try:
            if self._connection is not None and not _blames_the_file(error):
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                return refused(self._file.path, error)
        except sqlite3.Error as worse:
            error = worse
        self.close()
        return refused(self._file.path, error)


def _look_ahead(connection: sqlite3.Connection, transitions: Sequence[Transition[Any]]) -> dict[bytes, Row]:
    """The records of many claims, in few statements. For a batch of replays, which is one whose first wrote nothing."""
    ids = [transition.record_id for transition in transitions if isinstance(transition, ClaimIfAbsent)]
    seen: dict[bytes, Row] = {}
    for at in range(0, len(ids), len(sql.SEVERAL)):
        values = dict.fromkeys(sql.SEVERAL, ids[at]) | dict(zip(sql.SEVERAL, ids[at:], strict=False))
        for record_id, *row in connection.execute(sql.SEVERAL_RECORDS, values).fetchall():
            seen[record_id] = row
    return seen


def refused(path: Path, error: Exception) -> StoreError:
    """What callers are to hear of an error: which file, what was seen, what to do about it.

    Args:
        path: of the file.
        error: of SQLite or the system; one of ours stays as it is.
    """
    if isinstance(error, StoreError):
        return error
    failure: StoreError
    if _blames_the_file(error):
        advice = _ADVICE.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, "look at its disk and its permissions")
        failure = StoreUnavailable(f"{path}: {error}; {advice}")
    else:
        failure = StoreError(f"{path} does not take the values of this transition: {error}")
    failure.__cause__ = error
    return failure


def _log_bytes_most(transition: Transition[Any]) -> int:
    """How far one transition makes the log grow at most, but for a few pages."""
    return _PAGES_BYTES + sum(len(getattr(transition, name, None) or b"") for name in _LARGE)


_LARGE = ("response", "request", "journal")


def _blames_the_file(error: Exception) -> bool:
    """Is it the file or its disk that failed, and not the values of one transition?"""
    return isinstance(error, OSError) or type(error) in (sqlite3.OperationalError, sqlite3.DatabaseError)


def _again(failure: StoreError) -> StoreError:
    """The same failure for another caller: each raises, and thereby marks, an exception of its own."""
    copy = type(failure)(str(failure))
    copy.__cause__ = failure.__cause__
    return copy
