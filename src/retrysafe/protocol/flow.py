"""One request, from its key to its answer. This is the file to read.

    key -> fingerprint -> claim -> decide -> execute -> record -> respond

A flow asks for effects and performs none, so it is the same for both colours and for every door. A
driver (`retrysafe.drive`) runs it to its end, always: flows hold no resources and catch only
`StoreError`.
"""

from __future__ import annotations

import hashlib
import hmac
from contextlib import suppress
from typing import assert_never
from urllib.parse import quote

from retrysafe.errors import StoreError
from retrysafe.model import BytesBody, Claim, Found, Head, Headers, Record, Request, Response, State
from retrysafe.protocol import decision, detour, effects, history, refusals, states, transitions
from retrysafe.protocol.answers import Answer, BreakOff, Bypass, Deliver, Ending, Respond, Vanish
from retrysafe.protocol.decision import Verdict
from retrysafe.protocol.effects import Answered, Ended, Flow, Settled, Unread, Waited, WaitEnd, perform
from retrysafe.protocol.expiry import expires
from retrysafe.protocol.fingerprint import fingerprint_of, matches
from retrysafe.protocol.key import Absent, Key, Malformed, as_uuid, is_128_bit, parse_key, record_id
from retrysafe.protocol.policy import Policy
from retrysafe.protocol.problem import Problem
from retrysafe.protocol.snapshot import Encryption, Snapshot, Unreadable, receipt, replay, seal, take_snapshot, unseal
from retrysafe.protocol.stored_request import StoredRequest, fits, seal_request, without_credentials
from retrysafe.value import value

# A record that changes under every look is being fought over; the client may as well ask again.
CLAIM_ROUNDS_MAX = 8

# How soon after a failure the next attempt may go on: not at once, because what failed is likely to fail again.
RESUME_AFTER_MS = 1_000

# Hashing 256 KiB takes about 0.15 ms; what is coded may become a hundred times its size.
INLINE_BYTES_MAX = 256 << 10
INLINE_CODED_BYTES_MAX = 4 << 10


@value
class Terms:
    """What holds for one request besides the request itself.

    Attributes:
        policy: of the route.
        namespace: of the deployment; keys of two namespaces never meet (contract R15, R20).
        secret: that keys and fingerprints are digested with.
        token: 16 random bytes, new for this request.
        anonymous: the scope is no account; keys must be unguessable (R17).
        route: the entry of the routes table that the request matched, at most 255 characters.
        encryption: of what is stored, at rest; None keeps it as it is.
        stores_requests: requests that may run again are stored, without credentials; needs encryption (R45).
        place: scheme, and path that the application is mounted at; they are stored with the request.
        contract_path: at which the door publishes what it promises, with where it is mounted; None: nowhere.
        authorizes: the door has something to ask whether a caller may see a stored answer (R60).
    """

    policy: Policy
    namespace: str
    secret: bytes
    token: bytes
    anonymous: bool = False
    route: str = ""
    encryption: Encryption | None = None
    stores_requests: bool = False
    place: tuple[str, str] = ("http", "")
    contract_path: str | None = None
    authorizes: bool = True


def protect(head: Head, terms: Terms) -> Flow[Answer]:
    """One request, from its key to its answer."""
    policy = terms.policy
    key = parse_key(head, policy)
    if not isinstance(key, Key):
        return _without_key(key, terms)
    if terms.anonymous and not is_128_bit(key):
        return _refuse(refusals.KEY_GUESSABLE, terms)
    admitted: tuple[str, Request] | Unread = yield effects.Admit(policy.request_bytes_max)
    if isinstance(admitted, Unread):
        return _not_admitted(admitted, terms)
    scope, request = admitted
    if _is_quick_to_hash(request):
        fingerprint = fingerprint_of(request, policy, terms.secret)
    else:  # left to the driver, which may have a loop to look after
        fingerprint = yield from perform(effects.TakeFingerprint(request, policy, terms.secret))

    identity = record_id(terms.secret, terms.namespace, scope, key)
    stored = _stored_request(identity, key, scope, request, terms) if terms.stores_requests else None
    claimed = yield from _claim(identity, fingerprint, request, terms, stored)
    if not isinstance(claimed, Claim):
        return claimed

    outcome: effects.Outcome = yield effects.Execute(claimed, key, scope, request, policy)
    return (yield from _conclude(claimed, outcome, request, terms))


