"""What every store of records promises. Prose first; the suite in `retrysafe.testing` is the same in code.

**Authority.** The store alone decides who holds a record, and its clock alone decides whether a lease
has lapsed or a lifetime is over. No caller's clock is ever compared with it (contract R40).

**Identity of a claim.** A record is held by the *token* of its latest claim: 16 random bytes, chosen
by the claimant. Every write by an owner names the token and takes effect only if the record still
carries it. The attempt number counts claims for people to read; it decides nothing.

**A transition is one atomic operation** on one record: it checks the state (`protocol.states.TABLE`)
and the guard (`protocol.states.GUARDS`) and writes, or does nothing and says so. Of any number of
racing transitions that exclude each other, one takes effect.

**Claiming.** `ClaimIfAbsent` inserts if there is no record, else it changes nothing; either way it
answers with the record as it then stands and the store's clock. It is one round trip. A caller holds
the record if it carries the caller's token. So a claim whose reply was lost is simply repeated.

**Durable means durable.** When a transition answers, its effect survives the death of the process, and
of the machine as far as the store's page in docs/guarantees.md says.

**Reads that decide** go where writes go; a store never answers from a replica or a cache that may lag.

**In doubt.** `StoreUnavailable` says that the operation may or may not have been applied. The caller
reads the record again and looks for its token.

**Nothing vanishes.** A record in progress whose lease has lapsed stands until it is taken over,
abandoned or settled. Only `Purge` and `ForgetIfOver` delete what nobody discarded, and only when the
record's `forget_at_ms` has come; `Purge` first marks a lapsed record unknown, then forgets it.

**What is kept beside a record.** The request of its first claim, if that brought one, and the latest journal that
an owner kept: through releases, take-overs and doubt, until the record is completed or deleted, and no longer. A
claim and a read never load them, only `ReadDetails` does; so they cost a replay nothing. They are of one moment
with the record: whoever sees it in progress sees what a later attempt would go on from.

**A history** belongs to a record id, and is there before the record and after it. Entries are only ever added; each
is kept for its own time, by the store's clock, and nobody sees it any longer than that. A purge deletes what is
over, as many at once as records, and says that there is more as long as there is.

**Lists** (`ListRecords`, `ListAbandoned`) go page by page, beside live traffic: each page is soon answered, however
many records there are, and what stands from the first page to the last is on one of them. They never carry a
response, a request or a journal. In a store with tables, which records were abandoned is answered from an index.

**Asyncio.** `submit` returns a future at once, and nothing cancels it: a task that is cancelled while it
waits learns so when the answer is there (`Pending`). So whoever claims always knows what came of it.

**Looking at many.** Lists, `ListResponses`, `TakeStats` and `CountAnswers` are for operators and for counts that
are written in batches: never on the path of a request. What `TakeStats` counts may have changed while it
counted; each record is counted as it once was. Counts that a reply was lost of are not sent again.

**Schema.** A store with tables keeps `HasSchema`: migrations before a deployment only add, so that the last
release runs on; `open` goes through them. Those after it are an operator's.

**Completing within.** A store in a database that an application may have its own tables in keeps
`CompletesWithin`. Until the application's transaction ends, a transition on the record waits for it, with a bound; a
claim or a read does not, and sees the record as it was.

**The secret** of stored key digests belongs to the records: other secret, other digests, and every key
would look new. So the store keeps it, or, when the operator gives one, a digest of it, and refuses
another (`StoreUnusable`).
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

from retrysafe.errors import StoreError, StoreUnusable
from retrysafe.protocol.effects import Transition
from retrysafe.stores.migrations import Migration

T = TypeVar("T")

SECRET_BYTES = 32


class Pending(asyncio.Future[T]):
    """An answer that will come, whoever stops waiting for it."""

    def cancel(self, msg: object = None) -> bool:  # noqa: ARG002 - the signature of every future
        """Refuse. The task that waits is told of its cancellation once the answer is there."""
        return False


@runtime_checkable
class Store(Protocol):
    """A store of records, in both colours. One object may serve many threads and event loops."""

    @property
    def name(self) -> str:
        """The store's kind and place, for people: no credentials in it."""

    def open(self, secret: bytes | None = None) -> bytes:
        """Make the store ready: create or upgrade its schema, agree on the secret. Safe to repeat.

        Args:
            secret: the operator's, at least 16 bytes; None uses the one that the store holds,
                creating it the first time.

        Returns:
            The secret to digest keys with.

        Raises:
            StoreUnavailable: it cannot be reached.
            StoreUnusable: its schema is newer than this release, or its secret is another.
        """

    def perform(self, transition: Transition[T]) -> T:
        """Do one transition and wait for it.

        Raises:
            StoreUnavailable: it may or may not have been applied.
        """

    def submit(self, transition: Transition[T]) -> asyncio.Future[T]:
        """Begin one transition on the running event loop; the future cannot be cancelled. Errors as for `perform`."""

    def close(self) -> None:
        """Finish what was submitted and let go of every resource. Safe to repeat."""


