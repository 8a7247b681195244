"""Answers to a request that was sent again which say that nobody was let in: they are no outcome of the operation.

A page for signing in is reached by a redirect, and no status tells that from the redirect to what was made. But it has
to know where to come back to: its address names the path that was asked for. A handler that redirects to what it made
has no reason to, and one that does all the same is safe to repeat, or its request would not have been sent again.
"""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import parse_qsl, unquote_to_bytes, urlsplit

from retrysafe.model import Head, Response
from retrysafe.protocol.effects import Answered, Fate, Outcome
from retrysafe.protocol.policy import Policy

_TURNED_AWAY = frozenset({401, 403, 407})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


def looked_through(outcome: Outcome, head: Head, policy: Policy) -> Outcome:
    """The outcome of a request that was sent again: a redirect to where one signs in is as good as a 401.

    Where the policy has a `classify`, the application itself says what its answers mean. Where effects are declared,
    a handler that has said that they begin was let in, and one that has not said so did nothing.
    """
    if policy.classify is not None or not isinstance(outcome, Answered):
        return outcome
    fate_of_nobody = Fate.NOT_BEGUN if policy.effects == "declared" else Fate.RAN
    is_turned_away = outcome.fate is fate_of_nobody and comes_back(outcome.response, head)
    return replace(outcome, fate=Fate.NO_EFFECT) if is_turned_away else outcome


def turns_away(outcome: Outcome, head: Head) -> bool:
    """Whether whoever sent the request was not let in."""
    if not isinstance(outcome, Answered):
        return False
    return outcome.response.status in _TURNED_AWAY or comes_back(outcome.response, head)


def comes_back(response: Response, head: Head) -> bool:
    """Whether it redirects to a place from which one comes back to this request: to sign in, say."""
    location = response.value(b"location")
    if response.status not in _REDIRECTS or location is None:
        return False
    path = unquote_to_bytes(head.path).decode("latin-1")
    try:
        named = parse_qsl(urlsplit(location.decode("latin-1")).query, encoding="latin-1")
        return any(urlsplit(text).path == path for _, text in named)
    except ValueError:  # no URL: nobody can follow it
        return False
