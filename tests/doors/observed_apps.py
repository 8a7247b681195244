"""The shops of `apps` and `wsgi_apps` behind doors that only observe, and behind none (`SHOP_DOOR=none`)."""

from __future__ import annotations

import os
from typing import Any

import retrysafe.server.observing
from retrysafe import Policy
from retrysafe.asgi import IdempotencyMiddleware
from retrysafe.wsgi import IdempotencyMiddleware as BlockingMiddleware
from tests.doors import apps, wsgi_apps
from tests.doors.gates import PLACE

retrysafe.server.observing.WRITTEN_EVERY_S = 0.05  # so that a test can wait for counts
_IS_BARE = os.environ.get("SHOP_DOOR") == "none"
_SETTINGS: dict[str, Any] = {
    "store": os.environ.get("SHOP_STORE", f"sqlite:///{PLACE / 'records.db'}"),
    "scope": "header:X-Account",
    "routes": {"POST /required/told": Policy(required=True), "POST /small/told": Policy(request_bytes_max=200)},
    "mode": "observe",
}

application = apps.shop if _IS_BARE else IdempotencyMiddleware(apps.shop, status_path="/ready", **_SETTINGS)
blocking = wsgi_apps.shop if _IS_BARE else BlockingMiddleware(wsgi_apps.shop, status_path="/ready", **_SETTINGS)
