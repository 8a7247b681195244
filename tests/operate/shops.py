"""What the tests of operating a store share: a file with records in it, and the command line."""

from __future__ import annotations

import asyncio
import json
import os
import secrets

from click.testing import CliRunner

from retrysafe.cli import main
from retrysafe.model import Claim, State
from retrysafe.operate.shown import Steps
from retrysafe.protocol.transitions import ClaimIfAbsent, CompleteIfHeld, MarkUnknownIfHeld, ReleaseIfHeld
from retrysafe.stores.sqlite import SqliteStore
from tests.doors.connections import ask, protected
from tests.doors.handlers import Shop
from tests.gateway.processes import environment

OLD, NEW = os.urandom(32).hex(), os.urandom(32).hex()
CANARY = b"canary-5353-5353"
DAY_MS = 86_400_000
NO_STEPS = Steps(None, bytes(32), b"", None)


def command(*arguments, **variables):
    """One command, without settings from outside."""
    unset = dict.fromkeys(name for name in os.environ if name.startswith("RETRYSAFE_"))
    return CliRunner().invoke(main, arguments, env={**unset, **variables}, prog_name="retrysafe")


def store_of(folder):
    """The file in a folder."""
    return SqliteStore(folder / "records.db")


def url_of(folder):
    """The same, for the command line."""
    return f"sqlite:///{folder}/records.db"


def requests(folder, keys, *, encryption_keys=None, shop=None, **settings):
    """Requests with these keys to a door on the file, in a process that starts and stops; their answers."""

    async def serve():
        door = protected(
            shop or Shop(headers=[(b"x-canary", CANARY)]), store_of(folder), encryption_keys=encryption_keys, **settings
        )
        await door.open()
        answers = [await ask(door, key=key) for key in keys]
        await door.close()
        await asyncio.to_thread(door._store.close)
        return answers

    return asyncio.run(serve())


def can_be_seen(folder, what=CANARY):
    """Whether these bytes stand in any file of the folder."""
    return any(what in file.read_bytes() for file in folder.iterdir() if file.is_file())


def claimed(store, route="POST /orders", lease_ms=60_000):
    """A record in progress; its claim."""
    claim = Claim(secrets.token_bytes(32), secrets.token_bytes(16), 1)
    found = store.perform(ClaimIfAbsent(claim.record_id, claim.token, b"f" * 33, lease_ms, DAY_MS, route))
    assert found.record.token == claim.token
    return claim


def put(store, state, route="POST /orders"):
    """A record in some state; its id."""
    claim = claimed(store, route)
    match state:
        case State.COMPLETED:
            assert store.perform(CompleteIfHeld(claim, b"sealed", DAY_MS, DAY_MS))
        case State.RETRYABLE:
            assert store.perform(ReleaseIfHeld(claim, DAY_MS))
        case State.UNKNOWN:
            assert store.perform(MarkUnknownIfHeld(claim, DAY_MS))
    return claim.record_id


def shown_of(folder, record_id, *arguments, **variables):
    """A record, as `keys show` has it for programs."""
    result = command("keys", "show", record_id.hex(), "--json", *arguments, "--store", url_of(folder), **variables)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


__all__ = [
    "CANARY",
    "DAY_MS",
    "NEW",
    "NO_STEPS",
    "OLD",
    "can_be_seen",
    "claimed",
    "command",
    "environment",
    "put",
    "requests",
    "shown_of",
    "store_of",
    "url_of",
]
