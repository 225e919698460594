"""The DynamoDB client, against a store that is as strict as DynamoDB, and against one that misbehaves on purpose."""

import json
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from typing import Any

import msgspec
import pytest
from botocore.retries.standard import ExponentialBackoff
from mypy_boto3_dynamodb import DynamoDBClient

from tasks.orders.choices import Parameters
from tasks.table.client import Table
from tasks.table.errors import (
    KeySchemaError,
    MissingTableError,
    TableError,
    ThrottledError,
    TransientTableError,
)
from tasks.table.lease import Lease, LeaseLostError
from tasks.table.pace import STALLED_CALLS
from tasks.table.read import read_whole
from tasks.table.requests import Item
from tasks.table.snapshot import TableSnapshot
from tests.support.faults.plan import Plan
from tests.support.faults.store import Capacity, serve_faulty_store
from tests.support.tables import STORED, scan


def allow() -> None:
    """Allow every call."""


def record(number: int, size: int = 0) -> Item:
    """Return an item with so many bytes of padding."""
    return {"pk": {"S": str(number)}, "price": {"N": "5.7"}, "padding": {"S": "x" * size}}


def put_request(item: Item) -> Item:
    """Return the request that puts an item."""
    return {"PutRequest": {"Item": item}}


def delete_request(key: Item) -> Item:
    """Return the request that deletes the item of a key."""
    return {"DeleteRequest": {"Key": key}}


def test_missing_table_is_named(store_url: str, table_name: str) -> None:
    """A missing table has its own error, which names the table and the AWS region."""
    assert store_url
    with (
        Table(table_name, 1) as table,
        pytest.raises(MissingTableError, match=f"{table_name} does not exist in us-east"),
    ):
        table.read_snapshot()


def test_snapshot_is_stored(table: Table, dynamodb: DynamoDBClient) -> None:
    """`#snapshot` is one item: numbers as N, dates as ISO 8601 in UTC; its reads and writes are counted."""
    with Lease(table) as lease:
        lease.wait()
        lease.complete(STORED)
    item = table.read_snapshot()
    assert item == scan(dynamodb, table.name)["#snapshot"]
    assert item
    assert (item["pages"], item["last_modified"]) == ({"N": "433"}, {"S": "2026-11-24T12:00:00Z"})
    assert (table.read_units, table.write_units) == (2, 1)


def test_scan_reads_all_pages(table: Table) -> None:
    """A scan reads all of a table of more than 1 MB but `#snapshot`."""
    requests = [put_request(record(number, 60_000)) for number in range(25)]
    table.write_batch(requests, allow)
    assert table.scan() == {str(number): record(number, 60_000) for number in range(25)}


def test_batch_puts_and_deletes(table: Table, dynamodb: DynamoDBClient) -> None:
    """A batch can put and delete, and its write units are counted."""
    table.write_batch([put_request(record(number)) for number in range(25)], allow)
    table.write_batch([put_request(record(100)), delete_request({"pk": {"S": "3"}})], allow)
    assert scan(dynamodb, table.name).keys() == {str(number) for number in range(25)} - {"3"} | {"100"}
    assert table.write_units == 27


def test_wrong_key_schema_is_refused(dynamodb: DynamoDBClient, table_name: str) -> None:
    """A table with another key schema has its own error, which says that the keys do not match."""
    dynamodb.create_table(
        TableName=table_name,
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "N"}],
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
    )
    with (
        Table(table_name, 1) as table,
        pytest.raises(TableError, match="keys do not match the parameter key") as caught,
    ):
        table.read_snapshot()
    assert type(caught.value) is KeySchemaError


