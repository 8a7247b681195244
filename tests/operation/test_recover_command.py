"""`retrysafe recover`: beside an ASGI application and beside the gateway, once and as a loop; its exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from retrysafe.model import State
from tests.doors.servers import until
from tests.gateway.processes import environment
from tests.operation.killed import die, states

ROOT = Path(__file__).parents[2]
APPLICATION = "tests.operation.shop:application"
DOOR = """
from retrysafe.asgi import IdempotencyMiddleware
from retrysafe.recovery import Identity, StillUnknown

async def handler(scope, receive, send):
    raise AssertionError

def door(**settings):
    return IdempotencyMiddleware(handler, **{"store": "memory://", "scope": "anonymous", **settings})

bare = door()
asks = door(reconcile=lambda view: StillUnknown())
away = door(store="sqlite:////no/such/folder/records.db", reconcile=lambda view: StillUnknown())
number = 7

def reauthenticate(account):
    return Identity(headers={"X-By": "completer"})
"""


def command(folder: Path, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    """`retrysafe recover` in a folder, with a module `doors` in it."""
    (folder / "doors.py").write_text(DOOR)
    paths = os.pathsep.join([environment()["PYTHONPATH"], str(ROOT)])
    return subprocess.Popen(
        [sys.executable, "-m", "retrysafe", "recover", *arguments], cwd=folder, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(**{"PYTHONPATH": paths, **variables}),
    )  # fmt: skip


def recover(folder: Path, *arguments: str, **variables: str) -> tuple[int, str, str]:
    """The same to its end: exit code, what it printed, what it complained of."""
    process = command(folder, *arguments, **variables)
    printed, complaints = process.communicate(timeout=30)
    return process.returncode, printed, complaints


def where(folder: Path, other_side: Any) -> dict[str, str]:
    """The environment of the shop."""
    return {"SHOP_PLACE": str(folder), "DOWNSTREAM": str(other_side.port)}


def lapsed(folder: Path) -> None:
    """Wait until a claim of the shop has lapsed, and its request is due."""
    end_s = time.monotonic() + 1.6
    until(lambda: time.monotonic() > end_s)
    assert folder.exists()


def test_once_beside_an_application(tmp_path, other_side):
    """What a killed process left is done, in the name of its account; what has nobody is told, by the exit code too."""
    name, target = uuid.uuid4().hex, "POST /resend/dedup"
    die(tmp_path, other_side, target=target, moment="called", name=name)
    lapsed(tmp_path)
    code, printed, complaints = recover(tmp_path, APPLICATION, "--once", "--json", **where(tmp_path, other_side))
    assert (code, json.loads(printed)["driven"], complaints) == (0, 1, "")
    assert (states(tmp_path), len(other_side.effects("charge"))) == ([State.COMPLETED], 1)
    die(tmp_path, other_side, target=target, moment="called", name="gone", account="gone")
    lapsed(tmp_path)
    assert recover(tmp_path, APPLICATION, "--once", **where(tmp_path, other_side)) == (1, "identity gone 1\n", "")


def test_again_and_again(tmp_path, other_side):
    """A loop that says what it did, and ends on SIGTERM."""
    process = command(tmp_path, APPLICATION, "--every", "100ms", **where(tmp_path, other_side))
    try:
        die(tmp_path, other_side, target="POST /resend/dedup", moment="after-journal-3", name="n")
        until(lambda: states(tmp_path) == [State.COMPLETED])
        process.send_signal(signal.SIGTERM)
        printed, complaints = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, complaints) == (0, "")
    assert printed.splitlines()[-1] == "driven 1"
    assert len(other_side.effects("charge")) == 1


@pytest.mark.parametrize(("arguments", "code", "words"), [
    (["doors"], 2, "it must be MODULE:NAME"),
    (["nothing:app"], 2, "nothing cannot be imported: ModuleNotFoundError"),
    (["doors:app"], 2, "there is no app in doors"),
    (["doors:handler"], 2, "has no door"),
    (["doors:bare"], 2, "there is nothing to do"),
    (["doors:asks", "--every", "often"], 2, '--every: "often" is not a duration'),
    (["doors:away"], 3, "does not start"),
    ([], 2, "upstream is not set"),
    (["--upstream", "http://127.0.0.1:1", "--store", "sqlite:///r.db", "--scope", "anonymous"], 2, "nothing to do"),
    (["--upstream", "http://127.0.0.1:1", "--store", "sqlite:///r.db", "--scope", "anonymous", "--reauthenticate",
      "doors:reauthenticate"], 2, "set encryption_keys"),
    (["--upstream", "http://127.0.0.1:1", "--store", "sqlite:///r.db", "--scope", "anonymous", "--reconcile",
      "doors:number"], 2, "it is no function"),
])  # fmt: skip
def test_what_cannot_be_done_is_told(tmp_path, arguments, code, words):
    """With the exit code that says whose fault it is."""
    done, printed, complaints = recover(tmp_path, "--once", *arguments)
    assert (done, printed) == (code, "")
    assert words in complaints
    assert "Traceback" not in complaints


def test_nothing_to_do_is_clean(tmp_path):
    """An empty store."""
    assert recover(tmp_path, "doors:asks", "--once") == (0, "nothing to do\n", "")
