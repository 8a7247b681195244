"""Faults of a network as seeded values, and the proxy that makes them happen.

Reading order: `fault` says what can go wrong with one connection, `plan` draws it from a seed,
`proxy` stands between a client and a server and does it.
"""

from retrysafe.faults.fault import (
    CutRequest,
    CutResponse,
    DeliverTwice,
    Fault,
    Leave,
    LoseResponse,
    Nothing,
    Reset,
    Slow,
)
from retrysafe.faults.plan import Plan
from retrysafe.faults.proxy import ChaosProxy

__all__ = [
    "ChaosProxy",
    "CutRequest",
    "CutResponse",
    "DeliverTwice",
    "Fault",
    "Leave",
    "LoseResponse",
    "Nothing",
    "Plan",
    "Reset",
    "Slow",
]
