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
from types import TracebackType
from typing import NamedTuple, Self

import msgspec

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
NAMES = {"#owner": "owner", "#lease": "lease"}  # attribute names by placeholder

log = logging.getLogger(__name__)


class LeaseLostError(TableError):
    """Another run may be writing the table by now, so this one must not."""

    tried = "It stopped writing at once."
    advice = "Nothing: the next run repairs the table."


class LeaseHeldError(TableError):
    """Another run is writing the table, and was not done after `WAIT_SECONDS`."""

    tried = "This run waited two minutes for the other."
    advice = "Nothing, or give each table only one schedule."


class EarlyScan(NamedTuple):
    """A scan started before the lease was taken; valid while `#snapshot` stays the same."""

    seen: Item | None  # `#snapshot` before the scan started
    segments: list[Future[list[Item]]]


class Lease:
    """A lease on one table. Use it as a context manager, which releases it even on failure."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.owner = f"{socket.gethostname()}/{os.getpid()}/{secrets.token_hex(4)}"
        self._seen: Item | None = None  # `#snapshot` as last read
        self._early: EarlyScan | None = None
        self._put: Marker | None = None  # as last written by this run, in state `writing`
        self._count = 0  # of the last change
        self._renewed = 0.0  # monotonic time at which the last successful change was sent
        self._lost = self._released = False
        self._done = threading.Event()
        self._renewing: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._released = True
        self.table.drain()  # no write is in flight when the lease is released
        self._stop_renewing()
        if self._put and not self._lost:
            try:
                self._write(self._put, owner="", only_own=True, only_writing=True)
            except ConditionError:
                pass  # another run has it by now
            except TableError as failure:
                log.warning("the lease could not be released; the next run can take it over in a minute: %s", failure)

    def wait(self, say: Callable[[str], None] = log.info) -> Item | None:
        """Wait until no other run holds the lease, then return `#snapshot`; `say` logs the holder.

        Raises:
            LeaseHeldError: another run still held it after two minutes.
            TableError: see `tasks.table.client`.
        """
        started = still_since = time.monotonic()
        watched: Item | None = None
        while True:
            self._seen = self.table.read_snapshot()
            self._count = max(self._count, read_count(self._seen))
            holder = read_holder(self._seen)
            if holder in {"", self.owner}:
                return self._seen
            if self._seen != watched:
                watched, still_since = self._seen, time.monotonic()
                say(f"waiting for {holder}, which is writing table {self.table.name}")
            now = time.monotonic()
            if now - still_since >= STANDSTILL_SECONDS:
                say(f"{holder} has not renewed its lease for {STANDSTILL_SECONDS:.0f} s: taking it over")
                return self._seen
            if now - started >= WAIT_SECONDS:
                raise LeaseHeldError(
                    f"table {self.table.name} is being written by {holder} (host/process/run), and still was after "
                    f"{WAIT_SECONDS:.0f} s: this run wrote nothing, the next one tries again"
                )
            self.table.waits.sleep(POLL_SECONDS)

    def start_scan(self, seen: Item | None, expected_records: int) -> None:
        """Start scanning the table while pages are in flight; `seen` is `#snapshot` as read just before."""
        if self._early:  # of a snapshot that has moved on
            for segment in self._early.segments:
                segment.cancel()
        self._early = None if read_holder(seen) else EarlyScan(seen, self.table.start_scan(expected_records))

    def scan(self, expected_records: int) -> dict[str, Item]:
        """Return the table's items as of the `#snapshot` that `wait` returned; see `Table.scan`."""
        early, self._early = self._early, None
        if early and early.seen == self._seen:
            return self.table.collect(early.segments)
        return self.table.scan(expected_records)

    def take(self, snapshot: Marker) -> bool:
        """Put `#snapshot` in state `writing` and keep renewing it; return False if another run came first.

        Raises:
            TableError: see `tasks.table.client`.
        """
        self._stop_renewing()  # of an earlier attempt
        self._put, self._lost = snapshot, False
        try:
            self._write(snapshot, owner=self.owner)
        except ConditionError:
            self._put = None
            return False
        self._done.clear()
        self._renewing = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._renewing.start()
        return True

    def check(self) -> None:
        """Raise if another run may be writing by now; call it before each write.

        Raises:
            LeaseLostError: it may.
        """
        idle_seconds = time.monotonic() - self._renewed
        if self._lost or self._released or idle_seconds > SAFE_SECONDS:
            why = f"the last renewal was {idle_seconds:.0f} s ago"
            why = "another run has taken over" if self._lost else "the run is over" if self._released else why
            raise LeaseLostError(
                f"table {self.table.name}: {why}; this run stopped writing, the next one repairs the table"
            )

    def complete(self, snapshot: Marker) -> None:
        """Put `#snapshot` in state `complete`, which releases the lease.

        Raises:
            LeaseLostError: another run has taken the lease over.
            TableError: see `tasks.table.client`.
        """
        self._stop_renewing()
        try:
            self._write(snapshot, owner=self.owner, only_own=self._put is not None)
        except ConditionError as error:
            self._lost = True
            raise LeaseLostError(
                f"{error} meanwhile: not marked complete; the next run will repair the table"
            ) from error
        self._put = None

    def _write(
        self,
        snapshot: Marker,
        *,
        owner: str,
        only_own: bool = False,
        only_writing: bool = False,
        is_patient: bool = True,
    ) -> None:
        """Put `#snapshot` with a new count; a run may overwrite its own, so a lost response does no harm."""
        self._count += 1
        names = NAMES
        condition, values = make_condition(self.owner, self._count, self._seen, only_own=only_own)
        if only_writing:
            condition, names = f"{condition} AND #state = :writing", names | {"#state": "state"}
            values[":writing"] = {"S": "writing"}
        item = msgspec.structs.replace(snapshot, owner=owner, lease=self._count).to_item(self.table.keys)
        sent = 0.0

        def note_time() -> None:
            nonlocal sent
            sent = time.monotonic()

        self.table.write_snapshot(item, condition, names, values, note_time, Pace() if is_patient else None)
        self._renewed = sent

    def _renew(self) -> None:
        seconds = RENEW_SECONDS
        while not self._done.wait(seconds):
            assert self._put
            seconds = RENEW_SECONDS
            try:
                self._write(self._put, owner=self.owner, only_own=True, is_patient=False)
            except ConditionError:
                self._lost = True
                return
            except TableError as failure:
                log.warning("the lease could not be renewed, retrying: %s", failure)
                seconds = random.uniform(RENEW_SECONDS / 20, RENEW_SECONDS / 10)  # noqa: S311 (spreads waits)

    def _stop_renewing(self) -> None:
        self._done.set()
        if self._renewing:
            self._renewing.join()