def resume(stored: StoredRequest, record: Record, claiming: transitions.TakeOverIfLapsed, terms: Terms) -> Flow[Answer]:
    """One request whose owner is gone, sent again from what was stored of it (contract R45).

    It takes over exactly the claim that was seen to have lapsed, and never begins an operation anew. If it is not let
    in, by a status or by a redirect to where one signs in, the record is released: the next attempt of its client runs.

    Args:
        stored: the request.
        record: as it was seen.
        claiming: of the record, under a token that is new.
        terms: as for a request of a client.
    """
    scope = yield from perform(effects.ResolveScope())
    if scope != stored.scope:
        return Vanish(Ending.OTHER_ACCOUNT)
    yield from _remember(claiming.record_id, record, history.End.LAPSED, terms.policy)
    try:
        took = yield from perform(claiming)
    except StoreError:
        return Vanish(refusals.STORE_UNAVAILABLE.code)  # the driver takes back a claim whose reply was lost
    if not took:
        return Vanish(Ending.OVERTAKEN)
    claim = Claim(claiming.record_id, claiming.token, record.attempt + 1)
    request = Request(stored.head, BytesBody(stored.body))
    outcome = yield from perform(effects.Execute(claim, Key(stored.key), scope, request, terms.policy))
    outcome = detour.looked_through(outcome, stored.head, terms.policy)
    answer = yield from _conclude(claim, outcome, request, terms)
    is_turned_away = answer.ending == Ending.RELEASED and detour.turns_away(outcome, stored.head)
    return Deliver(Ending.TURNED_AWAY) if is_turned_away else answer


def _stored_request(identity: bytes, key: Key, scope: str, request: Request, terms: Terms) -> bytes | None:
    """What is kept of a request that may run again when its owner is gone; None if nothing is."""
    if terms.policy.recovery != "rerun" or terms.encryption is None or not fits(request):
        return None
    head = request.head
    headers = without_credentials(head.headers, terms.policy.stored_request_except)
    head = Head(head.method, head.path, head.query, headers)
    stored = StoredRequest(key.text, scope, *terms.place, head, request.body.read())
    return seal_request(stored, identity, terms.secret, terms.encryption)


def refuse_unready(head: Head, terms: Terms) -> Flow[Answer]:
    """One request while the store cannot be opened: nothing runs under a key (contract R48)."""
    key = parse_key(head, terms.policy)
    yield from ()
    return _refuse(refusals.STORE_UNAVAILABLE, terms) if isinstance(key, Key) else _without_key(key, terms)


def _without_key(key: Absent | Malformed, terms: Terms) -> Answer:
    if isinstance(key, Absent) and not terms.policy.required:
        return Bypass()
    return _refuse(refusals.key_problem(key, terms.policy), terms)


def _not_admitted(unread: Unread, terms: Terms) -> Answer:
    match unread:
        case Unread.NO_ACCOUNT:
            return _refuse(refusals.SCOPE_MISSING, terms)
        case Unread.TOO_LARGE:
            return _refuse(refusals.body_too_large(terms.policy), terms)
        case Unread.CLIENT_GONE:
            return Vanish()
        case _:
            assert_never(unread)


def _is_quick_to_hash(request: Request) -> bool:
    size_bytes = request.body.size
    if size_bytes <= INLINE_CODED_BYTES_MAX:
        return True
    return size_bytes <= INLINE_BYTES_MAX and not request.head.values(b"content-encoding")


# --- claim and decide -----------------------------------------------------------------------------


