"""retrysafe: make any API safe to retry, and prove it."""

from retrysafe.errors import (
    ClaimLost,
    ConfigurationError,
    NoOperation,
    RetrysafeError,
    StoreError,
    StoreUnavailable,
    StoreUnusable,
)
from retrysafe.operation import Operation, operation
from retrysafe.protocol.policy import Policy

__version__ = "0.1.0"

__all__ = [
    "ClaimLost",
    "ConfigurationError",
    "NoOperation",
    "Operation",
    "Policy",
    "RetrysafeError",
    "StoreError",
    "StoreUnavailable",
    "StoreUnusable",
    "__version__",
    "operation",
]
