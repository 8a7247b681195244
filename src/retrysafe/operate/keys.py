"""Records listed, looked at, and settled by hand (contract R56, R99).

Whatever is done to a record is written to its history first, so that there is no settling without a trace; when the
record turns out to have changed meanwhile, that is written too. Each deed is conditional on what was seen, so that the
late owner, another person and a program can act at the same time, and one of them does.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable

from retrysafe.drive.step import first, sent
from retrysafe.errors import ConfigurationError, RetrysafeError, StoreError
from retrysafe.model import Found, Head, Record, Response, State
from retrysafe.operate.which import CHECK, NoSuchRecord
from retrysafe.protocol import history
from retrysafe.protocol.decision import in_flight
from retrysafe.protocol.effects import Answered, Effect, Fate, Flow, Transition, perform
from retrysafe.protocol.headers import kept
from retrysafe.protocol.history import ACTOR_BYTES_MAX, NOTE_BYTES_MAX, Action
from retrysafe.protocol.journal import unseal_journal
from retrysafe.protocol.observing import is_observed
from retrysafe.protocol.policy import Policy
from retrysafe.protocol.ruling import Ruling
from retrysafe.protocol.ruling import rule_out as ruling_out
from retrysafe.protocol.snapshot import Encryption, Unreadable, is_encrypted, seal, take_snapshot
from retrysafe.protocol.transitions import (
    CompleteIfUnknown,
    ForgetIfSeen,
    Listed,
    ListRecords,
    ListResponses,
    MarkUnknownIfLapsed,
    Read,
    ReadDetails,
    RevokeIfSeen,
)
from retrysafe.stores.contract import Store
from retrysafe.value import value

_PAGE = 200
_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FIELD_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


class Refused(RetrysafeError):
    """The record is not in a state in which this can be done."""


class InDoubt(StoreError):
    """The store failed while a record was settled: that may or may not have happened."""


@value
class Hand:
    """Who settles, and why; both are kept in the history of the record.

    Attributes:
        actor: in their own words; at most `ACTOR_BYTES_MAX` bytes.
        note: how it was found out, say; at most `NOTE_BYTES_MAX` bytes.
        approves: they do what somebody else has proposed.
    """

    actor: str
    note: str
    approves: bool = False


@value
class Desk:
    """What settling by hand is done with.

    Attributes:
        store: opened.
        secret: of its key digests, which stored responses are sealed with.
        encryption: that of the running applications; None if they have none.
        policy_of: from the route of a record to its policy, which says how long what is kept.
        dual_control: it takes two people: one proposes, another one does it (contract R99).
    """

    store: Store
    secret: bytes
    encryption: Encryption | None
    policy_of: Callable[[str], Policy]
    dual_control: bool = False


def hand(actor: str, note: str, *, approves: bool = False) -> Hand:
    """Who settles, and why, as people type it.

    Raises:
        ConfigurationError: one of them is missing, too long, or has what cannot be printed.
    """
    faults = [
        f"{name} must have 1 to {bytes_max} bytes on one line, without control characters"
        for name, text, bytes_max in (("--actor", actor, ACTOR_BYTES_MAX), ("--note", note, NOTE_BYTES_MAX))
        if not text.strip() or not text.isprintable() or len(text.encode()) > bytes_max
    ]
    if faults:
        raise ConfigurationError(faults)
    return Hand(actor.strip(), note.strip(), approves)


# --- many records -----------------------------------------------------------------------------------


@value
class Wanted:
    """Which records to list.

    Attributes:
        states: in any of these.
        stuck: those besides that are in progress and whose lease has lapsed.
        route: only those that were claimed under it; None is every route.
        older_than_ms: only those whose latest claim is at least that old.
        limit: how many at most.
    """

    states: tuple[State, ...]
    stuck: bool = False
    route: str | None = None
    older_than_ms: int = 0
    limit: int = 100


@value
class Listing:
    """Some records, the oldest claim first, the store's clock, and whether there are more."""

    records: tuple[Listed, ...]
    now_ms: int
    more: bool


def list_records(store: Store, wanted: Wanted) -> Listing:
    """Records as they stand, as many as were asked for, in an order of the store's own.

    Raises:
        StoreError: the store failed.
    """
    states = tuple(state for state in State if state in wanted.states or (wanted.stuck and state is State.IN_PROGRESS))
    found: dict[bytes, Listed] = {}
    after: bytes | None = b""
    now_ms = 0
    while after is not None and len(found) <= wanted.limit:
        page = store.perform(ListRecords(states, wanted.route, after, _PAGE))
        now_ms = page.now_ms
        found.update({listed.record_id: listed for listed in page.records if _is_wanted(listed.record, wanted, now_ms)})
        after = page.next_after
    records = sorted(list(found.values())[: wanted.limit], key=lambda listed: listed.record.claimed_at_ms)
    return Listing(tuple(records), now_ms, more=len(found) > wanted.limit)


