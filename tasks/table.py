"""The DynamoDB client for one market table: partition key `pk` (S), one item a record, and `#snapshot`.

A table that several regions share has the region in each key: `10000002#34`, `#snapshot#10000002`. Outside of this
module an item is known by its type all the same.

TableError                the table, or the way to it, refused
├── TransientTableError   may pass: throttled, a broken connection, DynamoDB's own failure
├── MissingTableError     there is no such table
└── ConditionError        the item is not as it was when it was read
"""

import random
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from decimal import Decimal
from itertools import chain
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar
from urllib.parse import urlsplit

import boto3
import botocore.loaders
import botocore.parsers
import botocore.session
import msgspec
from boto3.dynamodb.types import TypeSerializer
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,  # noqa: A004 (botocore's)
    HTTPClientError,
    ResponseStreamingError,
)

from tasks.esi import is_this_machine
from tasks.waits import Waits

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

SNAPSHOT_KEY = "#snapshot"
BATCH_ITEMS = 25  # DynamoDB's own limit for BatchWriteItem
STALLED_CALLS = 8  # in a row that store nothing; calls that make progress are not counted
MAX_WAIT_SECONDS = 10.0
SEGMENT_RECORDS = 10_000  # a Scan answers 1 MB a call: a smaller table is one call, and a second segment one too many
TRANSIENT_CODES = {
    "InternalServerError",
    "LimitExceededException",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "ServiceUnavailable",
    "ThrottlingException",
}

_api_descriptions = botocore.loaders.create_loader()  # read once a process: it takes longer than a small run's calls
_serialize = TypeSerializer().serialize

Item = dict[str, Any]  # in DynamoDB's own notation: {"pk": {"S": "34"}, "price": {"N": "5.7"}, …}
P = ParamSpec("P")
R = TypeVar("R")
W = TypeVar("W")


class TableError(Exception):
    """The table, or the way to it, refused."""


class TransientTableError(TableError):
    """Throttled, a broken connection or DynamoDB's own failure: may pass."""


class MissingTableError(TableError):
    """There is no such table."""


class ConditionError(TableError):
    """The item is not as it was when it was read: somebody else has written it."""


