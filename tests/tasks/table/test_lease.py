"""The lease: which run may write a table, and until when."""

import threading
import time
from collections.abc import Iterator

import msgspec
import pytest
from mypy_boto3_dynamodb import DynamoDBClient

from tasks.table import lease as lease_module
from tasks.table.client import Table
from tasks.table.errors import TableError
from tasks.table.lease import Lease, LeaseHeldError, LeaseLostError
from tasks.table.snapshot import TableSnapshot
from tests.support.tables import STORED, scan

WRITING = msgspec.structs.replace(STORED, state="writing")


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the minute of standstill to half a second, and the other times with it."""
    for name, seconds in (("STANDSTILL", 0.5), ("RENEW", 0.1), ("SAFE", 0.3), ("WAIT", 1.5), ("POLL", 0.02)):
        monkeypatch.setattr(lease_module, f"{name}_SECONDS", seconds)


@pytest.fixture
def other_table(table: Table) -> Iterator[Table]:
    """Yield the same table, opened by another run."""
    with Table(table.name, 1) as opened:
        yield opened


def read_snapshot(dynamodb: DynamoDBClient, table: Table) -> TableSnapshot:
    """Return `#snapshot`."""
    return TableSnapshot.from_item(scan(dynamodb, table.name)["#snapshot"])


def test_lease_is_taken_kept_and_given_back(table: Table, dynamodb: DynamoDBClient) -> None:
    """While held, `#snapshot` is `writing`, names the owner and counts up; at the end it is `complete`."""
    with Lease(table) as lease:
        assert lease.wait() is None
        assert lease.take(WRITING)
        first = read_snapshot(dynamodb, table)
        assert (first.state, first.owner) == ("writing", lease.owner)
        deadline = time.monotonic() + 5
        while read_snapshot(dynamodb, table).lease < first.lease + 3:
            assert time.monotonic() < deadline
        lease.check()
        lease.complete(STORED)
        counted = read_snapshot(dynamodb, table).lease
    after = read_snapshot(dynamodb, table)
    assert (after.state, after.owner, after.lease) == ("complete", lease.owner, counted)
    assert msgspec.structs.replace(after, owner="", lease=0) == STORED


def test_failed_run_gives_its_lease_back(table: Table, other_table: Table) -> None:
    """A run that fails while writing leaves `writing` without an owner, so the next run need not wait."""
    with pytest.raises(ZeroDivisionError), Lease(table) as lease:
        lease.wait()
        lease.take(WRITING)
        raise ZeroDivisionError
    with Lease(other_table) as other:
        started = time.monotonic()
        item = other.wait()
        assert time.monotonic() - started < lease_module.STANDSTILL_SECONDS
        assert item
        assert (item["state"], item["owner"]) == ({"S": "writing"}, {"S": ""})
        assert other.take(WRITING)


def test_run_that_wrote_nothing_leaves_no_mark(table: Table, dynamodb: DynamoDBClient) -> None:
    """A run that never took the lease does not change `#snapshot`, even if it fails."""
    with Lease(table) as lease:
        lease.wait()
        lease.complete(STORED)
    before = scan(dynamodb, table.name)
    with pytest.raises(ZeroDivisionError), Lease(table) as lease:
        lease.wait()
        raise ZeroDivisionError
    assert scan(dynamodb, table.name) == before


def test_live_lease_is_waited_for(table: Table, other_table: Table) -> None:
    """A run waits while another one writes, and continues once that is done."""
    messages: list[str] = []
    with Lease(table) as lease, Lease(other_table) as other:
        lease.wait()
        lease.take(WRITING)
        done = threading.Timer(0.8, lease.complete, [STORED])
        done.start()
        item = other.wait(messages.append)
        done.join()
        assert item
        assert item["state"] == {"S": "complete"}
        assert messages[0] == f"waiting for {lease.owner}, which is writing table {table.name}"
        assert other_table.waits.seconds > 0.4


def test_live_lease_that_goes_on_fails_the_waiter(table: Table, other_table: Table) -> None:
    """A run fails after waiting two minutes for another one, and names it."""
    with Lease(table) as lease, Lease(other_table) as other:
        lease.wait()
        lease.take(WRITING)
        with pytest.raises(LeaseHeldError, match=f"{table.name} is being written by {lease.owner} .*, and still was"):
            other.wait()


def test_dead_lease_is_taken_over(table: Table, other_table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease whose count stands still is taken over, and its owner may not write any more."""
    monkeypatch.setattr(lease_module, "RENEW_SECONDS", 60.0)  # as if killed, or frozen
    with Lease(table) as lease, Lease(other_table) as other:
        lease.wait()
        lease.take(WRITING)
        started = time.monotonic()
        other.wait()
        assert time.monotonic() - started >= lease_module.STANDSTILL_SECONDS
        assert other.take(WRITING)
        with pytest.raises(LeaseLostError, match="the last renewal was"):
            lease.check()
        with pytest.raises(LeaseLostError, match="was written by another run or program meanwhile"):
            lease.complete(STORED)
        other.complete(STORED)


