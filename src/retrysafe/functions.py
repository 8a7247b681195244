"""Functions that run once for each key: jobs, commands, tools of an agent."""

from retrysafe.server.call import Codec
from retrysafe.server.function import once

__all__ = ["Codec", "once"]
