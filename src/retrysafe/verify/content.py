"""Content with fields, JSON or a form, and variations of it: the same said differently, and something else said."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qs, urlencode

from retrysafe.verify.template import UNIQUE, fill

Document = Mapping[str, Any]

JSON, FORM = "application/json", "application/x-www-form-urlencoded"

_NAME, _TEXT = r"[\w.~%+*\[\]-]+", r"[\w.~%+*\[\]{}:/@!$'(),;?-]*"
_FORM = re.compile(rf"{_NAME}={_TEXT}(&{_NAME}={_TEXT})*", re.ASCII)
_DECIMAL = re.compile(r"[0-9]+\.[0-9]+")
_TOLD = {True: "true", False: "false", None: ""}


def media_type(text: str) -> str:
    """What content looks like: JSON, a form, or text."""
    if _is_json(text):
        return JSON
    return FORM if is_form(text) and not text.endswith("=") else "text/plain"  # which may be base64


def is_form(text: str) -> bool:
    """Whether this is a form as it is sent: `name=value`, with `&` between them and other signs as `%XX`."""
    return _FORM.fullmatch(text) is not None


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def form_text(fields: Document) -> str:
    """A form as it is sent: `a[b]` for what is nested, and the place for the reference as it is."""
    return urlencode([(name, fill(text, UNIQUE)) for name, text in _pairs(fields)], safe="{}")


def _pairs(fields: Document, prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in fields.items():
        path = f"{prefix}[{name}]" if prefix else str(name)
        if isinstance(value, Mapping):
            yield from _pairs(value, path)
            continue
        for each in value if isinstance(value, list | tuple) else (value,):
            yield path, _TOLD[each] if each is None or isinstance(each, bool) else str(each)


def read(body: str, is_form: bool) -> dict[str, Any] | None:
    """The members of a JSON object, or the fields of a form; None if it is neither.

    What is a number in a form is one here, and a field that comes more than once is a list.
    """
    if is_form:
        fields = parse_qs(body, keep_blank_values=True)
        return {name: _plain([_number(value) for value in values]) for name, values in fields.items()}
    try:
        document = json.loads(body)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _number(text: str) -> str | int:
    return int(text) if re.fullmatch(r"0|[1-9][0-9]{0,14}", text) else text


def _plain(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else values


def write(document: Document, is_form: bool) -> bytes:
    """As most clients write it."""
    return urlencode(document, doseq=True).encode() if is_form else encode(document)


def encode(document: Any) -> bytes:
    """As most clients write JSON."""
    return json.dumps(document).encode()


def reordered(document: Document) -> bytes:
    """The same members in another order, with other white space."""
    return json.dumps(dict(reversed(list(document.items()))), indent=3).encode()


def respelled(document: Document) -> bytes:
    """The same values, with escapes where none are needed, and numbers with a decimal point."""
    return _spell(document).encode()


def _spell(value: Any) -> str:
    if isinstance(value, str):
        return '"' + "".join(map(_escaped, value)) + '"'
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value}.0"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_spell(name)}:{_spell(member)}" for name, member in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_spell(item) for item in value) + "]"
    return json.dumps(value, default=str)


def _escaped(character: str) -> str:
    """A letter by its number; what has to be escaped anyway as it is done."""
    return f"\\u{ord(character):04x}" if character.isascii() and character.isalpha() else json.dumps(character)[1:-1]


def changed(document: Document, reference: str) -> dict[str, Any]:
    """The same with one value changed, at any depth: a number if there is one, else a text, but never the reference.

    Raises:
        LookupError: nothing in it can be changed.
    """
    made = _change(document, _is_number) or _change(document, lambda value: _is_text(value) and reference not in value)
    if made is None:
        raise LookupError
    return dict(made)


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _change(value: Any, fits: Callable[[Any], bool]) -> Any:
    """The value with the first thing that fits changed; None if nothing does."""
    if isinstance(value, Mapping):
        made = ((name, _change(member, fits)) for name, member in value.items())
        return next(({**value, name: other} for name, other in made if other is not None), None)
    if isinstance(value, list):
        numbered = ((place, _change(item, fits)) for place, item in enumerate(value))
        return next(
            ([*value[:place], other, *value[place + 1 :]] for place, other in numbered if other is not None), None
        )
    if not fits(value):
        return None
    return value + 1 if isinstance(value, int) else _varied(value)


def _varied(text: str) -> str:
    """Another text, and of the same kind where that is a kind that an API would ask for."""
    if text in {"true", "false"}:
        return "false" if text == "true" else "true"
    if _DECIMAL.fullmatch(text):
        return text[:-1] + str((int(text[-1]) + 1) % 10)
    return text + "x"


def doubled(document: Document, reference: str) -> tuple[bytes, bytes]:
    """The same with one member written twice, with two values: the other one last, and the other one first."""
    other = changed(document, reference)
    name = next(name for name, value in other.items() if document[name] != value)
    before, behind = (json.dumps({name: each[name]})[1:-1].encode() for each in (other, document))
    rest = encode({each: value for each, value in document.items() if each != name})[1:-1]
    return (b"{%s, %s, %s}" % (behind, rest, before), b"{%s, %s, %s}" % (before, rest, behind))


def with_raw(document: Document, name: str, raw: str) -> bytes:
    """The same with one more member, whose value is written as given."""
    return encode(document)[:-1] + f", {json.dumps(name)}: {raw}}}".encode()


def multipart(document: Document, boundary: str) -> bytes:
    """The members as the parts of a form; the last one as a file."""
    parts = []
    for position, (name, value) in enumerate(document.items(), start=1):
        file = '; filename="file.txt"\r\nContent-Type: text/plain' if position == len(document) else ""
        parts.append(f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n{value}\r\n')
    return ("".join(parts) + f"--{boundary}--\r\n").encode()


def duration_s(text: str) -> float | None:
    """Seconds of an ISO 8601 duration such as `PT24H`; None if it is none."""
    match = re.fullmatch(r"P(?:(\d+)W)?(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?", text)
    if match is None or not any(match.groups()):
        return None
    weights = (604_800, 86_400, 3_600, 60, 1)
    return float(
        sum(Decimal(number) * weight for number, weight in zip(match.groups(), weights, strict=True) if number)
    )
