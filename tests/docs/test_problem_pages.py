"""The pages of the problem types say what the code sends."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from retrysafe.protocol.problem import KINDS, Problem

PAGES = Path(__file__).parents[2] / "docs" / "problems"
EXAMPLE = re.compile(
    r"```http\nHTTP/1\.1 (?P<status>\d+)[^\n]*\n(?P<fields>.*?)```\n\n```json\n(?P<document>\{.*?\n\})\n```", re.DOTALL
)


def test_every_type_has_a_page_and_no_other():
    """Besides the index."""
    assert {page.stem for page in PAGES.glob("*.md")} == {*KINDS, "index"}


@pytest.mark.parametrize("code", KINDS)
def test_the_example_is_what_is_sent(code):
    """Status, type, title and code; and whether a layer in front is told that nothing ran."""
    example = EXAMPLE.search((PAGES / f"{code}.md").read_text())
    assert example is not None
    document = json.loads(example["document"])
    real = Problem(code, document["detail"]).response("https://retrysafe.dev/problems/", document["instance"])
    sent = json.loads(real.body)
    assert int(example["status"]) == document["status"]
    assert {name: document[name] for name in ("type", "title", "code")} == {
        name: sent[name] for name in ("type", "title", "code")
    }
    assert ("Idempotency-Effect: none" in example["fields"]) == (real.value(b"idempotency-effect") is not None)
