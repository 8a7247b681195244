"""The shop that every package protects: what it does when it is asked, and how often it did.

It knows nothing of keys. What is to go wrong is asked for in the query: `delay=SECONDS`, `fail=before|after|decline`.
An answer names what was done, so that two executions differ.
"""

from __future__ import annotations

import itertools
import json
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PATHS = ("/orders", "/refunds", "/tickets/1", "/tickets/2", "/sessions")


@dataclass(frozen=True, slots=True)
class Answer:
    """What is answered.

    Attributes:
        status: of HTTP.
        document: the content, as JSON.
        headers: fields besides the content type.
    """

    status: int
    document: Any
    headers: tuple[tuple[str, str], ...] = ()


class Failed(Exception):
    """The handler fails, as handlers do."""


@dataclass(slots=True)
class Shop:
    """Effects by their reference."""

    _effects: Counter[str] = field(default_factory=Counter)
    _failed: set[str] = field(default_factory=set)
    _numbers: Any = field(default_factory=lambda: itertools.count(1))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def delay_s(self, query: Mapping[str, str]) -> float:
        """How long the work takes; whoever serves it waits so long before `place`."""
        return float(query.get("delay", "0"))

    def place(self, path: str, query: Mapping[str, str], body: bytes) -> Answer:
        """Do what is asked for.

        Raises:
            Failed: as the query wants it: before the effect once for each reference, behind it always.
        """
        try:
            document = json.loads(body)
            reference = str(document["reference"])
        except (ValueError, KeyError, TypeError):
            return Answer(422, {"code": "invalid-order"})
        fail = query.get("fail", "")
        if fail == "decline":
            return Answer(402, {"code": "declined", "attempt": next(self._numbers)})
        with self._lock:
            if fail == "before" and reference not in self._failed:
                self._failed.add(reference)
                raise Failed(fail)
            self._effects[reference] += 1
        number = next(self._numbers)
        if fail == "after":
            raise Failed(fail)
        cookies = (("Set-Cookie", f"session={number}"),) if path == "/sessions" else ()
        place = ("Location", f"/orders?reference={reference}")
        return Answer(201, {"number": number, **document}, (place, ("ETag", f'"{number}"'), *cookies))

    def count(self, query: Mapping[str, str]) -> Answer:
        """How often a reference was done."""
        return Answer(200, {"total": self._effects[query.get("reference", "")]})
