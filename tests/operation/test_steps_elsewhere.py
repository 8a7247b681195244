"""Steps at the other doors: a WSGI application, and functions of both colours."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from typing import Any

import pytest

from retrysafe import Policy, operation
from retrysafe.functions import once
from retrysafe.operation import StepCall
from retrysafe.protocol.flow import RESUME_AFTER_MS
from retrysafe.stores.memory import MemoryStore
from retrysafe.wsgi import IdempotencyMiddleware
from tests.drive.harness import ManualClock

RESEND: dict[str, Any] = {"if_interrupted": "resend", "downstream_window": "1h"}
RERUN = Policy(recovery="rerun")


class Bank:
    """The other side: it does what it is told, and does not answer the first time."""

    def __init__(self) -> None:
        self.calls: list[StepCall] = []

    def charge(self, call: StepCall) -> str:
        """Charge."""
        self.calls.append(call)
        if len(self.calls) == 1:
            raise TimeoutError
        return "charged"

    async def charge_async(self, call: StepCall) -> str:
        """The same on a loop."""
        return self.charge(call)


def test_a_wsgi_application():
    """A failure in the middle is told as one to retry, and the retry goes on from there."""
    clock, bank = ManualClock(), Bank()

    def application(environ: Any, start_response: Any) -> list[bytes]:
        charged = operation().step("charge", bank.charge, **RESEND)
        start_response("201 Created", [("Content-Type", "text/plain")])
        return [charged.encode()]

    store = MemoryStore(clock)
    door = IdempotencyMiddleware(application, store=store, scope="header:X-Account", policy=RERUN)

    def ask() -> tuple[str, bytes]:
        said: list[str] = []
        environ = {
            "REQUEST_METHOD": "POST", "PATH_INFO": "/orders", "QUERY_STRING": "", "CONTENT_LENGTH": "0",
            "HTTP_IDEMPOTENCY_KEY": "k-1", "HTTP_X_ACCOUNT": "alice", "wsgi.input": io.BytesIO(),
            "wsgi.url_scheme": "http",
        }  # fmt: skip
        content: list[bytes] = []

        def start(status: str, *_: Any) -> Any:
            said.append(status)
            return content.append

        with contextlib.suppress(TimeoutError):  # the server hears of it, once the client has its answer
            for piece in door(environ, start):
                content.append(piece)  # noqa: PERF402 - what came before it raised counts
        return said[0], b"".join(content)

    status, content = ask()
    assert status.startswith("500")
    assert json.loads(content)["retryable"] is True
    assert ask()[0].startswith("409")
    clock.now_ms += RESUME_AFTER_MS
    assert [ask() for _ in range(2)] == [("201 Created", b"charged")] * 2
    assert [call.attempt for call in bank.calls] == [1, 2]
    assert len({call.key for call in bank.calls}) == 1


@pytest.mark.parametrize("colour", ["blocking", "async"])
def test_a_function(colour):
    """Its caller gets what the step raised; the next call goes on from there, and later ones have the result."""
    clock, bank = ManualClock(), Bank()
    store = MemoryStore(clock)

    @once(key="job-{number}", scope="jobs", store=store, policy=RERUN)
    def blocking(number: int) -> dict[str, str]:
        return {"job": operation().step("charge", bank.charge, **RESEND)}

    @once(key="job-{number}", scope="jobs", store=store, policy=RERUN)
    async def asynchronous(number: int) -> dict[str, str]:
        return {"job": await operation().step("charge", bank.charge_async, **RESEND)}

    def call() -> Any:
        return blocking(7) if colour == "blocking" else asyncio.run(asynchronous(7))

    with pytest.raises(TimeoutError):
        call()
    clock.now_ms += RESUME_AFTER_MS
    assert [call() for _ in range(2)] == [{"job": "charged"}] * 2
    assert [made.attempt for made in bank.calls] == [1, 2]
