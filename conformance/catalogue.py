"""What is judged: packages that install from the public registries, and retrysafe's own doors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bench import environments as bench
from bench.environments import Peer


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A package, wired as its README says, or a door of ours.

    Attributes:
        name: of the distribution, or of the door.
        kind: how it is served; the registry lacks what is `absent`; a `mutant` is a server of the laboratory.
        peer: for pip; None for a door of ours, and for Node.
        modules: for npm, the package itself first.
        application: `module:factory`, the file of a Node application, or the name of a server of the laboratory.
        released: year and month of that version; empty where the registry does not say it.
        promises: what it says of itself, in few words.
        wired: how it is used here.
        besides: what is fair to know when its row is read.
        bare_keys: it refuses keys in quotes, and is judged by keys without.
    """

    name: str
    kind: Literal["asgi", "wsgi", "node", "gateway", "mutant", "absent"]
    peer: Peer | None = None
    modules: tuple[str, ...] = ()
    application: str = ""
    released: str = ""
    promises: str = ""
    wired: str = ""
    besides: str = ""
    bare_keys: bool = False

    @property
    def version(self) -> str:
        """Of the package; empty for a door of ours."""
        if self.peer is not None:
            return self.peer.version
        return self.modules[0].rpartition("@")[2] if self.kind == "node" else ""

    @property
    def is_own(self) -> bool:
        """Whether it is a door of ours."""
        return self in OWN


_EXPRESS = "express@4.21.2"

OWN = (
    Subject(
        name="ASGI",
        kind="asgi",
        application="conformance.apps.own_asgi:app",
        wired="middleware of a FastAPI application, over SQLite",
    ),
    Subject(
        name="Flask",
        kind="wsgi",
        application="conformance.apps.own_wsgi:app()",
        wired="the extension of a Flask application, over SQLite",
    ),
    Subject(
        name="gateway",
        kind="gateway",
        application="conformance.apps.own_asgi:bare",
        wired="`retrysafe serve` in front of the bare FastAPI application, over SQLite",
    ),
)

