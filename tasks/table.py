"""The DynamoDB client for one market table: partition key `pk` (S), one item a record, and `#snapshot`.

TableError                the table, or the way to it, refused
├── TransientTableError   may pass: throttled, a broken connection, DynamoDB's own failure
└── MissingTableError     there is no such table
"""

import random
import re
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from itertools import chain
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, Self, TypeVar
from urllib.parse import urlsplit

import boto3
import msgspec
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError  # noqa: A004 (botocore's)

from tasks.esi import is_this_machine

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

SNAPSHOT_KEY = "#snapshot"
FORMAT_VERSION = 1  # of the items; a table of another version is compared and rewritten, never taken as up to date
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

Item = dict[str, Any]  # in DynamoDB's own notation: {"pk": {"S": "34"}, "price": {"N": "5.7"}, …}
OrderType = Literal["sell", "buy", "all"]
Price = Literal["min", "max", "mean", "weighted_mean", "median", "percentile_5"]
Detail = Literal["compact", "full", "fuzzwork"]
P = ParamSpec("P")
R = TypeVar("R")


class TableError(Exception):
    """The table, or the way to it, refused."""


class TransientTableError(TableError):
    """Throttled, a broken connection or DynamoDB's own failure: may pass."""


class MissingTableError(TableError):
    """There is no such table."""


class Parameters(msgspec.Struct, frozen=True):
    """What the records depend on: two runs with the same parameters and snapshot make the same table."""

    region_id: int
    order_type: OrderType
    price: Price
    detail: Detail


class TableSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The item `#snapshot`: where the table stands."""

    state: Literal["writing", "complete"]  # writing: some records may be of the snapshot before
    region_id: int
    order_type: OrderType
    price: Price
    detail: Detail
    last_modified: datetime  # names the snapshot, UTC
    expires: datetime  # until then ESI has no newer one, UTC by this side's clock
    etag: str
    pages: int
    orders: int  # each counted once
    records: int  # while writing: as many as the snapshot before had
    written_at: datetime  # UTC
    version: int = FORMAT_VERSION

    @property
    def parameters(self) -> Parameters:
        """The parameters that its records were made with."""
        return Parameters(self.region_id, self.order_type, self.price, self.detail)

    def to_item(self) -> Item:
        """Gives the item as DynamoDB takes it: dates as ISO 8601 in UTC."""
        fields: dict[str, int | str] = {"pk": SNAPSHOT_KEY, **msgspec.to_builtins(self)}
        return {name: {"N": str(value)} if isinstance(value, int) else {"S": value} for name, value in fields.items()}

    @classmethod
    def from_item(cls, item: Item) -> Self:
        """Reads the item.

        Raises:
            TableError: an attribute is missing or of the wrong type.
        """
        try:
            return msgspec.convert(
                {name: next(iter(value.values())) for name, value in item.items()}, cls, strict=False
            )
        except msgspec.ValidationError as error:
            raise TableError(
                f"the table's item {SNAPSHOT_KEY} is not this program's ({error}): run with force"
            ) from error


class Table:
    """A market table, and at most `store_concurrency` calls to it in flight. Use it as a context manager.

    Raises:
        TableError: boto3 finds no region or no such profile.
        ValueError: `name` is no table name.
    """

    def __init__(self, name: str, store_concurrency: int) -> None:
        self.name = check_table_name(name)
        self.store_concurrency = store_concurrency
        self.failures = 0  # calls and unprocessed batches that were, in a run that ends well, sent again
        self.read_units = 0.0
        self.write_units = 0.0
        self._lock = threading.Lock()
        self._client = connect(store_concurrency)
        self._threads = ThreadPoolExecutor(store_concurrency, thread_name_prefix="table")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._threads.shutdown(cancel_futures=True)
        self._client.close()

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
        self._client.get_waiter("table_exists").wait(TableName=self.name, WaiterConfig={"Delay": 1, "MaxAttempts": 30})

    def create_command(self) -> str:
        """Gives the shell command that creates the table."""
        return (
            f"aws dynamodb create-table --region {self._client.meta.region_name} --table-name {self.name} "
            "--attribute-definitions AttributeName=pk,AttributeType=S --key-schema AttributeName=pk,KeyType=HASH "
            "--billing-mode PAY_PER_REQUEST"
        )

    def read_snapshot(self) -> Item | None:
        """Gives the item `#snapshot` by a strongly consistent GetItem, None if the table has none.

        Raises:
            MissingTableError: there is no such table.
            TableError: see the module.
        """
        answer = self._call(
            self._client.get_item, TableName=self.name, Key={"pk": {"S": SNAPSHOT_KEY}}, ConsistentRead=True
        )
        item: Item | None = answer.get("Item")
        return item

    def write_snapshot(self, snapshot: TableSnapshot) -> None:
        """Puts the item `#snapshot`.

        Raises:
            TableError: see the module.
        """
        self._call(self._client.put_item, TableName=self.name, Item=snapshot.to_item())

    def scan(self, expected_records: int) -> dict[str, Item]:
        """Gives all items but `#snapshot` by `pk`, strongly consistent, in as many segments as pay.

        Raises:
            TableError: see the module.
        """
        segments = min(self.store_concurrency, 1 + expected_records // SEGMENT_RECORDS)
        futures = [self.submit(self._scan_segment, segment, segments) for segment in range(segments)]
        items = {item["pk"]["S"]: item for item in chain.from_iterable(future.result() for future in futures)}
        items.pop(SNAPSHOT_KEY, None)
        return items

    def _scan_segment(self, segment: int, segments: int) -> list[Item]:
        items: list[Item] = []
        start: dict[str, Item] = {}
        while True:
            answer = self._call(
                self._client.scan,
                TableName=self.name,
                ConsistentRead=True,
                Segment=segment,
                TotalSegments=segments,
                **start,
            )
            items += answer["Items"]
            if "LastEvaluatedKey" not in answer:
                return items
            start = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}

    def write_batch(self, requests: list[Item]) -> None:
        """Puts and deletes up to 25 items, and resends what DynamoDB leaves unprocessed, after growing, jittered waits.

        Raises:
            TransientTableError: nothing was stored `STALLED_CALLS` times in a row.
            TableError: see the module.
        """
        attempts = stalled = 0
        while True:
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
            self._count_failure()
            requests = left
            time.sleep(random.uniform(0, min(MAX_WAIT_SECONDS, 0.05 * 2**attempts)))  # noqa: S311 (spreads waits)

    def _call(self, operation: Callable[..., Any], **arguments: Any) -> Any:  # noqa: ANN401 (an operation's own shape)
        try:
            answer = operation(**arguments, ReturnConsumedCapacity="TOTAL")
        except (ClientError, BotoCoreError) as error:
            translated = self._translate(error)
            if isinstance(translated, TransientTableError):
                self._count_failure()
            raise translated from error
        if answer.keys() == {"ResponseMetadata"} and has_body(answer):
            self._count_failure()
            raise TransientTableError(f"table {self.name}: the answer to {operation.__name__} cannot be read")
        consumed = answer.get("ConsumedCapacity") or []
        units = sum(part["CapacityUnits"] for part in (consumed if isinstance(consumed, list) else [consumed]))
        with self._lock:
            self.failures += answer["ResponseMetadata"].get("RetryAttempts", 0)
            if operation in (self._client.get_item, self._client.scan):
                self.read_units += units
            else:
                self.write_units += units
        return answer

    def _count_failure(self) -> None:
        with self._lock:
            self.failures += 1

    def _translate(self, error: ClientError | BotoCoreError) -> TableError:
        """Gives the error of this module whose class says what becomes of a call."""
        said = f"table {self.name}: {error}"
        if isinstance(error, ConnectionError | HTTPClientError):
            return TransientTableError(said)
        if isinstance(error, ClientError):
            code = error.response["Error"]["Code"]
            if code == "ResourceNotFoundException":
                return MissingTableError(f"table {self.name} does not exist in {self._client.meta.region_name}")
            if code in TRANSIENT_CODES or error.response["ResponseMetadata"].get("HTTPStatusCode", 0) >= 500:
                return TransientTableError(said)
            if "key element does not match" in str(error):
                return TableError(
                    f"{said}; its partition key must be pk (S), with no sort key: give another table_name"
                )
        return TableError(said)


def has_body(answer: Any) -> bool:  # noqa: ANN401 (any operation's)
    """Tells whether an answer came with more than `{}`: boto3 gives no error for a body that it cannot read."""
    return int(answer["ResponseMetadata"]["HTTPHeaders"].get("content-length", 0)) > len("{}")


def connect(store_concurrency: int) -> "DynamoDBClient":
    """Opens a client as boto3 finds its settings.

    Raises:
        TableError: there is no region, or no such profile.
    """
    config = Config(
        retries={"mode": "standard", "total_max_attempts": 4},
        max_pool_connections=store_concurrency,
        parameter_validation=False,  # a third of a write's CPU, for shapes that are made here
        connect_timeout=5,
        read_timeout=20,
    )
    try:
        return boto3.session.Session().client("dynamodb", config=config)
    except BotoCoreError as error:
        raise TableError(
            f"{error} (boto3 reads AWS_PROFILE, AWS_DEFAULT_REGION, AWS_ENDPOINT_URL_DYNAMODB …)"
        ) from error


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


def batches(requests: list[Item]) -> Iterable[list[Item]]:
    """Cuts requests into batches of at most 25."""
    return (requests[start : start + BATCH_ITEMS] for start in range(0, len(requests), BATCH_ITEMS))