def _claim(
    identity: bytes, fingerprint: bytes, request: Request, terms: Terms, stored: bytes | None
) -> Flow[Claim | Answer]:
    """Get hold of the record, or find the answer to give instead."""
    policy, token = terms.policy, terms.token
    ends = policy.lease_ms, policy.unknown_retention_ms
    claiming = transitions.ClaimIfAbsent(identity, token, fingerprint, *ends, terms.route, stored)
    waited: Waited | None = None
    rounds = 0
    try:
        while rounds < CLAIM_ROUNDS_MAX:
            found: Found = yield claiming
            same_request = hmac.compare_digest(found.record.fingerprint, fingerprint) or _is_same_by_another(
                found.record.fingerprint, fingerprint, request, terms
            )
            decided = decision.decide(found, token, policy, same_request=same_request)
            if isinstance(decided, decision.Run):
                return Claim(identity, token, found.record.attempt)
            claimed = yield from _follow(decided, identity, found.record, request.head, terms)
            if isinstance(claimed, decision.Wait):
                if waited is not None and waited.end is WaitEnd.OVER:  # this was the last look
                    return _refuse(claimed.problem, terms)
                began_s = None if waited is None else waited.began_s
                waited = yield from perform(effects.Wait(identity, policy.wait_ms, began_s))
                if waited.end is WaitEnd.CLIENT_GONE:
                    return Vanish()
                if waited.end is WaitEnd.STOPPED:  # another look might end as an owner, in a server that waits for none
                    return _refuse(claimed.problem, terms)
                rounds = 0
            elif claimed is not None:
                return claimed
            rounds += 1
    except StoreError:
        return _refuse(refusals.STORE_UNAVAILABLE, terms)  # the driver takes back a claim whose reply was lost
    return _refuse(refusals.CONTENDED, terms)


def _follow(
    decided: decision.Finding, identity: bytes, record: Record, head: Head, terms: Terms
) -> Flow[Claim | Answer | decision.Wait | None]:
    """What follows from one look at a record of others; None: it changed meanwhile, look again."""
    policy, token = terms.policy, terms.token
    ends = policy.lease_ms, policy.unknown_retention_ms
    match decided:
        case decision.Replay():
            return (yield from _replay(identity, record, head, terms))
        case decision.Refuse(problem):
            return _refuse(problem, terms)
        case decision.Wait():
            return decided
        case decision.TakeOver():
            yield from _remember(identity, record, history.End.LAPSED, policy)
            took = yield from perform(transitions.TakeOverIfLapsed(identity, record.token, token, *ends))
            return Claim(identity, token, record.attempt + 1) if took else (yield from _recognised(identity, token))
        case decision.Reclaim():
            if record.attempt <= history.RELEASED_ATTEMPTS_KEPT:
                yield from _remember(identity, record, history.End.RELEASED, policy)
            took = yield from perform(transitions.ClaimIfRetryable(identity, record.token, token, *ends))
            return Claim(identity, token, record.attempt + 1) if took else (yield from _recognised(identity, token))
        case decision.Abandon():
            gave_up = yield from perform(
                transitions.MarkUnknownIfLapsed(identity, record.token, policy.unknown_retention_ms)
            )
            return _refuse(decision.OUTCOME_UNKNOWN, terms) if gave_up else None
        case decision.Forget():
            yield from perform(transitions.ForgetIfOver(identity, record.token))
            return None
        case never:
            assert_never(never)


def _remember(identity: bytes, record: Record, end: history.End, policy: Policy) -> Flow[None]:
    """Add the attempt that another is about to follow to the history, before the record forgets it (R56).

    A request is not refused because its past could not be written down; the driver tells of the failure.
    """
    with suppress(StoreError):
        yield from perform(history.adding(identity, history.attempt_of(record, end), policy))


def _recognised(identity: bytes, token: bytes) -> Flow[Claim | None]:
    """A claim that was refused, if it was applied before: a library may have sent it twice, and heard the second time.

    It is looked for before the next look, because that is a claim under the same token, and where its answer is lost,
    what the token holds is deleted as new.
    """
    found: Found | None = yield from perform(transitions.Read(identity))
    if found is None or found.record.token != token or found.record.state is not State.IN_PROGRESS:
        return None
    return Claim(identity, token, found.record.attempt)


def _is_same_by_another(stored: bytes, fingerprint: bytes, request: Request, terms: Terms) -> bool:
    """Whether the record was made by this request, with another algorithm, by which it is judged (R33)."""
    return stored[:1] != fingerprint[:1] and matches(stored, request, terms.policy, terms.secret)


def _replay(identity: bytes, record: Record, head: Head, terms: Terms) -> Flow[Respond]:
    """The stored answer, if the caller may see it and it can be read."""
    if terms.authorizes and not (yield from perform(effects.Authorize())):
        return _refuse(refusals.REPLAY_FORBIDDEN, terms)
    return _stored_answer(identity, record, head, terms)


