"""Where a Redis is and how it is to be used, from the store's URL. Nothing here connects to anything."""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from urllib.parse import parse_qsl, unquote, urlsplit

from retrysafe.errors import ConfigurationError
from retrysafe.protocol.duration import milliseconds
from retrysafe.stores.url import shown

FORMS = (
    "redis://host:6379/0",
    "rediss://host:6379/0",
    "redis+sentinel://host:26379,host:26379/name-of-the-primary/0",
    "redis+cluster://host:6379,host:6379",
)
OVERRIDE = "i_accept_double_execution"

_OPTIONS = {
    "prefix",
    "client",
    "wait",
    "wait_timeout",
    "timeout",
    "ca",
    "cert",
    "key",
    "sentinel_username",
    "sentinel_password",
    OVERRIDE,
}


class Kind(Enum):
    """How the servers of a Redis belong together."""

    SINGLE = "redis"
    SENTINEL = "redis+sentinel"
    CLUSTER = "redis+cluster"


class Client(Enum):
    """Which client an event loop uses."""

    LEAN = "lean"
    REDIS_PY = "redis-py"


@dataclass(frozen=True, slots=True)
class Tls:
    """How a server proves who it is, and how we do. Paths of PEM files; None: the system's authorities, no proof."""

    ca: str | None = None
    cert: str | None = None
    key: str | None = None

    def context(self) -> ssl.SSLContext:
        """The settings of a connection.

        Raises:
            ConfigurationError: a file cannot be used.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca)
            if self.cert is not None:
                context.load_cert_chain(self.cert, self.key)
        except OSError as error:  # an SSLError is one
            raise ConfigurationError([f"the files of ca=, cert= and key= cannot be used: {error}"]) from error
        return context


@dataclass(frozen=True, slots=True)
class RedisPlace:
    """A Redis or a Valkey.

    Attributes:
        hosts: of the server, of the sentinels, or of some nodes of the cluster; each with its port.
        kind: how they belong together.
        service: what the sentinels call the primary.
        username, password: the server's; the sentinels may have their own.
        database: its number.
        tls: None for a connection in the clear.
        client: what an event loop uses.
        prefix: of every key.
        replicas: how many must have a claim before its handler runs.
        wait_ms: how long they may take.
        timeout_ms: how long a server may be silent.
        evicting: whether it may forget records when its memory is full.
    """

    hosts: Sequence[tuple[str, int]]
    kind: Kind = Kind.SINGLE
    service: str = ""
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    sentinel_username: str | None = field(default=None, repr=False)
    sentinel_password: str | None = field(default=None, repr=False)
    database: int = 0
    tls: Tls | None = None
    client: Client = Client.LEAN
    prefix: str = "retrysafe"
    replicas: int = 0
    wait_ms: int = 1_000
    timeout_ms: int = 5_000
    evicting: bool = False

    @property
    def name(self) -> str:
        """For people: no credentials in it."""
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        match self.kind:
            case Kind.SINGLE:
                return f"redis {hosts}/{self.database}"
            case Kind.SENTINEL:
                return f"redis {self.service}/{self.database} of the sentinels {hosts}"
            case Kind.CLUSTER:
                return f"redis cluster of {hosts}"


def place_of(url: str) -> RedisPlace:
    """The place that a URL names.

    Raises:
        ConfigurationError: with every fault; no credentials are repeated.
    """
    parts = urlsplit(url)
    faults: list[str] = []
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    encrypted = parts.scheme.startswith("rediss")
    kind = Kind(parts.scheme.replace("rediss", "redis", 1))
    credentials, _, hosts = parts.netloc.rpartition("@")
    username, _, password = credentials.partition(":")
    service, database = _path(kind, parts.path, faults)
    if parts.fragment or (unknown := set(options) - _OPTIONS):
        faults.append(f"unknown: {'what follows #' if parts.fragment else shown(unknown, parts.query)}")
    tls_files = {name: options.get(name) for name in ("ca", "cert", "key")}
    if not encrypted and any(tls_files.values()):
        faults.append("ca=, cert= and key= are for rediss://")
    place = RedisPlace(
        hosts=_hosts(hosts, 26_379 if kind is Kind.SENTINEL else 6_379, faults),
        kind=kind,
        service=service,
        username=unquote(username) or None,
        password=unquote(password) or None,
        sentinel_username=options.get("sentinel_username"),
        sentinel_password=options.get("sentinel_password"),
        database=database,
        tls=Tls(**tls_files) if encrypted else None,
        client=_client(kind, options, faults),
        prefix=_prefix(options, faults),
        replicas=_replicas(kind, options, faults),
        wait_ms=_duration(options, "wait_timeout", "1s", faults),
        timeout_ms=_duration(options, "timeout", "5s", faults),
        evicting=_flag(options, OVERRIDE, faults),
    )
    if place.replicas and place.wait_ms >= place.timeout_ms:
        faults.append("wait_timeout= is to be shorter than timeout=")
    if kind is Kind.SINGLE and len(place.hosts) > 1:
        faults.append("it names several hosts; redis+sentinel:// and redis+cluster:// do")
    if faults:
        said = "; ".join(faults)
        raise ConfigurationError(
            [f"the store's URL {parts.scheme}://... cannot be used: {said}; the forms are {', '.join(FORMS)}"]
        )
    return place


def _hosts(text: str, port: int, faults: list[str]) -> Sequence[tuple[str, int]]:
    hosts = []
    for one in text.split(","):
        found = re.fullmatch(r"(?:\[(?P<v6>[0-9A-Fa-f:.%]+)\]|(?P<host>[^\[\]:@/]+))(?::(?P<port>\d{1,5}))?", one)
        if found is None:
            faults.append("it names no host, or one that is none")
            continue
        hosts.append((found["v6"] or found["host"], int(found["port"] or port)))
    return tuple(hosts)


def _path(kind: Kind, path: str, faults: list[str]) -> tuple[str, int]:
    """The name of the primary and the number of the database."""
    steps = [unquote(step) for step in path.split("/") if step]
    service = steps.pop(0) if kind is Kind.SENTINEL and steps else ""
    if kind is Kind.SENTINEL and not service:
        faults.append("it does not say what the sentinels call the primary")
    if kind is Kind.CLUSTER and steps:
        faults.append("a cluster has no numbered databases")
    database = steps.pop(0) if steps else "0"
    if steps or not database.isascii() or not database.isdecimal():
        faults.append("its path is not the number of a database")
        return service, 0
    return service, int(database)


def _client(kind: Kind, options: Mapping[str, str], faults: list[str]) -> Client:
    default = Client.LEAN if kind is Kind.SINGLE else Client.REDIS_PY
    chosen = options.get("client", default.value)
    if chosen not in {client.value for client in Client}:
        faults.append("client is lean or redis-py")
        return default
    if chosen == Client.LEAN.value and kind is not Kind.SINGLE:
        faults.append("client=lean is for a single server")
    return Client(chosen)


def _prefix(options: Mapping[str, str], faults: list[str]) -> str:
    prefix = options.get("prefix", "retrysafe")
    if not re.fullmatch(r"[!-z|~]{1,64}", prefix):  # no braces, which would be taken for the hash tag
        faults.append("prefix is 1 to 64 printable characters without spaces and braces")
    return prefix


def _replicas(kind: Kind, options: Mapping[str, str], faults: list[str]) -> int:
    text = options.get("wait", "0")
    if not text.isascii() or not text.isdecimal() or len(text) > 3:
        faults.append("wait is a number of replicas")
        return 0
    if int(text) and kind is Kind.CLUSTER:
        faults.append("wait= cannot be had with a cluster; set min-replicas-to-write on its nodes")
    return int(text)


def _duration(options: Mapping[str, str], name: str, default: str, faults: list[str]) -> int:
    try:
        return milliseconds(options.get(name, default))
    except ValueError as error:
        faults.append(f"{name}: {error}")
        return 0


def _flag(options: Mapping[str, str], name: str, faults: list[str]) -> bool:
    value = options.get(name, "false")
    if value not in ("true", "false"):
        faults.append(f"{name} is true or false")
    return value == "true"
