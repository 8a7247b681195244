"""Which record a person means: by its id, or by the key that its client sent."""

from __future__ import annotations

import re
from collections.abc import Iterator

from retrysafe.errors import ConfigurationError, RetrysafeError
from retrysafe.model import Head, State
from retrysafe.protocol.key import Key, parse_key, record_id
from retrysafe.protocol.policy import Policy
from retrysafe.protocol.transitions import ListRecords
from retrysafe.stores.contract import Store

ID_BYTES = 32
PREFIX_DIGITS_MIN = 8  # so many of them are in the logs
_PAGE = 1_000
_ID = re.compile(rf"[0-9a-f]{{{PREFIX_DIGITS_MIN},{2 * ID_BYTES}}}")


_NO_ID = (
    f"a record is named by the {2 * ID_BYTES} hexadecimal digits of its id, or the first {PREFIX_DIGITS_MIN} or more "
    "of them; a client's key is given by --key-file"
)

CHECK = "check that it is the right store, and of a key its spelling, --account and --namespace"


class NoSuchRecord(RetrysafeError):
    """There is no such record, or more than one; nothing was changed."""


def by_id(store: Store, text: str) -> bytes:
    """The id of the record that somebody wrote down: all of it, or its beginning, as logs have it.

    Of a beginning every record is looked at, once; a record that is gone is found by its whole id only.

    Args:
        store: opened.
        text: hexadecimal digits, at least `PREFIX_DIGITS_MIN`.

    Raises:
        ConfigurationError: it can be no id.
        NoSuchRecord: no record's id begins like this, or several do.
        StoreError: the store failed.
    """
    digits = text.strip().lower()
    if not _ID.fullmatch(digits):
        raise ConfigurationError([_NO_ID])
    if len(digits) == 2 * ID_BYTES:
        return bytes.fromhex(digits)
    found = sorted({identity for identity in _ids(store) if identity.hex().startswith(digits)})
    if len(found) == 1:
        return found[0]
    if not found:
        raise NoSuchRecord(f"no record's id begins with {digits}; one that is gone is found by its whole id")
    raise NoSuchRecord(f"{len(found)} records' ids begin with {digits}; give more digits")


def _ids(store: Store) -> Iterator[bytes]:
    after: bytes | None = b""
    while after is not None:
        page = store.perform(ListRecords(tuple(State), after=after, batch_max=_PAGE))
        yield from (listed.record_id for listed in page.records)
        after = page.next_after


def by_key(secret: bytes, namespace: str, account: str, spelling: str) -> bytes:
    """The id of the record of a client's key.

    Args:
        secret: of the store.
        namespace: of the deployment.
        account: as the scope of the door gives it; `anonymous` where there are none.
        spelling: of the key, as the client sent it, with or without quotes.

    Raises:
        ConfigurationError: it is no key, or there is no account. The message has nothing of either.
    """
    policy = Policy(key_length_max=1_024)  # the longest that any route may allow
    line = (policy.header_field, spelling.strip().encode("utf-8", "surrogateescape"))
    key = parse_key(Head("POST", b"/", b"", (line,)), policy)
    if not isinstance(key, Key):
        raise ConfigurationError(["what was given is not one idempotency key; give it as the client sends it"])
    if not account:
        raise ConfigurationError(["a key belongs to an account; give it by --account, or --account-file"])
    return record_id(secret, namespace, account, key)
