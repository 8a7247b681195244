"""What a text like `shop:app` names: something in a module."""

from __future__ import annotations

import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from retrysafe.errors import ConfigurationError

_NAME = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)")


def named(text: str) -> Any:
    """Import what is named; modules are looked for in the present folder too, as servers do.

    Args:
        text: `MODULE:NAME`, like `shop:app`.

    Raises:
        ConfigurationError: it names nothing. What a module raises while it is imported is told with it.
    """
    parsed = _NAME.fullmatch(text)
    if parsed is None:
        raise ConfigurationError([f'"{text}" names nothing; it must be MODULE:NAME, like "shop:app"'])
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = import_module(parsed[1])
    except Exception as error:
        raise ConfigurationError(
            [f'"{text}": {parsed[1]} cannot be imported: {type(error).__name__}: {error}']
        ) from error
    for name in parsed[2].split("."):
        if not hasattr(found, name):
            raise ConfigurationError([f'"{text}": there is no {name} in {parsed[1]}'])
        found = getattr(found, name)
    return found
