"""Is the door itself set up so that it does what its table says?"""

from __future__ import annotations

import re
from collections.abc import Iterator

from retrysafe.audit.code import line_with
from retrysafe.audit.money import money_in
from retrysafe.audit.overlap import overlap, sample
from retrysafe.audit.rule import Asked, Behind, Drop, Found, Glue, Reset, Rules, Severity, of_operation
from retrysafe.audit.surface import Door, Place, Surface
from retrysafe.protocol.policy import Policy
from retrysafe.server.routes import Routes

rules = Rules()

_CREDENTIAL = re.compile(
    r"(?i)authorization|header: *(?:authorization|cookie|x-api-key|api-key|x-auth-token|x-access-token) *"
)
_ACCOUNT = "header:X-Account-Id"


@rules.rule("AUD-06", Severity.WARNING, "contract R16", "A retry with a renewed token is a new operation: done twice.")
def scope_is_credential(surface: Surface, _: Asked) -> Iterator[Found]:
    """A key belongs to an account, and not to a credential that is renewed between two attempts."""
    door = surface.door
    if door is not None and _CREDENTIAL.fullmatch(door.scope):
        remedy = Reset("scope", _ACCOUNT)
        seen = f'the scope is "{door.scope}", a credential'
        yield Found("scope", seen, "name a stable account", remedy, _place(door, door.scope))


@rules.rule(
    "AUD-07", Severity.WARNING, "contract R13", "Somebody believes that a route is protected as the entry says."
)
def stray_entry(surface: Surface, _: Asked) -> Iterator[Found]:
    """Every entry of the routes table has requests that come to it."""
    door = surface.door
    for entry in door.table if door else ():
        if seen := _why_stray(entry, surface) or _behind(entry, list(door.table if door else ())):
            yield Found(entry, seen, "correct it, or remove it", Drop(entry), _place(door, entry))


def _why_stray(entry: str, surface: Surface) -> str:
    method, _, path = entry.partition(" ")
    if surface.reaches is None:
        return ""
    meeting = {it.method for it in surface.operations if overlap(path, surface.base + it.path)}
    if method in meeting or surface.reaches(method, sample(path)):
        return ""
    others = f"; there it takes {', '.join(sorted(meeting))}" if meeting else ""
    return f"no route takes {method} at such a path{others}"


def _behind(entry: str, entries: list[str]) -> str:
    """The entry that is found in place of this one."""
    method, _, path = entry.partition(" ")
    found = Routes(Policy(), dict.fromkeys(entries, Policy())).find(method, sample(path))
    if found is None or found.entry in (entry, "*") or "{" not in found.entry:
        return ""
    return f'"{found.entry}" comes before it, and is found in its place'


@rules.rule("AUD-12", Severity.WARNING, "contract R17, R109", "Whoever guesses a key, or is told one, gets the answer.")
def scope_is_nobody(surface: Surface, _: Asked) -> Iterator[Found]:
    """Keys of what moves money belong to an account."""
    door = surface.door
    if door is None or door.scope != "anonymous":
        return
    paid = next((it.route for it in surface.operations if it.policy is not None and money_in(it)), None)
    if paid:
        seen = f'the scope is "anonymous", and {paid} moves money'
        yield Found("scope", seen, "name the account", Reset("scope", _ACCOUNT), _place(door, door.scope))


@rules.rule("AUD-13", Severity.WARNING, "contract R50", "After a restart, and in another process, every retry is new.")
def store_forgets(surface: Surface, _: Asked) -> Iterator[Found]:
    """Records outlive the process."""
    door = surface.door
    if door is not None and door.store == "memory":
        remedy = Reset("store", "sqlite:///retrysafe.db")
        seen = "the store is memory://, which forgets everything when its process ends"
        yield Found("store", seen, "use a store that keeps them", remedy, _place(door, "memory://"))


@rules.rule("AUD-14", Severity.ERROR, "contract R17", "Every request with a key is refused with 401.")
def before_authentication(surface: Surface, _: Asked) -> Iterator[Found]:
    """The door stands behind what finds the user that its scope asks for."""
    if surface.before_authentication:
        seen = 'AuthenticationMiddleware stands behind retrysafe\'s in MIDDLEWARE, and SCOPE is "user"'
        yield Found("scope", seen, "put it before", Behind(), surface.file)


@rules.rule("AUD-15", Severity.ERROR, "contract R11, R44", "What the mark says does not hold: no key is required, say.")
def marks_not_read(surface: Surface, _: Asked) -> Iterator[Found]:
    """What handlers are marked with is read by the door in front of them."""
    door = surface.door
    if door is None or door.is_routed:
        return
    for operation in surface.operations:
        if operation.options is not None:
            yield of_operation(
                operation,
                "its handler is marked with @idempotent, and the door in front of it reads no marks",
                f"use the middleware of retrysafe.{surface.kind.value}, which asks the router",
                Glue(),
            )


def _place(door: Door | None, said: str) -> Place | None:
    """The line that says it, in the file of the door."""
    place = door.place if door else None
    return None if place is None else Place(place.file, line_with(place.file, said))
