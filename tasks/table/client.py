"""The DynamoDB client for one market table: partition key `pk` (S), one item a record, and `#snapshot`.

A table that several regions share has the region in each key: `10000002#34`, `#snapshot#10000002`. Outside of this
module an item is known by its type all the same.

TableError                the table, or the way to it, refused
├── TransientTableError   may pass: a broken connection, a conflict, DynamoDB's own failure
│   ├── ThrottledError    may pass: the capacity is used up; below Prefect, calls wait for it
│   └── CredentialsError  may pass: the credentials are late, or not known everywhere yet
├── MissingTableError     there is no such table
└── ConditionError        the item is not as it was when it was read

Which error of DynamoDB's is which, and what to do about it, is in `ERRORS`; boto3's own are in `BOTO_ERRORS`.
"""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from decimal import Decimal
from itertools import chain
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar
from urllib.parse import urlsplit

from boto3.dynamodb.types import TypeSerializer
from botocore.credentials import RefreshableCredentials
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
)

from tasks.network import Waits, is_this_machine

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
from tasks.table.connection import Connection, connect, load_credentials
from tasks.table.errors import (
    EXPIRED,
    NO_KEY,
    ConditionError,
    CredentialsError,
    Fate,
    MissingTableError,
    TableError,
    ThrottledError,
    TransientTableError,
    judge,
    judge_boto,
    name_cause,
)
from tasks.table.requests import SNAPSHOT_KEY, Item, add_prefix, check_table_name, describe_request, with_key

STALLED_CALLS = 24  # in a row without progress, two minutes with their waits: then Prefect retries
FIRST_WAIT_SECONDS = 0.05
MAX_WAIT_SECONDS = 10.0
MAX_DOUBLINGS = 8  # of the first wait: more would be over the longest
SEGMENT_RECORDS = 10_000  # a Scan answers 1 MB a call: a smaller table is one call, and a second segment one too many
_serialize = TypeSerializer().serialize
P = ParamSpec("P")
R = TypeVar("R")


class Pace:
    """The waits of calls that are refused for want of capacity: growing, jittered, shorter after progress.

    Args:
        sharers: threads that share it, so that the progress of one is that of all.
    """

    def __init__(self, sharers: int = 1) -> None:
        self.stalled = 0  # calls in a row without progress
        self.patience = STALLED_CALLS * sharers  # stalled calls after which to give up
        self._doublings = 0

    def note(self, *, progress: bool) -> None:
        """Note whether a call got something done."""
        self.stalled = 0 if progress else self.stalled + 1
        self._doublings = min(max(self._doublings + (-1 if progress else 1), 0), MAX_DOUBLINGS)

    def draw_seconds(self) -> float:
        """Draw the next wait."""
        longest = min(MAX_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2**self._doublings)
        return random.uniform(longest / 2, longest)  # noqa: S311 (spreads waits)


