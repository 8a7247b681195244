"""The result as an image for a README."""

from __future__ import annotations

from typing import Any

_COLOURS = {0: "#187a2f", 1: "#c41e1e", 4: "#888888"}
_LABEL = "retry safe"
_SVG = """<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="20" role="img" aria-label="{label}: {text}">
<title>{label}: {text}</title>
<rect width="{left}" height="20" fill="#444"/>
<rect x="{left}" width="{right}" height="20" fill="{colour}"/>
<g fill="#fff" text-anchor="middle" font-family="Verdana,sans-serif" font-size="11">
<text x="{left_middle}" y="14">{label}</text>
<text x="{right_middle}" y="14">{text}</text>
</g>
</svg>
"""


def render(report: dict[str, Any]) -> str:
    """The image: how many of the cases that reached a verdict passed."""
    summary = report["summary"]
    reached = summary["pass"] + summary["warn"] + summary["fail"]
    text = f"{summary['pass']} of {reached}" if reached else "not known"
    left, right = _width(_LABEL), _width(text)
    return _SVG.format(
        label=_LABEL,
        text=text,
        left=left,
        right=right,
        width=left + right,
        left_middle=left // 2,
        right_middle=left + right // 2,
        colour=_COLOURS[report["exit_code"]],
    )


def _width(text: str) -> int:
    return 7 * len(text) + 12