def _stored_answer(identity: bytes, record: Record, head: Head, terms: Terms) -> Respond:
    try:
        snapshot = unseal(record.response or b"", identity, terms.secret, terms.encryption)
    except Unreadable:
        return _refuse(refusals.REPLAY_UNREADABLE, terms)
    if not _is_for_retries(snapshot, terms.policy):
        return _refuse(refusals.replay_unavailable(snapshot.response), terms)
    policy = terms.policy
    response = replay(snapshot, head, policy) if snapshot.whole else receipt(snapshot, policy)
    return Respond(_with(response, expires(record, policy)), Ending.REPLAYED)


def _is_for_retries(snapshot: Snapshot, policy: Policy) -> bool:
    """Whether retries get something of what was kept."""
    return snapshot.whole or policy.on_receipt == "receipt"


# --- record and respond ---------------------------------------------------------------------------


def _conclude(claim: Claim, outcome: effects.Outcome, request: Request, terms: Terms) -> Flow[Answer]:
    """Make the outcome durable, then say what to send. Nothing is sent that the record contradicts."""
    if isinstance(outcome, effects.CompletedWithin):  # the handler did; or so it says
        return (yield from _learn(claim, outcome, request, terms))
    policy = terms.policy
    try:
        verdict, misjudged = decision.judge(outcome, request, policy), False
    except Exception:  # noqa: BLE001 - a hook of the user's failed after the effect: keep the answer, never run again
        verdict, misjudged = Verdict.RECORD, True
    if verdict is Verdict.DISCARD and claim.attempt > 1:
        verdict = Verdict.RELEASE  # to forget the record would be to forget what an earlier attempt did, and its steps
    answered, substitute = (outcome, None) if isinstance(outcome, Answered) else _answer_of(outcome, verdict, terms)
    stored: bytes | None = None
    is_promised = False
    if verdict is Verdict.RECORD:
        # A problem document of ours has nothing in it that a policy could want to be left out.
        snapshot = take_snapshot(answered, request.head, *(() if substitute else (policy,)))
        stored = seal(snapshot, claim.record_id, terms.secret, terms.encryption)
        is_promised = policy.expires_header and _is_for_retries(snapshot, policy)
    settlement, event, ending = _settlement(claim, verdict, stored or b"", policy)
    if misjudged:
        ending = Ending.MISJUDGED
    elif verdict is Verdict.RECORD and policy.transactional and answered.response.status < 400:
        ending = Ending.RECORDED_OUTSIDE  # a success, and not committed with its record
    settled: Settled | Respond = yield effects.Settle(settlement, policy.lease_ms)
    if settled is Settled.REFUSED:
        settled = yield from _look_again(claim, _Intent(states.target(event), stored), request.head, terms)
    promised: Headers = ()
    if is_promised and settled is Settled.DONE:
        promised = yield from _promised(claim.record_id, policy)
    return _told(settled, outcome, substitute, ending, promised)


def _told(
    settled: Settled | Respond, outcome: Ended, substitute: Response | None, ending: Ending, promised: Headers
) -> Answer:
    """What to send once it is known how the settlement ended."""
    if isinstance(settled, Respond):
        return BreakOff(Ending.CLAIM_LOST) if isinstance(outcome, effects.Broken) else settled
    if isinstance(outcome, effects.Broken):
        return BreakOff(ending)
    if settled is Settled.OPEN:
        return _sent(Deliver(Ending.UNRECORDED, recorded=False), substitute)
    return _sent(Deliver(ending, promised=promised), substitute)


def _sent(answer: Deliver, substitute: Response | None) -> Answer:
    """The answer, or in its place what is sent for a handler that gave none."""
    return answer if substitute is None else Respond(_with(substitute, answer.added), answer.ending)


def _promised(record_id: bytes, policy: Policy) -> Flow[Headers]:
    """Until when the answer is replayed, by the store's clock; nothing if it is not, or the store cannot be asked."""
    with suppress(StoreError):
        found: Found | None = yield from perform(transitions.Read(record_id))
        return () if found is None else expires(found.record, policy)
    return ()


