from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrysafe.protocol.duration import iso8601, milliseconds

DAY_MS = 86_400_000


@pytest.mark.parametrize(
    ("written", "duration_ms"),
    [
        ("250ms", 250),
        ("60s", 60_000),
        ("15m", 900_000),
        ("24h", DAY_MS),
        ("30d", 30 * DAY_MS),
        ("1.5s", 1_500),
        ("0.07s", 70),
        (" 5s ", 5_000),
        ("0s", 0),
        ("PT24H", DAY_MS),
        ("P30D", 30 * DAY_MS),
        ("P1DT2H3M4.5S", DAY_MS + 7_384_500),
        ("PT0S", 0),
        ("PT0.25S", 250),
        (timedelta(hours=24), DAY_MS),
        (timedelta(milliseconds=1), 1),
        (timedelta(0), 0),
    ],
)
def test_durations(written, duration_ms):
    """As people write them."""
    assert milliseconds(written) == duration_ms


@pytest.mark.parametrize(
    "written",
    [
        "", " ", "60", "s", "-1s", "+1s", "1 s", "1e3s", ".5s", "1.s", "1w", "1S", "1h30m", "٣s", "1\n", "nan", "inf",
        "P", "PT", "P1DT", "PT1", "P1W", "P1Y", "-PT1S", "PT-1S", "P1H", "pt1s", "PT1H2H",
        "9" * 400 + "s", "P" + "9" * 400 + "D", timedelta(seconds=-1), 60, 1.5, None, True, b"60s",
    ],
)  # fmt: skip
def test_anything_else_is_no_duration(written):
    """The message says what was seen: a setting is never guessed at."""
    with pytest.raises(ValueError, match=r"is not a duration|is negative") as raised:
        milliseconds(written)
    assert str(written) in str(raised.value)


@pytest.mark.parametrize(
    ("duration_ms", "written"),
    [(DAY_MS, "PT24H"), (0, "PT0S"), (90_000, "PT1M30S"), (1, "PT0.001S"), (59_999, "PT59.999S"), (3_600_000, "PT1H")],
)
def test_iso8601(duration_ms, written):
    """As machines read them."""
    assert iso8601(duration_ms) == written


@given(st.integers(0, 10_000 * DAY_MS))
def test_what_is_written_is_read(duration_ms):
    """Exact to the millisecond, in every notation."""
    assert milliseconds(iso8601(duration_ms)) == duration_ms
    assert milliseconds(f"{duration_ms}ms") == duration_ms
    assert milliseconds(timedelta(milliseconds=duration_ms)) == duration_ms
