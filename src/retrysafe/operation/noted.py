"""What becomes known of an observed request while it is handled: as `Operation.fate` is of a protected one.

There is no operation then, so that whatever runs does what it does without protection.
"""

from __future__ import annotations

from contextvars import ContextVar

from retrysafe.protocol.effects import Fate


class Noted:
    """What was said last.

    Attributes:
        fate: of the request.
    """

    __slots__ = ("fate",)

    def __init__(self, fate: Fate) -> None:
        self.fate = fate


_noted: ContextVar[Noted | None] = ContextVar("retrysafe_noted", default=None)


def begin_noting(*, marked: bool) -> Noted:
    """For doors: take note of what is said in this context.

    Args:
        marked: the handler says when it is entered.
    """
    begun = Noted(Fate.NOT_REACHED if marked else Fate.RAN)
    _noted.set(begun)
    return begun


def note(fate: Fate) -> None:
    """Say it of the request that is observed in this context; of any other it is not taken note of."""
    current = _noted.get()
    if current is not None:
        current.fate = fate
