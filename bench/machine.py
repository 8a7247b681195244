"""What the figures were measured on. A figure without its machine is a rumour."""

from __future__ import annotations

import os
import platform
import sqlite3
import statistics
import subprocess
import time
from importlib import metadata
from pathlib import Path

_PACKAGES = ("uvicorn", "uvloop", "httptools", "fastapi", "aiohttp", "asyncpg", "asyncmy", "hiredis", "http-sf")
_SYNCS = 200


def describe(folder: Path) -> dict[str, str]:
    """The machine, the versions, and what a durable write costs in that folder."""
    return {
        "processor": f"{_field('/proc/cpuinfo', 'model name')}, {os.cpu_count()} cores",
        "memory": f"{int(_field('/proc/meminfo', 'MemTotal').split()[0]) // (1 << 20)} GiB",
        "system": f"{_field('/etc/os-release', 'PRETTY_NAME', '=')}, Linux {platform.release()}",
        "python": f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}",
        "packages": ", ".join(f"{name} {metadata.version(name)}" for name in _PACKAGES),
        "wrk": f"wrk {_output('wrk', '--version').split()[1]}",
        "disk": f"{_output('stat', '--file-system', '--format=%T', str(folder)).strip()}, "
        f"write and fdatasync of 4 KiB {sync_us(folder):.0f} us p50",
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def sync_us(folder: Path) -> float:
    """Microseconds, p50, of writing 4 KiB and waiting until the disk has them."""
    path = folder / "sync.probe"
    took_ns = []
    with path.open("wb", buffering=0) as probe:
        for _ in range(_SYNCS):
            started_ns = time.perf_counter_ns()
            probe.write(bytes(4_096))
            os.fdatasync(probe.fileno())
            took_ns.append(time.perf_counter_ns() - started_ns)
    path.unlink()
    return statistics.median(took_ns) / 1_000


def _field(path: str, name: str, separator: str = ":") -> str:
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    values = [value.strip(' "') for field, _, value in (line.partition(separator) for line in lines)
              if field.strip() == name]  # fmt: skip
    return values[0] if values else "unknown"


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout
