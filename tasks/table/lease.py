"""A lease on a market table: only its holder may write.

It is the item `#snapshot` in state `writing`, with its owner's name. The owner renews it by counting it up while it
writes. A run that waits takes the lease over when the count has not moved for a minute of its own monotonic clock, so
no other machine's clock is trusted. Every change is conditional on the count that was read before.
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
from tasks.table.snapshot import TableSnapshot

STANDSTILL_SECONDS = 60.0  # after which a lease is taken over
RENEW_SECONDS = 10.0  # a tenth of it after a renewal that did not come through
SAFE_SECONDS = 35.0  # since the last renewal: later than this nothing is written, whether or not somebody took over
WAIT_SECONDS = 120.0  # for another run's lease
POLL_SECONDS = 2.0
NAMES = {"#owner": "owner", "#lease": "lease"}  # attributes by their placeholders in conditions

log = logging.getLogger(__name__)


class LeaseLostError(TableError):
    """Another run may be writing the table by now, so this one must not."""

    tried = "It stopped writing at once."
    advice = "Nothing: the next run repairs the table."


class LeaseHeldError(TableError):
    """Another run is writing the table, and did not end while this one waited."""

    tried = "This run waited two minutes for the other."
    advice = "Nothing, or run one schedule a table."


class EarlyScan(NamedTuple):
    """A scan that was started before its result was needed; it counts as long as `#snapshot` stays the same."""

    seen: Item | None  # `#snapshot` before it started
    segments: list[Future[list[Item]]]


class Lease:
    """A lease on one table. Use it as a context manager: it is released at the end, even on failure."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.owner = f"{socket.gethostname()}/{os.getpid()}/{secrets.token_hex(4)}"
        self._seen: Item | None = None  # `#snapshot` as it was read last
        self._early: EarlyScan | None = None
        self._put: TableSnapshot | None = None  # as this run put it last, in state `writing`
        self._count = 0  # of the last change
        self._renewed = 0.0  # monotonic time at which the last change that came through was sent
        self._lost = False
        self._done = threading.Event()
        self._renewing = threading.Thread(target=self._renew, name="lease", daemon=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.table.drain()  # nothing is on its way any more when the lease is given back
        self._stop_renewing()
        if self._put and not self._lost:
            try:
                self._write(self._put, owner="", only_own=True)
            except ConditionError:
                pass  # somebody else's by now
            except TableError as failure:
                log.warning("the lease could not be released; the next run takes it over in a minute: %s", failure)

    def wait(self, say: Callable[[str], None] = log.info) -> Item | None:
        """Return `#snapshot` as soon as no other run holds the lease, None if there is none; `say` logs who holds it.

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
        """Start reading the table while pages are on their way; `seen` is `#snapshot` as it was read just before."""
        if not read_holder(seen):
            self._early = EarlyScan(seen, self.table.start_scan(expected_records))

    def scan(self, expected_records: int) -> dict[str, Item]:
        """Return the table's items, with no write since `wait` returned `#snapshot`; see `Table.scan`."""
        early, self._early = self._early, None
        if early and early.seen == self._seen:
            return self.table.collect(early.segments)
        return self.table.scan(expected_records)

    def take(self, snapshot: TableSnapshot) -> bool:
        """Put `#snapshot` in state `writing`, and renew it from now on; return False if another run came first.

        Raises:
            TableError: see `tasks.table.client`.
        """
        self._put = snapshot
        try:
            self._write(snapshot, owner=self.owner)
        except ConditionError:
            self._put = None
            return False
        if not self._renewing.is_alive():
            self._renewing.start()
        return True

    def check(self) -> None:
        """Raise if another run may be writing by now; called before each write.

        Raises:
            LeaseLostError: it may.
        """
        idle_seconds = time.monotonic() - self._renewed
        if self._lost or idle_seconds > SAFE_SECONDS:
            why = "another run has taken over" if self._lost else f"no renewal came through for {idle_seconds:.0f} s"
            raise LeaseLostError(
                f"table {self.table.name}: {why}; this run stopped writing, the next one repairs the table"
            )

    def complete(self, snapshot: TableSnapshot) -> None:
        """Put `#snapshot` in state `complete`, which releases the lease.

        Raises:
            LeaseLostError: another run has written the table meanwhile.
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

    def _write(self, snapshot: TableSnapshot, *, owner: str, only_own: bool = False, is_patient: bool = True) -> None:
        """Put `#snapshot`, counted up; a run may put its own again, so a lost answer does no harm."""
        self._count += 1
        condition, values = make_condition(self.owner, self._count, self._seen, only_own=only_own)
        item = msgspec.structs.replace(snapshot, owner=owner, lease=self._count).to_item(self.table.keys)
        sent = 0.0

        def note_time() -> None:
            nonlocal sent
            sent = time.monotonic()

        self.table.write_snapshot(item, condition, NAMES, values, note_time, Pace() if is_patient else None)
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
                log.warning("the lease could not be renewed this time: %s", failure)
                seconds = random.uniform(RENEW_SECONDS / 20, RENEW_SECONDS / 10)  # noqa: S311 (spreads waits)

    def _stop_renewing(self) -> None:
        self._done.set()
        if self._renewing.is_alive():
            self._renewing.join()


def make_condition(owner: str, count: int, seen: Item | None, *, only_own: bool) -> tuple[str, Item]:
    """Return when `#snapshot` may be put, in DynamoDB's notation, and the values in it.

    Args:
        owner: who puts it.
        count: the lease's, counted up.
        seen: the item as it was read last.
        only_own: only if it is the owner's already; otherwise also if it is as it was read.
    """
    condition = "(#owner = :me AND #lease <= :count)"  # a late renewal must not undo a later put
    values: Item = {":me": {"S": owner}, ":count": {"N": str(count)}}
    if not only_own and seen is None:
        condition += " OR attribute_not_exists(pk)"
    elif not only_own and seen is not None and "lease" in seen:
        condition += " OR #lease = :seen"
        values[":seen"] = seen["lease"]
    elif not only_own:  # written by another program, or by this one before it had leases
        condition += " OR attribute_not_exists(#lease)"
    return condition, values


def read_holder(item: Item | None) -> str:
    """Return who holds the lease by `#snapshot`, nothing if nobody does."""
    if item is None or item.get("state") != {"S": "writing"}:
        return ""
    return str(item.get("owner", {}).get("S", ""))


def read_count(item: Item | None) -> int:
    """Return the lease's count by `#snapshot`, 0 if it has none."""
    count = item.get("lease", {}).get("N", "0") if item else "0"
    return int(count) if count.isdigit() else 0
