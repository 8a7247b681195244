"""One connection of a lane: set up, examined, and given batches of transitions. For both colours."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from retrysafe.errors import StoreError, StoreUnavailable
from retrysafe.model import Found
from retrysafe.protocol.effects import Transition
from retrysafe.stores.clock import Told
from retrysafe.stores.lanes import Then, Verdict
from retrysafe.stores.mysql_server import CHECK, CONFLICTS, Conversation, ServerError, check, examine, failure_of, setup
from retrysafe.stores.mysql_sql import Plan, Vanished, plan_of

_LOG = logging.getLogger("retrysafe.stores.mysql")

# What was silent for longer might have been forgotten by something on the way, which tells nobody.
IDLE_S_MAX = 60.0


class Wire(Conversation, Protocol):
    """A connection to the server, in one of the colours."""

    @property
    def whole(self) -> bool:
        """Has nothing happened to it, as far as can be told without asking?"""

    async def leave(self) -> None:
        """Say goodbye and let go. Raises nothing."""

    def drop(self) -> None:
        """Let go at once. Raises nothing."""


Dial = Callable[[], Awaitable[Wire]]


@dataclass(frozen=True, slots=True)
class Terms:
    """What the connections of a store have in common.

    Attributes:
        name: of the store, for people.
        clock_sql: an expression that is the time in milliseconds.
        lock_wait_s: how long a statement waits for a row.
        migrations: how many this release knows.
        told: what time it is.
    """

    name: str
    clock_sql: str
    lock_wait_s: int
    migrations: int
    told: Told = field(default_factory=Told)


class MysqlSession:
    """A connection that is made when it is needed, dropped when it fails, and made again.

    Args:
        dial: connects to the server, or raises `ServerError`.
        terms: of the store.
    """

    def __init__(self, dial: Dial, terms: Terms) -> None:
        self._name = terms.name
        self._dial = dial
        self._terms = terms
        self._wire: Wire | None = None
        self._used_s = 0.0
        self._text_bytes_max = 0

    @property
    def connected(self) -> bool:
        """Is there a connection, which was in use not long ago?"""
        return self._wire is not None and self._wire.whole and time.monotonic() - self._used_s < IDLE_S_MAX

    async def connect(self) -> None:
        """Make a connection to a server that may be used; to any other, there is none."""
        self.drop()
        wire = await self._dial()
        try:
            *_, shown, matched, rows = await wire.ask(f"{setup(self._terms.lock_wait_s)}; {CHECK}")
            said = examine(self._name, shown)
            check(self._name, matched, rows, self._terms.migrations)
        except BaseException:
            wire.drop()
            raise
        self._text_bytes_max = int(said["max_allowed_packet"]) - 64
        self._used_s = time.monotonic()
        self._wire = wire

    async def run(self, transitions: Sequence[Transition[Any]]) -> Sequence[Any]:
        """Do all of these or none. After any error the transaction is rolled back: some of them leave it open."""
        assert self._wire is not None
        self._used_s = time.monotonic()
        try:
            answers = await self._carry(
                self._wire, plan_of(transitions, self._terms.clock_sql, self._terms.told.now_ms)
            )
        except ServerError as error:
            if not error.lost:
                await self._wire.ask("ROLLBACK")
            raise
        self._terms.told.hear(answer.now_ms for answer in answers if isinstance(answer, Found))
        return answers

    def judge(self, error: Exception) -> Verdict:
        """What an error means. If the server undid it, only that connection's future is in question."""
        match error:
            case Vanished():
                return Verdict(StoreUnavailable(f"{self._name}: the record came and went; try again"), Then.AGAIN)
            case ServerError(code=code) if code in CONFLICTS:
                return Verdict(failure_of(self._name, error), Then.AGAIN)
            case ServerError():
                return Verdict(failure_of(self._name, error), Then.RECONNECT if error.lost else Then.EACH_ALONE)
            case StoreError():
                return Verdict(error, Then.EACH_ALONE if self.connected else Then.RECONNECT)
            case _:
                _LOG.error("%s: unexpected; the connection is made anew", self._name, exc_info=error)
                failure = f"{self._name}: {type(error).__name__}, which was not expected; see the log"
                return Verdict(StoreUnavailable(failure), Then.RECONNECT)

    async def close(self) -> None:
        """Take leave of the server."""
        wire, self._wire = self._wire, None
        if wire is not None:
            await wire.leave()

    def drop(self) -> None:
        """Let go of the connection at once."""
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.drop()

    async def _carry(self, wire: Wire, plan: Plan[list[Any]]) -> list[Any]:
        try:
            text = next(plan)
            while True:
                if len(text) > self._text_bytes_max:
                    raise StoreError(
                        f"{self._name} takes {self._text_bytes_max} bytes at once, and this is {len(text)}: raise its "
                        "max_allowed_packet to more than four times response_bytes_max, or body_bytes_max"
                    )
                text = plan.send(await wire.ask(text))
        except StopIteration as end:
            answers: list[Any] = end.value
            return answers
