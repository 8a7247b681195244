"""An OpenAPI document as plain values: read, its references followed, its operations listed, its lines found."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from retrysafe.errors import ConfigurationError, RetrysafeError

METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})
_REFERENCES_MAX = 10
_EXTRA = 'pip install "retrysafe[audit]"'
Document = Mapping[str, Any]


def load(source: str) -> dict[str, Any]:
    """The document in a file or behind a URL; JSON or YAML.

    Raises:
        ConfigurationError: it is none.
        RetrysafeError: the URL does not answer.
    """
    return parse(source, read(source))


def read(source: str) -> str:
    """The text in a file or behind a URL.

    Raises:
        ConfigurationError: the file cannot be read.
        RetrysafeError: the URL does not answer.
    """
    return _fetch(source) if source.startswith(("http://", "https://")) else _read(source)


def parse(source: str, text: str) -> dict[str, Any]:
    """The document that a text is.

    Args:
        source: where it came from, for people.
        text: JSON or YAML.

    Raises:
        ConfigurationError: it is none.
    """
    try:
        document = json.loads(text)
    except ValueError:
        document = _yaml(source, text)
    if not isinstance(document, dict) or not isinstance(document.get("paths"), dict):
        raise ConfigurationError([f"{source} is no OpenAPI document: it has no paths"])
    return document


def _fetch(url: str) -> str:
    try:
        import httpx2  # noqa: PLC0415 - needs an extra
    except ModuleNotFoundError as missing:
        raise ConfigurationError([f"to read {url} needs {missing.name}: {_EXTRA}"]) from missing
    try:
        return httpx2.get(url, timeout=30, trust_env=False).raise_for_status().text
    except httpx2.HTTPError as error:
        raise RetrysafeError(f"the OpenAPI document cannot be read: {error}") from error


def _read(path: str) -> str:
    try:
        return Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError([f"the OpenAPI document cannot be read: {error}"]) from None


def _yaml(source: str, text: str) -> Any:
    try:
        import yaml  # noqa: PLC0415 - needs an extra
    except ModuleNotFoundError as missing:
        raise ConfigurationError([f"to read {source} needs {missing.name}: {_EXTRA}"]) from missing
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigurationError([f"{source} is neither JSON nor YAML"]) from None


def resolve(document: Document, value: Any) -> dict[str, Any]:
    """What a `$ref` points at; anything else is what it is."""
    for _ in range(_REFERENCES_MAX):
        reference = value.get("$ref") if isinstance(value, Mapping) else None
        if reference is None:
            break
        value = document
        for name in reference.removeprefix("#/").split("/"):
            value = value.get(name.replace("~1", "/").replace("~0", "~"), {}) if isinstance(value, Mapping) else {}
    return dict(value) if isinstance(value, Mapping) else {}


def operations(document: Document) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every operation: method, path, and what is said of it, with the parameters of its path."""
    for path, item in document.get("paths", {}).items():
        for method, described in item.items() if isinstance(item, Mapping) else ():
            if method.upper() in METHODS and isinstance(described, Mapping):
                parameters = [*item.get("parameters", ()), *described.get("parameters", ())]
                yield method.upper(), path, {**described, "parameters": parameters}


def lines_of(text: str) -> dict[tuple[str, str], int]:
    """The line of each operation, by its method in upper case and its path; none if nothing here can find lines.

    Args:
        text: of a document that was read already.
    """
    try:
        import yaml  # noqa: PLC0415 - needs an extra
    except ModuleNotFoundError:
        return {}

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where it was built
    try:
        root = yaml.compose(text, Loader=loader)
    except yaml.YAMLError:  # JSON that is no YAML: with tabs in it
        return {}
    paths = next((value for key, value in _pairs(root) if key.value == "paths"), None)
    return {
        (method.value.upper(), path.value): method.start_mark.line + 1
        for path, item in _pairs(paths)
        for method, _ in _pairs(item)
        if method.value.upper() in METHODS
    }


def _pairs(node: Any) -> list[tuple[Any, Any]]:
    """The keys of a mapping with what they lead to; of any other node nothing."""
    return node.value if getattr(node, "id", "") == "mapping" else []
