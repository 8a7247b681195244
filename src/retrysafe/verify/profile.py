"""What a provider documents, as data: how the key is carried, and which answers are expected.

A profile is a TOML file. Every setting has a default, that of `ietf`; `extends` names the profile that it
starts from. Where a provider documents nothing, the setting is `"unknown"` and cases that need it are skipped.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib.resources import files
from pathlib import Path
from typing import Any

from retrysafe.errors import ConfigurationError
from retrysafe.verify.verdict import Severity

Statuses = tuple[int, ...]
_EXTENDS_MAX = 5


@dataclass(frozen=True, slots=True)
class Profile:
    """What is expected of the target.

    Attributes:
        name: of the profile.
        title: what it describes.
        header: the field that carries the key; empty if the content does.
        json_member: the member of the content that carries the key; empty if a field does.
        spelling: `quoted` as a Structured Field String, or `bare`.
        key_format: `opaque`, `uuid4` or `uuid7`.
        key_length_max: the longest key.
        methods: of operations that take keys.
        missing: statuses of a required key that is absent.
        invalid: statuses of a key that cannot be one.
        mismatch: statuses of a key that was used for another request; empty is not documented.
        mismatch_means: `refused`, `replayed` or `unknown`.
        mismatch_code: words that the answer to it must have; any of them.
        in_flight: statuses of a key whose first request is at work; empty is not documented.
        in_flight_code: words that the answer to it must have; any of them.
        retry_after: how binding `Retry-After` is on it.
        marker: the field that tells a replay; empty for none.
        marker_value: what it says; empty for anything.
        marker_on_every: it stands on first answers too, and so tells nothing.
        replay: `exact`, or `current` where the answer shows what is there now.
        records: classes of statuses that are recorded: 2, 4, 5.
        after_expiry: `refused`, `executed` or `unknown`.
        expired: statuses of a key whose lifetime is over.
        other_operation: `refused`, `executed` or `unknown`: the same key on another operation.
        companion: a field that goes with the key and says when it was first sent; empty for none.
        must: ids of cases that bind more than the catalogue says.
        excused: ids of cases that do not apply, and why.
    """

    name: str
    title: str = ""
    header: str = "Idempotency-Key"
    json_member: str = ""
    spelling: str = "quoted"
    key_format: str = "opaque"
    key_length_max: int = 255
    methods: tuple[str, ...] = ("POST", "PATCH")
    missing: Statuses = (400,)
    invalid: Statuses = (400,)
    mismatch: Statuses = (422,)
    mismatch_means: str = "refused"
    mismatch_code: tuple[str, ...] = ()
    in_flight: Statuses = (409,)
    in_flight_code: tuple[str, ...] = ()
    retry_after: Severity = Severity.SHOULD
    marker: str = ""
    marker_value: str = ""
    marker_on_every: bool = False
    replay: str = "exact"
    records: Statuses = (2, 4, 5)
    after_expiry: str = "unknown"
    expired: Statuses = ()
    other_operation: str = "unknown"
    companion: str = ""
    must: tuple[str, ...] = ()
    excused: Mapping[str, str] = field(default_factory=dict)

    def severity(self, id_: str, severity: Severity) -> Severity:
        """How binding a case is under this profile."""
        return Severity.MUST if id_ in self.must else severity


_CHOICES = {
    "spelling": {"quoted", "bare"},
    "key_format": {"opaque", "uuid4", "uuid7"},
    "mismatch_means": {"refused", "replayed", "unknown"},
    "retry_after": {"MUST", "SHOULD", "MAY"},
    "replay": {"exact", "current"},
    "after_expiry": {"refused", "executed", "unknown"},
    "other_operation": {"refused", "executed", "unknown"},
}
_FIELDS = {setting.name: setting for setting in fields(Profile)}


def names() -> list[str]:
    """The profiles that come with the package."""
    return sorted(entry.name.removesuffix(".toml") for entry in _folder().iterdir() if entry.name.endswith(".toml"))


def load(name: str) -> Profile:
    """A profile of the package by its name, or one of the user's by the path of its file.

    Raises:
        ConfigurationError: there is none, or it cannot be used; with every fault.
    """
    table = _table(name, _EXTENDS_MAX)
    faults = [fault for key, value in table.items() for fault in _faults(name, key, value)]
    if faults:
        raise ConfigurationError(faults)
    made: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
    made["retry_after"] = Severity(made.get("retry_after", "SHOULD"))
    return Profile(**made)


def _folder() -> Any:
    return files("retrysafe.verify") / "profiles"


def _table(name: str, extends_left: int) -> dict[str, Any]:
    text = _text(name)
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError([f"profile {name}: not TOML: {error}"]) from None
    parent = table.pop("extends", None)
    if parent is not None and extends_left == 0:
        raise ConfigurationError([f"profile {name}: extends goes on for too long, perhaps in a circle"])
    below = _table(parent, extends_left - 1) if parent is not None else {}
    return {**below, **table, "name": Path(name).stem}


def _text(name: str) -> str:
    own = _folder() / f"{name}.toml"
    if "/" not in name and own.is_file():
        return str(own.read_text("utf-8"))
    try:
        return Path(name).read_text("utf-8")
    except OSError:
        raise ConfigurationError([f"there is no profile {name!r}; known are {', '.join(names())}"]) from None


def _faults(name: str, key: str, value: Any) -> list[str]:
    """What is wrong with one setting."""
    setting = _FIELDS.get(key)
    if setting is None:
        return [f"profile {name}: {key} is no setting; known are {', '.join(sorted(_FIELDS))}"]
    if key in _CHOICES and value not in _CHOICES[key]:
        return [f"profile {name}: {key} is {value!r}; it must be one of {', '.join(sorted(_CHOICES[key]))}"]
    kinds = {"str": str, "int": int, "bool": bool, "Severity": str, "Statuses": list, "tuple[str, ...]": list}
    kind = kinds.get(str(setting.type), dict)
    if not isinstance(value, kind):
        return [f"profile {name}: {key} is {value!r}, which is no {kind.__name__}"]
    return []
