"""The peers: what else makes Python services safe to retry, each in an environment of its own."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

_SAME = ("uvicorn", "uvloop", "httptools", "fastapi", "starlette")  # in the versions that everything else is served by


class AbsentError(Exception):
    """A peer cannot be installed here; the message is what pip said."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A package.

    Attributes:
        name: of the distribution.
        version: the one that is compared.
        extras: as its README has it installed.
        besides: other distributions that its README names for this use.
    """

    name: str
    version: str
    extras: str = ""
    besides: tuple[str, ...] = ()

    @property
    def requirement(self) -> str:
        """For pip."""
        return f"{self.name}{f'[{self.extras}]' if self.extras else ''}=={self.version}"


IDEMKIT = Peer("idemkit", "1.0.2", "asgi,redis,postgres")
ASGI_IDEMPOTENCY_HEADER = Peer("asgi-idempotency-header", "0.2.0", besides=("redis",))
MOBIUS = Peer("mobius-idempotence-library", "0.2.1", "redis")
IDEMPOTENCY_KIT = Peer("idempotency-kit", "0.5.0", "redis")
PYIDEMPOTENT = Peer("pyidempotent", "0.1.0", "redis,fastapi")
POWERTOOLS = Peer("aws-lambda-powertools", "3.37.0", "redis", besides=("boto3",))  # which it imports for any store


def python_of(peer: Peer, folder: Path) -> Path:
    """The interpreter of the peer's environment, which is built if it is not there.

    Raises:
        AbsentError: it does not install.
    """
    environment = folder / f"{peer.name}-{peer.version}"
    python, ready = environment / "bin" / "python", environment / "ready"
    if not ready.exists():
        print(f"bench: {peer.requirement} into {environment}", file=sys.stderr, flush=True)
        _run(sys.executable, "-m", "venv", "--clear", str(environment))
        same = [f"{name}=={metadata.version(name)}" for name in _SAME]
        _run(str(python), "-m", "pip", "install", "--quiet", "--no-user", peer.requirement, *peer.besides, *same)
        ready.touch()
    return python


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AbsentError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"{command[0]} failed")
