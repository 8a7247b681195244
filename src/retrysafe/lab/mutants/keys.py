"""Servers that read keys wrongly."""

from __future__ import annotations

import fnmatch
import re

from retrysafe.lab.mutants.correct import Identity, Record, Server
from retrysafe.lab.mutants.http import Request, Response, problem
from retrysafe.lab.mutants.shop import Handler


class _RunsWithoutKey(Server):
    """What it cannot read counts as no key."""

    def unreadable(self, lines: list[str]) -> bool:
        """Whether these lines count as no key."""
        raise NotImplementedError

    async def keyed(self, request: Request, handler: Handler) -> Response:
        """Run without protection what has no key that it can read."""
        lines = request.values("idempotency-key")
        if lines and self.unreadable(lines):
            return await self.safely(handler, request)
        return await super().keyed(request, handler)


class BareKeysAreIgnored(_RunsWithoutKey):
    """Ignores keys without quotes, as RFC 9651 allows for a field that cannot be parsed."""

    def unreadable(self, lines: list[str]) -> bool:
        """Whether it has no quotes."""
        return '"' not in lines[0]


class MalformedKeysAreIgnored(_RunsWithoutKey):
    """Takes a malformed key for none, and runs without protection."""

    def unreadable(self, lines: list[str]) -> bool:
        """Whether it is malformed."""
        return self.key(lines) is None


class EmptyKeysAreIgnored(_RunsWithoutKey):
    """Takes an empty key for none."""

    def unreadable(self, lines: list[str]) -> bool:
        """Whether it is empty."""
        return lines[0].strip() in {"", '""'}


class QuotedKeysAreRefused(Server):
    """Knows only bare keys."""

    def unquoted(self, value: str) -> str | None:
        """Refuse quotes."""
        return None if '"' in value else super().unquoted(value)


class QuotesArePartOfTheKey(Server):
    """Takes `"k"` and `k` for two keys."""

    def normal(self, key: str) -> str:
        """Keep the key as it is."""
        return key

    def key(self, lines: list[str]) -> str | None:
        """The key with its quotes, if it has some."""
        key = super().key(lines)
        return key and (f'"{key}"' if '"' in lines[0] else key)


class FirstOfTwoKeys(Server):
    """Takes the first of several key lines, or of several keys on a line."""

    def key(self, lines: list[str]) -> str | None:
        """The first."""
        return super().key([lines[0].partition(", ")[0]])


class AnythingIsAKey(Server):
    """Takes whatever the field has for the key, of any length and with any characters."""

    def key(self, lines: list[str]) -> str | None:
        """Everything, joined."""
        return self.normal(",".join(lines).strip('"')) or " "


class LongKeysAreCut(Server):
    """Cuts keys after 255 characters."""

    def unquoted(self, value: str) -> str | None:
        """The first characters."""
        key = super().unquoted(value)
        return key and key[:255]


class LongKeysFail(Server):
    """Answers a key that is too long for its column with a server error."""

    def key(self, lines: list[str]) -> str | None:
        """The key."""
        return "".join(lines) if len("".join(lines)) > 300 else super().key(lines)

    async def find(self, identity: Identity) -> Record | None:
        """Look the key up."""
        if len(identity[-1]) > 300:
            raise ValueError("value too long for type character varying(255)")
        return await super().find(identity)


class ControlCharactersAreKept(Server):
    """Accepts any byte within quotes."""

    def key(self, lines: list[str]) -> str | None:
        """The key, whatever is in it."""
        if len(lines) == 1 and re.fullmatch(r'"[^"\\ ]{1,255}"', lines[0]):
            return self.normal(lines[0].strip('"'))
        return super().key(lines)


class ParametersArePartOfTheKey(Server):
    """Takes parameters behind the key for a part of it."""

    def unquoted(self, value: str) -> str | None:
        """The key with its parameters."""
        key = super().unquoted(value)
        return key and (key + value.rpartition('"')[2] if '"' in value else key)


class KeysArePatterns(Server):
    """Looks keys up by a pattern, as `KEYS` and `GLOB` do."""

    async def find(self, identity: Identity) -> Record | None:
        """The first that matches."""
        account, pattern = identity
        matches = (
            record
            for (owner, key), record in self.records.items()
            if owner == account and fnmatch.fnmatchcase(key, pattern)
        )
        return next(matches, None)

    def judge(self, record: Record, request: Request) -> Response | None:
        """Compare nothing, so that a pattern reads what it matches."""
        return super().judge(record, request) if "*" not in request.value("idempotency-key") else record.response


class KeysArePastedIntoSql(Server):
    """Fails on a key with a quotation mark in it."""

    async def find(self, identity: Identity) -> Record | None:
        """Look the key up."""
        if "'" in identity[-1]:
            raise ValueError("syntax error at or near OR")
        return await super().find(identity)


class MissingKeysRun(Server):
    """Says that a key is required, and runs without one."""

    def required(self, request: Request) -> bool:
        """Never."""
        return False


class TrailersAreFields(Server):
    """Takes a key from the trailers of a chunked request."""

    parser = "httptools"


class InvalidKeysAreNotExplained(Server):
    """Answers a key that it refuses with 400 and nothing else."""

    async def keyed(self, request: Request, handler: Handler) -> Response:
        """Without a document."""
        response = await super().keyed(request, handler)
        return Response(400) if response.status == 400 and b"/key-" in response.body else response


class InvalidKeysAreConflicts(Server):
    """Answers a key that it refuses with 409."""

    async def keyed(self, request: Request, handler: Handler) -> Response:
        """With another status."""
        response = await super().keyed(request, handler)
        return problem(409, "key-invalid") if b"/key-invalid" in response.body else response
