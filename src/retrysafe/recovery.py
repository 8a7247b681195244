"""What an application says for operations that nobody drives any more: `retrysafe.recovery`."""

from retrysafe.operation.found_out import Completed, NotDone, RecordView, StepView, StillUnknown
from retrysafe.server.redrive import Identity

__all__ = ["Completed", "Identity", "NotDone", "RecordView", "StepView", "StillUnknown"]
