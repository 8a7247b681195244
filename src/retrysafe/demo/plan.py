"""What is ordered, and what goes wrong with it: drawn once from a seed, the same for both shops."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from retrysafe.demo.shop import PRICES_CENTS
from retrysafe.errors import ConfigurationError

ORDERS_MIN = 10
ORDERS_MAX = 10_000
_QUANTITY_MAX = 3
_SECOND_FAULT_ONE_IN = 4


class Fault(StrEnum):
    """What goes wrong with one attempt, on the client's side of the wire."""

    NONE = "none"
    TIMEOUT = "time-outs"
    CUT_SENT = "cuts after sending"
    CUT_ANSWER = "cuts during the answer"
    CUT_BODY = "cuts while sending"
    DOUBLE_CLICK = "double clicks"


# Of every ten orders. Dealt like cards and not diced, so that a short demo meets every fault as well.
_DECK = (
    *(Fault.NONE,) * 3,
    *(Fault.TIMEOUT,) * 2,
    *(Fault.CUT_SENT,) * 2,
    Fault.CUT_ANSWER,
    Fault.CUT_BODY,
    Fault.DOUBLE_CLICK,
)


@dataclass(frozen=True, slots=True)
class Order:
    """One intent of one customer, and the faults that its attempts meet.

    Attributes:
        reference: the business reference; by it the shop's tables are read.
        account: whose order it is.
        key: the idempotency key, one for all attempts.
        item, quantity: what is ordered.
        faults: of the first attempts, in order; later attempts meet none.
        pause_ms: how long the customer hesitates before trying again.
    """

    reference: str
    account: str
    key: str
    item: str
    quantity: int
    faults: tuple[Fault, ...]
    pause_ms: int

    @property
    def body(self) -> bytes:
        """What is sent, the same bytes in each attempt."""
        asked = {"order": self.reference, "item": self.item, "quantity": self.quantity, "card": f"card-{self.account}"}
        return json.dumps(asked).encode()

    def fault(self, attempt: int) -> Fault:
        """What goes wrong with that attempt; the first is 0."""
        return self.faults[attempt] if attempt < len(self.faults) else Fault.NONE


def make_plan(count: int, seed: int) -> tuple[Order, ...]:
    """That many orders with their faults; the same seed makes the same plan.

    Raises:
        ConfigurationError: the count is too small to show anything, or too large for a demo.
    """
    if not ORDERS_MIN <= count <= ORDERS_MAX:
        raise ConfigurationError([f"orders is {count}; it must be a whole number from {ORDERS_MIN} to {ORDERS_MAX}"])
    dice = random.Random(seed)  # noqa: S311 - faults that can be replayed, no secrets
    deck = [_DECK[position % len(_DECK)] for position in range(count)]
    dice.shuffle(deck)
    return tuple(_draw(number, fault, dice) for number, fault in enumerate(deck, start=1))


def stock_needed(plan: Sequence[Order]) -> int:
    """How many are sold if every order is placed once."""
    return sum(order.quantity for order in plan)


def _draw(number: int, fault: Fault, dice: random.Random) -> Order:
    faults = [fault]
    if fault is not Fault.NONE and dice.randrange(_SECOND_FAULT_ONE_IN) == 0:
        faults.append(dice.choice([Fault.TIMEOUT, Fault.CUT_SENT, Fault.CUT_ANSWER, Fault.CUT_BODY]))
    return Order(
        reference=f"order-{number:05}",
        account=f"customer-{dice.randrange(100):02}",
        key=str(uuid.UUID(int=dice.getrandbits(128), version=4)),
        item=dice.choice(sorted(PRICES_CENTS)),
        quantity=dice.randint(1, _QUANTITY_MAX),
        faults=tuple(faults),
        pause_ms=dice.randint(10, 100),
    )
