"""The house rules that no linter knows. Each is a function from text to faults, and each is shown a fault here."""

from __future__ import annotations

import ast
import re
import statistics
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import retrysafe

ROOT = Path(__file__).parents[1]
SOURCES = sorted(ROOT.glob("src/**/*.py"))
TESTS = sorted(ROOT.glob("tests/**/*.py"))
_PLACES = ("bench", "conformance", "examples", "model", "prove")
PROGRAMS = [path for place in _PLACES for path in sorted(ROOT.glob(f"{place}/**/*.py"))]
PYTHON = [*SOURCES, *TESTS, *PROGRAMS]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md")), ROOT / "browser" / "README.md"]
SCRIPTS = [path for place in ("browser", "examples") for path in sorted(ROOT.glob(f"{place}/**/*.[jt]s"))]
BUILD = [ROOT / "Makefile", ROOT / ".ci" / "run", ROOT / "pyproject.toml"]

MODULE_LINES_MAX = 600
LINE_CHARACTERS_MAX = 120
FUNCTION_LINES_MAX = 70
FUNCTION_LINES_MEDIAN_MAX = 10

_POSTPONED = re.compile("TO" r"DO\b|FIX" r"ME\b|\bXX" r"X\b|\bfor no" r"w\b")  # in pieces, or this line is one
_EXCUSE = re.compile(r"# (?:noqa|type: ignore)\b.*")
_EXCUSE_WITH_REASON = re.compile(r"# (?:noqa: [A-Z]+\d+(?:, ?[A-Z]+\d+)*|type: ignore\[[\w, -]+\]) .*\w{2}.*")
_PIP_CONFIGURATION = re.compile(r"PIP_[A-Z]+|--(?:extra-)?index-url|--find-links|--trusted-host")
_CITED_RULE = re.compile(r"\bR(\d+)\b")
_CITED_ELSEWHERE = re.compile(r"\b[Hh]azards? \d+")
_CITED_TEST = re.compile(r"tests/[\w/]+\.py(?:::(\w+))?")
_CHANGES = ("Security", "Removed", "Deprecated", "Added", "Changed", "Fixed")


def long_module(text: str) -> Iterator[str]:
    """A module fits into one reading."""
    if (lines := text.count("\n")) > MODULE_LINES_MAX:
        yield f"{lines} lines; at most {MODULE_LINES_MAX}"


def long_lines(text: str) -> Iterator[str]:
    """A line fits on a screen; in Python the formatter sees to that."""
    yield from (line for line in text.splitlines() if len(line) > LINE_CHARACTERS_MAX)


def long_functions(text: str) -> Iterator[str]:
    """A function fits on a screen."""
    for function in _functions(text):
        if (lines := _lines(function)) > FUNCTION_LINES_MAX:
            yield f"line {function.lineno}: {function.name} has {lines} lines; at most {FUNCTION_LINES_MAX}"


def postponed(text: str) -> Iterator[str]:
    """What is there is finished; what is not there is not hinted at."""
    for number, line in enumerate(text.splitlines(), 1):
        if _POSTPONED.search(line):
            yield f"line {number}: {line.strip()}"


def silent_tests(text: str) -> Iterator[str]:
    """A test says what it shows."""
    for function in _functions(text):
        if function.name.startswith("test_") and not ast.get_docstring(function):
            yield f"line {function.lineno}: {function.name} has no docstring"


def bare_excuses(text: str) -> Iterator[str]:
    """Whoever overrules a checker says why, on that line."""
    for number, line in enumerate(text.splitlines(), 1):
        if (excuse := _EXCUSE.search(line)) and not _EXCUSE_WITH_REASON.fullmatch(excuse[0]):
            yield f"line {number}: {excuse[0]}"


def bare_ignores(text: str) -> Iterator[str]:
    """Every rule that is switched off in pyproject.toml has its reason beside it."""
    section = text.partition("[tool.ruff.lint")[2].partition("[tool.mypy]")[0]
    for line in section.splitlines():
        entry = re.fullmatch(r'    "[A-Z]+\d*",.*|"\S+" = \[".+', line)
        if entry and not re.search(r"# .*\w", line):
            yield line


