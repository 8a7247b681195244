"""The URL of a store, taken apart for the module of the store that it names, which knows what the parts mean there.

Nothing of a URL is repeated to anybody before it is known that it cannot be part of a password: one with a
`/`, a `?` or a `#` in it that is not escaped ends up in the path, in the options or behind them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from retrysafe.errors import ConfigurationError


class UnusableUrl(ValueError):
    """Why a URL cannot be used; for `open_store`, which says it together with the forms that can."""


class StoreUrl:
    """A URL, of which the store that it names takes what it understands.

    Args:
        text: as it was given.

    Attributes:
        text: the whole of it; with the password, so it is never shown.
        scheme: in lower case.
        authority: what stands before the path, as it is: user, password, hosts and ports.
        path: without what is before it; unescaped, and with its first slash.

    Raises:
        UnusableUrl: it is none, or has a password that is not escaped.
    """

    def __init__(self, text: str) -> None:
        try:
            self._parts = urlsplit(text)
        except ValueError:  # whose text quotes what may be a password
            raise UnusableUrl("its host, or its password, has characters that must be escaped, as in %5B") from None
        self.text = text
        self.scheme = self._parts.scheme
        self.authority = self._parts.netloc
        self.path = unquote(self._parts.path)
        self._options = dict(parse_qsl(self._parts.query, keep_blank_values=True))
        astray = "@" in self._parts.path + self._parts.fragment
        self.refuse(self.authority and astray, "a /, a ? or a # in a password is written %2F, %3F, %23")

    def refuse(self, wrong: object, why: str) -> None:
        """Raise `UnusableUrl` if something is wrong.

        Args:
            wrong: whatever is true then.
            why: what is to be said; nothing that may be part of a password.
        """
        if wrong:
            raise UnusableUrl(why)

    @property
    def host(self) -> str:
        """The host; empty if there is none."""
        return self._parts.hostname or ""

    @property
    def user(self) -> str:
        """Who goes there, unescaped; empty if it does not say."""
        return unquote(self._parts.username or "")

    @property
    def password(self) -> str:
        """With which password, unescaped; empty if it has none."""
        return unquote(self._parts.password or "")

    def port(self, default: int) -> int:
        """The port, or the one that is usual."""
        try:
            port = self._parts.port
        except ValueError:
            port = 0
        self.refuse(port == 0, "its port is no number up to 65535")
        return port or default

    def option(self, name: str) -> str | None:
        """Take an option; None if it is not there."""
        return self._options.pop(name, None)

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Take an option that is true or false."""
        value = self._options.pop(name, str(default).lower())
        self.refuse(value not in ("true", "false"), f"{name} is true or false")
        return value == "true"

    def refuse_rest(self) -> None:
        """Refuse whatever was not taken."""
        self.refuse(self._options, f"unknown: {shown(self._options, self._parts.query)}")
        fragment = "what follows #" if self.authority else self._parts.fragment
        self.refuse(self._parts.fragment, f"unknown: {fragment}")

    def only_with(self, options: dict[str, str]) -> str:
        """The URL with other options, as libraries understand them that know no `+` for a space."""
        return self._parts._replace(query=urlencode(options, quote_via=quote), fragment="").geturl()


def shown(options: Iterable[str], query: str) -> str:
    """The names of options as they may be shown: not where the end of a password may be among them.

    Args:
        options: the names.
        query: the part of the URL that they are from.
    """
    return "what follows ?" if "@" in query else ", ".join(sorted(options))


def without_password(url: str) -> str:
    """A store's URL as it may be shown: a password in it, wherever a store may have one, is replaced."""
    without = re.sub(r"(?s)://(?!/)([^:]*):.*@", r"://\1:(hidden)@", url)
    return re.sub(r"(?i)(password=)[^&]*", r"\1(hidden)", without)


def lacking(extra: str, missing: ModuleNotFoundError) -> ConfigurationError:
    """What to say where the libraries of a store are not installed.

    Args:
        extra: of this package, which brings them.
        missing: what the import said.
    """
    return ConfigurationError([f'a {extra} store needs {missing.name}: pip install "retrysafe[{extra}]"'])
