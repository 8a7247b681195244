"""An adapter for sessions of requests: one key for each operation, kept over every attempt."""

from retrysafe.client.attempt import Schedule
from retrysafe.client.budget import RetryBudget
from retrysafe.client.intent import intent
from retrysafe.client.journal import Journal
from retrysafe.client.profile import Profile
from retrysafe.client.protection import outcome
from retrysafe.errors import ConfigurationError

try:
    from retrysafe.client.requests import IdempotencyAdapter, resume
except ModuleNotFoundError as missing:
    raise ConfigurationError(
        [f'retrysafe.requests needs {missing.name}: pip install "retrysafe[requests]"']
    ) from missing

__all__ = ["IdempotencyAdapter", "Journal", "Profile", "RetryBudget", "Schedule", "intent", "outcome", "resume"]