def _settlement(
    claim: Claim, verdict: Verdict, stored: bytes, policy: Policy
) -> tuple[effects.Transition[bool], states.Event, Ending]:
    """What makes the verdict durable; what that is in the table of states; how the request has then ended."""
    match verdict:
        case Verdict.RECORD:
            completing = transitions.CompleteIfHeld(claim, stored, policy.keep_ms, policy.tombstone_ms)
            return completing, states.Event.COMPLETE, Ending.RECORDED
        case Verdict.RELEASE:
            # An earlier attempt may have had an effect after all: its key is taken for as long as with an outcome.
            kept_ms = policy.lifetime_ms if claim.attempt == 1 else policy.keep_ms + policy.tombstone_ms
            return transitions.ReleaseIfHeld(claim, kept_ms), states.Event.RELEASE, Ending.RELEASED
        case Verdict.DISCARD:
            return transitions.DiscardIfHeld(claim), states.Event.DISCARD, Ending.DISCARDED
        case Verdict.UNKNOWN:
            giving_up = transitions.MarkUnknownIfHeld(claim, policy.unknown_retention_ms)
            return giving_up, states.Event.GIVE_UP, Ending.UNKNOWN
        case Verdict.RESUME:  # the claim lapses soon, and whoever takes over goes on from the journal
            lease_ms = min(RESUME_AFTER_MS, policy.lease_ms)
            shortening = transitions.RenewIfHeld(claim, lease_ms, policy.unknown_retention_ms)
            return shortening, states.Event.RENEW, Ending.RESUMABLE
        case _:
            assert_never(verdict)


def _answer_of(
    outcome: effects.Broken | effects.Raised | effects.Cancelled, verdict: Verdict, terms: Terms
) -> tuple[Answered, Response]:
    """What goes into the record of a handler that gave no answer, and what to send."""
    match outcome:
        case effects.Broken():
            response = problem_response(refusals.HANDLER_FAILED, terms)
        case effects.Raised() | effects.Cancelled():
            response = problem_response(_failure(verdict), terms)
        case _:
            assert_never(outcome)
    return Answered(response, whole=True, size=len(response.body), digest=b"", fate=effects.Fate.RAN), response


def _failure(verdict: Verdict) -> Problem:
    """What a handler that gave no answer is answered with."""
    match verdict:
        case Verdict.RELEASE | Verdict.DISCARD:
            return refusals.HANDLER_FAILED_WITHOUT_EFFECT
        case Verdict.RESUME:
            return refusals.HANDLER_INTERRUPTED
        case Verdict.UNKNOWN:
            return decision.OUTCOME_UNKNOWN
        case Verdict.RECORD:
            return refusals.HANDLER_FAILED
        case _:
            assert_never(verdict)


@value
class _Intent:
    """How a claim's record is to stand: in this state, or not at all, and with this stored response."""

    state: State | None
    stored: bytes | None


def _look_again(claim: Claim, intent: _Intent, head: Head, terms: Terms) -> Flow[Settled | Respond]:
    """The store refused the settlement: it was done before, or the claim was lost and its record is to be sent.

    A settlement whose reply was lost is refused when it is repeated; then the record stands as intended
    under this claim's own token. If the store cannot be asked, that is open.
    """
    try:
        found: Found | None = yield from perform(transitions.Read(claim.record_id))
    except StoreError:
        return Settled.OPEN
    return (yield from _settled_in(found, claim, intent, head, terms))


def _settled_in(
    found: Found | None, claim: Claim, intent: _Intent, head: Head, terms: Terms
) -> Flow[Settled | Respond]:
    """Whether the record stands as this claim intended it; if not, what to send instead.

    The token alone does not say: who resolves an unknown record leaves it as it is, and may have another answer.
    """
    if found is None:
        return Settled.DONE if intent.state is None else _refuse(decision.OUTCOME_UNKNOWN, terms, Ending.CLAIM_LOST)
    record = found.record
    if (record.token, record.state, record.response) == (claim.token, intent.state, intent.stored):
        return Settled.DONE
    if record.state is State.COMPLETED:  # by another, whose caller may have been let in where this one is not
        replayed = yield from _replay(claim.record_id, record, head, terms)
        return Respond(replayed.response, Ending.CLAIM_LOST)
    return _refuse(decision.OUTCOME_UNKNOWN, terms, Ending.CLAIM_LOST)


def _with(response: Response, headers: Headers) -> Response:
    return Response(response.status, (*response.headers, *headers), response.body) if headers else response


# --- what the handler recorded itself -------------------------------------------------------------


