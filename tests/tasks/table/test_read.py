"""Reading a table while runs write it, and many tables at once."""

import random
import threading
from decimal import Decimal

import msgspec
import pytest
from mypy_boto3_dynamodb import DynamoDBClient

from tasks.table import read as module
from tasks.table.client import Table
from tasks.table.connection import open_connection
from tasks.table.create import create, create_missing
from tasks.table.errors import MissingTableError
from tasks.table.read import FEW, Record, UnreadableError, read_records, read_snapshots
from tasks.table.requests import Item
from tests.support.tables import STORED

TABLES = 3 * FEW


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the waits."""
    monkeypatch.setattr(module, "WAIT_SECONDS", 0.02)


@pytest.fixture
def name(store_url: str, table_name: str, dynamodb: DynamoDBClient) -> str:
    """Return a table with two records, and items of other programs."""
    assert store_url
    with Table(table_name, 1) as table:
        create(table)
    items: list[Item] = [
        {
            "pk": {"S": "34"},
            "price": {"N": "4.08"},
            "volume": {"N": "29713104352"},
            "aws:rep:deleting": {"BOOL": False},
        },
        {"pk": {"S": "35"}, "price": {"N": "9"}, "volume": {"N": "1"}, "buy": {"M": {"max": {"N": "8.5"}}}},
        {"pk": {"S": "notes"}, "text": {"S": "mine"}},
        {"pk": {"S": "#other"}},
        STORED.to_item(),
    ]
    for item in items:
        dynamodb.put_item(TableName=table_name, Item=item)
    return table_name


def test_records_come_with_their_snapshot(name: str) -> None:
    """Records are returned exactly, with their snapshot, but without other programs' items and attributes."""
    records, snapshot = read_records(name)
    assert snapshot == STORED
    assert records == {
        34: Record(Decimal("4.08"), 29713104352),
        35: Record(Decimal(9), 1, {"max": Decimal("8.5")}),
    }


def test_table_without_snapshot_is_refused(name: str, dynamodb: DynamoDBClient) -> None:
    """A table without `#snapshot` cannot be read: nothing says what its records are."""
    dynamodb.delete_item(TableName=name, Key={"pk": {"S": "#snapshot"}})
    with pytest.raises(UnreadableError, match=f"{name} has no item #snapshot"):
        read_records(name)


def test_interrupted_table_is_refused(name: str, dynamodb: DynamoDBClient) -> None:
    """A table that a run left half written cannot be read, and the reader does not wait."""
    dynamodb.put_item(TableName=name, Item=msgspec.structs.replace(STORED, state="writing").to_item())
    with pytest.raises(UnreadableError, match="the last run stopped while writing; the next one repairs"):
        read_records(name)


def test_writing_run_is_waited_for(name: str, dynamodb: DynamoDBClient) -> None:
    """While a run writes, the table is read again until the run is done."""
    writing = msgspec.structs.replace(STORED, state="writing", owner="host/1/run")
    dynamodb.put_item(TableName=name, Item=writing.to_item())
    done = msgspec.structs.replace(STORED, lease=7)
    timer = threading.Timer(0.05, lambda: dynamodb.put_item(TableName=name, Item=done.to_item()))
    timer.start()
    assert read_records(name)[1] == done
    timer.join()


def test_endless_writing_is_refused(name: str, dynamodb: DynamoDBClient) -> None:
    """If a run does not stop writing, the error names it."""
    writing = msgspec.structs.replace(STORED, state="writing", owner="host/1/run")
    dynamodb.put_item(TableName=name, Item=writing.to_item())
    with pytest.raises(UnreadableError, match="was being written by host/1/run in all 5 attempts"):
        read_records(name)


def test_scan_across_a_change_is_done_again(
    name: str, dynamodb: DynamoDBClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scan is discarded if `#snapshot` changed meanwhile."""
    scans: list[int] = []
    scan = Table.scan

    def change_while_scanning(table: Table) -> object:
        items = scan(table)
        scans.append(len(items))
        if len(scans) == 1:
            dynamodb.delete_item(TableName=name, Key={"pk": {"S": "35"}})
            dynamodb.put_item(TableName=name, Item=msgspec.structs.replace(STORED, lease=8).to_item())
        return items

    monkeypatch.setattr(Table, "scan", change_while_scanning)
    records, snapshot = read_records(name)
    assert (set(records), snapshot.lease, len(scans)) == ({34}, 8, 2)


@pytest.mark.usefixtures("store_url")
def test_missing_table_leaves_few_to_be_read_alone() -> None:
    """Of many tables, of which one is missing, only a few around it have to be read one by one."""
    prefix, missing = f"Batch-{random.getrandbits(64)}", random.randrange(TABLES)
    with open_connection(1) as connection:
        tables = [Table(f"{prefix}-{number}", connection) for number in range(TABLES)]
        for table in tables[:missing] + tables[missing + 1 :]:
            create_missing(table, MissingTableError(""))
        found = read_snapshots(tables)
    assert tables[missing] not in found
    assert len(found) >= TABLES - FEW
    assert set(found.values()) == {None}
