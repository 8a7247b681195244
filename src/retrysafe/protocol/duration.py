"""Durations and instants as people write them, as whole milliseconds."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

Duration = str | timedelta

_UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_COUNT = r"\d{1,15}(?:\.\d{1,15})?"  # bounded, so that it is exact enough and never infinite
_SHORT = re.compile(rf"({_COUNT})(ms|s|m|h|d)", re.ASCII)
_ISO = re.compile(
    rf"P(?:(?P<d>{_COUNT})D)?(?:T(?=\d)(?:(?P<h>{_COUNT})H)?(?:(?P<m>{_COUNT})M)?(?:(?P<s>{_COUNT})S)?)?", re.ASCII
)


def milliseconds(duration: Duration) -> int:
    """A duration in milliseconds, at least 0.

    Args:
        duration: `"250ms"`, `"60s"`, `"15m"`, `"24h"`, `"30d"`, ISO 8601 (`"PT24H"`, `"P30D"`), or a `timedelta`.

    Raises:
        ValueError: it is none of these, or negative. The message says what was seen.
    """
    if isinstance(duration, timedelta):
        if duration < timedelta(0):
            raise ValueError(f"{duration} is negative")
        return round(duration.total_seconds() * 1_000)
    text = duration.strip() if isinstance(duration, str) else ""
    if short := _SHORT.fullmatch(text):
        return round(float(short[1]) * _UNIT_MS[short[2]])
    iso = _ISO.fullmatch(text)
    if iso and any(iso.groups()):
        return round(sum(float(count) * _UNIT_MS[unit] for unit, count in iso.groupdict(default="0").items()))
    raise ValueError(f'"{duration}" is not a duration; write "250ms", "60s", "15m", "24h", "30d" or ISO 8601')


def iso8601(duration_ms: int) -> str:
    """The duration as ISO 8601, exact to the millisecond: 86400000 is `PT24H`."""
    hours, rest_ms = divmod(duration_ms, _UNIT_MS["h"])
    minutes, rest_ms = divmod(rest_ms, _UNIT_MS["m"])
    seconds = f"{rest_ms / 1_000:g}S" if rest_ms else ""
    text = (f"{hours}H" if hours else "") + (f"{minutes}M" if minutes else "") + seconds
    return f"PT{text or '0S'}"


def in_words(duration_ms: int) -> str:
    """The duration for people, in the largest unit that leaves nothing over: 604800000 is `7 days`."""
    for unit_ms, unit in ((86_400_000, "day"), (3_600_000, "hour"), (60_000, "minute"), (1_000, "second")):
        if duration_ms >= 2 * unit_ms and duration_ms % unit_ms == 0:
            return f"{duration_ms // unit_ms} {unit}s"
    return "1 second" if duration_ms == 1_000 else f"{duration_ms:_} ms".replace("_", " ")


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def http_date(instant_ms: int) -> str:
    """An instant of a store's clock as HTTP has it (RFC 9110 5.6.7), whole seconds: `Thu, 26 Nov 2026 02:30:17 GMT`."""
    instant = _EPOCH + timedelta(milliseconds=instant_ms)
    return f"{_DAYS[instant.weekday()]}, {instant:%d} {_MONTHS[instant.month - 1]} {instant:%Y %H:%M:%S} GMT"


def rfc3339(instant_ms: int) -> str:
    """An instant of a store's clock as RFC 3339 has it, in UTC: `2026-11-26T02:30:17.250Z`."""
    instant = _EPOCH + timedelta(milliseconds=instant_ms)
    return instant.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
