"""django-idempotency-key, as its README says: the middleware, and its memory.

Its default answers a retry with 409 and the recorded content. `CONFLICT_STATUS_CODE` of None, which its README has too,
gives the recorded status, and is what is judged.
"""

from __future__ import annotations

from typing import Any

from conformance.apps.django_project import SHOP, configure, placed

configure(
    __name__,
    middleware=("idempotency_key.middleware.IdempotencyKeyMiddleware",),
    IDEMPOTENCY_KEY={"CONFLICT_STATUS_CODE": None},
)

from django.core.wsgi import get_wsgi_application  # noqa: E402 - Django is set up first
from django.http import JsonResponse  # noqa: E402 - as above
from django.urls import path  # noqa: E402 - as above

from conformance.shop import PATHS, Answer  # noqa: E402 - as above


def respond(answer: Answer) -> JsonResponse:
    """The answer of the shop as a response."""
    return JsonResponse(answer.document, status=answer.status, headers=dict(answer.headers))


def order(request: Any) -> JsonResponse:
    """What has an effect, and how many effects there are."""
    return respond(placed(request, request.body) if request.method == "POST" else SHOP.count(request.GET))


urlpatterns = [path(place.removeprefix("/"), order) for place in PATHS]
application = get_wsgi_application()
