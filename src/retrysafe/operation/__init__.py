"""What a handler may do with its own operation."""

from retrysafe.operation.handle import Operation, current_operation, operation
from retrysafe.operation.step import NOT_DONE, UNKNOWN, StepCall

__all__ = ["NOT_DONE", "UNKNOWN", "Operation", "StepCall", "current_operation", "operation"]