def test_owner_notices_that_it_was_taken_over(table: Table, dynamodb: DynamoDBClient) -> None:
    """An owner notices at its next renewal that it lost the lease, and writes nothing more."""
    with Lease(table) as lease:
        lease.wait()
        lease.take(WRITING)
        taken = msgspec.structs.replace(WRITING, owner="somebody", lease=99).to_item()
        dynamodb.put_item(TableName=table.name, Item=taken)
        deadline = time.monotonic() + 5
        with pytest.raises(LeaseLostError, match="another run has taken over"):
            while time.monotonic() < deadline:
                lease.check()
    assert scan(dynamodb, table.name)["#snapshot"] == taken


def test_one_of_two_gets_the_lease(table: Table, other_table: Table) -> None:
    """If two runs saw the same `#snapshot`, only one of them gets the lease."""
    with Lease(table) as lease, Lease(other_table) as other:
        lease.wait()
        other.wait()
        assert lease.take(WRITING)
        assert not other.take(WRITING)


def test_changed_table_is_not_marked_complete(table: Table, other_table: Table) -> None:
    """A run with nothing to write does not mark the table complete if another run has written since."""
    with Lease(table) as lease, Lease(other_table) as other:
        lease.wait()
        other.wait()
        assert other.take(WRITING)
        with pytest.raises(LeaseLostError, match="not marked complete"):
            lease.complete(STORED)


def test_lost_response_does_no_harm(table: Table) -> None:
    """The owner may repeat `take` and `complete`, as after a lost response."""
    with Lease(table) as lease:
        lease.wait()
        assert lease.take(WRITING)
        lease.wait()
        assert lease.take(WRITING)
        lease.complete(STORED)
        lease.complete(STORED)


def test_late_renewal_does_not_undo_the_end(table: Table, dynamodb: DynamoDBClient) -> None:
    """A renewal that reaches the table after `complete` changes nothing."""
    with Lease(table) as lease:
        lease.wait()
        lease.take(WRITING)
        lease.complete(STORED)
        before = scan(dynamodb, table.name)
        lease._count -= 2  # noqa: SLF001 (the count of a renewal sent before `complete`)
        with pytest.raises(LeaseLostError):
            lease.complete(WRITING)
        assert scan(dynamodb, table.name) == before


@pytest.mark.parametrize("attributes", [{}, {"lease": {"S": "x"}}, {"state": {"S": "writing"}}])
def test_item_of_another_program_is_replaced(
    table: Table, dynamodb: DynamoDBClient, attributes: dict[str, dict[str, str]]
) -> None:
    """Nobody holds a `#snapshot` without a valid lease, so a run may replace it."""
    dynamodb.put_item(TableName=table.name, Item={"pk": {"S": "#snapshot"}, **attributes})
    with Lease(table) as lease:
        lease.wait()
        assert lease.take(WRITING)


def test_part_that_wakes_late_writes_nothing(table: Table) -> None:
    """After a run has drained its table, nothing can be submitted, and its lease allows no write."""
    with Lease(table) as lease:
        lease.wait()
        assert lease.take(WRITING)
    with pytest.raises(LeaseLostError, match="the run is over"):
        lease.check()
    with pytest.raises(TableError, match="the run is over"):
        table.submit(table.read_snapshot)
