"""Until when an answer is sure to be sent again: an experimental response field, off by default (contract R83).

Whoever lost the answer never sees it, so it is of no use for the retry of a lost request: that is what the published
lifetime is for (R82). It tells a client that has its answer for how long the key is still good.
"""

from __future__ import annotations

from retrysafe.model import Headers, Record
from retrysafe.protocol.duration import http_date
from retrysafe.protocol.policy import Policy

EXPIRES_NAME = "Idempotency-Expires"
EXPIRES_FIELD = EXPIRES_NAME.lower().encode()


def expires(record: Record, policy: Policy) -> Headers:
    """The field for the answer of a completed record; none if the policy does not ask for it."""
    if not policy.expires_header or record.expires_at_ms is None:
        return ()
    return ((EXPIRES_FIELD, http_date(record.expires_at_ms).encode()),)
