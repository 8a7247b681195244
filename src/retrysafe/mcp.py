"""Tools of a Model Context Protocol server that run once for each key, however often an agent calls them."""

from retrysafe.errors import ConfigurationError

try:
    from retrysafe.server.tool_door import Idempotency
    from retrysafe.server.tool_key import Argument, Meta
except ModuleNotFoundError as missing:
    raise ConfigurationError([f'retrysafe.mcp needs {missing.name}: pip install "retrysafe[mcp]"']) from missing

__all__ = ["Argument", "Idempotency", "Meta"]