@runtime_checkable
class HasSchema(Protocol):
    """A store whose records are in tables, which grow by the migrations of `stores.migrations`."""

    def missing_migrations(self) -> Sequence[Migration]:
        """The migrations that it has not gone through, of those that this release knows. Changes and makes nothing.

        The script of each is whole: executed by other means, it does what `migrate` does, and the store knows it.

        Raises:
            StoreError: as `Store.open`.
        """

    def migrate(self) -> Sequence[Migration]:
        """Go through every missing migration, those after the deployment too, which `open` leaves. Safe to repeat.

        Returns:
            The migrations that were missing.

        Raises:
            StoreError: as `Store.open`.
        """


@runtime_checkable
class NeedsNoSchema(Protocol):
    """A store without tables, which is made by being used."""

    def is_in_use(self) -> bool:
        """Whether an application has opened it before. Changes and makes nothing.

        Raises:
            StoreError: as `Store.open`.
        """


@dataclass(frozen=True, slots=True)
class Completion:
    """How `CompleteIfHeld` is done on a connection that is not the store's own, in a transaction that is open there.

    In its statements `:name` stands for a value: of the transition's attributes and its claim's, or `:now_ms`. They
    name their tables in full, and change nothing but these.

    Attributes:
        engine: `postgresql`, `mysql` or `sqlite`.
        complete: changes one row, or the claim does not hold.
        look: the state and the token of the record, as the transaction sees it.
        whose: the digest of the store's secret.
        now_ms: the latest time that this process knows of.
        before: to be done first.
    """

    engine: str
    complete: str
    look: str
    whose: str
    now_ms: Callable[[], int]
    before: tuple[str, ...] = ()


@runtime_checkable
class CompletesWithin(Protocol):
    """A store in a database that an application may have its own tables in, and commit both together (R42)."""

    def completion(self) -> Completion:
        """How a record is completed on a connection of the application."""


def failure_of_your_own(failure: StoreError) -> StoreError:
    """The same failure for one more caller: each raises, and thereby marks, an exception of its own."""
    copy = type(failure)(str(failure))
    copy.__cause__ = failure.__cause__
    return copy


def secret_check(secret: bytes) -> bytes:
    """The digest by which a store recognises the operator's secret without holding it; 32 bytes."""
    return hmac.digest(secret, b"retrysafe: is this the secret of these records?", "sha256")


def agree_on_secret(given: bytes | None, held: bytes | None, check: bytes | None) -> tuple[bytes, bytes | None, bytes]:
    """Decide which secret a process uses with a store.

    Args:
        given: the operator's, if any.
        held: the secret that the store holds, if it created one.
        check: the store's digest of its secret; None in a new store.

    Returns:
        The secret to use, the secret for the store to hold (None: the operator keeps it), its digest.

    Raises:
        StoreUnusable: the secret is another than the store's, or is missing, or too short.
    """
    if given is not None and len(given) < 16:
        raise StoreUnusable("secret= has fewer than 16 bytes; use at least 16 random ones")
    if check is None:
        new = given if given is not None else secrets.token_bytes(SECRET_BYTES)
        return new, None if given is not None else new, secret_check(new)
    secret = given if given is not None else held
    if secret is None:
        raise StoreUnusable("the records in this store are digested with a secret of the operator's; set secret=")
    if not hmac.compare_digest(secret_check(secret), check):
        raise StoreUnusable(
            "secret= differs from the one that the records in this store are digested with: "
            "every key would look new. Use the same secret, or another store"
        )
    return secret, held, check
