"""What an API promises to those who call it, made from what is configured and from nothing else (contract R80, R82)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from retrysafe.protocol.decision import RELEASED_STATUSES
from retrysafe.protocol.duration import iso8601
from retrysafe.protocol.expiry import EXPIRES_NAME
from retrysafe.protocol.policy import Policy
from retrysafe.protocol.problem import KINDS
from retrysafe.value import value

UNSUPPORTED: dict[str, Any] = {"supported": False}

_BARE = r"[A-Za-z0-9._~:/+=\-]"
_QUOTED = r'(?:[!#-\[\]-~]|\\["\\])'
_OF_GATEWAYS = ("upgrade-unsupported", "upstream-unreachable", "upstream-failed", "upstream-timeout")
_OF_TRANSACTIONS = ("rolled-back", "commit-pending")


@value
class Published:
    """What of one door concerns its clients.

    Attributes:
        scope: whose key it is, as the door was told; `function` for one of the application's.
        routes: entries of the routes table, `*` for all that it does not name, to policies; None takes one out.
        status_path: at which clients ask what became of a key; None if they cannot.
        gateway: problems of a gateway may occur.
    """

    scope: str
    routes: Mapping[str, Policy | None]
    status_path: str | None = None
    gateway: bool = False

    def document(self) -> dict[str, Any]:
        """The contract as one JSON document."""
        default = self.routes.get("*")
        return {
            "supported": True,
            "default": None if default is None else {"methods": list(default.methods), **self.of(default)},
            "routes": [self._route(entry, policy) for entry, policy in self.routes.items() if entry != "*"],
            "status": self.status_path,
            "problems": [self._problem(code, default or Policy()) for code in self._codes()],
        }

    def of(self, policy: Policy | None) -> dict[str, Any]:
        """What is said of one operation, in OpenAPI as `x-idempotency`.

        Args:
            policy: what holds for it; None: it is not enrolled.
        """
        return UNSUPPORTED if policy is None else promise(policy, self.scope)

    def _route(self, entry: str, policy: Policy | None) -> dict[str, Any]:
        method, _, path = entry.partition(" ")
        return {"method": method, "path": path, **self.of(policy)}

    def _codes(self) -> Iterable[str]:
        policies = [policy for policy in self.routes.values() if policy is not None]
        out = set(() if self.gateway else _OF_GATEWAYS)
        out |= set(() if any(policy.transactional for policy in policies) else _OF_TRANSACTIONS)
        out |= set(() if self.status_path else ("key-unknown",))
        return [code for code in KINDS if code not in out]

    def _problem(self, code: str, default: Policy) -> dict[str, Any]:
        kind = KINDS[code]
        url = default.problems_url + code
        return {"type": url, "code": code, "status": kind.status, "title": kind.title, "retryable": kind.retryable}


def promise(policy: Policy, scope: str) -> dict[str, Any]:
    """What holds for an operation, in the words of contract R82.

    Args:
        policy: of its route.
        scope: whose key it is.
    """
    return {
        "supported": True,
        "required": policy.required,
        "header": policy.header,
        "key": {"pattern": key_pattern(policy), "minLength": policy.key_length_min, "maxLength": policy.key_length_max},
        "scope": scope,
        "lifetime": iso8601(policy.lifetime_ms),
        "afterExpiry": {"answer": "key-expired" if policy.tombstone_ms else "new operation"}
        | ({"for": iso8601(policy.tombstone_ms)} if policy.tombstone_ms else {}),
        "fingerprint": _fingerprint(policy),
        "inFlight": {"answer": "in-progress"}
        | ({"waits": iso8601(policy.wait_ms)} if policy.in_flight == "wait" else {}),
        "abandoned": "runs again" if policy.recovery == "rerun" else "outcome-unknown",
        "recorded": _recorded(policy),
        "released": sorted(RELEASED_STATUSES),
        "replay": {
            "marker": policy.replay_marker,
            "content": {"full": "as it was", "redacted": "redacted", "none": "not kept"}[policy.store_body],
            "bytesMax": policy.response_bytes_max,
            "beyond": "a receipt" if policy.on_receipt == "receipt" else "replay-unavailable",
        }
        | ({"expires": EXPIRES_NAME} if policy.expires_header else {}),
        "requestBytesMax": policy.request_bytes_max,
    }


def _fingerprint(policy: Policy) -> dict[str, Any] | None:
    """What must be the same in each attempt; None if only the key counts."""
    if policy.fingerprint == "none":
        return None
    differing: dict[str, Any] = {
        "headers": policy.fingerprint_headers,
        "queryExcept": policy.fingerprint_query_except,
        "jsonOnly": policy.fingerprint_json_only,
        "jsonExcept": policy.fingerprint_json_except,
    }
    parts = ["method", "path", "query", "content type", "content"]
    return {"parts": parts} | {name: list(names) for name, names in differing.items() if names}


def _recorded(policy: Policy) -> list[str]:
    """The classes of answers that are kept, but for the released statuses."""
    if policy.classify is not None:
        return ["as the application decides"]
    return ["2xx", "3xx", "4xx"] if policy.transactional else ["2xx", "3xx", "4xx", "5xx"]


def key_pattern(policy: Policy) -> str:
    """What a key looks like in its field, as a regular expression of JSON Schema (R81)."""
    least, most = policy.key_length_min, policy.key_length_max
    bare, quoted = f"{_BARE}{{{least},{most}}}", f'"{_QUOTED}{{{least},{most}}}"'
    return {"both": f"^(?:{quoted}|{bare})$", "sf": f"^{quoted}$", "bare": f"^{bare}$"}[policy.key_syntax]
