"""What went over the wire: requests as they were sent, and answers as they came."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Self
from urllib.parse import urlsplit

from retrysafe.verify import content

Field = tuple[str, str]
Fields = tuple[Field, ...]

NO_ANSWER = 0


def _media_type(value: str) -> str:
    return value.partition(";")[0].strip().lower()


@dataclass(frozen=True, slots=True)
class Sent:
    """One request. Text of fields is Latin-1: each character is one byte, also where HTTP forbids it.

    Attributes:
        method: as on the wire.
        url: absolute.
        headers: in order; `Host`, `Connection` and the length of the content are added on the wire.
        body: the content.
        trailers: fields behind the content, which is then sent in chunks.
        secret: names of fields whose values may not be shown.
    """

    method: str
    url: str
    headers: Fields = ()
    body: bytes = b""
    trailers: Fields = ()
    secret: frozenset[str] = frozenset()

    def adding(self, *fields: Field) -> Self:
        """The same request with more fields."""
        return replace(self, headers=(*self.headers, *fields))

    def without(self, *names: str) -> Self:
        """The same request without the fields of these names."""
        gone = {name.lower() for name in names}
        return replace(self, headers=tuple(field for field in self.headers if field[0].lower() not in gone))

    def setting(self, name: str, value: str) -> Self:
        """The same request with this as its only field of that name."""
        return self.without(name).adding((name, value))

    @property
    def form(self) -> bool:
        """Whether the content is a form, and not JSON that only says so."""
        said = next((value for name, value in self.headers if name.lower() == "content-type"), "")
        return _media_type(said) == content.FORM and content.media_type(self._text) != content.JSON

    @property
    def _text(self) -> str:
        return self.body.decode(errors="replace")

    @property
    def document(self) -> dict[str, Any] | None:
        """The content, if it is a JSON object or a form."""
        return content.read(self._text, self.form)

    def holding(self, document: content.Document) -> Self:
        """The same request with this for content, written in the same way."""
        return replace(self, body=content.write(document, self.form))

    @property
    def target(self) -> str:
        """Path and query."""
        parts = urlsplit(self.url)
        return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


@dataclass(frozen=True, slots=True)
class Answer:
    """One response.

    Attributes:
        status: 0 if the connection ended, or the time, before there was one.
        headers: in order.
        body: decoded from chunks, but not from a content coding.
        whole: it came to its end.
        began_s: when the last byte of the request was sent, by a clock that only differences mean something of.
        ended_s: when the last byte of the answer had come.
    """

    status: int = NO_ANSWER
    headers: Fields = ()
    body: bytes = b""
    whole: bool = False
    began_s: float = 0.0
    ended_s: float = 0.0

    @property
    def took_s(self) -> float:
        """From the last byte sent to the last byte received."""
        return self.ended_s - self.began_s

    @property
    def success(self) -> bool:
        """Whether it is a 2xx, or a 3xx: an operation may answer with where to go on."""
        return 200 <= self.status < 400

    @property
    def refused(self) -> bool:
        """Whether it is a 4xx."""
        return 400 <= self.status < 500

    def value(self, name: str) -> str | None:
        """The fields of that name as one value; None if there is none."""
        return ", ".join(values) if (values := self.values(name)) else None

    def values(self, name: str) -> list[str]:
        """Every field of that name."""
        return [value for field, value in self.headers if field.lower() == name.lower()]

    @property
    def media_type(self) -> str:
        """The media type without its parameters."""
        return _media_type(self.value("content-type") or "")

    def json(self) -> Any:
        """The content as JSON; None if it is not JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    @property
    def kind(self) -> str | None:
        """By what a program tells this error from others: the type or the code of its document."""
        document = self.json()
        if not isinstance(document, dict):
            return None
        inner = document.get("error")
        places = (document, inner) if isinstance(inner, dict) else (document,)
        members = (place.get(name) for place in places for name in ("type", "code", "errorCode", "error_code", "name"))
        found = [str(member) for member in members if isinstance(member, str | int) and member != "about:blank"]
        return " ".join(found) or (inner if isinstance(inner, str) else None)

    def __str__(self) -> str:
        """The answer in a few words."""
        if self.status == NO_ANSWER:
            return "no answer"
        kind = f" {self.kind}" if self.status >= 400 and self.kind else ""
        return f"{self.status}{kind}" + ("" if self.whole else " (cut off)")


def summary(answers: Iterable[Answer]) -> str:
    """How often each answer came: `1 x 201, 19 x 409 in-progress`."""
    counted: dict[str, int] = {}
    for answer in answers:
        counted[str(answer)] = counted.get(str(answer), 0) + 1
    return ", ".join(f"{count} x {text}" for text, count in sorted(counted.items()))
