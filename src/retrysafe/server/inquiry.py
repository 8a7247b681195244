"""The path at which clients ask what became of a key: as a route of the door's own (contract R98)."""

from __future__ import annotations

import re
from dataclasses import replace

from retrysafe.errors import ConfigurationError
from retrysafe.model import Response
from retrysafe.protocol.policy import Policy
from retrysafe.server.routes import Route

STATUS_METHODS = frozenset({"GET", "HEAD"})
METHOD_NOT_ALLOWED = Response(405, ((b"allow", b"GET, HEAD"), (b"content-length", b"0")))

_PATH = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@/-]+")  # what is the same decoded and as it is sent


def status_route(path: str | None, policy: Policy) -> Route | None:
    """The route of a path at which a door answers by itself; None without a path.

    Args:
        path: as it is sent; under where the application is mounted.
        policy: the default of the door. It names the field of the key; a key of any length may be asked for.

    Raises:
        ConfigurationError: it is no such path.
    """
    if path is None:
        return None
    if not isinstance(path, str) or not _PATH.fullmatch(path):
        raise ConfigurationError(
            [f"status_path is {path!r}; it must be a path without escapes, like /idempotency/requests"]
        )
    asking = replace(policy, required=True, key_length_min=1, key_length_max=1_024)
    return Route(path, asking, frozenset())
