"""Faults of a network as seeded values, and the proxy that makes them happen.

Reading order: `fault` says what can go wrong with one exchange, `plan` draws it from a seed, `wire` is what has to be
known of a protocol, and `http`, `postgres` and `redis` know it, `proxy` stands between both sides and does it.
"""

from retrysafe.faults.fault import (
    BlackHole,
    CutRequest,
    CutResponse,
    Delay,
    DeliverTwice,
    Fault,
    Leave,
    LoseResponse,
    Nothing,
    Reset,
    Silence,
    Slow,
)
from retrysafe.faults.plan import Chance, Plan, parse
from retrysafe.faults.proxy import ChaosProxy

__all__ = [
    "BlackHole",
    "Chance",
    "ChaosProxy",
    "CutRequest",
    "CutResponse",
    "Delay",
    "DeliverTwice",
    "Fault",
    "Leave",
    "LoseResponse",
    "Nothing",
    "Plan",
    "Reset",
    "Silence",
    "Slow",
    "parse",
]