class Scripted(BaseHTTPRequestHandler):
    """Responds to BatchWriteItem as the table's name says."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body in one packet
    calls: dict[str, int] = {}  # noqa: RUF012 (one count for all connections)

    def do_POST(self) -> None:
        """Respond to one call."""
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        [(name, writes)] = request["RequestItems"].items()
        call = self.calls[name] = self.calls.get(name, 0) + 1
        if name == "Reset":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        elif name == "Cut":
            self.send(200, {"UnprocessedItems": {name: writes}}, cut_bytes=40)
        elif name in ANSWERS:
            status, code = ANSWERS[name]
            self.send(status, {"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": "planned"})
        elif name in NULLS:
            self.send(200, {"UnprocessedItems": {name: None}, "ConsumedCapacity": NULLS[name]})
        else:
            left = {"All": writes, "Some": writes[5:], "Slow": writes if call % 5 else writes[1:]}[name]
            self.send(200, {"UnprocessedItems": {name: left} if left else {}})

    def send(self, status: int, body: dict[str, Any], cut_bytes: int = 0) -> None:
        """Send JSON, without its last `cut_bytes`."""
        encoded = json.dumps(body).encode()
        encoded = encoded[: len(encoded) - cut_bytes]
        self.send_response(status)
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        self.wfile.write(encoded)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class's name)
        """Log nothing."""


ANSWERS = {
    "Throttled": (400, "ProvisionedThroughputExceededException"),
    "Broken": (500, "InternalServerError"),
    "Denied": (400, "AccessDeniedException"),
    "Missing": (400, "ResourceNotFoundException"),
}
NULLS: dict[str, Any] = {
    "Null": None,
    "NullUnits": [{"TableName": "NullUnits", "CapacityUnits": None}],
    "NoUnits": [{"TableName": "NoUnits"}, None],
    "NullOne": {"CapacityUnits": None},
}


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Yield a store that responds as the table's name says."""
    Scripted.calls.clear()
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Scripted) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", f"http://127.0.0.1:{server.server_address[1]}")
        monkeypatch.setattr("tasks.table.pace.MAX_WAIT_SECONDS", 0.01)
        monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda *_: 0.01)  # between the SDK's own attempts
        yield
        server.shutdown()


REQUESTS = [put_request(record(number)) for number in range(25)]


@pytest.mark.usefixtures("scripted")
@pytest.mark.parametrize(("name", "calls"), [("Some", 5), ("Slow", 125)])
def test_unprocessed_items_are_resent(name: str, calls: int) -> None:
    """Unprocessed items are resent as long as some are stored, and each resend is counted."""
    with Table(name, 1) as table:
        table.write_batch(REQUESTS, allow)
    assert (Scripted.calls[name], table.failures) == (calls, {"unprocessed items": calls - 1})


@pytest.mark.usefixtures("scripted")
@pytest.mark.parametrize("name", NULLS)
def test_null_is_nothing(name: str) -> None:
    """A null in a response means the same as a missing value."""
    with Table(name, 1) as table:
        table.write_batch(REQUESTS, allow)
    assert (Scripted.calls[name], table.write_units) == (1, 0)


@pytest.mark.usefixtures("scripted")
def test_no_call_is_made_without_being_allowed() -> None:
    """`check` is called before each call, also before a resend; once it raises, nothing more is sent."""
    answers = iter([None, None, LeaseLostError("taken over")])

    def check() -> None:
        if answer := next(answers):
            raise answer

    with Table("Some", 1) as table, pytest.raises(LeaseLostError, match="taken over"):
        table.write_batch(REQUESTS, check)
    assert Scripted.calls["Some"] == 2


@pytest.mark.usefixtures("scripted")
def test_batch_without_progress_is_given_up() -> None:
    """A batch fails after two dozen calls in a row that stored nothing, and names its table and first item.

    Its items may be left unprocessed, or the whole batch throttled; boto3 itself repeats a throttled call once.
    """
    for name, calls in (("All", STALLED_CALLS), ("Throttled", 2 * STALLED_CALLS)):
        with (
            Table(name, 1) as table,
            pytest.raises(
                ThrottledError, match=f"table {name}: 25 writes, the first a put of 0, were left unprocessed 24"
            ),
        ):
            table.write_batch(REQUESTS, allow)
        assert Scripted.calls[name] == calls