def make_condition(owner: str, count: int, seen: Item | None, *, only_own: bool) -> tuple[str, Item]:
    """Return the condition for writing `#snapshot`, in DynamoDB's notation, and its values.

    Args:
        owner: the writer.
        count: the lease's new count.
        seen: the item as last read.
        only_own: only overwrite the owner's own item; otherwise also `seen`, unchanged.
    """
    condition = "(#owner = :me AND #lease <= :count)"  # a late renewal must not undo a later write
    values: Item = {":me": {"S": owner}, ":count": {"N": str(count)}}
    if not only_own and seen is None:
        condition += " OR attribute_not_exists(pk)"
    elif not only_own and seen is not None and "lease" in seen:
        condition += " OR #lease = :seen"
        values[":seen"] = seen["lease"]
    elif not only_own:  # written by another program, or by a version without leases
        condition += " OR attribute_not_exists(#lease)"
    return condition, values


def read_holder(item: Item | None) -> str:
    """Return the holder of the lease in `#snapshot`, empty if there is none."""
    if item is None or item.get("state") != {"S": "writing"}:
        return ""
    return str(item.get("owner", {}).get("S", ""))


def read_count(item: Item | None) -> int:
    """Return the lease's count in `#snapshot`, 0 if it has none."""
    count = item.get("lease", {}).get("N", "0") if item else "0"
    return int(count) if count.isdigit() else 0
