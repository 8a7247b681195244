"""Frozen values that cost little to make.

A frozen dataclass writes each attribute through a slow path of its own, four times the cost of a plain
one, and a request makes some thirty values. So `value` is frozen for the type checkers, which see every
line of this project, and a plain dataclass with slots at run time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def value(cls: type[T]) -> type[T]:
    """Make a class a value: its annotated attributes are its constructor, its equality and its hash."""
    return dataclass(slots=True, unsafe_hash=True)(cls)
