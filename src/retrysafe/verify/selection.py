"""Which cases are run."""

from __future__ import annotations

from collections.abc import Sequence

from retrysafe.errors import ConfigurationError
from retrysafe.verify.case import Case
from retrysafe.verify.cases import CATALOGUE


def select(only: Sequence[str] = (), *, everything: bool = False) -> tuple[Case, ...]:
    """The core cases, all, or those with these ids; the word of a group stands for the group.

    Raises:
        ConfigurationError: an id is none.
    """
    wanted = {id_.upper() for id_ in only}
    unknown = wanted - {case.id for case in CATALOGUE} - {case.group for case in CATALOGUE}
    if unknown:
        raise ConfigurationError([f"there is no case {', '.join(sorted(unknown))}; --list shows them all"])
    if wanted:
        return tuple(case for case in CATALOGUE if wanted & {case.id, case.group})
    return tuple(case for case in CATALOGUE if case.core or everything)