class Table:
    """A market table, and at most `store_concurrency` calls to it in flight. Use it as a context manager.

    Args:
        name: of the table.
        store_concurrency: calls in flight at once.
        region_id: the one whose items are meant, in a table that several share; None if they have a table each.

    Raises:
        TableError: boto3 finds no region or no such profile.
        ValueError: `name` is no table name.
    """

    def __init__(self, name: str, store_concurrency: int, region_id: int | None = None) -> None:
        self.name = check_table_name(name)
        self.prefix = f"{region_id}#" if region_id else ""  # of its records' keys
        self.snapshot_key = f"{SNAPSHOT_KEY}#{region_id}" if region_id else SNAPSHOT_KEY
        self.store_concurrency = store_concurrency
        self.failures: Counter[str] = Counter()  # calls, and rests of batches, sent again in a run that ends well
        self.read_units = 0.0
        self.write_units = 0.0
        self.waits = Waits()
        self._lock = threading.Lock()
        self._client = connect(store_concurrency)
        self._threads = ThreadPoolExecutor(store_concurrency, thread_name_prefix="table")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.drain()
        self._client.close()

    def drain(self) -> None:
        """Waits for the calls that are on their way; nothing can be submitted any more."""
        self._threads.shutdown(cancel_futures=True)

    @property
    def is_local(self) -> bool:
        """Whether the table is on this machine, where it may be created without asking."""
        return is_this_machine(urlsplit(self._client.meta.endpoint_url).hostname or "")

    def submit(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Runs `function` on one of the `store_concurrency` threads; it may make one call at a time."""
        return self._threads.submit(function, *args, **kwargs)

    def create(self) -> None:
        """Creates the table with on-demand billing and waits until it can be used; fine if it is there already.

        Raises:
            TableError: DynamoDB refused.
        """
        try:
            self._client.create_table(
                TableName=self.name,
                AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
                KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
                BillingMode="PAY_PER_REQUEST",
            )
        except self._client.exceptions.ResourceInUseException:
            pass  # another run was quicker
        except (ClientError, BotoCoreError) as error:
            raise self._translate(error) from error
        try:
            self._client.get_waiter("table_exists").wait(
                TableName=self.name, WaiterConfig={"Delay": 1, "MaxAttempts": 30}
            )
        except (ClientError, BotoCoreError) as error:
            raise TransientTableError(f"table {self.name} is not ready: {error}") from error

    def create_missing(self, error: MissingTableError) -> None:
        """Creates the table, of which `error` says that it is not there, if it is to be on this machine.

        Raises:
            MissingTableError: it is to be elsewhere; with the command that creates it.
            TransientTableError: it is being created.
            TableError: DynamoDB refused.
        """
        if self.is_being_created():
            raise TransientTableError(f"table {self.name} is still being created") from error
        if not self.is_local:
            raise MissingTableError(f"{error}: create it with `{self.create_command()}`") from error
        self.create()

    def is_being_created(self) -> bool:
        """Tells whether a table that cannot be read yet is on its way."""
        try:
            return self._client.describe_table(TableName=self.name)["Table"]["TableStatus"] == "CREATING"
        except (ClientError, BotoCoreError):
            return False

    def create_command(self) -> str:
        """Gives the shell command that creates the table."""
        url = self._client.meta.endpoint_url
        endpoint = "" if url.endswith((".amazonaws.com", ".amazonaws.com.cn")) else f"--endpoint-url {url} "
        return (
            f"aws dynamodb create-table {endpoint}--region {self._client.meta.region_name} --table-name {self.name} "
            "--attribute-definitions AttributeName=pk,AttributeType=S --key-schema AttributeName=pk,KeyType=HASH "
            "--billing-mode PAY_PER_REQUEST"
        )

    def put(self, item: dict[str, str | float]) -> None:
        """Puts an item; a missing table on this machine is created.

        Args:
            item: with its key `pk`.

        Raises:
            MissingTableError: there is no such table, nor is it to be on this machine.
            TableError: see the module.
        """
        exact = {name: Decimal(repr(value)) if isinstance(value, float) else value for name, value in item.items()}
        attributes = {name: _serialize(value) for name, value in exact.items()}
        try:
            self._call(self._client.put_item, TableName=self.name, Item=attributes)
        except MissingTableError as error:
            self.create_missing(error)
            self._call(self._client.put_item, TableName=self.name, Item=attributes)

    def read_snapshot(self) -> Item | None:
        """Gives the item `#snapshot` by a strongly consistent GetItem, None if the table has none.

        Raises:
            MissingTableError: there is no such table.
            TableError: see the module.
        """
        answer = self._call(
            self._client.get_item, TableName=self.name, Key={"pk": {"S": self.snapshot_key}}, ConsistentRead=True
        )
        item: Item | None = answer.get("Item")
        return item

    def write_snapshot(self, item: Item, condition: str, names: dict[str, str], values: Item) -> None:
        """Puts the item `#snapshot`.

        Args:
            item: under any key.
            condition: what must hold of the present one, in DynamoDB's own words.
            names: attributes' names by their place-holders in it.
            values: by their place-holders in it.

        Raises:
            ConditionError: it does not hold.
            TableError: see the module.
        """
        self._call(
            self._client.put_item,
            TableName=self.name,
            Item=with_key(item, self.snapshot_key),
            ConditionExpression=condition,
            ExpressionAttributeNames=names,
            ExpressionAttributeValues=values,
        )

    def scan(self, expected_records: int) -> dict[str, Item]:
        """Gives all items but `#snapshot` by item type, strongly consistent, in as many segments as pay.

        Of a table that several regions share, DynamoDB reads all and gives this region's.

        Raises:
            TableError: see the module.
        """
        segments = min(self.store_concurrency, 1 + expected_records // SEGMENT_RECORDS)
        if self.prefix:
            segments = self.store_concurrency
        futures = [self.submit(self._scan_segment, segment, segments) for segment in range(segments)]
        items = {item["pk"]["S"]: item for item in chain.from_iterable(future.result() for future in futures)}
        if self.prefix:
            items = {
                pk.removeprefix(self.prefix): with_key(item, pk.removeprefix(self.prefix)) for pk, item in items.items()
            }
        items.pop(SNAPSHOT_KEY, None)
        return items

    def _scan_segment(self, segment: int, segments: int) -> list[Item]:
        items: list[Item] = []
        more: dict[str, Any] = {}
        if self.prefix:
            more["FilterExpression"] = "begins_with(pk, :prefix)"
            more["ExpressionAttributeValues"] = {":prefix": {"S": self.prefix}}
        while True:
            answer = self._call(
                self._client.scan,
                TableName=self.name,
                ConsistentRead=True,
                Segment=segment,
                TotalSegments=segments,
                **more,
            )
            if "Items" not in answer:
                self._count_failure("unreadable answer")
                raise TransientTableError(f"table {self.name}: the answer to a scan has no Items")
            items += answer["Items"]
            if "LastEvaluatedKey" not in answer:
                return items
            more["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    def write_batch(self, requests: list[Item], check: Callable[[], None]) -> None:
        """Puts and deletes up to 25 items, and resends what DynamoDB leaves unprocessed, after growing, jittered waits.

        Args:
            requests: as `put_request` and `delete_request` give them.
            check: is called before each call, and raises if it must not be made.

        Raises:
            TransientTableError: nothing was stored `STALLED_CALLS` times in a row.
            TableError: see the module.
        """
        if self.prefix:
            requests = [add_prefix(request, self.prefix) for request in requests]
        attempts = stalled = 0
        while True:
            check()
            answer = self._call(self._client.batch_write_item, RequestItems={self.name: requests})
            left: list[Item] = answer.get("UnprocessedItems", {}).get(self.name, [])
            if not left:
                return
            attempts += 1
            stalled = stalled + 1 if len(left) == len(requests) else 0
            if stalled >= STALLED_CALLS:
                raise TransientTableError(
                    f"table {self.name}: {len(left)} writes, the first a {describe_request(left[0])}, were left "
                    f"unprocessed {stalled} times in a row; its write capacity may be too small"
                )
            self._count_failure("unprocessed items")
            requests = left
            self.waits.sleep(random.uniform(0, min(MAX_WAIT_SECONDS, 0.05 * 2**attempts)))  # noqa: S311 (spreads waits)

    def _call(self, operation: Callable[..., Any], **arguments: Any) -> Any:  # noqa: ANN401 (an operation's own shape)
        try:
            answer = operation(**arguments, ReturnConsumedCapacity="TOTAL")
        except (ClientError, BotoCoreError) as error:
            translated = self._translate(error)
            if isinstance(translated, TransientTableError):
                self._count_failure(name_cause(error))
            raise translated from error
        consumed = answer.get("ConsumedCapacity") or []
        units = sum(part["CapacityUnits"] for part in (consumed if isinstance(consumed, list) else [consumed]))
        with self._lock:
            if attempts := answer["ResponseMetadata"].get("RetryAttempts", 0):
                self.failures["repeated by boto3"] += attempts
            if operation in (self._client.get_item, self._client.scan):
                self.read_units += units
            else:
                self.write_units += units
        return answer

    def _count_failure(self, cause: str) -> None:
        with self._lock:
            self.failures[cause] += 1

    def _translate(self, error: ClientError | BotoCoreError) -> TableError:
        """Gives the error of this module whose class says what becomes of a call."""
        said = f"table {self.name}: {error}"
        if isinstance(error, ConnectionError | HTTPClientError):
            return TransientTableError(said)
        if isinstance(error, ClientError):
            code = error.response["Error"]["Code"]
            if code == "ResourceNotFoundException":
                return MissingTableError(f"table {self.name} does not exist in {self._client.meta.region_name}")
            if code == "ConditionalCheckFailedException":
                return ConditionError(f"table {self.name}: {self.snapshot_key} has been written by somebody else")
            if code in TRANSIENT_CODES or error.response["ResponseMetadata"].get("HTTPStatusCode", 0) >= 500:
                return TransientTableError(said)
            said += advise(code, str(error))
        return TableError(said)


def name_cause(error: ClientError | BotoCoreError) -> str:
    """Names an error in a word or two, to be counted."""
    return str(error.response["Error"]["Code"]) if isinstance(error, ClientError) else type(error).__name__


def advise(code: str, said: str) -> str:
    """Gives what to do about an error that will not pass, as the end of its message; nothing if nothing is known."""
    if code in {"AccessDeniedException", "UnrecognizedClientException"}:
        return "; deployments/aws/iam-policy.json has what the role needs"
    if re.search("key element does not match|conditions on the keys", said):
        return "; its partition key must be pk (S), with no sort key: give another table_name"
    return ""


class Parsers(botocore.parsers.ResponseParserFactory):
    """Gives boto3 the parser of this module."""

    def create_parser(self, protocol_name: str) -> "Parser":  # type: ignore[override]
        """Gives a parser whose errors are read as boto3 does."""
        return Parser(super().create_parser(protocol_name))


class Parser:
    """Reads DynamoDB's answers: what comes as JSON is what boto3 gives, which takes it apart value by value.

    Args:
        errors: reads the answers that are errors.
    """

    def __init__(self, errors: botocore.parsers.ResponseParser) -> None:
        self._errors = errors

    def parse(self, response: dict[str, Any], shape: Any) -> dict[str, Any]:  # noqa: ANN401 (botocore's own)
        """Gives an answer as boto3 does.

        Raises:
            ResponseStreamingError: it says that all went well, but not how: its body is no JSON object.
        """
        if response["status_code"] != 200:
            parsed: dict[str, Any] = self._errors.parse(response, shape)
            return parsed
        try:
            answer = msgspec.json.decode(response["body"], type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ResponseStreamingError(error=f"the answer cannot be read: {error}") from error
        given = {name: value for name, value in answer.items() if value is not None}
        return given | {"ResponseMetadata": {"HTTPStatusCode": response["status_code"]}}


def connect(store_concurrency: int) -> "DynamoDBClient":
    """Opens a client as boto3 finds its settings.

    Raises:
        TableError: there is no region, or no such profile.
    """
    config = Config(
        retries={"mode": "standard", "total_max_attempts": 2},  # more of them are Prefect's, where they can be seen
        max_pool_connections=store_concurrency + 2,  # the flow's own calls, and the lease's
        parameter_validation=False,  # a third of a write's CPU, for shapes that are made here
        connect_timeout=3,  # a write begun at a lease's last safe moment ends before the lease does: see `tasks.lease`
        read_timeout=8,
    )
    try:
        session = botocore.session.get_session()
        session.register_component("data_loader", _api_descriptions)
        session.register_component("response_parser_factory", Parsers())
        client = boto3.session.Session(botocore_session=session).client("dynamodb", config=config)
    except BotoCoreError as error:
        raise TableError(
            f"{error} (boto3 reads AWS_PROFILE, AWS_DEFAULT_REGION, AWS_ENDPOINT_URL_DYNAMODB …)"
        ) from error
    return client


def check_table_name(name: str) -> str:
    """Gives `name` back.

    Raises:
        ValueError: DynamoDB takes no such name.
    """
    if not re.fullmatch(r"[A-Za-z0-9_.-]{3,255}", name):
        raise ValueError(f"table_name is {name!r}: give 3 to 255 letters, digits and _ . -")
    return name


def describe_request(request: Item) -> str:
    """Names a write request in messages: `put of 34`."""
    if "PutRequest" in request:
        return f"put of {request['PutRequest']['Item']['pk']['S']}"
    return f"delete of {request['DeleteRequest']['Key']['pk']['S']}"


def put_request(item: Item) -> Item:
    """Gives the request that puts an item."""
    return {"PutRequest": {"Item": item}}


def delete_request(pk: str) -> Item:
    """Gives the request that deletes the item of a key."""
    return {"DeleteRequest": {"Key": {"pk": {"S": pk}}}}


def with_key(item: Item, pk: str) -> Item:
    """Gives an item under another key."""
    return item | {"pk": {"S": pk}}


def add_prefix(request: Item, prefix: str) -> Item:
    """Gives the request that puts or deletes the item whose key has a prefix."""
    if "PutRequest" in request:
        item = request["PutRequest"]["Item"]
        return put_request(with_key(item, prefix + item["pk"]["S"]))
    return delete_request(prefix + request["DeleteRequest"]["Key"]["pk"]["S"])


def batches(writes: list[W]) -> Iterable[list[W]]:
    """Cuts writes into batches of at most 25."""
    return (writes[start : start + BATCH_ITEMS] for start in range(0, len(writes), BATCH_ITEMS))