@pytest.mark.usefixtures("scripted")
def test_leaving_a_table_ends_its_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that ends does not wait for capacity for its last batches."""
    monkeypatch.setattr("tasks.table.pace.MAX_WAIT_SECONDS", 60.0)
    monkeypatch.setattr("tasks.table.pace.FIRST_WAIT_SECONDS", 60.0)
    started = time.monotonic()
    with Table("All", 1) as table:
        future = table.submit(table.write_batch, REQUESTS, allow)
        while not Scripted.calls.get("All"):
            time.sleep(0.01)
    assert isinstance(future.exception(), ThrottledError)
    assert time.monotonic() - started < 10


@pytest.mark.usefixtures("scripted")
@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("Throttled", ThrottledError),
        ("Broken", TransientTableError),
        ("Reset", TransientTableError),
        ("Cut", TransientTableError),
        ("Denied", TableError),
        ("Missing", MissingTableError),
    ],
)
def test_failed_call_has_its_error(name: str, error: type[TableError]) -> None:
    """Only throttling, DynamoDB's own failures and broken connections are transient."""
    with Table(name, 1) as table, pytest.raises(error, match=f"table {name}") as caught:
        table.write_batch(REQUESTS, allow)
    assert type(caught.value) is error


@contextmanager
def provisioned(
    store_url: str, table: Table, units: float, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Table, Capacity]]:
    """Open a table through a proxy that allows so many units per second."""
    capacity = Capacity(units)
    with serve_faulty_store(store_url, Plan([]), capacity) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", url)
        with Table(table.name, 4) as opened:
            yield opened, capacity


def test_throttled_scan_goes_on(store_url: str, table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """A throttled scan continues where it stopped, and reads each page once."""
    items = {str(number): record(number, 300_000) for number in range(16)}
    for item in items.values():
        table.write_batch([put_request(item)], allow)
    with provisioned(store_url, table, 200, monkeypatch) as (opened, capacity):
        assert opened.scan() == items
    assert capacity.refused > 0
    assert capacity.passed["Scan"] == 6  # pages of 1 MB, the last one smaller
    assert opened.failures["ProvisionedThroughputExceededException"] > 0
    assert opened.waits.seconds > 0


def test_throttled_writes_all_arrive(
    store_url: str, table: Table, dynamodb: DynamoDBClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Throttled batches and unprocessed items are all stored at the table's pace, none of them twice."""
    requests = [put_request(record(number)) for number in range(150)]
    started = time.monotonic()
    with provisioned(store_url, table, 20, monkeypatch) as (opened, capacity):
        for future in [opened.submit(opened.write_batch, requests[n : n + 25], allow) for n in range(0, 150, 25)]:
            future.result()
    assert len(scan(dynamodb, table.name)) == 150
    assert capacity.refused > 0
    assert opened.write_units == 150
    assert 130 / 20 < time.monotonic() - started < 4 * 150 / 20


def test_throttled_lease_and_readers(
    store_url: str, table: Table, dynamodb: DynamoDBClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`#snapshot` is written and read at the table's pace, and the lease is kept while writes use up the capacity."""
    for name, seconds in (("STANDSTILL", 6.0), ("RENEW", 1.0), ("SAFE", 3.5)):
        monkeypatch.setattr(f"tasks.table.lease.{name}_SECONDS", seconds)
    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda *_: 0.01)  # between the SDK's own attempts
    snapshot = TableSnapshot(
        state="writing",
        market_id=10000002,
        region_id=10000002,
        parameters=Parameters("sell", "min", "compact"),
        last_modified=datetime(2026, 11, 24, 12, tzinfo=UTC),
    )
    requests = [put_request(record(number)) for number in range(60)]
    with provisioned(store_url, table, 10, monkeypatch) as (opened, capacity), Lease(opened) as lease:
        lease.wait()
        assert lease.take(snapshot)
        batches = [opened.submit(opened.write_batch, requests[n : n + 20], lease.check) for n in (0, 20, 40)]
        for batch in batches:
            batch.result()
        lease.complete(msgspec.structs.replace(snapshot, state="complete", records=60))
        assert len(read_whole(opened)[0]) == 60
        for _ in range(30):
            opened.read_snapshot()
    assert capacity.refused > 0
    assert scan(dynamodb, table.name)["#snapshot"]["state"] == {"S": "complete"}
