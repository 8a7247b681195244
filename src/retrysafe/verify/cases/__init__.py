"""The catalogue: every case, in order. A case is one function; its docstring is the requirement."""

from retrysafe.verify.case import GROUPS, Case
from retrysafe.verify.cases import (
    documents,
    methods,
    outcomes,
    races,
    replay,
    representation,
    retention,
    reuse,
    security,
    syntax,
)

_MODULES = (syntax, replay, representation, reuse, races, outcomes, methods, retention, security, documents)
_PLACE = list(GROUPS)

CATALOGUE: tuple[Case, ...] = tuple(
    sorted(
        (case for module in _MODULES for case in module.group.cases),
        key=lambda case: (_PLACE.index(case.group), case.id),
    )
)
