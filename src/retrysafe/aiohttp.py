"""A middleware for clients of aiohttp: one key for each operation, kept over every attempt."""

from retrysafe.client.attempt import Schedule
from retrysafe.client.budget import RetryBudget
from retrysafe.client.intent import intent
from retrysafe.client.journal import Journal
from retrysafe.client.profile import Profile
from retrysafe.client.protection import outcome
from retrysafe.errors import ConfigurationError

try:
    from retrysafe.client.aiohttp import IdempotencyMiddleware, resume
except ModuleNotFoundError as missing:
    raise ConfigurationError([f'retrysafe.aiohttp needs {missing.name}: pip install "retrysafe[aiohttp]"']) from missing

__all__ = ["IdempotencyMiddleware", "Journal", "Profile", "RetryBudget", "Schedule", "intent", "outcome", "resume"]
