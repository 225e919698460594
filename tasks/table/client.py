"""The DynamoDB client for one market table: one item per record, and `#snapshot`."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any, ParamSpec, Self, TypeVar

from tasks.network import Waits
from tasks.table.connection import Connection
from tasks.table.errors import TableError, ThrottledError, TransientTableError, name_cause
from tasks.table.pace import Pace
from tasks.table.records import to_attribute
from tasks.table.requests import ONE_MARKET, Item, Keys, check_table_name, describe_request

P = ParamSpec("P")
R = TypeVar("R")


class Table:
    """One run's client for a market table. Use it as a context manager; for its errors see `tasks.table.errors`.

    Args:
        name: of the table; a ValueError is raised if it is invalid.
        connection: shared with other tables, and left open; or how many calls may be in flight on one of its own.
        keys: of its items.
    """

    def __init__(self, name: str, connection: Connection | int = 1, keys: Keys = ONE_MARKET) -> None:
        self.name = check_table_name(name)
        self.keys = keys
        self.connection = Connection(connection) if isinstance(connection, int) else connection
        self.failures: Counter[str] = Counter()  # retried calls and unprocessed items, by cause
        self.read_units = 0.0
        self.write_units = 0.0
        self.waits = Waits()
        self._owns_connection = isinstance(connection, int)
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._submitted: set[Future[Any]] = set()
        try:
            self.connection.open()
        except TransientTableError as error:
            self.count(name_cause(error))  # the first call connects again, where Prefect can retry

    def __enter__(self) -> Self:
        self._ending.clear()  # of an earlier attempt
        return self

    def __exit__(self, *_: object) -> None:
        self.drain()
        if self._owns_connection:
            self.connection.close()

    def drain(self) -> None:
        """Wait for this table's calls in flight, but not for capacity; cancel queued ones."""
        with self._lock:
            self._ending.set()
            submitted = list(self._submitted)
        wait([future for future in submitted if not future.cancel()])

    def submit(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Run `function` on one of the connection's threads, unless the run is over; it may make one call at a time."""
        with self._lock:
            if self._ending.is_set():
                raise TableError(f"table {self.name}: the run is over, so nothing more is sent")
            future = self.connection.threads.submit(function, *args, **kwargs)
            self._submitted.add(future)
        future.add_done_callback(self._submitted.discard)
        return future

    def wait_for_capacity(self, pace: Pace, *, progress: bool = False) -> bool:
        """Wait for capacity; return False at once after too many stalled calls, or if the run is closing the table."""
        seconds = pace.note(progress=progress)
        if seconds is None or self._ending.is_set():
            return False
        started = time.monotonic()
        self._ending.wait(seconds)
        self.waits.add(started)
        return True

    def call(
        self, operation: str, pace: Pace | None, check: Callable[[], None] = lambda: None, **arguments: object
    ) -> Item:
        """Make a call and count its units; retry it while it is throttled, unless `pace` is None."""
        if "RequestItems" not in arguments:
            arguments["TableName"] = self.name
        while True:
            try:
                answer = self.connection.call(self.name, operation, check, **arguments, ReturnConsumedCapacity="TOTAL")
                break
            except TransientTableError as error:
                self.count(name_cause(error))
                if pace is None or not isinstance(error, ThrottledError) or not self.wait_for_capacity(pace):
                    raise
        if pace:
            pace.note(progress=True)
        units = sum_units(answer.get("ConsumedCapacity"))
        with self._lock:
            if attempts := answer["ResponseMetadata"].get("RetryAttempts", 0):
                self.failures["repeated by boto3"] += attempts
            if operation in {"get_item", "batch_get_item", "scan", "query"}:
                self.read_units += units
            else:
                self.write_units += units
        return answer

    def count(self, cause: str) -> None:
        """Count a failed call that will be retried."""
        with self._lock:
            self.failures[cause] += 1

    def put(self, item: dict[str, str | float]) -> None:
        """Put an item, with its key `pk`."""
        self.call("put_item", Pace(), Item={name: to_attribute(value) for name, value in item.items()})

    def read_snapshot(self) -> Item | None:
        """Return the item `#snapshot` by strongly consistent GetItem, None if there is none."""
        item: Item | None = self.call("get_item", Pace(), Key=self.keys.snapshot, ConsistentRead=True).get("Item")
        return item

    def scan(self) -> dict[str, Item]:
        """Return all items but `#snapshot` by item type, by strongly consistent Scan, or Query of the market."""
        items: dict[str, Item] = {}
        operation, which = "scan", dict[str, Any]()
        if self.keys.market_id:
            values = {":market": {"S": str(self.keys.market_id)}}
            operation, which = "query", {"KeyConditionExpression": "pk = :market", "ExpressionAttributeValues": values}
        pace = Pace()
        while True:
            answer = self.call(operation, pace, ConsistentRead=True, **which)
            if "Items" not in answer:
                self.count("unreadable answer")
                raise TransientTableError(f"table {self.name}: the response to a {operation} has no Items")
            items |= {self.keys.read(item): item for item in answer["Items"]}
            if "LastEvaluatedKey" not in answer:
                break
            which["ExclusiveStartKey"] = answer["LastEvaluatedKey"]
        items.pop(self.keys.read(self.keys.snapshot), None)
        return items

    def write_batch(self, requests: list[Item], check: Callable[[], None]) -> None:
        """Put and delete up to 25 items; retry what DynamoDB throttles or leaves unprocessed.

        `check` is called before each call, and raises to prevent it. A ThrottledError is raised after `STALLED_CALLS`
        in a row that stored nothing.
        """
        pace = Pace()
        while True:
            try:
                answer = self.call("batch_write_item", None, check, RequestItems={self.name: requests})
            except ThrottledError:
                left = requests
            else:
                left = (answer.get("UnprocessedItems") or {}).get(self.name) or []
                if not left:
                    return
                self.count("unprocessed items")
            if not self.wait_for_capacity(pace, progress=len(left) < len(requests)):
                raise ThrottledError(
                    f"table {self.name}: {len(left)} writes, the first a {describe_request(left[0])}, were left "
                    f"unprocessed {pace.stalled} times in a row; its write capacity may be too small"
                )
            requests = left


def sum_units(consumed: Any) -> float:  # noqa: ANN401 (one table's, a list of them, or null)
    """Return the units that a call consumed; 0 if the response does not say."""
    parts = consumed if isinstance(consumed, list) else [consumed]
    return float(sum(part.get("CapacityUnits") or 0 for part in parts if part))