def _learn(claim: Claim, outcome: effects.CompletedWithin, request: Request, terms: Terms) -> Flow[Answer]:
    """Learn whether the transaction was committed in which the handler completed its record (contract R42).

    A record that is still in progress was rolled back, or is locked by a transaction that is open still. To settle it
    as rolled back waits for the end of that: refused, it was committed after all.
    """
    verdict = _verdict_of_rollback(outcome.ended)
    undoing, _, ending = _settlement(claim, verdict, b"", terms.policy)
    try:
        found = yield from _read(claim.record_id)
        if _is_unsettled(found, claim):
            if (yield from perform(undoing)):
                return _rolled_back(outcome.ended, verdict, ending, terms)
            found = yield from _read(claim.record_id)
    except StoreError:  # its row is locked, or the store is away: the record will say it in time
        return _instead(outcome.ended, _refuse(refusals.COMMIT_PENDING, terms))
    intent = _Intent(State.COMPLETED, outcome.stored)
    settled = yield from _settled_in(found, claim, intent, request.head, terms)
    if isinstance(settled, Respond):
        return _instead(outcome.ended, settled)
    promised = () if found is None else _promised_within(found.record, claim.record_id, terms)
    return _instead(outcome.ended, Respond(_with(outcome.response, promised), Ending.RECORDED))


def _promised_within(record: Record, identity: bytes, terms: Terms) -> Headers:
    """Until when what the handler recorded is replayed; nothing if it is not."""
    if not terms.policy.expires_header:
        return ()
    snapshot = unseal(record.response or b"", identity, terms.secret, terms.encryption)
    return expires(record, terms.policy) if _is_for_retries(snapshot, terms.policy) else ()


def _read(record_id: bytes) -> Flow[Found | None]:
    """The record; a connection that was cut meanwhile is made anew."""
    try:
        return (yield from perform(transitions.Read(record_id)))
    except StoreError:
        return (yield from perform(transitions.Read(record_id)))


def _is_unsettled(found: Found | None, claim: Claim) -> bool:
    """The record is this claim's, and nothing was made of it that can be seen."""
    if found is None or found.record.token != claim.token:
        return False
    return found.record.state in states.sources(states.Event.RELEASE)


def _verdict_of_rollback(ended: Ended) -> Verdict:
    """Nothing happened, unless the handler knows of something else, outside of the transaction."""
    match ended:
        case Answered(fate=fate) | effects.Raised(fate=fate) | effects.Cancelled(fate=fate):
            return Verdict.UNKNOWN if fate in (effects.Fate.UNKNOWN, effects.Fate.OPEN) else Verdict.RELEASE
        case effects.Broken():
            return Verdict.RELEASE
        case _:
            assert_never(ended)


def _rolled_back(ended: Ended, verdict: Verdict, ending: Ending, terms: Terms) -> Answer:
    """A success cannot be sent, and a failure is no lie."""
    match ended:
        case Answered(response=response) if response.status < 400 and verdict is Verdict.RELEASE:
            return _refuse(refusals.ROLLED_BACK, terms)
        case Answered(response=response) if response.status >= 400:
            return Deliver(ending)
        case _:
            return _instead(ended, _refuse(_failure(verdict), terms, ending))


def _instead(ended: Ended, answer: Respond) -> Answer:
    """Send this, if nothing was sent before."""
    return BreakOff(answer.ending) if isinstance(ended, effects.Broken) else answer


# What a path may have that is not escaped (RFC 3986 3.3); what else is in where the application is mounted, is.
_IN_PATHS = "/!$&'()*+,;=:@~"


def _refuse(problem: Problem, terms: Terms, ending: str | None = None) -> Respond:
    return Respond(problem_response(problem, terms), ending or problem.code)


def problem_response(problem: Problem, terms: Terms) -> Response:
    """One occurrence of a problem, for this request."""
    # new for each occurrence, and nothing of the token can be read from it
    instance = "urn:uuid:" + as_uuid(hashlib.sha256(terms.token).digest())
    response = problem.response(terms.policy.problems_url, instance)
    if terms.contract_path is None:
        return response
    link = f'<{quote(terms.contract_path, safe=_IN_PATHS)}>; rel="service-meta"'  # RFC 8631
    return Response(response.status, (*response.headers, (b"link", link.encode())), response.body)