PACKAGES = (
    Subject(
        name="idemkit",
        kind="asgi",
        peer=bench.IDEMKIT,
        application="conformance.apps.idemkit:app",
        released="2026-08",
        promises="the code runs once per key, and duplicates get the first result, also those that arrive together; "
        "`scope` keeps callers apart; a request in flight is waited for, or answered with 423",
        wired="`IdempotencyMiddleware` with `scope`, over its memory",
        besides="423 is documented, 409 a SHOULD of the draft; failures are not recorded unless `cacheable_status` "
        "says so, so that a failure behind the effect runs again",
    ),
    Subject(
        name="asgi-idempotency-header",
        kind="asgi",
        peer=bench.ASGI_IDEMPOTENCY_HEADER,
        application="conformance.apps.asgi_idempotency_header:app",
        released="2022-08",
        promises="mutating endpoints execute exactly once, by caching JSON responses; modelled after Stripe's",
        wired="`IdempotencyHeaderMiddleware`, over its memory",
        besides="it does not claim to compare contents, to keep accounts apart, or to replay headers; its README names "
        "the memory for tests",
    ),
    Subject(
        name="fastapi-idempotency",
        kind="asgi",
        peer=Peer("fastapi-idempotency", "0.1.1"),
        application="conformance.apps.fastapi_idempotency:app",
        released="2026-09",
        promises="each write is processed exactly once, and retries get the same response; a duplicate waits; 5xx and "
        "responses with cookies are not stored; effects of a handler are not atomic with its records",
        wired="`IdempotencyMiddleware` with `scope`, over its memory",
        besides="that a failure behind the effect, and a response with a cookie, run again is documented; an empty key "
        "is refused, by 422",
    ),
    Subject(
        name="fastapi-idempotency-key",
        kind="asgi",
        peer=Peer("fastapi-idempotency-key", "0.1.1", besides=("redis",)),
        application="conformance.apps.fastapi_idempotency_key:app",
        released="2026-10",
        promises="the draft and Stripe's model: exactly-once execution, 409 in flight, 422 for another payload; a 5xx "
        "releases the key",
        wired="`IdempotencyMiddleware`, over its memory",
        besides="it does not claim to keep accounts apart; that a failure behind the effect runs again is documented",
    ),
    Subject(
        name="mobius-idempotence-library",
        kind="asgi",
        peer=bench.MOBIUS,
        application="conformance.apps.mobius:app",
        released="2026-07",
        bare_keys=True,
        promises="duplicate detection by a decorator: 409 in flight, 422 for another body, the cached response "
        "verbatim on a retry; a handler that raises releases the key",
        wired="`@idempotent` on the handlers, over its memory",
        besides="it does not claim to keep accounts apart; that a failure behind the effect runs again is documented",
    ),
    Subject(
        name="pyidempotent",
        kind="asgi",
        peer=bench.PYIDEMPOTENT,
        application="conformance.apps.pyidempotent:app",
        released="2026-06",
        promises="exactly-once execution by a decorator: 422 for the same key with another body, 409 while the first "
        "runs",
        wired="`@idempotent` on the handlers, with the exception handler of its README, over its memory",
        besides="its README names the memory for tests; it does not claim to keep accounts apart",
    ),
    Subject(
        name="django-idempotency-key",
        kind="wsgi",
        peer=Peer(
            "django-idempotency-key", "1.3.0", besides=("django>=4.2,<5", "djangorestframework<3.16", "gunicorn")
        ),
        application="conformance.apps.django_idempotency_key:application",
        released="2023-05",
        promises="if a request has succeeded before, the original data is returned and nothing new is created",
        wired="`IdempotencyKeyMiddleware` with `CONFLICT_STATUS_CODE` of None, over its memory, in one process of "
        "gunicorn with threads",
        besides="by default it answers a retry with 409, which it documents; keys are not compared with contents but "
        "made of both",
    ),
    Subject(
        name="drf-idempotencykey",
        kind="wsgi",
        peer=Peer("drf-idempotencykey", "0.2.0", besides=("django>=5.2,<6", "djangorestframework", "gunicorn")),
        application="conformance.apps.drf_idempotencykey:application",
        released="2026-10",
        bare_keys=True,
        promises="safe retries without duplicate writes for authenticated users: a record per user and key, 409 in "
        "flight with `Retry-After`, 409 for another request",
        wired="`DrfIdempotencyKeyMixin` on a view, over Django's SQLite, in one process of gunicorn with threads",
        besides="409 for another request is documented, where the draft has 422 as a SHOULD; so are keys that have to "
        "be UUIDs, and cookies that are replayed; its errors have a code, in a list, where the verifier does not look",
    ),
    Subject(
        name="express-idempotency",
        kind="node",
        modules=("express-idempotency@1.0.6", _EXPRESS),
        application="express_idempotency.cjs",
        promises="idempotency for routes of Express, inspired by Stripe's; responses of 2xx are kept; URL, method, "
        "query and body are compared",
        wired="the middleware before the routes, and `isHit` in each handler, over its memory",
        besides="that a handler has to look at `isHit`, and that failures are not kept, is documented; it does not "
        "claim to keep accounts apart",
    ),
    Subject(
        name="@node-idempotency/core",
        kind="node",
        modules=("@node-idempotency/core@1.0.11", "@node-idempotency/storage-adapter-memory@1.0.2", _EXPRESS),
        application="node_idempotency_core.cjs",
        promises="any request made idempotent, free of race conditions, following the draft",
        wired="`onRequest` and `onResponse` around the handlers of Express, over its memory",
        besides="which status a refusal has, and which fields are recorded, is for its user to say: 409, 422 and 400 "
        "here, as in the draft, and what describes the content; it does not claim to keep accounts apart",
    ),
)

# Their pages say that they are published; the registry says that it does not have them.
ABSENT = tuple(
    Subject(name=name, kind="absent", modules=(name,))
    for name in (
        "@node-idempotency/express",
        "hono-idempotency",
        "@idempot/core",
        "@nestarc/idempotency",
        "universal-idempotent-request",
    )
)
EVERY = (*OWN, *PACKAGES, *ABSENT)
