"""One run's calls to one table."""

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
from tasks.table.requests import check_table_name

P = ParamSpec("P")
R = TypeVar("R")


class Calls:
    """One run's calls to one table, counted; see `Table`."""

    def __init__(self, name: str, connection: Connection | int) -> None:
        self.name = check_table_name(name)
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

    def continue_counts(self, earlier: "Calls") -> None:
        """Count on from an earlier attempt of the same run."""
        self.failures, self.waits = earlier.failures, earlier.waits
        self.read_units, self.write_units = earlier.read_units, earlier.write_units

    def __enter__(self) -> Self:
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

    def wait_for_capacity(self, pace: Pace) -> bool:
        """Wait for capacity; return False at once after too many stalled calls, or if the run is closing the table."""
        if pace.stalled >= pace.patience or self._ending.is_set():
            return False
        started = time.monotonic()
        self._ending.wait(pace.draw_seconds())
        self.waits.add(started)
        return True

    def call(
        self,
        operation: str,
        pace: Pace | None,
        check: Callable[[], None] = lambda: None,
        **arguments: Any,  # noqa: ANN401 (an operation's own shape)
    ) -> Any:  # noqa: ANN401
        """Make a call and count its units; retry it while it is throttled, unless `pace` is None."""
        if "RequestItems" not in arguments:
            arguments["TableName"] = self.name
        while True:
            try:
                answer = self.connection.ask(self.name, operation, check, **arguments, ReturnConsumedCapacity="TOTAL")
                break
            except TransientTableError as error:
                self.count(name_cause(error))
                if pace is None or not isinstance(error, ThrottledError):
                    raise
                pace.note(progress=False)
                if not self.wait_for_capacity(pace):
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


def sum_units(consumed: Any) -> float:  # noqa: ANN401 (one table's, a list of them, or null)
    """Return the units that a call consumed; 0 if the response does not say."""
    parts = consumed if isinstance(consumed, list) else [consumed]
    return float(sum(part.get("CapacityUnits") or 0 for part in parts if part))