class Table:
    """A market table, and at most `store_concurrency` calls to it in flight. Use it as a context manager.

    Args:
        name: of the table.
        store_concurrency: calls in flight at once.
        region_id: the one whose items are meant, in a table that several share; None if they have a table each.

    Raises:
        TableError: boto3's settings are wrong: no region, no credentials, no such profile.
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
        self._connecting = threading.Lock()
        self._ending = threading.Event()
        self._threads = ThreadPoolExecutor(store_concurrency, thread_name_prefix="table")
        self._connection: Connection | None = None
        try:
            self._connect()
        except TransientTableError as error:
            self._note_failure(error)  # the first call connects, where Prefect retries it

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.drain()
        if self._connection:
            self._connection.client.close()

    def drain(self) -> None:
        """Wait for the calls that are on their way, but not for capacity; nothing can be submitted any more."""
        self._ending.set()
        self._threads.shutdown(cancel_futures=True)

    @property
    def _client(self) -> "DynamoDBClient":
        return self._connect().client

    @property
    def is_local(self) -> bool:
        """Whether the table is on this machine, where it may be created without asking."""
        return is_this_machine(urlsplit(self._client.meta.endpoint_url).hostname or "")

    def submit(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Run `function` on one of the `store_concurrency` threads; it may make one call at a time."""
        return self._threads.submit(function, *args, **kwargs)

    def create(self) -> None:
        """Create the table with on-demand billing and wait until it can be used; fine if it is there already.

        Raises:
            TableError: DynamoDB refused.
        """
        try:
            self._ask(
                "create_table",
                TableName=self.name,
                AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
                KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
                BillingMode="PAY_PER_REQUEST",
            )
        except TransientTableError as error:
            if name_cause(error) != "ResourceInUseException":  # another run was quicker
                raise
        try:
            self._client.get_waiter("table_exists").wait(
                TableName=self.name, WaiterConfig={"Delay": 1, "MaxAttempts": 30}
            )
        except (ClientError, BotoCoreError) as error:
            raise TransientTableError(f"table {self.name} is not ready: {error}") from error

    def create_missing(self, error: MissingTableError) -> None:
        """Create the table, of which `error` says that it is not there, if it is to be on this machine.

        Raises:
            MissingTableError: it is to be elsewhere; with the command that creates it.
            TransientTableError: it is being created, or changed.
            TableError: DynamoDB refused.
        """
        status = self.read_status()
        if status in {"INACCESSIBLE_ENCRYPTION_CREDENTIALS", "ARCHIVING", "ARCHIVED"}:
            raise NO_KEY.explain(f"table {self.name} is {status}") from error
        if status:
            raise TransientTableError(f"table {self.name} cannot be used yet: it is {status}") from error
        if not self.is_local:
            raise MissingTableError(f"{error}; else create it with `{self.create_command()}`") from error
        self.create()

    def is_being_created(self) -> bool:
        """Return whether a table that cannot be read yet is on its way."""
        return self.read_status() == "CREATING"

    def read_status(self) -> str:
        """Return the table's status, in DynamoDB's words; empty if there is none, or it may not be seen.

        Raises:
            TransientTableError: see the module.
        """
        try:
            return str(self._ask("describe_table", TableName=self.name)["Table"]["TableStatus"])
        except TransientTableError:
            raise
        except TableError:
            return ""

    def create_command(self) -> str:
        """Return the shell command that creates the table."""
        url = self._client.meta.endpoint_url
        endpoint = "" if url.endswith((".amazonaws.com", ".amazonaws.com.cn")) else f"--endpoint-url {url} "
        return (
            f"aws dynamodb create-table {endpoint}--region {self._client.meta.region_name} --table-name {self.name} "
            "--attribute-definitions AttributeName=pk,AttributeType=S --key-schema AttributeName=pk,KeyType=HASH "
            "--billing-mode PAY_PER_REQUEST"
        )

    def put(self, item: dict[str, str | float]) -> None:
        """Put an item; a missing table on this machine is created.

        Args:
            item: with its key `pk`.

        Raises:
            MissingTableError: there is no such table, nor is it to be on this machine.
            TableError: see the module.
        """
        exact = {name: Decimal(repr(value)) if isinstance(value, float) else value for name, value in item.items()}
        attributes = {name: _serialize(value) for name, value in exact.items()}
        try:
            self._call("put_item", Pace(), TableName=self.name, Item=attributes)
        except MissingTableError as error:
            self.create_missing(error)
            self._call("put_item", Pace(), TableName=self.name, Item=attributes)

    def read_snapshot(self) -> Item | None:
        """Return the item `#snapshot` by a strongly consistent GetItem, None if the table has none.

        Raises:
            MissingTableError: there is no such table.
            TableError: see the module.
        """
        answer = self._call(
            "get_item", Pace(), TableName=self.name, Key={"pk": {"S": self.snapshot_key}}, ConsistentRead=True
        )
        item: Item | None = answer.get("Item")
        return item

    def write_snapshot(
        self,
        item: Item,
        condition: str,
        names: dict[str, str],
        values: Item,
        check: Callable[[], None],
        pace: Pace | None,
    ) -> None:
        """Put the item `#snapshot`.

        Args:
            item: under any key.
            condition: what must hold of the present one, in DynamoDB's own words.
            names: attributes' names by their place-holders in it.
            values: by their place-holders in it.
            check: is called before each call.
            pace: of the waits for capacity; None for a call that is not made again.

        Raises:
            ConditionError: it does not hold.
            TableError: see the module.
        """
        self._call(
            "put_item",
            pace,
            check,
            TableName=self.name,
            Item=with_key(item, self.snapshot_key),
            ConditionExpression=condition,
            ExpressionAttributeNames=names,
            ExpressionAttributeValues=values,
        )

    def scan(self, expected_records: int) -> dict[str, Item]:
        """Return all items but `#snapshot` by item type, strongly consistent, in as many segments as pay.

        Of a table that several regions share, DynamoDB reads all and gives this region's.

        Raises:
            TableError: see the module.
        """
        segments = min(self.store_concurrency, 1 + expected_records // SEGMENT_RECORDS)
        if self.prefix:
            segments = self.store_concurrency
        pace = Pace(segments)
        futures = [self.submit(self._scan_segment, segment, segments, pace) for segment in range(segments)]
        try:
            items = {item["pk"]["S"]: item for item in chain.from_iterable(future.result() for future in futures)}
        finally:
            for future in futures:
                future.cancel()
        if self.prefix:
            items = {
                pk.removeprefix(self.prefix): with_key(item, pk.removeprefix(self.prefix)) for pk, item in items.items()
            }
        items.pop(SNAPSHOT_KEY, None)
        return items

    def _scan_segment(self, segment: int, segments: int, pace: Pace) -> list[Item]:
        items: list[Item] = []
        more: dict[str, Any] = {}
        if self.prefix:
            more["FilterExpression"] = "begins_with(pk, :prefix)"
            more["ExpressionAttributeValues"] = {":prefix": {"S": self.prefix}}
        while True:
            answer = self._call(
                "scan",
                pace,
                TableName=self.name,
                ConsistentRead=True,
                Segment=segment,
                TotalSegments=segments,
                **more,
            )
            if "Items" not in answer:
                with self._lock:
                    self.failures["unreadable answer"] += 1
                raise TransientTableError(f"table {self.name}: the answer to a scan has no Items")
            items += answer["Items"]
            if "LastEvaluatedKey" not in answer:
                return items
            more["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    def write_batch(self, requests: list[Item], check: Callable[[], None]) -> None:
        """Put and delete up to 25 items, and resend what DynamoDB refuses or leaves unprocessed, at the table's pace.

        Args:
            requests: as `put_request` and `delete_request` make them.
            check: is called before each call, and raises if it must not be made.

        Raises:
            ThrottledError: nothing was stored `STALLED_CALLS` times in a row.
            TableError: see the module.
        """
        if self.prefix:
            requests = [add_prefix(request, self.prefix) for request in requests]
        pace = Pace()
        while left := self._send_batch(requests, check):
            pace.note(progress=len(left) < len(requests))
            if not self._wait(pace):
                raise ThrottledError(
                    f"table {self.name}: {len(left)} writes, the first a {describe_request(left[0])}, were left "
                    f"unprocessed {pace.stalled} times in a row; its write capacity may be too small"
                )
            requests = left

    def _send_batch(self, requests: list[Item], check: Callable[[], None]) -> list[Item]:
        """Send writes once, and return those that are not stored."""
        try:
            answer = self._call("batch_write_item", None, check, RequestItems={self.name: requests})
        except ThrottledError:
            return requests
        left: list[Item] = (answer.get("UnprocessedItems") or {}).get(self.name) or []
        if left:
            with self._lock:
                self.failures["unprocessed items"] += 1
        return left

    def _wait(self, pace: Pace) -> bool:
        """Wait for capacity; return False at once if that has lasted too long, or if the table is being left."""
        if pace.stalled >= pace.patience or self._ending.is_set():
            return False
        begun = time.monotonic()
        self._ending.wait(pace.draw_seconds())
        self.waits.add(begun)
        return True

    def _call(
        self,
        name: str,
        pace: Pace | None,
        check: Callable[[], None] = lambda: None,
        **arguments: Any,  # noqa: ANN401 (an operation's own shape)
    ) -> Any:  # noqa: ANN401
        """Make a call, by the name of boto3's method, and count its units; make it again while it is throttled.

        Args:
            name: of the method.
            pace: of the waits for capacity; None for a call that is not made again.
            check: is called before each call, and raises if it must not be made.
            arguments: of the method.
        """
        while True:
            check()
            try:
                answer = self._ask(name, **arguments, ReturnConsumedCapacity="TOTAL")
            except ThrottledError:
                if pace is None:
                    raise
                pace.note(progress=False)
                if not self._wait(pace):
                    raise
            else:
                break
        if pace:
            pace.note(progress=True)
        units = sum_units(answer.get("ConsumedCapacity"))
        with self._lock:
            if attempts := answer["ResponseMetadata"].get("RetryAttempts", 0):
                self.failures["repeated by boto3"] += attempts
            if name in {"get_item", "scan"}:
                self.read_units += units
            else:
                self.write_units += units
        return answer

    def _ask(self, name: str, **arguments: Any) -> Any:  # noqa: ANN401 (an operation's own shape)
        try:
            connection = self._connect()
            load_credentials(connection.credentials.get_frozen_credentials)  # asks for new ones before these expire
            try:
                return getattr(connection.client, name)(**arguments)
            except (ClientError, BotoCoreError) as error:
                raise self._translate(error, connection) from error
        except TransientTableError as error:
            self._note_failure(error)
            raise

    def _connect(self) -> Connection:
        with self._connecting:
            if self._connection is None:
                self._connection = connect(self.store_concurrency)
            return self._connection

    def _note_failure(self, error: TransientTableError) -> None:
        with self._lock:
            self.failures[name_cause(error)] += 1
        if isinstance(error, CredentialsError):
            self._connection = None  # the next call gets new ones, if there are any

    def _translate(self, error: ClientError | BotoCoreError, connection: Connection) -> TableError:
        """Return the error of this module whose class says what becomes of a call."""
        if not isinstance(error, ClientError):
            return judge_boto(error).explain(f"table {self.name}: {error}")
        fate = judge(error)
        if fate.error is MissingTableError:
            region = connection.client.meta.region_name or "a region without a name"
            return fate.explain(f"table {self.name} does not exist in {region}")
        if fate.error is ConditionError:
            return ConditionError(f"table {self.name}: {self.snapshot_key} has been written by somebody else")
        if fate is EXPIRED and not isinstance(connection.credentials, RefreshableCredentials):
            fate = Fate(TableError, fate.advice)  # nobody renews them
        return fate.explain(f"table {self.name}: {error}")


def sum_units(consumed: Any) -> float:  # noqa: ANN401 (one table's, a list of them, or null)
    """Return the units that a call consumed; 0 where the answer does not say."""
    parts = consumed if isinstance(consumed, list) else [consumed]
    return float(sum(part.get("CapacityUnits") or 0 for part in parts if part))
