"""Where the key of a tool call is, and what agents are told of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, assert_never

from mcp_types import ToolAnnotations

from retrysafe.server.call import formatted
from retrysafe.value import value

KEY_LENGTH_MAX = 255
ABOUT_KEYS = (
    "A key that you make up for this one operation, a UUID for example. Send the same key with every further attempt "
    "at the same operation, after an error or a timeout too: it is then done once, and you get its result. "
    "A new operation needs a new key."
)


@value
class Argument:
    """The key is an argument of the tool, which its schema gains: an agent makes it up, whatever client it has.

    Attributes:
        name: of the argument.
    """

    name: str = "idempotency_key"


@value
class Meta:
    """The key is in `_meta` of the request: for hosts whose code makes a key for each call, and keeps it.

    Attributes:
        name: of the entry.
    """

    name: str = "idempotency-key"


KeyFrom = Argument | Meta | str | Callable[..., str]
"""Or the key is made of the arguments: a format, `"refund-{order}"`, or a function of them, by name."""


def key_in(key: KeyFrom, meta: Mapping[str, Any], arguments: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """The key of a call, None if it has none, and its arguments without it.

    Args:
        key: where it is.
        meta: of the request.
        arguments: of the tool, as data.

    Raises:
        CallerError: no key can be made of the arguments.
    """
    match key:
        case Argument(name=name):
            found = arguments.get(name)
            arguments = {other: given for other, given in arguments.items() if other != name}
        case Meta(name=name):
            found = meta.get(name)
        case str():
            found = formatted(key, arguments)
        case _ if callable(key):
            found = key(**arguments)
        case never:
            assert_never(never)
    return found if isinstance(found, str) else None, arguments


@value
class Wording:
    """How the key of a tool is spoken of.

    Attributes:
        where: it belongs.
        again: how a call is repeated: "call it ...".
        never: what must not be tried while nobody knows whether it was done.
    """

    where: str
    again: str
    never: str


def wording(key: KeyFrom) -> Wording:
    """How a key that is there is spoken of."""
    risk = "it could be done twice"
    match key:
        case Argument(name=name):
            again = f"with the same arguments, the same {name} among them"
            return Wording(f"in the argument {name}", again, f"Do not call it with a new {name}: {risk}.")
        case Meta(name=name):
            again = "with the same arguments and the same key"
            return Wording(f"as {name} in _meta of the request", again, f"Do not call it with a new key: {risk}.")
        case _:
            never = f"Do not change the arguments to get past this: {risk}."
            return Wording("made of its arguments", "with the same arguments", never)


def truthful(annotations: ToolAnnotations | None, key: KeyFrom) -> ToolAnnotations:
    """The annotations of a tool whose key is there.

    The hint is about calls with the same arguments, so a key that is none of them makes no tool idempotent.
    """
    return (annotations or ToolAnnotations()).model_copy(update={"idempotent_hint": not isinstance(key, Meta)})


def with_key(schema: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The schema of a tool's arguments with the key among them, by this name."""
    key = {"type": "string", "minLength": 1, "maxLength": KEY_LENGTH_MAX, "description": ABOUT_KEYS}
    properties = {**schema.get("properties", {}), name: key}
    return {**schema, "properties": properties, "required": [*schema.get("required", ()), name]}
