"""A pool manager of urllib3: one key for each operation, kept over every attempt."""

from retrysafe.client.attempt import Schedule
from retrysafe.client.budget import RetryBudget
from retrysafe.client.intent import intent
from retrysafe.client.journal import Journal
from retrysafe.client.profile import Profile
from retrysafe.client.protection import outcome
from retrysafe.errors import ConfigurationError

try:
    from retrysafe.client.urllib3 import IdempotencyPoolManager, resume
except ModuleNotFoundError as missing:
    raise ConfigurationError([f'retrysafe.urllib3 needs {missing.name}: pip install "retrysafe[urllib3]"']) from missing

__all__ = ["IdempotencyPoolManager", "Journal", "Profile", "RetryBudget", "Schedule", "intent", "outcome", "resume"]
