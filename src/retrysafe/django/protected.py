"""What one protected request is in either of Django's modes: the request, what holds for it, and how its view ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from retrysafe.django import messages
from retrysafe.django.scope import Resolver
from retrysafe.operation.handle import Begin, Operation
from retrysafe.protocol import effects
from retrysafe.protocol.effects import Ended, Execute
from retrysafe.protocol.flow import Terms
from retrysafe.server.capture import Capture
from retrysafe.server.routes import Route
from retrysafe.value import value

GetResponse = Callable[[Any], Any]


@value
class Work:
    """One request, and what it is to be protected with.

    Attributes:
        get_response: runs the view.
        request: Django's.
        route: that it falls under.
        terms: what holds for it.
        begin: makes its operation.
        resolver: finds the account.
        authorize: asked before a replay; None allows every replay.
    """

    get_response: GetResponse
    request: Any
    route: Route
    terms: Terms
    begin: Begin
    resolver: Resolver
    authorize: Callable[[Any], Any] | None


class Protected:
    """The state of one request; a new object for each.

    Attributes:
        route: for people.
        head: of the request.
        ending: how it ended; empty before that.
        capture: of its response.
        withheld: names of response fields that its view may not set.
    """

    def __init__(self, work: Work) -> None:
        self.route = work.route.entry
        self.head = messages.head_of(work.request)
        self.ending = ""
        self.capture = Capture(work.route.policy.response_bytes_max, work.route.withheld)
        self.withheld = work.route.withheld
        self._work = work

    def begun(self, effect: Execute) -> Operation:
        """The operation of the view that is about to run."""
        operation = self._work.begin(effect, self._work.terms)
        if self._work.route.marked:
            operation.await_entry()
        return operation

    def ended_by(self, failure: BaseException, operation: Operation) -> Ended:
        """How a view ended that raised."""
        if self.capture.sent:
            return effects.Broken()
        return effects.Raised(operation.fate) if isinstance(failure, Exception) else effects.Cancelled(operation.fate)
