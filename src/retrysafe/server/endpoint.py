"""A handler of an application, as its router knows it."""

from __future__ import annotations

from typing import Any

from retrysafe.value import value


@value
class Endpoint:
    """A handler, and where it is.

    Attributes:
        path: with its variables in braces, or as the framework writes them; from the application that the door belongs
            to.
        methods: upper case; None for any.
        handler: what is marked; None where the router does not know what is behind.
        function: what runs, where that is not the handler itself.
    """

    path: str
    methods: frozenset[str] | None
    handler: Any
    function: Any = None
