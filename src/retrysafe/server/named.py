"""What a text like `shop:app` names, something in a module; and under what name all processes find something."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from retrysafe.errors import ConfigurationError

_NAME = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)")
_PROGRAM = ("__main__", "__mp_main__")  # the second in a child of multiprocessing, which runs the program's file again


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


def module_of(thing: Callable[..., Any]) -> str:
    """The module of a function or a class as other processes import it; `__main__` if none can, in a session say.

    A module that is run as a program is `__main__` in its own process alone, and so is every other program: under that
    name a worker that imports the module would not find what the program has recorded, and another program would.
    """
    if thing.__module__ not in _PROGRAM:
        return thing.__module__
    program = vars(sys.modules[thing.__module__])
    spec, file = program.get("__spec__"), program.get("__file__")
    if spec is not None:
        return str(spec.name)
    return Path(file).stem if file else "__main__"


def full_name(function: Callable[..., Any]) -> str:
    """The name of a function, the same in each process.

    Raises:
        ConfigurationError: it is in no module that another process could import.
    """
    if (module := module_of(function)) == "__main__":
        raise ConfigurationError([f"{function.__qualname__} is in no module that can be imported: give it a name="])
    return f"{module}.{function.__qualname__}"
