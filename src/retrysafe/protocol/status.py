"""What became of a key, for the client that sent it (contract part K, R98).

It looks at the record and changes nothing: it makes none, extends none, and judges no request (R100). A key of
another account and a key that nobody sent look the same, because they are found in the same way: not at all.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from retrysafe.errors import StoreError
from retrysafe.model import Found, Head, Response, State
from retrysafe.protocol import decision, effects, refusals, transitions
from retrysafe.protocol.answers import Ending, Respond
from retrysafe.protocol.duration import rfc3339
from retrysafe.protocol.effects import Flow, perform
from retrysafe.protocol.flow import Terms, problem_response
from retrysafe.protocol.key import Key, parse_key, record_id
from retrysafe.protocol.policy import Policy
from retrysafe.protocol.problem import Problem, retry_after
from retrysafe.protocol.snapshot import Snapshot, Unreadable, unseal

KEY_UNKNOWN = Problem(
    "key-unknown",
    "No request with this key is known for this account. If it was sent, it has not arrived, did not come to run, or "
    "was forgotten since.",
)


def inquire(head: Head, terms: Terms, policy_of: Callable[[str], Policy]) -> Flow[Respond]:
    """One request that asks what became of the key in its header.

    Args:
        head: of the request.
        terms: its policy says which field carries the key, and how keys are spelled.
        policy_of: from the route of a record to its policy.
    """
    key = parse_key(head, terms.policy)
    if not isinstance(key, Key):
        return _refuse(refusals.key_problem(key, terms.policy), terms)
    scope = yield from perform(effects.ResolveScope())
    if scope is None:
        return _refuse(refusals.SCOPE_MISSING, terms)
    if not (yield from perform(effects.Authorize())):  # before the look, so that it tells nothing of what is there
        return _refuse(refusals.REPLAY_FORBIDDEN, terms)
    identity = record_id(terms.secret, terms.namespace, scope, key)
    try:
        found = yield from perform(transitions.Read(identity))
    except StoreError:
        return _refuse(refusals.STORE_UNAVAILABLE, terms)
    if found is None or _is_over(found):
        return _refuse(KEY_UNKNOWN, terms)
    snapshot = _snapshot(found, identity, terms)
    return Respond(report(found, snapshot, policy_of(found.record.route)), Ending.INQUIRED)


def _refuse(problem: Problem, terms: Terms) -> Respond:
    return Respond(problem_response(problem, terms), problem.code)


def _is_over(found: Found) -> bool:
    """Whether a claim would treat the record as if there were none."""
    return found.record.state is not State.IN_PROGRESS and found.record.forget_at_ms <= found.now_ms


def _snapshot(found: Found, identity: bytes, terms: Terms) -> Snapshot | None:
    if found.record.response is None:
        return None
    try:
        return unseal(found.record.response, identity, terms.secret, terms.encryption)
    except Unreadable:
        return None


def report(found: Found, snapshot: Snapshot | None, policy: Policy) -> Response:
    """What is said of a record: what a retry would meet, and nothing of the content of the answer.

    Args:
        found: the record, and the store's clock.
        snapshot: its stored response; None if there is none, or it cannot be read.
        policy: of the record's route.
    """
    record = found.record
    state = _state(found, policy)
    again_s = decision.retry_after_s(record, found.now_ms) if state is State.IN_PROGRESS else None
    is_completed = state is State.COMPLETED
    location = snapshot.response.value(b"location") if is_completed and snapshot else None
    document = {
        "state": state.value,
        "attempts": record.attempt,
        "first_seen": rfc3339(record.created_at_ms),
        "completed_at": _instant(record.settled_at_ms) if record.expires_at_ms is not None else None,
        "expires_at": _instant(record.expires_at_ms),
        "original_status": snapshot.response.status if is_completed and snapshot else None,
        "replay": _replay(snapshot, policy) if is_completed else "none",
        "resource": None if location is None else location.decode("latin-1"),
        "retry_after": again_s,
    }
    content = json.dumps(document, separators=(",", ":")).encode()
    headers = (
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(content)),
        (b"cache-control", b"no-store"),
        *(() if again_s is None else retry_after(again_s)),
    )
    return Response(200, headers, content)


def _state(found: Found, policy: Policy) -> State:
    """The state that a retry would meet, whether or not a purge or a retry has brought it about."""
    record = found.record
    if record.state is State.COMPLETED and record.expires_at_ms is not None and record.expires_at_ms <= found.now_ms:
        return State.EXPIRED
    if record.state is State.IN_PROGRESS and not decision.in_flight(found) and policy.recovery != "rerun":
        return State.UNKNOWN
    return record.state


def _replay(snapshot: Snapshot | None, policy: Policy) -> str:
    """How much of the first answer a retry gets."""
    if snapshot is None:
        return "none"
    if snapshot.whole:
        return "redacted" if snapshot.redacted else "exact"
    return "receipt" if policy.on_receipt == "receipt" else "none"


def _instant(instant_ms: int | None) -> str | None:
    return None if instant_ms is None else rfc3339(instant_ms)
