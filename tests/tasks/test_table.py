"""The DynamoDB client, against a store that is as strict as DynamoDB, and against one that misbehaves on purpose."""

import json
import socket
import socketserver
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mypy_boto3_dynamodb import DynamoDBClient

from tasks.lease import Lease, LeaseLostError
from tasks.table import (
    STALLED_CALLS,
    Item,
    MissingTableError,
    Table,
    TableError,
    TransientTableError,
    check_table_name,
    delete_request,
    put_request,
)
from tasks.table_snapshot import Detail, OrderType, Price, TableSnapshot
from tests.conftest import scan

instants = st.datetimes(datetime(2003, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 (bounds)
counts = st.integers(0, 10**9)
snapshots = st.builds(
    TableSnapshot,
    state=st.sampled_from(["writing", "complete"]),
    region_id=counts,
    order_type=st.sampled_from(get_args(OrderType)),
    price=st.sampled_from(get_args(Price)),
    detail=st.sampled_from(get_args(Detail)),
    last_modified=instants,
    expires=instants,
    etag=st.text(max_size=40),
    pages=counts,
    orders=counts,
    records=counts,
    written_at=instants,
    owner=st.text(max_size=40),
    lease=counts,
    version=counts,
)


@pytest.fixture
def table(store_url: str, table_name: str) -> Iterator[Table]:
    """A new table."""
    assert store_url
    with Table(table_name, 4) as opened:
        opened.create()
        yield opened


def unguarded() -> None:
    """Lets every call be made."""


def record(number: int, size: int = 0) -> Item:
    """Gives an item, so many bytes larger than it must be."""
    return {"pk": {"S": str(number)}, "price": {"N": "5.7"}, "padding": {"S": "x" * size}}


def test_missing_table_is_told(store_url: str, table_name: str) -> None:
    """A table that is not there is an error of its own, which names it and the AWS region."""
    assert store_url
    with (
        Table(table_name, 1) as table,
        pytest.raises(MissingTableError, match=f"{table_name} does not exist in us-east"),
    ):
        table.read_snapshot()


def test_table_is_created_once(table: Table, dynamodb: DynamoDBClient) -> None:
    """A table is created with on-demand billing and the key `pk`; to create it again does no harm."""
    table.create()
    described = dynamodb.describe_table(TableName=table.name)["Table"]
    assert described["KeySchema"] == [{"AttributeName": "pk", "KeyType": "HASH"}]
    assert described["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
    assert table.read_snapshot() is None


def test_create_command_makes_the_same(table: Table) -> None:
    """The command for one's own account has the region, the name and the key."""
    command = table.create_command()
    assert command.startswith("aws dynamodb create-table --endpoint-url http://127.0.0.1:")
    assert f" --region us-east-1 --table-name {table.name} " in command
    assert "AttributeName=pk,KeyType=HASH --billing-mode PAY_PER_REQUEST" in command


@given(snapshot=snapshots)
def test_snapshot_item_comes_back(snapshot: TableSnapshot) -> None:
    """Any `#snapshot` is read as it was written."""
    assert TableSnapshot.from_item(snapshot.to_item()) == snapshot


def test_snapshot_is_stored(table: Table, dynamodb: DynamoDBClient) -> None:
    """`#snapshot` is one item, its numbers numbers and its dates ISO 8601 in UTC; reads and writes are counted."""
    now = datetime(2026, 11, 24, 12, tzinfo=UTC)
    snapshot = TableSnapshot(
        state="complete",
        region_id=10000002,
        order_type="sell",
        price="min",
        detail="compact",
        last_modified=now,
        expires=now,
        etag="",
        pages=433,
        orders=1,
        records=1,
        written_at=now,
    )
    with Lease(table) as lease:
        lease.wait()
        lease.complete(snapshot)
    item = table.read_snapshot()
    assert item == scan(dynamodb, table.name)["#snapshot"]
    assert item
    assert (item["pages"], item["last_modified"]) == ({"N": "433"}, {"S": "2026-11-24T12:00:00Z"})
    assert (table.read_units, table.write_units) == (2, 1)


def test_foreign_snapshot_is_told() -> None:
    """A `#snapshot` that is not this program's says so, and what to do."""
    with pytest.raises(
        TableError, match="#snapshot is not this program's .*: give another table_name, or run with force"
    ):
        TableSnapshot.from_item({"pk": {"S": "#snapshot"}})


@pytest.mark.parametrize("expected_records", [0, 30_000])
def test_scan_reads_all_pages(table: Table, expected_records: int) -> None:
    """A table of more than 1 MB is read whole, in one segment or in several, and without `#snapshot`."""
    requests = [put_request(record(number, 60_000)) for number in range(25)]
    table.write_batch(requests, unguarded)
    assert table.scan(expected_records) == {str(number): record(number, 60_000) for number in range(25)}


def test_batch_puts_and_deletes(table: Table, dynamodb: DynamoDBClient) -> None:
    """A batch puts and deletes, and its write units are counted."""
    table.write_batch([put_request(record(number)) for number in range(25)], unguarded)
    table.write_batch([put_request(record(100)), delete_request("3")], unguarded)
    assert scan(dynamodb, table.name).keys() == {str(number) for number in range(25)} - {"3"} | {"100"}
    assert table.write_units == 27


def test_wrong_key_is_told(dynamodb: DynamoDBClient, table_name: str) -> None:
    """A table with another key is refused, by a message that says which it must be."""
    dynamodb.create_table(
        TableName=table_name,
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "N"}],
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
    )
    with Table(table_name, 1) as table, pytest.raises(TableError, match=r"partition key must be pk \(S\)") as caught:
        table.read_snapshot()
    assert type(caught.value) is TableError


class Scripted(BaseHTTPRequestHandler):
    """Answers BatchWriteItem as the table's name says."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body in one packet
    calls: dict[str, int] = {}  # noqa: RUF012 (one count for all connections)

    def do_POST(self) -> None:
        """Answers one call."""
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        [(name, writes)] = request["RequestItems"].items()
        call = self.calls[name] = self.calls.get(name, 0) + 1
        if name == "Reset":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        elif name == "Cut":
            self.send(200, {"UnprocessedItems": {name: writes}}, cut_bytes=40)
        elif name in ERRORS:
            status, code = ERRORS[name]
            self.send(status, {"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": "told"})
        elif name == "Null":
            self.send(200, {"UnprocessedItems": None, "ConsumedCapacity": None})
        else:
            left = {"All": writes, "Some": writes[5:], "Slow": writes if call % 5 else writes[1:]}[name]
            self.send(200, {"UnprocessedItems": {name: left} if left else {}})

    def send(self, status: int, body: dict[str, Any], cut_bytes: int = 0) -> None:
        """Sends JSON, its end cut off."""
        encoded = json.dumps(body).encode()
        encoded = encoded[: len(encoded) - cut_bytes]
        self.send_response(status)
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        self.wfile.write(encoded)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class's name)
        """Says nothing."""


ERRORS = {
    "Throttled": (400, "ProvisionedThroughputExceededException"),
    "Throttling": (400, "ThrottlingException"),
    "Broken": (500, "InternalServerError"),
    "Denied": (400, "AccessDeniedException"),
    "Missing": (400, "ResourceNotFoundException"),
}


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A store that does what the table's name says."""
    Scripted.calls.clear()
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Scripted) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", f"http://127.0.0.1:{server.server_address[1]}")
        monkeypatch.setattr("tasks.table.MAX_WAIT_SECONDS", 0.01)
        yield
        server.shutdown()


