"""The page of guarantees: every row of it names a test, every test that it names is there, and no mode is left out."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache

import pytest

from retrysafe.protocol.policy import _CHOICES
from retrysafe.stores.location import _MODULES
from tests.docs.blocks import ROOT

PAGE = (ROOT / "docs" / "guarantees.md").read_text("utf-8")
TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")
CASE = re.compile(r"case `(\w+)`")


def tables(text: str) -> Iterator[tuple[str, list[list[str]]]]:
    """Each table with the heading that it is under: its rows, without the head."""
    heading, rows = "", list[list[str]]()
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
        elif rows:
            yield heading, rows[2:]
            rows = []
        if line.startswith("#"):
            heading = line.lstrip("# ")


def unproven(text: str) -> Iterator[str]:
    """The rows that name no test. A table without any test explains words, and promises nothing."""
    for _, rows in tables(text):
        if any(TEST.search(" ".join(row)) for row in rows):
            yield from (" | ".join(row) for row in rows if not TEST.search(row[-1]))


@cache
def functions(path: str) -> frozenset[str]:
    """The tests of a module, by what is in it and not by what it says."""
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    defined = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, defined) and node.name.startswith("test"))


def missing(text: str) -> Iterator[str]:
    """What is named and not there: modules, tests in them, and cases of the suite of stores."""
    for path, name in TEST.findall(text):
        if not (ROOT / path).is_file() or (name and name not in functions(path)):
            yield f"{path}::{name}"
    cases = {name for path in ROOT.glob("src/retrysafe/testing/cases_*.py") for name in functions(str(path))}
    yield from (name for name in CASE.findall(text) if name not in cases)


def test_every_row_names_a_test():
    """A sentence that nothing shows is no guarantee."""
    assert list(unproven(PAGE)) == []


def test_every_named_test_is_there():
    """Collected from the modules themselves."""
    assert list(missing(PAGE)) == []


@pytest.mark.parametrize("mode", _CHOICES["recovery"])
def test_every_mode_has_its_rows(mode):
    """What a route may choose is said in the table of modes."""
    assert any(
        f'recovery="{mode}"' in " ".join(row) for heading, rows in tables(PAGE) if heading == "By mode" for row in rows
    )


@pytest.mark.parametrize("module", sorted(set(_MODULES.values())))
def test_every_store_has_its_rows(module):
    """Whatever a URL may name."""
    schemes = [scheme for scheme, named in _MODULES.items() if named == module]
    (rows,) = [rows for heading, rows in tables(PAGE) if heading == "By store"]
    assert any(f"`{scheme}://" in row[0] for scheme in schemes for row in rows)


def test_each_promise_has_a_number_of_its_own():
    """So that it can be cited."""
    for letter in "GN":
        numbers = re.findall(rf"^\| {letter}(\d+) \|", PAGE, re.MULTILINE)
        assert numbers == [str(number) for number in range(1, len(numbers) + 1)]


def test_what_is_wrong_is_found():
    """A row without a test, a test that is gone, a case that is gone; not what is in order."""
    page = """# x
| a | b |
|---|---|
| fine | `tests/docs/test_guarantees.py::test_what_is_wrong_is_found` |
| bare | nothing |
| gone | `tests/docs/test_guarantees.py::test_gone`, `tests/gone.py` |
| case | `tests/stores/test_memory.py`, case `test_gone_too` |

| no | promises |
|---|---|
| here | at all |
"""
    assert list(unproven(page)) == ["bare | nothing"]
    assert list(missing(page)) == ["tests/docs/test_guarantees.py::test_gone", "tests/gone.py::", "test_gone_too"]
