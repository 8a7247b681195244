"""Links between the pages lead somewhere."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from markdown_it import MarkdownIt

from tests.docs.blocks import ROOT
from tests.docs.test_code_blocks import PAGES


def broken(page, text):
    """The links of a page, relative ones only, whose file or heading is not there."""
    for token in MarkdownIt().parse(text):
        for child in token.children or ():
            target = str(child.attrs.get("href", ""))
            if child.type != "link_open" or re.match(r"\w+:", target):
                continue
            path, _, anchor = target.partition("#")
            file = (page.parent / path) if path else page
            if not file.exists() or (anchor and anchor not in anchors(file.read_text("utf-8"))):
                yield target


def anchors(text):
    """What the headings of a page are called in links."""
    tokens = MarkdownIt().parse(text)
    titles = [after.content for token, after in pairwise(tokens) if token.type == "heading_open"]
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    """Every relative link names a file that exists, and a heading in it."""
    assert list(broken(page, page.read_text("utf-8"))) == []


def test_broken_links_are_found(tmp_path):
    """A missing file, a missing heading; not a page or a heading that is there."""
    (tmp_path / "there.md").write_text("# What it is, then\n", "utf-8")
    page = "[a](there.md) [b](there.md#what-it-is-then) [c](gone.md) [d](there.md#gone) [e](https://example.org)"
    assert list(broken(tmp_path / "page.md", page)) == ["gone.md", "there.md#gone"]
