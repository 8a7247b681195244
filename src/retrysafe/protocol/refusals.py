"""The refusals of a flow, as problems: what was seen, and what a client is to do."""

from __future__ import annotations

from retrysafe.model import Response
from retrysafe.protocol.key import Absent, Malformed
from retrysafe.protocol.policy import Policy
from retrysafe.protocol.problem import Problem, retry_after

SCOPE_MISSING = Problem(
    "scope-missing",
    "Idempotency keys belong to an account, and this request names none. Send it with what identifies the account.",
    headers=((b"www-authenticate", b'Account realm="idempotency"'),),
)
KEY_GUESSABLE = Problem(
    "key-invalid",
    "Without an account a key must be unguessable: send a UUID, or 128 random bits as hexadecimal or base64url.",
    members=(("reason", "fewer than 128 bits"),),
)
STORE_UNAVAILABLE = Problem(
    "store-unavailable",
    "The store of idempotency records cannot be reached. Nothing was run. Send the same request again.",
    members=(("retry_after", 1),),
    headers=retry_after(1),
)
CONTENDED = Problem(
    "in-progress",
    "Many requests with this key are being handled at once. Send the same request again.",
    members=(("retry_after", 1),),
    headers=retry_after(1),
)
REPLAY_FORBIDDEN = Problem(
    "replay-forbidden",
    "A request with this key was done, and this caller may not see its answer now.",
)
REPLAY_UNREADABLE = Problem(
    "replay-unavailable",
    "A request with this key was done, and its stored answer cannot be read. It is not run again.",
)
HANDLER_FAILED = Problem(
    "handler-failed",
    "The application failed while it handled the request; it may or may not have taken effect. "
    "It is not run again under this key.",
)


HANDLER_FAILED_WITHOUT_EFFECT = Problem(
    "handler-failed",
    "The application failed and states that the request did not take effect. Send the same request again.",
    members=(("retryable", True),),
)


HANDLER_INTERRUPTED = Problem(
    "handler-failed",
    "The application failed in the middle of the request. What it had done is kept, and the next attempt goes on from "
    "there. Send the same request again.",
    members=(("retryable", True), ("retry_after", 1)),
    headers=retry_after(1),
)


ROLLED_BACK = Problem(
    "rolled-back",
    "The application answered that the request was done, and its transaction was rolled back: nothing was done. "
    "Send the same request again.",
)
COMMIT_PENDING = Problem(
    "commit-pending",
    "The application answered before its transaction had ended, or its store cannot be asked whether it was committed. "
    "Send the same request again: it gets the answer if there is one, and else runs once its lease has lapsed.",
)


def key_problem(key: Absent | Malformed, policy: Policy) -> Problem:
    """What is wrong with a request that has no key, or none that can be read."""
    if isinstance(key, Absent):
        return Problem(
            "key-missing",
            f"This operation needs the header {policy.header}, with a new key for each intent and the same key "
            "for each attempt.",
            members=(("header", policy.header),),
        )
    return Problem(
        "key-invalid",
        f"{key.reason} Nothing was run.",
        members=(("reason", key.reason), ("max_length", policy.key_length_max)),
    )


def body_too_large(policy: Policy) -> Problem:
    """The content of a request is larger than its policy allows."""
    return Problem(
        "body-too-large",
        f"A request with an idempotency key may carry at most {policy.request_bytes_max} bytes. Nothing was run.",
        members=(("max_bytes", policy.request_bytes_max),),
    )


def replay_unavailable(response: Response) -> Problem:
    """It was done, and what was answered was not kept; `response` is what was kept of it."""
    location = response.value(b"location")
    members: tuple[tuple[str, object], ...] = (("original_status", response.status),)
    if location is not None:
        members += (("location", location.decode("latin-1")),)
    return Problem(
        "replay-unavailable",
        "A request with this key was done; its answer was not kept. It is not run again.",
        members=members,
    )
