"""Refusals as RFC 9457 problem documents (contract part H, R76-R78)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from types import MappingProxyType

from retrysafe.model import Headers, Response


@dataclass(frozen=True, slots=True)
class Kind:
    """One problem type: its status code, its title, and whether the same key may be sent again."""

    status: int
    title: str
    retryable: bool


KINDS = MappingProxyType(
    {
        "key-missing": Kind(400, "An idempotency key is required", retryable=False),
        "key-invalid": Kind(400, "The idempotency key is not valid", retryable=False),
        "scope-missing": Kind(401, "The account of the request is not known", retryable=False),
        "replay-forbidden": Kind(403, "The stored answer may not be shown to this caller", retryable=False),
        "key-unknown": Kind(404, "No request with this idempotency key is known", retryable=True),
        "in-progress": Kind(409, "A request with this idempotency key is in progress", retryable=True),
        "outcome-unknown": Kind(409, "The outcome of the request with this key is unknown", retryable=False),
        "replay-unavailable": Kind(409, "The request was done, and its answer cannot be replayed", retryable=False),
        "key-expired": Kind(412, "The idempotency key has expired", retryable=False),
        "body-too-large": Kind(413, "The content is too large for a request with an idempotency key", retryable=False),
        "key-reused": Kind(422, "The idempotency key was used for another request", retryable=False),
        "handler-failed": Kind(500, "The application failed", retryable=False),
        "rolled-back": Kind(500, "The application answered, and did not commit its work", retryable=True),
        "commit-pending": Kind(500, "The application answered before it had committed its work", retryable=True),
        "upgrade-unsupported": Kind(501, "The gateway does not change protocols", retryable=False),
        "upstream-unreachable": Kind(502, "The upstream could not be reached", retryable=True),
        "upstream-failed": Kind(502, "The upstream did not answer as HTTP asks", retryable=True),
        "store-unavailable": Kind(503, "The store of idempotency records is unavailable", retryable=True),
        "upstream-timeout": Kind(504, "The upstream did not answer in time", retryable=True),
    }
)


# Refusals before any handler ran. A gateway or another door in front is told so, and keeps no record of them.
_WITHOUT_EFFECT = frozenset(
    {"key-missing", "key-invalid", "scope-missing", "in-progress", "body-too-large", "key-reused", "store-unavailable"}
)


@dataclass(frozen=True, slots=True)
class Problem:
    """One occurrence of a problem.

    Attributes:
        code: the last part of the type's URL; a key of `KINDS`.
        detail: what was seen and what to do, for a person; never a key, a body or a credential.
        members: extension members of the document.
        headers: further fields of the response.
        status: another status code than the type's own, for an occurrence inside another exchange.
    """

    code: str
    detail: str
    members: tuple[tuple[str, object], ...] = ()
    headers: Headers = ()
    status: int | None = None

    def response(self, problems_url: str, instance: str) -> Response:
        """The problem as a response.

        Args:
            problems_url: where the pages of the types are; ends in a slash.
            instance: a URI that is new for each occurrence.
        """
        kind = KINDS[self.code]
        status = self.status or kind.status
        url = problems_url + self.code
        document = {
            "type": url,
            "title": kind.title,
            "status": status,
            "detail": self.detail,
            "instance": instance,
            "code": self.code,
            "retryable": kind.retryable,
            **dict(self.members),
        }
        content = json.dumps(document, separators=(",", ":")).encode()
        headers = (
            (b"content-type", b"application/problem+json"),
            (b"content-length", b"%d" % len(content)),
            (b"cache-control", b"no-store"),
            (b"link", b'<%s>; rel="describedby"' % url.encode()),
            *(((b"idempotency-effect", b"none"),) if self.code in _WITHOUT_EFFECT else ()),
            *self.headers,
        )
        return Response(status, headers, content)


def retry_after(seconds: int) -> Headers:
    """The `Retry-After` field, in whole seconds."""
    return ((b"retry-after", b"%d" % seconds),)
