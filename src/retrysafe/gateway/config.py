"""The gateway's settings: from options, environment and a file to one frozen value.

An option goes before the environment, which goes before the file. Whatever is wrong is told at once,
each fault with the place where it was set.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from retrysafe.errors import ConfigurationError
from retrysafe.gateway.settings_file import SettingsFile
from retrysafe.protocol.duration import milliseconds
from retrysafe.protocol.policy import MODES, OPTIONS, Policy
from retrysafe.server.inquiry import check_path
from retrysafe.server.named import named
from retrysafe.server.recovery import check_recovery
from retrysafe.server.routes import Routes
from retrysafe.server.scope import resolver
from retrysafe.stores.location import open_store
from retrysafe.stores.url import without_password

DEFAULT = "default"

# `classify` is a function: it has no spelling in a file. And of a handler behind a gateway nobody here knows what it
# commits together, nor when its effects begin: taken at its word, a 500 of the upstream would be sent again.
_OF_HANDLERS = {"transactional": "complete_within", "effects": "begin_effects"}
POLICY_OPTIONS = tuple(name for name in OPTIONS if name != "classify" and name not in _OF_HANDLERS)
_POLICY_DEFAULT = Policy()
_SECRET_BYTES_MIN = 16
_OFTEN_MS_MIN = 50
_HOST_CHARACTERS_MAX = 254  # with a dot at the end (RFC 1035 3.1)


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayConfig:
    """Everything that the gateway is told, checked. What each is for, `SETTINGS` says."""

    upstream: str
    store: str
    scope: str
    listen: Address = Address("127.0.0.1", 8080)
    mode: str = "protect"
    namespace: str = "default"
    secret: bytes | None = field(default=None, repr=False)
    encryption_keys: str | None = field(default=None, repr=False)
    policy: Policy = field(default_factory=Policy)
    routes: Mapping[str, Policy | None] = field(default_factory=dict)
    authorize: str | None = None
    status_path: str | None = None
    contract_path: str | None = None
    forwarded: str = "replace"
    host: str = "preserve"
    upstream_timeout_ms: int = 60_000
    upstream_connect_timeout_ms: int = 5_000
    upstream_keepalive_ms: int = 1_000
    drain_ms: int = 30_000
    health_listen: Address | None = None
    reauthenticate: Callable[..., Any] | None = None
    reconcile: Callable[..., Any] | None = None
    complete_abandoned: str | None = None
    log_level: str = "warning"


# --- how each setting is spelled ------------------------------------------------------------------


def _origin(text: str) -> str:
    url = urlsplit(text)
    if url.scheme not in ("http", "https") or not url.hostname or url.username is not None:
        raise ValueError('it must be like "http://127.0.0.1:9000", without user and password')
    if url.path not in ("", "/") or url.query or url.fragment or url.port == 0:
        raise ValueError("it must end after the port: paths are forwarded as they come")
    return f"{url.scheme}://{_host(url)}" + ("" if url.port is None else f":{url.port}")


def _host(url: SplitResult) -> str:
    """The host of a URL as a connection can use it: in ASCII (IDNA), an IPv6 address in brackets."""
    host = url.hostname or ""
    try:
        if "[" in url.netloc and "%" not in host:
            return f"[{IPv6Address(host)}]"
        name = host.encode("idna").decode("ascii")
    except ValueError:
        name = ""
    if len(name) > _HOST_CHARACTERS_MAX or not re.fullmatch(r"(?:[A-Za-z0-9_-]{1,63}\.)*[A-Za-z0-9_-]{1,63}\.?", name):
        raise ValueError('its host can be no name and no address; it must be like "localhost", "127.0.0.1" or "[::1]"')
    return name


def _address(text: str) -> Address:
    parsed = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:\s]+)):([0-9]{1,5})", text)
    if parsed is None or int(parsed[3]) > 65_535:
        raise ValueError('it must be HOST:PORT, like "127.0.0.1:8080" or "[::1]:8080"')
    return Address(parsed[1] or parsed[2], int(parsed[3]))


def _text(text: str) -> str:
    if not text:
        raise ValueError("it must not be empty")
    return text


def _store(text: str) -> str:
    open_store(text)  # makes a store of it, and opens nothing yet
    return text


def _scope(text: str) -> str:
    resolver(text)
    if text == "user":
        raise ValueError("it needs an application in the same process, and the upstream is another")
    return text


def _path(text: str) -> str:
    if not re.fullmatch(r"/[!\"$-~]*", text):
        raise ValueError('it must be a path of the upstream, like "/may-read"')
    return text


def _function(text: str) -> Callable[..., Any]:
    if callable(found := named(text)):
        function: Callable[..., Any] = found
        return function
    raise ValueError("it is no function")


def _often(text: str) -> str:
    if milliseconds(text) < _OFTEN_MS_MIN:
        raise ValueError(f"it must be at least {_OFTEN_MS_MIN} ms")
    return text


def _duration(least_ms: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        duration_ms = milliseconds(text)
        if duration_ms < least_ms:
            raise ValueError(f"it must be at least {least_ms} ms")
        return duration_ms

    return parse


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"it must be one of {', '.join(choices)}")
        return text

    return parse


_status_path = partial(check_path, "status_path", example="/idempotency/requests")
_contract_path = partial(check_path, "contract_path", example="/.well-known/idempotency-contract")


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting that is a line of text.

    Attributes:
        name: in the file; the option is `--name` with dashes, the variable `RETRYSAFE_NAME`.
        parse: raises ValueError, or ConfigurationError with full sentences.
        help: for people, one sentence.
        default: as it would be written; None if there is none.
    """

    name: str
    parse: Callable[[str], Any]
    help: str
    default: str | None = None

    @property
    def field(self) -> str:
        """The name in `GatewayConfig`: a duration is in milliseconds there."""
        return f"{self.name}_ms" if self.name in _DURATIONS else self.name

    @property
    def option(self) -> str:
        """The name on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """The name in the environment."""
        return "RETRYSAFE_" + self.name.upper()


SETTINGS = (
    Setting("upstream", _origin, "The API to protect, like http://127.0.0.1:9000. Nothing else is ever reached."),
    Setting("store", _store, "Where the records are, like sqlite:///retrysafe.db."),
    Setting("scope", _scope, 'Whose key it is: "header:NAME", "authorization" or "anonymous".'),
    Setting("listen", _address, "HOST:PORT to serve at.", "127.0.0.1:8080"),
    Setting("mode", _one_of(*MODES), "protect; or observe: change nothing, and count what would be done.", "protect"),
    Setting("namespace", _text, "Environments that share a store differ in it.", "default"),
    Setting("authorize", _path, "Path of the upstream that is asked (GET) before a replay; 2xx allows it."),
    Setting(
        "status_path", _status_path, "Path at which the gateway itself says what became of a key; off unless given."
    ),
    Setting(
        "contract_path", _contract_path, "Path at which the gateway itself says what it promises; off unless given."
    ),
    Setting("forwarded", _one_of("replace", "append"), "X-Forwarded-* of clients: replace, or append to.", "replace"),
    Setting("host", _one_of("preserve", "upstream"), "Host: preserve the client's, or name the upstream.", "preserve"),
    Setting("upstream_timeout", _duration(1), "How long the upstream may be silent.", "60s"),
    Setting("upstream_connect_timeout", _duration(1), "How long connecting may take.", "5s"),
    Setting("upstream_keepalive", _duration(0), "How long an idle connection to the upstream is kept.", "1s"),
    Setting("drain", _duration(0), "How long shutting down waits for running requests.", "30s"),
    Setting("health_listen", _address, "HOST:PORT for /livez and /readyz; off unless given."),
    Setting("reauthenticate", _function, "MODULE:NAME of a function: in whose name abandoned requests are sent again."),
    Setting("reconcile", _function, "MODULE:NAME of a function that is asked about unknown outcomes."),
    Setting("complete_abandoned", _often, "How often to do both, like 30s; not in this process unless given."),
    Setting("log_level", _one_of("debug", "info", "warning", "error"), "What is logged on stderr.", "warning"),
)
_DURATIONS = frozenset({"upstream_timeout", "upstream_connect_timeout", "upstream_keepalive", "drain"})
REQUIRED = ("upstream", "store", "scope")
SECRET_VARIABLE = "RETRYSAFE_SECRET"  # noqa: S105 - the name of a variable
ENCRYPTION_VARIABLE = "RETRYSAFE_ENCRYPTION_KEYS"
# What is never part of a fault, nor shown, nor in the settings file: it is in the environment, or in a file of its own.
_HIDDEN = ("secret", "encryption_keys")
_BY_NAME = {setting.name: setting for setting in SETTINGS}
_TABLES = ("policy", "routes")
DUAL_CONTROL = "dual_control"  # in the file alone: an option would be nobody's control
_NAMES_IN_FILE = (*_BY_NAME, *(f"{name}_file" for name in _HIDDEN), DUAL_CONTROL, *_TABLES)


# --- reading --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Value:
    """A setting as somebody wrote it, and where."""

    value: Any
    origin: str


@dataclass(frozen=True, slots=True)
class Settings:
    """What was set, before it is checked.

    Attributes:
        plain: settings that are a line of text, by name; `secret` and `secret_file` too, and the same of keys.
        policy: options of the policy for every route.
        routes: options of each route, by entry.
        entries: where each route stands.
        faults: what could not even be read.
    """

    plain: dict[str, Value] = field(default_factory=dict)
    policy: dict[str, Value] = field(default_factory=dict)
    routes: dict[str, dict[str, Value]] = field(default_factory=dict)
    entries: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def read(given: Mapping[str, Value], policy: Mapping[str, Value], file: SettingsFile | None) -> Settings:
    """Lay what was given on the command line and in the environment over what the file says.

    Args:
        given: settings by name.
        policy: policy options by name, as text.
        file: the settings file, if there is one.
    """
    settings = Settings()
    if file is not None:
        _read_file(file, settings)
    settings.plain.update(given)
    for name, value in policy.items():
        try:
            settings.policy[name] = Value(_from_text(name, value.value), value.origin)
        except ValueError as error:
            settings.faults.append(f"{value.origin}: {error}")
    return settings


def _read_file(file: SettingsFile, settings: Settings) -> None:
    for name, value in file.table.items():
        where = file.where(name)
        if name in _HIDDEN:
            settings.faults.append(f"{where}: {name} does not belong in this file; name a file in {name}_file")
        elif name not in _NAMES_IN_FILE:
            settings.faults.append(f"{where}: {_unknown('setting', name, _NAMES_IN_FILE)}")
        elif name in _TABLES and not isinstance(value, dict):
            settings.faults.append(f"{where}: {name} is {value!r}; it must be a table")
        elif name == "policy":
            settings.policy.update(_read_policy(file, ("policy",), value, settings))
        elif name == "routes":
            for entry, options in value.items():
                _read_route(file, entry, options, settings)
        elif name == DUAL_CONTROL and not isinstance(value, bool):
            settings.faults.append(f"{where}: {name} is {value!r}; it must be true or false")
        elif name != DUAL_CONTROL and not isinstance(value, str):
            settings.faults.append(f"{where}: {name} is {value!r}; it must be a string")
        else:
            settings.plain[name] = Value(value, where)


def _read_route(file: SettingsFile, entry: str, options: Any, settings: Settings) -> None:
    settings.entries[entry] = file.where("routes", entry)
    if not isinstance(options, dict):
        settings.faults.append(f'{settings.entries[entry]}: routes."{entry}" is {options!r}; it must be a table')
        return
    options = dict(options)
    enrolled = options.pop("enrolled", True)
    where = file.where("routes", entry, "enrolled")
    if not isinstance(enrolled, bool):
        settings.faults.append(f'{where}: routes."{entry}".enrolled is {enrolled!r}; it must be true or false')
    elif not enrolled and options:
        settings.faults.append(f'{where}: routes."{entry}" is not enrolled and has policy options; remove one of both')
    read = _read_policy(file, ("routes", entry), options, settings)
    settings.routes[entry] = {**read, "enrolled": Value(enrolled, where)} if enrolled is False else read


def _read_policy(
    file: SettingsFile, place: tuple[str, ...], options: dict[str, Any], settings: Settings
) -> dict[str, Value]:
    known = {}
    for name, value in options.items():
        where = file.where(*place, name)
        if name in POLICY_OPTIONS:
            known[name] = Value(value, where)
        else:
            settings.faults.append(f"{where}: {_unknown('policy option', name, POLICY_OPTIONS)}")
    return known


def _from_text(name: str, text: str) -> Any:
    """A policy option from the command line, in the type of its default."""
    if name not in POLICY_OPTIONS:
        raise ValueError(_unknown("policy option", name, POLICY_OPTIONS))
    default = getattr(_POLICY_DEFAULT, name)
    if isinstance(default, bool):
        if text not in ("true", "false"):
            raise ValueError(f"policy.{name} is {text!r}; it must be true or false")
        return text == "true"
    if isinstance(default, int):
        if not re.fullmatch(r"[0-9]+", text):
            raise ValueError(f"policy.{name} is {text!r}; it must be a whole number")
        return int(text)
    if isinstance(default, tuple):
        return tuple(item.strip() for item in text.split(",") if item.strip())
    return text


def _unknown(kind: str, name: str, known: tuple[str, ...]) -> str:
    if name in _OF_HANDLERS:
        return (
            f"{name} is for handlers that call operation().{_OF_HANDLERS[name]}, and a gateway has no handler: use the "
            "middleware in the application, or leave it out"
        )
    close = get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
    return f"{name} is no {kind}; {hint}"


# --- checking -------------------------------------------------------------------------------------


def build(settings: Settings) -> GatewayConfig:
    """The configuration of a gateway.

    Raises:
        ConfigurationError: with every fault, each with its place.
    """
    faults = list(settings.faults)
    values = {name: parsed(name, settings, faults) for name in _BY_NAME}
    secret = _secret(settings, faults)
    encryption_keys = _encryption_keys(settings, faults)
    policy = policy_in(settings, faults)
    routes = routes_in(settings, policy or Policy(), faults)
    _check_recovery(values, encryption_keys, faults)
    if faults:
        raise ConfigurationError(faults)
    fields = {_BY_NAME[name].field: value for name, value in values.items()}
    return GatewayConfig(
        **fields, secret=secret, encryption_keys=encryption_keys, policy=policy or Policy(), routes=routes
    )


def _check_recovery(values: Mapping[str, Any], encryption_keys: str | None, faults: list[str]) -> None:
    functions = values["reauthenticate"], values["reconcile"]
    try:
        check_recovery(values["scope"] or "", *functions, encryption_keys, values["complete_abandoned"])
    except ConfigurationError as error:
        faults.extend(error.faults)


def build_store(settings: Settings) -> tuple[str, bytes | None]:
    """Where the records are, and the secret that they are digested with, for commands that need no more.

    Raises:
        ConfigurationError: with every fault in these.
    """
    faults: list[str] = []
    store = parsed("store", settings, faults)
    secret = _secret(settings, faults)
    if faults:
        raise ConfigurationError(faults)
    return store, secret


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorConfig:
    """What commands that look into records, and settle them, are told. As in `GatewayConfig`, and `dual_control`."""

    store: str
    secret: bytes | None = field(default=None, repr=False)
    encryption_keys: str | None = field(default=None, repr=False)
    namespace: str = "default"
    policy: Policy = field(default_factory=Policy)
    routes: Mapping[str, Policy | None] = field(default_factory=dict)
    dual_control: bool = False

    def policy_of(self, route: str) -> Policy:
        """What holds for the records of a route; of one that is not in the settings, what holds for all."""
        return self.routes.get(route) or self.policy


def build_operator(settings: Settings) -> OperatorConfig:
    """The configuration of a command that looks into records.

    Raises:
        ConfigurationError: with every fault in these settings.
    """
    faults = [*settings.faults]
    store = parsed("store", settings, faults)
    namespace = parsed("namespace", settings, faults)
    secret = _secret(settings, faults)
    encryption_keys = _encryption_keys(settings, faults)
    policy = policy_in(settings, faults) or Policy()
    routes = routes_in(settings, policy, faults)
    if faults:
        raise ConfigurationError(faults)
    return OperatorConfig(
        store=store,
        secret=secret,
        encryption_keys=encryption_keys,
        namespace=namespace,
        policy=policy,
        routes=routes,
        dual_control=DUAL_CONTROL in settings.plain and settings.plain[DUAL_CONTROL].value,
    )


def build_encryption(settings: Settings) -> str:
    """The keys of stored responses, for the command that cannot do without.

    Raises:
        ConfigurationError: there are none, or they cannot be used.
    """
    faults: list[str] = []
    keys = _encryption_keys(settings, faults)
    if keys is None and not faults:
        faults.append(f"there are no encryption_keys; set {ENCRYPTION_VARIABLE}, or encryption_keys_file")
    if faults or keys is None:
        raise ConfigurationError(faults)
    return keys


def parsed(name: str, settings: Settings, faults: list[str]) -> Any:
    """A setting, checked; None and perhaps a fault if it is not set."""
    setting = _BY_NAME[name]
    value = settings.plain.get(name) or (Value(setting.default, DEFAULT) if setting.default is not None else None)
    if value is None:
        if name in REQUIRED:
            faults.append(f"{name} is not set; give {setting.option}, {setting.variable}, or {name} in a settings file")
        return None
    try:
        return setting.parse(value.value)
    except ConfigurationError as error:
        faults.extend(f"{value.origin}: {fault}" for fault in error.faults)
    except ValueError as error:
        faults.append(f"{value.origin}: {name} is {value.value!r}; {error}")
    return None


def _secret(settings: Settings, faults: list[str]) -> bytes | None:
    secret, origin = _hidden("secret", settings, faults)
    if secret is not None and len(secret) < _SECRET_BYTES_MIN:
        faults.append(f"{origin}: the secret has fewer than {_SECRET_BYTES_MIN} bytes; use random ones")
    return secret


def _encryption_keys(settings: Settings, faults: list[str]) -> str | None:
    content, origin = _hidden("encryption_keys", settings, faults)
    if content is None:
        return None
    keys = content.decode("utf-8", "replace")
    try:
        from retrysafe.encryption import key_ring  # noqa: PLC0415 - needs an extra

        key_ring(keys)
    except ConfigurationError as error:
        faults.extend(f"{origin}: {fault}" for fault in error.faults)
    return keys


def _hidden(name: str, settings: Settings, faults: list[str]) -> tuple[bytes | None, str]:
    """What is never part of a fault, from the environment or a file; and where it was set."""
    given = settings.plain.get(name) or settings.plain.get(f"{name}_file")
    if given is None:
        return None, ""
    try:
        is_file = name not in settings.plain
        return Path(given.value).read_bytes().rstrip(b"\r\n") if is_file else given.value.encode(), given.origin
    except OSError as error:
        faults.append(f"{given.origin}: {name}_file cannot be read: {error.strerror}")
        return None, given.origin


def policy_in(settings: Settings, faults: list[str]) -> Policy | None:
    """The policy for all routes; None and a fault if there can be none."""
    try:
        return Policy(**{name: value.value for name, value in settings.policy.items()})
    except ConfigurationError as error:
        faults.extend(_placed(fault, settings.policy, "policy", "policy") for fault in error.faults)
    return None


def routes_in(settings: Settings, default: Policy, faults: list[str]) -> dict[str, Policy | None]:
    """The routes table; a route has what the policy for all has, but for what it says itself."""
    base = {name: value.value for name, value in settings.policy.items()}
    told = {fault.removeprefix("policy.") for fault in _faults_of(base)}
    routes: dict[str, Policy | None] = {}
    for entry, options in settings.routes.items():
        if "enrolled" in options:
            routes[entry] = None
            continue
        own = base | {name: value.value for name, value in options.items()}
        found = [fault for fault in _faults_of(own) if fault.removeprefix("policy.") not in told]
        place = f'routes."{entry}"'
        faults.extend(_placed(fault, options, place, settings.entries[entry]) for fault in found)
        routes[entry] = default if found or told else Policy(**own)
    try:
        Routes(default, routes)
    except ConfigurationError as error:
        faults.extend(_at_entry(fault, settings.entries) for fault in error.faults)
    return routes


def _faults_of(options: dict[str, Any]) -> tuple[str, ...]:
    try:
        Policy(**options)
    except ConfigurationError as error:
        return error.faults
    return ()


def _placed(fault: str, options: Mapping[str, Value], place: str, otherwise: str) -> str:
    """A policy's fault with where it was set; it names one option first, and sometimes a second."""
    named = [name for name in re.findall(r"policy\.(\w+)", fault) if name in options]
    origin = options[named[0]].origin if named else otherwise
    return f"{origin}: {fault.replace('policy.', place + '.')}"


def _at_entry(fault: str, entries: Mapping[str, str]) -> str:
    return next((f"{where}: {fault}" for entry, where in entries.items() if f'"{entry}"' in fault), fault)


# --- showing --------------------------------------------------------------------------------------


def effective(settings: Settings) -> list[tuple[str, Any, str]]:
    """Every setting that holds: dotted name, value, where it was set. The secret and passwords are never among them."""
    plain = {setting.name: Value(setting.default, DEFAULT) for setting in SETTINGS} | settings.plain
    plain |= {name: Value("(hidden)", plain[name].origin) for name in _HIDDEN if name in plain}
    policy = {name: Value(getattr(_POLICY_DEFAULT, name), DEFAULT) for name in POLICY_OPTIONS} | settings.policy
    rows = list(plain.items()) + [(f"policy.{name}", value) for name, value in policy.items()]
    for entry, options in settings.routes.items():
        rows += [(f'routes."{entry}".{name}', value) for name, value in options.items()]
    return [(name, _shown(name, value.value), value.origin) for name, value in rows if value.value is not None]


def _shown(name: str, value: Any) -> Any:
    return without_password(str(value)) if name == "store" else value
