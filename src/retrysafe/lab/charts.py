"""Bars as SVG, written by hand: readable on light and on dark pages, and as text where no picture is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_ROW_PX, _BAR_PX, _LABEL_PX, _WIDTH_PX, _VALUE_PX, _TOP_PX = 26, 16, 290, 800, 150, 40
_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f; }
.title { font-weight: 600; }
.bar { fill: #2f6fba; }
.other { fill: #8c959f; }
.wrong { fill: #c0504d; }
.target { stroke: #24292f; stroke-width: 2; }
@media (prefers-color-scheme: dark) {
  text { fill: #d8dee4; }
  .bar { fill: #6ea8e8; }
  .other { fill: #7d8590; }
  .wrong { fill: #e08a87; }
  .target { stroke: #d8dee4; }
}
"""


@dataclass(frozen=True, slots=True)
class Bar:
    """One line of a chart.

    Attributes:
        label: before the bar.
        value: its length.
        target: where a mark stands; None: no mark.
        kind: `bar`; `other` for what is there to compare with; `wrong` for what failed a check.
        note: after the value.
    """

    label: str
    value: float
    target: float | None = None
    kind: str = "bar"
    note: str = ""


def chart(title: str, bars: Sequence[Bar]) -> str:
    """The SVG of horizontal bars from zero; a mark in a bar's line is its target."""
    most = max([bar.value for bar in bars] + [bar.target or 0.0 for bar in bars]) or 1.0
    scale = (_WIDTH_PX - _LABEL_PX - _VALUE_PX) / most
    height = _TOP_PX + _ROW_PX * len(bars) + 10
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH_PX} {height}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{_STYLE}</style>",
        f'<text class="title" x="0" y="20">{escape(title)}</text>',
    ]
    for number, bar in enumerate(bars):
        lines += _line(bar, _TOP_PX + _ROW_PX * number, scale)
    return "\n".join([*lines, "</svg>", ""])


def _line(bar: Bar, top: int, scale: float) -> list[str]:
    middle, width = top + _BAR_PX - 3, max(1.0, bar.value * scale)
    value = f"{bar.value:.2f}" if bar.value < 10 else f"{bar.value:.1f}"
    note = ", ".join(part for part in (value, bar.target and f"target {bar.target:g}", bar.note) if part)
    end = max(width, (bar.target or 0.0) * scale) + _LABEL_PX + 6
    lines = [
        f'<text x="{_LABEL_PX - 8}" y="{middle}" text-anchor="end">{escape(bar.label)}</text>',
        f'<rect class="{bar.kind}" x="{_LABEL_PX}" y="{top}" width="{width:.1f}" height="{_BAR_PX}"/>',
        f'<text x="{end:.1f}" y="{middle}">{escape(note)}</text>',
    ]
    if bar.target is not None:
        at = _LABEL_PX + bar.target * scale
        lines.append(f'<line class="target" x1="{at:.1f}" x2="{at:.1f}" y1="{top - 3}" y2="{top + _BAR_PX + 3}"/>')
    return lines