REQUESTS = [put_request(record(number)) for number in range(25)]


@pytest.mark.usefixtures("scripted")
@pytest.mark.parametrize(("name", "calls"), [("Some", 5), ("Slow", 125)])
def test_unprocessed_items_are_sent_again(name: str, calls: int) -> None:
    """What is left unprocessed is sent again, as long as some of it goes through, and is counted."""
    with Table(name, 1) as table:
        table.write_batch(REQUESTS, unguarded)
    assert (Scripted.calls[name], table.failures) == (calls, {"unprocessed items": calls - 1})


@pytest.mark.usefixtures("scripted")
def test_null_is_nothing() -> None:
    """A store that says null where it has nothing to say is understood."""
    with Table("Null", 1) as table:
        table.write_batch(REQUESTS, unguarded)
    assert (Scripted.calls["Null"], table.write_units) == (1, 0)


@pytest.mark.usefixtures("scripted")
def test_no_call_is_made_without_being_allowed() -> None:
    """Before each call, a repeated one too, it is asked whether it may be made; after a no nothing more is sent."""
    answers = iter([None, None, LeaseLostError("taken over")])

    def check() -> None:
        if answer := next(answers):
            raise answer

    with Table("Some", 1) as table, pytest.raises(LeaseLostError, match="taken over"):
        table.write_batch(REQUESTS, check)
    assert Scripted.calls["Some"] == 2


