"""Who may import whom: the contracts in pyproject.toml hold, and each of them can be broken."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CONTRACTS = {
    contract["id"]: contract["name"]
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
}
PLANTED = [
    ("layers", "errors.py", "import retrysafe.stores.memory"),
    ("layers", "a_new_module.py", "# has no place"),
    ("acyclic", "stores/contract.py", "import retrysafe.stores.memory"),
    ("root", "server/asgi.py", "from retrysafe import Policy"),
    ("pure", "protocol/flow.py", "import time"),
    ("pure", "protocol/flow.py", "import starlette"),
    ("verify", "verify/runner.py", "import retrysafe.protocol.key"),
    ("drive", "drive/aio.py", "import retrysafe.stores.memory"),
    ("drivers", "stores/memory.py", "import sqlite3"),
    ("crypto", "server/asgi.py", "import cryptography"),
    ("drivers-mysql", "stores/mysql.py", "import pymysql"),
    ("drivers-postgres", "stores/memory.py", "import asyncpg"),
    ("flask", "server/wsgi.py", "import flask"),
    ("django", "server/wsgi.py", "import django"),
    ("mcp", "server/function.py", "import mcp"),
    ("dynamodb", "stores/memory.py", "import boto3"),
    ("redis", "stores/memory.py", "import hiredis"),
    ("clients", "client/attempt.py", "import requests"),
    ("extras", "server/asgi.py", "import starlette"),
]


def lint(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """What import-linter says about the package `retrysafe` in the folder."""
    return subprocess.run(
        [
            Path(sys.executable).with_name("lint-imports"),
            "--no-logo",
            "--no-cache",
            f"--config={ROOT / 'pyproject.toml'}",
            *options,
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_layers_hold():
    """The package keeps every contract."""
    done = lint(ROOT / "src")
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_contract_is_tried():
    """No contract goes without a planted fault."""
    assert {contract for contract, _, _ in PLANTED} == set(CONTRACTS)


@pytest.mark.parametrize(("contract", "module", "line"), PLANTED)
def test_contract_can_be_broken(contract, module, line, tmp_path):
    """One bad import, and its contract fails."""
    package = shutil.copytree(ROOT / "src" / "retrysafe", tmp_path / "retrysafe")
    with (package / module).open("a", encoding="utf-8") as source:
        source.write(f"\n{line}\n")
    done = lint(tmp_path, f"--contract={contract}")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Contracts: 0 kept, 1 broken." in done.stdout
