"""What the code of a handler shows, read from it and not run."""

from __future__ import annotations

import ast
import functools
import inspect
import re
import sys
import sysconfig
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

from retrysafe.audit.surface import Evidence, Place

_STREAMS = frozenset({
    "StreamingResponse", "StreamingHttpResponse", "EventSourceResponse", "ServerSentEvent", "Stream",
    "stream_with_context",
})  # fmt: skip
_SILENCED = re.compile(r"#\s*retrysafe: ignore\s+((?:AUD-\d+[\s,]*)+)")
_ID = re.compile(r"AUD-\d+")
_MODULES_MAX = 500
_LIBRARIES = tuple(
    {Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")}
)
_OURS = Path(__file__).resolve().parents[1]


def evidence_of(handler: Any, method: str) -> Evidence:
    """All that the code of a handler shows.

    Args:
        handler: a function, or a class with a function for each method.
        method: upper case.
    """
    function = function_of(handler, method)
    if function is None:
        return Evidence(name=getattr(handler, "__name__", ""))
    shown = handler if inspect.isclass(handler) else function
    return Evidence(
        place=place_of(function),
        name=shown.__name__,
        words=frozenset(_texts(function.__code__)),
        names=frozenset(name for code in _codes(function.__code__) for name in code.co_names),
        streams=_stream_in(function),
        mentions=functools.partial(mentioned, function),
        silenced=_silenced(function),
        requires_key=_requires_key(function),
    )


def function_of(handler: Any, method: str) -> FunctionType | None:
    """The function behind decorators that keep what they are around; None if that cannot be known."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    if inspect.isclass(handler):
        handler = getattr(handler, method.lower(), None) or getattr(handler, "dispatch_request", None)
    try:
        found = inspect.unwrap(handler)
    except ValueError:
        return None
    return found if isinstance(found, FunctionType) else None


def place_of(function: FunctionType) -> Place:
    """Where it begins, with its decorators."""
    return Place(shown_file(function.__code__.co_filename), function.__code__.co_firstlineno)


def shown_file(path: str) -> str:
    """A file as reports name it: relative to the present folder, if it is in it."""
    absolute, here = Path(path).resolve(), Path.cwd()
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else str(absolute)


def line_with(path: str, text: str) -> int:
    """The first line of a file that has a text; in quotation marks, if there is such a line; 0 if none has it."""
    try:
        lines = Path(path).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return 0
    for wanted in (f'"{text}"', f"'{text}'", text):
        if found := next((number for number, line in enumerate(lines, 1) if text and wanted in line), 0):
            return found
    return 0


# --- what a function says itself ------------------------------------------------------------------


def _codes(code: CodeType) -> Iterator[CodeType]:
    """The code of a function and of those inside of it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _texts(code: CodeType) -> Iterator[str]:
    for each in _codes(code):
        for constant in each.co_consts:
            if isinstance(constant, str) and constant.isidentifier():
                yield constant
            elif isinstance(constant, tuple):
                yield from (text for text in constant if isinstance(text, str) and text.isidentifier())


def _stream_in(function: FunctionType) -> str:
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        return "it is a generator"
    names = {name for code in _codes(function.__code__) for name in code.co_names}
    for name in sorted(names & set(function.__globals__)):
        if found := _is_stream(function.__globals__[name]):
            return f"it makes a {found}"
    returned = str(function.__annotations__.get("return", ""))
    return next((f"it returns a {name}" for name in _STREAMS if re.search(rf"\b{name}\b", returned)), "")


def _is_stream(thing: Any) -> str:
    names = [made.__name__ for made in inspect.getmro(thing)] if inspect.isclass(thing) else []
    if inspect.isroutine(thing):
        names = [getattr(thing, "__name__", "")]
    return names[0] if any(name in _STREAMS for name in names) else ""


def _requires_key(function: FunctionType) -> bool:
    """Whether a dependency of FastAPI refuses requests that no key governs."""
    try:
        parameters = inspect.signature(function, eval_str=True).parameters.values()
    except Exception:  # noqa: BLE001 - whatever evaluating somebody's annotations raises
        return False
    said = [thing for it in parameters for thing in (it.default, *getattr(it.annotation, "__metadata__", ()))]
    dependencies = [getattr(thing, "dependency", None) for thing in said]
    return any(getattr(it, "requires_key", False) is True for it in dependencies)


def _silenced(function: FunctionType) -> frozenset[str]:
    """The ids in comments like `# retrysafe: ignore AUD-01`, on the lines of its decorators and of its head."""
    lines, _ = _source(function)
    head = "".join(lines[: _head_lines(lines)])
    return frozenset(found for match in _SILENCED.finditer(head) for found in _ID.findall(match[1]))


def _source(function: FunctionType) -> tuple[list[str], int]:
    """The lines of a function, and the number of the first; none if it has no source, or another by now."""
    try:
        return inspect.getsourcelines(function)
    except (OSError, TypeError, IndexError, SyntaxError):
        return [], 0


def _head_lines(lines: list[str]) -> int:
    """How many lines come before the body."""
    node = _definition(lines)
    return len(lines) if node is None else max(node.body[0].lineno - 1, node.lineno)


def _definition(lines: list[str]) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    try:
        tree = ast.parse(textwrap.dedent("".join(lines)))
    except SyntaxError:  # a function among other things on its line
        return None
    node = tree.body[0] if tree.body else None
    return node if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else None


def marker_lines(function: FunctionType) -> tuple[Place, Place | None] | None:
    """The line of its `def`, and the first line of its `@idempotent` if it has one; None without source."""
    lines, first = _source(function)
    node = _definition(lines)
    if node is None:
        return None
    file = shown_file(function.__code__.co_filename)
    marks = [it.lineno for it in node.decorator_list if "idempotent" in ast.unparse(it)]
    return Place(file, first + node.lineno - 1), Place(file, first + marks[0] - 1) if marks else None


# --- what the application says --------------------------------------------------------------------


def mentioned(function: FunctionType, name: str) -> bool | None:
    """Whether the module of a function, or one of the same application that it reaches, has a name in its text.

    Args:
        function: a handler.
        name: an identifier.

    Returns:
        None if the source cannot be read.
    """
    texts = [_text(module) for module in _reached(sys.modules.get(function.__module__))]
    known = [text for text in texts if text is not None]
    if not known or len(known) < len(texts):
        return None
    return any(re.search(rf"\b{name}\b", text) for text in known)


def _reached(first: ModuleType | None) -> list[ModuleType]:
    """A module and those that its names lead to, as far as they are the application's own."""
    found = [first] if first is not None else []
    package = first.__name__.partition(".")[0] if first is not None else ""
    for module in found:
        for thing in [*vars(module).values()]:
            named = thing if isinstance(thing, ModuleType) else _module_of(thing)
            if named is not None and named not in found and len(found) < _MODULES_MAX and _is_own(named, package):
                found.append(named)
    return found


def _module_of(thing: Any) -> ModuleType | None:
    name = getattr(thing, "__module__", None)
    return sys.modules.get(name) if isinstance(name, str) else None


def _is_own(module: ModuleType, package: str) -> bool:
    """Whether a module is of this package, or anywhere but among the libraries."""
    file = getattr(module, "__file__", None)
    if file is None:
        return False
    if module.__name__.partition(".")[0] == package:
        return True
    path = Path(file).resolve()
    return not any(path.is_relative_to(place) for place in (*_LIBRARIES, _OURS))


def _text(module: ModuleType) -> str | None:
    try:
        return inspect.getsource(module)
    except (OSError, TypeError):
        return None
