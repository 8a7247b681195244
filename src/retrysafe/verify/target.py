"""What the operator tells of the API: one operation, and what else there is to try with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urljoin, urlsplit

from retrysafe.errors import ConfigurationError
from retrysafe.formats.openapi import METHODS
from retrysafe.verify import content
from retrysafe.verify.effects import Counter
from retrysafe.verify.message import Field, Fields, Sent
from retrysafe.verify.template import fill, is_unique

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class Operation:
    """A request with a place for the reference.

    Attributes:
        method: of HTTP.
        url: absolute; may have `{{unique}}`.
        body: the content; may have `{{unique}}`. None for none.
        headers: fields besides those of the account.
    """

    method: str
    url: str
    body: str | None = None
    headers: Fields = ()

    def request(self, reference: str) -> Sent:
        """The request for one reference."""
        headers = tuple((name, fill(value, reference)) for name, value in self.headers)
        body = fill(self.body or "", reference)
        if body and not any(name.lower() == "content-type" for name, _ in headers):
            headers = (("Content-Type", content.media_type(body)), *headers)
        return Sent(self.method, fill(self.url, reference), headers, body.encode())

    def has_reference(self) -> bool:
        """Whether two references make two requests."""
        return any(map(is_unique, (self.url, self.body or "", *(value for _, value in self.headers))))

    def at(self, base_url: str) -> Operation:
        """The same operation somewhere else: its path and query below another base."""
        parts = urlsplit(self.url)
        return replace(self, url=base_url.rstrip("/") + parts.path + (f"?{parts.query}" if parts.query else ""))


def parse_operation(text: str, base_url: str, headers: Fields = ()) -> Operation:
    """An operation out of `METHOD URL [CONTENT]`; a URL that is only a path is below the base.

    Raises:
        ConfigurationError: it is none.
    """
    method, _, rest = text.strip().partition(" ")
    url, _, body = rest.strip().partition(" ")
    if method not in METHODS or not url:
        raise ConfigurationError([f"{text!r} is no operation: write METHOD URL, and perhaps CONTENT behind it"])
    return Operation(method, urljoin(base_url, url), body.strip() or None, headers)


def parse_field(text: str) -> Field:
    """A header field out of `Name: value`.

    Raises:
        ConfigurationError: it is none.
    """
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise ConfigurationError(["a header field is written Name: value; what was given has no colon"])
    return name.strip(), value.strip()


# What a case may need, what it is, and how it is given. The name of the need is the first word.
NEEDS: Mapping[str, tuple[str, str]] = {
    "effects": ("a way to count effects", "--effects 'GET /orders?ref={{unique}} $.total'"),
    "account": ("the credentials of the account", "--account 'Authorization: ...'"),
    "other-account": ("the credentials of another account", "--other-account 'Authorization: ...'"),
    "second-credential": (
        "a second credential of the same account",
        "--second-credential 'Authorization: ...'",
    ),
    "fields": ("content with fields", "--json '{...}', --form 'a=1&b=2'"),
    "json": ("content that is a JSON object", "--json '{...}'"),
    "lifetime": ("a lifetime short enough to wait for", "--lifetime-s SECONDS"),
    "lease": ("how long a dead worker holds a key", "--lease-s SECONDS"),
    "origins": ("two allowed origins", "--origin https://a.example --origin https://b.example"),
    "replica": ("the base URL of another replica", "--replica URL"),
    "sandbox": ("the base URL of the sandbox", "--sandbox URL"),
    "openapi": ("an OpenAPI document", "--openapi FILE|URL"),
    "documentation": ("an OpenAPI document or the address of the documentation", "--openapi FILE|URL, --docs URL"),
    "status": ("the status endpoint", "--with status='GET /requests'"),
    # operations
    "slow": ("an operation that takes its time", "--with slow='POST /orders?delay=2 {...}'"),
    "short-lived": ("an operation with a short lifetime", "--with short-lived='POST /orders?short=1 {...}'"),
    "read": ("a way to read what was created", "--with read='GET /orders?ref={{unique}}'"),
    "modify": ("a way to change what was created", "--with modify='PUT /orders/{{unique}} {...}'"),
    "remove": ("a way to delete what was created", "--with remove='DELETE /orders/{{unique}}'"),
    "second": ("a second enrolled operation", "--with second='POST /refunds {...}'"),
    "path-1": ("one of two operations that differ in the path", "--with path-1='POST /tickets/1 {...}'"),
    "path-2": ("one of two operations that differ in the path", "--with path-2='POST /tickets/2 {...}'"),
    "patch": ("a PATCH", "--with patch='PATCH /counters/{{unique}} {...}'"),
    "delete": ("a DELETE that is enrolled", "--with delete='DELETE /orders/{{unique}}'"),
    "multipart": (
        "an operation that takes multipart content; its JSON members become the parts",
        '--with multipart=\'POST /uploads {"name":"{{unique}}"}\'',
    ),
    "cookie": ("an operation that sets a cookie", "--with cookie='POST /sessions {...}'"),
    "accepted": ("an operation that answers 202", "--with accepted='POST /exports {...}'"),
    "stream": ("an operation with a large or streamed answer", "--with stream='POST /reports {...}'"),
    "redirect": ("an operation that answers 303", "--with redirect='POST /forms {...}'"),
    "slash": ("a spelling of the path that the router redirects", "--with slash='POST /orders/ {...}'"),
    "secret": ("an operation that returns a secret once", "--with secret='POST /tokens {...}'"),
    "unprotected": ("an unsafe operation without keys", "--with unprotected='POST /plain {...}'"),
    "public": ("an operation that needs no account", "--with public='POST /signups {...}'"),
    "limited": ("an operation that answers 429 at first", "--with limited='POST /orders?limit=1 {...}'"),
    "decline": ("an operation that the business declines", "--with decline='POST /orders?fail=decline {...}'"),
    "fail-before": ("an operation that fails before its effect", "--with fail-before='POST ...'"),
    "fail-after": ("an operation that fails after its effect", "--with fail-after='POST ...'"),
    "unavailable": ("an operation that answers 503 at first", "--with unavailable='POST ...'"),
    "outlasting": ("an operation that outlasts the lifetime and the lease", "--with outlasting='POST ...'"),
    "impatient": ("an operation that the gateway gives up on, and the handler finishes", "--with impatient='POST ...'"),
    "die-before": ("an operation whose worker dies before its effect", "--with die-before='POST ...', or --hook kill="),
    "die-after": ("an operation whose worker dies after its effect", "--with die-after='POST ...', or --hook kill="),
    "unrecorded": ("an operation at whose end the store fails", "--with unrecorded='POST ...'"),
    # hooks
    "store-down": ("a way to take the store of keys away", "--hook store-down='cmd ...'"),
    "store-up": ("a way to bring the store of keys back", "--hook store-up='cmd ...'"),
    "revoke": ("a way to revoke the account's permission", "--hook revoke='cmd ...'"),
    "restore": ("a way to give the permission back", "--hook restore='cmd ...'"),
}
HOOKS = frozenset({"store-down", "store-up", "revoke", "restore", "kill"})
OPERATIONS = frozenset(list(NEEDS)[list(NEEDS).index("status") : list(NEEDS).index("store-down")]) | {"invalid"}


@dataclass(frozen=True, slots=True)
class Target:
    """Everything that the operator offers.

    Attributes:
        operation: the operation that is verified.
        operations: others, by the names in `NEEDS`.
        hooks: what changes the state of the target, by name: `METHOD URL [CONTENT]` or `cmd COMMAND`.
        account: fields that say who asks.
        other_account: the same of another account.
        second_credential: another credential of the first account.
        counter: counts effects.
        lifetime_s: how long a finished key replays, if that is short enough to wait for.
        lease_s: how long a dead worker holds a key.
        origins: two origins that browsers may call from.
        replica: base URL of another replica of the same API.
        sandbox: base URL of the sandbox.
        openapi: the OpenAPI document.
        docs: address of the documentation for people.
        required: whether the operation refuses requests without a key; None is not known.
        spare_field: a member that the API takes in the content and does not judge.
    """

    operation: Operation
    operations: Mapping[str, Operation] = field(default_factory=dict)
    hooks: Mapping[str, str] = field(default_factory=dict)
    account: Fields = ()
    other_account: Fields = ()
    second_credential: Fields = ()
    counter: Counter | None = None
    lifetime_s: float | None = None
    lease_s: float | None = None
    origins: tuple[str, ...] = ()
    replica: str | None = None
    sandbox: str | None = None
    openapi: Mapping[str, Any] | None = None
    docs: str | None = None
    required: bool | None = None
    spare_field: str = "note"

    @property
    def base_url(self) -> str:
        """Scheme and authority."""
        parts = urlsplit(self.operation.url)
        return f"{parts.scheme}://{parts.netloc}"

    @property
    def hosts(self) -> frozenset[str]:
        """Every host that requests may go to."""
        urls = [self.operation.url, *(each.url for each in self.operations.values()), self.replica, self.sandbox]
        return frozenset(urlsplit(url).hostname or "" for url in urls if url)

    @property
    def secret_fields(self) -> frozenset[str]:
        """Names of fields whose values are credentials."""
        fields = (*self.account, *self.other_account, *self.second_credential)
        return frozenset(name.lower() for name, _ in fields)

    @property
    def _example(self) -> Sent:
        """The operation, for some reference."""
        return self.operation.request("x")

    @property
    def content(self) -> dict[str, Any] | None:
        """The members or fields of the operation's content; None if it has none."""
        return self._example.document

    def offers(self, need: str) -> bool:
        """Whether the operator gave this."""
        if need in {"die-before", "die-after"} and "kill" in self.hooks:
            return need in self.operations or "slow" in self.operations
        if need in OPERATIONS:
            return need in self.operations
        if need in HOOKS:
            return need in self.hooks
        offered: dict[str, object] = {
            "effects": self.counter,
            "account": self.account,
            "other-account": self.other_account,
            "second-credential": self.second_credential,
            "fields": self.content,
            "json": None if self._example.form else self.content,
            "lifetime": self.lifetime_s,
            "lease": self.lease_s,
            "origins": len(self.origins) == 2,
            "replica": self.replica,
            "sandbox": self.sandbox,
            "openapi": self.openapi,
            "documentation": self.openapi or self.docs,
        }
        return bool(offered[need])

    def lacks(self, need: str) -> str | None:
        """Why a case with this need is skipped; None if it is not."""
        what, how = NEEDS[need]
        return None if self.offers(need) else f"needs {what}: {how}"
