"""Programs that tests need: the system's, and where it has none, those of Debian's packages."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
_QUIET = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}  # ask nothing, start no service


def installed(package: str, *names: str) -> str:
    """The path of a program. Root has its package installed if it is not there, by one process at a time.

    Args:
        package: of Debian.
        names: that the program may have; the first is the package's.

    Raises:
        RuntimeError: it is not there, and who runs this cannot install it.
    """
    if (found := _found(names)) is not None:
        return found
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise RuntimeError(f"this test needs {names[0]}: install it, on Debian as root by apt-get install {package}")
    with Path(tempfile.gettempdir(), "retrysafe-tests-apt-get.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _found(names) is None:
            for arguments in (["update"], ["install", "--yes", "--no-install-recommends", package]):
                subprocess.run(["apt-get", "-qq", *arguments], env=_QUIET, check=True, stdout=subprocess.DEVNULL)
    found = _found(names)
    assert found, f"{package} is installed, and {names[0]} is not in {_PATH}"
    return found


def _found(names: tuple[str, ...]) -> str | None:
    return next((path for name in names if (path := shutil.which(name, path=_PATH))), None)
