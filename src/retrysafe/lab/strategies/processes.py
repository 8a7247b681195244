"""The servers of a strategy, in processes that can be killed and are started again at the same place."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from retrysafe.errors import RetrysafeError
from retrysafe.lab.strategies.serve import HOST
from retrysafe.lab.strategies.shop import Where

_START_S_MAX = 60.0
_END_S_MAX = 15.0
_LOG_CHARACTERS_MAX = 2_000


class Server:
    """One process.

    Args:
        strategy: the name of what it serves.
        where: the databases.
        log: the file that takes what it prints.

    Attributes:
        port: where it listens, also after it was started again.
        kills: how often it was killed.
    """

    def __init__(self, strategy: str, where: Where, log: Path) -> None:
        self._strategy, self._where, self._log = strategy, where, log
        self._process: asyncio.subprocess.Process | None = None
        self._lock = asyncio.Lock()
        self.port = 0
        self.kills = 0

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{HOST}:{self.port}"

    async def start(self) -> None:
        """Start it, and wait until it is ready.

        Raises:
            RetrysafeError: it ended, or is not ready in time.
        """
        with self._log.open("ab") as sink:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "retrysafe.lab.strategies.serve", self._strategy, str(self.port)),
                stdin=subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=sink,
                cwd=self._where.folder,
                env=_environment(self._where),
            )
        assert self._process.stdout is not None, "it was asked for"
        try:
            async with asyncio.timeout(_START_S_MAX):
                line = (await self._process.stdout.readline()).decode()
        except TimeoutError:
            line = ""
        if not line.startswith("ready "):
            raise RetrysafeError(f"the server of {self._strategy} did not start. It printed: {self.printed()}")
        self.port = int(line.split()[1])

    async def kill(self) -> None:
        """End it in the middle of whatever it does, and start it again."""
        async with self._lock:
            if self._process is None:
                return
            self.kills += 1
            self._process.kill()
            await self._process.wait()
            await self.start()

    async def stop(self) -> None:
        """End it politely."""
        async with self._lock:
            process, self._process = self._process, None
            if process is None or process.returncode is not None:
                return
            process.terminate()
            try:
                async with asyncio.timeout(_END_S_MAX):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()

    def printed(self) -> str:
        """The end of what it printed."""
        return self._log.read_text("utf-8", "replace").strip()[-_LOG_CHARACTERS_MAX:] or "nothing"


def _environment(where: Where) -> dict[str, str]:
    """Ours without settings of our own, our path for modules, and where the databases are."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RETRYSAFE_")}
    paths = os.pathsep.join(os.path.abspath(path) for path in sys.path)  # noqa: PTH100 - "" is the current folder
    return {**inherited, "PYTHONPATH": paths, **where.environment()}


@asynccontextmanager
async def serving(strategy: str, where: Where, count: int) -> AsyncIterator[list[Server]]:
    """So many processes of a strategy, all ready; the first alone makes the tables."""
    servers = [Server(strategy, where, where.folder / f"{strategy}-{number}.log") for number in range(count)]
    try:
        await servers[0].start()
        await asyncio.gather(*(server.start() for server in servers[1:]))
        yield servers
    finally:
        await asyncio.gather(*(server.stop() for server in servers))
