"""One DynamoDB table: how requests to it are made, what their failures mean, and how it comes to be.

Requests are sent again by botocore where that does no harm: what reads, and every write that recognises
itself (`dynamodb_items`). A delete leaves nothing behind by which it could; it is sent once, and a lost reply
is said to be one.
"""

from __future__ import annotations

import json
import shlex
import threading
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import urlsplit

from retrysafe.errors import ConfigurationError, StoreError, StoreUnavailable, StoreUnusable
from retrysafe.stores.contract import agree_on_secret
from retrysafe.stores.dynamodb_clock import ServiceClock
from retrysafe.stores.dynamodb_items import CLAIM, KEY, META, Item, Value, bytes_of, marshalled, mentioned, number
from retrysafe.stores.migrations import Migration
from retrysafe.stores.url import lacking

try:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, NoRegionError
except ModuleNotFoundError as missing:
    raise lacking("dynamodb", missing) from missing

Session: TypeAlias = boto3.Session

SCHEMA_VERSION = 1

SENT_MAX = 3  # times that botocore sends what may be sent again
CONNECT_S = 2.0
READ_S = 3.0
CONNECTIONS_MAX = 64
ACTIVE_POLLS_MAX = 60  # a second apart

DEFINITION: dict[str, Any] = {
    "KeySchema": [{"AttributeName": KEY, "KeyType": "HASH"}],
    "AttributeDefinitions": [{"AttributeName": KEY, "AttributeType": "B"}],
    "BillingMode": "PAY_PER_REQUEST",
}
TIME_TO_LIVE = {"Enabled": True, "AttributeName": "forget_at_s"}

# What the service refuses for a reason that passes; nothing was applied.
_PASSING = {
    "ProvisionedThroughputExceededException": "it is throttled: raise its capacity, or use on-demand",
    "ThrottlingException": "it is throttled: raise its capacity, or use on-demand",
    "RequestLimitExceeded": "the account is throttled: raise its quota",
    "LimitExceededException": "too many tables of the account are being made or changed; try again later",
    "TransactionConflictException": "a transaction of somebody else holds the record; the store itself uses none",
    "ExpiredTokenException": "the credentials have expired; renew them",
    "ResourceInUseException": "the table is being made or changed; try again later",
}
_LASTING = {
    "ResourceNotFoundException": "there is no such table: open the store, which makes it, or look at region and name",
    "AccessDeniedException": "the credentials do not allow it: GetItem, PutItem, UpdateItem, DeleteItem and Scan "
    "are needed, and CreateTable, DescribeTable and UpdateTimeToLive to make the table",
    "UnrecognizedClientException": "the credentials are not valid; look at where boto3 takes them from",
    "InvalidSignatureException": "the secret key is wrong, or this host's clock is",
    "MissingAuthenticationTokenException": "there are no credentials; give boto3 some",
}


class _NoTable(StoreUnusable):
    """There is no table of that name."""


class Refused(NamedTuple):
    """A condition did not hold. The item as it stands; None if there is none."""

    item: Item | None


