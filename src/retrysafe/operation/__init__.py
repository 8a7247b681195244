"""What a handler may do with its own operation."""

from retrysafe.operation.handle import Operation, current_operation, operation

__all__ = ["Operation", "current_operation", "operation"]
