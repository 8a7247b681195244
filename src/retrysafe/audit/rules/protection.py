"""Is an operation protected, does it ask for a key, does a replay last, and is all of that documented?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from retrysafe.audit.money import money_in
from retrysafe.audit.rule import Asked, Describe, Found, Rules, SetOptions, Severity, of_operation
from retrysafe.audit.surface import Documented, Kind, Operation, Surface
from retrysafe.client.profile import PROFILES
from retrysafe.protocol.duration import in_words
from retrysafe.protocol.policy import Policy
from retrysafe.server.marker import Marker

rules = Rules()

_DEFAULT = Policy()
_STATUSES = ("400", "409", "422")


@rules.rule("AUD-01", Severity.WARNING, "contract R12", "A client that got no answer and sends again does it twice.")
def unprotected(surface: Surface, asked: Asked) -> Iterator[Found]:
    """An operation that is done twice when its request is repeated is protected."""
    for operation in surface.operations:
        if operation.policy is not None or operation.method not in asked.methods:
            continue
        money = money_in(operation)
        if operation.declined and not money:
            continue
        because = ", and ".join(filter(None, (money, _retried(operation))))
        state = "is taken out of protection" if operation.declined else "is not protected"
        remedy = SetOptions(operation, needed(operation, surface, asked))
        severity = Severity.ERROR if because else None
        yield of_operation(
            operation, ", and ".join(filter(None, (state, because))), _protect(surface), remedy, severity
        )


def _protect(surface: Surface) -> str:
    if surface.door is not None:
        how = "enrol it"
    elif surface.kind is Kind.OPENAPI:
        how = "protect it, and say so in the document"
    else:
        how = "put retrysafe in front of the application"
    return f"{how}; where a repetition does no harm, take it out in so many words"


def _retried(operation: Operation) -> str:
    retried_ms = operation.evidence.retried_ms
    return f"clients that are made from the document retry it for {in_words(retried_ms)}" if retried_ms else ""


def needed(operation: Operation, surface: Surface, asked: Asked) -> dict[str, Any]:
    """The options with which an operation that becomes protected has no other finding."""
    default = surface.door.default if surface.door else _DEFAULT
    policy = Marker(operation.options or {}).policy(default) or default  # as it will be, once its mark is read
    options: dict[str, Any] = {}
    if money_in(operation) and not policy.required and not operation.evidence.requires_key:
        options["required"] = True
    window_ms, _ = longest(operation, policy, asked)
    if window_ms > policy.lifetime_ms:
        options["lifetime"] = duration(window_ms)
    if operation.evidence.streams and _cuts_off(policy):
        options["on_receipt"] = "receipt"
    return options


@rules.rule("AUD-02", Severity.ERROR, "contract R11", "A client that sends no key pays twice, and nobody notices.")
def key_not_required(surface: Surface, _: Asked) -> Iterator[Found]:
    """What moves money requires a key."""
    for operation in surface.operations:
        policy = operation.policy
        if policy is None or policy.required or operation.evidence.requires_key:
            continue
        if money := money_in(operation):
            yield of_operation(
                operation,
                f"requires no key, and {money}",
                "require one: a request without it is then answered with 400",
                SetOptions(operation, {"required": True}),
            )


@rules.rule(
    "AUD-03", Severity.WARNING, "contract R69, R90", "A retry that comes later gets 412, or is run as a new operation."
)
def lifetime_too_short(surface: Surface, asked: Asked) -> Iterator[Found]:
    """A finished operation is replayed for as long as clients go on trying."""
    for operation in surface.operations:
        policy = operation.policy
        if policy is None or not operation.is_policy_known:
            continue
        window_ms, who = longest(operation, policy, asked)
        if window_ms > policy.lifetime_ms:
            after = "gets 412" if policy.tombstone_ms else "runs again as a new operation"
            seen = f"is replayed for {in_words(policy.lifetime_ms)}, and {who} retry for {in_words(window_ms)}"
            yield of_operation(
                operation,
                f"{seen}: what comes later {after}",
                f"set its lifetime to {duration(window_ms)} at least",
                SetOptions(operation, {"lifetime": duration(window_ms)}),
                None if policy.tombstone_ms else Severity.ERROR,
            )


def longest(operation: Operation, policy: Policy, asked: Asked) -> tuple[int, str]:
    """The longest time for which any client goes on trying, in milliseconds, and who does."""
    windows = [(asked.window_ms or 0, "clients (--retry-window)")]
    windows.append((operation.evidence.retried_ms or 0, "clients that are made from the document"))
    clients = [*asked.clients, *(it for it in PROFILES.values() if _is_of(it.name, it.header, policy))]
    windows += [(round(it.lifetime_s * 1_000), f'clients with the profile "{it.name}"') for it in clients]
    return max(windows, key=lambda window: window[0])


def _is_of(name: str, header: str, policy: Policy) -> bool:
    """Clients with this profile may call: it has the same field; of those that have the common one, our own."""
    return header.lower() == policy.header.lower() and (header != _DEFAULT.header or name == "retrysafe")


def duration(duration_ms: int) -> str:
    """A duration as the policy takes it, in the largest unit that leaves nothing over."""
    for unit_ms, unit in ((86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")):
        if duration_ms % unit_ms == 0:
            return f"{duration_ms // unit_ms}{unit}"
    return f"{duration_ms}ms"


@rules.rule(
    "AUD-04",
    Severity.WARNING,
    "contract R81",
    "Clients that are made from the document send no key, or give up on 409.",
)
def undocumented(surface: Surface, _: Asked) -> Iterator[Found]:
    """The OpenAPI document has the field of the key, and the answers 400, 409 and 422."""
    for operation in surface.operations:
        if operation.policy is not None and operation.documented is not None:
            missing = _missing(operation.documented, operation.policy)
            if missing:
                yield of_operation(
                    operation,
                    f"is protected, and its document has no {_listed(missing)}",
                    "document it",
                    Describe(operation),
                )


def _missing(documented: Documented, policy: Policy) -> list[str]:
    any_of = "4XX" in documented.statuses or "4xx" in documented.statuses
    statuses = [status for status in _STATUSES if status not in documented.statuses and not any_of]
    return [*([] if documented.header else [f"parameter {policy.header}"]), *(f"response {it}" for it in statuses)]


def _listed(items: list[str]) -> str:
    return f"{', '.join(items[:-1])} and {items[-1]}" if len(items) > 1 else items[0]


@rules.rule(
    "AUD-05", Severity.WARNING, "contract R66", "Its retries get 409 replay-unavailable for ever, with the thing done."
)
def stream_without_cap(surface: Surface, _: Asked) -> Iterator[Found]:
    """Of an operation that streams its answer somebody has said how much is kept, or what a retry gets instead."""
    for operation in surface.operations:
        if operation.policy is not None and operation.is_policy_known and operation.evidence.streams:
            if not _cuts_off(operation.policy):
                continue
            yield of_operation(
                operation,
                f"streams ({operation.evidence.streams}), and of an answer over "
                f"{operation.policy.response_bytes_max} bytes nothing is replayed",
                'say what a retry gets: on_receipt="receipt", or a response_bytes_max that fits its answers',
                SetOptions(operation, {"on_receipt": "receipt"}),
            )


def _cuts_off(policy: Policy) -> bool:
    """It is as nobody has thought of it."""
    names = ("response_bytes_max", "on_receipt", "store_body")
    return all(getattr(policy, name) == getattr(_DEFAULT, name) for name in names)
