"""What can go wrong with one exchange of a request and its answer. Each fault is a small value that JSON can hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Nothing:
    """The exchange passes untouched."""


@dataclass(frozen=True, slots=True)
class CutRequest:
    """The server gets the first bytes of the request and then an end.

    Attributes:
        at_byte: how many bytes of the request it gets.
    """

    at_byte: int


@dataclass(frozen=True, slots=True)
class LoseResponse:
    """The server gets the whole request and answers; the client sees nothing of the answer but an end."""


@dataclass(frozen=True, slots=True)
class CutResponse:
    """The client gets the first bytes of the response and then an end. A shorter response passes whole.

    Attributes:
        at_byte: how many bytes of the response it gets.
    """

    at_byte: int


@dataclass(frozen=True, slots=True)
class Leave:
    """The client has sent its whole request and goes away while the server is at work.

    Attributes:
        after_ms: how long after the last byte of the request.
    """

    after_ms: int


@dataclass(frozen=True, slots=True)
class Reset:
    """Both sides see the connection reset when the server has the whole request."""


@dataclass(frozen=True, slots=True)
class DeliverTwice:
    """The server gets the request twice at once; the client gets the answer to the first copy. Of HTTP only."""


@dataclass(frozen=True, slots=True)
class Delay:
    """The request arrives late.

    Attributes:
        delay_ms: how late.
    """

    delay_ms: int


@dataclass(frozen=True, slots=True)
class BlackHole:
    """The server gets nothing, and the client waits in vain: nothing comes, and nothing ends."""


@dataclass(frozen=True, slots=True)
class Silence:
    """The server gets the whole request and answers; the client waits in vain: nothing comes, and nothing ends."""


@dataclass(frozen=True, slots=True)
class Slow:
    """Bytes of the response trickle.

    Attributes:
        piece_bytes: how many at a time.
        pause_ms: between two pieces.
    """

    piece_bytes: int
    pause_ms: int


Fault = (
    Nothing
    | CutRequest
    | LoseResponse
    | CutResponse
    | Leave
    | Reset
    | DeliverTwice
    | Delay
    | BlackHole
    | Silence
    | Slow
)

KINDS: Mapping[str, type[Fault]] = {
    "nothing": Nothing,
    "cut-request": CutRequest,
    "lose-response": LoseResponse,
    "cut-response": CutResponse,
    "leave": Leave,
    "reset": Reset,
    "deliver-twice": DeliverTwice,
    "delay": Delay,
    "black-hole": BlackHole,
    "silence": Silence,
    "slow": Slow,
}
_NAMES = {kind: name for name, kind in KINDS.items()}


def name_of(fault: Fault) -> str:
    """The name of its kind."""
    return _NAMES[type(fault)]


def to_json(fault: Fault) -> dict[str, Any]:
    """The fault as a JSON object."""
    return {"fault": name_of(fault), **asdict(fault)}


def from_json(document: Mapping[str, Any]) -> Fault:
    """The fault that `to_json` wrote.

    Raises:
        ValueError: it is no fault.
    """
    members = dict(document)
    try:
        return KINDS[members.pop("fault")](**members)
    except (KeyError, TypeError) as error:
        raise ValueError(f"no fault: {dict(document)!r}") from error
