"""One MySQL or MariaDB server: may it be used, is the schema ours, and what its errors mean.

Refused are servers that cannot keep the promise: a replica, a table that is not InnoDB, a binary log by
statement, a newer schema. A server that acknowledges before its disk has written is used, and a
warning says what may be lost.

All of this is texts for a conversation with the server, and judgements of what it said; who speaks, and
in which colour, is elsewhere.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, cast

from retrysafe.errors import StoreError, StoreUnavailable, StoreUnusable
from retrysafe.stores.contract import agree_on_secret
from retrysafe.stores.migrations import Migration, needed
from retrysafe.stores.mysql_sql import Result, Rows, literal

# ruff: noqa: S608 - texts are made of constants of this package and of `literal`

_LOG = logging.getLogger("retrysafe.stores.mysql")

CONNECT_S = 5
MIGRATING_S = 60
_STRICT = "STRICT_ALL_TABLES"
_SQL_MODE = f"{_STRICT},ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION"
_SINCE = {"MariaDB": (10, 6), "MySQL": (8, 0)}  # SKIP LOCKED; older ones are no longer maintained either


@dataclass(frozen=True, slots=True)
class Address:
    """Where the server is, and who we are there.

    Attributes:
        host: name or address.
        port: of the server.
        user: the account.
        password: its password.
        database: the records are in its tables, whose names begin with `retrysafe_`.
        tls: speak TLS only, and to nobody but the host that the certificate names.
        tls_ca: a file of the certificates to trust; None for those that the system trusts.
    """

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    database: str
    tls: bool = False
    tls_ca: str | None = None

    @property
    def name(self) -> str:
        """For people, without the password."""
        return f"mysql {self.host}:{self.port}/{self.database}"


class ServerError(Exception):
    """The server refused a text, or was lost over it.

    Args:
        code: the server's number, or the client library's if it is 2000 or above.
        said: what it said.
    """

    def __init__(self, code: int, said: str) -> None:
        super().__init__(code, said)
        self.code = code
        self.said = said

    @property
    def lost(self) -> bool:
        """The connection is gone, or there never was one: what was asked may or may not have been done."""
        return 2000 <= self.code < 3000 or self.code in _LAST_WORDS


class Conversation(Protocol):
    """One connection, in one of the colours."""

    async def ask(self, text: str) -> Sequence[Result]:
        """What each statement of the text came to. Raises `ServerError` where the server stopped."""


# --- a connection -------------------------------------------------------------------------------


def setup(lock_wait_s: int) -> str:
    """The text that begins every conversation; `examine` judges the last of its results."""
    return (
        f"SET SESSION sql_mode = '{_SQL_MODE}', autocommit = 1,"
        f" innodb_lock_wait_timeout = {lock_wait_s}, lock_wait_timeout = {lock_wait_s}, wait_timeout = 3600;"
        " SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED;"
        " SHOW SESSION VARIABLES WHERE Variable_name IN ('version', 'sql_mode', 'tx_isolation',"
        " 'transaction_isolation', 'read_only', 'super_read_only', 'innodb_read_only', 'log_bin', 'binlog_format',"
        " 'innodb_flush_log_at_trx_commit', 'sync_binlog', 'max_allowed_packet')"
    )


def examine(name: str, shown: Result) -> Mapping[str, str]:
    """The server's variables, as the last statement of `setup` shows them, if it may be used.

    Raises:
        StoreUnusable: it may not.
    """
    said = {str(row[0]): str(row[1]) for row in cast(Rows, shown)}
    if reason := unusable(said):
        raise StoreUnusable(f"{name}: {reason}")
    return said


def unusable(said: Mapping[str, str]) -> str | None:
    """Why a server with these variables must not be used; None if it may."""
    kind = "MariaDB" if "mariadb" in said["version"].lower() else "MySQL"
    version = tuple(int(number) for number in re.findall(r"\d+", said["version"])[:2])
    if version < _SINCE[kind]:
        return f"it is {kind} {said['version']}; use at least {kind} {'.'.join(map(str, _SINCE[kind]))}"
    if any(said.get(name) == "ON" for name in ("read_only", "super_read_only", "innodb_read_only")):
        return "it is read-only, as a replica is, which may lag behind: name the server where writes go"
    if _STRICT not in said["sql_mode"]:
        return f"it does not take sql_mode = {_STRICT}, and would cut values off; look for what resets the mode"
    if said.get("transaction_isolation", said.get("tx_isolation")) != "READ-COMMITTED":
        return "it does not take READ COMMITTED, and would show stale records; look for what resets the isolation"
    if said.get("log_bin") == "ON" and said.get("binlog_format") == "STATEMENT":
        return "its binary log is by statement, which allows no READ COMMITTED: set binlog_format to ROW or MIXED"
    return None


def may_lose(said: Mapping[str, str]) -> str | None:
    """What a server with these variables may lose of what it acknowledged; None if nothing."""
    if said.get("innodb_flush_log_at_trx_commit") != "1":
        return (
            "innodb_flush_log_at_trx_commit is not 1: a crash may lose the records of the last second or more, "
            "and a retry of such a request runs again"
        )
    if said.get("log_bin") == "ON" and said.get("sync_binlog") != "1":
        return (
            "sync_binlog is not 1: a crash of the machine may lose records that were acknowledged, here or on the "
            "replicas, and a retry of such a request runs again"
        )
    return None


CHECK = "UPDATE retrysafe_meta SET only_row = 1 WHERE only_row = 1; SELECT must_know FROM retrysafe_meta"
"""Asked before a connection serves records, and judged by `check`; a server that takes no writes refuses it."""


def check(name: str, matched: Result, rows: Result, migrations: int) -> None:
    """Does a condition count the rows that it matched, and is the schema still one that this release knows?

    Args:
        name: of the store.
        matched: what the update of `CHECK` came to.
        rows: what it looked at then.
        migrations: how many this release knows.

    Raises:
        StoreUnusable: no.
    """
    if matched != 1:
        raise StoreUnusable(
            f"{name} reports the rows that changed and not those that matched, so that nobody knows who won: "
            "something between here and the server drops CLIENT_FOUND_ROWS; connect without it"
        )
    _refuse_newer(name, cast(Rows, rows)[0][0], migrations)


# --- the schema ---------------------------------------------------------------------------------


async def missing(name: str, conversation: Conversation, migrations: Sequence[Migration]) -> tuple[Migration, ...]:
    """Those of the migrations that the database has not gone through, each with what says that it is done.

    Args:
        name: of the store.
        conversation: set up.
        migrations: all that this release knows.

    Raises:
        StoreUnusable: the tables are newer than this release can work with, or another application's.
    """
    try:
        (rows,) = await conversation.ask("SELECT migrations, must_know FROM retrysafe_meta")
    except ServerError as error:
        if error.code != _NO_SUCH_TABLE:
            raise
        rows = ()
    gone, must_know = cast(Rows, rows)[0] if rows else (0, 0)
    _refuse_newer(name, must_know, len(migrations))
    return tuple(_completed(migrations, migration) for migration in migrations[gone:])


async def bring_up_to_date(
    name: str, conversation: Conversation, migrations: Sequence[Migration], last: int
) -> tuple[Migration, ...]:
    """Go through what is missing up to a migration; answered by that.

    Of processes that start together one does. A lock by name says which, because what makes tables commits.

    Args:
        name: of the store.
        conversation: set up.
        migrations: all that this release knows.
        last: the number of the last that is to be gone through.
    """
    if not _until(last, await missing(name, conversation, migrations)):
        return ()
    lock = "CONCAT('retrysafe ', MD5(DATABASE()))"
    (rows,) = await conversation.ask(f"SELECT GET_LOCK({lock}, {MIGRATING_S})")
    if cast(Rows, rows)[0][0] != 1:
        raise StoreUnavailable(f"{name}: another process has been upgrading the schema for {MIGRATING_S} s; try again")
    those = _until(last, await missing(name, conversation, migrations))
    for migration in those:
        await conversation.ask(migration.script.rstrip().removesuffix(";"))
    await conversation.ask(f"SELECT RELEASE_LOCK({lock})")
    return those


async def make_ready(name: str, conversation: Conversation, said: Mapping[str, str], given: bytes | None) -> bytes:
    """Examine the tables and agree on the secret.

    Args:
        name: of the store.
        conversation: set up.
        said: the server's variables.
        given: the operator's secret, if any.
    """
    if loss := may_lose(said):
        _LOG.warning("%s: %s", name, loss)
    engines = await conversation.ask(
        "SELECT table_name, engine FROM information_schema.tables WHERE table_schema = DATABASE()"
        " AND table_name IN ('retrysafe_meta', 'retrysafe_records', 'retrysafe_answers', 'retrysafe_history')"
    )
    for table, engine in cast(Rows, engines[0]):
        if str(engine).lower() != "innodb":
            raise StoreUnusable(
                f"{name}: {table} is {engine}, which loses what it acknowledged: ALTER TABLE {table} ENGINE = InnoDB"
            )
    return await _agree(conversation, given)


def _until(last: int, migrations: Sequence[Migration]) -> tuple[Migration, ...]:
    return tuple(migration for migration in migrations if migration.number <= last)


def _completed(migrations: Sequence[Migration], migration: Migration) -> Migration:
    number = migration.number
    done = f"UPDATE retrysafe_meta SET migrations = {number}, must_know = {needed(migrations, number)};\n"
    return replace(migration, script=migration.script.rstrip("\n") + "\n" + done)


def _refuse_newer(name: str, must_know: int, migrations: int) -> None:
    if must_know > migrations:
        raise StoreUnusable(
            f"{name} has gone through migration {must_know} after a deployment, and this release knows {migrations}: "
            "upgrade retrysafe"
        )


async def _agree(conversation: Conversation, given: bytes | None) -> bytes:
    """Agreed once, and only looked at ever after. Whoever is refused leaves without a commit."""
    look = "SELECT secret, secret_check FROM retrysafe_meta"
    (rows,) = await conversation.ask(look)
    ((held, known),) = cast(Rows, rows)
    if known is None:
        _, rows = await conversation.ask(f"START TRANSACTION; {look} FOR UPDATE")
        ((held, known),) = cast(Rows, rows)
    secret, to_hold, new_check = agree_on_secret(given, held, known)
    if known is None:
        keep = f"secret = {literal(to_hold)}, secret_check = {literal(new_check)}"
        await conversation.ask(f"UPDATE retrysafe_meta SET {keep}; COMMIT")
    return secret


# --- what errors mean ---------------------------------------------------------------------------

_NO_SUCH_TABLE = 1146
_LOCK_WAIT = 1205
_DEADLOCK = 1213
CONFLICTS = frozenset({_DEADLOCK, 1020, 3101})  # all undone by the server: deadlock, and what clusters say instead

# The connection is of no use after these, or the next one may lead to a better server.
_LAST_WORDS = frozenset({1040, 1053, 1152, 1153, 1154, 1155, 1156, 1157, 1158, 1159, 1160, 1161, 1184, 1203, 1226})
_LAST_WORDS |= {1223, 1290, 1317, 1792, 1836, 1927, 3024, 3168, 4031}

_ADVICE: Mapping[int, tuple[type[StoreError], str]] = {
    _LOCK_WAIT: (
        StoreUnavailable,
        "somebody has held the record, or its table, for too long; nothing was applied: end that transaction",
    ),
    _DEADLOCK: (StoreUnavailable, "others were always in the way; nothing was applied"),
    1021: (StoreUnavailable, "the disk is full; make room"),
    1114: (StoreUnavailable, "the table is full; make room"),
    1040: (StoreUnavailable, "it has too many connections; raise max_connections"),
    1203: (StoreUnavailable, "the account has too many connections; raise max_user_connections"),
    1226: (StoreUnavailable, "the account has used up a limit of its own; raise it"),
    1153: (StoreUnavailable, "a response or a request is larger than the server takes; raise max_allowed_packet"),
    1290: (StoreUnavailable, "it takes no writes now, as a replica; name the server where writes go"),
    1792: (StoreUnavailable, "it takes no writes now, as a replica; name the server where writes go"),
    1836: (StoreUnavailable, "it takes no writes now, as a replica; name the server where writes go"),
    1044: (StoreUnusable, "the account may not use the database; GRANT it"),
    1045: (StoreUnusable, "the account or its password is wrong"),
    1698: (StoreUnusable, "the account or its password is wrong"),
    1049: (StoreUnusable, "there is no such database; create it"),
    1142: (
        StoreUnusable,
        "the account lacks a right; GRANT it SELECT, INSERT, UPDATE, DELETE; and CREATE, ALTER, INDEX to upgrade",
    ),
    _NO_SUCH_TABLE: (
        StoreUnusable,
        "its tables are gone, and with them what they recorded; restore them, or open the store anew",
    ),
    1054: (StoreUnusable, "its tables are not ours; use another database"),
}


_OWN_ERRORS = 1_000  # below are those of the system that the server runs on (mysys: EE_DELETE, EE_DISK_FULL)


def failure_of(name: str, error: ServerError) -> StoreError:
    """What callers are to hear. Never what the server quotes: it might be a part of a stored answer."""
    code = _DEADLOCK if error.code in CONFLICTS else error.code
    if code in _ADVICE:
        kind, advice = _ADVICE[code]
        return kind(f"{name}: error {error.code}; {advice}")
    if error.lost:
        said = error.said if error.code >= 2000 else "it ended the conversation"
        return StoreUnavailable(f"{name}: error {error.code}, {said}; look whether the server is up and can be reached")
    if error.code < _OWN_ERRORS:
        return StoreUnavailable(f"{name}: error {error.code} with the server's own files or memory; its log has more")
    return StoreError(f"{name} does not take the values of this transition: error {error.code}")
