"""Which operation a call belongs to, and its key.

Without a name each call is an operation of its own, under a random key. `with intent("order-4711"):` names one: all
calls inside of it with the same method and URL are the same operation, in a retry loop of the caller's and in a
process that was started again, and carry the same key (contract R84, R96).
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from retrysafe.client.profile import Profile, Spelling
from retrysafe.errors import CallerError
from retrysafe.protocol.framing import frame

NAME_CHARACTERS_MAX = 512

_current: ContextVar[str | None] = ContextVar("retrysafe_intent", default=None)


@contextmanager
def intent(name: str) -> Iterator[None]:
    """Name the operation of the calls inside: the same name, method and URL are the same key.

    Args:
        name: of what the user wants done, in your own words: `"order-4711"`; unique in your system. It is not sent:
            the key is a digest of it, or, with a journal, random and remembered.

    Raises:
        CallerError: the name is empty, or longer than 512 characters.
    """
    if not name or len(name) > NAME_CHARACTERS_MAX:
        raise CallerError(f"an intent needs a name of 1 to {NAME_CHARACTERS_MAX} characters; this one has {len(name)}")
    entered = _current.set(name)
    try:
        yield
    finally:
        _current.reset(entered)


def current_intent() -> str | None:
    """The name of the operation that the calling code is in."""
    return _current.get()


def random_key() -> str:
    """A key for an operation that nobody named, or that a journal remembers."""
    return str(uuid.uuid4())


def key_for(name: str, method: str, url: str) -> str:
    """The key of an intent's call: a UUID of version 8, which does not show the name (RFC 9562, section 5.8).

    Args:
        name: of the intent.
        method: upper case.
        url: absolute, without the fragment.
    """
    parts = (b"retrysafe intent", name.encode(), method.encode(), url.encode())
    number = int.from_bytes(hashlib.sha256(frame(*parts)).digest()[:16], "big") & ~(0xF << 76) & ~(0x3 << 62)
    return str(uuid.UUID(int=number | 8 << 76 | 2 << 62))  # the version and the variant


def spelled(key: str, profile: Profile) -> str:
    """The key as it is written in the profile's field."""
    return f'"{key}"' if profile.spelling is Spelling.QUOTED else key
