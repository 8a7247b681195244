"""The provisioning example: killed while its provider is at work, it makes one machine with one name."""

from __future__ import annotations

import threading
from functools import partial

import httpx2
import pytest

from tests.doors.servers import until
from tests.examples.serving import example, get, kill, post

NAME, ORDER = "provisioning_starlette", {"name": "web", "size": "small"}
ONE_MACHINE = {"machines": [{"machine": "m-1", "size": "small", "label": "web"}], "names": {"ann/web": "m-1"}}


def serving(place, provider):
    """The application, before a provider."""
    return example(NAME, place, "/ready", PROVIDER_URL=provider.url, STORE="sqlite:///records.db", LEASE="1s")


def test_machines(tmp_path):
    """An order, the same again, and another under the same key."""
    with (
        example(NAME, tmp_path, "/", module="provider", PROVIDER_SLOW_S="0") as provider,
        serving(tmp_path, provider) as server,
    ):
        first, again = (post(server, "/machines", "k-1", ORDER) for _ in range(2))
        assert first.json() == again.json() == {"machine": "m-1", "size": "small", "name": "web"}
        assert (first.status_code, again.headers["idempotent-replayed"]) == (201, "true")
        assert first.headers["location"] == "/machines/m-1"
        assert post(server, "/machines", "k-1", {**ORDER, "size": "large"}).status_code == 422
        assert post(server, "/machines", None, ORDER).json()["code"] == "key-missing"
        assert get(provider, "/") == ONE_MACHINE
        assert post(server, "/machines", "k-2", ORDER).status_code == 409


def test_crashes_while_the_provider_is_at_work(tmp_path):
    """Once in each call: the first is sent again, the second is asked after, and nothing is done twice."""
    with example(NAME, tmp_path, "/", module="provider", PROVIDER_SLOW_S="600") as provider:
        for reached in ("machines", "names"):
            with serving(tmp_path, provider) as server:
                attempting = threading.Thread(target=_broken_attempt, args=(server,))
                attempting.start()
                until(partial(_has, provider, reached))
                kill(server)
                attempting.join()
        with serving(tmp_path, provider) as server:
            answer = post(server, "/machines", "k-1", ORDER)
        assert (answer.status_code, answer.json()) == (201, {"machine": "m-1", "size": "small", "name": "web"})
        assert get(provider, "/") == ONE_MACHINE


def _has(provider, what):
    return get(provider, "/")[what]


def _broken_attempt(server):
    with pytest.raises(httpx2.TransportError):
        post(server, "/machines", "k-1", ORDER)
