"""What the user gives, on the command line and in a suite, made into a run."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from retrysafe.errors import ConfigurationError
from retrysafe.formats.openapi import load as load_document
from retrysafe.verify import openapi as api_documents
from retrysafe.verify.content import FORM, is_form
from retrysafe.verify.effects import parse_counter
from retrysafe.verify.message import Fields
from retrysafe.verify.probe import Run, Settings
from retrysafe.verify.profile import load
from retrysafe.verify.target import HOOKS, LOOPBACK, OPERATIONS, Operation, Target, parse_field, parse_operation
from retrysafe.verify.template import fill

_VARIABLE = re.compile(r"\$\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Given:
    """What the user gives; a suite has the same names.

    Attributes:
        operation: `METHOD URL`, of what is verified.
        json: its content.
        form: its content, if that is a form: `a=1&b=2`, as it is sent.
        header: fields of every request.
        account: fields that say who asks.
        other_account: the same of another account.
        second_credential: another credential of the first account.
        effects: how effects are counted.
        with_: other operations, as `NAME=METHOD URL [CONTENT]`.
        hook: what changes the target, as `NAME=METHOD URL` or `NAME=cmd COMMAND`.
        openapi: a file or a URL.
        operation_id: of the operation in the OpenAPI document.
        server: base URL, where the OpenAPI document has none.
        docs: address of the documentation.
        origin: origins that browsers may call from.
        replica: base URL of another replica.
        sandbox: base URL of the sandbox.
        lifetime_s: how long a finished key replays.
        lease_s: how long a dead worker holds a key.
        spare_field: a member that the API takes and does not judge.
        required: whether a request without a key is refused.
        profile: name or file.
        i_own_this_api: requests may go to hosts that are not this one.
    """

    operation: str = ""
    json: str = ""
    form: str = ""
    header: tuple[str, ...] = ()
    account: tuple[str, ...] = ()
    other_account: tuple[str, ...] = ()
    second_credential: tuple[str, ...] = ()
    effects: str = ""
    with_: Mapping[str, str] = field(default_factory=dict)
    hook: Mapping[str, str] = field(default_factory=dict)
    openapi: str = ""
    operation_id: str = ""
    server: str = ""
    docs: str = ""
    origin: tuple[str, ...] = ()
    replica: str = ""
    sandbox: str = ""
    lifetime_s: float | None = None
    lease_s: float | None = None
    spare_field: str = "note"
    required: bool | None = None
    profile: str = "ietf"
    i_own_this_api: bool = False


def read_suite(path: Path) -> dict[str, Any]:
    """The settings in a TOML file. `${NAME}` stands for a variable of the environment.

    Raises:
        ConfigurationError: it cannot be used; with every fault.
    """
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError([f"the suite cannot be read: {error}"]) from None
    known = {each.name.rstrip("_"): each for each in fields(Given)}
    faults = [f"{path}: {name} is no setting; known are {', '.join(known)}" for name in table if name not in known]
    if faults:
        raise ConfigurationError(faults)
    return {"with_" if name == "with" else name: _filled(value) for name, value in table.items()}


def _filled(value: Any) -> Any:
    """Texts with their variables, at any depth; lists as tuples."""
    if isinstance(value, str):
        return _VARIABLE.sub(_of_environment, value)
    if isinstance(value, list):
        return tuple(_filled(item) for item in value)
    return {name: _filled(item) for name, item in value.items()} if isinstance(value, dict) else value


def _of_environment(match: re.Match[str]) -> str:
    if (text := os.environ.get(match[1])) is None:
        raise ConfigurationError([f"the suite needs the variable {match[1]}, which is not set"])
    return text


def pairs(texts: Sequence[str], option: str) -> dict[str, str]:
    """`NAME=TEXT` as a table.

    Raises:
        ConfigurationError: one has no equals sign.
    """
    split = [text.partition("=") for text in texts]
    faults = [f"{option} takes NAME=..., and {name!r} has no equals sign" for name, equals, _ in split if not equals]
    if faults:
        raise ConfigurationError(faults)
    return {name.strip(): text.strip() for name, _, text in split}


def build(given: Given, settings: Settings) -> Run:
    """The run that was asked for.

    Raises:
        ConfigurationError: it cannot be; with what to change.
        RetrysafeError: the OpenAPI document cannot be fetched.
    """
    _refuse_content(given)
    document = load_document(given.openapi) if given.openapi else None
    headers = _fields(given.header)
    operation, required = _operation(given, document, headers)
    base = _base_url(operation)
    account = _fields(given.account)
    unknown = [
        f"{name!r} is no operation; known are {', '.join(sorted(OPERATIONS))}"
        for name in given.with_
        if name not in OPERATIONS
    ]
    unknown += [
        f"{name!r} is no hook; known are {', '.join(sorted(HOOKS))}" for name in given.hook if name not in HOOKS
    ]
    if unknown:
        raise ConfigurationError(unknown)
    target = Target(
        operation,
        {name: parse_operation(text, base, headers) for name, text in given.with_.items()},
        given.hook,
        account,
        _fields(given.other_account),
        _fields(given.second_credential),
        parse_counter(given.effects, base, (*headers, *account)) if given.effects else None,
        given.lifetime_s,
        given.lease_s,
        given.origin,
        given.replica or None,
        given.sandbox or None,
        document,
        given.docs or None,
        required if given.required is None else given.required,
        given.spare_field,
    )
    _refuse_strangers(target, allowed=given.i_own_this_api)
    _refuse_what_counts_nothing(target)
    return Run(target, load(given.profile), settings)


def _refuse_content(given: Given) -> None:
    """One content, and a form as a form is sent."""
    if given.json and given.form:
        raise ConfigurationError(["--json and --form are two contents of one operation: give one of them"])
    if given.form and not is_form(fill(given.form, "x")):
        raise ConfigurationError(
            ["--form is written as it is sent: 'name=value&name=value', a space as + and other signs as %XX"]
        )
    types = [value for name, value in _fields(given.header) if name.lower() == "content-type"]
    if given.form and any(value.partition(";")[0].strip().lower() != FORM for value in types):
        raise ConfigurationError([f"--form is sent as {FORM}, and --header says {', '.join(types)}"])


def _refuse_what_counts_nothing(target: Target) -> None:
    """A counter that asks for the reference finds no effect of requests without one, and every case would fail."""
    if target.counter and target.counter.by_reference and not target.operation.has_reference():
        raise ConfigurationError(
            ["--effects counts what has {{unique}}, and the operation has it nowhere: put it into its content or URL"]
        )


def _operation(given: Given, document: Mapping[str, Any] | None, headers: Fields) -> tuple[Operation, bool | None]:
    if document is not None and given.operation_id:
        operation, required = api_documents.operation_of(document, given.operation_id, given.server or given.openapi)
        if given.server:
            operation = operation.at(given.server)
        made = replace(operation, headers=headers, body=given.json or given.form or operation.body)
        return made, required
    if not given.operation:
        raise ConfigurationError(["what is to be verified? give METHOD URL, or --openapi and --operation, or --suite"])
    operation = parse_operation(given.operation, "", headers)
    body = given.json or given.form
    return (replace(operation, body=body) if body else operation), None


def _base_url(operation: Operation) -> str:
    parts = urlsplit(operation.url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigurationError(
            [f"{operation.url!r} is no address: give METHOD URL, the URL with http:// or https:// and a host"]
        )
    return f"{parts.scheme}://{parts.netloc}"


def _fields(texts: Sequence[str]) -> Fields:
    return tuple(parse_field(text) for text in texts)


def _refuse_strangers(target: Target, *, allowed: bool) -> None:
    """Whoever has no right to load an API with requests is stopped here."""
    strangers = sorted(target.hosts - LOOPBACK)
    if strangers and not allowed:
        why = "verifying sends hundreds of requests that have effects"
        raise ConfigurationError([f"{', '.join(strangers)} is not this machine, and {why}: --i-own-this-api allows it"])
