"""Transports for clients of httpx2 and httpx: one key for each operation, kept over every attempt."""

from retrysafe.client.attempt import Schedule
from retrysafe.client.budget import RetryBudget
from retrysafe.client.httpx import AsyncIdempotencyTransport, IdempotencyTransport, resume, resume_async
from retrysafe.client.intent import intent
from retrysafe.client.journal import Journal
from retrysafe.client.profile import Profile
from retrysafe.client.protection import outcome

__all__ = [
    "AsyncIdempotencyTransport", "IdempotencyTransport", "Journal", "Profile", "RetryBudget", "Schedule", "intent",
    "outcome", "resume", "resume_async",
]  # fmt: skip
