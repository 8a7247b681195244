"""Somebody found out that an operation did not take effect: the record is released, and its open steps with it."""

from __future__ import annotations

from retrysafe.model import Claim
from retrysafe.protocol.effects import Flow, perform
from retrysafe.protocol.journal import Entry, seal_journal, unseal_journal
from retrysafe.protocol.snapshot import Encryption
from retrysafe.protocol.transitions import ClaimIfRetryable, KeepJournalIfHeld, ReleaseIfHeld, ReleaseIfUnknown
from retrysafe.value import value

_LEASE_MS = 10_000  # for two writes in a row


@value
class Ruling:
    """What is ruled out.

    Attributes:
        record_id: of a record that is unknown.
        seen_token: that it was seen with.
        token: 16 random bytes, new.
        journal: as it is stored; None if there is none.
        forget_after_ms: how long the record is kept for the next attempt.
        secret: of the store.
        encryption: of what is stored.
    """

    record_id: bytes
    seen_token: bytes
    token: bytes
    journal: bytes | None
    forget_after_ms: int
    secret: bytes
    encryption: Encryption | None


def rule_out(ruling: Ruling) -> Flow[bool]:
    """Release an unknown record, and take the steps out of its journal whose call is now known not to have been made.

    Only an owner may write a journal, so it is claimed for that, and released again. A retry that comes in between, or
    the end of this process, leaves the open steps as they were: they are asked about once more.

    Returns:
        Whether the record was unknown still.

    Raises:
        Unreadable: the journal cannot be read; nothing was changed.
        StoreError: the store failed.
    """
    entries: tuple[Entry, ...] = ()
    if ruling.journal is not None:
        entries = unseal_journal(ruling.journal, ruling.record_id, ruling.secret, ruling.encryption)
    done = tuple(entry for entry in entries if entry.result)
    releasing = ReleaseIfUnknown(ruling.record_id, ruling.seen_token, ruling.forget_after_ms)
    if not (yield from perform(releasing)):
        return False
    if len(done) < len(entries):
        claim = Claim(ruling.record_id, ruling.token, attempt=0)
        claiming = ClaimIfRetryable(
            ruling.record_id, ruling.seen_token, ruling.token, _LEASE_MS, ruling.forget_after_ms
        )
        if (yield from perform(claiming)):
            journal = seal_journal(done, ruling.record_id, ruling.secret, ruling.encryption)
            yield from perform(KeepJournalIfHeld(claim, journal))
            yield from perform(ReleaseIfHeld(claim, ruling.forget_after_ms))
    return True