def _is_wanted(record: Record, wanted: Wanted, now_ms: int) -> bool:
    if is_observed(record.route) and wanted.route is None:  # it holds nothing back, and nobody has to settle it
        return False
    fits = record.state in wanted.states or (wanted.stuck and is_stuck(record, now_ms))
    age_ms = max(0, now_ms - record.claimed_at_ms)  # some services tell one process whole seconds less than another
    return fits and age_ms >= wanted.older_than_ms


def is_stuck(record: Record, now_ms: int) -> bool:
    """Whether its owner is gone and nobody has said so yet: in progress, and the lease has lapsed."""
    return record.state is State.IN_PROGRESS and not in_flight(Found(record, now_ms))


# --- one record -------------------------------------------------------------------------------------


@value
class _Deed:
    """What is to be done: the transitions, whose last word says whether they took effect; and the answer's name."""

    action: Action
    flow: Flow[bool]
    answer: str = ""


def complete(desk: Desk, record_id: bytes, response: Response, by: Hand) -> Record | None:
    """It took effect: keep the answer that retries get from here on.

    Args:
        desk: what it is done with.
        record_id: of a record that is unknown, or in progress with a lapsed lease.
        response: the answer; its headers are checked.
        by: who found out, and how.

    Returns:
        The record as it stands then; None if it was only proposed.

    Raises:
        ConfigurationError: the response cannot be kept; nothing was changed.
        NoSuchRecord: there is none.
        Refused: the record is in another state, or changed meanwhile.
        InDoubt: the store failed when it was under way.
        StoreError: the store failed before that.
    """
    _check(response)
    if desk.encryption is None and _is_encrypted(desk.store):
        raise ConfigurationError(
            ["responses in this store are encrypted, and this one would not be; give the encryption keys as well"]
        )
    found = _found(desk.store, record_id)
    policy = desk.policy_of(found.record.route)
    whole = len(response.body) <= policy.response_bytes_max
    answered = Answered(
        response if whole else Response(response.status, response.headers),
        whole,
        len(response.body),
        b"" if whole else hashlib.sha256(response.body).digest(),
        Fate.RAN,
    )
    snapshot = take_snapshot(answered, Head("POST", b"/", b"", ()), policy)
    stored = seal(snapshot, record_id, desk.secret, desk.encryption)
    completing = CompleteIfUnknown(record_id, found.record.token, stored, policy.keep_ms, policy.tombstone_ms)
    flow = _once_unknown(record_id, found, policy, perform(completing))
    return _carry_out(desk, record_id, found, _Deed(Action.COMPLETED, flow, history.answer_name(response)), by)


def rule_out(desk: Desk, record_id: bytes, by: Hand) -> Record | None:
    """It did not take effect, and no step of it that is open: the next retry runs. The rest as for `complete`."""
    details = desk.store.perform(ReadDetails(record_id))
    found = _there(details.found)
    policy = desk.policy_of(found.record.route)
    _need_journal(desk, record_id, details.journal)
    ruling = Ruling(
        record_id, found.record.token, secrets.token_bytes(16), details.journal, policy.lifetime_ms, desk.secret,
        desk.encryption,
    )  # fmt: skip
    flow = _once_unknown(record_id, found, policy, ruling_out(ruling))
    return _carry_out(desk, record_id, found, _Deed(Action.NOT_DONE, flow), by)


def _need_journal(desk: Desk, record_id: bytes, journal: bytes | None) -> None:
    """The steps that are open are to be taken out of it, so it must be read before anything is done."""
    try:
        if journal is not None:
            unseal_journal(journal, record_id, desk.secret, desk.encryption)
    except Unreadable as why:
        raise ConfigurationError([f"the steps of this operation cannot be read: {why}"]) from None


def release(desk: Desk, record_id: bytes, by: Hand) -> Record | None:
    """Take the claim of a record in progress from its owner: the next retry runs, beside the owner if it still lives.

    Arguments, answer and errors as for `complete`.
    """
    found = _found(desk.store, record_id)
    if found.record.state is not State.IN_PROGRESS:
        raise Refused(f"the record is {found.record.state}: nobody holds it; {_ADVICE[found.record.state]}")
    revoking = RevokeIfSeen(record_id, found.record.token, desk.policy_of(found.record.route).lifetime_ms)
    return _carry_out(desk, record_id, found, _Deed(Action.RELEASE, perform(revoking)), by)


def forget(desk: Desk, record_id: bytes, by: Hand) -> bool:
    """Delete a record that nobody holds: a retry is a new operation. Arguments and errors as for `complete`.

    Returns:
        Whether it was done; else it was only proposed.
    """
    found = _found(desk.store, record_id)
    if found.record.state is State.IN_PROGRESS:
        raise Refused("the record is in progress, and what its owner does would have no record; resolve or release it")
    forgetting = ForgetIfSeen(record_id, found.record.token, found.record.state)
    return _act(desk, record_id, found, _Deed(Action.FORGET, perform(forgetting)), by)


