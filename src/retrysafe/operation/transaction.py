"""One commit for the effect and its record: `CompleteIfHeld` on the application's own connection.

The statement is the store's, and its condition is the claim's token: the same row decides who may complete the record
and whether this is the database that the record is in. So on the way that goes well it is one statement, and only a
refusal asks further, to say why (contract R42).
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from retrysafe.errors import CallerError, ClaimLost
from retrysafe.model import Response, State
from retrysafe.operation.connections import Reached, Values, reach
from retrysafe.operation.responses import response_of
from retrysafe.protocol.answers import UNRECORDED_STATUS
from retrysafe.protocol.effects import Answered, Execute, Fate
from retrysafe.protocol.expiry import EXPIRES_FIELD
from retrysafe.protocol.snapshot import Encryption, seal, take_snapshot
from retrysafe.stores.contract import CompletesWithin, Completion, Store, secret_check
from retrysafe.stores.lanes import finished

R = TypeVar("R")


class Completed(Generic[R]):
    """A completion that is done already; may be awaited or not."""

    __slots__ = ("response",)

    def __init__(self, response: R) -> None:
        self.response = response

    def __await__(self) -> Generator[Any, Any, R]:
        yield from ()
        return self.response


class Recording(Protocol):
    """An operation, as it is told what was recorded."""

    recorded: tuple[Response, bytes] | None


@dataclass(frozen=True, slots=True)
class StoreKeeper:
    """Completes the records of one door's operations.

    Attributes:
        store: of the records.
        stop_renewing: ends the renewal of a claim; may be called on any thread.
        encryption: of stored responses; None keeps them as they are.
    """

    store: Store
    stop_renewing: Callable[[Execute], None]
    encryption: Encryption | None = None

    def complete(  # noqa: PLR0913, PLR0917 - an operation's own attributes, and what its handler gives
        self, operation: Recording, execute: Execute, secret: bytes, connection: Any, response: R, status: int
    ) -> Awaitable[R]:
        """Complete the record of an operation on a connection: at once if that is blocking, else when it is awaited.

        Args:
            operation: told what is recorded.
            execute: what the operation was begun with.
            secret: that keys are digested with.
            connection: of the application.
            response: what the handler has for an answer.
            status: if that is data.

        Raises:
            CallerError: any of them cannot be used for this.
            ClaimLost: the claim does not hold any more.
        """
        if not isinstance(self.store, CompletesWithin):
            raise CallerError(
                "complete_within needs the records in the application's own database, and they are in "
                f"{self.store.name}: name that database in store= (postgresql://, mysql:// or sqlite:///)"
            )
        reached = reach(connection)
        withheld = frozenset({execute.policy.replay_field, UNRECORDED_STATUS[0], EXPIRES_FIELD})
        recorded = response_of(response, status, withheld)
        work = _complete(_Work(self, execute, secret, self.store.completion(), reached), recorded, operation)
        if not reached.blocking:
            return _after(work, response)
        finished(work)
        return Completed(response)


async def _after(work: Awaitable[None], response: R) -> R:
    await work
    return response


@dataclass(frozen=True, slots=True)
class _Work:
    keeper: StoreKeeper
    execute: Execute
    secret: bytes
    completion: Completion
    reached: Reached


async def _complete(work: _Work, recorded: Response, operation: Recording) -> None:
    name = work.keeper.store.name
    if refusal := await work.reached.refusal():
        raise CallerError(
            f"complete_within was given a connection that cannot commit the effect with its record: {refusal}. Begin a "
            "transaction, do the work and complete_within in it, then commit"
        )
    if work.reached.engine != work.completion.engine:
        raise CallerError(
            f"complete_within was given a connection to {work.reached.engine}, and the records are in {name}: nothing "
            "could be committed together. Put both into one database"
        )
    sealed = _sealed(work, recorded)
    values = _values(work, sealed)
    work.keeper.stop_renewing(work.execute)  # or it would wait for the row that is locked from here on
    before, kept = operation.recorded, (recorded, sealed)
    operation.recorded = kept  # at once: who is stopped in the middle may have done it
    try:
        for statement in work.completion.before:
            await work.reached.change(statement, values)
        changed = await work.reached.change(work.completion.complete, values)
    except Exception as error:
        if hasattr(error, "hide_parameters"):
            error.hide_parameters = True  # SQLAlchemy's text would have the answer in it
        if (said := _not_ours(error)) is None:
            operation.recorded = before or kept  # whatever becomes of the transaction, this was not done in it
            raise
        operation.recorded = before
        raise CallerError(
            f"complete_within was given a connection to a database or schema without the records of {name}, or whose "
            f"user may not write them ({said}). Connect to that database, or name this one in store="
        ) from None
    if changed != 1:
        operation.recorded = before
        raise await _reason(work, values)


def _sealed(work: _Work, recorded: Response) -> bytes:
    execute = work.execute
    policy, body = execute.policy, recorded.body
    whole = len(body) <= policy.response_bytes_max
    kept = recorded if whole else Response(recorded.status, recorded.headers)
    digest = b"" if whole else hashlib.sha256(body).digest()
    answered = Answered(kept, whole=whole, size=len(body), digest=digest, fate=Fate.RAN)
    snapshot = take_snapshot(answered, execute.request.head, policy)
    return seal(snapshot, execute.claim.record_id, work.secret, work.keeper.encryption)


def _values(work: _Work, sealed: bytes) -> Values:
    policy, claim = work.execute.policy, work.execute.claim
    return {
        "record_id": claim.record_id,
        "token": claim.token,
        "response": sealed,
        "lifetime_ms": policy.keep_ms,
        "forget_after_ms": policy.tombstone_ms,
        "now_ms": work.completion.now_ms(),
    }


async def _reason(work: _Work, values: Values) -> Exception:
    """Why the record could not be completed."""
    found = await work.reached.look(work.completion.look, values)
    if found:
        state, token = found[0]
        if bytes(token) == work.execute.claim.token and str(state) in (State.COMPLETED, State.EXPIRED):
            return CallerError("complete_within was called twice: this operation's record is completed already")
        return ClaimLost()
    name, whose = work.keeper.store.name, await work.reached.look(work.completion.whose, values)
    if not whose or bytes(whose[0][0] or b"") != secret_check(work.secret):
        return CallerError(
            f"complete_within was given a connection to the records of another store than {name}: connect to that "
            "database, or name this one in store="
        )
    return CallerError(
        f"this operation's record is not to be seen on the connection that complete_within was given. Its transaction "
        "began before the claim and shows what was then (REPEATABLE READ or SERIALIZABLE): begin it in the handler. Or "
        f"it leads to a copy of {name}, or the record was deleted by hand"
    )


_STATES_NOT_OURS = frozenset({"42P01", "42703", "3F000", "42501"})
_NUMBERS_NOT_OURS = frozenset({1049, 1054, 1142, 1146})


def _not_ours(error: BaseException | None) -> str | None:
    """What was seen, if the error says that our tables are not there, or not for this user; None if it does not."""
    while error is not None:
        state = getattr(error, "sqlstate", None)
        if state in _STATES_NOT_OURS:
            return f"SQLSTATE {state}"
        if error.args and error.args[0] in _NUMBERS_NOT_OURS:
            return f"error {error.args[0]}"
        if type(error).__module__ == "sqlite3" and str(error).startswith(("no such table", "no such column")):
            return str(error)
        error = getattr(error, "orig", None) or error.__cause__
    return None
