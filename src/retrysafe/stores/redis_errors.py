"""What a server refuses, and what a connection fails with, as a `StoreError` with advice.

Of what the server says, only its first word is repeated, and the rest where it cannot hold any of what
was sent.
"""

from __future__ import annotations

import re

from retrysafe.errors import StoreError, StoreUnavailable, StoreUnusable
from retrysafe.stores.redis_scripts import NEWER


class StoreFull(StoreUnavailable):
    """The server's memory is full: it takes no claim."""


NOT_LOADED = "NOSCRIPT"
DEMOTED = "READONLY"

_AWAY: dict[str, str] = {
    "LOADING": "it is reading its data from disk; wait until it has",
    "BUSY": "a script has been running on it for too long; end that script",
    DEMOTED: "it is a replica now; its primary is looked for again",
    "MASTERDOWN": "it is a replica whose primary is away; restore the primary",
    "CLUSTERDOWN": "the cluster does not serve every slot; look at its nodes",
    "TRYAGAIN": "the slot is being moved to another node; try again",
    "NOREPLICAS": "it has fewer replicas than min-replicas-to-write; look at its replicas",
    "MISCONF": "it cannot write to its disk; make room, or mend the disk",
    "UNKILLABLE": "a script has been running on it for too long; restart it",
}
_MUST_NOT: dict[str, str] = {
    "MOVED": "it is a node of a cluster; use redis+cluster://",
    "ASK": "it is a node of a cluster; use redis+cluster://",
    "CROSSSLOT": "it wants the two keys of a record on two nodes; use redis+cluster://",
    "NOAUTH": "it wants a password; put it in the URL",
    "WRONGPASS": "it does not know this user or this password; correct the URL",
    "NOPERM": "the user may not do what a store does; docs/how-to/redis.md has the commands",
    "NOPROTO": "it does not speak RESP; Redis 7 or newer and Valkey do",
    "WRONGTYPE": "another application has written to our keys; use a prefix of its own",
    NEWER: "its records were written by a newer release of retrysafe; upgrade this one",
}


def refused(name: str, said: str) -> StoreError:
    """What the server's answer of an error comes to. What it refused, it did not do.

    Args:
        name: of the store.
        said: the text of the error, its code first.
    """
    code = code_of(said)
    if code == "OOM":
        return StoreFull(f"{name} refused: OOM; its memory is full; give it more, or less to keep")
    if code in _AWAY:
        return StoreUnavailable(f"{name} refused: {code}; {_AWAY[code]}. Nothing was done")
    if code in _MUST_NOT:
        return StoreUnusable(f"{name} refused: {code}; {_MUST_NOT[code]}")
    told = said.partition(", with args")[0][:160]  # what follows is what was sent
    return StoreError(f"{name} refused: {told}; is it Redis 7 or newer, or Valkey?")


def code_of(said: str) -> str:
    """The code of an error, which a script may have wrapped in a text of its own."""
    inner = re.search(r"-([A-Z]{3,}) ", said) if said.startswith("ERR Error running script") else None
    return inner[1] if inner else said.partition(" ")[0]


def in_doubt(name: str, why: object) -> StoreUnavailable:
    """The connection failed after a command was sent, and before its answer was there."""
    return StoreUnavailable(
        f"{name}: {why}; what was sent may or may not have been applied. Look at the server and at the network"
    )


def unreachable(name: str, why: object) -> StoreUnavailable:
    """There is no connection: nothing was sent."""
    return StoreUnavailable(f"{name} cannot be reached: {why}; nothing was sent. Is it running, and is the URL right?")
