"""A lease on a market table: only its holder may write.

The lease is the item `#snapshot` in state `writing`, with its owner's name. While the owner writes, it renews the lease
by incrementing a count. A waiting run takes the lease over once the count has stood still for a minute by the waiting
run's monotonic clock, so no other machine's clock is trusted. Every change is conditional on the last count read.
"""

import logging
import os
import random
import secrets
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Self

import msgspec
from boto3.dynamodb.conditions import Attr, ConditionBase, ConditionExpressionBuilder

from tasks.table.client import Table
from tasks.table.errors import ConditionError, TableError
from tasks.table.pace import Pace
from tasks.table.requests import Item
from tasks.table.snapshot import Marker

STANDSTILL_SECONDS = 60.0  # without a renewal, before a lease is taken over
RENEW_SECONDS = 10.0  # a tenth of it after a failed renewal
SAFE_SECONDS = 35.0  # since the last renewal: no later write, whether or not another run has taken over
WAIT_SECONDS = 120.0  # for another run's lease
POLL_SECONDS = 2.0
TAKEN = "another run has taken over"

log = logging.getLogger(__name__)


class LeaseLostError(TableError):
    """Another run may be writing the table by now, so this one must not."""

    tried = "It stopped writing at once."
    advice = "Nothing: the next run repairs the table."


class LeaseHeldError(TableError):
    """Another run is writing the table, and was not done after `WAIT_SECONDS`."""

    tried = "This run waited two minutes for the other."
    advice = "Nothing, or give each table only one schedule."


