"""What a check of retries is asked for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

Count = Callable[..., int | Awaitable[int]]


class Options(TypedDict, total=False):
    """What `retry_check` may be told.

    Attributes:
        json: the content. The text `{{unique}}` in it, or in the path, is a reference that is new for each thing that
            is to be done, and the same in every retry of it.
        form: the content instead, as the fields of a form.
        effects: counts what was done: a function that is given the reference, or nothing and then counts all; it is
            called on the thread of the test, and may be a coroutine function. Or a line as `retrysafe verify
            --effects` takes it. Without one, effects are told from answers, where these tell.
        headers: of every request.
        accounts: header fields that say who asks: of one account, and perhaps of another.
        operations: others to try with, by the names of `retrysafe verify --with`: `{"read": "GET /orders/1"}`.
        profile: what is expected, as `retrysafe verify --profile` takes it; "ietf" unless given.
        cases: ids of cases, or words of groups; "all" is every case. The core cases unless given.
        ignore: ids of cases that are not tried, each with the reason.
        required: whether a request without a key must be refused; not known, and not tried, unless given.
        strict: what should be and is not fails the check too.
    """

    json: Any
    form: Mapping[str, Any]
    effects: str | Count
    headers: Mapping[str, str]
    accounts: Sequence[Mapping[str, str]]
    operations: Mapping[str, str]
    profile: str
    cases: str | Sequence[str]
    ignore: Mapping[str, str]
    required: bool
    strict: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A check as it was asked for: the client, the operation, and the options."""

    client: Any
    method: str
    path: str
    json: Any = None
    form: Mapping[str, Any] = field(default_factory=dict)
    effects: str | Count | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    accounts: Sequence[Mapping[str, str]] = ()
    operations: Mapping[str, str] = field(default_factory=dict)
    profile: str = "ietf"
    cases: str | Sequence[str] = ()
    ignore: Mapping[str, str] = field(default_factory=dict)
    required: bool | None = None
    strict: bool = False
