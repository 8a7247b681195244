"""What an audit looks at: the operations of an API and the door in front of them, whatever they were read from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from retrysafe.protocol.policy import Policy
from retrysafe.value import value

UNSAFE = ("POST", "PATCH", "PUT", "DELETE")


class Kind(StrEnum):
    """What an API is made with, and so how it is told what holds."""

    FASTAPI = "fastapi"
    STARLETTE = "starlette"
    LITESTAR = "litestar"
    FLASK = "flask"
    DJANGO = "django"
    ASGI = "asgi"
    WSGI = "wsgi"
    OPENAPI = "openapi"


@value
class Place:
    """A line of a file.

    Attributes:
        file: relative to the present folder, if it is in it.
        line: from 1; 0 if it is not known.
    """

    file: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True, slots=True)
class Documented:
    """What an OpenAPI document says of an operation.

    Attributes:
        header: it has the field of the key among its parameters.
        statuses: of its responses.
    """

    header: bool
    statuses: frozenset[str]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the code of a handler, or the document, shows of an operation.

    Attributes:
        place: where it is; None if that is not known.
        name: of the handler, or of the operation.
        words: names of members of its content, as far as they can be seen.
        names: that its own code uses.
        streams: what shows that its answer is a stream; empty if nothing does.
        mentions: whether its code, or a module of the application that this reaches, has a name; None if that cannot
            be known.
        silenced: ids of rules that are silenced beside it.
        requires_key: the code itself refuses requests without one.
        retried_ms: how long clients that are made from the document go on trying.
    """

    place: Place | None = None
    name: str = ""
    words: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    streams: str = ""
    mentions: Callable[[str], bool | None] = lambda _: None
    silenced: frozenset[str] = frozenset()
    requires_key: bool = False
    retried_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one route.

    Attributes:
        method: upper case.
        path: as the framework, or the document, writes it.
        policy: what holds for it; None: it is not protected.
        declined: somebody has said that it is not to be protected.
        entry: of the routes table that names it; empty if none does.
        options: that its handler is marked with; None if it is not marked.
        is_policy_known: of the policy more is known than whether the key is required.
        evidence: what shows what it is.
        documented: what the document of the API says of it; None if there is none.
        handler: its function or class; None if that is not known.
    """

    method: str
    path: str
    policy: Policy | None = None
    declined: bool = False
    entry: str = ""
    options: Mapping[str, Any] | None = None
    is_policy_known: bool = True
    evidence: Evidence = field(default_factory=Evidence)
    documented: Documented | None = None
    handler: Any = None

    @property
    def route(self) -> str:
        """`POST /orders/{id}`."""
        return f"{self.method} {self.path}"


@dataclass(frozen=True, slots=True)
class Door:
    """What stands in front of the operations.

    Attributes:
        scope: whose key it is, as it was told; `function` for one of the application's.
        store: what the store is called; empty if that is not known.
        default: the policy of what nothing names.
        table: the entries of the routes table, in order.
        place: the file that it is set up in; None if that is not known.
        is_routed: it asks the framework's router, so handlers can be marked.
    """

    scope: str
    store: str
    default: Policy
    table: Mapping[str, Policy | None]
    place: Place | None = None
    is_routed: bool = False


@dataclass(frozen=True, slots=True)
class Surface:
    """All of it.

    Attributes:
        target: as the user named it.
        kind: what it is made with.
        operations: that could do something, in the order in which they were found.
        door: in front of them; None if there is none.
        reaches: whether a request by this method to this path would come to a handler; None if nobody can tell.
        before_authentication: the door stands before what finds the user that its scope asks for.
        document: the OpenAPI document; None if there is none.
        base: the path that the document says that its paths are under.
        unseen: what cannot be read, and why: an application of something else that is mounted.
        file: that the application, or its settings, are in; None if that is not known.
    """

    target: str
    kind: Kind
    operations: tuple[Operation, ...]
    door: Door | None = None
    reaches: Callable[[str, str], bool] | None = None
    before_authentication: bool = False
    document: Mapping[str, Any] | None = None
    base: str = ""
    unseen: tuple[str, ...] = ()
    file: Place | None = None
