"""What a caller of a tool is answered: results as they are kept, and refusals that tell an agent what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from mcp_types import CallToolResult, TextContent

from retrysafe.errors import (
    CallerError,
    EarlierFailure,
    KeyExpired,
    KeyReused,
    OperationInProgress,
    OutcomeUnknown,
    ResultUnavailable,
    StoreError,
)
from retrysafe.server.tool_key import Wording
from retrysafe.value import value

REPLAYED = "idempotent-replayed"
"""In `_meta` of a result: true if it is that of an earlier call, and of no other (contract R58)."""

PROBLEM = "idempotency-problem"
"""In `_meta` of a refusal: its `code`, whether the same call is `retryable`, and `retry_after` in seconds."""

_STORED = "callToolResult"


class ResultCodec:
    """Results of a tool, whole: content blocks, structured content, and whether it is an error.

    Args:
        convert: from what a tool returns to its result; for records that the tool, or a person, completed with data.
    """

    def __init__(self, convert: Callable[[Any], CallToolResult]) -> None:
        self._convert = convert

    def encode(self, result: CallToolResult) -> bytes:
        """The result as JSON."""
        return json.dumps({_STORED: result.model_dump(mode="json", by_alias=True)}, allow_nan=False).encode()

    def decode(self, content: bytes) -> CallToolResult:
        """The result again."""
        stored = json.loads(content)
        if isinstance(stored, dict) and set(stored) == {_STORED}:
            return CallToolResult.model_validate(stored[_STORED])
        return self._convert(stored)


def replayed(result: CallToolResult) -> CallToolResult:
    """The result of an earlier call, marked."""
    return result.model_copy(update={"meta": {**(result.meta or {}), REPLAYED: True}})


@value
class Refusal:
    """Why a call got no result of the tool.

    Attributes:
        code: of the problem, as over HTTP.
        text: for the agent: what was seen, and what to do.
        retryable: the same call may be made again.
        retry_after_s: when, if that is known.
    """

    code: str
    text: str
    retryable: bool = False
    retry_after_s: int | None = None

    def result(self) -> CallToolResult:
        """As the result of the call."""
        problem: dict[str, Any] = {"code": self.code, "retryable": self.retryable}
        if self.retry_after_s is not None:
            problem["retry_after"] = self.retry_after_s
        return CallToolResult(
            content=[TextContent(type="text", text=self.text)], is_error=True, _meta={PROBLEM: problem}
        )


NO_ACCOUNT = Refusal(
    "scope-missing",
    "Nothing was run: keys of this tool belong to an account, and this caller is nobody. Sign in, then call it again.",
)


def key_missing(wording: Wording) -> Refusal:
    """A call came without a key."""
    text = (
        f"Nothing was run: this tool needs an idempotency key, {wording.where}. Make up a new one for each operation, "
        "and send the same one with every attempt at it."
    )
    return Refusal("key-missing", text)


def not_begun(wording: Wording) -> Refusal:
    """The server failed before the tool did anything."""
    return not_done(wording, "The server failed before the tool was run. ")


def failed(wording: Wording) -> Refusal:
    """The tool raised what it does not declare."""
    text = (
        "This tool failed in the middle: it may or may not have taken effect. To try again, call it "
        f"{wording.again}: what was done is then not done a second time. {wording.never}"
    )
    return Refusal("handler-failed", text, retryable=True)


def not_done(wording: Wording, why: str) -> Refusal:
    """The tool says that nothing has happened."""
    return Refusal("handler-failed", f"{why}Nothing was done. To try again, call it {wording.again}.", retryable=True)


def refusal_of(error: Exception, wording: Wording) -> Refusal | None:
    """What an exception of the engine's means for the agent; None if it is none of the engine's."""
    match error:
        case OperationInProgress(retry_after_s=seconds):
            text = (
                f"The first call with this key is still running. Wait {seconds} s, then call this tool "
                f"{wording.again}. {wording.never}"
            )
            return Refusal("in-progress", text, retryable=True, retry_after_s=seconds)
        case StoreError():
            text = f"Nothing was run: the store of records cannot be reached. Call this tool {wording.again}."
            return Refusal("store-unavailable", text, retryable=True, retry_after_s=1)
        case CallerError():
            return Refusal("call-invalid", f"Nothing was run: {error}")
    return _final(error, wording)


def _final(error: Exception, wording: Wording) -> Refusal | None:
    """Of those after which calling again is of no use."""
    find_out = f"Find out by other means what became of it, or ask the user. {wording.never}"
    match error:
        case OutcomeUnknown():
            text = (
                "A call with this key was started and its outcome is not known: it may or may not have taken effect. "
                f"It is not run again. {find_out}"
            )
            return Refusal("outcome-unknown", text)
        case EarlierFailure():
            text = (
                "An earlier call with this key failed in the middle: it may or may not have taken effect. It is not "
                f"run again. {find_out}"
            )
            return Refusal("handler-failed", text)
        case KeyReused():
            text = (
                "Nothing was run: this key belongs to an earlier call with other arguments. To repeat that call, send "
                "its arguments as they were. This is a new operation only if the earlier one is settled; then it needs "
                "a new key."
            )
            return Refusal("key-reused", text)
        case KeyExpired():
            text = f"A call with this key was done so long ago that its result is gone. It is not run again. {find_out}"
            return Refusal("key-expired", text)
        case ResultUnavailable():
            text = f"A call with this key was done, and its result was not kept. It is not run again. {find_out}"
            return Refusal("replay-unavailable", text)
    return None
