"""The plugin: a fixture wherever retrysafe is installed, that costs nothing until it is used, and shows what it did."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from retrysafe.pytest_plugin import pytest_terminal_summary

ROOT = Path(__file__).parents[2]
PLUGIN = "retrysafe.pytest_plugin"
HEAVY = ("h11", "httpx2", "uvicorn", "anyio", "starlette", "django", "flask", "retrysafe.verify", "retrysafe.testing")


def run(*arguments, **environment):
    """A Python of its own; what it printed."""
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **environment}, cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_entry_point_names_the_plugin():
    """Installing retrysafe beside pytest gives the fixture, by a name under which it is loaded once."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["entry-points"]["pytest11"] == {PLUGIN: PLUGIN}


def test_it_imports_nothing_heavy():
    """A project that has retrysafe and does not check pays for no server, no client and no framework."""
    script = f"import sys, {PLUGIN}; print(*(name for name in {HEAVY} if name in sys.modules))"
    done = run("-c", script)
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr


def test_a_pytest_of_before():
    """A run that checks nothing ends as ever, whatever pytest it is that found the plugin: 7 has no `get_verbosity`."""
    older: Any = SimpleNamespace(option=SimpleNamespace(verbose=0))
    passed = SimpleNamespace(when="call", sections=[("Captured stdout call", "hello")])
    pytest_terminal_summary(SimpleNamespace(stats={"passed": [passed]}), older)


def test_django_in_both_modes(tmp_path):
    """Its clients have the project behind them; the end of the run says what each check came to, and why not more."""
    done = run(
        "-m", "pytest", "-p", PLUGIN, "-n", "1", "-p", "no:cacheprovider", "-v", "tests/verify/django_checked.py",
        SHOP_PLACE=str(tmp_path),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout
    assert "= retrysafe =" in done.stdout
    assert "tests/verify/django_checked.py::test_blocking: 5 pass, " in done.stdout
    assert "test_unprotected: 2 fail, 3 skip, " in done.stdout
    assert "needs an operation whose worker dies after its effect: operations=" in done.stdout
