"""The paths at which a door answers by itself: what became of a key, and what it promises (contract R98, R82)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace

from retrysafe.errors import ConfigurationError
from retrysafe.model import Response
from retrysafe.protocol.policy import Policy
from retrysafe.protocol.published import Published
from retrysafe.server.routes import Route

OWN_METHODS = frozenset({"GET", "HEAD"})
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
    check_path("status_path", path, "/idempotency/requests")
    asking = replace(policy, mode="protect", required=True, key_length_min=1, key_length_max=1_024)
    return Route(path, asking, frozenset())


def check_path(setting: str, path: str | None, example: str) -> str | None:
    """A path at which a door answers by itself.

    Args:
        setting: that it was given as.
        path: as it is sent, under where the application is mounted; None for none.
        example: of one.

    Raises:
        ConfigurationError: it is no such path.
    """
    if path is not None and (not isinstance(path, str) or not _PATH.fullmatch(path)):
        raise ConfigurationError([f"{setting} is {path!r}; it must be a path without escapes, like {example}"])
    return path


def own_answer(
    method: str, path: str, status: Route | None, contract_path: str | None, published: Callable[[], Published]
) -> Response | None:
    """The answer at a path of the door itself that needs no look at a record; None for every other request.

    Args:
        method: of the request, upper case.
        path: of it, under where the application is mounted.
        status: the door's `status_route`.
        contract_path: of the door.
        published: says what the door promises.
    """
    if path == contract_path:
        return contract_answer(published(), method)
    is_status = status is not None and path == status.entry
    return METHOD_NOT_ALLOWED if is_status and method not in OWN_METHODS else None


def contract_answer(published: Published, method: str) -> Response:
    """The answer to whoever asks for the contract; nothing in it is anybody's secret.

    Args:
        published: what is promised.
        method: of the request.
    """
    if method not in OWN_METHODS:
        return METHOD_NOT_ALLOWED
    content = json.dumps(published.document(), separators=(",", ":")).encode()
    headers = (
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(content)),
        (b"cache-control", b"no-cache"),  # it changes with a deployment, and nobody says when that will be
    )
    return Response(200, headers, b"" if method == "HEAD" else content)