def _once_unknown(record_id: bytes, found: Found, policy: Policy, resolving: Flow[bool]) -> Flow[bool]:
    """What resolves the record, after what makes it unknown if it is stuck.

    Raises:
        Refused: it is neither; at once, and not when the flow is run.
    """
    record = found.record
    if record.state is State.UNKNOWN:
        return resolving
    if is_stuck(record, found.now_ms):
        return _both(MarkUnknownIfLapsed(record_id, record.token, policy.unknown_retention_ms), resolving)
    if record.state is State.IN_PROGRESS:
        seconds = -(-(record.lease_until_ms - found.now_ms) // 1_000)
        raise Refused(
            f"the record is in progress, and its owner holds it for {seconds} s more; {_ADVICE[record.state]}"
        )
    raise Refused(f"the record is {record.state}, not unknown; {_ADVICE[record.state]}")


def _both(first: Transition[bool], then: Flow[bool]) -> Flow[bool]:
    return (yield from perform(first)) and (yield from then)


_ADVICE = {
    State.IN_PROGRESS: "wait for the owner, or, if it is known to be dead, release it",
    State.COMPLETED: "retries get its answer",
    State.RETRYABLE: "the next retry runs",
    State.UNKNOWN: "resolve it",
    State.EXPIRED: "its answer was given until its lifetime was over",
}


def _carry_out(desk: Desk, record_id: bytes, found: Found, deed: _Deed, by: Hand) -> Record | None:
    if not _act(desk, record_id, found, deed, by):
        return None
    try:
        return _found(desk.store, record_id).record
    except StoreError as error:
        raise InDoubt(f"it was done, and the record could not be read again: {error}") from error


def _act(desk: Desk, record_id: bytes, found: Found, deed: _Deed, by: Hand) -> bool:
    """Write down what is about to be done, do it, and write down if it came too late.

    Returns:
        Whether it was done; else it was only proposed.
    """
    policy, is_proposal = desk.policy_of(found.record.route), desk.dual_control and not by.approves
    step = history.intervention_in(found, deed.action, by.actor, by.note, answer=deed.answer, proposed=is_proposal)
    if by.approves:
        _need_proposal(desk.store, record_id, step)
    desk.store.perform(history.adding(record_id, step, policy))
    if is_proposal:
        return False
    try:
        done = _run(desk.store, deed.flow)
        if not done:
            desk.store.perform(history.adding(record_id, history.without_effect(step), policy))
    except StoreError as error:
        raise InDoubt(f"it may or may not have been done; look at the record: {error}") from error
    if not done:
        raise Refused("the record changed in that moment, and was left as it is; look at it again")
    return True


def _need_proposal(store: Store, record_id: bytes, step: history.Intervention) -> None:
    entries = history.read(store.perform(ReadDetails(record_id)).history)
    if not history.is_proposed_by_another(step, entries):
        raise Refused(
            "nobody else has proposed exactly this for the record as it stands; propose it, without --approve"
        )


def _run(store: Store, flow: Flow[bool]) -> bool:
    """Perform the transitions of a flow, one after the other."""
    wish = first(flow)
    while isinstance(wish, Effect):
        if not isinstance(wish, Transition):
            raise TypeError(f"an effect out of place: {type(wish).__name__}")
        wish = sent(flow, store.perform(wish))
    return wish


def _found(store: Store, record_id: bytes) -> Found:
    return _there(store.perform(Read(record_id)))


def _there(found: Found | None) -> Found:
    if found is None:
        raise NoSuchRecord(f"there is no such record; {CHECK}")
    return found


# --- an answer by hand ------------------------------------------------------------------------------


def header_of(text: str) -> tuple[bytes, bytes]:
    """A field as people type it: `Name: value`.

    Raises:
        ConfigurationError: it is none.
    """
    name, colon, line = text.partition(":")
    if not colon or not _FIELD_NAME.fullmatch(name) or not _FIELD_VALUE.fullmatch(line.strip()):
        raise ConfigurationError(["--header takes a field like 'Content-Type: application/json'"])
    return name.lower().encode(), line.strip().encode("latin-1")


def _check(response: Response) -> None:
    """Refuse what a replay would not be.

    Raises:
        ConfigurationError: with every fault.
    """
    faults = []
    if not 200 <= response.status <= 599:
        faults.append(f"--status is {response.status}; a final answer has 200 to 599")
    if response.status in (204, 304) and response.body:
        faults.append(f"an answer with status {response.status} has no content; leave --body out")
    names = {name for name, _ in kept(response.headers)}
    faults.extend(
        f"--header {name.decode()}: no replay has this field; leave it out"
        for name in dict.fromkeys(name for name, _ in response.headers)
        if name not in names
    )
    if faults:
        raise ConfigurationError(faults)


def _is_encrypted(store: Store) -> bool:
    """Whether the applications encrypt what they keep: judged by some of it."""
    heads = (stored.head for stored in store.perform(ListResponses()).responses)
    return any(is_encrypted(head) for head in heads)
