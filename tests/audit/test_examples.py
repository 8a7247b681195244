"""The applications under `examples`, audited: they are what we tell others to do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SHOWN = {
    "bookings_flask": ("app:app",),
    "checkout_browser": ("app:app",),
    "payments_fastapi": ("app:app",),
    "provisioning_starlette": ("app:app",),
    "shop_django": ("--django", "examples.shop_django.settings"),
}


@pytest.mark.parametrize("name", SHOWN)
def test_example(name, tmp_path):
    """Nothing is found, with clients that go on for a day."""
    here = EXAMPLES.parent if name == "shop_django" else EXAMPLES / name
    environment = {
        **os.environ, "PYTHONPATH": f"{here}:{os.environ.get('PYTHONPATH', '')}",
        "DATABASE_URL": "postgresql://localhost/payments", "PROVIDER_URL": "http://127.0.0.1:1",
        "BOOKINGS_DATABASE": str(tmp_path / "bookings.db"), "SHOP_DATABASE": str(tmp_path / "shop.db"),
    }  # fmt: skip
    line = [sys.executable, "-m", "retrysafe", "audit", *SHOWN[name], "--retry-window", "24h"]
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["clean"]), done.stdout + done.stderr


def test_each_example_of_ours_is_audited():
    """Those that are Python; what is in another language stands behind the gateway."""
    assert {path.parent.name for path in EXAMPLES.glob("*/app.py")} | {"shop_django"} == set(SHOWN)