def pip_configuration(text: str) -> Iterator[str]:
    """Where packages come from is the user's business."""
    yield from _PIP_CONFIGURATION.findall(text)


def dangling_rules(text: str) -> Iterator[str]:
    """A rule that the code cites can be read in docs/contract.md."""
    known = set(_CITED_RULE.findall((ROOT / "docs" / "contract.md").read_text("utf-8")))
    for number, line in enumerate(text.splitlines(), 1):
        cited = [f"R{rule}" for rule in _CITED_RULE.findall(line) if rule not in known]
        yield from (f"line {number}: {citation}" for citation in cited + _CITED_ELSEWHERE.findall(line))


def dangling_tests(text: str) -> Iterator[str]:
    """A test that a page names as its witness exists."""
    for citation in _CITED_TEST.finditer(text):
        path, _, name = citation[0].partition("::")
        if not (ROOT / path).is_file() or (name and f"def {name}(" not in (ROOT / path).read_text("utf-8")):
            yield citation[0]


def disordered_changes(text: str) -> Iterator[str]:
    """The changelog keeps its order: what endangers a user first."""
    for release in text.split("\n## ")[1:]:
        headings = re.findall(r"^### (.+)", release, re.MULTILINE)
        if headings != [heading for heading in _CHANGES if heading in headings] or not headings:
            yield f"{release.splitlines()[0]}: {headings}"


RULES: list[tuple[Callable[[str], Iterator[str]], list[Path], str]] = [
    (long_module, [*SOURCES, *SCRIPTS], "\n" * 601),
    (long_lines, SCRIPTS, "x" * 121),
    (long_functions, SOURCES, "def f():\n" + "    pass\n" * 70),
    (postponed, [*PYTHON, *SCRIPTS, *PAGES, *BUILD], "# good enough for " + "now"),
    (silent_tests, TESTS, "def test_x():\n    pass"),
    (bare_excuses, PYTHON, "x = 1  # no" + "qa: E501"),
    (bare_ignores, [ROOT / "pyproject.toml"], '[tool.ruff.lint]\nignore = [\n    "E501",\n]'),
    (bare_ignores, [ROOT / "pyproject.toml"], '[tool.ruff.lint.per-file-ignores]\n"bench/**" = ["E501"]\n'),
    (pip_configuration, BUILD, "pip install --index" + "-url somewhere"),
    (dangling_rules, [*PYTHON, *SCRIPTS, *PAGES], "as contract R" + "999 says"),
    (dangling_tests, PAGES, "shown by tests/test_house.py::test_that_is_not_there"),
    (disordered_changes, [ROOT / "CHANGELOG.md"], "\n## 1.0.0\n\n### Fixed\n\n- x\n\n### Security\n\n- y\n"),
]


@pytest.mark.parametrize(("rule", "paths", "bad"), RULES, ids=[rule.__name__ for rule, _, _ in RULES])
def test_rule(rule, paths, bad):
    """The rule finds the fault that it is shown, and none in the project."""
    assert list(rule(bad))
    faults = {str(path.relative_to(ROOT)): found for path in paths if (found := list(rule(path.read_text("utf-8"))))}
    assert not faults


def test_functions_are_short():
    """Half of all functions have ten lines or fewer."""
    lines = [_lines(function) for path in SOURCES for function in _functions(path.read_text("utf-8"))]
    assert statistics.median(lines) <= FUNCTION_LINES_MEDIAN_MAX


def test_all_means_all():
    """The extra `all` has every other extra."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    assert extras.pop("all") == [f"retrysafe[{','.join(sorted(extras))}]"]


def test_version_is_one():
    """The package, its metadata and the newest entry of the changelog agree on the version."""
    (changed, *_) = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert retrysafe.__version__ == declared == changed


def test_every_target_is_explained():
    """`make help` names every target that can be made."""
    makefile = (ROOT / "Makefile").read_text("utf-8")
    (phony,) = re.findall(r"^\.PHONY: (.+)", makefile, re.MULTILINE)
    shown = subprocess.run(["make", "--silent", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert re.findall(r"^make (\w+) +\w", shown, re.MULTILINE) == phony.split()


def _functions(text: str) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def _lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (function.end_lineno or function.lineno) - function.lineno + 1
