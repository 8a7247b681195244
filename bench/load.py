"""One run of wrk, on a core of its own."""

from __future__ import annotations

import json
import secrets
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from bench.bare import padded

CORE = 1
BODY = padded({"amount": 1250, "currency": "eur", "customer": "cus_9s6XKzkNRiz8i3", "metadata": {"order": "4711"}}, 200)
_SCRIPT = Path(__file__).with_name("post.lua")
_PREFIX_CHARACTERS = 27  # with the counter, a key is as long as a UUID


class SpoiltError(Exception):
    """A measurement that must not be believed: something answered wrongly, or not at all."""


def _new_prefix() -> str:
    return secrets.token_hex(_PREFIX_CHARACTERS)[:_PREFIX_CHARACTERS]


@dataclass(frozen=True, slots=True)
class Keys:
    """Which keys the requests of one run carry.

    Attributes:
        ring: how many keys there are, used in turn; 0: each request has a key of its own.
        quoted: whether a key is sent as a quoted string, as RFC 9651 has it, or bare.
        prefix: of each key; random, so that no two runs share a key.
    """

    ring: int = 0
    quoted: bool = True
    prefix: str = field(default_factory=_new_prefix)

    @property
    def quote(self) -> str:
        """What stands before and after a key."""
        return '"' if self.quoted else ""

    def all(self) -> list[str]:
        """The keys of the ring, as post.lua spells them."""
        return [f"{self.quote}{self.prefix}-{number:08d}{self.quote}" for number in range(1, self.ring + 1)]


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk saw.

    Attributes:
        requests: answers of any kind.
        failed: answers that were no success, connections that failed, and answers that did not come.
        per_second: answers that were a success.
        p50_us, p99_us: of every answer.
    """

    requests: int
    failed: int
    per_second: float
    p50_us: int
    p99_us: int


def fire(url: str, *, keys: Keys, concurrency: int, seconds: int) -> Load:
    """Send requests for so long, each connection waiting for its answer before the next one.

    Raises:
        SpoiltError: wrk failed, or no request was answered.
    """
    command = f"taskset --cpu-list {CORE} wrk --threads 1 --timeout 10s --connections {concurrency}".split()
    command += ["--duration", f"{seconds}s", "--script", str(_SCRIPT), url, "--"]
    command += [keys.prefix, str(keys.ring), keys.quote, BODY.decode()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode or not lines:
        raise SpoiltError(f"wrk failed with {done.returncode}: {done.stdout}{done.stderr}")
    return _load(json.loads(lines[0].removeprefix("RESULT ")))


def _load(result: dict[str, int]) -> Load:
    if not result["requests"]:
        raise SpoiltError("no request was answered")
    return Load(
        requests=result["requests"],
        failed=sum(result[name] for name in ("connect", "read", "write", "status", "timeout")),
        per_second=(result["requests"] - result["status"]) * 1e6 / result["duration_us"],
        p50_us=result["p50_us"],
        p99_us=result["p99_us"],
    )