class Lease:
    """A lease on one table. Use it as a context manager, which releases it even on failure."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.owner = f"{socket.gethostname()}/{os.getpid()}/{secrets.token_hex(4)}"
        self._seen: Item | None = None  # `#snapshot` as last read
        self._early: Future[dict[str, Item]] | None = None  # a scan started before the lease was taken
        self._early_seen: Item | None = None  # `#snapshot` before that scan, valid while it stays the same
        self._put: Marker | None = None  # as last written by this run, in state `writing`
        self._count = 0  # of the last change
        self._renewed = 0.0  # monotonic time at which the last successful change was sent
        self._ended = ""  # why this run must not write any more
        self._done = threading.Event()
        self._renewing: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = self._ended or "the run is over"
        self.table.drain()  # no write is in flight when the lease is released
        self._stop_renewing()
        self._early = None  # its items are large
        put, self._put = self._put, None
        if put and self._ended != TAKEN:
            try:
                self._write(put, "")
            except ConditionError:
                pass  # another run has it by now
            except TableError as failure:
                log.warning("the lease could not be released; the next run can take it over in a minute: %s", failure)

    def wait(self, say: Callable[[str], None] = log.info) -> Item | None:
        """Wait until no other run holds the lease and return `#snapshot`; raise a LeaseHeldError after two minutes."""
        started = still_since = time.monotonic()
        watched: Item | None = None
        while True:
            self._seen = self.table.read_snapshot()
            self._count = max(self._count, read_count(self._seen))
            holder, now = read_holder(self._seen), time.monotonic()
            if holder in {"", self.owner}:
                return self._seen
            if self._seen != watched:
                watched, still_since = self._seen, now
                say(f"waiting for {holder}, which is writing table {self.table.name}")
            if now - still_since >= STANDSTILL_SECONDS:
                say(f"{holder} has not renewed its lease for {STANDSTILL_SECONDS:.0f} s: taking it over")
                return self._seen
            if now - started >= WAIT_SECONDS:
                raise LeaseHeldError(
                    f"table {self.table.name} is being written by {holder} (host/process/run), and still was after "
                    f"{WAIT_SECONDS:.0f} s: this run wrote nothing, the next one tries again"
                )
            self.table.waits.sleep(POLL_SECONDS)

    def start_scan(self, seen: Item | None) -> None:
        """Start scanning the table while pages are in flight; `seen` is `#snapshot` as read just before."""
        if self._early:
            self._early.cancel()  # of a snapshot that has moved on
        self._early_seen, self._early = seen, None if read_holder(seen) else self.table.submit(self.table.scan)

    def scan(self) -> dict[str, Item]:
        """Return the table's items as of the `#snapshot` that `wait` returned; see `Table.scan`."""
        early, self._early = self._early, None
        return early.result() if early and self._early_seen == self._seen else self.table.scan()

    def take(self, snapshot: Marker) -> bool:
        """Put `#snapshot` in state `writing` and keep renewing it; return False if another run came first."""
        self._stop_renewing()  # of an earlier attempt
        self._put, self._ended = snapshot, ""
        try:
            self._write(snapshot, self.owner, over_seen=True)
        except ConditionError:
            self._put = None
            return False
        self._done.clear()
        self._renewing = threading.Thread(target=self._renew, args=[snapshot], name="lease", daemon=True)
        self._renewing.start()
        return True

    def check(self) -> None:
        """Raise a LeaseLostError unless this run may still write; call it before each write."""
        idle_seconds = time.monotonic() - self._renewed
        if self._ended or idle_seconds > SAFE_SECONDS:
            why = self._ended or f"the last renewal was {idle_seconds:.0f} s ago"
            raise LeaseLostError(
                f"table {self.table.name}: {why}; this run stopped writing, the next one repairs the table"
            )

    def complete(self, snapshot: Marker) -> None:
        """Put `#snapshot` as `complete`, which releases the lease; raise a LeaseLostError if another run has it."""
        self._stop_renewing()
        try:
            self._write(snapshot, self.owner, over_seen=self._put is None)
        except ConditionError as error:
            self._ended = TAKEN
            raise LeaseLostError(
                f"{error} meanwhile: not marked complete; the next run will repair the table"
            ) from error
        self._put = None

    def _write(self, snapshot: Marker, owner: str, *, over_seen: bool = False, is_patient: bool = True) -> None:
        """Put `#snapshot` over this run's own, whose response may be lost; with `over_seen` also over `_seen`."""
        self._count += 1
        # The count: a late renewal must not undo a later write.
        own = Attr("owner").eq({"S": self.owner}) & Attr("lease").lte({"N": str(self._count)})
        condition: ConditionBase = own
        if over_seen:
            condition = own | is_unchanged(self._seen)
        elif snapshot.state == "writing":
            condition = own & Attr("state").eq({"S": "writing"})
        built = ConditionExpressionBuilder().build_expression(condition)
        sent: list[float] = []  # monotonic times
        self.table.call(
            "put_item",
            Pace() if is_patient else None,
            lambda: sent.append(time.monotonic()),
            Item=msgspec.structs.replace(snapshot, owner=owner, lease=self._count).to_item(self.table.keys),
            ConditionExpression=built.condition_expression,
            ExpressionAttributeNames=built.attribute_name_placeholders,
            ExpressionAttributeValues=built.attribute_value_placeholders,  # in DynamoDB's notation already
        )
        self._renewed = sent[-1]

    def _renew(self, snapshot: Marker) -> None:
        seconds = RENEW_SECONDS
        while not self._done.wait(seconds):
            seconds = RENEW_SECONDS
            try:
                self._write(snapshot, self.owner, is_patient=False)
            except ConditionError:
                self._ended = TAKEN
                return
            except TableError as failure:
                log.warning("the lease could not be renewed, retrying: %s", failure)
                seconds = random.uniform(RENEW_SECONDS / 20, RENEW_SECONDS / 10)  # noqa: S311 (spreads waits)

    def _stop_renewing(self) -> None:
        self._done.set()
        if self._renewing:
            self._renewing.join()


def is_unchanged(seen: Item | None) -> ConditionBase:
    """Return the condition that `#snapshot` is still as it was seen."""
    if seen is None:
        return Attr("pk").not_exists()
    if "lease" not in seen:  # written by another program, or by a version without leases
        return Attr("lease").not_exists()
    return Attr("lease").eq(seen["lease"])


def read_holder(item: Item | None) -> str:
    """Return the holder of the lease in `#snapshot`, empty if there is none."""
    if item is None or item.get("state") != {"S": "writing"}:
        return ""
    return str(item.get("owner", {}).get("S", ""))


def read_count(item: Item | None) -> int:
    """Return the lease's count in `#snapshot`, 0 if it has none."""
    count = item.get("lease", {}).get("N", "0") if item else "0"
    return int(count) if count.isdigit() else 0
