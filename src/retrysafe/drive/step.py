"""Giving a flow an answer, and getting its next effect or its end."""

from __future__ import annotations

from typing import Any, TypeVar

from retrysafe.protocol.effects import Effect, Flow

T = TypeVar("T")


def first(flow: Flow[T]) -> Effect[Any] | T:
    """Start a flow: its first effect, or what it returned at once."""
    try:
        return next(flow)
    except StopIteration as end:
        result: T = end.value
        return result


def sent(flow: Flow[T], answer: Any) -> Effect[Any] | T:
    """Answer the flow's effect: its next one, or what it returned."""
    try:
        return flow.send(answer)
    except StopIteration as end:
        result: T = end.value
        return result


def thrown(flow: Flow[T], error: Exception) -> Effect[Any] | T:
    """Tell the flow that its effect failed: its next one, or what it returned."""
    try:
        return flow.throw(error)
    except StopIteration as end:
        result: T = end.value
        return result
