"""What of an HTTP answer matters for trying again: from its status, its fields and the start of its content. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from retrysafe.client.attempt import Answer
from retrysafe.client.profile import Profile

CODE_BYTES_MAX = 64 << 10  # an error with a larger content says nothing that could be looked for
RETRY_AFTER_S_MAX = 86_400.0

_CODES = ("code", "type", "errorCode", "name", "error")


def answer_of(status: int, headers: Mapping[str, str], content: bytes, profile: Profile, now_s: float) -> Answer:
    """Read an answer.

    Args:
        status: its code.
        headers: its fields; looked up in lower case, so the mapping must not mind or have names in lower case.
        content: at least of errors; empty if it was not read.
        profile: of the server.
        now_s: the wall clock, for a `Retry-After` that is a date.
    """
    return Answer(
        status=status,
        replayed=bool(profile.replay_marker) and headers.get(profile.replay_marker, "").strip().lower() == "true",
        code=_code(content, profile) if status >= 400 else "",
        retry_after_s=retry_after_s(headers.get("retry-after", ""), now_s),
        hint={"true": True, "false": False}.get(headers.get(profile.retry_hint, "").strip().lower())
        if profile.retry_hint
        else None,
    )


def retry_after_s(value: str, now_s: float) -> float | None:
    """The seconds that `Retry-After` asks for, by number or date (RFC 9110, 10.2.3); None if it says nothing."""
    text = value.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), RETRY_AFTER_S_MAX)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    return min(max(0.0, moment.timestamp() - now_s), RETRY_AFTER_S_MAX)


def _code(content: bytes, profile: Profile) -> str:
    """The code in a JSON error: one that the profile knows, else the first of the usual members."""
    if not content or len(content) > CODE_BYTES_MAX:
        return ""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return ""
    found = list(_texts(document))
    known = [text for text in found if text in profile.in_progress]
    return (known or found or [""])[0]


def _texts(document: Any) -> Iterator[str]:
    """The values of the usual members, of the document and of what it says about its error."""
    if not isinstance(document, dict):
        return
    for name in _CODES:
        value = document.get(name)
        if isinstance(value, dict):
            yield from _texts(value)
        elif isinstance(value, (str, int)) and not isinstance(value, bool):
            yield str(value).rsplit("/", 1)[-1] if name == "type" else str(value)
