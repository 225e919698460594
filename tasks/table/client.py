"""The DynamoDB client for one market table: one item per record, and `#snapshot`.

TableError                the table refused, or could not be reached
├── TransientTableError   may pass: a broken connection, a conflict, DynamoDB's own failure
│   ├── ThrottledError    may pass: the capacity is used up; calls wait for it before Prefect retries
│   └── CredentialsError  may pass: the credentials are late, or have not propagated yet
├── MissingTableError     there is no such table
├── KeySchemaError        the table's key schema does not match `key`
└── ConditionError        the item has changed since it was read

`ERRORS` maps DynamoDB's error codes to these, with advice; `BOTO_ERRORS` maps boto3's own errors.
"""

from collections.abc import Callable
from concurrent.futures import Future
from itertools import chain
from typing import Any

from tasks.orders.choices import Key
from tasks.table.calls import Calls
from tasks.table.connection import Connection
from tasks.table.errors import ThrottledError, TransientTableError
from tasks.table.keys import Keys
from tasks.table.pace import Pace
from tasks.table.records import number
from tasks.table.requests import SNAPSHOT_KEY, Item, describe_request

SEGMENT_RECORDS = 10_000  # a Scan returns 1 MB per call: for a smaller table, a second segment only adds a call


class Table(Calls):
    """One run's client for a market table. Use it as a context manager.

    Args:
        name: of the table.
        connection: see `Calls`.
        market_id: the market whose items are read and written.
        key: how the table is keyed: see `Keys`.

    Raises:
        TableError: boto3's settings are wrong: no region, no credentials, no such profile.
        ValueError: `name` is not a valid table name.
    """

    def __init__(
        self, name: str, connection: Connection | int = 1, market_id: int | None = None, key: Key = "type"
    ) -> None:
        super().__init__(name, connection)
        self.market_id = market_id
        self.keys = Keys(market_id if key == "market_type" else None)

    def put(self, item: dict[str, str | float]) -> None:
        """Put an item, with its key `pk`; store a float as its shortest decimal.

        Raises:
            TableError: see the module.
        """
        attributes = {name: {"S": value} if isinstance(value, str) else number(value) for name, value in item.items()}
        self.call("put_item", Pace(), Item=attributes)

    def read_snapshot(self) -> Item | None:
        """Return the item `#snapshot` by strongly consistent GetItem, None if there is none.

        Raises:
            TableError: see the module.
        """
        item: Item | None = self.call("get_item", Pace(), Key=self.keys.snapshot, ConsistentRead=True).get("Item")
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
            item: with its key.
            condition: on the present item, in DynamoDB's notation.
            names: attribute names by placeholder.
            values: by placeholder.
            check: called before each call; raises to prevent it.
            pace: of the waits for capacity; None for no retries.

        Raises:
            ConditionError: the condition does not hold.
            TableError: see the module.
        """
        self.call(
            "put_item",
            pace,
            check,
            Item=item,
            ConditionExpression=condition,
            ExpressionAttributeNames=names,
            ExpressionAttributeValues=values,
        )

    def scan(self, expected_records: int) -> dict[str, Item]:
        """Return all items but `#snapshot` by item type, by strongly consistent Scan, or Query of the market.

        Raises:
            TableError: see the module.
        """
        return self.collect(self.start_scan(expected_records))

    def start_scan(self, expected_records: int) -> list[Future[list[Item]]]:
        """Start a scan, to be collected later."""
        most = self.connection.store_concurrency
        segments = 1 if self.keys.market_id else min(most, 1 + expected_records // SEGMENT_RECORDS)
        pace = Pace(segments)
        return [self.submit(self._scan_segment, segment, segments, pace) for segment in range(segments)]

    def collect(self, futures: list[Future[list[Item]]]) -> dict[str, Item]:
        """Return the items of a started scan.

        Raises:
            TableError: see the module.
        """
        try:
            items = {self.keys.read(item): item for item in chain.from_iterable(future.result() for future in futures)}
        finally:
            for future in futures:
                future.cancel()
        items.pop(SNAPSHOT_KEY, None)
        return items

    def _scan_segment(self, segment: int, segments: int, pace: Pace) -> list[Item]:
        items: list[Item] = []
        operation, more = "scan", dict[str, Any](Segment=segment, TotalSegments=segments)
        if self.keys.market_id:
            values = {":market": {"S": str(self.keys.market_id)}}
            operation, more = "query", {"KeyConditionExpression": "pk = :market", "ExpressionAttributeValues": values}
        while True:
            answer = self.call(operation, pace, ConsistentRead=True, **more)
            if "Items" not in answer:
                self.count("unreadable answer")
                raise TransientTableError(f"table {self.name}: the response to a {operation} has no Items")
            items += answer["Items"]
            if "LastEvaluatedKey" not in answer:
                return items
            more["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    def write_batch(self, requests: list[Item], check: Callable[[], None]) -> None:
        """Put and delete up to 25 items; retry what DynamoDB throttles or leaves unprocessed.

        Args:
            requests: from `put_request` and `delete_request`.
            check: called before each call; raises to prevent it.

        Raises:
            ThrottledError: nothing was stored `STALLED_CALLS` times in a row.
            TableError: see the module.
        """
        pace = Pace()
        while left := self._send_batch(requests, check):
            pace.note(progress=len(left) < len(requests))
            if not self.wait_for_capacity(pace):
                raise ThrottledError(
                    f"table {self.name}: {len(left)} writes, the first a {describe_request(left[0])}, were left "
                    f"unprocessed {pace.stalled} times in a row; its write capacity may be too small"
                )
            requests = left

    def _send_batch(self, requests: list[Item], check: Callable[[], None]) -> list[Item]:
        """Send writes once; return those that were not stored."""
        try:
            answer = self.call("batch_write_item", None, check, RequestItems={self.name: requests})
        except ThrottledError:
            return requests
        left: list[Item] = (answer.get("UnprocessedItems") or {}).get(self.name) or []
        if left:
            self.count("unprocessed items")
        return left
