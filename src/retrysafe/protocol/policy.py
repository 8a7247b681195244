"""Every knob of one protected route, in one frozen value that is validated once.

A policy that cannot be used says everything that is wrong with it in one message. Defaults are the
opinions of the design; each field says why.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

from retrysafe.errors import ConfigurationError
from retrysafe.model import Response
from retrysafe.protocol.duration import Duration, milliseconds

METHODS_NEVER = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "CONNECT"})
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_GRACE_MS_MIN = 300_000

MODES = ("protect", "observe")
_CHOICES: dict[str, tuple[str, ...]] = {
    "mode": MODES,
    "key_syntax": ("both", "sf", "bare"),
    "fingerprint": ("full", "none"),
    "recovery": ("manual", "rerun"),
    "effects": ("assumed", "declared"),
    "in_flight": ("refuse", "wait"),
    "on_receipt": ("refuse", "receipt"),
    "store_body": ("full", "redacted", "none"),
}
_DURATIONS: dict[str, tuple[int, int]] = {  # least and most, in milliseconds
    "lease": (50, 86_400_000),
    "execution_max": (50, 7 * 86_400_000),
    "lifetime": (1, 366 * 86_400_000),
    "tombstone": (0, 3_660 * 86_400_000),
    "wait": (1, 3_600_000),
    "unknown_retention": (1_000, 3_660 * 86_400_000),
}
_INTEGERS: dict[str, tuple[int, int]] = {
    "key_length_min": (1, 255),
    "key_length_max": (1, 1_024),
    "request_bytes_max": (0, 1 << 40),
    "response_bytes_max": (0, 1 << 30),
}
_NAMES = (
    "fingerprint_headers",
    "fingerprint_query_except",
    "fingerprint_json_only",
    "fingerprint_json_except",
    "store_body_redact",
    "stored_request_except",
)
_POINTER = re.compile(r"(?:/(?:[^~/]|~[01])*)+")
_A_POINTER = "a JSON Pointer: it starts with a slash, and ~ and / in a name are ~0 and ~1"
_GRAMMARS = (
    ("fingerprint_headers", _TOKEN, "the name of a header field"),
    ("stored_request_except", _TOKEN, "the name of a header field"),
    ("fingerprint_json_only", _POINTER, _A_POINTER),
    ("fingerprint_json_except", _POINTER, _A_POINTER),
    ("store_body_redact", _POINTER, _A_POINTER),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How requests to a route are protected.

    Attributes:
        mode: `protect`; or `observe`: nothing is done to requests, and what would have been done is counted.
        required: answer 400 to a request without a key; else it runs unprotected (contract R11).
        methods: methods to enrol; GET, HEAD, OPTIONS, TRACE never can be (R12).
        header: the field that carries the key (R1).
        key_syntax: `both`: quoted and bare spelling are the same key; or only one of them (R3).
        key_length_min, key_length_max: in characters, after decoding (R7, R10).
        fingerprint: `full`: method, path, query, media type and canonical content must be the same
            in each attempt; `none`: only the key counts, and the second request is not looked at (R22).
        fingerprint_headers: field names that must not differ either; an API version, say (R31).
        fingerprint_query_except: query parameters that may differ between attempts (R24).
        fingerprint_json_only, fingerprint_json_except: JSON Pointers of the members that count, or
            that do not (R32). At most one of the two.
        lease: how long a claim holds without renewal; renewed at a third while the handler runs (R40).
        execution_max: how long a handler is renewed at all; then its record becomes unknown.
        lifetime: how long a finished record replays, from completion (R69, R70).
        tombstone: how long after the lifetime a late retry gets 412 instead of a second execution;
            zero forgets, and a late retry is a new operation (R72, R73).
        unknown_retention: how long an abandoned or unknown record is kept (R71).
        recovery: `manual`: when the owner is gone, the outcome is unknown and stays so until somebody
            settles it: at most once; `rerun`: the handler is declared safe to repeat: at least once (R44).
        effects: `assumed`: from its first line on a handler may have taken effect; `declared`: not before it
            calls `operation().begin_effects()` or takes a step, and if it fails until then, the next attempt runs.
        transactional: the handler commits its work together with its record, by `complete_within`: exactly one
            commit (R42). So `recovery` is `rerun`, and a handler that fails without having completed its record
            has done nothing: its key is free for the next attempt.
        in_flight: what a duplicate of a request in flight gets: `refuse` (409 in-progress, at once), or
            `wait`: it waits for the outcome and replays it, and takes the turn if the first attempt is
            known to have done nothing (R46, R47).
        wait: how long a duplicate waits at most; then it gets the 409.
        request_bytes_max: larger contents are refused with 413 before any claim (R35).
        response_bytes_max: larger answers are kept as a receipt: never replayed, never run again (R66).
        on_receipt: what a retry of a receipt gets: `refuse` (409 replay-unavailable) or `receipt`
            (the original status and a small JSON document).
        store_body: what is kept of an answer's content: `full`; `redacted`: all but the values that
            `store_body_redact` names, and a replay has `null` in their place and says
            `Idempotency-Status: redacted`; `none`: nothing, only a receipt (R111). What cannot be
            redacted, because it is no JSON, is kept as a receipt.
        store_body_redact: JSON Pointers of the values that are not kept.
        stored_request_except: names of request fields that hold credentials, besides `Authorization`,
            `Proxy-Authorization` and `Cookie`: they are left out of a request that is stored to be sent again (R45).
        replay_marker: the response field that says `true` on replays and on nothing else (R58).
        expires_header: experimental: answers that are recorded, and replays, say in `Idempotency-Expires` until when
            they are replayed, if retries get them. It costs a first answer one more look at the store (R83).
        problems_url: where the pages of the problem types are; ends in a slash (R76).
        classify: may overrule what becomes of an answer: called with it, returns `"record"`,
            `"release"`, `"unknown"`, or None for the default (R51).
        lease_ms, execution_max_ms, lifetime_ms, tombstone_ms, unknown_retention_ms, wait_ms: the durations
            in milliseconds.
        header_field, replay_field: the field names as they are compared: in lower case.

    Raises:
        ConfigurationError: with every fault at once.
    """

    mode: str = "protect"
    required: bool = False
    methods: tuple[str, ...] = ("POST", "PATCH")
    header: str = "Idempotency-Key"
    key_syntax: str = "both"
    key_length_min: int = 1
    key_length_max: int = 255
    fingerprint: str = "full"
    fingerprint_headers: tuple[str, ...] = ()
    fingerprint_query_except: tuple[str, ...] = ()
    fingerprint_json_only: tuple[str, ...] = ()
    fingerprint_json_except: tuple[str, ...] = ()
    lease: Duration = "60s"
    execution_max: Duration = "15m"
    lifetime: Duration = "24h"
    tombstone: Duration = "30d"
    unknown_retention: Duration = "30d"
    recovery: str = "manual"
    effects: str = "assumed"
    transactional: bool = False
    in_flight: str = "refuse"
    wait: Duration = "10s"
    request_bytes_max: int = 16 << 20
    response_bytes_max: int = 1 << 20
    on_receipt: str = "refuse"
    store_body: str = "full"
    store_body_redact: tuple[str, ...] = ()
    stored_request_except: tuple[str, ...] = ()
    replay_marker: str = "Idempotent-Replayed"
    expires_header: bool = False
    problems_url: str = "https://retrysafe.dev/problems/"
    classify: Callable[[Response], str | None] | None = None

    lease_ms: int = field(init=False, repr=False, compare=False)
    execution_max_ms: int = field(init=False, repr=False, compare=False)
    lifetime_ms: int = field(init=False, repr=False, compare=False)
    tombstone_ms: int = field(init=False, repr=False, compare=False)
    wait_ms: int = field(init=False, repr=False, compare=False)
    unknown_retention_ms: int = field(init=False, repr=False, compare=False)
    header_field: bytes = field(init=False, repr=False, compare=False)
    replay_field: bytes = field(init=False, repr=False, compare=False)
    keep_ms: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("methods", *_NAMES):
            if isinstance(seen := getattr(self, name), list):  # as configuration files write them
                object.__setattr__(self, name, tuple(seen))
        faults = [fault for check in (_choices, _integers, _names, _pairs, _durations) for fault in check(self)]
        if faults:
            raise ConfigurationError(faults)
        if self.transactional:
            object.__setattr__(self, "recovery", "rerun")
        object.__setattr__(self, "header_field", self.header.lower().encode())
        object.__setattr__(self, "replay_field", self.replay_marker.lower().encode())
        # A retry that was sent just inside the lifetime is not run again (R70).
        grace_ms = 0 if self.tombstone_ms else max(_GRACE_MS_MIN, self.lifetime_ms // 10)
        object.__setattr__(self, "keep_ms", self.lifetime_ms + grace_ms)


OPTIONS: tuple[str, ...] = tuple(option.name for option in fields(Policy) if option.init)


def _choices(policy: Policy) -> list[str]:
    return [
        f"policy.{name} is {getattr(policy, name)!r}; it must be one of {', '.join(choices)}"
        for name, choices in _CHOICES.items()
        if getattr(policy, name) not in choices
    ]


def _integers(policy: Policy) -> list[str]:
    faults = []
    for name, (least, most) in _INTEGERS.items():
        seen = getattr(policy, name)
        if not isinstance(seen, int) or isinstance(seen, bool) or not least <= seen <= most:
            faults.append(f"policy.{name} is {seen!r}; it must be a whole number from {least} to {most}")
    if not faults and policy.key_length_min > policy.key_length_max:
        faults.append("policy.key_length_min is more than policy.key_length_max; no key could be valid")
    return faults


def _names(policy: Policy) -> list[str]:
    faults: list[str] = []
    faults.extend(
        f"policy.{name} is {getattr(policy, name)!r}; it must be true or false"
        for name in ("required", "transactional", "expires_header")
        if not isinstance(getattr(policy, name), bool)
    )
    if not _is_strings(policy.methods) or not policy.methods:
        faults.append(f"policy.methods is {policy.methods!r}; it must be a list of methods")
    else:
        faults.extend(
            f"policy.methods contains {method!r}; it must be an upper-case method, and never one of "
            f"{', '.join(sorted(METHODS_NEVER))}"
            for method in policy.methods
            if method in METHODS_NEVER or method != method.upper() or not _TOKEN.fullmatch(method)
        )
    for name in ("header", "replay_marker"):
        seen = getattr(policy, name)
        if not isinstance(seen, str) or not _TOKEN.fullmatch(seen):
            faults.append(f"policy.{name} is {seen!r}; it must be the name of a header field")
    faults.extend(
        f"policy.{name} is {getattr(policy, name)!r}; it must be a list of strings"
        for name in _NAMES
        if not _is_strings(getattr(policy, name))
    )
    for name, grammar, kind in _GRAMMARS:
        seen = getattr(policy, name)
        if _is_strings(seen) and not all(grammar.fullmatch(item) for item in seen):
            faults.append(f"policy.{name} is {seen!r}; each must be {kind}")
    if not isinstance(policy.problems_url, str) or not re.fullmatch(r"https?://\S+/", policy.problems_url):
        faults.append(f"policy.problems_url is {policy.problems_url!r}; it must be an http(s) URL that ends in a slash")
    if policy.classify is not None and not callable(policy.classify):
        faults.append(f"policy.classify is {policy.classify!r}; it must be a function of the response")
    return faults


def _pairs(policy: Policy) -> list[str]:
    """Options that do not go together."""
    faults = []
    if policy.fingerprint_json_only and policy.fingerprint_json_except:
        faults.append("policy.fingerprint_json_only and policy.fingerprint_json_except exclude each other; set one")
    if (policy.store_body == "redacted") != bool(policy.store_body_redact):
        faults.append(
            f'policy.store_body is "{policy.store_body}" and policy.store_body_redact is {policy.store_body_redact!r}; '
            '"redacted" needs pointers, and pointers need "redacted"'
        )
    return faults


def _is_strings(seen: Any) -> bool:
    return isinstance(seen, tuple) and all(isinstance(item, str) and item for item in seen)


def _durations(policy: Policy) -> list[str]:
    faults = []
    for name, (least_ms, most_ms) in _DURATIONS.items():
        try:
            duration_ms = milliseconds(getattr(policy, name))
        except ValueError as error:
            faults.append(f"policy.{name}: {error}")
            continue
        if not least_ms <= duration_ms <= most_ms:
            faults.append(
                f"policy.{name} is {getattr(policy, name)!r}; it must be from {least_ms} ms to {most_ms // 1_000} s"
            )
        object.__setattr__(policy, f"{name}_ms", duration_ms)
    if not faults and policy.execution_max_ms < policy.lease_ms:
        faults.append("policy.execution_max is shorter than policy.lease; it must be at least as long")
    return faults
