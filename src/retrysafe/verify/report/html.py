"""The report as one page that needs no network."""

from __future__ import annotations

from html import escape
from typing import Any

from retrysafe.verify.case import GROUPS

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; } td { padding: .3rem .6rem; vertical-align: top; }
tr { border-top: 1px solid #8884; } .id { white-space: nowrap; font-family: monospace; }
.pass { color: #187a2f; } .fail { color: #c41e1e; font-weight: bold; } .warn { color: #a06000; }
.skip, .inconclusive { color: #888; }
pre { overflow-x: auto; background: #8881; padding: .6rem; white-space: pre-wrap; }
details > summary { cursor: pointer; } dt { font-weight: bold; } dd { margin: 0 0 .4rem 1rem; }
@media (prefers-color-scheme: dark) { .pass { color: #5bd27a; } .fail { color: #ff7b7b; } .warn { color: #f0b45a; } }
"""
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
<p>{facts}</p>
<p><strong>{sums}</strong></p>
{groups}
</body>
</html>
"""


def render(report: dict[str, Any]) -> str:
    """The page."""
    operation = report["target"]["operation"]
    title = f"{operation['method']} {operation['url']}: idempotency keys"
    facts = f"profile {report['profile']['name']}, run {report['run']}, {report['requests']} requests"
    sums = ", ".join(f"{count} {verdict}" for verdict, count in report["summary"].items() if count)
    groups = "\n".join(_group(group, title, report["cases"]) for group, title in GROUPS.items())
    return _PAGE.format(title=escape(title), style=_STYLE, facts=escape(facts), sums=escape(sums), groups=groups)


def _group(group: str, title: str, cases: list[dict[str, Any]]) -> str:
    rows = "\n".join(_row(case) for case in cases if case["group"] == group)
    return f"<h2>{escape(title)}</h2>\n<table>\n{rows}\n</table>" if rows else ""


def _row(case: dict[str, Any]) -> str:
    verdict = case["verdict"]
    text = f"<td>{escape(case['sentence'])}{_more(case)}</td>"
    return (
        f'<tr id="{case["id"]}"><td class="id">{case["id"]}</td>'
        f'<td class="{verdict}">{verdict}</td>{text}<td>{case["severity"]}</td></tr>'
    )


def _more(case: dict[str, Any]) -> str:
    """What was found, or why the case was not tried."""
    notes = "".join(f"<br><small>{escape(note)}</small>" for note in (case["reason"], *case["notes"]) if note)
    if not case["findings"]:
        return notes
    found = "".join(
        f"<dt>expected</dt><dd>{escape(each['expected'])}</dd><dt>seen</dt><dd>{escape(each['seen'])}</dd>"
        for each in case["findings"]
    )
    steps = "".join(f"<pre>{escape(step['curl'])}\n\n{escape(_came(step['answer']))}</pre>" for step in case["steps"])
    return (
        f"{notes}<details open><summary>what happened</summary><dl>{found}"
        f"<dt>why it matters</dt><dd>{escape(case['why'])}</dd>"
        f"<dt>source</dt><dd>{escape(case['source'])}</dd></dl>{steps}</details>"
    )


def _came(answer: dict[str, Any]) -> str:
    fields = "\n".join(f"{name}: {value}" for name, value in answer["headers"])
    return f"{answer['status'] or 'no answer'}\n{fields}\n\n{answer['body']}".strip()
