"""How a request ends: what a door is told to do once the flow of the request is over, and how people call it."""

from __future__ import annotations

from enum import StrEnum

from retrysafe.model import Headers, Response
from retrysafe.value import value

UNRECORDED_STATUS = (b"idempotency-status", b"unrecorded")


class Ending(StrEnum):
    """How a request ended, for people, logs and metrics. Refusals end as the code of their problem."""

    UNPROTECTED = "unprotected"
    CLIENT_GONE = "client-gone"
    REPLAYED = "replayed"
    RECORDED = "recorded"
    RECORDED_OUTSIDE = "recorded-outside"
    MISJUDGED = "classify-failed"
    RELEASED = "released"
    RESUMABLE = "resumable"
    DISCARDED = "discarded"
    UNKNOWN = "unknown"
    UNRECORDED = "unrecorded"
    CLAIM_LOST = "claim-lost"
    INQUIRED = "inquired"
    OVERTAKEN = "overtaken"
    OTHER_ACCOUNT = "other-account"
    TURNED_AWAY = "turned-away"


@value
class Bypass:
    """No key, and none is required: run unprotected."""

    ending: str = Ending.UNPROTECTED


@value
class Vanish:
    """There is nobody to answer, and nothing happened: the client went before its request was whole, say."""

    ending: str = Ending.CLIENT_GONE


@value
class Respond:
    """Send this response, instead of whatever the handler had ready."""

    response: Response
    ending: str


@value
class Deliver:
    """Send what the handler answered. If `recorded` is false, say so in `Idempotency-Status`.

    Attributes:
        ending: of the request.
        recorded: the outcome is durable.
        promised: what its head says besides, if that has not been sent.
    """

    ending: str
    recorded: bool = True
    promised: Headers = ()

    @property
    def added(self) -> Headers:
        """The fields to be added to its head, if that has not been sent."""
        return self.promised if self.recorded else (*self.promised, UNRECORDED_STATUS)


@value
class BreakOff:
    """Bytes were sent and the rest will not come: break the connection, so that nobody takes it for whole."""

    ending: str = Ending.UNKNOWN


Answer = Bypass | Vanish | Respond | Deliver | BreakOff