class Table:
    """Requests to one table, from any thread.

    Args:
        name: of the table.
        session: where credentials, region and the like come from; None for boto3's own ways.
        region: None for the session's.
        endpoint_url: of a service other than Amazon's; None for Amazon's.
        clock: is told when each answer was given; None if time comes from elsewhere.

    Raises:
        ConfigurationError: credentials stand in the URL.
    """

    def __init__(
        self,
        name: str,
        *,
        session: Session | None,
        region: str | None,
        endpoint_url: str | None,
        clock: ServiceClock | None,
    ) -> None:
        if endpoint_url is not None and "@" in urlsplit(endpoint_url).netloc:
            raise ConfigurationError(["endpoint_url= has credentials in it; give them to boto3, in its own ways"])
        self.name = name
        self._session = session
        self._where = {"region_name": region, "endpoint_url": endpoint_url}
        self._clock = clock
        self._making = threading.Lock()
        self._clients: dict[int, Any] = {}

    # --- requests ---------------------------------------------------------------------------------

    def read(self, key: bytes) -> Item | None:
        """The item under a key as it stands, from where writes go."""
        return self._get(marshalled({KEY: key}))

    def _get(self, key: Item) -> Item | None:
        item: Item | None = self._call("get_item", SENT_MAX, Key=key, ConsistentRead=True).get("Item")
        return item

    def insert(self, attributes: dict[str, Value]) -> Refused | None:
        """Put an item, if there is none under its key."""
        wanted = mentioned({}, ConditionExpression=CLAIM)
        key = attributes[KEY]
        answer = self._conditional("put_item", SENT_MAX, key, Item=marshalled(attributes), **wanted)
        return answer if isinstance(answer, Refused) else None

    def put(self, attributes: dict[str, Value]) -> None:
        """Put an item, whatever is under its key."""
        self._call("put_item", SENT_MAX, Item=marshalled(attributes))

    def update(self, key: bytes, arguments: dict[str, Any]) -> Refused | Item:
        """Change an item on a condition; the item as it was. What it writes has to say by which request."""
        wanted = {"Key": marshalled({KEY: key}), "ReturnValues": "ALL_OLD", **arguments}
        answer = self._conditional("update_item", SENT_MAX, key, **wanted)
        return answer if isinstance(answer, Refused) else answer.get("Attributes", {})

    def add(self, key: bytes, arguments: dict[str, Any]) -> None:
        """Add to the numbers of an item, which is made if there is none. Sent once: it would not recognise itself."""
        self._call("update_item", 1, Key=marshalled({KEY: key}), **arguments)

    def delete(self, key: bytes, arguments: dict[str, Any]) -> Refused | Item:
        """Delete an item on a condition; the item as it was. Sent once."""
        wanted = {"Key": marshalled({KEY: key}), "ReturnValues": "ALL_OLD", **arguments}
        answer = self._conditional("delete_item", 1, key, **wanted)
        return answer if isinstance(answer, Refused) else answer["Attributes"]

    def remove(self, key: bytes) -> None:
        """Delete an item, if there is one under that key."""
        self._call("delete_item", SENT_MAX, Key=marshalled({KEY: key}))

    def page(self, arguments: dict[str, Any], start: Item | None) -> tuple[list[Item], Item | None]:
        """Items that a filter lets through, of one page of the table; where the next one starts, if there is one."""
        more = {} if start is None else {"ExclusiveStartKey": start}
        answer = self._call("scan", SENT_MAX, ConsistentRead=True, **arguments, **more)
        return answer["Items"], answer.get("LastEvaluatedKey")

    def _conditional(self, operation: str, sent_max: int, key: Value, **arguments: Any) -> Refused | Any:
        try:
            return self._send(operation, sent_max, ReturnValuesOnConditionCheckFailure="ALL_OLD", **arguments)
        except (BotoCoreError, ClientError, OSError) as error:
            if not isinstance(error, ClientError) or _code(error) != "ConditionalCheckFailedException":
                raise self._failure(error) from error
            item = error.response.get("Item")
        # Some services that speak the protocol leave the item out of a refusal; none of them says so.
        return Refused(item or self._get(marshalled({KEY: key})))

    def _call(self, operation: str, sent_max: int, **arguments: Any) -> Any:
        try:
            return self._send(operation, sent_max, **arguments)
        except (BotoCoreError, ClientError, OSError) as error:
            raise self._failure(error) from error

    def _send(self, operation: str, sent_max: int, **arguments: Any) -> Any:
        request = getattr(self._client(sent_max), operation)
        sent_ms = self._clock.sending() if self._clock else 0
        answer: Any = {}
        try:
            answer = request(TableName=self.name, **arguments)
        except ClientError as error:
            answer = error.response
            raise
        finally:
            date = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
            if self._clock and date:
                self._clock.notice(date, sent_ms)
        return answer

    def _client(self, sent_max: int) -> Any:
        with self._making:  # a session makes one at a time; clients may be shared
            client = self._clients.get(sent_max)
            if client is None:
                session = self._session or Session()
                client = self._clients[sent_max] = session.client("dynamodb", **self._where, config=_config(sent_max))
            return client

    def close(self) -> None:
        """Close the connections; they are made anew when they are needed."""
        with self._making:
            clients, self._clients = self._clients, {}
        for client in clients.values():
            client.close()

    def abandon(self) -> None:
        """Forget the connections without closing them: in a forked process they are its parent's."""
        self._making = threading.Lock()
        self._clients = {}

    # --- failures ---------------------------------------------------------------------------------

    def _failure(self, error: Exception) -> StoreError:
        """What callers hear. A service's words about values it does not take are left out: they may repeat them."""
        place = f"DynamoDB table {self.name}"
        if isinstance(error, NoCredentialsError):
            return StoreUnusable(
                f"{place}: boto3 finds no credentials; give it some, in its environment or as session="
            )
        if isinstance(error, NoRegionError):
            return StoreUnusable(f"{place}: no region is set; write dynamodb://{self.name}?region=...")
        if not isinstance(error, ClientError):
            return StoreUnavailable(
                f"{place} cannot be reached, or its answer was lost ({type(error).__name__}): the operation may or may "
                "not have been applied; look at network, region and endpoint"
            )
        code = _code(error)
        if code == "ResourceNotFoundException":
            return _NoTable(f"{place}: {code}; {_LASTING[code]}")
        if code in _LASTING:
            return StoreUnusable(f"{place}: {code}; {_LASTING[code]}")
        if code in _PASSING:
            return StoreUnavailable(f"{place}: {code}; {_PASSING[code]}")
        if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500) >= 500:
            return StoreUnavailable(f"{place}: {code}; the service failed, and may or may not have applied it")
        return StoreError(f"{place} does not take the values of this request: {code}")

    # --- how it comes to be -----------------------------------------------------------------------

    def make_ready(self, *, create: bool) -> Item | None:
        """See that the table is there. What belongs to the whole store, if that is there.

        Args:
            create: make it if there is none.

        Raises:
            StoreUnusable: there is none and it may not be made, or it is not one of ours.
        """
        try:
            return self._meta()
        except _NoTable as error:
            if not create:
                raise StoreUnusable(
                    f"there is no DynamoDB table {self.name}, and the store is told not to make one (create=false); "
                    f"make it with the binary partition key {KEY} and the time-to-live attribute "
                    f"{TIME_TO_LIVE['AttributeName']}"
                ) from error
        self._create()
        return self._meta()

    def is_there(self) -> bool:
        """Whether there is a table.

        Raises:
            StoreUnusable: it is not one of ours.
        """
        try:
            self._meta()
        except _NoTable:
            return False
        return True

    def migration(self) -> Migration:
        """How the table comes to be, as commands of Amazon's own tool, for people who make it themselves."""
        table = {"TableName": self.name}
        steps = [("create-table", table | DEFINITION), ("wait table-exists", table)]
        steps += [("update-time-to-live", table | {"TimeToLiveSpecification": TIME_TO_LIVE})]
        lines = [f"aws dynamodb {step} --cli-input-json {shlex.quote(json.dumps(given))}\n" for step, given in steps]
        return Migration(1, "table", "".join(lines))

    def _meta(self) -> Item | None:
        """What belongs to the whole store; None if nothing does yet."""
        try:
            return self.read(META)
        except (StoreUnusable, StoreUnavailable):
            raise
        except StoreError as error:
            raise StoreUnusable(
                f"DynamoDB table {self.name} is no table of retrysafe's: its key is another than the binary {KEY}; "
                "name another table"
            ) from error

    def _create(self) -> None:
        """Make the table; of processes that start together, one does."""
        self._unless("ResourceInUseException", "create_table", **DEFINITION)
        try:
            waiter = self._client(SENT_MAX).get_waiter("table_exists")
            waiter.wait(TableName=self.name, WaiterConfig={"Delay": 1, "MaxAttempts": ACTIVE_POLLS_MAX})
        except (BotoCoreError, ClientError, OSError) as error:
            raise self._failure(error) from error
        self._unless("ValidationException", "update_time_to_live", TimeToLiveSpecification=TIME_TO_LIVE)

    def _unless(self, done: str, operation: str, **arguments: Any) -> None:
        """Do it, unless the service says by that code that somebody else has done it in the same moment."""
        try:
            self._send(operation, SENT_MAX, **arguments)
        except (BotoCoreError, ClientError, OSError) as error:
            if not isinstance(error, ClientError) or _code(error) != done:
                raise self._failure(error) from error

    def agree_on_secret(self, given: bytes | None, meta: Item | None) -> bytes:
        """The secret of the key digests; settled once, and only looked at ever after.

        Args:
            given: the operator's, if any.
            meta: what belongs to the whole store; None if nothing does yet.
        """
        if meta is None:
            secret, held, check = agree_on_secret(given, None, None)
            mine: dict[str, Value] = {KEY: META, "version": SCHEMA_VERSION, "secret": held, "secret_check": check}
            refused = self.insert(mine)
            if refused is None:
                return secret
            meta = refused.item or {}
        version = number(meta, "version")
        if version is None or version > SCHEMA_VERSION:
            raise StoreUnusable(
                f"DynamoDB table {self.name} has schema version {version}, and this release knows versions up to "
                f"{SCHEMA_VERSION}: upgrade retrysafe"
            )
        secret, _, _ = agree_on_secret(given, bytes_of(meta, "secret"), bytes_of(meta, "secret_check"))
        return secret


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _config(sent_max: int) -> Any:
    return Config(
        connect_timeout=CONNECT_S,
        read_timeout=READ_S,
        retries={"mode": "standard", "total_max_attempts": sent_max},
        max_pool_connections=CONNECTIONS_MAX,
        tcp_keepalive=True,
    )
