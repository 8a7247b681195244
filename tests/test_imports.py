"""What importing the package costs: the standard library, and http-sf with the one library that it needs."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import retrysafe

CORE = {"retrysafe", "http_sf", "typing_extensions"}

# Runs in an interpreter of its own, in which no other library can be found.
_BARE = f"""
import json
import sys
from importlib import import_module

core = {CORE}

class OnlyTheStandardLibrary:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in core | sys.stdlib_module_names:
            raise ModuleNotFoundError(f"no module named {{name!r}}", name=name)

before = set(sys.modules)
sys.meta_path.insert(0, OnlyTheStandardLibrary())
for name in sys.argv[1:]:
    import_module(name)
print(json.dumps(sorted(set(name.partition(".")[0] for name in set(sys.modules) - before))))
"""


def imported(*modules: str) -> set[str]:
    """The top-level packages that importing the modules brings in, with only the core installed."""
    done = subprocess.run([sys.executable, "-c", _BARE, *modules], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ImportError(done.stderr)
    return set(json.loads(done.stdout))


def test_core_needs_no_extra():
    """The engine, both stores and the ASGI door work without any extra."""
    packages = imported("retrysafe", "retrysafe.asgi", "retrysafe.stores.memory", "retrysafe.stores.sqlite")
    assert packages - sys.stdlib_module_names == CORE


def test_import_of_the_root_is_lean():
    """`import retrysafe` brings in no driver of a database and no server."""
    assert not imported("retrysafe") & {"sqlite3", "http", "socketserver", "subprocess", "multiprocessing"}


def test_the_bare_interpreter_is_bare():
    """A library that is installed here cannot be found there."""
    with pytest.raises(ImportError, match="no module named 'starlette'"):
        imported("starlette")


def test_root_is_small():
    """At most 15 public names, all of them listed, none of them a module."""
    public = {name for name, value in vars(retrysafe).items() if not name.startswith("_") and not _is_module(value)}
    assert public == set(retrysafe.__all__) - {"__version__"}
    assert len(retrysafe.__all__) <= 15


def _is_module(value: object) -> bool:
    return isinstance(value, type(sys))


@pytest.mark.parametrize(
    ("module", "extra"),
    [
        ("retrysafe.aiohttp", "aiohttp"),
        ("retrysafe.cli", "cli"),
        ("retrysafe.encryption", "crypto"),
        ("retrysafe.gateway.app", "gateway"),
        ("retrysafe.mcp", "mcp"),
        ("retrysafe.stores.dynamodb", "dynamodb"),
        ("retrysafe.stores.mysql", "mysql"),
        ("retrysafe.stores.postgres", "postgres"),
        ("retrysafe.requests", "requests"),
        ("retrysafe.stores.redis", "redis"),
        ("retrysafe.urllib3", "urllib3"),
        ("retrysafe.verify", "verify"),
    ],
)
def test_missing_extra_is_named(module, extra):
    """Without its extra, a module says what to install."""
    with pytest.raises(ImportError, match=rf"retrysafe\[{extra}\]"):
        imported(module)