@pytest.mark.usefixtures("scripted")
def test_batch_without_progress_is_given_up() -> None:
    """After eight calls in a row that stored nothing the batch is given up for now, by its table and first item."""
    with (
        Table("All", 1) as table,
        pytest.raises(TransientTableError, match="table All: 25 writes, the first a put of 0"),
    ):
        table.write_batch(REQUESTS, unguarded)
    assert Scripted.calls["All"] == STALLED_CALLS


@pytest.mark.usefixtures("scripted")
@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("Throttled", TransientTableError),
        ("Throttling", TransientTableError),
        ("Broken", TransientTableError),
        ("Reset", TransientTableError),
        ("Cut", TransientTableError),
        ("Denied", TableError),
        ("Missing", MissingTableError),
    ],
)
def test_failed_call_is_judged(name: str, error: type[TableError]) -> None:
    """Throttling, DynamoDB's own failures and broken connections may pass; all else does not."""
    with Table(name, 1) as table, pytest.raises(error, match=f"table {name}") as caught:
        table.write_batch(REQUESTS, unguarded)
    assert type(caught.value) is error


def test_nobody_there_may_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused connection is worth another try."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", "http://127.0.0.1:9")
    with Table("MarketData", 1) as table, pytest.raises(TransientTableError, match="Could not connect to the endpoint"):
        table.read_snapshot()


@pytest.mark.parametrize("name", ["Abc", "MarketData-10000002", "a.b_c-d", "x" * 255])
def test_good_name_passes(name: str) -> None:
    """Names that DynamoDB takes pass."""
    assert check_table_name(name) == name


@pytest.mark.parametrize("name", ["", "ab", "a b", "Markt/Daten", "Märkte", "x" * 256, "MarketData\n"])
def test_bad_name_is_refused(name: str) -> None:
    """Names that DynamoDB does not take are refused before any call."""
    with pytest.raises(ValueError, match="table_name is .*: give 3 to 255 letters"):
        check_table_name(name)


def test_no_region_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an AWS region the message says what boto3 reads."""
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    with pytest.raises(TableError, match="must specify a region.*AWS_DEFAULT_REGION"):
        Table("MarketData", 1)


@pytest.mark.parametrize(
    ("url", "expected"),
    [("http://127.0.0.1:1", True), ("http://localhost:1", True), ("https://dynamodb.us-east-1.amazonaws.com", False)],
)
def test_this_machine_is_known(monkeypatch: pytest.MonkeyPatch, url: str, expected: bool) -> None:
    """Only a table on this machine may be created without asking."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", url)
    with Table("MarketData", 1) as table:
        assert table.is_local is expected
